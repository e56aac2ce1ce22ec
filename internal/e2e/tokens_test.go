package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// What the tests of token verification share: keys, denylists and the cache, while they change.

// newPool starts a stand-in of one pool for one test.
func newPool(t *testing.T) *cognitotest.Pool {
	t.Helper()
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{poolConfig(mainPool)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Pool(mainPool)
}

// newTokens starts extauthz with the pool, whose keys come from where the text says, and an Envoy before it.
func newTokens(t *testing.T, p *cognitotest.Pool, keys string, env ...string) (*service, *gateway) {
	t.Helper()
	x := newService(t, "tokens.yaml", map[string]string{"MAIN": p.Issuer(), "KEYS": keys}, env...)
	return x, newGateway(t, x, patience())
}

// ordered is a request that all good tokens of these tests are allowed.
const ordered = "/orders/7"

// order sends it with a token.
func (g *gateway) order(t *testing.T, token string) outcome {
	t.Helper()
	return g.get(t, ordered, "Authorization: Bearer "+token).outcome()
}

// expect sends a token and says if the outcome is another.
func (g *gateway) expect(t *testing.T, what, token string, want outcome) {
	t.Helper()
	if err := differ(want, g.order(t, token)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// await sends a token until it gets the outcome.
func (g *gateway) await(t *testing.T, what, token string, want outcome) {
	t.Helper()
	eventually(t, func() error {
		if err := differ(want, g.order(t, token)); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

// A front is an address of a stand-in that can go away and come back, which the stand-in's own cannot: it has other keys
// whenever it is started.
type front struct {
	address string
	handler http.Handler
	server  *http.Server
	ended   chan struct{}
}

// newFront starts a stand-in whose pool is behind a front. The front is away.
func newFront(t *testing.T) (*front, *cognitotest.Pool) {
	t.Helper()
	ports, err := lab.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{address: lab.Loopback(ports[0])}
	cfg := poolConfig(mainPool)
	cfg.Issuer = "http://" + f.address + "/" + mainPool
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cfg}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	behind, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	f.handler = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(behind) },
		Transport: &http.Transport{DisableKeepAlives: true},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	t.Cleanup(f.down)
	return f, s.Pool(mainPool)
}

// up begins to listen.
func (f *front) up(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	server, ended := &http.Server{Handler: f.handler, ReadHeaderTimeout: clientTimeout}, make(chan struct{})
	f.server, f.ended = server, ended
	go func() {
		defer close(ended)
		_ = server.Serve(l) // until Close
	}()
}

// down closes the listener and all connections.
func (f *front) down() {
	if f.server == nil {
		return
	}
	_ = f.server.Close()
	<-f.ended
	f.server = nil
}

// A statusPage is what /status of the admin listener shows, by the names that operators read.
type statusPage struct {
	Version        string               `json:"version"`
	ConfigRevision string               `json:"config_revision"`
	PolicyRevision string               `json:"policy_revision"`
	Pools          map[string]poolState `json:"pools"`
	Files          []fileState          `json:"files"`
	TokenCache     *cacheState          `json:"token_cache"`
}

type poolState struct {
	Usable              bool      `json:"usable"`
	Keys                int       `json:"keys"`
	FetchedAt           time.Time `json:"fetched_at"`
	AgeSeconds          float64   `json:"age_seconds"`
	NextFetch           time.Time `json:"next_fetch"`
	UnknownKeyFetchFrom time.Time `json:"unknown_key_fetch_from"`
	Fetches             int       `json:"fetches"`
	Failures            int       `json:"failures"`
	LastError           string    `json:"last_error"`
}

type fileState struct {
	Name     string    `json:"name"`
	Path     string    `json:"path"`
	Revision string    `json:"revision"`
	LoadedAt time.Time `json:"loaded_at"`
	Loads    int       `json:"loads"`
	Failures int       `json:"failures"`
	Error    string    `json:"error"`
}

type cacheState struct {
	Verified int `json:"verified"`
	Bytes    int `json:"bytes"`
	Refused  int `json:"refused"`
	Hits     int `json:"hits"`
	Misses   int `json:"misses"`
}

// status returns /status.
func (x *service) status(t *testing.T) (page statusPage) {
	t.Helper()
	code, header, body := fetch(t, "http://"+x.admin+"/status")
	if code != 200 || header.Get("Content-Type") != "application/json" {
		t.Fatalf("/status is %d %s, want 200 and JSON", code, header.Get("Content-Type"))
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatalf("/status: %v in %s", err, body)
	}
	return page
}

// awaitFetchAllowed returns when an unknown kid may cause a fetch again.
func (x *service) awaitFetchAllowed(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if from := x.status(t).Pools["main"].UnknownKeyFetchFrom; !time.Now().After(from) {
			return fmt.Errorf("an unknown kid may cause a fetch from %s, want now", from)
		}
		return nil
	})
}

// awaitFile returns when the metrics and /status say that a file is in use as it is now, or that it is not, and returns
// what /status says of it.
func (x *service) awaitFile(t *testing.T, file string, current int64) (f fileState) {
	t.Helper()
	eventually(t, func() error {
		if got := x.metric(t, `extauthz_file_current{file="`+file+`"`); got != current {
			return fmt.Errorf("extauthz_file_current of %s is %d, want %d", file, got, current)
		}
		return nil
	})
	files := x.status(t).Files
	i := slices.IndexFunc(files, func(f fileState) bool { return f.Name == file })
	if i < 0 {
		t.Fatalf("/status has no %s among its files, %v", file, files)
	}
	if (files[i].Error == "") != (current == 1) {
		t.Errorf("/status has the error %q for %s, want that it fits extauthz_file_current %d", files[i].Error, file, current)
	}
	return files[i]
}

// logged returns how many lines of extauthz's log have a message and a value under a name.
func (x *service) logged(message, name, value string) (n int) {
	for line := range strings.Lines(x.Stderr()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message && entry[name] == value {
			n++
		}
	}
	return n
}

// traffic sends the tokens that each of the functions returns, each in a loop at a steady rate, until it is stopped. stop
// returns for each function what its requests came to.
func (g *gateway) traffic(t *testing.T, next ...func() string) (stop func() []map[outcome]int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var wg sync.WaitGroup
	got := make([]map[outcome]int, len(next))
	for i, token := range next {
		got[i] = make(map[outcome]int)
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				got[i][g.order(t, token())]++
				<-tick.C
			}
		})
	}
	return func() []map[outcome]int {
		cancel()
		wg.Wait()
		return got
	}
}

