package policy

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// Who keeps decisions to try another policy on them must know what they depended on: never too little.
func TestAsked(t *testing.T) {
	tests := []struct {
		name    string
		rego    string
		reads   []string
		effects []string
	}{
		{"nothing", `decision := true`, nil, nil},
		{"a field", `decision if input.parsed_query.page[0] == "1"`, []string{"input.parsed_query.page"}, nil},
		{"a header", `decision if input.attributes.request.http.headers["x-tenant"] == "a"`, []string{`input.attributes.request.http.headers["x-tenant"]`}, nil},
		{"a header by a computed name", `decision if input.attributes.request.http.headers[data.x] == "a"`, []string{`input.attributes.request.http.headers`}, nil},
		{"a field and what is below it", `decision if { input.token.claims.a; count(input.token.claims) > 1 }`, []string{"input.token.claims"}, nil},
		{"all of it", `decision if { count(input) > 1; input.token.pool }`, []string{"input"}, nil},
		{"whether there is a token", `decision if not input.token`, []string{
			"input.token?", "input.token.client_name", "input.token.pool", "input.token.scopes",
		}, nil},
		{"whether there is a token, and a computed part", `decision if { input.token; some k; input.token[k] == "a" }`, []string{"input.token"}, nil},
		{"a token as a value", `decision if { not input.token; t := input.token; t.pool }`, []string{"input.token"}, nil},
		{"a claim's truth", `decision if not input.token.claims.blocked`, []string{"input.token.claims.blocked"}, nil},
		{"whether there is one, and a part", "decision if { input.token; input.token.pool == \"a\" }", []string{
			"input.token?", "input.token.client_name", "input.token.pool", "input.token.scopes", // the other two are of the built-in policy, beside it
		}, nil},
		{"a rule that gives a part of another's object", `decision if p.foo.bar.baz
			p[x] := {"bar": {"baz": false}} if x := input.canonical.path
			p.foo.bar := {"baz": input.parsed_body.x}`, []string{"input.canonical.path", "input.parsed_body.x"}, nil},
		{"the clock", `decision if time.now_ns() > 7`, nil, nil},
		{"chance", `decision if { rand.intn("x", 7) == 3; uuid.rfc4122("") }`, nil, []string{"rand.intn", "uuid.rfc4122"}},
		{"by the built-in policy", `decision := data.extauthz.base.decision`, []string{
			"input.route?", "input.route.any_client", "input.route.clients", "input.route.pools", "input.route.public",
			"input.route.scopes.all", "input.route.scopes.any",
			"input.token?", "input.token.client_name", "input.token.pool", "input.token.scopes",
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, err := New(t.Context(), Config{FS: fstest.MapFS{"p.rego": {Data: []byte("package extauthz\n" + test.rego)}}})
			if err != nil {
				t.Fatal(err)
			}
			var got []Policy
			_, _ = e.Decide(t.Context(), &Input{Asked: func(p Policy) { got = append(got, p) }})
			if len(got) != 1 || got[0].Revision != e.Revision() {
				t.Fatalf("Asked was called with %v, want once with revision %s", got, e.Revision())
			}
			var reads []string
			for _, r := range got[0].Reads {
				if r.Exists {
					r.Name += "?"
				}
				reads = append(reads, r.Name)
			}
			if diff := cmp.Diff(test.reads, reads); diff != "" {
				t.Errorf("reads (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(test.effects, got[0].Effects); diff != "" {
				t.Errorf("effects (-want +got)\n%s", diff)
			}
		})
	}
}

// In the other dialect, ours is below input.extauthz, and paths are not canonical.
func TestAskedInOPAEnvoysDialect(t *testing.T) {
	e, err := New(t.Context(), Config{
		Dialect: DialectOPAEnvoy, ExtauthzInput: true,
		FS: fstest.MapFS{"p.rego": {Data: []byte(`package envoy.authz
allow if { input.extauthz.token.pool; input.parsed_path[0] == "a"; input.attributes.request.http.method == "GET" }`)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []Read
	_, _ = e.Decide(t.Context(), &Input{Asked: func(p Policy) { got = p.Reads }})
	want := []Read{
		{Name: "input.attributes.request.http.method", Path: []string{"attributes", "request", "http", "method"}},
		{Name: "input.extauthz.token.pool", Path: []string{"token", "pool"}},
		{Name: "input.parsed_path", Path: []string{"opa-envoy", "parsed_path"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
