package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sameDecision asks an engine that remembers twice, and wants each time what one that does not remember has said.
func sameDecision(t *testing.T, e *Engine, in *Input, want Decision, wantErr error) {
	t.Helper()
	for _, time := range []string{"the first", "the second"} {
		got, err := e.Decide(t.Context(), in)
		if diff := cmp.Diff(want, got); diff != "" || text(err) != text(wantErr) {
			t.Fatalf("%s time the error is %v, want %v; decision (-evaluated +remembered)\n%s", time, err, wantErr, diff)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// What the recorded OPA-Envoy policies say to the recorded inputs is the same with a cache and without.
func TestCacheChangesNoDecisionOfOPAEnvoy(t *testing.T) {
	t.Parallel()
	const recorded = "../../internal/authz/testdata/opa-envoy"
	var cases []struct{ Input map[string]any }
	content, err := os.ReadFile(filepath.Join(recorded, "inputs.json"))
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	if err := decoder.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(recorded, "policies", "*.rego"))
	if err != nil || len(names) != 10 {
		t.Fatalf("%d policies, %v, want 10", len(names), err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"p.rego": string(content)}
		config := func(c *Config) { c.Dialect, c.AllowBuiltins = DialectOPAEnvoy, []string{"glob.match"} }
		if strings.Contains(string(content), "package demo.authz") {
			t.Fatalf("%s: another package", name)
		}
		plain, remembers := newEngine(t, files, config), newEngine(t, files, config, cached)
		for _, c := range cases {
			if c.Input == nil {
				continue
			}
			delete(c.Input, "version")
			in := inputOf(t, c.Input)
			want, wantErr := plain.Decide(t.Context(), in)
			sameDecision(t, remembers, in, want, wantErr)
		}
		by, against := said(remembers.Caching())
		t.Logf("%s: by %v, against %v, %+v", filepath.Base(name), by, against, remembers.CacheStatus())
	}
}

// slyPolicies are policies whose decisions are remembered, written so that it is easy to overlook what they depend on.
var slyPolicies = map[string]string{
	"built in":     `decision := data.extauthz.base.decision`,
	"a local name": `decision := {"allowed": true, "dynamic_metadata": {"m": r.http.method}} if r := input.attributes.request`,
	"a claim":      `decision := {"allowed": true, "dynamic_metadata": {"x": input.token.claims.a}}`,
	"by its type": `default decision := false
decision := {"allowed": true, "dynamic_metadata": {"x": type_name(input.token.claims.a), "y": json.marshal(input.token.claims.a)}}`,
	"a deep claim": "default decision := false\ndecision if input.token.claims.a.b.c",
	"not":          `decision if not input.token.claims.a.b`,
	"a lone name":  "default decision := false\ndecision if { x = input.token; not input.token.claims.a }",
	"lone names":   "default decision := false\ndecision if { x = input.token.claims.a; not input.token.claims.a.b }",
	"a dynamic one": `default decision := false
decision := {"allowed": true, "dynamic_metadata": {"x": input.token.claims[input.canonical.host]}}`,
	"all claims": `decision := {"allowed": true, "dynamic_metadata": {"n": names}}
names := [k | some k, v in input.token.claims; is_string(v)]`,
	"a walk": `decision := {"allowed": true, "dynamic_metadata": {"n": count([1 | walk(input.token.claims, [_, v]); is_string(v)])}}`,
	"with": `decision := {"allowed": true, "dynamic_metadata": {"x": p, "y": q}}
p := x if x := name with input.token.claims as {"a": input.canonical.host}
q := x if x := name with input.canonical.host as input.token.pool
name := concat("/", [object.get(input.token.claims, "a", "none"), input.canonical.host]) if is_string(object.get(input.token.claims, "a", "none"))
name := "odd" if not is_string(object.get(input.token.claims, "a", "none"))`,
	"with below": `decision := x if x := p with input.token.claims.a.b as true
p if input.token.claims.a.b
p := false if not input.token.pool`,
	"get": `decision := {"allowed": true, "dynamic_metadata": {"x": object.get(input.token.claims, ["a", "b"], input.canonical.path)}}`,
	"get of no object": `default decision := false
decision if object.get(input.token.claims.a, "b", 1) == 1`,
	"get by a computed name": `decision := {"allowed": true, "dynamic_metadata": {"x": object.get(input.token.claims, input.canonical.host, "none")}}`,
	"a function": `decision := f(input.token, input.route)
f(t, r) := {"allowed": true, "dynamic_metadata": {"x": t.claims, "y": r.params}} if r.public
f(t, r) := t.pool == "main" if not r.public`,
	"functions in partial rules": `decision := {"allowed": count(deny) == 0, "dynamic_metadata": {"d": sort(deny)}}
deny contains "host" if input.canonical.host == "x"
deny contains x if { some x in input.token.scopes; not allowed[x] }
allowed[s] := true if some s in input.route.scopes.all`,
	"every": `decision if every k, v in input.token.claims { is_string(v); k != input.canonical.host }`,
	"else":  `decision if input.token.claims.a == 1 else := false if input.route.params.id else if input.canonical.path == "/orders/7"`,
	"default": `default decision := {"allowed": false, "reason": "policy_denied"}
decision := {"allowed": true} if { some s in input.token.scopes; s in input.route.scopes.any }`,
	"a rule that is a name": `decision := {"allowed": true, "dynamic_metadata": {"x": c.a, "y": count(input.parsed_path)}}
c := input.token.claims`,
	"two values": `decision if input.route.public
decision := false if input.token.claims.a`,
	"the query":  `decision := {"allowed": true, "dynamic_metadata": {"p": input.parsed_query.page, "b": input.parsed_body.x}}`,
	"the body":   `decision := {"allowed": true, "dynamic_metadata": {"b": json.marshal(input.parsed_body), "t": input.truncated_body}}`,
	"the peer":   `decision := {"allowed": true, "dynamic_metadata": {"p": object.get(input.context.metadata, ["f", "x"], "none"), "e": input.context.extensions}} if not input.source_principal == "spiffe://a"`,
	"a header":   `decision := {"allowed": true, "dynamic_metadata": {"h": object.get(input.attributes.request.http.headers, "x-a", "none")}}`,
	"a template": `decision := {"allowed": true, "dynamic_metadata": {"h": $"{input.token.claims.a}/{input.canonical.host}"}}`,
	"a decision with all": `decision := {"allowed": true, "headers": {"x-a": input.route.params.id}, "request_headers_to_remove": ["authorization"],
	"response_headers_to_add": [{"set-cookie": ["a=1", "b=2"]}], "query_parameters_to_set": {"q": ["1", "2"]}, "query_parameters_to_remove": ["z"],
	"dynamic_metadata": {"list": [1, {"x": null}]}} if input.route.params.id != "8"
decision := {"allowed": false, "http_status": 401, "body": "no", "headers": {"x-b": "1"}, "scope": "a b", "reason": "insufficient_scope"} if input.route.params.id == "8"`,
}

// Inputs that change one thing at a time have the same decisions with a cache and without, whatever changes: what the
// policy reads and what it does not, to another value, another type, nothing at all, and back.
func TestCacheChangesNoDecision(t *testing.T) {
	t.Parallel()
	steps := 1500
	if testing.Short() {
		steps = 300
	}
	for name, module := range slyPolicies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := func(c *Config) { c.RequestHeaders = []string{"x-a"}; c.ExtauthzInput = c.Dialect == DialectOPAEnvoy }
			plain, remembers := newEngine(t, rule(module), config), newEngine(t, rule(module), config, cached)
			if c := remembers.Caching(); !c.Remembered {
				t.Fatalf("is not remembered: %+v", c.Against)
			}
			seed := rand.Uint64()
			rnd := rand.New(rand.NewPCG(seed, 1))
			in := accepted()
			for step := range steps {
				change := mutate(rnd, in)
				want, wantErr := plain.Decide(t.Context(), in)
				got, err := remembers.Decide(t.Context(), in)
				if diff := cmp.Diff(want, got); diff != "" || text(err) != text(wantErr) {
					t.Fatalf("seed %d, step %d, %s: the error is %v, want %v; input %s; decision (-evaluated +remembered)\n%s",
						seed, step, change, err, wantErr, mustJSON(t, in), diff)
				}
			}
			if s := remembers.CacheStatus(); s.Hits == 0 || s.Hits+s.Misses+s.Bypassed != uint64(steps) {
				t.Errorf("%+v after %d steps, want some hits and nothing that is not counted", s, steps)
			}
		})
	}
}

