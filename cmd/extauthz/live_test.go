package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/certtest"
	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/lab"
	"github.com/cognito-extauthz/extauthz/internal/reload"
	"github.com/cognito-extauthz/extauthz/internal/telemetry"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A served is the program at work, with a configuration that a test changes.
type served struct {
	*cognitotest.Pool
	file, socket, admin string
	client              authv3.AuthorizationClient
	log                 *lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

const servedRoutes = "routes: [{path: /orders, methods: [GET], scopes: {any: [orders/read]}}]\n"

// serveConfig starts the program with servedRoutes and what else a test asks for.
func serveConfig(t *testing.T, more string) *served {
	t.Helper()
	s := newServed(t)
	s.start(t, s.config(servedRoutes+more))
	return s
}

// newServed returns one that is not started.
func newServed(t *testing.T) *served {
	t.Helper()
	cognito, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cognito.Close)
	ports, err := lab.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return &served{
		Pool: cognito.Pools()[0], file: filepath.Join(dir, "extauthz.yaml"), socket: filepath.Join(dir, "grpc.sock"),
		admin: lab.Loopback(ports[0]), log: new(lockedBuffer),
	}
}

func (s *served) start(t *testing.T, text string) {
	t.Helper()
	s.write(t, text)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := command()
	cmd.SetArgs([]string{"serve", "--config", s.file})
	cmd.SetErr(s.log)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	conn, err := grpc.NewClient("unix://"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.client = authv3.NewAuthorizationClient(conn)
}

// noKeys is a configuration whose pool's keys never come.
func (s *served) noKeys(config, more string) string {
	return strings.Replace(config, "clients: [batch]}", "clients: [batch], jwksUrl: \"http://127.0.0.1:1/\""+more+"}", 1)
}

// config is the start of all configurations, with what follows.
func (s *served) config(rest string) string {
	return "listen: {grpc: \"unix://" + s.socket + "\", metrics: \"\", admin: " + s.admin + "}\nshutdown: {delay: 0s}\n" +
		"clients: {batch: {id: " + cognitotest.DemoClientID + "}, reports: {id: " + cognitotest.DemoReaderID + "}}\n" +
		"pools: {main: {issuer: \"" + s.Issuer() + "\", clients: [batch]}}\n" + rest
}

// write puts another configuration in place, as a whole.
func (s *served) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(s.file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		t.Fatal(err)
	}
}

// reason is what comes of a request with a token.
func (s *served) reason(t *testing.T, path, token string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	resp, err := s.client.Check(ctx, checkOf(path, "Bearer "+token, ""), grpc.WaitForReady(true))
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return ""
	}
	return resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
}

// becomes waits until a request has this outcome.
func (s *served) becomes(t *testing.T, path, token, want string) {
	t.Helper()
	within(t, func() error {
		if got := s.reason(t, path, token); got != want {
			return fmt.Errorf("%s is %q, want %q; the log:\n%s", path, got, want, s.log)
		}
		return nil
	})
}

// logs waits for a line.
func (s *served) logs(t *testing.T, text string) {
	t.Helper()
	within(t, func() error {
		if !strings.Contains(s.log.String(), text) {
			return fmt.Errorf("no %q in the log:\n%s", text, s.log)
		}
		return nil
	})
}

// within waits until f returns no error.
func within(t *testing.T, f func() error) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-late:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// status is what /status says of the configuration.
func (s *served) status(t *testing.T) (revision string, file fileStatus) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.admin+"/status", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var all status
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	for _, f := range all.Files {
		if f.Name == "config" {
			return all.ConfigRevision, f
		}
	}
	t.Fatalf("%+v has no file config", all.Files)
	return "", fileStatus{}
}

