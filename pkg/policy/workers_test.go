package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
)

// Builtin functions that only these tests have: test.panic panics, test.block ignores cancellation until its channel in
// blockers is closed, test.swallow waits for cancellation and then is undefined, test.context is undefined once the
// context has ended, as http.send is.
func init() {
	register := func(name string, f topdown.BuiltinFunc) {
		ast.RegisterBuiltin(&ast.Builtin{Name: name, Decl: types.NewFunction(types.Args(types.S), types.B)})
		topdown.RegisterBuiltinFunc(name, f)
	}
	register("test.panic", func(_ topdown.BuiltinContext, args []*ast.Term, _ func(*ast.Term) error) error {
		text := string(args[0].Value.(ast.String))
		if text == "" {
			_ = []int{}[len(text)]
		}
		panic(text)
	})
	register("test.block", func(_ topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
		released, _ := blockers.Load(string(args[0].Value.(ast.String)))
		<-released.(chan struct{})
		return iter(ast.BooleanTerm(true))
	})
	register("test.context", func(bctx topdown.BuiltinContext, _ []*ast.Term, iter func(*ast.Term) error) error {
		if err := bctx.Context.Err(); err != nil {
			return err
		}
		return iter(ast.BooleanTerm(true))
	})
	register("test.swallow", func(bctx topdown.BuiltinContext, _ []*ast.Term, _ func(*ast.Term) error) error {
		for !bctx.Cancel.Cancelled() {
			runtime.Gosched()
		}
		return errors.New("cancelled")
	})
}

var blockers sync.Map

// blocked returns a policy that is stuck in a builtin function until release is called.
func blocked(t *testing.T) (policy map[string]string, release func()) {
	c := make(chan struct{})
	blockers.Store(t.Name(), c)
	release = sync.OnceFunc(func() { close(c) })
	t.Cleanup(release)
	return rule(fmt.Sprintf("default decision := false\ndecision if test.block(%q)", t.Name())), release
}

func withLimits(timeout time.Duration, concurrency int) func(*Config) {
	return func(c *Config) { c.Timeout, c.Concurrency = timeout, concurrency }
}

func wantFailure(t *testing.T, d Decision, err error, want Reason) {
	t.Helper()
	if !errors.Is(err, want) || d.Allowed || d.Revision != "" {
		t.Errorf("got %+v, %v, want the zero decision and %v", d, err, want)
	}
}

func wantStats(t *testing.T, e *Engine, want Stats) {
	t.Helper()
	if got := e.Stats(); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
}

// TestEndless evaluates policies that never end but notice cancellation.
func TestEndless(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]string{
		"loops":         "decision if { some x in numbers.range(1, 100000); some y in numbers.range(1, 100000); x * y < 0 }",
		"a long range":  "decision if count(numbers.range(1, 1000000000000)) > 0",
		"comprehension": "decision if count([1 | some x in numbers.range(1, 100000); some y in numbers.range(1, 100000); x > y]) > 1",
		"not":           "decision if not endless\n\nendless if { some x in numbers.range(1, 100000); some y in numbers.range(1, 100000); x * y < 0 }",
		"every":         "decision if { every x in numbers.range(1, 100000) { every y in numbers.range(1, 100000) { x * y > 0 } } }",
		"cidr":          `decision if count(net.cidr_expand("::/0")) > 0`,
		"swallowed":     `decision if not test.swallow("")`,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, rule(policy), withLimits(20*time.Millisecond, 1))
			d, err := e.Decide(t.Context(), accepted())
			wantFailure(t, d, err, ErrTimeout)
			for deadline := time.Now().Add(time.Minute); e.Stats() != (Stats{}); runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("the evaluation does not end: %+v", e.Stats())
				}
			}
		})
	}
}

// TestEndedContextIsNoAnswer evaluates what a context that ends makes true, at a moment when nobody has cancelled yet.
func TestEndedContextIsNoAnswer(t *testing.T) {
	e := newEngine(t, rule(`decision if not test.context("")`))
	input, err := accepted().value()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if value, err := e.program.Load().eval(ctx, &cancel{}, input, time.Now()); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, %v, want ErrTimeout", value, err)
	}
}

func TestAnswerAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy, release := blocked(t)
		var log strings.Builder
		e := newEngine(t, policy, withLimits(50*time.Millisecond, 2), logTo(&log))
		decide := func(want Reason, after time.Duration) {
			t.Helper()
			start := time.Now()
			d, err := e.Decide(t.Context(), accepted())
			wantFailure(t, d, err, want)
			if took := time.Since(start); took != after {
				t.Errorf("the answer came after %v, want %v", took, after)
			}
		}

		// Two that are stuck are replaced, two more are not. Then nothing starts any more, and soon nothing waits.
		decide(ErrTimeout, 50*time.Millisecond)
		wantStats(t, e, Stats{Workers: 0, Late: 1})
		decide(ErrTimeout, 50*time.Millisecond)
		decide(ErrTimeout, 50*time.Millisecond)
		wantStats(t, e, Stats{Workers: 1, Late: 3})
		decide(ErrTimeout, 50*time.Millisecond)
		if log.Len() > 0 {
			t.Errorf("log is %q, want nothing yet", log.String())
		}
		decide(ErrOverloaded, 50*time.Millisecond)
		decide(ErrOverloaded, 0)
		decide(ErrOverloaded, 0)
		wantStats(t, e, Stats{Workers: 2, Late: 4})
		if strings.Count(log.String(), "late=4") != 1 {
			t.Errorf("log is %q, want one line", log.String())
		}

		release()
		synctest.Wait()
		wantStats(t, e, Stats{})
		if d, err := e.Decide(t.Context(), accepted()); err != nil || !d.Allowed {
			t.Errorf("after the release: %+v, %v, want an allow", d, err)
		}
	})
}

