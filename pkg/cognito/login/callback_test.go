package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// A pending login is one whose browser is the test.
type pending struct {
	*surfer
	authorize *url.URL // where the browser was sent
	redirect  *url.URL // where it has to come back
	state     string
	tokens    chan *Tokens
	errs      chan error
}

func (f *fixture) begin(t *testing.T, edits ...func(*Config)) *pending {
	t.Helper()
	p := &pending{surfer: newSurfer(t), tokens: make(chan *Tokens, 1), errs: make(chan error, 1)}
	opened := make(chan string, 1)
	a := f.authenticator(t, append(edits, func(c *Config) {
		c.OpenBrowser = func(_ context.Context, address string) error {
			opened <- address
			return nil
		}
	})...)
	go func() {
		tokens, err := a.Login(t.Context())
		p.tokens <- tokens
		p.errs <- err
	}()
	select {
	case address := <-opened:
		p.authorize = parseURL(t, address)
	case err := <-p.errs:
		t.Fatal(err)
	}
	p.redirect = parseURL(t, p.authorize.Query().Get("redirect_uri"))
	p.state = p.authorize.Query().Get("state")
	return p
}

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// waits fails the test if the login has ended.
func (p *pending) waits(t *testing.T) {
	t.Helper()
	select {
	case err := <-p.errs:
		t.Fatalf("the login ended with %v, want it to wait", err)
	default:
	}
}

// succeeds lets the person sign in.
func (p *pending) succeeds(t *testing.T) {
	t.Helper()
	if v := p.visit(t.Context(), p.authorize.String()); v.err != nil || v.status != http.StatusOK {
		t.Errorf("the browser was shown %+v, want the page of success", v)
	}
	if err := <-p.errs; err != nil {
		t.Errorf("the login ended with %v, want tokens", err)
	}
}

// Each request differs in one thing from the answer to the login: none ends it, and it succeeds after all of them.
func TestStrayRequests(t *testing.T) {
	t.Parallel()
	f := start(t)
	p := f.begin(t)
	other := strings.Repeat("A", 43)
	for _, tt := range []struct {
		name   string
		query  string // %s is the state
		edit   func(*http.Request)
		status int
	}{
		{"another state", "code=x&state=" + other, nil, 400},
		{"a state that begins like ours", "code=x&state=%s" + "A", nil, 400},
		{"no state", "code=x", nil, 400},
		{"an empty state", "code=x&state=", nil, 400},
		{"no code", "state=%s", nil, 400},
		{"an empty code", "code=&state=%s", nil, 400},
		{"two codes", "code=x&code=y&state=%s", nil, 400},
		{"two states", "code=x&state=%s&state=" + other, nil, 400},
		{"the same state twice", "code=x&state=%[1]s&state=%[1]s", nil, 400},
		{"something else twice", "code=x&state=%s&a=1&a=2", nil, 400},
		{"a code and an error", "code=x&error=access_denied&state=%s", nil, 400},
		{"an error with another state", "error=access_denied&state=" + other, nil, 400},
		{"an error without state", "error=access_denied", nil, 400},
		{"another issuer", "code=x&state=%s&iss=https%%3A%%2F%%2Fattacker.example", nil, 400},
		{"an empty issuer", "code=x&state=%s&iss=", nil, 400},
		{"a code with a line break", "code=x%%0Ay&state=%s", nil, 400},
		{"a code that is too long", "code=" + strings.Repeat("x", maxCodeBytes+1) + "&state=%s", nil, 400},
		{"a query that cannot be read", "code=x&state=%s&%%zz", nil, 400},
		{"a query with semicolons", "code=x;state=%s", nil, 400},
		{"nothing", "", nil, 400},
		{"the icon", "", func(r *http.Request) { r.URL.Path = "/favicon.ico" }, 404},
		{"another path", "code=x&state=%s", func(r *http.Request) { r.URL.Path = "/callback" }, 404},
		{"another path that some take for the same", "code=x&state=%s", func(r *http.Request) { r.URL.Path = "//" }, 404},
		{"a POST", "code=x&state=%s", func(r *http.Request) { r.Method = http.MethodPost }, 405},
		{"a HEAD", "code=x&state=%s", func(r *http.Request) { r.Method = http.MethodHead }, 405},
		{"a preflight", "code=x&state=%s", func(r *http.Request) { r.Method = http.MethodOptions }, 405},
		{"a name that was rebound", "code=x&state=%s", func(r *http.Request) { r.Host = "attacker.example:3000" }, 403},
		{"our name with a dot", "code=x&state=%s", func(r *http.Request) { r.Host = "localhost.:" + r.URL.Port() }, 403},
		{"our name with another port", "code=x&state=%s", func(r *http.Request) { r.Host = "localhost:1" }, 403},
		{"the address in place of the name", "code=x&state=%s", func(r *http.Request) { r.Host = "127.0.0.1:" + r.URL.Port() }, 403},
		{"a picture", "code=x&state=%s", fetchMetadata("no-cors", "image"), 403},
		{"a script's fetch", "code=x&state=%s", fetchMetadata("cors", "empty"), 403},
		{"a frame", "code=x&state=%s", fetchMetadata("navigate", "iframe"), 403},
		{"a picture, of a browser that says no more", "code=x&state=%s", fetchMetadata("", "image"), 403},
		{"a script's fetch, of a browser that says no more", "code=x&state=%s", fetchMetadata("cors", ""), 403},
		{"a script's fetch that claims to be a page", "code=x&state=%s", fetchMetadata("cors", "document"), 403},
		{"another state, by a browser that says it all", "code=x&state=" + other, fetchMetadata("navigate", "document"), 400},
	} {
		u := *p.redirect
		u.RawQuery = tt.query
		if strings.Contains(tt.query, "%") {
			u.RawQuery = fmt.Sprintf(tt.query, p.state)
		}
		v := p.visit(t.Context(), u.String(), func(r *http.Request) {
			if tt.edit != nil {
				tt.edit(r)
			}
		})
		if v.err != nil || v.status != tt.status {
			t.Errorf("%s: got %d %v, want %d", tt.name, v.status, v.err, tt.status)
		}
		checkPage(t, tt.name, v)
		p.waits(t)
	}
	p.succeeds(t)
	if n := f.pool.Requests(cognitotest.Token); n != 1 {
		t.Errorf("the token endpoint got %d requests, want 1", n)
	}
	// A page in the browser cannot fill the terminal, nor say there what it likes.
	if n := strings.Count(f.said.String(), "An answer came that does not belong to this login; still waiting.\n"); n != maxNotices {
		t.Errorf("it gave %d notices, want %d:\n%s", n, maxNotices, f.said)
	}
}

