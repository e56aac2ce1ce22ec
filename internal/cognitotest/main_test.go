package cognitotest_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time that the test pools issue tokens at.
var now = time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)

// start runs a server with the demo pool at a fixed time until the test ends.
func start(t *testing.T, edit ...func(*cognitotest.Config)) (*cognitotest.Server, *cognitotest.Pool) {
	t.Helper()
	pool := cognitotest.DemoPool()
	pool.Now = func() time.Time { return now }
	cfg := cognitotest.Config{Pools: []cognitotest.PoolConfig{pool}}
	for _, e := range edit {
		e(&cfg)
	}
	s, err := cognitotest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, s.Pools()[0]
}

// client keeps no connection, so that each test ends with none, and follows no redirect.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

type response struct {
	Status int
	Header http.Header
	Body   string
}

func do(t *testing.T, req *http.Request) response {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(body)}
}

func newRequest(t *testing.T, method, address, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func get(t *testing.T, address string) response {
	t.Helper()
	return do(t, newRequest(t, http.MethodGet, address, ""))
}

func postForm(t *testing.T, address string, form url.Values) response {
	t.Helper()
	req := newRequest(t, http.MethodPost, address, form.Encode())
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(t, req)
}
