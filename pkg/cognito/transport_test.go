package cognito

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// an api is what requests with tokens go to, without a network.
type api struct {
	answer func(req *http.Request) (*http.Response, error)

	mu   sync.Mutex
	seen []string // method, URL, and the token
	sent []*http.Request
}

func (a *api) RoundTrip(req *http.Request) (*http.Response, error) {
	line := req.Method + " " + req.URL.String()
	for _, value := range req.Header["Authorization"] {
		line += " " + value
	}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body.Close()
		line += " " + string(body)
	}
	a.mu.Lock()
	a.seen, a.sent = append(a.seen, line), append(a.sent, req)
	a.mu.Unlock()
	resp, err := a.answer(req)
	if resp != nil {
		resp.Request = req // as http.Transport does
	}
	return resp, err
}

func (a *api) want(t *testing.T, want ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if diff := cmp.Diff(want, a.seen); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	a.seen = nil
}

func ok(*http.Request) (*http.Response, error) { return reply(200, "text/plain", "ok") }

const challenged = `Bearer realm="orders", error="invalid_token", error_description="the token is not accepted"`

// unless answers 401 with a challenge to all tokens but one.
func unless(token, challenge string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("Authorization") == "Bearer "+token {
			return ok(req)
		}
		return reply(401, "text/plain", "no", "WWW-Authenticate", challenge)
	}
}

// redirect answers requests for a URL with a redirect, and others with ok.
func redirect(to map[string]string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		if location := to[req.URL.String()]; location != "" {
			return reply(307, "text/plain", "there", "Location", location)
		}
		return ok(req)
	}
}

func newRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// status sends the request and returns the status of the answer, 0 with an error.
func status(t *testing.T, rt http.RoundTripper, req *http.Request) int {
	t.Helper()
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("the body cannot be read: %v", err)
	}
	return resp.StatusCode
}

func TestTransportAddsTheToken(t *testing.T) {
	o, a := &origin{answer: grant}, &api{answer: ok}
	rt := newSource(t, originURL, o.use).Transport(a)
	for name, tc := range map[string]struct{ url, want string }{
		"https":             {"https://api.example.com/orders?x=1", "GET https://api.example.com/orders?x=1 Bearer token-1"},
		"loopback":          {"http://127.0.0.1:8080/", "GET http://127.0.0.1:8080/ Bearer token-1"},
		"localhost":         {"http://localhost/", "GET http://localhost/ Bearer token-1"},
		"a user in the URL": {"https://me:pw@api.example.com/", "GET https://me:pw@api.example.com/ Bearer token-1"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := status(t, rt, newRequest(t, "GET", tc.url, nil)); got != 200 {
				t.Errorf("status is %d, want 200", got)
			}
			a.want(t, tc.want)
		})
	}
}