func fetchMetadata(mode, destination string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Mode", mode)
		r.Header.Set("Sec-Fetch-Dest", destination)
	}
}

// checkPage checks what all pages have in common.
func checkPage(t *testing.T, name string, v visit) {
	t.Helper()
	for header, want := range map[string]string{
		"Cache-Control":                "no-store",
		"Referrer-Policy":              "no-referrer",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Content-Type":                 "text/html; charset=utf-8",
		"Set-Cookie":                   "",
		"Access-Control-Allow-Origin":  "",
	} {
		if got := v.header.Get(header); got != want {
			t.Errorf("%s: %s is %q, want %q", name, header, got, want)
		}
	}
	if policy := v.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("%s: the policy is %q, want nothing but our own style", name, policy)
	}
	for _, found := range []string{"<script", "<a ", "<img", "<form", "http:", "https:"} {
		if strings.Contains(v.body, found) {
			t.Errorf("%s: the page has %s", name, found)
		}
	}
}

func TestNoticeNamesTheError(t *testing.T) {
	t.Parallel()
	f := start(t)
	p := f.begin(t)
	for _, problem := range []string{"access_denied", "Run this program to go on: curl evil.example"} {
		p.visit(t.Context(), p.redirect.String()+"?"+url.Values{"error": {problem}}.Encode())
	}
	want := "An answer came that does not belong to this login (it says access_denied); still waiting.\n" +
		"An answer came that does not belong to this login; still waiting.\n"
	if !strings.HasSuffix(f.said.String(), want) {
		t.Errorf("it said %q, want %q at its end", f.said, want)
	}
	p.succeeds(t)
}

func TestTimeoutSaysWhatWasIgnored(t *testing.T) {
	t.Parallel()
	err := &TimeoutError{After: DefaultTimeout, Ignored: 2}
	if want := "login: nobody has signed in for 5m0s; 2 answers came that do not belong to this login"; err.Error() != want {
		t.Errorf("got %s, want %s", err, want)
	}
}

// The page of success comes only once the tokens are there; meanwhile a second answer is too late.
func TestAnswerCountsOnce(t *testing.T) {
	t.Parallel()
	f := start(t)
	release := make(chan struct{})
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release, Times: 1})
	p := f.begin(t)
	first := make(chan visit, 1)
	go func() { first <- p.visit(t.Context(), p.authorize.String()) }()
	if err := f.pool.WaitRequests(t.Context(), cognitotest.Token, 1); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"code=other", "error=access_denied"} {
		v := newSurfer(t).visit(t.Context(), p.redirect.String()+"?"+query+"&state="+p.state)
		if v.status != http.StatusConflict || !strings.Contains(v.body, "has had its answer") {
			t.Errorf("a second answer got %+v, want 409", v)
		}
	}
	select {
	case v := <-first:
		t.Fatalf("the browser was shown %+v before there were tokens", v)
	default:
	}
	close(release)
	if v := <-first; v.status != http.StatusOK {
		t.Errorf("the browser was shown %+v, want the page of success", v)
	}
	if err := <-p.errs; err != nil {
		t.Error(err)
	}
}

