package route

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A tableCase is an entry of testdata/routes.json, which docs/paths.md shows too.
type tableCase struct {
	Title    string        `json:"title"`
	Rules    []ruleCase    `json:"rules"`
	Requests []requestCase `json:"requests"`
}

// A ruleCase is a rule as the config file spells it.
type ruleCase struct {
	Hosts   []string `json:"hosts"`
	Path    string   `json:"path"`
	Methods []string `json:"methods"`
	Scopes  struct {
		All []string `json:"all"`
		Any []string `json:"any"`
	} `json:"scopes"`
	Clients        []string `json:"clients"`
	AnyClient      bool     `json:"anyClient"`
	Public         bool     `json:"public"`
	EncodedSlash   string   `json:"encodedSlash"`
	PathParameters string   `json:"pathParameters"`
}

func (c *ruleCase) rule() Rule {
	return Rule{
		Hosts: c.Hosts, Path: c.Path, Methods: c.Methods, ScopesAll: c.Scopes.All, ScopesAny: c.Scopes.Any,
		Clients: c.Clients, AnyClient: c.AnyClient, Public: c.Public,
		EncodedSlash: c.EncodedSlash == "allow", PathParameters: c.PathParameters == "allow",
	}
}

type requestCase struct {
	Host    string            `json:"host"`
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Route   string            `json:"route"` // name; empty: none
	Params  map[string]string `json:"params"`
	Refused string            `json:"refused"` // reason
	Why     string            `json:"why"`
}

func (c *tableCase) table(t testing.TB) *Table {
	var rules []Rule
	for _, r := range c.Rules {
		rules = append(rules, r.rule())
	}
	return newTable(t, rules...)
}

func newTable(t testing.TB, rules ...Rule) *Table {
	t.Helper()
	table, err := NewTable(rules)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func parse(t testing.TB, raw string) Path {
	t.Helper()
	p, err := ParsePath(raw)
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	return p
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range readJSON[[]tableCase](t, "routes.json") {
		table := c.table(t)
		for _, r := range c.Requests {
			host := ""
			if r.Host != "" {
				var err error
				if host, err = CanonicalHost(r.Host); err != nil {
					t.Fatal(err)
				}
			}
			got := requestCase{Host: r.Host, Method: r.Method, Path: r.Path, Why: r.Why}
			p, err := ParsePath(r.Path)
			if err != nil {
				got.Refused = pathReason(err)
			} else {
				m := table.Match(host, r.Method, p)
				got.Refused = pathReason(m.Admits(p))
				if m != nil {
					got.Route = m.Rule.Name
				}
				if m != nil && got.Refused == "" {
					got.Params = m.Params
				}
			}
			if diff := cmp.Diff(r, got); diff != "" {
				t.Errorf("%s: %s %s%s (-want +got):\n%s", c.Title, r.Method, r.Host, r.Path, diff)
			}
		}
	}
}

func TestMatchParams(t *testing.T) {
	t.Parallel()
	table := newTable(t,
		Rule{Path: "/{a}/x/{b}", Methods: []string{"GET"}, AnyClient: true, EncodedSlash: true},
		Rule{Path: "/{c}/y/**", Methods: []string{"GET"}, AnyClient: true, EncodedSlash: true},
		Rule{Path: "/plain", Methods: []string{"GET"}, AnyClient: true},
	)
	tests := []struct {
		raw  string
		want map[string]string
	}{
		{"/plain", nil},
		{"/1/x/2", map[string]string{"a": "1", "b": "2"}},
		{"/caf%c3%a9/x/a%20b", map[string]string{"a": "café", "b": "a b"}},
		{"/1%2F2/x/%2F", map[string]string{"a": "1/2", "b": "/"}},
		{"/1/y", map[string]string{"c": "1", "**": ""}},
		{"/1/y/", map[string]string{"c": "1", "**": ""}},
		{"/1/y/2", map[string]string{"c": "1", "**": "2"}},
		{"/1/y/2/", map[string]string{"c": "1", "**": "2/"}},
		{"/1/y/2%2F3/4%20", map[string]string{"c": "1", "**": "2%2F3/4 "}},
		{"/1/y/%2F/%2F", map[string]string{"c": "1", "**": "%2F/%2F"}},
	}
	for _, tt := range tests {
		m := table.Match("", "GET", parse(t, tt.raw))
		if m == nil {
			t.Errorf("%s: no route", tt.raw)
			continue
		}
		if diff := cmp.Diff(tt.want, m.Params); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.raw, diff)
		}
	}
}

