package policy

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/types"
)

var update = flag.Bool("update", false, "rewrite the files that tests compare with")

// TestBuiltinsAreKnown fails when OPA has functions that nobody has judged yet: run the calls below on them, put those
// that do not end into leftOut, and update the list.
func TestBuiltinsAreKnown(t *testing.T) {
	caps, err := capabilities(nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range caps.Builtins {
		if !strings.HasPrefix(b.Name, "test.") {
			names = append(names, b.Name)
		}
	}
	got := strings.Join(names, "\n") + "\n"
	compareFile(t, filepath.Join("testdata", "builtins.txt"), got)

	all := ast.CapabilitiesForThisVersion().Builtins
	for name := range LeftOutBuiltins() {
		if slices.Contains(names, name) {
			t.Errorf("%s is left out and allowed", name)
		}
		if !slices.ContainsFunc(all, func(b *ast.Builtin) bool { return b.Name == name }) {
			t.Errorf("%s is left out and does not exist", name)
		}
	}
}

func compareFile(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(have)); diff != "" {
		t.Errorf("%s is not current; run the test with -update (-want +have):\n%s", name, diff)
	}
}

func TestLeftOutBuiltinsCanBeAllowed(t *testing.T) {
	t.Parallel()
	policy := rule(`decision := graph.reachable_paths({"a": ["b"]}, {"a"}) == {["a"]}`)
	if _, err := tryEngine(t, policy); err == nil {
		t.Error("graph.reachable_paths is not left out")
	}
	e := newEngine(t, policy, func(c *Config) { c.AllowBuiltins = []string{"graph.reachable_paths"} })
	if d, err := e.Decide(t.Context(), accepted()); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v, want an allow", d, err)
	}
}