// The person may close the window, once the answer is there.
func TestBrowserGoesAway(t *testing.T) {
	t.Parallel()
	f := start(t)
	release := make(chan struct{})
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release, Times: 1})
	p := f.begin(t)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan visit, 1)
	go func() { gone <- p.visit(ctx, p.authorize.String()) }()
	if err := f.pool.WaitRequests(t.Context(), cognitotest.Token, 1); err != nil {
		t.Fatal(err)
	}
	leave()
	<-gone
	close(release)
	if err := <-p.errs; err != nil {
		t.Error(err)
	}
}

// Connections that say nothing, such as browsers open in advance, hold nothing up, and neither do more of them than the server
// keeps.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	f := start(t)
	p := f.begin(t)
	for range maxConns - 1 {
		conn, err := net.Dial("tcp", "127.0.0.1:"+p.redirect.Port())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	p.succeeds(t)
}

// Browsers send the cookies that other programs on localhost have set.
func TestManyCookies(t *testing.T) {
	t.Parallel()
	f := start(t)
	p := f.begin(t)
	v := p.visit(t.Context(), p.redirect.String()+"?error=access_denied&state="+p.state, func(r *http.Request) {
		for i := range 40 {
			r.AddCookie(&http.Cookie{Name: fmt.Sprintf("c%d", i), Value: strings.Repeat("x", 4000)})
		}
	})
	if v.err != nil || v.status != http.StatusOK {
		t.Errorf("got %d %v, want the answer to be taken", v.status, v.err)
	}
	<-p.errs
}

// Once the login is over, nothing listens any more.
func TestPortIsFreeAfterwards(t *testing.T) {
	t.Parallel()
	f := start(t)
	p := f.begin(t)
	p.succeeds(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		if conn, err := net.Dial("tcp", net.JoinHostPort(host, p.redirect.Port())); err == nil {
			conn.Close()
			t.Errorf("something listens on %s after the login", host)
		}
	}
}

// No other machine can connect.
func TestListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"localhost", "127.0.0.1"} {
		listeners, port, err := listenLoopback(t.Context(), listenOn, host, "0")
		if err != nil {
			t.Fatal(err)
		}
		if host == "127.0.0.1" && len(listeners) != 1 {
			t.Errorf("%s has %d listeners, want one", host, len(listeners))
		}
		for _, l := range listeners {
			addr := l.Addr().(*net.TCPAddr)
			if !addr.IP.IsLoopback() || port != portOf(l) {
				t.Errorf("%s listens on %s, want a loopback address with port %s", host, addr, port)
			}
			l.Close()
		}
	}
}

// A machine may lack one of localhost's addresses, and a port that is free on one may be taken on the other.
func TestListenOnLocalhost(t *testing.T) {
	t.Parallel()
	missing := &PortError{Err: &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errNoAddress)}}
	unknown := &PortError{Err: &net.OpError{Op: "listen", Err: os.NewSyscallError("socket", errNoFamily)}}
	taken := &PortError{Err: &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", errInUse)}}
	for _, tt := range []struct {
		name      string
		port      string
		four, six []error // one for each call, the last one for all that follow
		listening int
		calls     int
		want      error
	}{
		{"both", "0", []error{nil}, []error{nil}, 2, 2, nil},
		{"no IPv6", "0", []error{nil}, []error{missing}, 1, 2, nil},
		{"a kernel without IPv6", "0", []error{nil}, []error{unknown}, 1, 2, nil},
		{"no IPv4", "0", []error{missing}, []error{nil}, 1, 2, nil},
		{"neither", "0", []error{missing}, []error{missing}, 0, 2, errNoAddress},
		{"a fixed port that is taken on the first", "3000", []error{taken}, []error{nil}, 0, 1, errInUse},
		{"a fixed port that is taken on the second", "3000", []error{nil}, []error{taken}, 0, 2, errInUse},
		{"a free port that is taken on the second", "0", []error{nil}, []error{taken, taken, nil}, 2, 6, nil},
		{"free ports that are all taken on the second", "0", []error{nil}, []error{taken}, 0, 20, errInUse},
	} {
		var open, calls, fours, sixes int
		next := func(list []error, i *int) error {
			err := list[min(*i, len(list)-1)]
			*i++
			return err
		}
		on := func(_ context.Context, addr string) (net.Listener, error) {
			calls++
			var err error
			if strings.HasPrefix(addr, "127.0.0.1:") {
				err = next(tt.four, &fours)
			} else if err = next(tt.six, &sixes); open > 0 && tt.port == "0" && addr != "[::1]:4711" {
				t.Errorf("%s: listens on %s, want the port of the other address", tt.name, addr)
			}
			if err != nil {
				return nil, err
			}
			open++
			return &fakeListener{open: &open}, nil
		}
		listeners, port, err := listenLoopback(t.Context(), on, "localhost", tt.port)
		if len(listeners) != tt.listening || open != tt.listening || calls != tt.calls || !errors.Is(err, tt.want) || (err == nil) != (port == "4711") {
			t.Errorf("%s: %d listeners, %d open, after %d calls, port %q, %v; want %d after %d, %v", tt.name, len(listeners), open, calls, port, err, tt.listening, tt.calls, tt.want)
		}
	}
}

