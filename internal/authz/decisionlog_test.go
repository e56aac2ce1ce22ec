package authz

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// linesOf returns the lines of a log, which it empties.
func linesOf(t *testing.T, log *bytes.Buffer) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for text := range strings.Lines(log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		lines = append(lines, line)
	}
	log.Reset()
	return lines
}

// Each row is a way that a check can end: which steps have a time, and what a replay is told.
func TestLineTellsHowFarACheckCame(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.Log.ConfigRevision = "sha256:config"
		c.Authenticator = authenticator{"away": validator.ErrKeysUnavailable, "old": &validator.TokenError{Reason: validator.ErrExpired}}
		c.Authorizer = authorizer(func(_ context.Context, in *policy.Input) (policy.Decision, error) {
			if in.Canonical.Path == "/orders/7" {
				return policy.Decision{}, &policy.EvalError{Message: "no"}
			}
			return policy.Decision{Allowed: in.Canonical.Path == "/orders"}, nil
		})
	})
	all := []string{"read_us", "route_us", "authenticate_us", "authorize_us", "respond_us"}
	tests := []struct {
		name, path, token string
		outcome, reason   string
		steps             []string
		asked             bool
	}{
		{"allowed", "/orders", "good", "allowed", "allowed", all, true},
		{"denied by the policy", "/files/7", "good", "denied", "policy_denied", all, true},
		{"failed in the policy", "/orders/7", "good", "failed", "policy_error", all, true},
		{"no route", "/nowhere", "good", "denied", "no_route", all, false},
		{"refused", "/orders", "old", "refused", "expired", []string{"read_us", "route_us", "authenticate_us", "respond_us"}, false},
		{"keys away", "/orders", "away", "failed", "keys_unavailable", []string{"read_us", "route_us", "authenticate_us", "respond_us"}, false},
		{"unreadable", "/a/../b", "good", "refused", "invalid_path", []string{"read_us", "respond_us"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			send(t, h.Service, get(test.path, withHeader("authorization", "Bearer "+test.token)))
			line := linesOf(t, h.log)[0]
			var steps []string
			for name := range maps.Keys(line) {
				if strings.HasSuffix(name, "_us") && name != "took_us" {
					steps = append(steps, name)
				}
			}
			slices.Sort(steps)
			slices.Sort(test.steps)
			if diff := cmp.Diff(test.steps, steps); diff != "" {
				t.Errorf("steps (-want +got)\n%s", diff)
			}
			if line["outcome"] != test.outcome || line["reason"] != test.reason || line["config_revision"] != "sha256:config" || line["replayable"] != true {
				t.Errorf("found %v", line)
			}
			if asked := line["policy_revision"] == "sha256:test"; asked != test.asked {
				t.Errorf("policy_revision is %v, want the policy to have been asked: %t", line["policy_revision"], test.asked)
			}
		})
	}
}

// The revision is of the policy that decided, even if there is a newer one when the line is made.
func TestLineHasThePolicyThatDecided(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.Authorizer = authorizer(func(_ context.Context, in *policy.Input) (policy.Decision, error) {
			in.Asked(policy.Policy{Revision: "sha256:old"})
			return policy.Decision{Revision: "sha256:old"}, nil
		})
	})
	send(t, h.Service, get("/orders"))
	if line := linesOf(t, h.log)[0]; line["policy_revision"] != "sha256:old" {
		t.Errorf("policy_revision is %v, want sha256:old", line["policy_revision"])
	}
}