// The property test has to find a key that is too short.
func TestAShortKeyWouldBeFound(t *testing.T) {
	t.Parallel()
	for i := range 9 {
		plain, remembers := newEngine(t, nil), newEngine(t, nil, cached)
		c := remembers.program.Load().cache
		c.parts = slices.Delete(slices.Clone(c.parts), i, i+1)
		rnd, in, found := rand.New(rand.NewPCG(uint64(i), 1)), accepted(), false
		for step := 0; step < 20_000 && !found; step++ {
			mutate(rnd, in)
			want, wantErr := plain.Decide(t.Context(), in)
			got, err := remembers.Decide(t.Context(), in)
			found = !cmp.Equal(want, got) || text(err) != text(wantErr)
		}
		if !found {
			t.Errorf("without part %d of the key, no difference was found", i)
		}
	}
}

// odd are values of a claim and the like.
func odd(rnd *rand.Rand) any {
	values := []any{
		nil, false, true, "", "a", "main", "b", "é", "e\u0301", "\x00", strings.Repeat("x", 5000), 0, 1, 1.0, 1.5, json.Number("1"), json.Number("1.0"), int64(-1), uint64(math.MaxUint64),
		[]any{},
		[]any{"a"},
		[]any{"a", "b"},
		[]any{[]any{"a"}, "b"},
		[]string{"a"},
		map[string]any{},
		map[string]any{"b": nil},
		map[string]any{"b": true},
		map[string]any{"b": map[string]any{"c": 1}},
		map[string]any{"b": map[string]any{"c": false}},
		map[string]string{"b": "c"},
		map[string][]string{"b": {"c"}},
		"1", math.NaN(),
	}
	return values[rnd.IntN(len(values))]
}