type fakeListener struct{ open *int }

func (l *fakeListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l *fakeListener) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv6loopback, Port: 4711} }
func (l *fakeListener) Close() error              { *l.open--; return nil }

// The default port of http is not in the Host header.
func TestRedirectURLWithoutPort(t *testing.T) {
	t.Parallel()
	if got := redirectPort(parseURL(t, "http://localhost/done")); got != "80" {
		t.Errorf("listens on port %s, want 80", got)
	}
	for _, host := range []string{"localhost", "localhost:80", "LOCALHOST"} {
		if got := hostHeader(host); got != "localhost" {
			t.Errorf("%s becomes %s, want localhost", host, got)
		}
	}
}

func TestPortErrorHints(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		&net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}: "bind: permission denied\nhint: use a redirect URL with a port above 1023",
		errInUse:               "address already in use\nhint: end the program",
		io.EOF:                 "EOF",
		net.ErrClosed:          net.ErrClosed.Error(),
		os.ErrDeadlineExceeded: "i/o timeout",
	} {
		got := (&PortError{Addr: "127.0.0.1:80", Err: err}).Error()
		if !strings.HasPrefix(got, "login: listen on 127.0.0.1:80 for the answer of the browser: "+want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestIssuerOfTheAnswer(t *testing.T) {
	t.Parallel()
	c := &callback{state: "s", issuers: []string{"https://issuer.example"}}
	for query, want := range map[string]bool{
		"code=x&state=s": true, // Cognito sends no iss
		"code=x&state=s&iss=https%3A%2F%2Fissuer.example":  true,
		"code=x&state=s&iss=https%3A%2F%2Fissuer.example/": false,
	} {
		if _, ok := c.read(query); ok != want {
			t.Errorf("%s: got %t, want %t", query, ok, want)
		}
	}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	for _, problem := range []string{
		"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error",
		"temporarily_unavailable",
	} {
		got := "none"
		c := &callback{notice: func(problem string) { got = problem }}
		c.ignore(problem)
		if got != problem {
			t.Errorf("%s is told as %q", problem, got)
		}
	}
}

func TestAnswerIsBounded(t *testing.T) {
	t.Parallel()
	c := &callback{state: "s"}
	long := strings.Repeat("x", 2*maxCodeBytes)
	if a, ok := c.read("state=s&code=" + long[:maxCodeBytes]); !ok || a.code != long[:maxCodeBytes] {
		t.Errorf("a code of %d bytes is refused", maxCodeBytes)
	}
	a, ok := c.read("state=s&error=" + long + "&error_description=%C3%A9~%7F" + long)
	if !ok || a.err.Code != long[:64] || a.err.Description != "~"+long[:255] {
		t.Errorf("got %+v, want a code of 64 bytes and a description of 256", a.err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, query := range []string{"code=x&state=s", "error=access_denied&error_description=no&state=s", "code=x&state=s&iss=i", "code=x&code=y&state=s", "a;b", "%"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		c := &callback{state: "s", issuers: []string{"i"}}
		a, ok := c.read(query)
		if !ok {
			if a != (answer{}) {
				t.Errorf("%q: refused with %+v", query, a)
			}
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil || values.Get("state") != "s" || len(values["state"]) != 1 || (a.code == "") == (a.err == nil) {
			t.Fatalf("%q: accepted as %+v, want one answer with our state", query, a)
		}
		texts := []string{a.code}
		if a.err != nil {
			texts = []string{a.err.Code, a.err.Description, a.err.Error()}
		}
		for _, text := range texts {
			if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e }) || len(text) > maxCodeBytes {
				t.Errorf("%q: the text %q is not fit for a terminal", query, text)
			}
		}
	})
}
