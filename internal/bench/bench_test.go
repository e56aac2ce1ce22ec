package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

func TestStatistics(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median of %v is %g, want %g", tt.values, got, tt.want)
		}
	}
	var sorted []time.Duration
	for i := range 1000 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for share, want := range map[float64]time.Duration{0.5: 501, 0.99: 991, 0.999: 1000, 1: 1000} {
		if got := percentile(sorted, share); got != want {
			t.Errorf("percentile %g is %d, want %d", share, got, want)
		}
	}
}

// A ratio is to the same round: one round on a slow machine does not count for another.
func TestMedianRatio(t *testing.T) {
	ours := []cell{{Round: 1, CPU: 20}, {Round: 2, CPU: 300}, {Round: 3, CPU: 10}, {Round: 4, CPU: 99}}
	base := []cell{{Round: 1, CPU: 10}, {Round: 2, CPU: 100}, {Round: 3, CPU: 10}}
	if got := medianRatio(ours, base); got != 2 {
		t.Errorf("ratio is %g, want 2, the median of 2, 3 and 1", got)
	}
}

func ok() *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-auth-client-id", Value: cognitotest.DemoReaderID}}},
	}}}
}

func denied(code int32) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &status.Status{Code: 16, Message: "no"}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
		DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(code)}, Body: "no"},
	}}
}

func TestHTTPStatus(t *testing.T) {
	unclear := denied(401)
	unclear.Status.Code = 0
	for name, tt := range map[string]struct {
		resp *authv3.CheckResponse
		want int // 0: an error
	}{
		"allowed":                        {ok(), 200},
		"refused":                        {denied(401), 401},
		"denied":                         {denied(403), 403},
		"empty, which Envoy lets pass":   {&authv3.CheckResponse{}, 0},
		"no status of HTTP":              {&authv3.CheckResponse{Status: &status.Status{Code: 7}}, 0},
		"denied response with status OK": {unclear, 0},
	} {
		reply, err := proto.Marshal(tt.resp)
		if err != nil {
			t.Fatal(err)
		}
		got, err := httpStatus(reply)
		if got != tt.want || (err != nil) != (tt.want == 0) {
			t.Errorf("%s: %d and error %v, want %d", name, got, err, tt.want)
		}
	}
	if _, err := httpStatus([]byte("\xff\xff")); err == nil {
		t.Error("bytes that are no CheckResponse have a status")
	}
}

func testTemplates(t *testing.T) *templates {
	t.Helper()
	made, err := newTemplates()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestMessage(t *testing.T) {
	made := testTemplates(t)
	headers := func(m message, id uint64) map[string]string {
		t.Helper()
		var req authv3.CheckRequest
		if err := proto.Unmarshal(m.append(nil, id), &req); err != nil {
			t.Fatal(err)
		}
		return req.GetAttributes().GetRequest().GetHttp().GetHeaders()
	}
	first := headers(made.message(readOrder, "aaa.bbb.ccc", 200), 1)
	if got := first["authorization"]; got != "Bearer aaa.bbb.ccc" {
		t.Errorf("authorization is %q", got)
	}
	if got, want := first["x-request-id"], requestID[:24]+"000000000001"; got != want {
		t.Errorf("x-request-id is %q, want %q", got, want)
	}
	second := headers(made.message(readOrder, "ddd.eee.fff", 200), 0x2f)
	if second["authorization"] != "Bearer ddd.eee.fff" || !strings.HasSuffix(second["x-request-id"], "00000002f") {
		t.Errorf("the second message of a template has %v", second)
	}
	for _, name := range []string{"authorization", "x-request-id"} {
		delete(first, name)
		delete(second, name)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("two messages differ elsewhere: %s", diff)
	}
	if _, there := headers(made.message(readOrder, "", 401), 1)["authorization"]; there {
		t.Error("a message without a token has an Authorization header")
	}
}

// A bad signature must cost what a good one does: as a number it is below the modulus. No two are the same.
func TestForged(t *testing.T) {
	m := testMint(t)
	token := m.token()
	seen := map[string]bool{token: true}
	for i := range 5000 {
		bad := forged(token, i)
		if seen[bad] {
			t.Fatalf("forgery %d has occurred before", i)
		}
		seen[bad] = true
		signed, tail := bad[:strings.LastIndex(bad, ".")], bad[strings.LastIndex(bad, ".")+1:]
		signature, err := base64.RawURLEncoding.Strict().DecodeString(tail)
		if err != nil {
			t.Fatal(err)
		}
		if new(big.Int).SetBytes(signature).Cmp(m.key.Private.N) >= 0 {
			t.Fatalf("forgery %d is not below the modulus", i)
		}
		digest := sha256.Sum256([]byte(signed))
		if i < 5 && rsa.VerifyPKCS1v15(&m.key.Private.PublicKey, crypto.SHA256, digest[:], signature) == nil {
			t.Fatalf("forgery %d verifies", i)
		}
	}
}

func testMint(t *testing.T) *mint {
	t.Helper()
	m, err := newMint(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	return m
}

func TestTokensAreKept(t *testing.T) {
	m := testMint(t)
	three, err := m.good(3)
	if err != nil {
		t.Fatal(err)
	}
	five, err := m.good(5)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(three, five[:3]); diff != "" {
		t.Errorf("kept tokens were not used: %s", diff)
	}
	files, err := filepath.Glob(filepath.Join(m.dir, "tokens-*.txt"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, error %v, want one", files, err)
	}
	for left, want := range map[time.Duration]int{tokenLeft + time.Minute: 5, tokenLeft - time.Minute: 0} {
		kept, err := keptTokens(files[0], time.Now().Add(tokenTTL-left))
		if err != nil || len(kept) != want {
			t.Errorf("with %s left: %d tokens and error %v, want %d", left, len(kept), err, want)
		}
	}
}

// counting answers with one response, counts, and does what a test wants before.
type counting struct {
	authv3.UnimplementedAuthorizationServer
	resp   *authv3.CheckResponse
	before func(n int64)
	n      atomic.Int64
}

func (c *counting) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	n := c.n.Add(1)
	if c.before != nil {
		c.before(n)
	}
	return c.resp, nil
}

func serve(t *testing.T, c *counting) *client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, c)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	client, err := newClient(listener.Addr().String(), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.close)
	return client
}