func TestTransportLeavesTheRequestAlone(t *testing.T) {
	o, a := &origin{answer: grant}, &api{answer: ok}
	rt := newSource(t, originURL, o.use).Transport(a)
	req := newRequest(t, "GET", "https://api.example.com/", nil)
	req.Header = http.Header{"Authorization": {"Basic a", "Basic b"}, "authorization": {"Basic c"}, "X-Trace": {"1"}}
	before := req.Header.Clone()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if diff := cmp.Diff(before, req.Header); diff != "" {
		t.Errorf("header of the caller's request (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(http.Header{"Authorization": {"Bearer token-1"}, "X-Trace": {"1"}}, a.sent[0].Header); diff != "" {
		t.Errorf("header that was sent (-want +got):\n%s", diff)
	}
	a.sent[0].Header["X-Trace"][0] = "2"
	if req.Header.Get("X-Trace") != "1" {
		t.Error("the request that was sent shares its header with the caller's")
	}
	if resp.Request != req {
		t.Error("the answer's Request is not the caller's: it would show the token to who prints it")
	}
}

// A request that must not have the token is not sent, and its body is closed.
func TestTransportRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		url   string
		hosts []string
		want  string // empty: it is sent
	}{
		"plain HTTP":                      {"http://api.example.com/", nil, "cognito: token for http://api.example.com, want https, or http on a loopback address"},
		"plain HTTP, listed":              {"http://api.example.com/", []string{"api.example.com"}, "cognito: token for http://api.example.com, want https, or http on a loopback address"},
		"plain HTTP to an address":        {"http://10.0.0.1/", nil, "cognito: token for http://10.0.0.1, want https, or http on a loopback address"},
		"another scheme":                  {"ftp://127.0.0.1/", nil, "cognito: token for ftp://127.0.0.1, want https, or http on a loopback address"},
		"a listed host":                   {"https://api.example.com/", []string{"api.example.com"}, ""},
		"a listed host in capitals":       {"https://API.example.com/", []string{"Api.Example.com"}, ""},
		"a listed host with its own port": {"https://api.example.com:443/", []string{"api.example.com"}, ""},
		"the second host":                 {"https://b.example.com/", []string{"a.example.com", "b.example.com"}, ""},
		"a host that is not listed":       {"https://evil.example.com/", []string{"api.example.com"}, `cognito: token for host evil.example.com, want one of ["api.example.com"]`},
		"a host that ends like it":        {"https://evilapi.example.com/", []string{"api.example.com"}, `cognito: token for host evilapi.example.com, want one of ["api.example.com"]`},
		"a host that begins like it":      {"https://api.example.com.evil.org/", []string{"api.example.com"}, `cognito: token for host api.example.com.evil.org, want one of ["api.example.com"]`},
		"another port":                    {"https://api.example.com:8443/", []string{"api.example.com"}, `cognito: token for host api.example.com:8443, want one of ["api.example.com"]`},
		"a listed port":                   {"https://api.example.com:8443/", []string{"api.example.com:8443"}, ""},
		"a user that looks like it":       {"https://api.example.com:x@evil.example.com/", []string{"api.example.com"}, `cognito: token for host evil.example.com, want one of ["api.example.com"]`},
	} {
		t.Run(name, func(t *testing.T) {
			o, a := &origin{answer: grant}, &api{answer: ok}
			rt := newSource(t, originURL, o.use).Transport(a, tc.hosts...)
			body := &closing{Reader: strings.NewReader("x")}
			resp, err := rt.RoundTrip(newRequest(t, "POST", tc.url, body))
			if !body.closed {
				t.Error("the body is not closed")
			}
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				return
			}
			if err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			a.want(t)
		})
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

// An http.Client calls its transport for each hop of a redirect, so that a transport that always adds the token gives it to
// whatever host an answer names.
func TestTransportAndRedirects(t *testing.T) {
	const first = "https://api.example.com/a"
	for name, tc := range map[string]struct {
		hosts []string
		to    map[string]string
		want  []string
	}{
		"to the same host": {
			nil,
			map[string]string{first: "/b"},
			[]string{first + " Bearer token-1", "https://api.example.com/b Bearer token-1"},
		},
		"to the same host with its port": {
			nil,
			map[string]string{first: "https://API.example.com:443/b"},
			[]string{first + " Bearer token-1", "https://API.example.com:443/b Bearer token-1"},
		},
		"to another host": {
			nil,
			map[string]string{first: "https://evil.example.org/b"},
			[]string{first + " Bearer token-1", "https://evil.example.org/b"},
		},
		"to a subdomain, to which an http.Client itself would send it": {
			nil,
			map[string]string{first: "https://user-content.api.example.com/b"},
			[]string{first + " Bearer token-1", "https://user-content.api.example.com/b"},
		},
		"to another port": {
			nil,
			map[string]string{first: "https://api.example.com:8443/b"},
			[]string{first + " Bearer token-1", "https://api.example.com:8443/b"},
		},
		"to plain HTTP": {
			nil,
			map[string]string{first: "http://api.example.com/b"},
			[]string{first + " Bearer token-1", "http://api.example.com/b"},
		},
		"to a loopback address": {
			nil,
			map[string]string{first: "http://127.0.0.1:9192/metrics"},
			[]string{first + " Bearer token-1", "http://127.0.0.1:9192/metrics"},
		},
		"to plain HTTP at the same place": {
			nil,
			map[string]string{first: "/b", "https://api.example.com/b": "http://api.example.com:443/c"},
			[]string{first + " Bearer token-1", "https://api.example.com/b Bearer token-1", "http://api.example.com:443/c"},
		},
		"away and back": { // where to, a stranger has said
			nil,
			map[string]string{first: "https://evil.example.org/b", "https://evil.example.org/b": "https://api.example.com/delete"},
			[]string{first + " Bearer token-1", "https://evil.example.org/b", "https://api.example.com/delete"},
		},
		"away, after a hop": {
			nil,
			map[string]string{first: "/b", "https://api.example.com/b": "https://evil.example.org/c"},
			[]string{first + " Bearer token-1", "https://api.example.com/b Bearer token-1", "https://evil.example.org/c"},
		},
		"to a listed host": {
			[]string{"api.example.com", "files.example.com"},
			map[string]string{first: "https://files.example.com/b"},
			[]string{first + " Bearer token-1", "https://files.example.com/b Bearer token-1"},
		},
		"to one that is not listed": {
			[]string{"api.example.com", "files.example.com"},
			map[string]string{first: "https://evil.example.org/b"},
			[]string{first + " Bearer token-1", "https://evil.example.org/b"},
		},
		"to a listed host, by way of another": {
			[]string{"api.example.com", "files.example.com"},
			map[string]string{first: "https://evil.example.org/b", "https://evil.example.org/b": "https://files.example.com/c"},
			[]string{first + " Bearer token-1", "https://evil.example.org/b", "https://files.example.com/c"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range tc.want {
				tc.want[i] = "GET " + tc.want[i]
			}
			for layer, wrap := range map[string]func(http.RoundTripper) http.RoundTripper{
				"alone":               func(rt http.RoundTripper) http.RoundTripper { return rt },
				"within another":      func(rt http.RoundTripper) http.RoundTripper { return cloning{rt} },
				"within one and over": func(rt http.RoundTripper) http.RoundTripper { return cloning{cloning{rt}} },
			} {
				t.Run(layer, func(t *testing.T) {
					o, a := &origin{answer: grant}, &api{answer: redirect(tc.to)}
					base := http.RoundTripper(a)
					if layer == "within one and over" {
						base = cloning{a}
					}
					rt := wrap(newSource(t, originURL, o.use).Transport(base, tc.hosts...))
					if got := status(t, rt, newRequest(t, "GET", first, nil)); got != 200 {
						t.Errorf("status is %d, want 200", got)
					}
					a.want(t, tc.want...)
				})
			}
		})
	}
}