// TestMatchHosts goes from the narrowest host to the widest as rules are taken away.
func TestMatchHosts(t *testing.T) {
	t.Parallel()
	rules := []Rule{
		{Name: "whole", Hosts: []string{"a.b.example.com"}},
		{Name: "long", Hosts: []string{"*.b.example.com"}},
		{Name: "short", Hosts: []string{"*.example.com"}},
		{Name: "com", Hosts: []string{"*.com"}},
		{Name: "any"},
	}
	for i := range rules {
		rules[i].Path, rules[i].Methods, rules[i].Public = "/{x}", []string{"GET"}, true
	}
	for i := range rules {
		table := newTable(t, rules[i:]...)
		if m := table.Match("a.b.example.com", "GET", parse(t, "/x")); m == nil || m.Rule.Name != rules[i].Name {
			t.Errorf("matched %+v, want %s", m, rules[i].Name)
		}
	}
	table := newTable(t, rules[:4]...)
	for _, host := range []string{"", "com", "b.example.org", "xcom", "[::1]", "192.0.2.1"} {
		if m := table.Match(host, "GET", parse(t, "/x")); m != nil {
			t.Errorf("host %q matched %s, want none", host, m.Rule.Name)
		}
	}
}

// TestMatchNothing: what is not there must not match, and not crash.
func TestMatchNothing(t *testing.T) {
	t.Parallel()
	for name, table := range map[string]*Table{"zero": {}, "empty": newTable(t)} {
		if m := table.Match("a.example", "GET", parse(t, "/")); m != nil {
			t.Errorf("%s table matched %+v", name, m)
		}
	}
	all := newTable(t, Rule{Path: "/**", Methods: []string{"*"}, Public: true})
	if m := all.Match("a.example", "GET", Path{}); m != nil {
		t.Errorf("the zero Path matched %+v", m)
	}
	if m := all.Match("", "", parse(t, "/")); m == nil {
		t.Errorf("/** with every method matched nothing")
	}
}

// TestAdmits starts from a path with slash and parameter, and rules that allow either, both or none.
func TestAdmits(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw                 string
		slash, params, none bool
		want                string
	}{
		{raw: "/a"},
		{raw: "/a", none: true},
		{raw: "/a%2Fb;c", slash: true, params: true},
		{raw: "/a%2Fb;c", slash: true, want: reasonParameter},
		{raw: "/a%2Fb;c", params: true, want: reasonSlash},
		{raw: "/a%2Fb", none: true, want: reasonSlash},
		{raw: "/a%2Fb", want: reasonSlash},
		{raw: "/a;b", none: true, want: reasonParameter},
		{raw: "/a;b", want: reasonParameter},
		{raw: "/a%3bb", want: reasonParameter},
		{raw: "/a%3bb", params: true},
	}
	for _, tt := range tests {
		p := parse(t, tt.raw)
		var m *Match
		if !tt.none {
			table := newTable(t, Rule{
				Path: "/{x}", Methods: []string{"GET"}, Public: true, EncodedSlash: tt.slash, PathParameters: tt.params,
			})
			m = table.Match("", "GET", p)
		}
		if got := pathReason(m.Admits(p)); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt, got, tt.want)
		}
	}
}