// mutate changes one thing, mostly a small one, and says what.
func mutate(rnd *rand.Rand, in *Input) string {
	if rnd.IntN(12) == 0 {
		*in = *accepted()
		return "everything back"
	}
	word := func() string { return []string{"", "a", "b", "main", "x", "7", "8", "orders/read", "é"}[rnd.IntN(9)] }
	list := func() []string {
		return [][]string{nil, {}, {"a"}, {"a", "b"}, {"ab"}, {"orders/read"}, {"orders/read", "orders/admin"}, {"main"}, {"orders-batch"}}[rnd.IntN(9)]
	}
	set := func(m map[string]any, name string) map[string]any {
		out := maps.Clone(m)
		if out == nil {
			out = map[string]any{}
		}
		if rnd.IntN(3) == 0 {
			delete(out, name)
		} else {
			out[name] = odd(rnd)
		}
		return out
	}
	claim := []string{"a", "b", "x", "sub"}[rnd.IntN(4)]
	changes := []func(){
		func() { in.Canonical.Host = word() },
		func() { in.Canonical.Path = "/orders/" + word() },
		func() { in.ParsedPath = list() },
		func() { in.ParsedQuery = map[string][]string{word(): list(), "page": list()} },
		func() { in.ParsedBody = odd(rnd) },
		func() { in.ParsedBody = map[string]any{"x": odd(rnd)} },
		func() { in.TruncatedBody = !in.TruncatedBody },
		func() { in.SourcePrincipal = []string{"", "spiffe://a", "spiffe://b"}[rnd.IntN(3)] },
		func() { in.Context.Extensions = map[string]string{"e": word()} },
		func() { in.Context.Metadata = set(in.Context.Metadata, "f") },
		func() { in.Context.RouteMetadata = set(in.Context.RouteMetadata, "f") },
		func() { in.Attributes = set(in.Attributes, "request") },
		func() {
			in.Attributes = map[string]any{"request": map[string]any{"http": map[string]any{"method": odd(rnd), "headers": map[string]any{"x-a": word()}}}}
		},
		func() { in.Token = nil },
		func() { in.Route = nil },
		func() { in.Token = &Token{} },
		func() { in.Route = &Route{} },
	}
	if in.Token != nil {
		changes = append(
			changes,
			func() { in.Token.ClientName = []string{"orders-batch", "a", "b", ""}[rnd.IntN(4)] },
			func() { in.Token.Pool = word() },
			func() { in.Token.TokenID = word() },
			func() { in.Token.Scopes = list() },
			func() { in.Token.Claims = set(in.Token.Claims, claim) },
			func() { in.Token.Claims = set(in.Token.Claims, "a") },
			func() { in.Token.Claims = nil },
		)
	}
	if in.Route != nil {
		changes = append(
			changes,
			func() { in.Route.Public = !in.Route.Public },
			func() { in.Route.AnyClient = !in.Route.AnyClient },
			func() { in.Route.Params = map[string]string{"id": word()} },
			func() { in.Route.Params = nil },
			func() { in.Route.Scopes.All = list() },
			func() { in.Route.Scopes.Any = list() },
			func() { in.Route.Clients = list() },
			func() { in.Route.Pools = list() },
			func() { in.Route.Name = word() },
		)
	}
	i := rnd.IntN(len(changes))
	changes[i]()
	return fmt.Sprintf("change %d", i)
}

