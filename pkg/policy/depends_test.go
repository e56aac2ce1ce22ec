package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
)

// cached remembers decisions.
func cached(c *Config) { c.CacheBytes = 1 << 20 }

// said is what Caching says: names with a ? if only their existence counts, and with the reason of what is against it.
func said(c Caching) (by, against []string) {
	for _, d := range c.By {
		if d.Exists {
			d.Name += "?"
		}
		by = append(by, d.Name)
	}
	for _, d := range c.Against {
		against = append(against, d.Name+" "+d.Why)
	}
	return by, against
}

func TestDepends(t *testing.T) {
	t.Parallel()
	const method = "input.attributes.request.http.method"
	tests := []struct {
		name string
		rego string
		by   []string
	}{
		{"nothing", `decision := true`, nil},
		{"a field", `decision if input.token.pool == "main"`, []string{"input.token.pool"}},
		{"a field of a dynamic reference", `decision if input.token.claims[input.canonical.host] == 1`, []string{"input.canonical.host", "input.token.claims"}},
		{"a field of a list", `decision if input.parsed_path[0] == "a"`, []string{"input.parsed_path"}},
		{"a local name", `decision if { r := input.attributes.request.http; r.method == "GET" }`, []string{method}},
		{"local names of local names", `decision if { a := input.attributes; r := a.request; h := r.http; h.method == "GET" }`, []string{method}},
		{"a local name by unification", `decision if { input.attributes.request.http = h; h.method == "GET" }`, []string{method}},
		{"a local name with two definitions", `decision if { x = input.route.params; x = input.token.claims; x.name == "a" }`, []string{"input.route.params", "input.token.claims"}},
		{"a local name that is a value too", `decision if { x := input.token; x.pool == "a"; count(x) > 1 }`, []string{"input.token"}},
		{"a local name and a computed part", `decision if { x := input.token; some k; x[k] == "a" }`, []string{"input.token"}},
		{"a local name that is never used", `decision if { x = input.token; x = input.token; not input.route.public }`, []string{"input.route.public", "input.token"}},
		{"a local name in a comprehension", `decision if count([p | x := input.token; p := x.pool]) == 1`, []string{"input.token.pool"}},
		{"a local name that is an argument", `decision if f(input.token.claims)
			f(x) if { x = input.route.params; x.name == "a" }`, []string{"input.route.params", "input.token.claims"}},
		{"a rule that is a name", `decision if req.http.method == "GET"
			req := input.attributes.request`, []string{method}},
		{"rules that are names, and a local name", `decision if { h := http; h.method == "GET" }
			http := req.http
			req := input.attributes.request`, []string{method}},
		{"a rule that is a name with a default", `decision if t.pool == "a"
			default t := {}
			t := input.token`, []string{"input.token"}},
		{"two rules of a name", `decision if t.claims.a
			t := input.token if input.route.public
			t := input.token`, []string{"input.route.public", "input.token"}},
		{"an import", `import input.attributes.request.http as h
			decision if h.method == "GET"`, []string{method}},
		{"object.get with a fixed name", `decision if object.get(input.attributes.request.http.headers, "x-a", "") == "b"`, []string{`input.attributes.request.http.headers["x-a"]`}},
		{"object.get with fixed names", `decision if object.get(input.token, ["claims", "a"], input.canonical.host) == "b"`, []string{"input.canonical.host", "input.token.claims.a"}},
		{"object.get with a computed name", `decision if object.get(input.token.claims, input.canonical.host, 1) == 1`, []string{"input.canonical.host", "input.token.claims"}},
		{"object.get of itself", `decision if { x := input.token.claims; object.get(x, "a", x) == 1 }`, []string{"input.token.claims"}},
		{"whether there is a token", `decision if not input.token`, []string{"input.token?"}},
		{"a claim's truth", `decision if not input.token.claims.blocked`, []string{"input.token.claims.blocked"}},
		{"whether there is a token, and a claim", `decision if { t = input.token; not input.token.claims.blocked }`, []string{"input.token.claims.blocked"}},
		{"what is in an else", `decision if input.token.pool == "a" else := false if input.canonical.path`, []string{"input.canonical.path", "input.token.pool"}},
		{"what is in a head", `decision := {"allowed": input.route.public}`, []string{"input.route.public"}},
		{"what is in a with", `decision if p with input.token as {"pool": input.canonical.host}
			p if input.token.pool`, []string{"input.canonical.host", "input.token.pool"}},
		{"what a with needs", `decision if p with input.token.claims.a as 1
			p if input.route.public`, []string{"input.route.public", "input.token.claims.a?"}},
		{"a with that mocks a function", `decision if p with f as g
			p if f(1)
			f(x) := x
			g(_) if input.route.public`, []string{"input.route.public"}},
		{"an every", `decision if every s in input.token.scopes { startswith(s, input.canonical.host) }`, []string{"input.canonical.host", "input.token.scopes"}},
		{"a template", `decision if $"{input.canonical.host}x" == "ax"`, []string{"input.canonical.host"}},
		{"a partial rule by its key", `decision if p.a.b
			p[x].b if x := input.canonical.host`, []string{"input.canonical.host"}},
		{"a part that another rule overrides", `decision if p.foo.bar.baz
			p[x] := {"bar": {"baz": input.canonical.host}} if x := input.canonical.path
			p.foo.bar := {"baz": input.route.public}`, []string{"input.canonical.host", "input.canonical.path", "input.route.public"}},
		{"a negation in a comprehension", `decision if count({1 | not input.route.public}) == 1`, []string{"input.route.public"}},
		{"the built-in policy", `decision := data.extauthz.base.decision`, []string{
			"input.route.any_client", "input.route.clients", "input.route.pools", "input.route.public", "input.route.scopes.all", "input.route.scopes.any",
			"input.token.client_name", "input.token.pool", "input.token.scopes",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			by, against := said(newEngine(t, rule(test.rego), cached).Caching())
			if diff := cmp.Diff(test.by, by); diff != "" || len(against) > 0 {
				t.Errorf("against it is %v; (-want +got)\n%s", against, diff)
			}
		})
	}
}

