package route

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ruleErrors takes a joined error apart, as "index field: text".
func ruleErrors(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var joined interface {
		error
		Unwrap() []error
	}
	if !errors.As(err, &joined) {
		t.Fatalf("%T is no joined error", err)
	}
	var all []string
	for _, err := range joined.Unwrap() {
		var e *RuleError
		if !errors.As(err, &e) {
			t.Fatalf("%T %v is no *RuleError", err, err)
		}
		all = append(all, fmt.Sprintf("%d %s: %v", e.Index, e.Field, e.Err))
	}
	return all
}

// TestNewTable starts from a rule that is accepted and changes one thing.
func TestNewTable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*Rule)
		want string // the start of the only error; empty: accepted
	}{
		{"unchanged", func(*Rule) {}, ""},

		{"root", func(r *Rule) { r.Path = "/" }, ""},
		{"everything", func(r *Rule) { r.Path = "/**" }, ""},
		{"trailing slash", func(r *Rule) { r.Path = "/orders/" }, ""},
		{"variables", func(r *Rule) { r.Path = "/{a}/b/{_c2}/**" }, ""},
		{"punctuation", func(r *Rule) { r.Path = "/a:b/c,d=e@f+g" }, ""},
		{"UTF-8", func(r *Rule) { r.Path = "/café" }, ""},
		{"encoded UTF-8", func(r *Rule) { r.Path = "/caf%C3%A9" }, ""},
		{"encoded space, brace, star and percent", func(r *Rule) { r.Path = "/a%20b/%7Bc%7D/%2A/100%25" }, ""},
		{"encoded slash, allowed", func(r *Rule) { r.Path, r.EncodedSlash = "/groups/a%2Fb", true }, ""},
		{"no path", func(r *Rule) { r.Path = "" }, `path: is empty, want a path such as /orders/{id}`},
		{"no slash", func(r *Rule) { r.Path = "orders" }, `path: found "orders", want a path that starts with a slash`},
		{"pattern for all", func(r *Rule) { r.Path = "*" }, `path: found "*", want a path that starts with a slash`},
		{"long path", func(r *Rule) { r.Path = strings.Repeat("/a", 5000) }, `path: found 10000 bytes, want at most 8192`},
		{"empty segment", func(r *Rule) { r.Path = "/a//b" }, `path: found "/a//b": an empty segment, want none but a trailing slash`},
		{"two slashes", func(r *Rule) { r.Path = "//" }, `path: found "//": an empty segment`},
		{"tail inside", func(r *Rule) { r.Path = "/**/a" }, `path: found "/**/a": ** is not the last segment`},
		{"tail and slash", func(r *Rule) { r.Path = "/a/**/" }, `path: found "/a/**/": ** is not the last segment`},
		{"star", func(r *Rule) { r.Path = "/a/*" }, `path: found "/a/*": * is no segment, want {name} for one segment or ** at the end`},
		{"star in segment", func(r *Rule) { r.Path = "/a*" }, `path: found "/a*": segment "a*", want no * inside a segment`},
		{"three stars", func(r *Rule) { r.Path = "/***" }, `path: found "/***": segment "***", want no * inside a segment`},
		{"variable in segment", func(r *Rule) { r.Path = "/a-{b}" }, `path: found "/a-{b}": segment "a-{b}", want {name} as a whole segment`},
		{"variable without name", func(r *Rule) { r.Path = "/{}" }, `path: found "/{}": segment "{}", want {name} as a whole segment`},
		{"variable with odd name", func(r *Rule) { r.Path = "/{a-b}" }, `path: found "/{a-b}": segment "{a-b}", want {name}`},
		{"variable with digit first", func(r *Rule) { r.Path = "/{1a}" }, `path: found "/{1a}": segment "{1a}", want {name}`},
		{"variable with stars", func(r *Rule) { r.Path = "/{a=**}" }, `path: found "/{a=**}": segment "{a=**}", want {name}`},
		{"variable not closed", func(r *Rule) { r.Path = "/{a" }, `path: found "/{a": segment "{a", want {name}`},
		{"variable twice", func(r *Rule) { r.Path = "/{a}/{a}" }, `path: found "/{a}/{a}": {a} is there twice, want each name once`},
		{"query", func(r *Rule) { r.Path = "/a?b=c" }, `path: found "/a?b=c": segment "a?b=c" has a query, want the path only`},
		{"fragment", func(r *Rule) { r.Path = "/a#b" }, `path: found "/a#b": segment "a#b" is refused in every request (fragment)`},
		{"dot segment", func(r *Rule) { r.Path = "/a/../b" }, `path: found "/a/../b": segment ".." is refused in every request (dot segment)`},
		{"backslash", func(r *Rule) { r.Path = `/a\b` }, `path: found "/a\\b": segment "a\\b" is refused in every request (backslash)`},
		{"space", func(r *Rule) { r.Path = "/a b" }, `path: found "/a b": segment "a b" is refused in every request (white space)`},
		{"bad escape", func(r *Rule) { r.Path = "/100%" }, `path: found "/100%": segment "100%" is refused in every request (bad escape)`},
		{"encoded letter", func(r *Rule) { r.Path = "/%61" }, `path: found "/%61": segment "%61", want its canonical spelling "a"`},
		{"lower case escape", func(r *Rule) { r.Path = "/%c3%a9" }, `path: found "/%c3%a9": segment "%c3%a9", want its canonical spelling "%C3%A9"`},
		{"encoded slash", func(r *Rule) { r.Path = "/a%2Fb" }, `path: found "/a%2Fb": segment "a%2Fb" has an encoded slash, want encodedSlash: allow with it`},
		{"path parameter", func(r *Rule) { r.Path, r.PathParameters = "/a;b", true }, `path: found "/a;b": segment "a;b" has a path parameter, want {name}`},
		{"encoded query", func(r *Rule) { r.Path = "/a%3Fb" }, `path: found "/a%3Fb": segment "a%3Fb" reads differently to different servers`},
		{"encoded twice", func(r *Rule) { r.Path = "/a%2541" }, `path: found "/a%2541": segment "a%2541" reads differently to different servers`},

		{"two methods", func(r *Rule) { r.Methods = []string{"GET", "POST"} }, ""},
		{"every method", func(r *Rule) { r.Methods = []string{"*"} }, ""},
		{"own method", func(r *Rule) { r.Methods = []string{"PURGE", "m-search"} }, ""},
		{"no methods", func(r *Rule) { r.Methods = nil }, `methods: not set, want the methods of the route, such as [GET]`},
		{"empty methods", func(r *Rule) { r.Methods = []string{} }, `methods: found an empty list`},
		{"star and method", func(r *Rule) { r.Methods = []string{"GET", "*"} }, `methods: found "*" beside other methods, want it alone`},
		{"lower case method", func(r *Rule) { r.Methods = []string{"get"} }, `methods: found "get", want "GET": methods are compared byte for byte`},
		{"empty method", func(r *Rule) { r.Methods = []string{""} }, `methods: found "", want a method such as GET`},
		{"methods in one", func(r *Rule) { r.Methods = []string{"GET,POST"} }, `methods: found "GET,POST", want a method such as GET`},
		{"pattern of methods", func(r *Rule) { r.Methods = []string{"P*"} }, `methods: found "P*", want a method such as GET`},
		{"method twice", func(r *Rule) { r.Methods = []string{"GET", "GET"} }, `methods: found "GET" twice, want each value once`},

		{"hosts", func(r *Rule) {
			r.Hosts = []string{"api.example.com", "*.example.com", "192.0.2.1", "[::1]", "localhost"}
		}, ""},
		{"empty hosts", func(r *Rule) { r.Hosts = []string{} }, `hosts: found an empty list`},
		{"host of all", func(r *Rule) { r.Hosts = []string{"*"} }, `hosts: found "*", want no hosts at all for a route of every host`},
		{"empty host", func(r *Rule) { r.Hosts = []string{""} }, `hosts: found "" (empty), want a host name`},
		{"empty suffix", func(r *Rule) { r.Hosts = []string{"*."} }, `hosts: found "*." (empty), want a host name`},
		{"star in host", func(r *Rule) { r.Hosts = []string{"api-*.example.com"} }, `hosts: found "api-*.example.com" (invalid character), want a host name`},
		{"star without dot", func(r *Rule) { r.Hosts = []string{"*example.com"} }, `hosts: found "*example.com" (invalid character), want a host name`},
		{"two stars", func(r *Rule) { r.Hosts = []string{"*.*.com"} }, `hosts: found "*.*.com" (invalid character), want a host name`},
		{"capitals in host", func(r *Rule) { r.Hosts = []string{"API.example.com"} }, `hosts: found "API.example.com", want its canonical spelling "api.example.com"`},
		{"capitals in suffix", func(r *Rule) { r.Hosts = []string{"*.Example.com"} }, `hosts: found "*.Example.com", want its canonical spelling "*.example.com"`},
		{"port in host", func(r *Rule) { r.Hosts = []string{"example.com:443"} }, `hosts: found "example.com:443", want its canonical spelling "example.com"`},
		{"trailing dot", func(r *Rule) { r.Hosts = []string{"example.com."} }, `hosts: found "example.com.", want its canonical spelling "example.com"`},
		{"long IPv6", func(r *Rule) { r.Hosts = []string{"[0::1]"} }, `hosts: found "[0::1]", want its canonical spelling "[::1]"`},
		{"suffix of address", func(r *Rule) { r.Hosts = []string{"*.0.2.1"} }, `hosts: found "*.0.2.1", want a suffix of names`},
		{"suffix of IPv6", func(r *Rule) { r.Hosts = []string{"*.[::1]"} }, `hosts: found "*.[::1]", want a suffix of names`},
		{"URL for host", func(r *Rule) { r.Hosts = []string{"https://example.com"} }, `hosts: found "https://example.com" (slash), want a host name`},
		{"host twice", func(r *Rule) { r.Hosts = []string{"a.example", "a.example"} }, `hosts: found "a.example" twice`},

		{"all scopes", func(r *Rule) { r.ScopesAny, r.ScopesAll = nil, []string{"a/b", "c/d"} }, ""},
		{"scopes and clients", func(r *Rule) { r.Clients = []string{"batch"} }, ""},
		{"clients", func(r *Rule) { r.ScopesAny, r.Clients = nil, []string{"batch"} }, ""},
		{"any client", func(r *Rule) { r.ScopesAny, r.AnyClient = nil, true }, ""},
		{"public", func(r *Rule) { r.ScopesAny, r.Public = nil, true }, ""},
		{"pools", func(r *Rule) { r.Pools = []string{"main"} }, ""},
		{"no access", func(r *Rule) { r.ScopesAny = nil }, `scopes: nothing says who may call, want scopes, clients, anyClient: true or public: true`},
		{"only pools", func(r *Rule) { r.ScopesAny, r.Pools = nil, []string{"main"} }, `scopes: nothing says who may call`},
		{"empty any", func(r *Rule) { r.ScopesAny = []string{} }, `scopes: any: found an empty list`},
		{"empty all", func(r *Rule) { r.ScopesAll = []string{} }, `scopes: all: found an empty list`},
		{"empty clients", func(r *Rule) { r.Clients = []string{} }, `clients: found an empty list`},
		{"empty pools", func(r *Rule) { r.Pools = []string{} }, `pools: found an empty list`},
		{"public with scopes", func(r *Rule) { r.Public = true }, `scopes: found beside public: true`},
		{"public with clients", func(r *Rule) { r.ScopesAny, r.Public, r.Clients = nil, true, []string{"a"} }, `clients: found beside public: true`},
		{"public with any client", func(r *Rule) { r.ScopesAny, r.Public, r.AnyClient = nil, true, true }, `anyClient: found beside public: true`},
		{"public with pools", func(r *Rule) { r.ScopesAny, r.Public, r.Pools = nil, true, []string{"a"} }, `pools: found beside public: true`},
		{"any client with scopes", func(r *Rule) { r.AnyClient = true }, `anyClient: found true beside scopes`},
		{"any client with clients", func(r *Rule) { r.ScopesAny, r.AnyClient, r.Clients = nil, true, []string{"a"} }, `anyClient: found true beside clients`},
		{"scopes in one", func(r *Rule) { r.ScopesAny = []string{"a/b c/d"} }, `scopes: found "a/b c/d", want a scope such as orders/read`},
		{"empty scope", func(r *Rule) { r.ScopesAny = []string{""} }, `scopes: found "", want a scope`},
		{"quoted scope", func(r *Rule) { r.ScopesAny = []string{`a"`} }, `scopes: found "a\"", want a scope`},
		{"scope not ASCII", func(r *Rule) { r.ScopesAny = []string{"é"} }, `scopes: found "é", want a scope`},
		{"scope twice", func(r *Rule) { r.ScopesAny = []string{"a", "a"} }, `scopes: any: found "a" twice`},
		{"scope in both", func(r *Rule) { r.ScopesAll = []string{"orders/read"} }, `scopes: found "orders/read" in both all and any`},
		{"empty client", func(r *Rule) { r.Clients = []string{""} }, `clients: found an empty name`},
		{"empty pool", func(r *Rule) { r.Pools = []string{""} }, `pools: found an empty name`},
		{"client twice", func(r *Rule) { r.Clients = []string{"a", "a"} }, `clients: found "a" twice`},

		{"name", func(r *Rule) { r.Name = "read an order" }, ""},
		{"long name", func(r *Rule) { r.Name = strings.Repeat("a", 201) }, `name: found 201 bytes, want at most 200`},
		{"name with line break", func(r *Rule) { r.Name = "a\nb" }, `name: found "a\nb", want printable characters`},
		{"name not UTF-8", func(r *Rule) { r.Name = "a\xff" }, `name: found "a\xff", want printable characters`},
		{"name with space", func(r *Rule) { r.Name = " a" }, `name: found " a", want no space before or after it`},
	}
	for _, tt := range tests {
		r := Rule{Path: "/orders/{id}", Methods: []string{"GET"}, ScopesAny: []string{"orders/read"}}
		tt.edit(&r)
		_, err := NewTable([]Rule{r})
		switch got := ruleErrors(t, err); {
		case tt.want == "" && got == nil:
		case tt.want == "" || len(got) != 1 || !strings.HasPrefix(got[0], "0 "+tt.want):
			t.Errorf("%s: errors %q, want only %q", tt.name, got, tt.want)
		}
	}
}