// cloning is a transport that sends a copy of each request, as those for tracing do.
type cloning struct{ http.RoundTripper }

func (c cloning) RoundTrip(req *http.Request) (*http.Response, error) {
	return c.RoundTripper.RoundTrip(req.Clone(req.Context()))
}

// A hop whose way here is not known has no token.
func TestTransportAndAWayThatIsNotKnown(t *testing.T) {
	o, a := &origin{answer: grant}, &api{answer: ok}
	rt := newSource(t, originURL, o.use).Transport(a)
	loop := newRequest(t, "GET", "https://api.example.com/", nil)
	loop.Response = &http.Response{Request: loop}
	unknown := newRequest(t, "GET", "https://api.example.com/", nil)
	unknown.Response = &http.Response{}
	nowhere := newRequest(t, "GET", "https://api.example.com/", nil)
	nowhere.Response = &http.Response{Request: &http.Request{}}
	for _, req := range []*http.Request{loop, unknown, nowhere} {
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		a.want(t, "GET https://api.example.com/")
	}
}

// On a loopback address plain HTTP is allowed, but not in the place of HTTPS.
func TestTransportAndARedirectFromHTTPS(t *testing.T) {
	o, a := &origin{answer: grant}, &api{answer: redirect(map[string]string{"https://127.0.0.1:8443/a": "http://127.0.0.1:8443/b"})}
	if got := status(t, newSource(t, originURL, o.use).Transport(a), newRequest(t, "GET", "https://127.0.0.1:8443/a", nil)); got != 200 {
		t.Errorf("status is %d, want 200", got)
	}
	a.want(t, "GET https://127.0.0.1:8443/a Bearer token-1", "GET http://127.0.0.1:8443/b")
}

func TestErrorOfTheBase(t *testing.T) {
	o := &origin{answer: grant}
	a := &api{answer: func(*http.Request) (*http.Response, error) { return nil, errNetwork }}
	resp, err := newSource(t, originURL, o.use).Transport(a).RoundTrip(newRequest(t, "GET", "https://api.example.com/", nil))
	if resp != nil || err != errNetwork { //nolint:errorlint // as it is
		t.Errorf("got %v, %v, want the error as it is", resp, err)
	}
}