// A new configuration decides within seconds, all of it.
func TestConfigReload(t *testing.T) {
	s := serveConfig(t, "")
	batch, reports := s.Token(cognitotest.DemoClientID), s.Token(cognitotest.DemoReaderID)
	s.becomes(t, "/orders", batch, "allowed")
	s.becomes(t, "/orders", reports, "client_not_allowed")
	s.becomes(t, "/invoices", batch, "no_route")
	before, _ := s.status(t)

	changed := strings.Replace(s.config("routes:\n- {path: /invoices, methods: [GET], anyClient: true}\n"), "[batch]", "[batch, reports]", 1)
	s.write(t, changed)
	s.becomes(t, "/invoices", batch, "allowed")
	for path, want := range map[string]string{"/orders": "no_route", "/invoices": "allowed"} {
		if got := s.reason(t, path, reports); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	after, file := s.status(t)
	if after == before || file.Error != "" || file.Failures != 0 {
		t.Errorf("/status says revision %s and %+v, want another than %s and no failure", after, file, before)
	}
	if n := s.Requests(cognitotest.JWKS); n != 1 {
		t.Errorf("the keys were fetched %d times, want once: they come from where they came from", n)
	}
	s.write(t, "# the same\n"+changed)
	within(t, func() error {
		if _, now := s.status(t); now.Loads == file.Loads {
			return fmt.Errorf("/status says %+v, want another load", now)
		}
		return nil
	})
	if n := strings.Count(s.log.String(), "configuration in use"); n != 1 {
		t.Errorf("%d configurations came into use, want one, as the last says the same", n)
	}
}

// A configuration that cannot be used changes nothing, and says why.
func TestConfigThatCannotBeUsed(t *testing.T) {
	s := serveConfig(t, "startup: {keysTimeout: 200ms}\n")
	batch := s.Token(cognitotest.DemoClientID)
	s.becomes(t, "/orders", batch, "allowed")
	const free = "routes: [{path: /orders, methods: [GET], public: true}]\n"
	for name, test := range map[string]struct{ config, want string }{
		"a mistake":                {s.config(free + "clientz: {}\n"), "clientz"},
		"nothing":                  {"", "pools"},
		"another listener":         {strings.Replace(s.config(free), s.admin, "127.0.0.1:1", 1), "other settings in listen, which take effect at a restart"},
		"another log level":        {s.config(free + "log: {level: debug}\n"), "other settings in log,"},
		"a directory that is none": {s.config(free + "policy: {dir: nowhere}\n"), "policy.dir: found"},
		"a policy that is none": {
			s.config(free + "policy: {dir: " + filepath.Dir(s.policy(t, "package extauthz\ndecision := nonsense(1)\n")) + "}\n"),
			"the policy cannot be used",
		},
		"a denylist that is none": {s.config(free + "denylist: {file: nowhere.yaml}\n"), "denylist.file"},
		"keys that do not come": {
			s.noKeys(s.config(free+"startup: {keysTimeout: 200ms}\n"), ""),
			"pools.main: no keys within 200ms",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.write(t, test.config)
			s.logs(t, test.want)
			if got := s.reason(t, "/orders", "none"); got != "malformed" {
				t.Errorf("/orders without a good token is %q, want it refused as before", got)
			}
			if got := s.reason(t, "/orders", batch); got != "allowed" {
				t.Errorf("/orders is %q, want it allowed as before", got)
			}
			if _, file := s.status(t); !strings.Contains(file.Error, test.want) {
				t.Errorf("/status says %+v, want the error", file)
			}
		})
	}
	s.write(t, s.config(free))
	s.becomes(t, "/orders", "none", "allowed")
}

// policy writes a policy and returns its file.
func (s *served) policy(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "p.rego")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A configuration that waits for its keys is used when they come, though the file stays as it is.
func TestConfigWaitsForKeys(t *testing.T) {
	s := serveConfig(t, "startup: {keysTimeout: 100ms}\n")
	s.becomes(t, "/orders", s.Token(cognitotest.DemoClientID), "allowed")
	other, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	moved := other.Pools()[0]
	moved.Fail(cognitotest.JWKS, cognitotest.Fault{Status: http.StatusServiceUnavailable, Times: 1})
	s.write(t, strings.Replace(s.config(servedRoutes+"startup: {keysTimeout: 100ms}\n"), s.Issuer(), moved.Issuer(), 1))
	s.logs(t, "no keys within")
	s.becomes(t, "/orders", moved.Token(cognitotest.DemoClientID), "allowed")
	if got := s.reason(t, "/orders", s.Token(cognitotest.DemoClientID)); got != "issuer" {
		t.Errorf("a token of the pool of before is %q, want its issuer refused", got)
	}
}

