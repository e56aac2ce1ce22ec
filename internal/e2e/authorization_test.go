package e2e_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAuthorizationHeader(t *testing.T) {
	t.Parallel()
	good := strings.TrimPrefix(bearer(t, batchID), "Authorization: Bearer ")
	other := strings.TrimPrefix(bearer(t, adminID), "Authorization: Bearer ")
	tests := []struct {
		name    string
		headers []string
		want    outcome
	}{
		{"one", []string{"Authorization: Bearer " + good}, reaches("/orders/7")},
		{"name in lower case", []string{"authorization: Bearer " + good}, reaches("/orders/7")},
		{"name in upper case", []string{"AUTHORIZATION: Bearer " + good}, reaches("/orders/7")},
		{"name in mixed case", []string{"aUtHoRiZaTiOn: Bearer " + good}, reaches("/orders/7")},
		{"scheme in lower case", []string{"Authorization: bearer " + good}, reaches("/orders/7")},
		{"scheme in upper case", []string{"Authorization: BEARER " + good}, reaches("/orders/7")},
		{"several spaces", []string{"Authorization: Bearer   " + good}, reaches("/orders/7")},
		{"spaces around", []string{"Authorization:   Bearer " + good + "  "}, reaches("/orders/7")},
		{"two, the first empty", []string{"Authorization: ", "Authorization: Bearer " + good}, reaches("/orders/7")}, // Envoy hands one on
		{"two, the second empty", []string{"Authorization: Bearer " + good, "Authorization: "}, reaches("/orders/7")},

		{"two, the same", []string{"Authorization: Bearer " + good, "Authorization: Bearer " + good}, invalid("invalid_request")},
		{"two, of different clients", []string{"Authorization: Bearer " + good, "authorization: Bearer " + other}, invalid("invalid_request")},
		{"two, Bearer and Basic", []string{"Authorization: Bearer " + good, "Authorization: Basic eDp5"}, invalid("invalid_request")},
		{"joined by a comma", []string{"Authorization: Bearer " + good + ", Bearer " + good}, invalid("invalid_request")},
		{"joined by a comma without a space", []string{"Authorization: Bearer " + good + ",Bearer " + other}, invalid("invalid_request")},
		{"joined with Basic", []string{"Authorization: Bearer " + good + ", Basic eDp5"}, invalid("invalid_request")},
		{"a comma behind", []string{"Authorization: Bearer " + good + ","}, invalid("invalid_request")},
		{"the token twice", []string{"Authorization: Bearer " + good + " " + good}, invalid("invalid_request")},
		{"a quoted token", []string{`Authorization: Bearer "` + good + `"`}, invalid("invalid_request")},
		{"a parameter", []string{"Authorization: Bearer token=" + good}, invalid("invalid_request")},
		{"a tab between", []string{"Authorization: Bearer\t" + good}, missing()},
		{"a tab behind the space", []string{"Authorization: Bearer \t" + good}, invalid("invalid_request")},
		{"no scheme", []string{"Authorization: " + good}, missing()},
		{"no space", []string{"Authorization: Bearer" + good}, missing()},
		{"Basic before Bearer", []string{"Authorization: Basic eDp5", "Authorization: Bearer " + good}, missing()},
		{"Basic before Bearer, joined", []string{"Authorization: Basic eDp5, Bearer " + good}, missing()},
		{"another scheme with the token", []string{"Authorization: Token " + good}, missing()},
		{"in another header", []string{"Proxy-Authorization: Bearer " + good}, missing()},
		{"in a header that was forwarded", []string{"X-Forwarded-Authorization: Bearer " + good}, missing()},
		{"with an underscore", []string{"X-Amzn-Oidc-Accesstoken: " + good}, missing()},
		{"longer than any token", []string{"Authorization: Bearer " + strings.Repeat("A", 16385)}, invalid("invalid_request")},
		{"as long as a token may be", []string{"Authorization: Bearer " + strings.Repeat("A", 16384)}, refused("malformed", notAccepted)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for name, g := range map[string]*gateway{"shipped": shipped(t), "open": open(t)} {
				a := g.get(t, "/orders/7", tt.headers...)
				if diff := cmp.Diff(tt.want, a.outcome()); diff != "" {
					t.Errorf("%s: -want +got:\n%s\n%s", name, diff, a.body)
				}
				if a.seen != nil && a.seen.Headers["authorization"] != nil {
					t.Errorf("%s: the upstream saw the token", name)
				}
				var fields []field
				for _, f := range toFields(tt.headers) {
					f[1] = strings.TrimSpace(f[1]) // HTTP/2 has no white space around values (RFC 9113 section 8.2.1)
					fields = append(fields, f)
				}
				if diff := cmp.Diff(tt.want, g.sendH2(t, h2("GET", "/orders/7", fields...)).outcome()); diff != "" {
					t.Errorf("%s over HTTP/2: -want +got:\n%s", name, diff)
				}
			}
		})
	}
}