// Whoever asks gets a decision of their own.
func TestRememberedDecisionsAreNotShared(t *testing.T) {
	t.Parallel()
	e := newEngine(t, rule(slyPolicies["a decision with all"]), cached, func(c *Config) { c.RequestHeaders = []string{"x-a"} })
	in := accepted()
	for _, id := range []string{"7", "8"} {
		in.Route.Params["id"] = id
		want, err := e.Decide(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		want = want.clone(true)
		for range 3 {
			got, err := e.Decide(t.Context(), in)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Fatalf("%v, (-want +got)\n%s", err, diff)
			}
			spoil(reflect.ValueOf(&got).Elem())
		}
	}
	if s := e.CacheStatus(); s.Hits != 6 || s.Misses != 2 || s.Entries != 2 {
		t.Errorf("%+v, want 6 hits and 2 misses", s)
	}
}

// spoil changes all that a value points to.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			spoil(field)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			spoil(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoil(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if inner := v.MapIndex(key).Elem(); inner.Kind() == reflect.Slice {
				spoil(inner)
			}
			v.SetMapIndex(key, reflect.Zero(v.Type().Elem()))
		}
	case reflect.String:
		v.SetString("spoilt")
	case reflect.Interface:
		v.SetZero()
	}
}

// Only answers are remembered, and what fails goes on to fail.
func TestErrorsAreNotRemembered(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		rego string
		edit func(*Input)
		want error
	}{
		{"undefined", `decision if input.canonical.host == "other"`, func(*Input) {}, ErrUndefined},
		{"two values", "decision if input.canonical.host\ndecision := false if input.canonical.path", func(*Input) {}, ErrPolicy},
		{"no decision", `decision := {"allow": true, "x": input.canonical.host}`, func(*Input) {}, ErrPolicy},
		{"a number without a form in what is read", `decision if input.token.claims.a`, func(in *Input) { in.Token.Claims["a"] = math.NaN() }, ErrPolicy},
		{"a number without a form in what is not read", `decision if input.canonical.host`, func(in *Input) { in.Token.Claims["a"] = json.Number("1e2000") }, ErrPolicy},
		{"a type without a form", `decision if input.canonical.host`, func(in *Input) { in.ParsedBody = struct{}{} }, ErrPolicy},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, rule(test.rego), cached)
			_, _ = e.Decide(t.Context(), accepted()) // remembered, if it is a decision
			in := accepted()
			test.edit(in)
			for range 2 {
				if d, err := e.Decide(t.Context(), in); !errors.Is(err, test.want) || !cmp.Equal(d, Decision{}) {
					t.Errorf("got %+v, %v, want no decision and %v", d, err, test.want)
				}
			}
			if s := e.CacheStatus(); s.Hits != 0 {
				t.Errorf("%+v, want no hit", s)
			}
		})
	}
}

// A decision that is remembered takes no longer than an evaluation may, and asks nobody less.
func TestRememberedDecisionsKeepToTheRest(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil, cached)
	var asked, completed int
	in := accepted()
	in.Asked = func(Policy) { asked++ }
	in.Complete = func(*Input, func(string) bool) error { completed++; return nil }
	for range 3 {
		if d, err := e.Decide(t.Context(), in); err != nil || !d.Allowed || d.Revision != e.Revision() {
			t.Fatalf("got %+v, %v", d, err)
		}
	}
	if asked != 3 || completed != 3 {
		t.Errorf("Asked was called %d times and Complete %d times, want 3 each", asked, completed)
	}
	if _, err := e.Decide(t.Context(), nil); !errors.Is(err, ErrPolicy) {
		t.Errorf("no input gives %v, want an error", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := e.Decide(ended, accepted()); !errors.Is(err, ErrTimeout) || d.Allowed {
		t.Errorf("after the context's end it is %+v, %v, want %v", d, err, ErrTimeout)
	}
}

// What is too long to remember it by is evaluated.
func TestLongKeysAreBypassed(t *testing.T) {
	t.Parallel()
	e := newEngine(t, rule(`decision := {"allowed": true, "dynamic_metadata": {"n": count(input.token.claims)}}`), cached)
	for name, claim := range map[string]any{
		"names": manyNames(fewNames + 1), "text": strings.Repeat("x", maxKeyBytes), "a list": make([]any, maxKeyBytes), "a deep list": nest(maxFormedDepth + 1), "texts": make([]string, maxKeyBytes),
	} {
		in := accepted()
		in.Token.Claims = map[string]any{"a": claim}
		before := e.CacheStatus()
		for range 2 {
			if d, err := e.Decide(t.Context(), in); err != nil || d.Metadata["n"] != 1.0 {
				t.Errorf("%s: got %+v, %v", name, d, err)
			}
		}
		if s := e.CacheStatus(); s.Bypassed != before.Bypassed+2 || s.Entries != 0 {
			t.Errorf("%s: %+v, want 2 more that are bypassed", name, s)
		}
	}
}

func manyNames(n int) map[string]any {
	m := make(map[string]any, n)
	for i := range n {
		m[fmt.Sprint(i)] = i
	}
	return m
}

// Whatever comes, the cache takes no more than it may.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	const bytes = 256 << 10
	e := newEngine(t, nil, func(c *Config) { c.CacheBytes = bytes })
	cache := e.program.Load().cache
	in := accepted()
	for i := range 50_000 {
		in.Token.ClientName = fmt.Sprint("client-", i)
		w, ok := cache.key(in)
		if !ok {
			t.Fatal("no key")
		}
		cache.set(string(w.buf), Decision{Allowed: true, Metadata: map[string]any{"x": strings.Repeat("y", i%100)}})
		w.release()
	}
	if s := e.CacheStatus(); s.Bytes > bytes || s.Entries == 0 || s.Entries > bytes/300 {
		t.Errorf("%+v, want at most %d bytes", s, bytes)
	}
}

