package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/telemetry"
)

// loadTime is how long the tests below send checks at most.
var loadTime = flag.Duration("load", 600*time.Millisecond, "how long the decision log's tests send checks")

const mostChecks = 100_000

// loaded is a service whose decisions, of all outcomes, are logged.
type loaded struct {
	*authz.Service
	decisions *decisions
	requests  []*authv3.CheckRequest // one of each outcome
	canary    string                 // in every request, where nothing may take it from
}

const loadPolicy = `package extauthz

decision := data.extauthz.base.decision if not startswith(input.canonical.path, "/undefined")
`

// newLoaded makes the service as serve does, with a section decisionLog.
func newLoaded(t *testing.T, section string, out output) *loaded {
	t.Helper()
	pool, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	dir := t.TempDir()
	path := filepath.Join(dir, "extauthz.yaml")
	issuer := pool.Pools()[0].Issuer()
	for name, text := range map[string]string{
		"policies/p.rego": loadPolicy,
		"extauthz.yaml": "listen: {metrics: \"\", admin: \"\"}\n" +
			"clients: {orders-batch: {id: " + cognitotest.DemoClientID + "}}\n" +
			"pools: {main: {issuer: \"" + issuer + "\", clients: [orders-batch]}}\n" +
			"routes: [{path: /orders, methods: [GET], scopes: {any: [orders/read]}}, {path: /undefined, methods: [GET], anyClient: true}]\n" +
			"policy: {dir: policies, timeout: 10s}\n" + section,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	p, err := newParts(t.Context(), path, cfg, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, keys := range p.pools.remote {
		running.Go(func() { _ = keys.Run(ctx) })
		<-keys.Ready()
	}
	running.Go(func() { _ = p.engine.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait(); _ = tel.Close(context.Background()) })
	b, err := newBundles(ctx, cfg, p.engine, log)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDecisions(cfg, p.engine, b.source, log, out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.closeLate)
	metrics, err := authz.NewMetrics(tel.Meter)
	if err != nil {
		t.Fatal(err)
	}
	l := &loaded{Service: newService(cfg, p, d.log, log, tel, metrics), decisions: d, canary: "canary7secret"}
	good := pool.Pools()[0].Token(cognitotest.DemoClientID)
	for _, r := range [][2]string{{"/orders", good}, {"/orders", good + l.canary}, {"/nowhere", good}, {"/undefined", good}} {
		l.requests = append(l.requests, checkOf(r[0]+"?q="+l.canary, "Bearer "+r[1], l.canary))
	}
	return l
}

func checkOf(path, authorization, secret string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: path, Host: "api.example.com",
			Headers: map[string]string{"authorization": authorization, "x-secret": secret, "cookie": secret, "x-request-id": secret + "!"},
		},
	}}}
}