// A rule that only names something is all of that to who names its package by a computed name.
func TestDependsOnOtherPackages(t *testing.T) {
	files := rule(`decision if data.other[input.canonical.host].pool == "main"`)
	files["other.rego"] = "package other\n\nt := input.token\n\nr := input.route.params"
	by, against := said(newEngine(t, files, cached).Caching())
	if diff := cmp.Diff([]string{"input.canonical.host", "input.route.params", "input.token"}, by); diff != "" || len(against) > 0 {
		t.Errorf("against it is %v; (-want +got)\n%s", against, diff)
	}
}

func TestNotRemembered(t *testing.T) {
	t.Parallel()
	const id = `, as it includes input.attributes.request.time`
	allow := func(names ...string) func(*Config) { return func(c *Config) { c.AllowBuiltins = names } }
	tests := []struct {
		name    string
		rego    string
		edit    func(*Config)
		against []string
	}{
		{"the clock", `decision if time.now_ns() > 7`, allow(), []string{"time.now_ns reads the clock"}},
		{"the clock in a function", `decision if f(1)
			f(_) if time.clock(time.now_ns())[0] > 6`, allow(), []string{"time.now_ns reads the clock"}},
		{"the clock by a with", `decision if f(1) with f as time.parse_rfc3339_ns with g as rand.intn
			f(_) if g(1, 2)
			g(_, _) := 1`, allow(), []string{"rand.intn depends on chance"}},
		{"the clock of certificates", `decision if crypto.x509.parse_and_verify_certificates(input.canonical.host)[0]`, allow(), []string{
			"crypto.x509.parse_and_verify_certificates reads the clock",
		}},
		{"chance", `decision if rand.intn("x", 2) == 1
			decision if uuid.rfc4122("") == "a"`, allow(), []string{"rand.intn depends on chance", "uuid.rfc4122 depends on chance"}},
		{"the network", `decision if http.send({"url": "http://127.0.0.1:1", "method": "GET"}).status_code == 200`, allow("http.send"), []string{"http.send talks to the network"}},
		{"the environment", `decision if opa.runtime().env.A`, allow("opa.runtime"), []string{"opa.runtime reads the process environment"}},
		{"a schema", `decision if json.match_schema(input.parsed_body, {})[0]`, allow("json.match_schema"), []string{"json.match_schema may answer differently the next time"}},
		{"a note", `decision if trace("x")`, allow(), []string{"trace is for looking at evaluations, and there would be none"}},
		{"all of the input", `decision if count(input) > 1`, allow(), []string{"input is all of the input, which is different in each request"}},
		{"all of the input by a walk", `decision if { walk(input, [_, v]); v == 1 }`, allow(), []string{"input is all of the input, which is different in each request"}},
		{"all headers", `decision if count(input.attributes.request.http.headers) == 1`, allow(), []string{`input.attributes.request.http.headers is different in each request, as it includes input.attributes.request.http.headers["x-request-id"]`}},
		{"all of a request, as an argument", `decision if f(input.attributes.request)
			f(r) if r.http.method == "GET"`, allow(), []string{"input.attributes.request is different in each request" + id}},
		{"a request's time", `decision if input.attributes.request.time > "2026"`, allow(), []string{"input.attributes.request.time is different in each request"}},
		{"a request's id", `decision if input.attributes.request.http.headers["x-request-id"]`, allow(), []string{
			`input.attributes.request.http.headers["x-request-id"] is different in each request`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, rule(test.rego), cached, test.edit)
			c := e.Caching()
			if _, against := said(c); c.Remembered || !slices.Equal(against, test.against) {
				t.Errorf("remembered: %v, against it is %q, want %q", c.Remembered, against, test.against)
			}
			for _, d := range c.Against {
				if d.File != "policy.rego" || d.Row < 3 || d.Col == 0 {
					t.Errorf("%s is at %s:%d:%d, want a place in policy.rego", d.Name, d.File, d.Row, d.Col)
				}
			}
		})
	}
}

// TestEveryBuiltinIsKnown holds testdata/pure_builtins.txt to the functions of this OPA that are thought to depend on their
// arguments alone. Look at what a new one does before it goes there; else it belongs into outside.
func TestEveryBuiltinIsKnown(t *testing.T) {
	var names []string
	for _, b := range ast.Builtins {
		if _, listed := outside[b.Name]; !listed && !b.IsNondeterministic() && !strings.HasPrefix(b.Name, "test.") { // which are of these tests
			names = append(names, b.Name)
		}
	}
	slices.Sort(names)
	compareFile(t, "testdata/pure_builtins.txt", strings.Join(names, "\n")+"\n")
	for name := range outside {
		if ast.BuiltinMap[name] == nil {
			t.Errorf("%s is no function of this OPA", name)
		}
	}
}