// TestMisread has what the examples of the page do not show.
func TestMisread(t *testing.T) {
	t.Parallel()
	table := newTable(t,
		Rule{Path: "/x/{id}", Methods: []string{"GET"}, Public: true, EncodedSlash: true, PathParameters: true},
		Rule{Path: "/x/**", Methods: []string{"GET"}, Public: true, EncodedSlash: true, PathParameters: true},
		Rule{Path: "/x/{id}/y", Methods: []string{"GET"}, Public: true},
		Rule{Path: "/g/a%2Fb", Methods: []string{"GET"}, Public: true, EncodedSlash: true},
		Rule{Path: "/g/a/b", Methods: []string{"GET"}, Public: true},
		Rule{Path: "/g/c%2Fd", Methods: []string{"GET"}, Public: true, EncodedSlash: true},
		Rule{Path: "/x/posted", Methods: []string{"POST"}, Public: true},
		Rule{Path: "/x/hosted", Methods: []string{"GET"}, Public: true, Hosts: []string{"other.example"}},
	)
	long := "/x" + strings.Repeat("/a", maxReadSegments-2)
	tests := []struct {
		raw     string
		misread bool
	}{
		{"/g/c%2Fd", false},
		{"/g/a%2Fb", true}, // a route without parameters, whose Match is shared
		{"/x/100%25/", false},
		{"/x/100%25", false},
		{"/x/a%2Fb", false},
		{"/x/a%2Fy", true},
		{"/x/a%2F!y", true},
		{"/x/a/!%2579", true},
		{"/x/a%3Bb%2Fy", true},
		{"/x/a%3Bb/y", false}, // refused for the parameter
		{"/x/a%252D", false},
		{"/x/a/%2579", true},
		{"/x/a/%252579", true},
		{"/x/a%2F%2579;z", true},
		{"/x/q%3F/z", true},
		{"/x/q%23/z", false},
		{"/x/a/y%23/z", true},
		{"/x/a/%2F", true}, // cut to the length of /x/{id}
		{"/x/%2570osted", false},
		{"/x/%2568osted", false},
		{"/x/a/!y", true},
		{"/x/a/%21y", false}, // Envoy makes no escape of such a byte
		{"/x/!/a", false},
		{"/x/a/y!%23/!z", true},
		{long + "/a%2D", false},
		{long + "/a%2541", false},
		{long + "/a/a%2541", true},
		{long + "%2Fa/a%20", true},
		{long + "/a/a%20", false},
	}
	for _, tt := range tests {
		p := parse(t, tt.raw)
		m := table.Match("some.example", "GET", p)
		if m == nil {
			t.Errorf("%s: no route", tt.raw)
			continue
		}
		if got := pathReason(m.Admits(p)) == reasonOtherRoute; got != tt.misread {
			t.Errorf("%s of %s: misread is %v, want %v", tt.raw, m.Rule.Path, got, tt.misread)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	given := []Rule{
		{Path: "/a", Methods: []string{"GET", "POST"}, Public: true},
		{Path: "/b", Methods: []string{"*"}, Hosts: []string{"a.example", "*.b.example"}, Public: true},
		{Path: "/c", Methods: []string{"GET"}, Name: "mine", Public: true},
	}
	var names []string
	for _, r := range newTable(t, given...).Rules() {
		names = append(names, r.Name)
	}
	if diff := cmp.Diff([]string{"GET,POST /a", "a.example,*.b.example * /b", "mine"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if given[0].Name != "" {
		t.Errorf("NewTable changed the caller's rule: %+v", given[0])
	}
}

// TestMatchConcurrently is for the race detector.
func TestMatchConcurrently(t *testing.T) {
	t.Parallel()
	table := largeTable(t, 100)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				if m := table.Match("", "GET", parse(t, fmt.Sprintf("/svc-%d/items/%%2541", i/6))); m == nil {
					t.Error("no route")
				}
			}
		})
	}
	wg.Wait()
}

// TestTableSize: templates that overlap in every way end in an error, not in all memory.
func TestTableSize(t *testing.T) {
	t.Parallel()
	var rules []Rule
	for i := range 2000 {
		for _, path := range []string{"/s%d/x", "/{a}/t%d"} {
			rules = append(rules, Rule{Path: fmt.Sprintf(path, i), Methods: []string{"GET"}, Public: true})
		}
	}
	_, err := NewTable(rules)
	var e *RuleError
	if !errors.As(err, &e) || e.Field != "path" || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("error is %v, want one about overlapping paths", err)
	}
}

// reference matches as the package's documentation says, rule by rule.
func reference(rules []Rule, host, method string, path []string) (*Rule, map[string]string) {
	type candidate struct {
		rule   *Rule
		params map[string]string
		rank   []int // each the greater the better
	}
	var best *candidate
	for i := range rules {
		hostRank := referenceHost(rules[i].Hosts, host)
		pathRank, params := referencePath(rules[i].Path, path)
		methodRank := 1
		if rules[i].Methods[0] == "*" {
			methodRank = 0
		}
		if hostRank < 0 || pathRank == nil || methodRank == 1 && !slices.Contains(rules[i].Methods, method) {
			continue
		}
		c := &candidate{&rules[i], params, append(append([]int{hostRank}, pathRank...), methodRank)}
		if best == nil || slices.Compare(c.rank, best.rank) > 0 {
			best = c
		}
	}
	if best == nil {
		return nil, nil
	}
	return best.rule, best.params
}

func referenceHost(patterns []string, host string) int {
	best := -1
	for _, p := range patterns {
		switch {
		case p == host:
			best = 1000
		case p[0] == '*' && strings.HasSuffix(host, p[1:]) && len(host) > len(p[1:]):
			best = max(best, len(p))
		}
	}
	if patterns == nil {
		return 0
	}
	return best
}