// A configuration that cannot be used for what another file says is used when that is mended, though it stays as it is itself.
func TestConfigWaitsForOtherFiles(t *testing.T) {
	s := serveConfig(t, "")
	batch := s.Token(cognitotest.DemoClientID)
	s.becomes(t, "/orders", batch, "allowed")
	s.write(t, s.config(servedRoutes+"policy: {dir: policies}\n"))
	s.logs(t, "policy.dir: found")
	dir := filepath.Join(filepath.Dir(s.file), "policies")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte("package extauthz\ndecision := false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.becomes(t, "/orders", batch, "policy_denied")
}

// A pipe in the place of a file that a configuration names holds up neither the next configuration nor the end.
func TestConfigThatNamesAPipe(t *testing.T) {
	s := serveConfig(t, "")
	batch := s.Token(cognitotest.DemoClientID)
	s.becomes(t, "/orders", batch, "allowed")
	for _, key := range []string{"caFile", "seedFile"} {
		if err := syscall.Mkfifo(filepath.Join(filepath.Dir(s.file), key), 0o600); err != nil {
			t.Fatal(err)
		}
		s.write(t, strings.Replace(s.config(servedRoutes), "clients: [batch]}", "clients: [batch], jwks: {"+key+": "+key+"}}", 1))
		s.logs(t, key+" is no regular file")
	}
	s.write(t, s.config("routes: [{path: /more, methods: [GET], anyClient: true}]\n"))
	s.becomes(t, "/more", batch, "allowed")
}

// A configuration that is mended is used at once, and not after the time for keys that it asks for no more.
func TestConfigIsMendedWhileKeysDoNotCome(t *testing.T) {
	s := serveConfig(t, "")
	batch := s.Token(cognitotest.DemoClientID)
	s.becomes(t, "/orders", batch, "allowed")
	s.write(t, s.noKeys(s.config(servedRoutes+"startup: {keysTimeout: 10m}\n"), ""))
	s.logs(t, "jwks fetch failed")
	s.write(t, s.config("routes: [{path: /more, methods: [GET], anyClient: true}]\n"))
	s.becomes(t, "/more", batch, "allowed")
}

// Keys that never came, and would come from where they came from, hold up no other change.
func TestConfigWhileAnotherPoolHasNoKeys(t *testing.T) {
	s := newServed(t)
	more := "startup: {keysTimeout: 100ms}\n"
	two := func(routes string) string {
		text := s.noKeys(s.config(routes+more), "}, lost: {issuer: \"https://issuer.example.com\", anyClient: true, jwksUrl: \"http://127.0.0.1:1/\"")
		return strings.Replace(text, ", jwksUrl: \"http://127.0.0.1:1/\"", "", 1)
	}
	s.start(t, two("routes: [{path: /orders, methods: [GET], anyClient: true, pools: [main]}]\n"))
	batch := s.Token(cognitotest.DemoClientID)
	s.becomes(t, "/orders", batch, "allowed")
	s.write(t, two("routes: [{path: /more, methods: [GET], anyClient: true, pools: [main]}]\n"))
	s.becomes(t, "/more", batch, "allowed")
}

// What began without keys is ready when another configuration brings some.
func TestReadyByAnotherConfiguration(t *testing.T) {
	s := newServed(t)
	s.start(t, s.noKeys(s.config(servedRoutes), ""))
	s.logs(t, "jwks fetch failed")
	if strings.Contains(s.log.String(), `"msg":"ready"`) {
		t.Errorf("ready without keys; the log:\n%s", s.log)
	}
	s.write(t, s.config(servedRoutes))
	s.becomes(t, "/orders", s.Token(cognitotest.DemoClientID), "allowed")
	s.logs(t, `"msg":"ready"`)
}

// newLive returns a live that decides by a configuration, with the keys of its pool in a file, and logs to a function.
func newLive(t *testing.T, rest string, logged func(line string)) *live {
	t.Helper()
	s := newServed(t)
	dir := filepath.Dir(s.file)
	text := s.config(servedRoutes)
	text = strings.Replace(text, "clients: [batch]}", "clients: [batch], jwksFile: keys.json}", 1) + rest
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), s.JWKS(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.write(t, text)
	cfg, err := load(s.file)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(writerFunc(logged), nil))
	p, err := newParts(t.Context(), s.file, cfg, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.New(t.Context(), telemetry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.Background()) })
	l := &live{
		path: s.file, log: log, tel: tel, bundles: &bundles{engine: p.engine}, files: reload.New(log),
		fetching: make(map[*validator.RemoteKeys]context.CancelFunc),
	}
	if l.metrics, err = authz.NewMetrics(tel.Meter); err != nil {
		t.Fatal(err)
	}
	l.now.Store(l.generation(cfg, p))
	return l
}

type writerFunc func(string)

func (f writerFunc) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// begin starts it, until the test ends.
func (l *live) begin(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); l.running.Wait() })
	l.start(ctx)
}