func TestClosedLoopCounts(t *testing.T) {
	m := testTemplates(t).message(readOrder, "a.b.c", 200)
	s := &counting{resp: ok()}
	c := serve(t, s)
	answered, took, err := c.closed(t.Context(), &feed{messages: []message{m}, again: true}, 8, 50*time.Millisecond)
	if err != nil || answered == 0 || answered != s.n.Load() || took < 50*time.Millisecond {
		t.Errorf("%d answers in %s, error %v; the server gave %d", answered, took, err, s.n.Load())
	}
	once := slices.Repeat([]message{m}, 100)
	if answered, _, err = c.closed(t.Context(), &feed{messages: once}, 8, time.Minute); err != nil || answered != 100 {
		t.Errorf("100 messages, each once: %d answers, error %v", answered, err)
	}
}

func TestWrongAnswersEndIt(t *testing.T) {
	made := testTemplates(t)
	for name, tt := range map[string]struct {
		resp *authv3.CheckResponse
		want int
	}{
		"allowed, want refused": {ok(), 401},
		"denied, want allowed":  {denied(403), 200},
		"denied, want refused":  {denied(403), 401},
		"empty":                 {&authv3.CheckResponse{}, 200},
	} {
		c := serve(t, &counting{resp: tt.resp})
		f := &feed{messages: []message{made.message(readOrder, "a.b.c", tt.want)}, again: true}
		if _, _, err := c.closed(t.Context(), f, 4, time.Minute); err == nil {
			t.Errorf("%s: the closed loop has no error", name)
		}
		if _, err := c.open(t.Context(), f, 100, time.Minute); err == nil {
			t.Errorf("%s: the open loop has no error", name)
		}
	}
}

// A server that makes one check wait is charged for that one alone, and one that makes all wait for all that were due.
func TestOpenLoopChargesForWaiting(t *testing.T) {
	const rate, late = 1000, 100
	release := make(chan struct{})
	s := &counting{resp: ok(), before: func(n int64) {
		if n == late {
			close(release)
		}
		<-release
	}}
	f := &feed{messages: []message{testTemplates(t).message(readOrder, "a.b.c", 200)}, again: true}
	took, err := serve(t, s).open(t.Context(), f, rate, 200*time.Millisecond)
	if err != nil || len(took) != 200 {
		t.Fatalf("%d answers, error %v, want 200", len(took), err)
	}
	// The first was due at 0 and answered when the hundredth had come; the second at 1 ms, and so on.
	for _, i := range []int{0, late / 2} {
		if got, least := took[len(took)-1-i], time.Duration(late-1-i)*time.Second/rate; got < least {
			t.Errorf("check %d in order of time took %s, want at least %s", i, got, least)
		}
	}
}

// The captured requests are what Envoy sends today, but for what differs from request to request.
func TestCaptured(t *testing.T) {
	lab.NeedEnvoy(t)
	fresh, err := capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, req := range testTemplates(t).requests {
		if name == readUntraced {
			continue // made of another
		}
		if diff := cmp.Diff(shape(req), shape(fresh[name])); diff != "" {
			t.Errorf("testdata/%s.json (-) is not what Envoy sends (+); `bench capture` writes it anew: %s", name, diff)
		}
	}
}

// shape returns the fields and headers of a request, with the values of those that stay.
func shape(req *authv3.CheckRequest) map[string]string {
	found := make(map[string]string)
	fields(found, "", req.ProtoReflect())
	for name, value := range req.GetAttributes().GetRequest().GetHttp().GetHeaders() {
		if name == "x-request-id" || name == "x-forwarded-for" {
			value = "…"
		}
		found["header "+name] = value
	}
	return found
}

