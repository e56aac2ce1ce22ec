package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// forgeries are header lines that some server takes for an identity header. Each has the value "forged".
var forgeries = []string{
	"x-auth-client-id: forged",
	"X-Auth-Client-Id: forged",
	"X-AUTH-CLIENT-ID: forged",
	"x-Auth-cLIENT-iD: forged",
	"x_auth_client_id: forged",
	"X_AUTH_CLIENT_ID: forged",
	"x-auth_client-id: forged",
	"x_auth-client-id: forged",
	"x.auth.client.id: forged",
	"X.Auth.Client.Id: forged",
	"x-auth.client_id: forged",
	"x~auth~client~id: forged",
	"x!auth!client!id: forged",
	"x|auth|client|id: forged",
	"x'auth'client'id: forged",
	"x#auth$client%id: forged",
	"x&auth*client+id: forged",
	"x^auth`client-id: forged",
	"x-auth-client-name: forged",
	"x-auth-scopes: forged",
	"x-auth-pool: forged",
	"x-auth-issuer: forged",
	"x-auth-subject: forged",
	"x-auth-token-id: forged",
	"x-auth-tier: forged",
	"x-auth-anything: forged",
	"x-auth-user-of-an-older-release: forged",
	"x-auth-: forged",
	"x_auth_: forged",
}

// checkNothingForged checks that no header of the request that the upstream saw is one of the forgeries.
func checkNothingForged(t *testing.T, seen *lab.Echoed) {
	t.Helper()
	for name, values := range seen.Headers {
		if strings.HasPrefix(fold(name), "x-auth-") && slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "forged") }) {
			t.Errorf("the upstream saw %s: %q", name, values)
		}
	}
}

func TestForgedIdentityHeadersNeverArrive(t *testing.T) {
	t.Parallel()
	good := bearer(t, batchID)
	routes := []struct {
		name, target string
		headers      []string
		identity     int // headers that extauthz sets
	}{
		{"with a token", "/orders/7", []string{good}, 7},
		{"on a public route", "/healthz", nil, 0},
		{"on a public route with a token", "/public/a/b", []string{good}, 0},
	}
	// rules lets all spellings come to the check, and holds the answers to the shipped rules: extauthz may remove each.
	rules := newGateway(t, mainService(t), patience(), []lab.Edit{
		lab.Remove(lab.HCMPath + "/early_header_mutation_extensions"),
		lab.Set(lab.HCMPath+"/common_http_protocol_options/headers_with_underscores_action", "ALLOW"),
	})
	gateways := []struct {
		name        string
		gateway     *gateway
		underscores bool // arrive at the check
	}{
		{"shipped", shipped(t), false},
		{"rules", rules, true},
		{"open", open(t), true},
	}
	for _, gw := range gateways {
		for _, route := range routes {
			t.Run(gw.name+" "+route.name, func(t *testing.T) {
				t.Parallel()
				check := func(name string, a answer) {
					t.Helper()
					if diff := cmp.Diff(reaches(route.target), a.outcome()); diff != "" {
						t.Errorf("%s: -want +got:\n%s", name, diff)
						return
					}
					checkNothingForged(t, a.seen)
					if got := identityOf(a.seen, "x-auth-"); len(got) != route.identity {
						t.Errorf("%s: the upstream saw %v, want %d identity headers", name, got, route.identity)
					}
					for name, values := range identityOf(a.seen, "x-auth-") {
						if len(values) != 1 {
							t.Errorf("%s: the upstream saw %s: %q, want one value", name, name, values)
						}
					}
				}
				var accepted []string // by Envoy
				for _, line := range forgeries {
					name, _, _ := strings.Cut(line, ":")
					a := gw.gateway.get(t, route.target, append(slices.Clone(route.headers), line)...)
					h2a := gw.gateway.sendH2(t, h2("GET", route.target, toFields(append(slices.Clone(route.headers), line))...))
					if strings.Contains(name, "_") && !gw.underscores {
						if a.outcome() != byEnvoy(400) || h2a.seen != nil {
							t.Errorf("%s: got %+v and over HTTP/2 %+v, want Envoy's 400 and no answer", name, a.outcome(), h2a.outcome())
						}
						continue
					}
					check(name, a)
					check(name+" over HTTP/2", h2a)
					accepted = append(accepted, line)
				}
				check("each twice", gw.gateway.get(t, route.target, slices.Concat(route.headers, accepted, accepted)...))
				check("each named in Connection", gw.gateway.get(t, route.target, slices.Concat(route.headers, accepted,
					[]string{"Connection: x-auth-client-id, x-auth-scopes, keep-alive"})...))
			})
		}
	}
}

// toFields makes fields of header lines, in the lower case that HTTP/2 asks for (RFC 9113 section 8.2.1).
func toFields(lines []string) []field {
	var fields []field
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		fields = append(fields, field{strings.ToLower(name), value})
	}
	return fields
}