// TestNewTableTies starts from a table without ties and adds a rule.
func TestNewTableTies(t *testing.T) {
	t.Parallel()
	rules := []Rule{
		{Path: "/a/{x}", Methods: []string{"GET", "POST"}},
		{Path: "/a/{x}", Methods: []string{"*"}},
		{Path: "/a/**", Methods: []string{"GET"}},
		{Path: "/h", Methods: []string{"GET"}, Hosts: []string{"a.example", "*.b.example"}},
		{Path: "/one", Methods: []string{"GET"}, Hosts: []string{"a.example"}},
	}
	tests := []struct {
		name string
		rule Rule
		want string // the start of the only error
	}{
		{"other method", Rule{Path: "/a/{x}", Methods: []string{"PUT"}}, ""},
		{"other literal", Rule{Path: "/a/b", Methods: []string{"GET"}}, ""},
		{"trailing slash", Rule{Path: "/a/{x}/", Methods: []string{"GET"}}, ""},
		{"tail, other method", Rule{Path: "/a/**", Methods: []string{"POST"}}, ""},
		{"other host", Rule{Path: "/h", Methods: []string{"GET"}, Hosts: []string{"c.example"}}, ""},
		{"every host", Rule{Path: "/h", Methods: []string{"GET"}}, ""},
		{"longer suffix", Rule{Path: "/h", Methods: []string{"GET"}, Hosts: []string{"*.a.b.example"}}, ""},
		{
			"same",
			Rule{Path: "/a/{x}", Methods: []string{"GET"}},
			`5 path: found "/a/{x}", which ties with "/a/{x}" of routes[0] ("GET,POST /a/{x}") for method GET on every host, want one`,
		},
		{
			"other name of the variable",
			Rule{Path: "/a/{y}", Methods: []string{"DELETE", "POST"}},
			`5 path: found "/a/{y}", which ties with "/a/{x}" of routes[0] ("GET,POST /a/{x}") for method POST on every host, want one`,
		},
		{
			"every method",
			Rule{Path: "/a/{y}", Methods: []string{"*"}},
			`5 path: found "/a/{y}", which ties with "/a/{x}" of routes[1] ("* /a/{x}") for method * on every host, want one`,
		},
		{
			"tail",
			Rule{Path: "/a/**", Methods: []string{"GET"}, Name: "other"},
			`5 path: found "/a/**", which ties with "/a/**" of routes[2] ("GET /a/**") for method GET on every host, want one`,
		},
		{
			"one host of two",
			Rule{Path: "/h", Methods: []string{"GET"}, Hosts: []string{"*.b.example", "c.example"}},
			`5 path: found "/h", which ties with "/h" of routes[3] ("a.example,*.b.example GET /h") for method GET on host *.b.example, want one`,
		},
		{
			"both hosts, said once",
			Rule{Path: "/h", Methods: []string{"GET"}, Hosts: []string{"a.example", "*.b.example"}},
			`5 path: found "/h", which ties with "/h" of routes[3] ("a.example,*.b.example GET /h") for method GET on host *.b.example, want one`,
		},
		{"name of another", Rule{Path: "/n", Methods: []string{"GET"}, Name: "GET /a/**"}, `5 name: found "GET /a/**", which is also the name of routes[2], want another`},
	}
	for _, tt := range tests {
		all := append(append([]Rule(nil), rules...), tt.rule)
		for i := range all {
			all[i].Public = true
		}
		_, err := NewTable(all)
		switch got := ruleErrors(t, err); {
		case tt.want == "" && got == nil:
		case tt.want == "" || len(got) != 1 || !strings.HasPrefix(got[0], tt.want):
			t.Errorf("%s: errors %q, want only %q", tt.name, got, tt.want)
		}
	}
}

// TestNewTableAllErrors: a config with several faults is mended in one go.
func TestNewTableAllErrors(t *testing.T) {
	t.Parallel()
	_, err := NewTable([]Rule{
		{Path: "a", Public: true, Clients: []string{"x"}},
		{Path: "/b", Methods: []string{"GET"}, AnyClient: true},
		{Path: "/b", Methods: []string{"GET"}, Hosts: []string{"B.example"}},
		{Path: "/b", Methods: []string{"GET"}, AnyClient: true},
	})
	var got []string
	for _, e := range ruleErrors(t, err) {
		key, _, _ := strings.Cut(e, ":")
		got = append(got, key)
	}
	want := []string{"0 path", "0 methods", "0 clients", "2 hosts", "2 scopes", "3 path"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	if want := "route: routes[0].path: found \"a\""; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error starts %.60q, want %q", err, want)
	}
}
