package policy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		helper(name)
		return
	}
	goleak.VerifyTestMain(m)
}

// newEngine returns an engine with the policy in files, or the built-in one without files. Its timeout is long enough
// for a busy machine.
func newEngine(t testing.TB, files map[string]string, edits ...func(*Config)) *Engine {
	t.Helper()
	e, err := tryEngine(t, files, edits...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tryEngine(t testing.TB, files map[string]string, edits ...func(*Config)) (*Engine, error) {
	t.Helper()
	cfg := Config{Timeout: time.Minute}
	if files != nil {
		cfg.FS = mapFS(files)
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	return New(t.Context(), cfg)
}

func mapFS(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

// rule is a policy of one file, whose package line it adds.
func rule(text string) map[string]string {
	return map[string]string{"policy.rego": "package extauthz\n\n" + text}
}

func logTo(w io.Writer) func(*Config) {
	return func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(w, nil)) }
}

// accepted is what the built-in policy lets through.
func accepted() *Input {
	return &Input{
		Attributes:  map[string]any{"request": map[string]any{"http": map[string]any{"method": "GET", "path": "/orders/7?page=2"}}},
		ParsedPath:  []string{"orders", "7"},
		ParsedQuery: map[string][]string{"page": {"2"}},
		Canonical:   Canonical{Host: "api.example.com", Path: "/orders/7"},
		Token: &Token{
			ClientID: "7a8b9c0d1e2f3g4h5i6j7k8l9m", ClientName: "orders-batch", Pool: "main", TokenUse: "access",
			Scopes: []string{"orders/read"},
			Claims: map[string]any{"custom:tier": "gold"},
		},
		Route: &Route{
			Name: "GET /orders/{id}", Methods: []string{"GET"}, Path: "/orders/{id}", Params: map[string]string{"id": "7"},
			Scopes: Scopes{Any: []string{"orders/read", "orders/admin"}},
		},
	}
}

func TestBuiltInPolicy(t *testing.T) {
	e := newEngine(t, nil)
	tests := []struct {
		name string
		edit func(*Input)
		want Decision
	}{
		{"accepted", func(*Input) {}, Decision{Allowed: true}},
		{"no route", func(in *Input) { in.Route = nil }, Decision{Reason: NoRoute, Detail: "no_route", HTTPStatus: 403}},
		{"no token", func(in *Input) { in.Token = nil }, Decision{Reason: PolicyDenied, Detail: "policy_denied", HTTPStatus: 403}},
		{"public without a token", func(in *Input) { in.Token, in.Route.Public = nil, true }, Decision{Allowed: true}},
		{
			"no scopes", func(in *Input) { in.Token.Scopes = nil },
			Decision{Reason: InsufficientScope, Detail: "insufficient_scope", Scope: "orders/read", HTTPStatus: 403},
		},
		{
			"another client", func(in *Input) { in.Route.Clients = []string{"billing"} },
			Decision{Reason: ClientNotAllowed, Detail: "client_not_allowed", HTTPStatus: 403},
		},
		{
			"another pool", func(in *Input) { in.Route.Pools = []string{"partners"} },
			Decision{Reason: ClientNotAllowed, Detail: "client_not_allowed", HTTPStatus: 403},
		},
		{
			"a route that says nothing", func(in *Input) { in.Route.Scopes = Scopes{} },
			Decision{Reason: ClientNotAllowed, Detail: "client_not_allowed", HTTPStatus: 403},
		},
		{
			"a zero route", func(in *Input) { in.Route = &Route{} },
			Decision{Reason: ClientNotAllowed, Detail: "client_not_allowed", HTTPStatus: 403},
		},
		{
			"a zero token", func(in *Input) { in.Token = &Token{} },
			Decision{Reason: InsufficientScope, Detail: "insufficient_scope", Scope: "orders/read", HTTPStatus: 403},
		},
		{
			"a zero input", func(in *Input) { *in = Input{} },
			Decision{Reason: NoRoute, Detail: "no_route", HTTPStatus: 403},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := accepted()
			tt.edit(in)
			got, err := e.Decide(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Revision = e.Revision()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// TestFailures holds that a policy that does not answer properly never allows, and that the error says what happened.
func TestFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		policy string
		reason Reason
		text   string // in the error
	}{
		{"undefined", `decision if input.token.client_id == "another"`, ErrUndefined, ""},
		{"undefined inside an object", `decision := {"allowed": true, "headers": {"x-tier": input.token.claims.tier}}`, ErrUndefined, ""},
		{"a builtin's error is undefined", `decision := {"allowed": 1 / 0 == 1}`, ErrUndefined, ""},
		{"conflict", "decision := true if input.route\ndecision := false if input.token", ErrPolicy, "policy.rego:4:1: eval_conflict_error"},
		{
			"conflict of values that nobody may see", "decision := input.token.pool if input.route\ndecision := \"secret\" if input.token", ErrPolicy,
			"eval_conflict_error: rule data.extauthz.decision produced conflicting values",
		},
		{"conflict in a function", "decision := f(1)\nf(_) := input.token.pool\nf(_) := \"secret\"", ErrPolicy, "function data.extauthz.f produced conflicting values"},
		{"conflict in an object", "decision[k] := true if some k in [\"allowed\"]\ndecision[k] := false if some k in [\"allowed\"]", ErrPolicy, "eval_conflict_error"},
		{"a panic", `decision if test.panic("secret")`, ErrPolicy, "panic: a string"},
		{"a panic of the runtime", `decision if test.panic("")`, ErrPolicy, "panic: runtime error: index out of range"},
		{"a string", `decision := "true"`, ErrPolicy, "the decision is a string, want a boolean or an object"},
		{"a number", `decision := 1`, ErrPolicy, "the decision is a number"},
		{"null", `decision := null`, ErrPolicy, "the decision is null"},
		{"a list", `decision := [true]`, ErrPolicy, "the decision is a list"},
		{"a set", `decision := {true}`, ErrPolicy, "the decision is a set"},
		{"a partial set", `decision contains true`, ErrPolicy, "the decision is a set"},
		{"an empty object", `decision := {}`, ErrPolicy, "allowed of the decision is missing"},
		{"an empty partial object", `decision[k] := true if { some k in input.parsed_path; k == "none" }`, ErrPolicy, "allowed of the decision is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := newEngine(t, rule(tt.policy)).Decide(t.Context(), accepted())
			if !errors.Is(err, tt.reason) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error is %v, want %v with %q", err, tt.reason, tt.text)
			}
			if diff := cmp.Diff(Decision{}, got); diff != "" {
				t.Errorf("with an error the decision is not zero:\n%s", diff)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds a value of the policy: %v", err)
			}
			matches := 0
			for _, reason := range []Reason{ErrUndefined, ErrTimeout, ErrOverloaded, ErrPolicy} {
				if errors.Is(err, reason) {
					matches++
				}
			}
			if matches != 1 {
				t.Errorf("the error matches %d reasons, want one: %v", matches, err)
			}
		})
	}
}

func TestEvalErrorOfAPanicHasAStack(t *testing.T) {
	_, err := newEngine(t, rule(`decision if test.panic("secret")`)).Decide(t.Context(), accepted())
	var e *EvalError
	if !errors.As(err, &e) || len(e.Stack) == 0 {
		t.Errorf("error is %#v, want an *EvalError with a stack", err)
	}
}

// TestPolicies holds the forms that a policy of OPA-Envoy may have.
func TestPolicies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		policy string
		want   bool
	}{
		{"true", `decision := true`, true},
		{"false", `decision := false`, false},
		{"default", "default decision := false\ndecision if input.token.client_id == \"another\"", false},
		{"object", `decision := {"allowed": true}`, true},
		{"partial object", "decision[\"allowed\"] := true\ndecision[\"http_status\"] := 401", true},
		{"dotted head", `decision.allowed := true`, true},
		{"extended", "default decision := false\ndecision := data.extauthz.base.decision if input.parsed_path[0] == \"orders\"", true},
		{"extended, and denied", "default decision := false\ndecision := data.extauthz.base.decision if input.parsed_path[0] == \"x\"", false},
		{"no token is not input.token", `decision := false if not input.token else := true`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := newEngine(t, rule(tt.policy)).Decide(t.Context(), accepted())
			if err != nil || got.Allowed != tt.want {
				t.Errorf("allowed is %v, error %v, want %v", got.Allowed, err, tt.want)
			}
		})
	}
}