func fields(found map[string]string, prefix string, m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		found[prefix+string(f.Name())] = ""
		if f.Message() != nil && !f.IsMap() && !f.IsList() {
			fields(found, prefix+string(f.Name())+".", v.Message())
		}
		return true
	})
}

// The pages and their pictures show the results in testdata and no others.
func TestPages(t *testing.T) {
	root, err := lab.Root()
	if err != nil {
		t.Fatal(err)
	}
	all, err := readRecorded("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{performancePage, scalingPage} {
		page, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := all.into(name, page)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(page)); diff != "" {
			t.Errorf("docs/%s is not what `make bench-docs` writes: %s", name, diff)
		}
	}
	for _, d := range drawings {
		picture, err := os.ReadFile(filepath.Join(root, "docs", d.file))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(picture, d.plot(all)) {
			t.Errorf("docs/%s is not what `make bench-docs` writes", d.file)
		}
	}
}

// testRunner runs the real programs, for a moment each.
func testRunner(t *testing.T) *runner {
	t.Helper()
	dir := t.TempDir()
	root, err := lab.Root()
	if err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", "./cmd/extauthz", "./internal/bench/noop", "./internal/bench/stockopa")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, err := newRunner(options{dir: dir, program: filepath.Join(dir, "extauthz"), window: 50 * time.Millisecond, rounds: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.programs.mint.close)
	r.log = io.Discard
	return r
}

// All that `make bench` does, for a moment: every scenario on every server is answered rightly, and the tables come of it.
func TestRun(t *testing.T) {
	lab.NeedEnvoy(t)
	r := testRunner(t)
	all, err := scenarios(r.programs.mint, r.window, 20)
	if err != nil {
		t.Fatal(err)
	}
	groups := append(r.checks(all, everybody), r.latencies(all[0], []string{extauthz, noop}, map[string][]int{extauthz: {1000}, noop: {1000}})...)
	withoutTrace, err := untraced(r.programs.mint)
	if err != nil {
		t.Fatal(err)
	}
	groups = append(groups, r.throughEnvoy(all[0]), r.observing(all[0], withoutTrace), r.limits(all[0]))
	if err := r.round(t.Context(), 1, groups); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.cells {
		if !c.Slow && (c.Answered == 0 || c.CPU+c.EnvoyCPU <= 0) {
			t.Errorf("%s %s %s: %d answers, %g us", c.Group, c.Server, c.Scenario, c.Answered, c.CPU+c.EnvoyCPU)
		}
	}
	found := &results{Cells: r.cells}
	var out strings.Builder
	found.print(&out)
	for _, row := range scenarioRows {
		if !found.has(groupChecks, extauthz, row.name) || !found.has(groupChecks, noop, row.name) || !strings.Contains(out.String(), "| "+row.name) {
			t.Errorf("%s is missing", row.name)
		}
	}
	for _, v := range envoyVariants() {
		if !found.has(groupEnvoy, v.name, "warm") {
			t.Errorf("Envoy with %s is missing", v.name)
		}
	}
	for _, o := range observations() {
		if !found.has(groupObserve, extauthz, o.name) || !strings.Contains(out.String(), "| "+o.name+" ") {
			t.Errorf("%s is missing", o.name)
		}
	}
	warm := found.of(groupChecks, extauthz, "warm")[0]
	if warm.Tokens != 10 || warm.Estimate == 0 || warm.Decisions != 1 || warm.DecisionBytes == 0 || warm.Series < 10 {
		t.Errorf("extauthz says of itself %+v, want 10 tokens and a decision", warm)
	}
	if all := found.of(groupObserve, extauthz, "decisionLog.allowed: all")[0]; all.Logged < 300*(all.Answered-all.Lost)/2 {
		t.Errorf("%d bytes of log for %d checks, of which %d were lost", all.Logged, all.Answered, all.Lost)
	}
}

// The configurations of the curves, at sizes that do not take minutes, are good and answer.
func TestScale(t *testing.T) {
	r := testRunner(t)
	points, err := scalePoints(r.programs.mint, true)
	if err != nil {
		t.Fatal(err)
	}
	cells, err := cacheCells(t.Context(), r.programs.mint, io.Discard, 1, 10*time.Millisecond, []int{10, 100}, []int{100})
	if err != nil {
		t.Fatal(err)
	}
	if len(cells) != 3 || cells[1].Tokens != 100 || cells[1].CPU <= 0 || cells[2].Group != curveBound {
		t.Errorf("found %+v, want the cache with 10 and 100 tokens, and a bounded one", cells)
	}
	largest := make(map[string]point)
	for _, p := range points {
		largest[p.curve] = p
	}
	for name, p := range largest {
		if _, err := r.measure(t.Context(), extauthz, p.load, setup{edit: p.edit}); err != nil {
			t.Errorf("%d %s: %v", p.n, name, err)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, args := range [][]string{nil, {"other"}, {"run", "-unknown"}, {"run", "-time", "x"}} {
		if err := command(t.Context(), args); err == nil {
			t.Errorf("bench %v has no error", args)
		}
	}
}
