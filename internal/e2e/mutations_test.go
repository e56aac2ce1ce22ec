package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// Every kind of allow passes the mutation rules of the shipped Envoy, changed only by the names of policy.requestHeaders:
// one that does not pass is a 500 for a good request.
func TestEveryKindOfAllowPassesTheMutationRules(t *testing.T) {
	t.Parallel()
	token := bearer(t, reportsID)
	sent := []string{"X-Tenant: t0", "X-Debug: off", "Accept-Language: en"}
	same := map[string]string{"x-tenant": "t0", "x-debug": "off", "accept-language": "en"}
	with := func(changes ...string) map[string]string {
		headers := map[string]string{}
		for name, value := range same {
			headers[name] = value
		}
		for i := 0; i < len(changes); i += 2 {
			if headers[changes[i]] = changes[i+1]; changes[i+1] == "" {
				delete(headers, changes[i])
			}
		}
		return headers
	}
	tests := []struct {
		name     string
		target   string // after /case/ and /open/
		headers  []string
		path     string            // that the upstream saw, if it is another
		want     map[string]string // of the three headers, what the upstream saw
		response map[string]string // what the client got
	}{
		{name: "nothing but identity", target: "yes", want: same},
		{name: "headers set", target: "sets-headers", want: with("x-tenant", "t1", "x-debug", "on,more")},
		{name: "headers set that were not there", target: "sets-headers", headers: []string{"X-Other: 1"}, want: with("x-tenant", "t1", "x-debug", "on,more")},
		{name: "headers set and removed", target: "sets-and-removes-headers", want: with("x-tenant", "t2", "x-debug", "", "accept-language", "de")},
		{
			name: "response headers added", target: "adds-response-headers", want: same,
			response: map[string]string{"X-Policy": "was,here", "Cache-Control": "no-store", "Set-Cookie": "a=1,b=2"},
		},
		{
			name: "query parameters changed", target: "changes-the-query?debug=1&page=1&x=%20y&debug=2", want: same,
			path: "changes-the-query?page=2&tenant=t1&x=%20y",
		},
		{name: "query parameters added to none", target: "changes-the-query", want: same, path: "changes-the-query?page=2&tenant=t1"},
		{name: "metadata added", target: "adds-metadata", want: same},
		{name: "identity headers removed in every spelling that Envoy lets through", target: "yes", headers: []string{
			"x-auth-subject: forged", "X-AUTH-CLIENT-ID: forged", "x.auth.pool: forged", "x~auth~tier: forged", "x-auth-: forged", "x-auth-anything: forged",
		}, want: same},
		{name: "a second Authorization that is empty", target: "yes", headers: []string{"Authorization: "}, want: same},
	}
	for _, tt := range tests {
		for _, prefix := range []string{"/case/", "/open/"} {
			for gateway, g := range map[string]*gateway{"shipped": ownShipped(t), "open": ownOpen(t)} {
				t.Run(fmt.Sprintf("%s%s at %s", prefix, tt.name, gateway), func(t *testing.T) {
					t.Parallel()
					headers := append([]string{}, sent...)
					if prefix == "/case/" {
						headers = append(headers, token)
					}
					a := g.get(t, prefix+tt.target, append(headers, tt.headers...)...)
					path := tt.path
					if path == "" {
						path = tt.target
					}
					if diff := cmp.Diff(reaches(prefix+path), sortQuery(a.outcome())); diff != "" {
						t.Fatalf("-want +got:\n%s", diff)
					}
					got := map[string]string{}
					for name := range same {
						if values := a.seen.Headers[name]; values != nil {
							got[name] = strings.Join(values, ",")
						}
					}
					if diff := cmp.Diff(tt.want, got); diff != "" {
						t.Errorf("headers: -want +got:\n%s", diff)
					}
					for name, want := range tt.response {
						if got := strings.Join(a.header[name], ","); got != want {
							t.Errorf("the client got %s: %q, want %q", name, got, want)
						}
					}
					checkNothingForged(t, a.seen)
					if got := a.seen.Headers["authorization"]; got != nil && prefix == "/case/" {
						t.Error("the upstream saw the token")
					}
				})
			}
		}
	}
	t.Run("counters", func(t *testing.T) {
		for _, name := range []string{"invalid", "rejected_header_mutations"} {
			if n, err := ownShipped(t).Stat(t.Context(), "http.ingress.ext_authz.extauthz."+name); err == nil && n != 0 {
				t.Errorf("Envoy counts %d answers as %s, want none", n, name)
			}
		}
	})
}

// sortQuery puts the query parameters of the path that the upstream saw in order, as Envoy's order is not promised.
func sortQuery(o outcome) outcome {
	path, query, ok := strings.Cut(o.Upstream, "?")
	if !ok {
		return o
	}
	parameters := strings.Split(query, "&")
	slices.Sort(parameters)
	o.Upstream = path + "?" + strings.Join(parameters, "&")
	return o
}

// Metadata of a policy is there for other filters, and takes no name that extauthz uses.
func TestPolicyMetadata(t *testing.T) {
	t.Parallel()
	g := newGateway(t, ownPolicy(t), patience(), []lab.Edit{
		lab.Add(lab.HCMPath+"/access_log/0/typed_config/log_format/json_format/tier", "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:tier)%"),
		lab.Add(lab.HCMPath+"/access_log/0/typed_config/log_format/json_format/deep", "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:deep:n)%"),
	})
	a := g.get(t, "/case/adds-metadata", bearer(t, reportsID))
	entry := g.logged(t, a)
	if entry["tier"] != "gold" || entry["deep"] != 1.0 || entry["client_id"] != reportsID {
		t.Errorf("Envoy's access log has tier %v, deep %v, client_id %v, want gold, 1 and the token's", entry["tier"], entry["deep"], entry["client_id"])
	}
}