// referencePath returns nil unless the template matches.
func referencePath(template string, path []string) ([]int, map[string]string) {
	var rank []int
	var params map[string]string
	set := func(k, v string) {
		if params == nil {
			params = map[string]string{}
		}
		params[k] = v
	}
	segments := strings.Split(template[1:], "/")
	for i, s := range segments {
		switch {
		case s == "**":
			set("**", strings.Join(path[min(i, len(path)):], "/"))
			return append(rank, 0), params
		case i >= len(path):
			return nil, nil
		case s != "" && s[0] == '{':
			if path[i] == "" {
				return nil, nil
			}
			set(s[1:len(s)-1], path[i])
			rank = append(rank, 2)
		case s == path[i]:
			rank = append(rank, 3)
		default:
			return nil, nil
		}
	}
	if len(segments) != len(path) {
		return nil, nil
	}
	return append(rank, 1), params
}

// randomRules and randomPath draw from few words, so that much overlaps.
func randomRules(random *rand.Rand) []Rule {
	var rules []Rule
	for range 1 + random.IntN(12) {
		var path strings.Builder
		for i := range 1 + random.IntN(4) {
			path.WriteString("/" + []string{"a", "b", "c", fmt.Sprintf("{p%d}", i), fmt.Sprintf("{q%d}", i)}[random.IntN(5)])
		}
		path.WriteString([]string{"", "", "/", "/**"}[random.IntN(4)])
		r := Rule{Name: fmt.Sprint(len(rules)), Path: path.String(), Public: true}
		r.Methods = [][]string{{"GET"}, {"POST"}, {"GET", "POST"}, {"*"}}[random.IntN(4)]
		r.Hosts = [][]string{nil, nil, {"x.y.z"}, {"*.y.z"}, {"*.z"}, {"x.y.z", "*.z"}}[random.IntN(6)]
		if _, err := NewTable(append(slices.Clone(rules), r)); err == nil { // leaves out what ties
			rules = append(rules, r)
		}
	}
	return rules
}

func randomPath(random *rand.Rand) string {
	var path strings.Builder
	for range 1 + random.IntN(5) {
		path.WriteString("/" + []string{"a", "b", "c", "d"}[random.IntN(4)])
	}
	path.WriteString([]string{"", "", "/"}[random.IntN(3)])
	return path.String()
}

// FuzzMatch compares the table with the reference.
func FuzzMatch(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		rules := randomRules(random)
		if len(rules) == 0 {
			return
		}
		table, err := NewTable(rules)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			p := parse(t, randomPath(random))
			host := []string{"", "z", "y.z", "x.y.z", "w.x.y.z", "w.z"}[random.IntN(6)]
			method := []string{"GET", "POST", "PUT"}[random.IntN(3)]
			want, params := reference(rules, host, method, p.Segments())
			m := table.Match(host, method, p)
			switch {
			case want == nil && m == nil:
			case want == nil || m == nil || m.Rule.Name != want.Name:
				t.Fatalf("%s %s%s matched %+v, want %+v of %+v", method, host, p.Raw, m, want, rules)
			case !cmp.Equal(m.Params, params):
				t.Fatalf("%s %s%s: params %v, want %v of %s", method, host, p.Raw, m.Params, params, want.Path)
			}
		}
	})
}

func TestTableAdmits(t *testing.T) {
	plain := Rule{Methods: []string{"GET"}, Path: "/a/{id}", AnyClient: true}
	slash, parameters := plain, plain
	slash.Path, slash.EncodedSlash = "/b/{id}", true
	parameters.Path, parameters.PathParameters = "/c/{id}", true
	tests := []struct {
		name  string
		rules []Rule
		path  string
		want  string
	}{
		{"a plain path", []Rule{plain}, "/a/x", ""},
		{"an encoded slash, and no rule allows one", []Rule{plain, parameters}, "/a/x%2fy", reasonSlash},
		{"an encoded slash, and another rule allows one", []Rule{plain, slash}, "/a/x%2fy", ""},
		{"a parameter, and no rule allows one", []Rule{plain, slash}, "/a/x;y", reasonParameter},
		{"a parameter, and another rule allows one", []Rule{plain, parameters}, "/a/x;y", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table, err := NewTable(test.rules)
			if err != nil {
				t.Fatal(err)
			}
			p, err := ParsePath(test.path)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if e := (*PathError)(nil); errors.As(table.Admits(p), &e) {
				got = e.Reason
			}
			if got != test.want {
				t.Errorf("reason is %q, want %q", got, test.want)
			}
		})
	}
}