// connect connects to extauthz as Envoy does.
func connect(t *testing.T, x *service) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(lab.Loopback(x.grpcPort), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// checkRequest asks about a GET. Headers have lower-case names.
func checkRequest(path string, headers map[string]string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: path, Host: "api.example.com", Headers: headers},
	}}}
}

// A verdict is the short form of an answer to a check.
type verdict struct {
	Code       codes.Code
	Status     int // HTTP; 0 for an allow
	Reason     string
	RetryAfter bool
}

func verdictOf(resp *authv3.CheckResponse) verdict {
	v := verdict{Code: codes.Code(resp.GetStatus().GetCode()), Reason: resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue()}
	v.Status = int(resp.GetDeniedResponse().GetStatus().GetCode())
	for _, h := range resp.GetDeniedResponse().GetHeaders() {
		v.RetryAfter = v.RetryAfter || strings.EqualFold(h.GetHeader().GetKey(), "retry-after") && h.GetHeader().GetValue() != ""
	}
	return v
}

var (
	unknownKey  = verdict{Code: codes.Unauthenticated, Status: 401, Reason: "unknown_key"}
	unavailable = verdict{Code: codes.Unavailable, Status: 503, Reason: "keys_unavailable", RetryAfter: true}
)

// write puts a text into a file, in place.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a text into a file as editors do: another file takes its place.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
