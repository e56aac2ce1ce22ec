package e2e_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// identityOf returns the headers that begin with a prefix in any spelling.
func identityOf(seen *lab.Echoed, prefix string) map[string][]string {
	found := maps.Clone(seen.Headers)
	maps.DeleteFunc(found, func(name string, _ []string) bool { return !strings.HasPrefix(fold(name), prefix) })
	return found
}

// fold maps the spellings of a header name to one, as the most careless of servers do.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

func TestAllowedRequestTellsWhoIsCalling(t *testing.T) {
	t.Parallel()
	g := shipped(t)
	p := pool(t, mainPool)
	token := p.Token(batchID, cognitotest.Claim("jti", "11111111-2222-4333-8444-555555555555"), cognitotest.Claim("custom:tier", "gold & 100%"))
	a := g.get(t, "/orders/7?page=2", "Authorization: Bearer "+token, "X-Tenant: t0")
	if diff := cmp.Diff(reaches("/orders/7?page=2"), a.outcome()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	want := map[string][]string{
		"x-auth-client-id":   {batchID},
		"x-auth-client-name": {"orders-batch"},
		"x-auth-scopes":      {"orders/read orders/write"},
		"x-auth-pool":        {"main"},
		"x-auth-issuer":      {p.Issuer()},
		"x-auth-subject":     {batchID},
		"x-auth-token-id":    {"11111111-2222-4333-8444-555555555555"},
		"x-auth-tier":        {"gold%20&%20100%25"},
	}
	if diff := cmp.Diff(want, identityOf(a.seen, "x-auth-")); diff != "" {
		t.Errorf("identity headers: -want +got:\n%s", diff)
	}
	if got := a.seen.Headers["authorization"]; got != nil {
		t.Errorf("the upstream saw authorization: %q, want none", got)
	}
	if a.seen.Path != "/orders/7?page=2" || a.seen.Method != "GET" || a.seen.Headers["x-tenant"][0] != "t0" {
		t.Errorf("the upstream saw %+v, want the request as it was sent", a.seen)
	}
	if strings.Contains(strings.ToLower(a.header.Get("Server")+a.header.Get("X-Auth-Client-Id")), "auth") {
		t.Errorf("the client got %v, want no identity headers", a.header)
	}

	entry := g.logged(t, a)
	got := map[string]any{}
	for _, name := range []string{"status", "details", "flags", "path", "reason", "route", "pool", "client_id", "client_name", "token_id"} {
		got[name] = entry[name]
	}
	if diff := cmp.Diff(map[string]any{
		"status": 200.0, "details": "via_upstream", "flags": "-", "path": "/orders/7",
		"reason": "allowed", "route": "GET,HEAD /orders/{id}", "pool": "main",
		"client_id": batchID, "client_name": "orders-batch", "token_id": "11111111-2222-4333-8444-555555555555",
	}, got); diff != "" {
		t.Errorf("Envoy's access log: -want +got:\n%s", diff)
	}
	id, _ := entry["decision_id"].(string)
	line := mainService(t).decision(t, id)
	for name, want := range map[string]any{
		"outcome": "allowed", "reason": "allowed", "method": "GET", "host": "api.example.com", "path": "/orders/7", "route": "GET,HEAD /orders/{id}",
		"client_id": batchID, "client": "orders-batch", "jti": "11111111-2222-4333-8444-555555555555", "request_id": a.header.Get("X-Request-Id"),
	} {
		if line[name] != want {
			t.Errorf("extauthz's log: %s is %v, want %v", name, line[name], want)
		}
	}
}

// What a token does not have is no empty header, and none that somebody else has put there.
func TestAllowedRequestHasNoHeaderWithoutAValue(t *testing.T) {
	t.Parallel()
	p := pool(t, mainPool)
	tests := []struct {
		name  string
		token string
		want  map[string][]string
	}{
		{
			"without scopes, subject, token id", p.Token(batchID, cognitotest.Scopes(), cognitotest.WithoutClaim("sub"), cognitotest.WithoutClaim("jti")),
			map[string][]string{
				"x-auth-client-id": {batchID}, "x-auth-client-name": {"orders-batch"}, "x-auth-pool": {"main"}, "x-auth-issuer": {p.Issuer()},
			},
		},
		{
			"a claim that could break out of its header", p.Token(batchID, cognitotest.Scopes(), cognitotest.WithoutClaim("sub"), cognitotest.Claim("jti", "a\r\nx-auth-pool: evil\x00é")),
			map[string][]string{
				"x-auth-client-id": {batchID}, "x-auth-client-name": {"orders-batch"}, "x-auth-pool": {"main"}, "x-auth-issuer": {p.Issuer()},
				"x-auth-token-id": {"a%0D%0Ax-auth-pool:%20evil%00%C3%A9"},
			},
		},
		{
			"a claim that is a list", p.Token(batchID, cognitotest.Scopes(), cognitotest.WithoutClaim("sub"), cognitotest.WithoutClaim("jti"), cognitotest.Claim("custom:tier", []any{"a b", 7, true})),
			map[string][]string{
				"x-auth-client-id": {batchID}, "x-auth-client-name": {"orders-batch"}, "x-auth-pool": {"main"}, "x-auth-issuer": {p.Issuer()},
				"x-auth-tier": {"a%20b 7 true"},
			},
		},
		{
			"a claim that is longer than the limit", p.Token(batchID, cognitotest.Scopes(), cognitotest.WithoutClaim("sub"), cognitotest.WithoutClaim("jti"), cognitotest.Claim("custom:tier", strings.Repeat("x", 4097))),
			map[string][]string{
				"x-auth-client-id": {batchID}, "x-auth-client-name": {"orders-batch"}, "x-auth-pool": {"main"}, "x-auth-issuer": {p.Issuer()},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, g := range []*gateway{shipped(t), open(t)} {
				a := g.get(t, "/files/a", "Authorization: Bearer "+tt.token, "X-Auth-Tier: forged", "X-Auth-Subject: forged", "X-Auth-Scopes: forged")
				if diff := cmp.Diff(reaches("/files/a"), a.outcome()); diff != "" {
					t.Fatalf("-want +got:\n%s", diff)
				}
				if diff := cmp.Diff(tt.want, identityOf(a.seen, "x-auth-")); diff != "" {
					t.Errorf("identity headers: -want +got:\n%s", diff)
				}
			}
		})
	}
}

// A public route takes everybody, makes nobody known, and looks at no token.
func TestPublicRouteTellsNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		headers []string
		want    []string // authorization, as the upstream sees it
	}{
		{"without a token", nil, nil},
		{"with a good token", []string{bearer(t, batchID)}, []string{strings.TrimPrefix(bearer(t, batchID), "Authorization: ")[:10]}},
		{"with a bad token", []string{"Authorization: Bearer junk"}, []string{"Bearer jun"}},
		{"with another scheme", []string{"Authorization: Basic eDp5"}, []string{"Basic eDp5"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := shipped(t).get(t, "/healthz", append(tt.headers, "X-Auth-Client-Id: forged", "X-Auth-Anything: forged")...)
			if diff := cmp.Diff(reaches("/healthz"), a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			if got := identityOf(a.seen, "x-auth-"); len(got) > 0 {
				t.Errorf("the upstream saw %v, want no identity headers", got)
			}
			var got []string
			for _, value := range a.seen.Headers["authorization"] {
				got = append(got, value[:10])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("authorization: -want +got:\n%s", diff)
			}
			if entry := shipped(t).logged(t, a); entry["reason"] != "allowed" || entry["client_id"] != nil || entry["route"] != "GET,HEAD /healthz" {
				t.Errorf("Envoy's access log has %v, want the route and no client", entry)
			}
		})
	}
}

// upstream.authorization: forward and another identityHeaders.prefix.
func TestAuthorizationForwardedAndOtherPrefix(t *testing.T) {
	t.Parallel()
	g := extendShipped(t)
	token := bearer(t, batchID)
	a := g.get(t, "/orders/7", token, "X-Caller-Client-Id: forged", "X-Caller-Anything: forged", "X-Auth-Client-Id: not ours here")
	if diff := cmp.Diff(reaches("/orders/7"), a.outcome()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{strings.TrimPrefix(token, "Authorization: ")}, a.seen.Headers["authorization"]); diff != "" {
		t.Errorf("authorization: -want +got:\n%s", diff)
	}
	got := identityOf(a.seen, "x-caller-")
	delete(got, "x-caller-token-id") // random
	if diff := cmp.Diff(map[string][]string{
		"x-caller-client-id": {batchID}, "x-caller-client-name": {"orders-batch"}, "x-caller-scopes": {"orders/read orders/write"},
		"x-caller-pool": {"main"}, "x-caller-issuer": {pool(t, mainPool).Issuer()}, "x-caller-subject": {batchID},
	}, got); diff != "" {
		t.Errorf("identity headers: -want +got:\n%s", diff)
	}
}
