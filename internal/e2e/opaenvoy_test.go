package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// opaEnvoy starts an extauthz with one of the policies that a real OPA-Envoy was recorded with, and before it an Envoy that
// takes everything and scrubs nothing.
func opaEnvoy(t *testing.T, policy, authentication string) (*service, *gateway) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "authz", "testdata", "opa-envoy", "policies", policy))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, policy), text, 0o600); err != nil {
		t.Fatal(err)
	}
	x := newService(t, "opaenvoy.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer(), "POLICY": dir, "AUTHENTICATION": authentication})
	return x, newGateway(t, x, lab.PlainHeaders(), lab.PlainPaths(), lab.FailOpen(), patience())
}

// A policy that decodes the token by itself decides, by a token that was verified before.
func TestPolicyOfOPAEnvoyDecodesTheToken(t *testing.T) {
	t.Parallel()
	x, g := opaEnvoy(t, "scopes.rego", "optional")
	tests := []struct {
		name, line string
		headers    []string
		want       outcome
	}{
		{"the scope", "/orders/7", []string{bearer(t, batchID)}, reaches("/orders/7")},
		{"another scope", "/orders/7", []string{bearer(t, batchID, cognitotest.Scopes("orders/write"))}, denied("policy_denied")},
		{"another path", "/other", []string{bearer(t, batchID)}, denied("policy_denied")},
		{"no token: the policy is asked", "/orders/7", nil, denied("policy_denied")},
		{"another scheme: the policy is asked", "/orders/7", []string{"Authorization: Basic dTpw"}, denied("policy_denied")},
		{
			"a token that the policy would take, of another pool", "/orders/7",
			[]string{"Authorization: Bearer " + pool(t, strictPool).Token(batchID)},
			refused("issuer", "The access token was not accepted."),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := g.get(t, tt.line, append(tt.headers, forgeries...)...)
			if diff := cmp.Diff(tt.want, a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			if a.seen == nil {
				return
			}
			checkNothingForged(t, a.seen)
			if got := a.seen.Headers["x-auth-client-id"]; len(got) != 1 || got[0] != batchID {
				t.Errorf("the upstream saw x-auth-client-id %q, want %q", got, batchID)
			}
		})
	}
	log := x.Stderr()
	if !strings.Contains(log, "requests without a token reach the policy") {
		t.Errorf("the log does not say that authentication is optional:\n%s", log)
	}
	for _, secret := range []string{"Bearer", "dTpw", "eyJ"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q of an Authorization header", secret)
		}
	}
}

// A policy may let requests without a token pass. They carry no identity, neither one of ours nor a forged one.
func TestPolicyOfOPAEnvoyAllowsWithoutAToken(t *testing.T) {
	t.Parallel()
	x, g := opaEnvoy(t, "methods.rego", "optional")
	a := g.get(t, "/health", forgeries...)
	if diff := cmp.Diff(reaches("/health"), a.outcome()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	if got := identityOf(a.seen, "x-auth-"); len(got) != 0 {
		t.Errorf("the upstream saw %v, want no identity headers", got)
	}
	if diff := cmp.Diff(denied("policy_denied"), g.get(t, "/catalog/internal/prices").outcome()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, _, metrics := fetch(t, "http://"+x.Metrics+"/metrics"); !strings.Contains(metrics, "\nextauthz_policy_unknown_keys_total 0\n") {
		t.Error("/metrics has no extauthz_policy_unknown_keys_total")
	}
	if entry := g.logged(t, a); entry["reason"] != "allowed" || entry["route"] != "" && entry["route"] != nil && entry["route"] != "-" {
		t.Errorf("Envoy's access log has %v", entry)
	}
}

// Without a word about it, a token is needed, whatever the policy would say.
func TestPolicyOfOPAEnvoyNeedsATokenByDefault(t *testing.T) {
	t.Parallel()
	_, g := opaEnvoy(t, "methods.rego", "required")
	want := outcome{Status: 401, Reason: "missing_token", ContentType: problemType, Challenge: `Bearer realm="extauthz"`}
	if diff := cmp.Diff(want, g.get(t, "/health").outcome()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(reaches("/health"), g.get(t, "/health", bearer(t, reportsID)).outcome()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
