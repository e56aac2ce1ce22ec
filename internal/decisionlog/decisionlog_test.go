package decisionlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

var update = flag.Bool("update", false, "write the generated part of docs/decision-log.md")

// lumberjack never ends the goroutine that deletes old files.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

var included = []Included{
	{Headers, "x-tenant", "acme"}, {Query, "page", "2"}, {Query, "tag", []any{"a", "b"}}, {Claims, "custom:tier", "gold"},
}

// decided is a decision with everything in it, by a policy that reads what is in it.
func decided() *Decision {
	step := func(d time.Duration) Step { return Step{Took: d, Taken: true} }
	return &Decision{
		ID: "0123456789abcdef0123456789abcdef", Time: time.Date(2026, 11, 21, 10, 0, 0, 7, time.UTC),
		Outcome: "denied", Reason: "policy_denied", Status: 403, Detail: "quota",
		Pool: "main", Client: "orders-batch", ClientID: "c1", TokenID: "jti-1", Scopes: []string{"orders/read", "orders/write"},
		Route: "GET /orders/{id}", Method: "GET", Host: "api.example.com", Path: "/orders/7", SourcePrincipal: "spiffe://a/b",
		Policy: policy.Policy{Revision: "sha256:abc", Reads: []policy.Read{
			{Name: "input.parsed_query.page", Path: at("parsed_query/page")},
			{Name: "input.token", Path: at("token"), Exists: true},
			{Name: "input.token.client_id", Path: at("token/client_id")},
		}},
		ConfigRevision: "sha256:def", TraceID: "0af7651916cd43dd8448eb211c80319c", RequestID: "r1", SampleRatio: 0.5,
		Read: step(1500), ToRoute: step(2 * time.Microsecond), Authenticate: step(3 * time.Microsecond),
		Authorize: step(4 * time.Microsecond), Respond: step(0), Took: 10 * time.Microsecond,
		Included: included, Replay: NewReplay(included),
	}
}

const whole = `{"time":"2026-11-21T10:00:00.000000007Z","level":"INFO","msg":"check","decision_id":"0123456789abcdef0123456789abcdef",` +
	`"outcome":"denied","reason":"policy_denied","status":403,"detail":"quota","method":"GET","host":"api.example.com","path":"/orders/7",` +
	`"route":"GET /orders/{id}","pool":"main","client":"orders-batch","client_id":"c1","scopes":["orders/read","orders/write"],"jti":"jti-1",` +
	`"source_principal":"spiffe://a/b","policy_revision":"sha256:abc","config_revision":"sha256:def","request_id":"r1",` +
	`"trace_id":"0af7651916cd43dd8448eb211c80319c","sample_ratio":0.5,"read_us":1,"route_us":2,"authenticate_us":3,"authorize_us":4,` +
	`"respond_us":0,"took_us":10,"headers.x-tenant":"acme","query.page":"2","query.tag":["a","b"],"claims.custom:tier":"gold","replayable":true}` + "\n"

