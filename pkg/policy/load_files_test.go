package policy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// numbered is a policy that says which one it is, in its rules and in its data.
func numbered(n int) map[string][]byte {
	return map[string][]byte{
		"a/policy.rego": fmt.Appendf(nil, `package extauthz

decision := {"allowed": true, "dynamic_metadata": {"rule": "%d", "data": data.n}}
`, n),
		"data.json":          fmt.Appendf(nil, `{"n": "%d"}`, n),
		"a/policy_test.rego": []byte("this is no Rego"),
		"readme.md":          []byte("neither is this"),
	}
}

func newLater(t *testing.T) *policy.Engine {
	t.Helper()
	e, err := policy.New(t.Context(), policy.Config{LoadLater: true})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestLoadLater(t *testing.T) {
	e := newLater(t)
	if got := e.Revision(); got != "" {
		t.Errorf("revision is %q before anything is loaded, want none", got)
	}
	if d, err := e.Decide(t.Context(), &policy.Input{}); !errors.Is(err, policy.ErrPolicy) || d.Allowed {
		t.Errorf("found %+v and %v before anything is loaded, want policy_error", d, err)
	}
	if err := e.Reload(t.Context()); err == nil {
		t.Error("Reload loads a policy, want an error")
	}
	if err := e.Load(t.Context(), numbered(1), "main=1"); err != nil {
		t.Fatal(err)
	}
	d, err := e.Decide(t.Context(), &policy.Input{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"rule": "1", "data": "1"}, d.Metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(d.Revision, "main=1@sha256:") || d.Revision != e.Revision() {
		t.Errorf("revision is %q and %q, want main=1@sha256:…", d.Revision, e.Revision())
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		path, text, want string
	}{
		"nothing":                {"", "", "no Rego module"},
		"only tests":             {"a_test.rego", "package a", "no Rego module"},
		"no Rego":                {"a/b.rego", "package extauthz\n\nx :=\n", "a/b.rego:"},
		"no deciding rule":       {"b.rego", "package extauthz\n\nx := 1\n", "no rule data.extauthz.decision"},
		"a function left out":    {"b.rego", "package extauthz\n\ndecision := http.send({}).ok\n", "http.send is left out"},
		"an unknown input":       {"b.rego", "package extauthz\n\ndecision := input.tokn\n", "undefined ref: input.tokn"},
		"a part of the base":     {"b.rego", "package extauthz.base\n\ndecision := true\n", "built in"},
		"a name like the base's": {"extauthz/base.rego", "package extauthz.base\n\ndecision := true\n", "built in"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newLater(t)
			if err := e.Load(t.Context(), numbered(1), ""); err != nil {
				t.Fatal(err)
			}
			before := e.Revision()
			err := e.Load(t.Context(), map[string][]byte{test.path: []byte(test.text)}, "bad")
			var problems *policy.LoadError
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want a LoadError with %q", err, test.want)
			}
			if got := e.Revision(); got != before {
				t.Errorf("revision is %q, want %q", got, before)
			}
		})
	}
	for _, cfg := range []policy.Config{
		{LoadLater: true, Dir: "x"},
		{LoadLater: true, Decision: "allow"},
		{LoadLater: true, AllowBuiltins: []string{"no.such"}},
	} {
		if _, err := policy.New(t.Context(), cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

// TestSwaps loads a thousand policies while others decide. Each decision is one policy's in rules, data and revision.
func TestSwaps(t *testing.T) {
	const swaps = 1000
	e := newLater(t)
	load := func(n int) {
		if err := e.Load(t.Context(), numbered(n), fmt.Sprintf("main=%d", n)); err != nil {
			t.Error(err)
		}
	}
	load(0)
	ctx, stop := context.WithCancel(t.Context())
	var running, deciding sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx) })
	var decisions, seen atomic.Int64
	done := make(chan struct{})
	for range 2 { // the compiler needs a CPU as well
		deciding.Go(func() {
			last := ""
			for {
				select {
				case <-done:
					return
				default:
				}
				d, err := e.Decide(t.Context(), &policy.Input{})
				if errors.Is(err, policy.ErrTimeout) || errors.Is(err, policy.ErrOverloaded) {
					continue // the race detector and two CPUs: late, but not wrong
				}
				rule, _ := d.Metadata["rule"].(string)
				if err != nil || !d.Allowed || rule != d.Metadata["data"] || !strings.HasPrefix(d.Revision, "main="+rule+"@sha256:") {
					t.Errorf("decision is %+v and %v, want one policy's", d, err)
					return
				}
				decisions.Add(1)
				if d.Revision != last {
					seen.Add(1)
				}
				last = d.Revision
			}
		})
	}
	for n := range swaps {
		load(n + 1)
	}
	close(done)
	deciding.Wait()
	stop()
	running.Wait()
	t.Logf("%d swaps, %d decisions, %d changes of revision seen", swaps, decisions.Load(), seen.Load())
	if decisions.Load() < swaps || seen.Load() < swaps/10 {
		t.Errorf("%d decisions and %d changes seen during %d swaps, want more", decisions.Load(), seen.Load(), swaps)
	}
	if !strings.HasPrefix(e.Revision(), fmt.Sprintf("main=%d@", swaps)) {
		t.Errorf("revision is %q, want the last", e.Revision())
	}
}

func TestFingerprint(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("p.rego", "package extauthz\n\ndecision := true\n")
	e, err := policy.New(t.Context(), policy.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	same := func(want bool) {
		t.Helper()
		got, err := e.Fingerprint()
		if err != nil || (got == e.Revision()) != want {
			t.Errorf("fingerprint is %q (%v) and the revision %q, want the same: %v", got, err, e.Revision(), want)
		}
	}
	same(true)
	write("p_test.rego", "no part of it")
	write(".hidden.rego", "no part of it")
	same(true)
	write("data.json", `{"x": 1}`)
	same(false)
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(true)
	write("p.rego", "no Rego") // it is not compiled
	same(false)
	if err := os.Remove(filepath.Join(dir, "p.rego")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Fingerprint(); err == nil || !strings.Contains(err.Error(), "no *.rego file") {
		t.Errorf("error is %v, want no *.rego file", err)
	}
}
