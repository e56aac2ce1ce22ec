package policy

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/server"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

func logEngine(t *testing.T, rego string) *Engine {
	t.Helper()
	e, err := New(t.Context(), Config{FS: fstest.MapFS{
		"decision.rego": {Data: []byte("package extauthz\ndecision := true\nhidden := {\"acme\"}\n")},
		"log/log.rego":  {Data: []byte("package system.log\n" + rego)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const loggedEvent = `{
	"decision_id": "d1", "path": "extauthz/decision", "timestamp": "2026-11-21T10:00:00Z", "labels": {},
	"input": {
		"token": {"client_id": "c1", "scopes": ["a", "b", "c"], "claims": {"custom:tier": "gold"}},
		"nested": [[1, 2], [3]], "null": null, "list": ["x", "y"]
	},
	"result": {"allowed": false, "reason": "quota", "detail": "quota"}
}`

func event(t *testing.T, text string) map[string]any {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// received keeps the events that OPA's plugin makes.
type received struct{ events []logs.EventV1 }

func (r *received) Log(_ context.Context, e logs.EventV1) error {
	r.events = append(r.events, e)
	return nil
}
func (*received) Start(context.Context) error      { return nil }
func (*received) Stop(context.Context)             {}
func (*received) Reconfigure(context.Context, any) {}

// byOPA masks the event by OPA's own plugin; nil if that logs nothing.
func byOPA(t *testing.T, rego string) map[string]any {
	t.Helper()
	store := inmem.New()
	if err := storage.Txn(t.Context(), store, storage.WriteParams, func(txn storage.Transaction) error {
		return store.UpsertPolicy(t.Context(), txn, "log.rego", []byte("package system.log\n"+rego))
	}); err != nil {
		t.Fatal(err)
	}
	manager, err := plugins.New([]byte(`{}`), "test", store)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Stop(context.Background())
	sink := &received{}
	manager.Register("sink", sink)
	if err := manager.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg, err := logs.ParseConfig([]byte(`{"plugin": "sink"}`), nil, []string{"sink"})
	if err != nil {
		t.Fatal(err)
	}
	e := event(t, loggedEvent)
	input, result := e["input"], e["result"]
	if err := logs.New(cfg, manager).Log(t.Context(), &server.Info{DecisionID: "d1", Path: "extauthz/decision", Input: &input, Results: &result}); err != nil {
		t.Fatal(err)
	}
	if len(sink.events) == 0 {
		return nil
	}
	got := map[string]any{"erased": sink.events[0].Erased, "masked": sink.events[0].Masked}
	if p := sink.events[0].Input; p != nil {
		got["input"] = *p
	}
	if p := sink.events[0].Result; p != nil {
		got["result"] = *p
	}
	return got
}

// What OPA's plugin makes of a mask, this makes of it.
func TestMaskLogIsOPAs(t *testing.T) {
	for name, rego := range map[string]string{
		"nothing":                  `mask contains "/input/other" if false`,
		"remove":                   `mask contains "/input/token/client_id"`,
		"remove, said in full":     `mask contains {"op": "remove", "path": "/input/token/claims/custom:tier"}`,
		"remove what is not there": `mask contains "/input/token/none/at/all"`,
		"remove of a list":         `mask contains "/input/token/scopes/1"`,
		"remove beyond a list":     `mask contains "/input/token/scopes/7"`,
		"remove of a list in one":  `mask contains "/input/nested/0/1"`,
		"remove all":               `mask contains "/input"`,
		"remove the result":        `mask contains "/result"`,
		"remove below null":        `mask contains "/input/null/x"`,
		"upsert":                   `mask contains {"op": "upsert", "path": "/input/token/client_id", "value": "***"}`,
		"upsert an object":         `mask contains {"op": "upsert", "path": "/input/token", "value": {"x": [1]}}`,
		"upsert what is not there": `mask contains {"op": "upsert", "path": "/input/a/b/c", "value": 7}`,
		"upsert in a list":         `mask contains {"op": "upsert", "path": "/input/list/1", "value": "z"}`,
		"upsert beyond a list":     `mask contains {"op": "upsert", "path": "/input/list/2", "value": "z"}`,
		"upsert below text":        `mask contains {"op": "upsert", "path": "/input/list/0/x", "value": "z"}`,
		"upsert below null":        `mask contains {"op": "upsert", "path": "/input/null/x", "value": "z"}`,
		"upsert the input":         `mask contains {"op": "upsert", "path": "/input", "value": "z"}`,
		"upsert the result":        `mask contains {"op": "upsert", "path": "/result/reason", "value": null}`,
		"upsert without a value":   `mask contains {"op": "upsert", "path": "/result/reason"}`,
		"by the input":             `mask contains "/input/token" if input.input.token.client_id == "c1"`,
		"by the path":              `mask contains "/input/token" if input.path == "extauthz/decision"`,
		"several":                  "mask contains \"/input/list/0\"\nmask contains \"/input/list/1\"\nmask contains \"/result/detail\"",
		"a list":                   `mask := ["/input/list/1", "/input/list/0"]`,
		"drop":                     `drop if input.result.reason == "quota"`,
		"drop, if not":             `drop if input.result.reason == "other"`,
		"drop by another value":    `drop := "yes"`,
		"drop before mask":         "drop := true\nmask contains \"/input\"",
		"nd_builtin_cache":         `mask contains "/nd_builtin_cache/x"`,
	} {
		t.Run(name, func(t *testing.T) {
			want := byOPA(t, rego)
			got := event(t, loggedEvent)
			verdict, err := logEngine(t, rego).MaskLog(t.Context(), Policy{}, got)
			if err != nil {
				t.Fatal(err)
			}
			if verdict.Drop {
				if want != nil {
					t.Fatal("dropped, and not by OPA")
				}
				return
			}
			for _, list := range []string{"erased", "masked"} {
				if got[list] == nil {
					got[list] = []string(nil)
				}
			}
			for _, key := range []string{"decision_id", "path", "timestamp", "labels"} {
				delete(got, key)
			}
			for _, part := range []string{"input", "result"} {
				if got[part] == nil {
					delete(got, part)
				}
			}
			// OPA has numbers as text, or as upserted.
			if diff := cmp.Diff(asJSON(t, want), asJSON(t, got)); diff != "" {
				t.Errorf("(-OPA +ours)\n%s", diff)
			}
		})
	}
}

func asJSON(t *testing.T, x any) any {
	t.Helper()
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// A rule that fails, in whatever way, is an error, and the event is as it was.
func TestMaskLogFails(t *testing.T) {
	for name, test := range map[string]struct{ rego, want string }{
		"two values":       {"mask := [\"/input/token\"] if true\nmask := [] if input.path", "eval_conflict_error"},
		"no list":          {`mask := "/input/token"`, "mask is a string, want a set or a list"},
		"a number in it":   {`mask contains 7`, "an element of mask is a json.Number, want a string or an object"},
		"another part":     {`mask contains "/labels"`, "want one that begins with /input"},
		"no slash":         {`mask contains "input/token"`, "want one that begins with /input"},
		"another op":       {`mask contains {"op": "hide", "path": "/input"}`, "another op"},
		"no op":            {`mask contains {"path": "/input"}`, "another op"},
		"no path":          {`mask contains {"op": "remove"}`, "another path"},
		"a bad escape":     {`mask contains "/input/%zz"`, "bad escape"},
		"one of two":       {"mask contains \"/input/token\"\nmask contains \"/labels\"", "want one that begins with /input"},
		"a drop of two":    {"drop := true if input.path\ndrop := false if input.path", "eval_conflict_error"},
		"what never ends":  {`mask contains "/input" if count([1 | some i in numbers.range(0, 100000); some j in numbers.range(0, 100000); i == j]) == 0`, "timed out"},
		"drop, then a bad": {"drop := false\nmask := 1", "want a set or a list"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			if name == "what never ends" {
				cancel()
			}
			defer cancel()
			got := event(t, loggedEvent)
			verdict, err := logEngine(t, test.rego).MaskLog(ctx, Policy{}, got)
			if err == nil || !strings.Contains(err.Error(), test.want) && name != "what never ends" {
				t.Errorf("verdict %+v, error %v, want one with %q", verdict, err, test.want)
			}
			if diff := cmp.Diff(event(t, loggedEvent), got); diff != "" {
				t.Errorf("the event has changed:\n%s", diff)
			}
		})
	}
}

// The log's package has another input than the rules that decide, and may use them.
func TestLogRulesAreApart(t *testing.T) {
	e := logEngine(t, `mask contains "/input/token" if input.input.token.client_id in data.extauthz.hidden`)
	if !e.HasLogRules(Policy{}) {
		t.Error("HasLogRules is false, want true")
	}
	got := event(t, strings.Replace(loggedEvent, `"c1"`, `"acme"`, 1))
	if _, err := e.MaskLog(t.Context(), Policy{}, got); err != nil || got["input"].(map[string]any)["token"] != nil {
		t.Errorf("error %v, event %v, want the token gone", err, got)
	}
	if logEngine(t, "x := 1").HasLogRules(Policy{}) {
		t.Error("HasLogRules is true for a package without mask and drop")
	}
	plain, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.MaskLog(t.Context(), Policy{}, got); err != nil || plain.HasLogRules(Policy{}) {
		t.Errorf("the built-in policy: error %v, want no rules and none", err)
	}
	_, err = New(t.Context(), Config{FS: fstest.MapFS{
		"p.rego": {Data: []byte("package extauthz\ndecision := true\n")}, "l.rego": {Data: []byte("package system.log\nmask contains x\n")},
	}})
	if err == nil || !strings.Contains(err.Error(), "l.rego:2") {
		t.Errorf("error %v, want one with l.rego:2", err)
	}
}

// A line that waits is masked by the policy that decided, whatever decides by then.
func TestLogIsMaskedByThePolicyThatDecided(t *testing.T) {
	masks := mapFS(map[string]string{"a.rego": "package extauthz\ndecision := true", "log.rego": "package system.log\nmask contains \"/input/token\""})
	plain := mapFS(map[string]string{"a.rego": "package extauthz\ndecision := true"})
	e, err := New(t.Context(), Config{LoadLater: true, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	load := func(files fstest.MapFS) (by Policy) {
		t.Helper()
		content := make(map[string][]byte)
		for name, f := range files {
			content[name] = f.Data
		}
		if err := e.Load(t.Context(), content, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Decide(t.Context(), &Input{Asked: func(p Policy) { by = p }}); err != nil {
			t.Fatal(err)
		}
		return by
	}
	first := load(masks)
	second := load(plain)
	for name, test := range map[string]struct {
		by   Policy
		want bool
	}{"the one with masks": {first, true}, "the one without": {second, false}, "the one of now": {Policy{}, false}} {
		event := map[string]any{"input": map[string]any{"token": "SECRET"}}
		if _, err := e.MaskLog(t.Context(), test.by, event); err != nil {
			t.Fatal(err)
		}
		_, there := event["input"].(map[string]any)["token"]
		if there == test.want || e.HasLogRules(test.by) != test.want {
			t.Errorf("%s: %v, want it masked: %v", name, event, test.want)
		}
	}
}

// The rules on the page about the log do what it says.
func TestLogRulesOfThePage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(docsDir, "decision-log.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```rego\n")
	text, _, ok := strings.Cut(text, "```")
	if !ok {
		t.Fatal("found no rules on the page")
	}
	e := newEngine(t, map[string]string{"a.rego": "package extauthz\ndecision := true", "log.rego": text})
	event := func(host, path, route string) map[string]any {
		return map[string]any{"input": map[string]any{
			"canonical": map[string]any{"host": host, "path": path}, "route": map[string]any{"name": route}, "token": map[string]any{"client_id": "id"},
		}}
	}
	got := event("partners.example.com", "/patients/7", "read")
	if _, err := e.MaskLog(t.Context(), Policy{}, got); err != nil {
		t.Fatal(err)
	}
	want := event("partners.example.com", "/patients/***", "read")
	delete(want["input"].(map[string]any)["token"].(map[string]any), "client_id")
	if diff := cmp.Diff(want["input"], got["input"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if v, err := e.MaskLog(t.Context(), Policy{}, event("a", "/healthz", "GET /healthz")); err != nil || !v.Drop {
		t.Errorf("%+v, %v, want it dropped", v, err)
	}
}