// A denylist that is being written when the configuration changes is not used half written: its second half may refuse more.
func TestConfigWhileADenylistIsWritten(t *testing.T) {
	denylist := filepath.Join(t.TempDir(), "denylist.yaml")
	const half = "revocations:\n- {pool: main, clientId: nobody}\n" // a client that is warned of
	put := func(text string) {
		if err := os.WriteFile(denylist, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	put(half)
	l := newLive(t, "", func(line string) {
		if strings.Contains(line, "denylist has a client") {
			put(half + "- {client: batch}\n")
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); l.running.Wait() })
	l.background = ctx
	l.keepFresh(l.now.Load())
	text, err := reload.Read(l.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.reload(append(text, "denylist: {file: "+denylist+"}\n"...)); err != nil {
		t.Fatal(err)
	}
	want := []byte(half + "- {client: batch}\n")
	for _, f := range l.now.Load().pools.files.Status() {
		if sum := fmt.Sprintf("sha256:%.6x", sha256.Sum256(want)); f.Name == "denylist.file" && f.Revision != sum {
			t.Errorf("the denylist in use is %s, want %s, which is all of it", f.Revision, sum)
		}
	}
}

// A file that has changed since it was read at the start holds up nothing, and is read again when it is mended.
func TestConfigChangesDuringTheStart(t *testing.T) {
	for name, changed := range map[string]string{
		"broken":         "nonsense\n",
		"nothing":        "",
		"without a file": "-",
	} {
		t.Run(name, func(t *testing.T) {
			log := new(lockedBuffer)
			l := newLive(t, "", func(line string) { _, _ = log.Write([]byte(line)) })
			text, err := os.ReadFile(l.path)
			if err != nil {
				t.Fatal(err)
			}
			if err = os.WriteFile(l.path, []byte(changed), 0o600); changed == "-" {
				err = os.Remove(l.path)
			}
			if err != nil {
				t.Fatal(err)
			}
			l.begin(t)
			within(t, func() error {
				if s := l.files.Status(); len(s) != 1 || s[0].Err == nil {
					return fmt.Errorf("the files are %+v, want one with an error; the log:\n%s", s, log)
				}
				return nil
			})
			before := l.now.Load()
			if err := os.WriteFile(l.path, append(text, "realm: other\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
			within(t, func() error {
				if l.now.Load() == before {
					return fmt.Errorf("the configuration that is mended is not in use; the log:\n%s", log)
				}
				return nil
			})
		})
	}
}

// No check is lost or goes wrong while configurations come and go. A signal has them looked at.
func TestChecksDuringReloads(t *testing.T) {
	s := serveConfig(t, "")
	good, bad := s.Token(cognitotest.DemoClientID), s.Token(cognitotest.DemoReaderID)
	s.becomes(t, "/orders", good, "allowed")
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := s.reason(t, "/orders", good); got != "allowed" {
					t.Errorf("a good token is %q, want it allowed", got)
				}
				if got := s.reason(t, "/orders", bad); got != "client_not_allowed" {
					t.Errorf("another client's token is %q, want it denied", got)
				}
			}
		})
	}
	for i := range 8 {
		path := fmt.Sprintf("/more%d", i)
		s.write(t, s.config(servedRoutes+"- {path: "+path+", methods: [GET], anyClient: true}\n"))
		s.write(t, s.config("routes:\n- {path: /orders, methods: [GET], scopes: {any: [orders/read]}}\n- {path: "+path+", methods: [GET], anyClient: true}\n"))
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.becomes(t, path, good, "allowed")
	}
	close(stop)
	callers.Wait()
}

// A certificate that is renewed is shown to who connects next; one that is no good is not.
func TestCertificateReload(t *testing.T) {
	ca := certtest.New(t)
	ca.Issue(t, "tls")
	cert, key := ca.Cert("tls"), ca.Key("tls")
	s := serveConfig(t, "")
	address := freeAddress(t)
	tlsConfig := filepath.Join(filepath.Dir(s.file), "tls.yaml")
	text := strings.Replace(s.config(servedRoutes), "grpc: \"unix://"+s.socket+"\"", "grpc: "+address+", tls: {certFile: "+cert+", keyFile: "+key+"}", 1)
	text = strings.Replace(text, s.admin, "\"\"", 1)
	if err := os.WriteFile(tlsConfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := new(lockedBuffer)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := command()
	cmd.SetArgs([]string{"serve", "--config", tlsConfig})
	cmd.SetErr(log)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })

	shown := func() (*x509.Certificate, error) {
		d := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
		conn, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = conn.Close() }()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
	}
	awaitShown := func(want tls.Certificate) {
		t.Helper()
		within(t, func() error {
			got, err := shown()
			if err == nil && !bytes.Equal(got.Raw, want.Certificate[0]) {
				err = fmt.Errorf("another certificate is shown; the log:\n%s", log)
			}
			return err
		})
	}
	awaitShown(ca.Pair(t, "tls"))
	ca.Issue(t, "renewed")
	renewed := ca.Pair(t, "renewed")
	rename(t, ca.Cert("renewed"), cert) // without its key
	within(t, func() error {
		if !strings.Contains(log.String(), "private key does not match public key") {
			return fmt.Errorf("no line about the key in the log:\n%s", log)
		}
		return nil
	})
	if got, err := shown(); err != nil || got == nil {
		t.Errorf("with a key of another certificate: %v, want the last good one shown", err)
	}
	rename(t, ca.Key("renewed"), key)
	awaitShown(renewed)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ports, err := lab.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return lab.Loopback(ports[0])
}