// A decision is by the policy that decides when it is asked for, whatever was remembered of others.
func TestAnotherPolicyBeginsWithNothing(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil, func(c *Config) { c.LoadLater, c.CacheBytes = true, 1<<20 })
	module := func(n int) map[string][]byte {
		return map[string][]byte{
			"p.rego":    []byte(fmt.Sprintf("package extauthz\ndecision := {\"allowed\": true, \"dynamic_metadata\": {\"n\": %d, \"d\": data.d, \"h\": input.canonical.host}}", n)),
			"data.json": []byte(fmt.Sprintf(`{"d": %d}`, n)),
		}
	}
	if c := e.Caching(); c.Remembered || len(c.By) > 0 {
		t.Errorf("Caching is %+v before a policy is loaded, want nothing", c)
	}
	for n := range 20 {
		if err := e.Load(t.Context(), module(n), fmt.Sprint("v", n)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			d, err := e.Decide(t.Context(), accepted())
			if err != nil || d.Metadata["n"] != float64(n) || d.Metadata["d"] != float64(n) || d.Revision != e.Revision() {
				t.Fatalf("policy %d: got %+v, %v", n, d, err)
			}
		}
		if s := e.CacheStatus(); s.Entries != 1 || s.Hits != uint64(n+1) {
			t.Fatalf("policy %d: %+v, want one entry, and one more hit", n, s)
		}
	}
}

// Many ask while policies come and go. Each answer is of one policy, and of no older one than the last whose load had ended.
func TestSwapsUnderLoad(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nil, func(c *Config) { c.LoadLater, c.CacheBytes = true, 64<<10 })
	load := func(n int) {
		text := fmt.Sprintf("package extauthz\ndecision := {\"allowed\": true, \"dynamic_metadata\": {\"n\": %d, \"h\": input.canonical.host}}", n)
		if err := e.Load(t.Context(), map[string][]byte{"p.rego": []byte(text)}, fmt.Sprint(n)); err != nil {
			t.Error(err)
		}
	}
	load(0)
	var latest atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				in := accepted()
				in.Canonical.Host = fmt.Sprint(worker%2, i%50)
				least := latest.Load()
				d, err := e.Decide(t.Context(), in)
				n, _ := d.Metadata["n"].(float64)
				if err != nil || int64(n) < least || d.Metadata["h"] != in.Canonical.Host || !strings.HasPrefix(d.Revision, fmt.Sprint(n, "@")) {
					t.Errorf("got %+v, %v, want policy %d or later and host %s", d, err, least, in.Canonical.Host)
					return
				}
			}
		})
	}
	for n := 1; n <= 30; n++ {
		load(n)
		latest.Store(int64(n))
	}
	close(done)
	wg.Wait()
	if s := e.CacheStatus(); s.Hits == 0 {
		t.Errorf("%+v, want some hits", s)
	}
}

// Slow is told before an evaluation, and not where a decision is remembered.
func TestSlow(t *testing.T) {
	t.Parallel()
	told := 0
	e := newEngine(t, nil, cached, func(c *Config) { c.Slow = func(context.Context) { told++ } })
	for range 3 {
		if _, err := e.Decide(t.Context(), accepted()); err != nil {
			t.Fatal(err)
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
}