type closer struct {
	http.RoundTripper
	closed bool
}

func (c *closer) CloseIdleConnections() { c.closed = true }

func TestIdleConnections(t *testing.T) {
	s := newSource(t, originURL)
	base := new(closer)
	(&http.Client{Transport: s.Transport(base)}).CloseIdleConnections()
	if !base.closed {
		t.Error("the base was not told, want it to close its connections")
	}
	(&http.Client{Transport: s.Transport(new(api))}).CloseIdleConnections() // which has none
}

// While a request was under way, its token was replaced. The new one costs nothing, whenever the last was bought.
func TestTokenThatWasReplacedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, a := &origin{answer: grant}, new(api)
		s := newSource(t, originURL, o.use)
		wantToken(t, s, "token-1")
		a.answer = func(req *http.Request) (*http.Response, error) {
			if o.count() == 1 {
				if _, err := s.Renew(req.Context()); err != nil {
					t.Error(err)
				}
			}
			return unless("token-2", challenged)(req)
		}
		time.Sleep(time.Second)
		if got := status(t, s.Transport(a), newRequest(t, "GET", "https://api.example.com/", nil)); got != 200 {
			t.Errorf("status is %d, want 200", got)
		}
		if o.count() != 2 {
			t.Errorf("%d tokens, want 2", o.count())
		}
	})
}

// The least time between tokens that are bought because one was refused.
func TestMayForce(t *testing.T) {
	start := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	type ask struct {
		at    time.Duration // after start
		token string        // the first letter says which is refused
		want  bool
	}
	for name, asks := range map[string][]ask{
		"once":                       {{0, "a", true}},
		"the same token":             {{0, "a", true}, {time.Second, "a", true}, {time.Hour, "a", true}},
		"too soon":                   {{0, "a", true}, {time.Minute - 1, "b", false}, {time.Minute, "b", true}},
		"ever less":                  {{0, "a", true}, {time.Minute, "b", true}, {3*time.Minute - 1, "c", false}, {3 * time.Minute, "c", true}, {7*time.Minute - 1, "d", false}, {7 * time.Minute, "d", true}},
		"a rest of twice as long":    {{0, "a", true}, {2 * time.Minute, "b", true}, {3 * time.Minute, "c", true}},
		"not quite twice":            {{0, "a", true}, {2*time.Minute - 1, "b", true}, {3 * time.Minute, "c", false}},
		"after the clock was set":    {{time.Hour, "a", true}, {0, "b", true}},
		"an hour at the most":        {{0, "a", true}, {1 * time.Minute, "b", true}, {3 * time.Minute, "c", true}, {7 * time.Minute, "d", true}, {15 * time.Minute, "e", true}, {31 * time.Minute, "f", true}, {63 * time.Minute, "g", true}, {123*time.Minute - 1, "h", false}, {123 * time.Minute, "h", true}, {183 * time.Minute, "i", true}},
		"at the same time, by clock": {{0, "a", true}, {0, "b", false}},
	} {
		s := new(TokenSource)
		for i, ask := range asks {
			refused := &Token{ObtainedAt: start.Add(-24*time.Hour + time.Duration(ask.token[0])*time.Second)}
			if got := s.mayForce(start.Add(ask.at), refused); got != ask.want {
				t.Errorf("%s: ask %d, at %v: got %v, want %v", name, i, ask.at, got, ask.want)
			}
		}
	}
}