func TestAbsentTokenAndRoute(t *testing.T) {
	e := newEngine(t, rule("decision := {\"allowed\": false, \"reason\": \"both_absent\"} if { not input.token; not input.route }"))
	in := accepted()
	in.Token, in.Route = nil, nil
	got, err := e.Decide(t.Context(), in)
	if err != nil || got.Detail != "both_absent" {
		t.Errorf("got %+v, %v, want the reason both_absent", got, err)
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e := newEngine(t, rule(`decision := time.clock(time.now_ns()) == [3, 4, 5]`), func(c *Config) { c.Now = func() time.Time { return now } })
	if got, err := e.Decide(t.Context(), accepted()); err != nil || !got.Allowed {
		t.Errorf("got %+v, %v, want the clock of the config", got, err)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte("package extauthz\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("decision := true")
	e := newEngine(t, nil, func(c *Config) { c.Dir = dir })
	decide := func() Decision {
		t.Helper()
		d, err := e.Decide(t.Context(), accepted())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := decide()

	write("decision := ")
	var broken *LoadError
	if err := e.Reload(t.Context()); !errors.As(err, &broken) {
		t.Errorf("reload of a broken policy: %v, want a *LoadError", err)
	}
	if diff := cmp.Diff(first, decide()); diff != "" {
		t.Errorf("a failed reload changed the decision:\n%s", diff)
	}

	write("decision := false")
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second := decide(); second.Allowed || second.Revision == first.Revision || second.Revision != e.Revision() {
		t.Errorf("after the reload: %+v, want a denial with revision %s", second, e.Revision())
	}

	write("decision := true")
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, decide()); diff != "" {
		t.Errorf("the same files give another decision or revision:\n%s", diff)
	}
}

func TestRevision(t *testing.T) {
	base := newEngine(t, rule("decision := true")).Revision()
	if len(base) != len("sha256:")+12 || !strings.HasPrefix(base, "sha256:") {
		t.Errorf("revision is %q, want sha256: and 12 hex digits", base)
	}
	others := map[string]string{
		"built-in":         newEngine(t, nil).Revision(),
		"other text":       newEngine(t, rule("decision := true\n")).Revision(),
		"other file name":  newEngine(t, map[string]string{"q.rego": "package extauthz\n\ndecision := true"}).Revision(),
		"data":             newEngine(t, map[string]string{"policy.rego": "package extauthz\n\ndecision := true", "data.json": "{}"}).Revision(),
		"other decision":   newEngine(t, rule("decision := true\nother := true"), func(c *Config) { c.Decision = "data.extauthz.other" }).Revision(),
		"allowed builtins": newEngine(t, rule("decision := true"), func(c *Config) { c.AllowBuiltins = []string{"http.send"} }).Revision(),
	}
	seen := map[string]string{base: "base"}
	for name, revision := range others {
		if before, twice := seen[revision]; twice {
			t.Errorf("%s has the revision of %s", name, before)
		}
		seen[revision] = name
	}
	if again := newEngine(t, rule("decision := true")).Revision(); again != base {
		t.Errorf("revision is %s, then %s", base, again)
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*Config)
		want []string // in the error
	}{
		{"timeout", func(c *Config) { c.Timeout = -1 }, []string{"Timeout is -1ns"}},
		{"concurrency", func(c *Config) { c.Concurrency = -1 }, []string{"Concurrency is -1"}},
		{"dir and fs", func(c *Config) { c.Dir, c.FS = "x", mapFS(rule("decision := true")) }, []string{"Dir and FS are both set"}},
		{"no such dir", func(c *Config) { c.Dir = filepath.Join(t.TempDir(), "none") }, []string{"no such file or directory"}},
		{"empty dir", func(c *Config) { c.Dir = t.TempDir() }, []string{"no *.rego file in"}},
		{"decision that is no reference", func(c *Config) { c.Decision = "allow" }, []string{`Decision is "allow", want data`}},
		{"decision of input", func(c *Config) { c.Decision = "input.a.b" }, []string{`Decision is "input.a.b"`}},
		{"decision with a variable", func(c *Config) { c.Decision = "data.extauthz[x]" }, []string{"Decision is"}},
		{"decision that is a call", func(c *Config) { c.Decision = "count(data.extauthz.decision)" }, []string{"Decision is"}},
		{"decision that is a package", func(c *Config) { c.Decision = "data.extauthz.base" }, []string{"no rule data.extauthz.base; found the packages extauthz, extauthz.base", "hint:"}},
		{"decision that does not exist", func(c *Config) { c.Decision = "data.orders.allow" }, []string{"no rule data.orders.allow", `"allow" in package orders`}},
		{"unknown builtin", func(c *Config) { c.AllowBuiltins = []string{"http.sent"} }, []string{`"http.sent", which is no builtin`}},
		{"several at once", func(c *Config) { c.Timeout, c.Reasons = -1, []string{"No"} }, []string{"Timeout", `Reasons holds "No"`}},
		{"reason", func(c *Config) { c.Reasons = []string{""} }, []string{`Reasons holds ""`}},
		{"request header that is an identity header", func(c *Config) {
			c.ReservedHeaders, c.RequestHeaders = []string{"x-auth-client-id"}, []string{"X_Auth_Client_Id"}
		}, []string{`RequestHeaders holds "X_Auth_Client_Id", which is an identity header`}},
		{"request header host", func(c *Config) { c.RequestHeaders = []string{"Host"} }, []string{`"Host", which is a header of the connection`}},
		{"request header :path", func(c *Config) { c.RequestHeaders = []string{":path"} }, []string{`":path", which is a pseudo header`}},
		{"request header with a space", func(c *Config) { c.RequestHeaders = []string{"x a"} }, []string{`"x a", which is no header name`}},
		{"reserved header that is none", func(c *Config) { c.ReservedHeaders = []string{""} }, []string{`ReservedHeaders holds ""`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tryEngine(t, nil, tt.edit)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "policy: ") {
					t.Errorf("error is %v, want policy: … %q", err, want)
				}
			}
		})
	}
}

func TestContextThatHasEnded(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	d, err := newEngine(t, nil).Decide(ctx, accepted())
	if !errors.Is(err, ErrTimeout) || !errors.Is(err, context.Canceled) || d.Allowed {
		t.Errorf("got %+v, %v, want ErrTimeout and the context's error", d, err)
	}
}

func TestNilInput(t *testing.T) {
	d, err := newEngine(t, nil).Decide(t.Context(), nil)
	if !errors.Is(err, ErrPolicy) || d.Allowed {
		t.Errorf("got %+v, %v, want ErrPolicy", d, err)
	}
}