// TestNothingLeavesTheProcess holds that each function which OPA marks as dependent on anything but its arguments is
// left out, but for time and chance.
func TestNothingLeavesTheProcess(t *testing.T) {
	caps, err := capabilities(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range caps.Builtins {
		if b.Nondeterministic && !slices.Contains([]string{"time.now_ns", "rand.intn", "uuid.rfc4122"}, b.Name) {
			t.Errorf("%s is allowed and depends on something besides its arguments", b.Name)
		}
	}
	if caps.AllowNet == nil || len(caps.AllowNet) > 0 {
		t.Errorf("hosts %v are allowed (nil: all), want none", caps.AllowNet)
	}
	caps, err = capabilities([]string{"http.send"})
	if err != nil || caps.AllowNet != nil {
		t.Errorf("with http.send: hosts %v, %v, want all", caps.AllowNet, err)
	}
}

// TestBuiltinsEnd calls each function that policies may use with arguments that are small and nasty, cancels the call
// after a moment, and wants it to end soon.
func TestBuiltinsEnd(t *testing.T) {
	t.Parallel()
	caps, err := capabilities(nil)
	if err != nil {
		t.Fatal(err)
	}
	const calls, limit = 60, 20 * time.Second
	random := rand.New(rand.NewSource(1))
	for _, b := range caps.Builtins {
		if topdown.GetBuiltin(b.Name) == nil || strings.HasPrefix(b.Name, "test.") {
			continue // part of the language, such as assign, or ours
		}
		var choices [][]*ast.Term
		for _, arg := range b.Decl.FuncArgs().Args {
			choices = append(choices, nasty(arg))
		}
		for range calls {
			args := make([]*ast.Term, len(choices))
			for i, list := range choices {
				args[i] = list[random.Intn(len(list))]
			}
			if !endsWithin(limit, b.Name, args) {
				t.Fatalf("%s does not end: %.300v", b.Name, args)
			}
		}
	}
}

// endsWithin calls a builtin function and cancels the call at once.
func endsWithin(limit time.Duration, name string, args []*ast.Term) bool {
	cancelled := &cancel{}
	cancelled.Cancel()
	bctx := topdown.BuiltinContext{
		Context: context.Background(), Cancel: cancelled, Metrics: metrics.New(), Cache: builtins.Cache{},
		Seed: rand.New(rand.NewSource(1)), Time: ast.NumberTerm("1700000000000000000"), Location: ast.NewLocation(nil, "x", 1, 1),
		Capabilities: &ast.Capabilities{AllowNet: []string{}},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = topdown.GetBuiltin(name)(bctx, args, func(*ast.Term) error { return errors.New("cancelled") })
	}()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// nasty returns values of a type that some function may take long for, each of a few kilobytes.
func nasty(t types.Type) []*ast.Term {
	if named, ok := t.(*types.NamedType); ok {
		t = named.Type
	}
	switch t := t.(type) {
	case types.Number:
		return nastyNumbers()
	case types.String:
		return nastyStrings()
	case *types.Array:
		return nastyArrays()
	case *types.Object:
		return nastyObjects()
	case *types.Set:
		return nastySets()
	case types.Any:
		if len(t) == 0 {
			return slices.Concat(nastyNumbers(), nastyStrings(), nastyArrays(), nastyObjects(), nastySets())
		}
		var out []*ast.Term
		for _, of := range t {
			out = append(out, nasty(of)...)
		}
		return out
	}
	return []*ast.Term{ast.NullTerm(), ast.BooleanTerm(true)}
}

var nastyNumbers = sync.OnceValue(func() []*ast.Term {
	var out []*ast.Term
	for _, n := range []string{"0", "1", "-1", "64", "100000", "1000000000", "9223372036854775807", "1e20", "1e1000", "-1e1000", "1e-1000", "1.5"} {
		out = append(out, ast.NumberTerm(json.Number(n)))
	}
	return out
})

var nastyStrings = sync.OnceValue(func() []*ast.Term {
	const n = 4096
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'l'; c++ {
		bomb += fmt.Sprintf("%c: &%[1]c [%s]\n", c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	var out []*ast.Term
	for _, s := range []string{
		"", "a", "/", "0.0.0.0/0", "::/0", "2006-01-02T15:04:05Z", "1e999999999", "1e-999999999", "1e999999999M", "%d %1000000d %*d", bomb,
		strings.Repeat("a", n), strings.Repeat("9", n), strings.Repeat("[", n), strings.Repeat("{", n), strings.Repeat("(", n), strings.Repeat("a/", n/2),
		strings.Repeat("a=1&", n/4), strings.Repeat("(a*)*", 100) + "b", strings.Repeat("a?", 200) + strings.Repeat("a", 200), strings.Repeat("*a", 100) + "b",
		strings.Repeat("[a-z]*", 30), "(((a{0,10}){0,10}){0,9})*b", strings.Repeat("%1000d", 100), `{"$ref":"#"}`,
	} {
		out = append(out, ast.StringTerm(s))
	}
	return out
})

var nastyArrays = sync.OnceValue(func() []*ast.Term {
	var numbers, big, texts, patches, cidrs []any
	for i := range 500 {
		numbers = append(numbers, i)
		big = append(big, json.Number("1e1000"))
		texts = append(texts, fmt.Sprint("s", i))
		patches = append(patches, map[string]any{"op": "add", "path": "/a/a/a", "value": i})
		cidrs = append(cidrs, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
	}
	return goTerms([]any{}, numbers, big, texts, patches, cidrs, nest(1000), []any{"a", 1}, []any{1e9, 1000000, "x"})
})

var nastyObjects = sync.OnceValue(func() []*ast.Term {
	flat, graph := map[string]any{}, map[string]any{}
	for i := range 500 {
		flat[fmt.Sprint("k", i)] = fmt.Sprint("v", i)
	}
	return goTerms(map[string]any{}, flat, completeGraph(graph, 20), map[string]any{"$ref": "#"})
})

var nastySets = sync.OnceValue(func() []*ast.Term {
	var numbers, texts, sets []*ast.Term
	for i := range 300 {
		numbers = append(numbers, ast.IntNumberTerm(i))
		texts = append(texts, ast.StringTerm(fmt.Sprint("s", i)))
		sets = append(sets, ast.SetTerm(numbers[:i]...))
	}
	return []*ast.Term{ast.SetTerm(), ast.SetTerm(numbers...), ast.SetTerm(texts...), ast.SetTerm(sets...)}
})

func completeGraph(graph map[string]any, n int) map[string]any {
	for i := range n {
		var edges []any
		for j := range n {
			edges = append(edges, fmt.Sprint(j))
		}
		graph[fmt.Sprint(i)] = edges
	}
	return graph
}

func goTerms(values ...any) []*ast.Term {
	out := make([]*ast.Term, len(values))
	for i, x := range values {
		out[i] = ast.NewTerm(ast.MustInterfaceToValue(x))
	}
	return out
}

// endless are calls that do not end, or not in any time that a request has, and notice no cancellation. The arguments
// are such as a client can send, or a policy can hold by mistake.
var endless = map[string]func() []*ast.Term{
	"bits.lsh":              func() []*ast.Term { return goTerms(1, 1000000000) },
	"glob.match":            func() []*ast.Term { return goTerms("*a*a*a*a*a*a*[cd]*b", []any{}, strings.Repeat("a", 300)+"b") },
	"graph.reachable_paths": func() []*ast.Term { return goTerms(completeGraph(map[string]any{}, 14), []any{"0"}) },
	"product": func() []*ast.Term {
		var list []any
		for range 30000 {
			list = append(list, json.Number("1e1000"))
		}
		return goTerms(list)
	},
	"rego.parse_module": func() []*ast.Term {
		return goTerms("x.rego", "package a\np if { x := "+strings.Repeat("1+", 30000)+"1 }")
	},
	"strings.render_template": func() []*ast.Term {
		return goTerms("{{range .a}}{{range $.a}}{{range $.a}}{{range $.a}}{{end}}{{end}}{{end}}{{end}}", map[string]any{"a": make([]any, 1000)})
	},
}

// deadly are calls that overflow the stack, which Go cannot recover from.
var deadly = map[string]func() []*ast.Term{
	"json.match_schema":        func() []*ast.Term { return goTerms(map[string]any{}, map[string]any{"$ref": "#"}) },
	"graphql.parse_query":      func() []*ast.Term { return goTerms(deepQuery) },
	"graphql.parse":            func() []*ast.Term { return goTerms(deepQuery, "type Query { a: Int }") },
	"graphql.is_valid":         func() []*ast.Term { return goTerms(deepQuery, "type Query { a: Int }") },
	"graphql.parse_and_verify": func() []*ast.Term { return goTerms(deepQuery, "type Query { a: Int }") },
}

var deepQuery = "{a(x:" + strings.Repeat("[", 1<<20)

const helperEnv = "POLICY_TEST_HELPER"

// helper runs in a process of its own what would spoil the test's: it prints which calls of endless have not ended
// after a second, or makes a deadly call.
func helper(name string) {
	if call, ok := deadly[name]; ok {
		debug.SetMaxStack(64 << 20) // instead of 1 GB: the same end, sooner
		fmt.Println(endsWithin(time.Minute, name, call()))
		return
	}
	var all sync.WaitGroup
	for name, call := range endless {
		all.Go(func() {
			if !endsWithin(time.Second, name, call()) {
				fmt.Println(name)
			}
		})
	}
	all.Wait()
	os.Exit(0)
}

// TestLeftOutBuiltinsDoNotEnd keeps the list short: a function that ends with a newer OPA need not be left out.
func TestLeftOutBuiltinsDoNotEnd(t *testing.T) {
	t.Parallel()
	out, err := runHelper(t, "endless")
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	got := strings.Fields(out)
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(endless)), got); diff != "" {
		t.Errorf("functions that do not end (-want +got):\n%s", diff)
	}
	for name := range deadly {
		if out, err := runHelper(t, name); err == nil || !strings.Contains(out, "fatal error: stack overflow") {
			t.Errorf("%s: %v, %.200s, want a stack overflow", name, err, out)
		}
	}
	for name, why := range leftOut {
		_, isEndless := endless[name]
		_, isDeadly := deadly[name]
		if isEndless != strings.Contains(why, "cannot be cancelled") || isDeadly != strings.Contains(why, "overflows the stack") {
			t.Errorf("%s is left out as it %q; endless is %v, deadly is %v", name, why, isEndless, isDeadly)
		}
	}
}

func runHelper(t *testing.T, name string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
