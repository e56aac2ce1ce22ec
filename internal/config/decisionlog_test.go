package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const smallest = "pools: {main: {region: eu-west-1, userPoolId: eu-west-1_AbCdEfGhI, anyClient: true}}\nroutes: [{path: /x, methods: [GET], anyClient: true}]\n"

func TestRatios(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]float64{
		"": {"allowed": 0, "refused": 1, "denied": 1, "failed": 1},
		"decisionLog: {allowed: all, failed: none}\n": {"allowed": 1, "refused": 1, "denied": 1, "failed": 0},
		"decisionLog: {allowed: sampled}\n":           {"allowed": 0.01, "refused": 1, "denied": 1, "failed": 1},
		"decisionLog: {allowed: sampled, refused: sampled, sampleRatio: 0.5, sampleRatios: {refused: 0.25}}\n": {
			"allowed": 0.5, "refused": 0.25, "denied": 1, "failed": 1,
		},
	} {
		if diff := cmp.Diff(want, parse(t, smallest+text).DecisionLog.Ratios()); diff != "" {
			t.Errorf("%s(-want +got)\n%s", text, diff)
		}
	}
}

// Decisions go to OPA's plugin only if its section says where they go from there.
func TestDecisionsToOPA(t *testing.T) {
	t.Parallel()
	const to = smallest + "decisionLog: {to: opa}\n"
	for text, want := range map[string]string{
		to: "f.yaml:3:19: decisionLog.to: found opa without decision_logs in the section opa, want it to say where they go",
		to + "opa: {services: {a: {url: https://a.example}}, decision_logs: {service: a}}\n":    "",
		to + "opa: {services: {a: {url: https://a.example}}, discovery: {resource: /config}}\n": "",
	} {
		got := ""
		if _, err := Parse("f.yaml", []byte(text), nil); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: found %q, want %q", text, got, want)
		}
	}
}
