package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// The cost at a rate lies between those that were measured, and never rises with the rate.
func TestCostAtARate(t *testing.T) {
	r := &results{Cells: []cell{
		{Group: groupLatency, Server: extauthz, Scenario: "100/s", CPU: 300},
		{Group: groupLatency, Server: extauthz, Scenario: "1000/s", CPU: 320}, // a busy moment
		{Group: groupLatency, Server: extauthz, Scenario: "10000/s", CPU: 60, Slow: true},
		{Group: groupChecks, Server: extauthz, Scenario: "warm", CPU: 40, Answered: 30_000, Seconds: 3},
	}}
	all := r.costs()
	for rate, want := range map[float64]float64{1: 320, 100: 320, 1000: 320, math.Sqrt(1e7): 180, 10_000: 40, 1e6: 40} {
		if got := at(all, rate); math.Abs(got-want) > 0.01 {
			t.Errorf("a check costs %.2f µs at %.0f a second, want %.2f", got, rate, want)
		}
	}
	// 0.6 of a core is 15,000 checks of 40 µs.
	if got := perReplica(all); math.Abs(got-15_000) > 1 {
		t.Errorf("a replica gets %.0f checks a second, want 15,000", got)
	}
	for rate, want := range map[float64]float64{10: 3, 45_000: 3, 45_100: 4, 1_500_000: 100} {
		if got := replicasFor(rate, all); got != want {
			t.Errorf("%.0f replicas for %.0f checks a second, want %.0f", got, rate, want)
		}
	}
	if got := perReplica(nil); got > 1 {
		t.Errorf("without figures a replica gets %.0f checks a second", got)
	}
}

func TestNumbersAreWritten(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.0123: "0.012", 3: "3", 3.14: "3.1", 999.6: "1,000", 1_234_567: "1,234,567", math.NaN(): "?"} {
		if got := number(n); got != want {
			t.Errorf("%g is written %q, want %q", n, got, want)
		}
	}
	for n, want := range map[float64]string{12: "12 B", 1536: "1.5 KiB", 64 << 20: "64 MiB", 5 << 40: "5 TiB", 1 << 52: "4,096 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%g bytes are written %q, want %q", n, got, want)
		}
	}
}

// What the sums suppose of the configuration is what it has by default.
func TestDefaultsOfTheSums(t *testing.T) {
	root, err := lab.Root()
	if err != nil {
		t.Fatal(err)
	}
	read := func(path ...string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	config := read("docs", "config.md")
	for name, want := range map[string]string{
		"maxAge": "1h", "minInterval": "10s", "maxStale": "24h", "concurrentChecks": strconv.Itoa(checksAtOnce), "sampleRatio": "0.01",
	} {
		found := regexp.MustCompile("- \\*\\*`" + name + "`\\*\\*: [^\n]*default `([^`]*)`").FindStringSubmatch(config)
		if found == nil || found[1] != want {
			t.Errorf("docs/config.md has the default %q of %s, want %s", found, name, want)
		}
	}
	if !strings.Contains(config, fmt.Sprintf("default `%d`, variable `EXTAUTHZ__TOKEN_CACHE__MAX_BYTES`", defaultCacheBytes)) {
		t.Errorf("docs/config.md has another default of tokenCache.maxBytes than %d", defaultCacheBytes)
	}
	hpa := read("deploy", "istio", "horizontal-pod-autoscaler.yaml")
	if !strings.Contains(hpa, fmt.Sprintf("averageUtilization: %.0f\n", 100*hpaTarget)) || !strings.Contains(hpa, fmt.Sprintf("minReplicas: %d ", leastReplicas)) {
		t.Errorf("horizontal-pod-autoscaler.yaml has another target than %g or minimum than %d", hpaTarget, leastReplicas)
	}
	if limits := read("internal", "decisionlog", "decisionlog.go"); !strings.Contains(limits, "Items: 8 << 10") {
		t.Errorf("the queue of the decision log has another bound than %d lines", logQueue)
	}
}

// A page can be made of results that are not all there.
func TestPagesWithoutResults(t *testing.T) {
	few := new(recorded)
	if err := json.Unmarshal([]byte(`{"cells":[]}`), &few.bench); err != nil {
		t.Fatal(err)
	}
	few.scale, few.simulation, few.profile = new(results), &simulation{TokenBytes: 1}, new(profiled)
	for _, s := range sections {
		var text strings.Builder
		s.text(few, &text)
	}
	for _, d := range drawings {
		if len(d.plot(few)) == 0 {
			t.Errorf("%s is empty", d.file)
		}
	}
}