func TestTransportWithoutAToken(t *testing.T) {
	o, a := &origin{answer: refuse(InvalidClient)}, &api{answer: ok}
	rt := newSource(t, originURL, o.use).Transport(a)
	body := &closing{Reader: strings.NewReader("x")}
	_, err := rt.RoundTrip(newRequest(t, "POST", "https://api.example.com/", body))
	if failure := wantFailure(t, err); failure.ErrorCode != InvalidClient || !body.closed {
		t.Errorf("got %v with the body closed: %v, want invalid_client, and closed", err, body.closed)
	}
	a.want(t)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = (&http.Client{Transport: rt}).Do(newRequest(t, "GET", "https://api.example.com/", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the request's context", err)
	}
}

// From a request that is sent again, one change each.
func TestRefusedTokenIsReplacedOnce(t *testing.T) {
	const get = "GET https://api.example.com/ Bearer "
	for name, tc := range map[string]struct {
		age    time.Duration
		answer func(*http.Request) (*http.Response, error)
		body   func() io.Reader
		edit   func(*http.Request)
		token  func(int, *http.Request) (*http.Response, error) // answers of the token endpoint from the second on
		status int
		want   []string
		bought int
	}{
		"as it should": {
			status: 200, want: []string{get + "token-1", get + "token-2"}, bought: 2,
		},
		"refused again": {
			answer: unless("none", challenged),
			status: 401, want: []string{get + "token-1", get + "token-2"}, bought: 2,
		},
		"a fresh one": {
			age:    time.Minute - time.Millisecond,
			status: 401, want: []string{get + "token-1"}, bought: 1,
		},
		"another error": {
			answer: unless("token-2", `Bearer error="insufficient_scope"`),
			status: 401, want: []string{get + "token-1"}, bought: 1,
		},
		"no challenge": {
			answer: unless("token-2", ``),
			status: 401, want: []string{get + "token-1"}, bought: 1,
		},
		"the challenge of another scheme": {
			answer: unless("token-2", `DPoP error="invalid_token"`),
			status: 401, want: []string{get + "token-1"}, bought: 1,
		},
		"several challenges": {
			answer: unless("token-2", `Basic realm="a, b", bearer ERROR=invalid_token`),
			status: 200, want: []string{get + "token-1", get + "token-2"}, bought: 2,
		},
		"403": {
			answer: func(*http.Request) (*http.Response, error) {
				return reply(403, "text/plain", "no", "WWW-Authenticate", challenged)
			},
			status: 403, want: []string{get + "token-1"}, bought: 1,
		},
		"with a body": {
			body:   func() io.Reader { return strings.NewReader("order") },
			status: 200, want: []string{get + "token-1 order", get + "token-2 order"}, bought: 2,
		},
		"with a body that cannot be read twice": {
			body:   func() io.Reader { return io.MultiReader(strings.NewReader("order")) },
			status: 401, want: []string{get + "token-1 order"}, bought: 1,
		},
		"with a body that is not to be had again": {
			body: func() io.Reader { return strings.NewReader("order") },
			edit: func(req *http.Request) {
				req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("the file has gone") }
			},
			status: 401, want: []string{get + "token-1 order"}, bought: 2,
		},
		"with no body said aloud": {
			edit:   func(req *http.Request) { req.Body = http.NoBody },
			status: 200, want: []string{get + "token-1 ", get + "token-2 "}, bought: 2,
		},
		"while there is no other": {
			token:  refuse(InvalidClient),
			status: 401, want: []string{get + "token-1"}, bought: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tc.answer == nil {
					tc.answer = unless("token-2", challenged)
				}
				if tc.age == 0 {
					tc.age = time.Minute
				}
				if tc.token == nil {
					tc.token = grant
				}
				o, a := &origin{answer: each(grant, tc.token)}, &api{answer: tc.answer}
				s := newSource(t, originURL, o.use)
				wantToken(t, s, "token-1")
				time.Sleep(tc.age)
				var body io.Reader
				if tc.body != nil {
					body = tc.body()
				}
				req := newRequest(t, "GET", "https://api.example.com/", body)
				if tc.edit != nil {
					tc.edit(req)
				}
				if got := status(t, s.Transport(a), req); got != tc.status {
					t.Errorf("status is %d, want %d", got, tc.status)
				}
				a.want(t, tc.want...)
				if o.count() != tc.bought {
					t.Errorf("%d token requests, want %d", o.count(), tc.bought)
				}
			})
		})
	}
}

