package opa

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/discovery"
	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"),                                          // idle connections of OPA's clients, which it keeps
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"),                                       // the same
		goleak.IgnoreAnyFunction("github.com/open-policy-agent/opa/v1/plugins.(*Manager).pluginStatusLoop"), // of managers that New refused
	)
}

// key signs bundles in tests.
var key = sync.OnceValue(newKey)

func newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

func pemOf(kind string, der []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func public(k *ecdsa.PrivateKey) string {
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	return pemOf("PUBLIC KEY", der, err)
}

// A recipe is what a bundle is made of.
type recipe struct {
	modules  map[string]string // by path
	data     map[string]any
	revision string
	roots    []string
	signed   *ecdsa.PrivateKey
}

// module decides by a constant, and says which one it is.
func module(reason string) string {
	return fmt.Sprintf("package extauthz\n\ndecision := {\"allowed\": false, \"reason\": %q}\n", reason)
}

func simple(revision string) recipe {
	return recipe{modules: map[string]string{"policy.rego": module("r_" + revision)}, revision: revision, signed: key()}
}

// build makes a bundle with OPA's own writer and signer.
func (r recipe) build(tb testing.TB) []byte {
	tb.Helper()
	b := opabundle.Bundle{Manifest: opabundle.Manifest{Revision: r.revision}, Data: r.data}
	if r.data == nil {
		b.Data = map[string]any{}
	}
	if r.roots != nil {
		b.Manifest.Roots = &r.roots
	}
	for path, text := range r.modules {
		b.Modules = append(b.Modules, opabundle.ModuleFile{URL: path, Path: "/" + path, Raw: []byte(text)})
	}
	var out bytes.Buffer
	if r.signed != nil {
		der, err := x509.MarshalECPrivateKey(r.signed)
		config := opabundle.NewSigningConfig(pemOf("EC PRIVATE KEY", der, err), "ES256", "")
		for i := range b.Modules {
			b.Modules[i].Parsed = opabundleModule(tb, b.Modules[i])
		}
		if err := b.GenerateSignature(config, "main", true); err != nil {
			tb.Fatal(err)
		}
	}
	if err := opabundle.NewWriter(&out).UseModulePath(true).DisableFormat(true).Write(b); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// A server serves bundles by path, as nginx or S3 would: with an ETag, and 304 if nothing has changed.
type server struct {
	*httptest.Server
	mu          sync.Mutex
	answers     map[string][]byte
	handler     http.HandlerFunc // instead of the answers
	notModified int
	auth        []string // Authorization headers seen
	reports     []map[string]any
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{answers: make(map[string][]byte)}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	body, ok := s.answers[strings.TrimPrefix(r.URL.Path, "/")]
	handler := s.handler
	s.auth = append(s.auth, r.Header.Get("Authorization"))
	s.mu.Unlock()
	switch {
	case strings.HasPrefix(r.URL.Path, "/status"):
		var report map[string]any
		if err := json.NewDecoder(r.Body).Decode(&report); err == nil {
			s.mu.Lock()
			s.reports = append(s.reports, report)
			s.mu.Unlock()
		}
	case handler != nil:
		handler(w, r)
	case !ok:
		http.NotFound(w, r)
	default:
		etag := fmt.Sprintf("%q", fmt.Sprint(len(body), crc(body)))
		if r.Header.Get("If-None-Match") == etag {
			s.mu.Lock()
			s.notModified++
			s.mu.Unlock()
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", etag)
		_, _ = w.Write(body)
	}
}

func (s *server) serve(path string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[path], s.handler = body, nil
}

func (s *server) handle(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler = h
}

// A fixture is a Source with a real engine.
type fixture struct {
	*Source
	engine *policy.Engine
	log    *logBuffer
	stop   func()
	loads  chan string // what came into use
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

const token = "bundle-token-0123456789"

// section is a configuration for one signed bundle, fetched when the test says so.
func section(url string) map[string]any {
	return map[string]any{
		"services": map[string]any{"main": map[string]any{
			"url": url, "credentials": map[string]any{"bearer": map[string]any{"token": "${BUNDLE_TOKEN}"}},
		}},
		"keys": map[string]any{"main": map[string]any{"algorithm": "ES256", "key": public(key())}},
		"bundles": map[string]any{"main": map[string]any{
			"service": "main", "resource": "bundle.tar.gz?sig=topsecretquery", "trigger": "manual",
			"signing": map[string]any{"keyid": "main"}, "size_limit_bytes": json.Number("65536"),
		}},
	}
}

func inside(t *testing.T, m map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, name := range path {
		next, ok := m[name].(map[string]any)
		if !ok {
			t.Fatalf("no %s in %v", name, m)
		}
		m = next
	}
	return m
}

func getenv(name string) (string, bool) { return token, name == "BUNDLE_TOKEN" }

func start(t *testing.T, section map[string]any, minRevision string) *fixture {
	t.Helper()
	f := &fixture{log: &logBuffer{}, loads: make(chan string, 1024)}
	log := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if f.engine, err = policy.New(t.Context(), policy.Config{LoadLater: true, Reasons: reasons()}); err != nil {
		t.Fatal(err)
	}
	f.Source, err = New(t.Context(), Config{
		Section: section, Getenv: getenv, MinRevision: minRevision, Logger: log, filePoll: time.Millisecond,
		Load: func(ctx context.Context, files map[string][]byte, label string) (string, error) {
			err := f.engine.Load(ctx, files, label)
			if err == nil {
				f.loads <- label
			}
			return f.engine.Revision(), err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	f.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(f.stop)
	t.Cleanup(func() {
		if text := f.log.String(); strings.Contains(text, token) || strings.Contains(text, "topsecretquery") {
			t.Errorf("the log holds a secret:\n%s", text)
		}
	})
	return f
}

func reasons() []string {
	var all []string
	for i := range 30 {
		all = append(all, fmt.Sprintf("r_%d", i))
	}
	return all
}

// fetch has OPA ask for all bundles now.
func (f *fixture) fetch(t *testing.T) {
	t.Helper()
	f.started(t)
	_ = bundle.Lookup(f.manager).Trigger(t.Context()) // what it says is in Bundles
}

// started waits for the plugins to be started.
func (f *fixture) started(t *testing.T) {
	t.Helper()
	for f.manager.PluginStatus()[watchName] == nil || f.manager.PluginStatus()[watchName].State != "OK" {
		if t.Context().Err() != nil {
			t.Fatal("the plugins do not start")
		}
	}
}

// decide returns the reason that the policy gives, "fails" if there is none.
func (f *fixture) decide(t *testing.T) string {
	t.Helper()
	d, err := f.engine.Decide(t.Context(), &policy.Input{})
	if err != nil {
		return "fails"
	}
	return string(d.Reason)
}

// want holds what decides, and what the state says of it.
func (f *fixture) want(t *testing.T, decision, revision, problem string) {
	t.Helper()
	if got := f.decide(t); got != decision {
		t.Errorf("decision is %q, want %q\n%s", got, decision, f.log)
	}
	all := f.Bundles()
	if len(all) != 1 {
		t.Fatalf("bundles are %v, want one", all)
	}
	b := all[0]
	if b.Revision != revision || b.ActivatedAt.IsZero() != (revision == "") {
		t.Errorf("state is %+v, want the revision %q", b, revision)
	}
	if problem == "" && b.Err != nil || problem != "" && (b.Err == nil || !strings.Contains(b.Err.Error(), problem)) {
		t.Errorf("error is %v, want %q", b.Err, problem)
	}
	if revision != "" && !strings.HasPrefix(f.engine.Revision(), "main="+revision+"@sha256:") {
		t.Errorf("the engine's revision is %q, want main=%s", f.engine.Revision(), revision)
	}
}

func TestBundleFromAServer(t *testing.T) {
	s := newServer(t)
	s.serve("bundle.tar.gz", simple("1").build(t))
	f := start(t, section(s.URL), "")
	f.want(t, "fails", "", "")
	select {
	case <-f.Loaded():
		t.Error("ready before there is a policy")
	default:
	}
	f.fetch(t)
	f.want(t, "r_1", "1", "")
	<-f.Loaded()
	if diff := cmp.Diff(map[string]string{"main": "1"}, f.Revisions(f.engine.Revision())); diff != "" {
		t.Errorf("revisions (-want +got):\n%s", diff)
	}
	f.KnownAs(f.engine.Revision(), "other settings")
	f.KnownAs("nothing", "of nothing")
	for policy, want := range map[string]map[string]string{f.engine.Revision(): {"main": "1"}, "other settings": {"main": "1"}, "of nothing": nil} {
		if diff := cmp.Diff(want, f.Revisions(policy)); diff != "" {
			t.Errorf("the bundles of %q (-want +got)\n%s", policy, diff)
		}
	}

	s.serve("bundle.tar.gz", simple("2").build(t))
	f.fetch(t)
	f.want(t, "r_2", "2", "")

	f.fetch(t)
	if s.notModified != 1 {
		t.Errorf("%d answers were 304, want 1", s.notModified)
	}
	f.want(t, "r_2", "2", "")

	// A rollback is taken, and shows.
	s.serve("bundle.tar.gz", simple("1").build(t))
	f.fetch(t)
	f.want(t, "r_1", "1", "")
	if b := f.Bundles()[0]; b.Activations != 3 || b.Failures != 0 {
		t.Errorf("state is %+v, want three activations", b)
	}
	if s.auth[0] != "Bearer "+token {
		t.Errorf("Authorization is %q, want the token of the environment", s.auth[0])
	}
}

// Each is refused, the last good one goes on, and the next good one is taken.
func TestBadBundles(t *testing.T) {
	good := simple("2").build(t)
	unsigned, wrong := simple("2"), simple("2")
	unsigned.signed, wrong.signed = nil, newKey()
	large := simple("2")
	noise := make([]byte, 100_000)
	_, _ = rand.Read(noise)
	large.data = map[string]any{"noise": noise}
	with := func(text string) []byte {
		r := simple("2")
		r.modules = map[string]string{"policy.rego": text}
		return r.build(t)
	}
	for name, test := range map[string]struct {
		body    []byte
		handler http.HandlerFunc
		want    string
	}{
		"tampered":                {body: tampered(t, good), want: "digest"},
		"unsigned":                {body: unsigned.build(t), want: "signatures"},
		"signed with another key": {body: wrong.build(t), want: "verif"},
		"larger than is allowed":  {body: large.build(t), want: "size_limit_bytes"},
		"cut in half":             {body: good[:len(good)/2], want: "EOF"},
		"empty":                   {body: []byte{}, want: "EOF"},
		"HTML":                    {body: []byte("<html>login</html>"), want: "gzip"},
		"500":                     {handler: code(500), want: "Internal Server Error"},
		"403":                     {handler: code(403), want: "Forbidden"},
		"connection cut":          {handler: cut(good), want: "EOF"},
		"no Rego":                 {body: with("package extauthz\n\ndecision := \n"), want: "rego_parse_error"},
		"an unknown input":        {body: with("package extauthz\n\ndecision := input.tokn.pool == \"x\"\n"), want: "undefined ref: input.tokn"},
		"no deciding rule":        {body: with("package extauthz\n\nallow := true\n"), want: "no rule data.extauthz.decision"},
		"http.send":               {body: with("package extauthz\n\ndecision := http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1:1\"}).status_code == 200\n"), want: "http.send"},
		"a part of the base":      {body: with("package extauthz.base\n\ndecision := true\n"), want: "built in"},
		"Rego of another version": {body: with("package extauthz\n\ndecision { true }\n"), want: "rego_parse_error"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.serve("bundle.tar.gz", simple("1").build(t))
			f := start(t, section(s.URL), "")
			f.fetch(t)
			f.want(t, "r_1", "1", "")

			s.serve("bundle.tar.gz", test.body)
			if test.handler != nil {
				s.handle(test.handler)
			}
			f.fetch(t)
			f.want(t, "r_1", "1", test.want)
			if b := f.Bundles()[0]; b.Failures != 1 || b.Activations != 1 {
				t.Errorf("state is %+v, want one failure", b)
			}

			s.serve("bundle.tar.gz", simple("3").build(t))
			f.fetch(t)
			f.want(t, "r_3", "3", "")
		})
	}
}

func code(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// cut promises all of a body and sends a half.
func cut(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body[:len(body)/2])
	}
}

func TestMinRevision(t *testing.T) {
	s := newServer(t)
	f := start(t, section(s.URL), "10")
	for _, step := range []struct{ revision, decision, active, problem string }{
		{"9", "fails", "", `revision of bundle main is "9", want at least "10"`},
		{"10", "r_10", "10", ""},
		{"11", "r_11", "11", ""},
		{"9", "r_11", "11", `is "9", want at least "10"`},
		{"x99", "r_11", "11", `is "x99"`},
		{"", "r_11", "11", `is ""`},
		{"10", "r_10", "10", ""},
	} {
		s.serve("bundle.tar.gz", simple(step.revision).build(t))
		f.fetch(t)
		f.want(t, step.decision, step.active, step.problem)
	}
}

func TestAtLeast(t *testing.T) {
	for _, test := range []struct {
		revision, least string
		want            bool
	}{
		{"9", "10", false},
		{"10", "9", true},
		{"100000000000000000000", "99999999999999999999", true},
		{"", "1", false},
		{"b", "1", false},
		{"2026-11-02", "2026-10-30", true},
		{"2026-10-02", "2026-10-30", false},
		{"", "a", false},
	} {
		if got := atLeast(test.revision, test.least); got != test.want {
			t.Errorf("%q is at least %q: %v, want %v", test.revision, test.least, got, test.want)
		}
	}
}

// After a restart without the server, the last good bundle decides; a bad one was not kept in its place.
func TestPersistence(t *testing.T) {
	s := newServer(t)
	config := section(s.URL)
	config["persistence_directory"] = t.TempDir()
	inside(t, config, "bundles", "main")["persist"] = true
	bad := simple("2")
	bad.modules["policy.rego"] = "package extauthz\n\nallow := true\n"

	s.serve("bundle.tar.gz", simple("1").build(t))
	f := start(t, config, "")
	f.fetch(t)
	s.serve("bundle.tar.gz", bad.build(t))
	f.fetch(t)
	f.want(t, "r_1", "1", "no rule")
	f.stop()
	s.Close()

	again := start(t, config, "")
	<-again.Loaded()
	again.want(t, "r_1", "1", "")
	again.fetch(t)
	again.want(t, "r_1", "1", "connection refused")
	again.stop()

	// A floor that was raised meanwhile holds for what is on disk as well.
	third := start(t, config, "2")
	third.started(t)
	third.want(t, "fails", "", "")
}

// Two bundles are one policy: no half of it decides.
func TestSeveralBundles(t *testing.T) {
	s := newServer(t)
	config := section(s.URL)
	bundles := inside(t, config, "bundles")
	for _, name := range []string{"main", "data"} {
		bundles[name] = map[string]any{"service": "main", "resource": name + ".tar.gz", "trigger": "manual", "signing": map[string]any{"keyid": "main"}}
	}
	rules := simple("1")
	rules.roots = []string{"extauthz"}
	rules.modules["policy.rego"] = "package extauthz\n\ndefault decision := true\n\ndecision := {\"allowed\": false, \"reason\": \"r_1\"} if \"x\" in data.denied.list\n"
	data := recipe{data: map[string]any{"denied": map[string]any{"list": []any{"x"}}}, revision: "7", roots: []string{"denied"}, signed: key()}

	f := start(t, config, "")
	s.serve("main.tar.gz", rules.build(t))
	f.fetch(t)
	if got := f.decide(t); got != "fails" {
		t.Errorf("decision is %q with half of the policy, want none", got)
	}
	for _, b := range f.Bundles() {
		if b.Err == nil || b.Revision != "" {
			t.Errorf("state is %+v, want an error", b)
		}
	}
	s.serve("data.tar.gz", data.build(t))
	f.fetch(t)
	if got := f.decide(t); got != "r_1" {
		t.Errorf("decision is %q, want r_1\n%s", got, f.log)
	}
	if got := f.engine.Revision(); !strings.HasPrefix(got, "data=7,main=1@sha256:") {
		t.Errorf("revision is %q, want both", got)
	}
	// The one that takes the other's place is refused.
	rules.roots = []string{""}
	s.serve("main.tar.gz", rules.build(t))
	f.fetch(t)
	if b := f.Bundles()[1]; b.Err == nil || !strings.Contains(b.Err.Error(), "overlapping roots") {
		t.Errorf("state is %+v, want an error about roots", b)
	}
	if got := f.decide(t); got != "r_1" {
		t.Errorf("decision is %q, want r_1", got)
	}
}

func TestDiscovery(t *testing.T) {
	s := newServer(t)
	config := section(s.URL)
	bundles, err := json.Marshal(map[string]any{"bundles": config["bundles"]})
	if err != nil {
		t.Fatal(err)
	}
	delete(config, "bundles")
	config["discovery"] = map[string]any{
		"service": "main", "resource": "discovery.tar.gz", "decision": "config", "trigger": "manual", "signing": map[string]any{"keyid": "main"},
	}
	found := recipe{modules: map[string]string{"c.rego": "package config\n\nbundles := " + string(bundles) + ".bundles\n"}, revision: "d1", signed: key()}
	s.serve("discovery.tar.gz", found.build(t))
	s.serve("bundle.tar.gz", simple("4").build(t))
	f := start(t, config, "")
	f.started(t)
	if got := f.decide(t); got != "fails" {
		t.Errorf("decision is %q before discovery, want none", got)
	}
	if err := discovery.Lookup(f.manager).Trigger(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.fetch(t)
	f.want(t, "r_4", "4", "")

	// A second bundle appears: the first goes on until the second is there.
	two := strings.Replace(string(bundles), `{"bundles":{`, `{"bundles":{"more":{"service":"main","resource":"more.tar.gz","trigger":"manual"},`, 1)
	found.modules["c.rego"] = "package config\n\nbundles := " + two + ".bundles\n"
	s.serve("discovery.tar.gz", found.build(t))
	first := simple("5")
	first.roots = []string{"extauthz"}
	s.serve("bundle.tar.gz", first.build(t))
	if err := discovery.Lookup(f.manager).Trigger(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.fetch(t)
	if got := f.decide(t); got != "r_4" {
		t.Errorf("decision is %q, want r_4 until all is there\n%s", got, f.log)
	}
	// It disappears again, which OPA commits without asking.
	found.modules["c.rego"] = "package config\n\nbundles := " + string(bundles) + ".bundles\n"
	s.serve("discovery.tar.gz", found.build(t))
	if err := discovery.Lookup(f.manager).Trigger(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.want(t, "r_5", "5", "")
}

// OPA's reports say that a bundle was refused, though OPA itself can compile it.
func TestStatusReports(t *testing.T) {
	s := newServer(t)
	config := section(s.URL)
	config["status"] = map[string]any{"service": "main", "trigger": "manual"}
	s.serve("bundle.tar.gz", simple("1").build(t))
	f := start(t, config, "")
	f.fetch(t)
	bad := simple("2")
	bad.modules["policy.rego"] = "package extauthz\n\ndecision := http.send({}).status_code == 200\n"
	s.serve("bundle.tar.gz", bad.build(t))
	f.fetch(t)
	if err := sendStatus(t.Context(), f.manager); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reports) == 0 {
		t.Fatalf("no report\n%s", f.log)
	}
	last := s.reports[len(s.reports)-1]
	text, err := json.Marshal(inside(t, last, "bundles", "main"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"active_revision":"1"`, `"code":"bundle_error"`, "http.send"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the report is %s, want %s in it", text, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"an unknown key":        {func(s map[string]any) { s["bundels"] = map[string]any{} }, "bundels"},
		"an unknown service":    {func(s map[string]any) { inside(t, s, "bundles", "main")["service"] = "other" }, "other"},
		"an unknown key id":     {func(s map[string]any) { inside(t, s, "bundles", "main", "signing")["keyid"] = "other" }, "other"},
		"a plugin":              {func(s map[string]any) { s["plugins"] = map[string]any{"x": 1} }, "plugins"},
		"a variable that is no": {func(s map[string]any) { s["labels"] = map[string]any{"x": "${NO_SUCH}"} }, "${NO_SUCH}"},
		"a list of labels":      {func(s map[string]any) { s["labels"] = []any{"x"} }, "array"},
		"a secret in a message": {func(s map[string]any) { inside(t, s, "bundles", "main")["service"] = "${BUNDLE_TOKEN}" }, "(not shown)"},
	} {
		t.Run(name, func(t *testing.T) {
			config := section("http://127.0.0.1:1")
			test.change(config)
			_, err := New(t.Context(), Config{Section: config, Getenv: getenv, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), token) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

func TestHide(t *testing.T) {
	s := secrets{"hunter2hunter2"}
	for text, want := range map[string]string{
		`Get "https://s3.example.com/b.tar.gz?X-Sig=abc": dial tcp`: `Get "https://s3.example.com/b.tar.gz?(not shown)": dial tcp`,
		"https://me:pw@h.example.com/x is bad":                      "https://(not shown)@h.example.com/x is bad",
		"token hunter2hunter2 refused":                              "token (not shown) refused",
		"policy.rego:3:1: what?":                                    "policy.rego:3:1: what?",
	} {
		if got := s.hide(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// Our own log applies the rules about it. OPA's plugin, which would apply them again, gets rules that are not there.
func TestDecisionLogIsMaskedOnce(t *testing.T) {
	f := start(t, map[string]any{
		"services":      map[string]any{"sink": map[string]any{"url": "http://127.0.0.1:1"}},
		"decision_logs": map[string]any{"service": "sink", "mask_decision": "/system/log/mask"},
	}, "")
	logs := string(f.manager.GetConfig().DecisionLogs)
	for _, want := range []string{`"mask_decision":"/extauthz/none/mask"`, `"drop_decision":"/extauthz/none/drop"`} {
		if !strings.Contains(logs, want) {
			t.Errorf("decision_logs is %s, want %s in it", logs, want)
		}
	}
}