// parseConfig returns a small configuration with more.
func parseConfig(t *testing.T, more string) *config.Config {
	t.Helper()
	c, err := config.Parse("extauthz.yaml", []byte("pools: {main: {issuer: \"https://issuer.example.com\", anyClient: true}}\n"+
		"routes: [{path: /x, methods: [GET], anyClient: true}]\n"+more), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every section of a configuration is either used by the next generation or named as one that needs a restart.
func TestFixedSections(t *testing.T) {
	before := parseConfig(t, "")
	known := map[string]bool{"clients": true, "pools": true, "routes": true, "authentication": true, "denylist": true}
	for more, want := range map[string]string{
		"":                                     "",
		"listen: {grpc: 127.0.0.1:1}":          "listen",
		"limits: {bodyBytes: 2048}":            "limits",
		"telemetry: {traceRate: 1}":            "telemetry",
		"decisionLog: {allowed: all}":          "decisionLog",
		"shutdown: {delay: 1s}":                "shutdown",
		"log: {level: debug}":                  "log",
		"opa: {labels: {a: b}}":                "opa",
		"policy: {dir: p, decision: data.x.y}": "policy.decision",
		"policy: {timeout: 1s}":                "",
		"realm: other":                         "",
		"tokenCache: {enabled: false}":         "",
		"decisionCache: {enabled: false}":      "",
		"identityHeaders: {prefix: x-caller-}": "",
		"upstream: {authorization: forward}":   "",
		"startup: {keysTimeout: 1s}":           "",
	} {
		section, _, _ := strings.Cut(more, ":")
		known[section] = true
		if got := strings.Join(fixed(before, parseConfig(t, more)), ","); got != want {
			t.Errorf("%s: %q needs a restart, want %q", more, got, want)
		}
	}
	for field := range reflect.TypeFor[config.Config]().Fields() {
		if section := field.Tag.Get("yaml"); section != "" && !known[section] {
			t.Errorf("section %s: nobody has said whether it needs a restart", section)
		}
	}
}

// The policy that bundles brought goes on to decide under another configuration, or, if that cannot use it, under the one of before.
func TestBundlesMoveToAnotherEngine(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	cfg := parseConfig(t, "opa: {services: {s: {url: \"http://127.0.0.1:1\"}}, bundles: {b: {service: s}}}\n")
	engine := func(decision string) *policy.Engine {
		cfg.Policy.Decision = decision
		e, err := newEngine(t.Context(), cfg, log)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	first := engine("data.mine.decision")
	b, err := newBundles(t.Context(), cfg, first, log)
	if err != nil {
		t.Fatal(err)
	}
	early := engine("data.mine.decision")
	if err := b.moveTo(t.Context(), early, func() {}); err != nil || early.Revision() != "" {
		t.Errorf("before a policy came: error %v and revision %q, want neither", err, early.Revision())
	}
	files := map[string][]byte{"p.rego": []byte("package mine\ndecision := input.canonical.path == \"/a\"\n"), "data.json": []byte("{}")}
	if _, err := b.load(t.Context(), files, "b=1"); err != nil {
		t.Fatal(err)
	}
	if first.Revision() != "" || early.Revision() == "" {
		t.Errorf("the policy went to the engine that decides no more")
	}
	decides := func(e *policy.Engine, path string) bool {
		d, err := e.Decide(t.Context(), &policy.Input{Canonical: policy.Canonical{Path: path}})
		if err != nil {
			t.Error(err)
		}
		return d.Allowed
	}
	used := false
	next := engine("data.mine.decision")
	if err := b.moveTo(t.Context(), next, func() { used = true }); err != nil || !used || !decides(next, "/a") || decides(next, "/b") {
		t.Errorf("error %v, used %t, want the policy to decide as before", err, used)
	}
	used = false
	if err := b.moveTo(t.Context(), engine("data.other.decision"), func() { used = true }); err == nil || used {
		t.Errorf("error %v, used %t, want one about the rule that is not there", err, used)
	}
	files["p.rego"] = []byte("package mine\ndecision := true\n")
	if _, err := b.load(t.Context(), files, "b=2"); err != nil || !decides(next, "/b") {
		t.Errorf("error %v, want the next bundle to go to the engine that decides", err)
	}
}
