package opalog

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// collector is what OPA's decision logs are sent to.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	events []map[string]any
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		var events []map[string]any
		if err := json.NewDecoder(body).Decode(&events); err != nil || r.URL.Path != "/logs" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.events = append(c.events, events...)
	}))
	t.Cleanup(c.Close)
	return c
}

func newManager(t *testing.T, config string) *plugins.Manager {
	t.Helper()
	m, err := plugins.New([]byte(config), "test", inmem.New())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Stop(context.Background()) })
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// A decision reaches a collector by OPA's own plugin.
func TestDecisionsReachACollector(t *testing.T) {
	c := startCollector(t)
	m := newManager(t, `{"services": {"c": {"url": "`+c.URL+`"}}, "labels": {"cluster": "blue"}}`)
	manual := plugins.TriggerManual
	cfg, err := logs.NewConfigBuilder().WithBytes([]byte(`{"service": "c"}`)).WithServices(m.Services()).WithTriggerMode(&manual).Parse()
	if err != nil {
		t.Fatal(err)
	}
	plugin := logs.New(cfg, m)
	m.Register(logs.Name, plugin)
	if err := plugin.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	l, queue := decisionlog.NewEvents(decisionlog.Config{Path: "extauthz/decision"}, To(m, func(revision string) map[string]string {
		return map[string]string{"shop": "of " + revision}
	}))
	l.Record(&decisionlog.Decision{
		ID: "d1", Time: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), Outcome: "denied", Reason: "policy_denied", Status: 403,
		Method: "GET", Path: "/orders/7", Pool: "main", ClientID: "c1", Scopes: []string{"a"}, SampleRatio: 1, Took: time.Millisecond,
		Policy: policy.Policy{Revision: "r1"}, TraceID: "0af7651916cd43dd8448eb211c80319c",
		Included: []decisionlog.Included{{Kind: decisionlog.Headers, Name: "x-tenant", Value: "acme"}},
	})
	if err := queue.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := plugin.Trigger(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.Lost() != 0 || len(c.events) != 1 {
		t.Fatalf("%d lost, events %v, want none and one", l.Lost(), c.events)
	}
	got := c.events[0]
	labels, _ := got["labels"].(map[string]any)
	if labels["cluster"] != "blue" {
		t.Errorf("labels are %v, want those of OPA's configuration", labels)
	}
	delete(got, "labels")
	want := map[string]any{
		"decision_id": "d1", "path": "extauthz/decision", "timestamp": "2026-11-21T10:00:00Z", "trace_id": "0af7651916cd43dd8448eb211c80319c",
		"revision": "r1", "bundles": map[string]any{"shop": map[string]any{"revision": "of r1"}},
		"input": map[string]any{
			"attributes": map[string]any{"request": map[string]any{"http": map[string]any{"method": "GET", "headers": map[string]any{"x-tenant": "acme"}}}},
			"canonical":  map[string]any{"path": "/orders/7"},
			"token":      map[string]any{"pool": "main", "client_id": "c1", "scopes": []any{"a"}},
		},
		"result": map[string]any{"allowed": false, "outcome": "denied", "reason": "policy_denied"},
		"custom": map[string]any{
			"time": "2026-11-21T10:00:00Z", "level": "INFO", "msg": "check", "decision_id": "d1", "outcome": "denied", "reason": "policy_denied",
			"status": 403.0, "policy_revision": "r1", "trace_id": "0af7651916cd43dd8448eb211c80319c", "sample_ratio": 1.0, "took_us": 1000.0, "replayable": true,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Without a plugin, a decision is lost and counted.
func TestWithoutPlugin(t *testing.T) {
	l, queue := decisionlog.NewEvents(decisionlog.Config{}, To(newManager(t, `{}`), nil))
	l.Record(&decisionlog.Decision{ID: "d1"})
	if err := queue.Close(t.Context()); err != nil || l.Lost() != 1 {
		t.Errorf("%d lost, error %v, want one and none", l.Lost(), err)
	}
}
