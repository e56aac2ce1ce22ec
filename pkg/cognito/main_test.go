package cognito

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clientID = cognitotest.DemoClientID
	secret   = cognitotest.DemoClientSecret
)

// startPool runs a stand-in for Cognito until the test ends.
func startPool(t testing.TB, edit ...func(*cognitotest.Config)) *cognitotest.Pool {
	t.Helper()
	cfg := cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := cognitotest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Pools()[0]
}

// newSource returns a source for the demo client of a token endpoint, which does not repeat requests for long.
func newSource(t testing.TB, tokenURL string, edit ...func(*Config)) *TokenSource {
	t.Helper()
	cfg := Config{
		TokenURL: tokenURL,
		ClientID: clientID,
		Secret:   StaticSecret(secret),
		Scopes:   []string{"orders/read"},
		Retry:    Retry{MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond},
	}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := NewTokenSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// an origin is a token endpoint without a network, for tests in a bubble of package synctest.
type origin struct {
	mu       sync.Mutex
	answer   func(n int, req *http.Request) (*http.Response, error) // to the n-th request, from 1
	requests []received
}

type received struct {
	at            time.Time
	form          url.Values
	authorization string
}

const originURL = "https://auth.example.com/oauth2/token"

func (o *origin) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	req.Body.Close()
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	o.requests = append(o.requests, received{time.Now(), form, req.Header.Get("Authorization")})
	answer, n := o.answer, len(o.requests)
	o.mu.Unlock()
	return answer(n, req)
}

func (o *origin) set(answer func(n int, req *http.Request) (*http.Response, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.requests)
}

// pauses returns the time from each request to the next.
func (o *origin) pauses() (all []time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := 1; i < len(o.requests); i++ {
		all = append(all, o.requests[i].at.Sub(o.requests[i-1].at))
	}
	return all
}

// use makes a source ask the origin, with the pauses of the default.
func (o *origin) use(c *Config) {
	c.HTTPClient = &http.Client{Transport: o}
	c.Retry = Retry{}
}

func reply(status int, contentType, body string, header ...string) (*http.Response, error) {
	h := http.Header{"Content-Type": {contentType}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		Status:     fmt.Sprintf("%d %s", status, http.StatusText(status)),
		StatusCode: status,
		Header:     h,
		Body:       io.NopCloser(strings.NewReader(body)),
	}, nil
}

func replyJSON(status int, body string, header ...string) (*http.Response, error) {
	return reply(status, "application/json;charset=UTF-8", body, header...)
}

// grant answers with a token named after the number of the request.
func grant(n int, _ *http.Request) (*http.Response, error) {
	return replyJSON(200, fmt.Sprintf(`{"access_token":"token-%d","expires_in":3600,"token_type":"Bearer"}`, n))
}

func refuse(code string) func(int, *http.Request) (*http.Response, error) {
	return func(int, *http.Request) (*http.Response, error) { return replyJSON(400, `{"error":"`+code+`"}`) }
}

func fail(status int, header ...string) func(int, *http.Request) (*http.Response, error) {
	return func(int, *http.Request) (*http.Response, error) {
		return replyJSON(status, `{"message":"no"}`, header...)
	}
}

var errNetwork = errors.New("connection reset")

func unreachable(int, *http.Request) (*http.Response, error) { return nil, errNetwork }

// hang answers when the request's context ends.
func hang(_ int, req *http.Request) (*http.Response, error) {
	<-req.Context().Done()
	return nil, req.Context().Err()
}

// slowly answers after a while.
func slowly(d time.Duration, answer func(int, *http.Request) (*http.Response, error)) func(int, *http.Request) (*http.Response, error) {
	return func(n int, req *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return answer(n, req)
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
}

// each answers the n-th request with the n-th answer, and those after with the last.
func each(answers ...func(int, *http.Request) (*http.Response, error)) func(int, *http.Request) (*http.Response, error) {
	return func(n int, req *http.Request) (*http.Response, error) {
		return answers[min(n, len(answers))-1](n, req)
	}
}

// wantToken fails the test unless the source yields the token.
func wantToken(t *testing.T, s *TokenSource, want string) {
	t.Helper()
	got, err := s.Token(t.Context())
	if err != nil {
		t.Errorf("got %v, want %s", err, want)
	} else if got.AccessToken() != want {
		t.Errorf("got %s, want %s", got.AccessToken(), want)
	}
}

// wantFailure fails the test unless err is a TokenRequestError, and returns it.
func wantFailure(t *testing.T, err error) *TokenRequestError {
	t.Helper()
	var failure *TokenRequestError
	if !errors.As(err, &failure) {
		t.Fatalf("got %T %v, want a *TokenRequestError", err, err)
	}
	return failure
}

// sharedCache is a Cache of one process.
type sharedCache struct {
	mu     sync.Mutex
	tokens map[string]*Token
	keys   []string
}

func (c *sharedCache) Token(ctx context.Context, key string, good func(*Token) bool, fetch func(context.Context) (*Token, error)) (*Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys = append(c.keys, key)
	if t := c.tokens[key]; t != nil && good(t) {
		return t, nil
	}
	t, err := fetch(ctx)
	if err != nil {
		return nil, err
	}
	if c.tokens == nil {
		c.tokens = make(map[string]*Token)
	}
	c.tokens[key] = t
	return t, nil
}