// A client cannot have the headers taken out on the way that extauthz has set, by naming them hop-by-hop (RFC 9110
// section 7.6.1).
func TestIdentityHeadersCannotBeMadeHopByHop(t *testing.T) {
	t.Parallel()
	for _, g := range []*gateway{shipped(t), open(t)} {
		for _, connection := range []string{
			"Connection: x-auth-client-id", "Connection: close, X-Auth-Client-Id, x-auth-scopes", "Proxy-Connection: x-auth-client-id", "Keep-Alive: x-auth-client-id",
		} {
			a := g.get(t, "/orders/7", bearer(t, batchID), connection)
			if diff := cmp.Diff(reaches("/orders/7"), a.outcome()); diff != "" {
				t.Fatalf("%s: -want +got:\n%s", connection, diff)
			}
			if diff := cmp.Diff([]string{batchID}, a.seen.Headers["x-auth-client-id"]); diff != "" {
				t.Errorf("%s: x-auth-client-id: -want +got:\n%s", connection, diff)
			}
			if got := a.seen.Headers["authorization"]; got != nil {
				t.Errorf("%s: the upstream saw the token", connection)
			}
		}
		// Envoy takes what is named there out before the check.
		a := g.get(t, "/orders/7", bearer(t, batchID), "Connection: authorization")
		if diff := cmp.Diff(missing(), a.outcome()); diff != "" {
			t.Errorf("the token named in Connection: -want +got:\n%s", diff)
		}
	}
}

// Trailers arrive after the check, so extauthz never sees them: Envoy's filter takes identity names out. docs/security.md
// says what happens without it.
func TestForgedTrailers(t *testing.T) {
	t.Parallel()
	withoutFilter := newGateway(t, mainService(t), []lab.Edit{lab.Remove(lab.HCMPath + "/http_filters/envoy.filters.http.header_mutation")})
	good := append(toFields([]string{bearer(t, batchID)}),
		field{"trailer", "x-auth-client-id, x.auth.pool, x-auth-anything, authorization, checksum"}) // Go shows announced ones
	trailers := []field{{"x-auth-client-id", "forged"}, {"x.auth.pool", "forged"}, {"x-auth-anything", "forged"}, {"checksum", "1"}}
	authorization := field{"authorization", "Bearer forged"}
	tests := []struct {
		name     string
		gateway  *gateway
		trailers []field
		want     map[string][]string
	}{
		{"shipped", shipped(t), append(slices.Clone(trailers), authorization), map[string][]string{"checksum": {"1"}}},
		{"without the filter", withoutFilter, trailers, map[string][]string{ // without authorization, for which a Go server ends the stream
			"x-auth-client-id": {"forged"}, "x.auth.pool": {"forged"}, "x-auth-anything": {"forged"}, "checksum": {"1"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := tt.gateway.sendH2(t, h2("POST", "/orders", good...), tt.trailers...)
			if diff := cmp.Diff(reaches("/orders"), a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, a.seen.Trailers); diff != "" {
				t.Errorf("trailers: -want +got:\n%s", diff)
			}
			if diff := cmp.Diff([]string{batchID}, a.seen.Headers["x-auth-client-id"]); diff != "" {
				t.Errorf("x-auth-client-id: -want +got:\n%s", diff)
			}
		})
	}
	t.Run("underscores end the stream", func(t *testing.T) {
		a := shipped(t).sendH2(t, h2("POST", "/orders", good...), field{"x_auth_client_id", "forged"})
		if a.seen != nil {
			t.Errorf("the upstream answered %+v, want no request there", a.seen)
		}
	})
	t.Run("those of HTTP/1.1 are dropped", func(t *testing.T) {
		for _, g := range []*gateway{shipped(t), withoutFilter} {
			a := g.send(t, "POST /orders HTTP/1.1", host, bearer(t, batchID), "Transfer-Encoding: chunked", "Trailer: X-Auth-Client-Id",
				"", "4\r\nbody\r\n0\r\nX-Auth-Client-Id: forged\r\n\r\n")
			if diff := cmp.Diff(reaches("/orders"), a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			if len(a.seen.Trailers) > 0 || a.seen.BodyBytes != 4 {
				t.Errorf("the upstream saw %+v, want the body and no trailers", a.seen)
			}
		}
	})
}

// A header that overrides the request line for some frameworks does not reach them past the shipped Envoy.
func TestOverridesOfTheRequestLineNeverArrive(t *testing.T) {
	t.Parallel()
	a := shipped(t).get(t, "/public/a", "X-Http-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE",
		"X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Envoy-Original-Path: /admin",
		"X-Forwarded-Host: partner.example.com", "Forwarded: host=partner.example.com")
	if diff := cmp.Diff(reaches("/public/a"), a.outcome()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	for name, values := range a.seen.Headers {
		if strings.Contains(name, "method") || strings.Contains(name, "url") || strings.Contains(name, "original-path") ||
			strings.HasSuffix(name, "forwarded") || strings.Contains(name, "host") {
			t.Errorf("the upstream saw %s: %q", name, values)
		}
	}
}
