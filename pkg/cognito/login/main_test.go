package login

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(runChild(path))
	}
	goleak.VerifyTestMain(m)
}

// A clock is one that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// A fixture is a stand-in for Cognito, in which jane signs in at once, and an app client of it.
type fixture struct {
	clock  *clock
	pool   *cognitotest.Pool
	client *cognitotest.Client // as it was at the start
	cfg    Config
	said   *output
	visits chan visit // what the browser was shown
}

const testSecret = "demo_only_secret_of_people"

// start starts a stand-in whose client is edited, and has a Config for it that opens a browser.
func start(t *testing.T, edits ...func(*cognitotest.PoolConfig, *cognitotest.Client)) *fixture {
	t.Helper()
	f := &fixture{clock: newClock(), said: new(output), visits: make(chan visit, 16)}
	pool := cognitotest.DemoPool()
	pool.Now = f.clock.now
	pool.SignInAs = "jane"
	f.client = &pool.Clients[2]
	f.client.RedirectURLs = []string{"http://localhost:0", "http://127.0.0.1:0/done", "http://[::1]:0/"}
	f.client.LogoutURLs = []string{"https://www.example.com/"}
	for _, edit := range edits {
		edit(&pool, f.client)
	}
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{pool}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	f.pool = s.Pools()[0]
	b := newSurfer(t)
	f.cfg = Config{
		AuthorizeURL: f.pool.AuthorizeURL(),
		TokenURL:     f.pool.TokenURL(),
		RevokeURL:    f.pool.RevokeURL(),
		LogoutURL:    f.pool.LogoutURL(),
		ClientID:     f.client.ID,
		RedirectURL:  "http://localhost:0",
		Scopes:       []string{"email", "orders/read"},
		Issuers:      []string{f.pool.Issuer()},
		Output:       f.said,
		Now:          f.clock.now,
		OpenBrowser: func(ctx context.Context, address string) error {
			f.visits <- b.visit(ctx, address)
			return nil
		},
	}
	return f
}

// authenticator returns one with the fixture's settings, edited.
func (f *fixture) authenticator(t *testing.T, edits ...func(*Config)) *Authenticator {
	t.Helper()
	cfg := f.cfg
	for _, edit := range edits {
		edit(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// login signs in, which must succeed.
func (f *fixture) login(t *testing.T, a *Authenticator) *Tokens {
	t.Helper()
	tokens, err := a.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if v := <-f.visits; v.status != http.StatusOK {
		t.Fatalf("the browser was shown status %d, want 200: %s", v.status, v.body)
	}
	return tokens
}

// A visit is what a browser was shown at the end of all redirects.
type visit struct {
	err    error
	url    *url.URL
	status int
	header http.Header
	body   string
}

// A surfer follows redirects, as a browser does.
type surfer struct{ client *http.Client }

func newSurfer(t *testing.T) *surfer {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &surfer{&http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (b *surfer) visit(ctx context.Context, address string, edits ...func(*http.Request)) visit {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return visit{err: err}
	}
	for _, edit := range edits {
		edit(req)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return visit{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return visit{err, resp.Request.URL, resp.StatusCode, resp.Header, string(body)}
}

// An output collects what is written, by several goroutines at once.
type output struct {
	mu      sync.Mutex
	b       strings.Builder
	written chan struct{} // closed and replaced when something is
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.written != nil {
		close(o.written)
		o.written = nil
	}
	return o.b.Write(p)
}

// wait returns once the text has been written.
func (o *output) wait(ctx context.Context, text string) {
	for {
		o.mu.Lock()
		found := strings.Contains(o.b.String(), text)
		if o.written == nil {
			o.written = make(chan struct{})
		}
		written := o.written
		o.mu.Unlock()
		if found {
			return
		}
		select {
		case <-written:
		case <-ctx.Done():
			return
		}
	}
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