// TestOneOfManyEnds holds that whichever late evaluation ends makes room.
func TestOneOfManyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const policy = `default decision := false

decision if input.parsed_path[0] == "free"

decision if {
	input.parsed_path[0] != "free"
	test.block(input.parsed_path[0])
}`
		first, second := make(chan struct{}), make(chan struct{})
		defer close(second)
		blockers.Store("first", first)
		blockers.Store("second", second)
		e := newEngine(t, rule(policy), withLimits(50*time.Millisecond, 1))
		decide := func(path string) (Decision, error) {
			in := accepted()
			in.ParsedPath[0] = path
			return e.Decide(t.Context(), in)
		}
		for _, path := range []string{"first", "second"} { // the first is replaced, the second keeps the only slot
			d, err := decide(path)
			wantFailure(t, d, err, ErrTimeout)
		}
		d, err := decide("free")
		wantFailure(t, d, err, ErrOverloaded)
		close(first)
		synctest.Wait()
		wantStats(t, e, Stats{Workers: 0, Late: 1})
		if d, err := decide("free"); err != nil || !d.Allowed {
			t.Errorf("after one has ended: %+v, %v, want an allow", d, err)
		}
	})
}

func TestWaitingForAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy, release := blocked(t)
		e := newEngine(t, policy, withLimits(50*time.Millisecond, 1))
		e.Decide(t.Context(), accepted()) // stuck, and replaced

		var all sync.WaitGroup
		all.Go(func() { // holds the only slot
			d, err := e.Decide(t.Context(), accepted())
			wantFailure(t, d, err, ErrTimeout)
		})
		synctest.Wait()
		all.Go(func() { // waits for it
			d, err := e.Decide(t.Context(), accepted())
			wantFailure(t, d, err, ErrOverloaded)
		})
		all.Go(func() { // waits for it, but not for as long
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer stop()
			d, err := e.Decide(ctx, accepted())
			wantFailure(t, d, err, ErrTimeout)
		})
		all.Wait()

		all.Go(func() { // is answered once a slot is free
			synctest.Wait()
			release()
		})
		all.Wait()
		synctest.Wait()
		if d, err := e.Decide(t.Context(), accepted()); err != nil || !d.Allowed {
			t.Errorf("after the release: %+v, %v, want an allow", d, err)
		}
	})
}

func TestCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy, _ := blocked(t)
		e := newEngine(t, policy, withLimits(50*time.Millisecond, 1))
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer stop()
		start := time.Now()
		d, err := e.Decide(ctx, accepted())
		wantFailure(t, d, err, ErrTimeout)
		if took := time.Since(start); took != 10*time.Millisecond || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v, want the context's error after 10ms", took, err)
		}
	})
}

// TestInputIsCopied changes an input that a late evaluation still has; the race detector would see it being read.
func TestInputIsCopied(t *testing.T) {
	policy, release := blocked(t)
	policy["policy.rego"] += "\n\nlast := [input.attributes.request, input.token.claims, input.parsed_query, input.token.scopes]\n\ndecision if { test.block(\"" + t.Name() + "\"); count(json.marshal(last)) > 0 }"
	e := newEngine(t, policy, withLimits(time.Millisecond, 1))
	in := accepted()
	d, err := e.Decide(t.Context(), in)
	wantFailure(t, d, err, ErrTimeout)
	release()
	in.Attributes["request"].(map[string]any)["http"] = nil
	in.Token.Claims["custom:tier"] = "lead"
	in.Token.Scopes[0] = "x"
	in.ParsedQuery["page"][0] = "3"
	clear(in.ParsedQuery)
	for e.Stats() != (Stats{}) {
		runtime.Gosched()
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, nil, withLimits(time.Second, 3))
		for range 2 { // Run may come again
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- e.Run(ctx) }()
			synctest.Wait()
			if err := e.Run(t.Context()); err == nil {
				t.Error("a second Run gave no error")
			}
			for range 3 {
				if d, err := e.Decide(t.Context(), accepted()); err != nil || !d.Allowed {
					t.Errorf("got %+v, %v, want an allow", d, err)
				}
				synctest.Wait()
				wantStats(t, e, Stats{Workers: 1})
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			synctest.Wait()
			wantStats(t, e, Stats{})
		}
	})
}

func TestPanicLeavesTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, rule("default decision := false\ndecision if { input.token; test.panic(\"\") }\ndecision if not input.token"), withLimits(time.Second, 1))
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go e.Run(ctx)
		synctest.Wait()
		for range 3 {
			d, err := e.Decide(t.Context(), accepted())
			wantFailure(t, d, err, ErrPolicy)
			in := accepted()
			in.Token = nil
			if d, err := e.Decide(t.Context(), in); err != nil || !d.Allowed {
				t.Errorf("after a panic: %+v, %v, want an allow", d, err)
			}
		}
		synctest.Wait()
		wantStats(t, e, Stats{Workers: 1})
	})
}

// TestPanicsAndTimeoutsSpoilNothing decides beside evaluations that panic or are cancelled, which hand what they had
// back to OPA's pools.
func TestPanicsAndTimeoutsSpoilNothing(t *testing.T) {
	t.Parallel()
	const policy = `default decision := false

decision if {
	every scope in input.route.scopes.any { scope in input.token.scopes }
	not trouble
}

trouble if { input.parsed_path[0] == "panic"; some scope in input.token.scopes; [x | some x in input.route.scopes.any; test.panic(scope)] }

trouble if { input.parsed_path[0] == "endless"; some x in numbers.range(1, 100000); some y in numbers.range(1, 100000); x * y < 0 }`
	e := newEngine(t, rule(policy), withLimits(time.Minute, 4))
	ctx, stop := context.WithCancel(t.Context())
	var background, all sync.WaitGroup
	background.Go(func() { e.Run(ctx) })
	for g := range 12 {
		all.Go(func() {
			for i := range 60 {
				in := accepted()
				in.Route.Scopes.Any = []string{"a", fmt.Sprint("b", g)}
				in.Token.Scopes = []string{fmt.Sprint("b", g+i%2), "a"}
				ctx, stop := ctx, context.CancelFunc(func() {})
				switch g % 4 {
				case 0:
					in.ParsedPath[0] = "panic"
				case 1:
					in.ParsedPath[0] = "endless"
					ctx, stop = context.WithTimeout(ctx, time.Millisecond)
				}
				d, err := e.Decide(ctx, in)
				stop()
				switch {
				case g%4 < 2 && d.Allowed:
					t.Errorf("%s was allowed", in.ParsedPath[0])
				case g%4 >= 2 && (err != nil || d.Allowed != (i%2 == 0)):
					t.Errorf("client %d, request %d: got %+v, %v", g, i, d, err)
				}
			}
		})
	}
	all.Wait()
	stop()
	background.Wait()
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy, release := blocked(t)
		e := newEngine(t, policy, withLimits(time.Minute, 3))
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if d, err := e.Decide(t.Context(), accepted()); err != nil || !d.Allowed {
					t.Errorf("got %+v, %v, want an allow", d, err)
				}
			})
		}
		synctest.Wait()
		wantStats(t, e, Stats{Workers: 3})
		release()
		all.Wait()
	})
}

// TestConcurrentDecisions decides from many goroutines while the policy is reloaded and Run comes and goes. Each
// decision must be by one policy as a whole, and right for its input.
func TestConcurrentDecisions(t *testing.T) {
	t.Parallel()
	files := mapFS(rule(""))
	sources := []string{"a", "b"}
	use := func(name string) {
		files["policy.rego"].Data = []byte(fmt.Sprintf(`package extauthz

decision := {
	"allowed": input.token.client_id == input.parsed_path[0],
	"reason": "%s",
	"dynamic_metadata": {"client": input.token.client_id, "by": "%[1]s"},
}`, name))
	}
	use("a")
	e := newEngine(t, nil, func(c *Config) { c.FS, c.Concurrency, c.Timeout = files, 4, time.Minute })
	revisions := map[string]string{e.Revision(): "a"}
	use("b")
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	revisions[e.Revision()] = "b"

	ctx, stop := context.WithCancel(t.Context())
	var background, all sync.WaitGroup
	background.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			use(sources[i%2])
			if err := e.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	background.Go(func() {
		for ctx.Err() == nil {
			run, end := context.WithTimeout(ctx, 5*time.Millisecond)
			if err := e.Run(run); err != nil {
				t.Error(err)
			}
			end()
		}
	})
	for g := range 50 {
		all.Go(func() {
			for i := range 100 {
				in := accepted()
				in.Token.ClientID = fmt.Sprint(g)
				in.ParsedPath = []string{fmt.Sprint(g + i%2)}
				d, err := e.Decide(t.Context(), in)
				if err != nil {
					t.Error(err)
					return
				}
				if d.Allowed != (i%2 == 0) || d.Metadata["client"] != fmt.Sprint(g) || d.Detail != revisions[d.Revision] || d.Metadata["by"] != d.Detail {
					t.Errorf("client %d, request %d: got %+v", g, i, d)
				}
			}
		})
	}
	all.Wait()
	stop()
	background.Wait()
}