// A token that is refused for its client or its audience must not buy a new one for every request.
func TestTokenThatIsAlwaysRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, a := &origin{answer: grant}, &api{answer: unless("none", challenged)}
		s := newSource(t, originURL, o.use)
		rt := s.Transport(a)
		begin := time.Now()
		var in [4]int // tokens bought in each quarter of an hour
		for range 3600 {
			if got := status(t, rt, newRequest(t, "GET", "https://api.example.com/", nil)); got != 401 {
				t.Fatalf("status is %d, want 401", got)
			}
			in[time.Since(begin)/(15*time.Minute)] = o.count()
			time.Sleep(time.Second)
		}
		// After 1, 2, 4, 8, 16 and 32 minutes, and one that the token's age brings.
		if n := o.count(); n > 8 || in[0] > 5 {
			t.Errorf("%d tokens in an hour, in the quarters %v, want some in the first and ever less", n, in)
		}
		for i := 1; i < o.count(); i++ {
			if pause := o.requests[i].at.Sub(o.requests[i-1].at); pause < time.Minute {
				t.Errorf("token %d was bought %v after the one before, want a minute at least", i+1, pause)
			}
		}

		// Once it has been well for a while, a refused token is replaced as at first.
		time.Sleep(3 * time.Hour)
		wantToken(t, s, fmt.Sprintf("token-%d", o.count()+1))
		time.Sleep(time.Minute)
		a.answer = unless(fmt.Sprintf("token-%d", o.count()+1), challenged)
		if got := status(t, rt, newRequest(t, "GET", "https://api.example.com/", nil)); got != 200 {
			t.Errorf("status is %d, want 200", got)
		}
	})
}

func TestAllWhoWereRefusedShareOneToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, a := &origin{answer: slowly(time.Second, grant)}, &api{answer: func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Duration(len(req.URL.Path)) * 100 * time.Millisecond) // so that they are refused one after the other
			return unless("token-2", challenged)(req)
		}}
		s := newSource(t, originURL, o.use)
		rt := s.Transport(a)
		wantToken(t, s, "token-1")
		time.Sleep(2 * time.Minute)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if got := status(t, rt, newRequest(t, "GET", "https://api.example.com/"+strings.Repeat("x", i), nil)); got != 200 {
					t.Errorf("status is %d, want 200", got)
				}
			})
		}
		all.Wait()
		if o.count() != 2 {
			t.Errorf("%d tokens, want 2", o.count())
		}
	})
}

// A renewal by hand counts as well.
func TestNoTokenIsForcedSoonAfterRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, a := &origin{answer: grant}, &api{answer: unless("none", challenged)}
		s := newSource(t, originURL, o.use)
		wantToken(t, s, "token-1")
		time.Sleep(10 * time.Minute)
		o.set(refuse(InvalidClient))
		if _, err := s.Renew(t.Context()); err == nil {
			t.Fatal("got a token, want an error")
		}
		o.set(grant)
		time.Sleep(30 * time.Second)
		_ = status(t, s.Transport(a), newRequest(t, "GET", "https://api.example.com/", nil))
		if o.count() != 2 {
			t.Errorf("%d token requests, want no other within a minute of one by hand", o.count()-2)
		}
	})
}

// With a real server: the connection of the refused request is used again, and the body of its answer is closed.
func TestRetryUsesTheConnectionAgain(t *testing.T) {
	pool := startPool(t)
	var mu sync.Mutex
	var from []string
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		from, bodies = append(from, r.RemoteAddr), append(bodies, string(body))
		n := len(from)
		mu.Unlock()
		if n == 1 {
			w.Header().Set("WWW-Authenticate", challenged)
			w.WriteHeader(401)
			_, _ = w.Write(bytes.Repeat([]byte("no"), 5000))
			return
		}
		_, _ = io.WriteString(w, "ok")
	}))
	defer server.Close()

	now := time.Now()
	s := newSource(t, pool.TokenURL(), func(c *Config) { c.Now = func() time.Time { return now } })
	if _, err := s.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Minute)
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: s.Transport(base)}
	resp, err := client.Post(server.URL, "text/plain", strings.NewReader("order"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || string(text) != "ok" {
		t.Errorf("got %d %s, %v, want 200 ok", resp.StatusCode, text, err)
	}
	if len(from) != 2 || from[0] != from[1] || bodies[0] != "order" || bodies[1] != "order" {
		t.Errorf("requests came from %v with %q, want two of one connection with the same body", from, bodies)
	}
	if n := pool.Requests(cognitotest.Token); n != 2 {
		t.Errorf("%d token requests, want 2", n)
	}
	client.CloseIdleConnections() // reaches base, or the leak check finds its connection
}

func TestTransportWithoutBase(t *testing.T) {
	pool := startPool(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	defer server.Close()
	rt := newSource(t, pool.TokenURL()).Transport(nil)
	client := &http.Client{Transport: rt}
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(text), "Bearer ey") {
		t.Errorf("the server saw %q, want a bearer token", text)
	}
}