// What the policy reads and the line does not have, the line names.
func TestLineNamesWhatIsMissing(t *testing.T) {
	e, err := policy.New(t.Context(), policy.Config{FS: fstest.MapFS{"p.rego": {Data: []byte(`package extauthz
default decision := false
decision if {
	data.extauthz.base.decision.allowed
	input.parsed_query.page[0] != "9"
	input.attributes.request.http.headers["x-tenant"] != "b"
}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	edits := map[string]func(*Config){
		"nothing included": nil,
		"both included":    func(c *Config) { c.Log.Headers, c.Log.Query = []string{"x-tenant"}, []string{"page"} },
	}
	const header, page = `input.attributes.request.http.headers["x-tenant"]`, "input.parsed_query.page"
	raw := func(h *authv3.AttributeContext_HttpRequest) {
		h.HeaderMap = &corev3.HeaderMap{}
		for name, value := range h.Headers {
			h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, Value: value})
		}
		h.Headers = nil
	}
	tests := []struct {
		edit    string
		path    string
		request func(*authv3.AttributeContext_HttpRequest)
		want    any
	}{
		{"nothing included", "/orders?page=1", withHeader("x-tenant", "a"), []any{header, page}},
		{"both included", "/orders?page=1", withHeader("x-tenant", "a"), nil},
		{"both included", "/orders", withoutHeader("x-tenant"), nil},
		{"both included", "/orders?page=1&page=2", withHeader("x-tenant", ""), nil},
		{"both included", "/orders?page=1", raw, []any{header}},
		{"both included", "/orders?page=%zz", withHeader("x-tenant", "a"), []any{page}},
		{"nothing included", "/nowhere?page=1", withHeader("x-tenant", "a"), nil}, // the policy is not asked
	}
	for _, test := range tests {
		h := newHarness(t, func(c *Config) {
			c.Authorizer = e
			if edit := edits[test.edit]; edit != nil {
				edit(c)
			}
		})
		send(t, h.Service, get(test.path, test.request))
		line := linesOf(t, h.log)[0]
		if diff := cmp.Diff(test.want, line["missing"]); diff != "" || line["replayable"] != (test.want == nil) {
			t.Errorf("%s, %s: replayable %v, missing (-want +got)\n%s", test.edit, test.path, line["replayable"], diff)
		}
	}
}

// Included values are as the policy sees them: a list for what is there twice, empty for what is empty, nothing for nothing.
func TestIncludedValues(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.Log.Headers, c.Log.Query, c.Log.Claims = []string{"x-a", "x-b"}, []string{"one", "two", "none", "empty"}, []string{"sub"}
	})
	send(t, h.Service, get("/orders?one=1&two=1&two=2&empty=", withHeader("x-a", "")))
	line := linesOf(t, h.log)[0]
	maps.DeleteFunc(line, func(name string, _ any) bool { return !strings.Contains(name, ".") })
	want := map[string]any{"headers.x-a": "", "query.one": "1", "query.two": []any{"1", "2"}, "query.empty": ""}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Each outcome has a share of its own.
func TestSamplingByOutcome(t *testing.T) {
	requests := map[Outcome]*authv3.CheckRequest{
		Allowed: get("/orders"), Refused: get("/orders", withHeader("authorization", "Bearer bad")), Denied: get("/nowhere"),
		Failed: get("/orders", withHeader("authorization", "Bearer away")),
	}
	for one := range requests {
		h := newHarness(t, func(c *Config) {
			c.Authenticator = authenticator{"away": errors.New("away")}
			c.Log.Ratios = map[Outcome]float64{Allowed: 0, Refused: 0, Denied: 0, Failed: 0}
			c.Log.Ratios[one] = 0.5
		})
		const checks = 400
		for range checks {
			for _, req := range requests {
				sendOnce(t, h.Service, req)
			}
		}
		lines := linesOf(t, h.log)
		for _, line := range lines {
			if line["outcome"] != string(one) || line["sample_ratio"] != 0.5 {
				t.Fatalf("%s: found %v", one, line)
			}
		}
		// Eight standard deviations of a binomial distribution are 80.
		if n := len(lines); n < checks/2-80 || n > checks/2+80 {
			t.Errorf("%s: %d lines of %d checks, want about half", one, n, checks)
		}
	}
}

// The trace id of a line is what OpenTelemetry makes of the request's traceparent.
func TestTraceIDIsOpenTelemetrys(t *testing.T) {
	const id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for _, parent := range []string{
		"00-" + id + "-" + span + "-01", "00-" + id + "-" + span + "-00", "00-" + id + "-" + span + "-03", "01-" + id + "-" + span + "-01",
		"01-" + id + "-" + span + "-01-more", "00-" + id + "-" + span + "-01-more", "ff-" + id + "-" + span + "-01", "00-" + id + "-" + span,
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01", "00-" + id + "-" + strings.Repeat("0", 16) + "-01",
		"00-" + strings.ToUpper(id) + "-" + span + "-01", "00-" + id[1:] + "-" + span + "-01", "00-" + id + "-x-01", "", "-", "----",
	} {
		c := new(check)
		c.request.headers = headers{{"traceparent", parent}}
		want := traceIDOf(trace.SpanContextFromContext(c.request.traceContext(t.Context())))
		if got := c.traceID(); got != want {
			t.Errorf("%q: trace id %q, want %q", parent, got, want)
		}
	}
}