// send sends checks from a few goroutines, and returns how long each took, sorted, and how many had each outcome.
func (l *loaded) send(t *testing.T, most int, atMost time.Duration) (took []time.Duration, outcomes map[codes.Code]int) {
	t.Helper()
	const senders = 4
	var mu sync.Mutex
	var wg sync.WaitGroup
	outcomes = make(map[codes.Code]int)
	end := time.Now().Add(atMost)
	for s := range senders {
		wg.Go(func() {
			var mine []time.Duration
			counts := make(map[codes.Code]int)
			for i := 0; i < most/senders && time.Now().Before(end); i++ {
				began := time.Now()
				resp, err := l.Check(t.Context(), l.requests[(i+s)%len(l.requests)])
				mine = append(mine, time.Since(began))
				if err != nil {
					t.Error(err)
				}
				counts[codes.Code(resp.GetStatus().GetCode())]++
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			for code, n := range counts {
				outcomes[code] += n
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	for _, code := range []codes.Code{codes.OK, codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable} {
		if outcomes[code] == 0 {
			t.Errorf("outcomes are %v, want some of each", outcomes)
		}
	}
	return took, outcomes
}

const logAll = "decisionLog: {allowed: all, include: [headers.x-tenant]"

// lineOf is what a line must have, whatever came of the check.
type lineOf struct {
	DecisionID     string `json:"decision_id"`
	Outcome        string `json:"outcome"`
	Time           string `json:"time"`
	ConfigRevision string `json:"config_revision"`
	Replayable     *bool  `json:"replayable"`
}

// Every decision has one whole line in the log, and none holds anything of the token, the query or the headers.
func TestEveryDecisionHasALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decisions.log")
	l := newLoaded(t, logAll+", to: file, file: {path: \""+path+"\", maxBytes: 1048576, keep: 1000}}\n", output{})
	took, outcomes := l.send(t, mostChecks, *loadTime)
	if err := l.decisions.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "decisions*"))
	if err != nil {
		t.Fatal(err)
	}
	seen, lines := make(map[string]bool), make(map[string]int)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for scan := bufio.NewScanner(f); scan.Scan(); {
			var line lineOf
			if err := json.Unmarshal(scan.Bytes(), &line); err != nil || line.Time == "" || line.ConfigRevision == "" || line.Replayable == nil {
				t.Fatalf("%v in the line %s", err, scan.Bytes())
			}
			if seen[line.DecisionID] {
				t.Errorf("decision %s has two lines", line.DecisionID)
			}
			seen[line.DecisionID] = true
			lines[line.Outcome]++
			if bytes.Contains(scan.Bytes(), []byte(l.canary)) || bytes.Contains(scan.Bytes(), []byte("eyJ")) {
				t.Fatalf("the line has a secret: %s", scan.Bytes())
			}
		}
		f.Close()
	}
	lost := int(l.decisions.log.Lost())
	t.Logf("%d checks (p99 %v), %d lines in %d files, %d lost", len(took), took[len(took)*99/100], len(seen), len(files), lost)
	if len(seen)+lost != len(took) {
		t.Errorf("%d lines and %d lost of %d decisions, want each once", len(seen), lost, len(took))
	}
	if lost != 0 {
		t.Errorf("%d decisions lost to a file that is written", lost)
	}
	want := map[string]int{
		"allowed": outcomes[codes.OK], "refused": outcomes[codes.Unauthenticated], "denied": outcomes[codes.PermissionDenied], "failed": outcomes[codes.Unavailable],
	}
	for outcome, n := range want {
		if lost == 0 && lines[outcome] != n {
			t.Errorf("%d lines with outcome %s, want %d", lines[outcome], outcome, n)
		}
	}
}

// slow is a disk that takes its time.
type slow struct{ bytes atomic.Int64 }

func (s *slow) Write(p []byte) (int, error) {
	<-time.After(20 * time.Millisecond)
	s.bytes.Add(int64(bytes.Count(p, []byte("\n"))))
	return len(p), nil
}

// A log that is stuck, full or slow changes no answer and makes none late, and what it does not take is counted.
func TestBadLogChangesNothing(t *testing.T) {
	stop := make(stuck)
	defer close(stop)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // holds it open and reads nothing
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()

	stdout := logAll + ", to: stdout}\n"
	good := newLoaded(t, stdout, output{stdout: io.Discard})
	slowDisk := &slow{}
	tests := []struct {
		name string
		*loaded
		wrote func() int64 // how many lines; nil if it writes none
	}{
		{"a log that nobody reads", newLoaded(t, stdout, output{stdout: stop}), nil},
		{"a pipe that nobody reads", newLoaded(t, logAll+", to: file, file: {path: \""+pipe+"\"}}\n", output{}), nil},
		{"a full disk", newLoaded(t, logAll+", to: file, file: {path: /dev/full}}\n", output{}), func() int64 { return 0 }},
		{"a slow disk", newLoaded(t, stdout, output{stdout: slowDisk}), slowDisk.bytes.Load},
		{"standard error that nobody reads", newLoaded(t, logAll+"}\n", output{stderr: asynclog.New(stop, decisionlog.Limits)}), nil},
	}
	const perRound = 8000
	for _, test := range tests {
		if test.wrote == nil { // full from the start
			for range decisionlog.Limits.Items + 2000 { // a pipe takes some
				test.decisions.log.Record(&decisionlog.Decision{})
			}
		}
		var ours, theirs []time.Duration
		least, most := time.Hour, time.Duration(0)
		for range 3 { // in turn, as the machine may be busy with something else for a while
			a, _ := good.send(t, perRound, *loadTime/3)
			b, _ := test.send(t, perRound, *loadTime/3)
			ours, theirs = append(ours, a...), append(theirs, b...)
			least, most = min(least, b[len(b)*99/100]), max(most, a[len(a)*99/100])
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		lost := test.decisions.log.Lost()
		t.Logf("%s: p50 %v, p99 %v of %d checks, %d lost; with a good log p50 %v, p99 %v of %d", test.name,
			theirs[len(theirs)/2], theirs[len(theirs)*99/100], len(theirs), lost, ours[len(ours)/2], ours[len(ours)*99/100], len(ours))
		// A check that waited for the log would never end, or take the slow disk's 20 ms at the median.
		if p50 := theirs[len(theirs)/2]; least > 3*most+2*time.Millisecond || p50 > 3*ours[len(ours)/2]+2*time.Millisecond {
			t.Errorf("%s: p50 is %v, and p99 at least %v, want about those with a good log", test.name, p50, least)
		}
		if test.wrote == nil && lost < uint64(len(theirs)) {
			t.Errorf("%s: %d lost of %d, want all", test.name, lost, len(theirs))
		}
		if test.wrote == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := test.decisions.queue.Close(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		if n := uint64(test.wrote()) + test.decisions.log.Lost(); n != uint64(len(theirs)) {
			t.Errorf("%s: %d written or lost of %d", test.name, n, len(theirs))
		}
	}
}

// The log rules of policy.dir hold for what is written.
func TestPolicyMasksItsLog(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"policies/p.rego": loadPolicy,
		"policies/l.rego": "package system.log\nmask contains \"/input/canonical/host\"\n",
		"extauthz.yaml": "pools: {main: {issuer: http://127.0.0.1:1/x, anyClient: true}}\npolicy: {dir: policies}\n" +
			"routes: [{path: /x, methods: [GET], anyClient: true}]\ndecisionLog: {to: stdout}\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "extauthz.yaml")
	cfg, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newParts(t.Context(), path, cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d, err := newDecisions(cfg, p.engine, nil, slog.New(slog.DiscardHandler), output{stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	d.log.Record(&decisionlog.Decision{ID: "d1", Host: "api.example.com", Path: "/x"})
	if err := d.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if line := out.String(); strings.Contains(line, "api.example.com") || !strings.Contains(line, `"erased":["/input/canonical/host"]`) || !strings.Contains(line, `"path":"/x"`) {
		t.Errorf("the line is %s, want it without the host", line)
	}
}

// A file that cannot be opened is found at the start, and so is one that the decisions cannot go to.
func TestDecisionLogAtTheStart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "extauthz.yaml")
	text := "listen: {grpc: 127.0.0.1:0, metrics: \"\", admin: \"\"}\npools: {main: {issuer: http://127.0.0.1:1/x, anyClient: true}}\n" +
		"routes: [{path: /x, methods: [GET], anyClient: true}]\ndecisionLog: {to: file, file: {path: \"" + dir + "\"}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command()
	cmd.SetArgs([]string{"serve", "--config", file})
	cmd.SetErr(io.Discard)
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "decisionLog.file: "+dir+" is a directory, want a file") {
		t.Errorf("error %v, want one about decisionLog.file", err)
	}
}