func TestLine(t *testing.T) {
	if diff := cmp.Diff(whole, string(Line(decided()))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	least := `{"time":"0001-01-01T00:00:00Z","level":"ERROR","msg":"check","decision_id":"","outcome":"","reason":"","sample_ratio":0,"took_us":0,"replayable":true}` + "\n"
	if diff := cmp.Diff(least, string(Line(&Decision{Failed: true}))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Whatever a caller writes, a line is one line of JSON.
func TestLineIsOneLine(t *testing.T) {
	d := decided()
	d.Path, d.Detail, d.Host = "/a\nb\x00\u2028\xff", `"},{"`, strings.Repeat("é", 9)
	d.Included = []Included{{Headers, "x\n", "a\r\nb"}, {Claims, "c", map[string]any{"x": []any{json.Number("1e999"), nil, "\xff"}}}}
	line := Line(d)
	if n := bytes.Count(line, []byte("\n")); n != 1 || !json.Valid(line) {
		t.Errorf("%d line breaks, valid %t: %s", n, json.Valid(line), line)
	}
}

// engine returns a policy with log rules.
func engine(t testing.TB, rego string) *policy.Engine {
	t.Helper()
	e, err := policy.New(t.Context(), policy.Config{FS: fstest.MapFS{
		"p.rego": {Data: []byte("package extauthz\ndecision := true\n")}, "l.rego": {Data: []byte("package system.log\n" + rego)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// logged returns the fields of the line, and the Log; no fields if there is no line.
func logged(t *testing.T, rules Rules, d *Decision) (map[string]any, *Log) {
	t.Helper()
	var out bytes.Buffer
	w := asynclog.New(&out, Limits)
	l := New(w.Queue, Config{Rules: rules, Path: "extauthz/decision", Logger: slog.New(slog.DiscardHandler)})
	l.Record(d)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out.Len() == 0 {
		return nil, l
	}
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	return line, l
}

// Each row says how the line differs from the one without rules; nil takes a field away.
func TestRules(t *testing.T) {
	type fields map[string]any
	tests := []struct {
		name, rego string
		want       fields
	}{
		{"none", "x := 1", fields{}},
		{"a field", `mask contains "/input/canonical/host"`, fields{"host": nil, "erased": []any{"/input/canonical/host"}}},
		{"a field, replaced", `mask contains {"op": "upsert", "path": "/input/token/client_id", "value": "***"}`, fields{
			"client_id": "***", "detail": nil, "erased": []any{"/input/token/client_id"}, "masked": []any{"/input/token/client_id"},
			"replayable": false, "missing": []any{"input.token.client_id"},
		}},
		{"the token", `mask contains "/input/token"`, fields{
			"pool": nil, "client": nil, "client_id": nil, "scopes": nil, "jti": nil, "claims.custom:tier": nil, "detail": nil,
			"erased": []any{"/input/token"}, "replayable": false, "missing": []any{"input.token", "input.token.client_id"},
		}},
		{"one of a list", `mask contains "/input/token/scopes/0"`, fields{"scopes": []any{"orders/write"}, "erased": []any{"/input/token/scopes/0"}}},
		{"a header", `mask contains "/input/attributes/request/http/headers/x-tenant"`, fields{
			"headers.x-tenant": nil, "erased": []any{"/input/attributes/request/http/headers/x-tenant"},
		}},
		{"a parameter", `mask contains {"op": "upsert", "path": "/input/parsed_query/page", "value": ["9"]}`, fields{
			"query.page": "9", "masked": []any{"/input/parsed_query/page"}, "replayable": false, "missing": []any{"input.parsed_query.page"},
		}},
		{"the path as it was sent", `mask contains "/input/attributes/request/http/path"`, fields{
			"path": nil, "query.page": nil, "query.tag": nil, "erased": []any{"/input/attributes/request/http/path"},
		}},
		{"the detail", `mask contains "/result/detail"`, fields{"detail": nil, "erased": []any{"/result/detail"}}},
		{"the reason, which is told to everybody", `mask contains "/result/reason"`, fields{"erased": []any{"/result/reason"}}},
		{"by what it is", `mask contains "/input/canonical/host" if { input.result.allowed == false; input.result.reason == "policy_denied"; input.custom.status == 403; input.path == "extauthz/decision"; input.revision == "sha256:abc" }`, fields{
			"host": nil, "erased": []any{"/input/canonical/host"},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var want map[string]any
			if err := json.Unmarshal([]byte(whole), &want); err != nil {
				t.Fatal(err)
			}
			for name, value := range test.want {
				want[name] = value
				if value == nil {
					delete(want, name)
				}
			}
			got, l := logged(t, engine(t, test.rego), decided())
			if diff := cmp.Diff(want, got); diff != "" || l.MaskFailures() != 0 {
				t.Errorf("%d failures, (-want +got)\n%s", l.MaskFailures(), diff)
			}
		})
	}
	if got, l := logged(t, engine(t, `drop if input.result.reason == "policy_denied"`), decided()); got != nil || l.Lost() != 0 {
		t.Errorf("%d lost and the line %v, want it dropped, which is no loss", l.Lost(), got)
	}
}

type panicking struct{}

func (panicking) HasLogRules(policy.Policy) bool { return true }
func (panicking) MaskLog(context.Context, policy.Policy, map[string]any) (policy.LogVerdict, error) {
	panic("mask")
}

// A rule that fails costs what it could have masked, and not the line.
func TestFailingMask(t *testing.T) {
	got, l := logged(t, engine(t, "mask contains 7"), decided())
	want := map[string]any{
		"time": "2026-11-21T10:00:00.000000007Z", "level": "INFO", "msg": "check", "decision_id": "0123456789abcdef0123456789abcdef",
		"outcome": "denied", "reason": "policy_denied", "status": 403.0, "policy_revision": "sha256:abc", "config_revision": "sha256:def",
		"trace_id": "0af7651916cd43dd8448eb211c80319c", "sample_ratio": 0.5,
		"read_us": 1.0, "route_us": 2.0, "authenticate_us": 3.0, "authorize_us": 4.0, "respond_us": 0.0, "took_us": 10.0,
		"replayable": false, "missing": []any{"input.parsed_query.page", "input.token", "input.token.client_id"}, "mask_failed": true,
	}
	if diff := cmp.Diff(want, got); diff != "" || l.MaskFailures() != 1 {
		t.Errorf("%d failures, want 1; (-want +got)\n%s", l.MaskFailures(), diff)
	}
	// And what panics loses one, and not those after it.
	if got, l := logged(t, panicking{}, decided()); got != nil || l.Lost() != 1 {
		t.Errorf("%d lost and the line %v, want one and none", l.Lost(), got)
	}
}

func TestReplay(t *testing.T) {
	tests := []struct {
		read    string // "!" for a read that only asks whether there is something
		request Request
		want    bool
	}{
		{"attributes/request/http/method", Request{}, true},
		{"attributes/request/http/method", Request{LongMethod: true}, false},
		{"attributes/request/http/path", Request{}, false},
		{"attributes/request/http/headers/x-tenant", Request{}, true},
		{"attributes/request/http/headers/x-tenant", Request{RawHeaders: true}, false},
		{"attributes/request/http/headers/x-other", Request{}, false},
		{"attributes/request/http/headers", Request{}, false},
		{"attributes/source/principal", Request{}, true},
		{"attributes/source/address", Request{}, false},
		{"attributes", Request{}, false},
		{"canonical", Request{}, true},
		{"canonical/path", Request{}, true},
		{"parsed_path", Request{}, true},
		{"opa-envoy/parsed_path", Request{}, false},
		{"parsed_query/page", Request{}, true},
		{"parsed_query/page", Request{Unreadable: true}, false},
		{"parsed_query", Request{}, false},
		{"parsed_body/amount", Request{}, false},
		{"route/scopes/any", Request{}, true},
		{"route", Request{}, true},
		{"token", Request{}, false},
		{"!token", Request{}, true},
		{"token/pool", Request{}, true},
		{"token/scopes", Request{}, true},
		{"token/subject", Request{}, false},
		{"token/claims/custom:tier", Request{}, true},
		{"token/claims/custom:other", Request{}, false},
		{"token/claims", Request{}, false},
		{"context/extensions", Request{}, false},
		{"", Request{}, false},
	}
	for _, test := range tests {
		d := decided()
		name, exists := strings.CutPrefix(test.read, "!")
		read := policy.Read{Name: name, Path: at(name), Exists: exists}
		if name == "" {
			read.Path = nil
		}
		d.Policy.Reads, d.Request = []policy.Read{read}, test.request
		if got := len(newRecord(d).missing()) == 0; got != test.want {
			t.Errorf("%s, %+v: replayable %t, want %t", test.read, test.request, got, test.want)
		}
	}
	d := decided()
	d.Policy.Effects = []string{"http.send"}
	if diff := cmp.Diff([]string{"http.send"}, newRecord(d).missing()); diff != "" {
		t.Errorf("missing (-want +got)\n%s", diff)
	}
	d.Policy = policy.Policy{}
	if missing := newRecord(d).missing(); missing != nil {
		t.Errorf("without a policy that was asked, missing is %v, want none", missing)
	}
}

// Decisions that are handed on as events are masked as well, and one that is not taken counts as lost.
func TestEvents(t *testing.T) {
	var got []Event
	l, queue := NewEvents(Config{Rules: engine(t, `mask contains "/input/canonical/host"`), Path: "extauthz/decision"}, func(_ context.Context, e Event) error {
		got = append(got, e)
		if len(got) > 1 {
			return errors.New("full")
		}
		return nil
	})
	l.Record(decided())
	l.Record(decided())
	if err := queue.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || l.Lost() != 1 {
		t.Fatalf("%d events and %d lost, want 2 and 1", len(got), l.Lost())
	}
	e := got[0]
	http := map[string]any{"method": "GET", "headers": map[string]any{"x-tenant": "acme", "x-request-id": "r1"}}
	want := map[string]any{
		"attributes": map[string]any{"request": map[string]any{"http": http}}, "canonical": map[string]any{"path": "/orders/7"},
		"parsed_query": map[string]any{"page": []any{"2"}, "tag": []any{"a", "b"}}, "route": map[string]any{"name": "GET /orders/{id}"},
		"source_principal": "spiffe://a/b",
		"token": map[string]any{
			"pool": "main", "client_name": "orders-batch", "client_id": "c1", "token_id": "jti-1",
			"scopes": []any{"orders/read", "orders/write"}, "claims": map[string]any{"custom:tier": "gold"},
		},
	}
	if diff := cmp.Diff(any(want), e.Input); diff != "" {
		t.Errorf("input (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(any(map[string]any{"allowed": false, "outcome": "denied", "reason": "policy_denied", "detail": "quota"}), e.Result); diff != "" {
		t.Errorf("result (-want +got)\n%s", diff)
	}
	if e.DecisionID != decided().ID || e.Revision != "sha256:abc" || len(e.Erased) != 1 || e.Custom["took_us"] != int64(10) || e.Custom["replayable"] != true {
		t.Errorf("found %+v", e)
	}
}

// docs/decision-log.md shows the fields of a line.
func TestFieldsPage(t *testing.T) {
	const page = "../../docs/decision-log.md"
	var b strings.Builder
	b.WriteString("| field | what | to a mask rule |\n|---|---|---|\n")
	for _, list := range [][]field{fields, lastFields} {
		for _, f := range list {
			pointer := "-"
			if f.path != nil {
				pointer = "`/" + strings.Join(f.path, "/") + "`"
			}
			b.WriteString("| `" + f.name + "` | " + f.doc + " | " + pointer + " |\n")
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- Generated from internal/decisionlog/fields.go: go test ./internal/decisionlog -run TestFieldsPage -update -->\n\n", "\n<!-- End of the generated part -->"
	before, rest, ok1 := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no generated part", page)
	}
	want := before + begin + b.String() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("go test ./internal/decisionlog -run TestFieldsPage -update\n(-want +got)\n%s", diff)
	}
}

func BenchmarkLine(b *testing.B) {
	d := decided()
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = newRecord(d).append(line[:0])
	}
}

func BenchmarkMaskedLine(b *testing.B) {
	l := &Log{cfg: Config{Rules: engine(b, `mask contains "/input/token/client_id"`)}}
	i := &item{decided(), l}
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = i.Append(line[:0])
	}
}
