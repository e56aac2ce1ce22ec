package cognitotest_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func TestFaultAnswers(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	truth := string(pool.JWKS())
	tests := []struct {
		name        string
		fault       cognitotest.Fault
		status      int
		contentType string
		body        string
	}{
		{"status", cognitotest.Fault{Status: 503}, 503, "application/json", `{"message":"Service Unavailable"}`},
		{"status and body", cognitotest.Fault{Status: 429, Body: []byte("slow down"), Header: http.Header{"content-type": {"text/plain"}}}, 429, "text/plain", "slow down"},
		{"empty body", cognitotest.Fault{Body: []byte{}}, 200, "application/json", ""},
		{"empty key set", cognitotest.EmptyKeySet, 200, "application/json", `{"keys":[]}`},
		{"garbage", cognitotest.Garbage, 200, "text/html", "<html><body>Sign in to the guest network</body></html>"},
		{"redirect", cognitotest.Fault{Redirect: "http://127.0.0.1:1/"}, 302, "text/html; charset=utf-8", "<a href=\"http://127.0.0.1:1/\">Found</a>.\n\n"},
		{"only a delay", cognitotest.Fault{Delay: time.Millisecond}, 200, "application/json", truth},
		{"none", cognitotest.Fault{}, 200, "application/json", truth},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pool.Fail(cognitotest.JWKS, tt.fault)
			got := get(t, pool.JWKSURL())
			if got.Status != tt.status || got.Body != tt.body || got.Header.Get("Content-Type") != tt.contentType {
				t.Errorf("got %d %s %q\nwant %d %s %q", got.Status, got.Header.Get("Content-Type"), got.Body, tt.status, tt.contentType, tt.body)
			}
			pool.Heal(cognitotest.JWKS)
			if got := get(t, pool.JWKSURL()); got.Body != truth {
				t.Errorf("after Heal: %d %s", got.Status, got.Body)
			}
		})
	}
}

func TestFaultsThatBreakTheConnection(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	pool.Fail(cognitotest.JWKS, cognitotest.Fault{Drop: true})
	if res, err := client.Get(pool.JWKSURL()); err == nil {
		t.Errorf("Drop: status %d, want no answer", res.StatusCode)
	}

	pool.Fail(cognitotest.JWKS, cognitotest.Fault{Body: pool.JWKS(), Truncate: true})
	res, err := client.Get(pool.JWKSURL())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if want := len(pool.JWKS()) / 2; !errors.Is(err, io.ErrUnexpectedEOF) || len(body) != want {
		t.Errorf("Truncate: %d bytes, %v; want %d, %v", len(body), err, want, io.ErrUnexpectedEOF)
	}
}

func TestHugeBody(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	for _, size := range []int64{10, 1 << 20} {
		pool.Fail(cognitotest.JWKS, cognitotest.Fault{HugeBytes: size})
		const start = `{"keys":[{"kid":"AAA`
		if got := get(t, pool.JWKSURL()).Body; int64(len(got)) != size || got[:10] != start[:10] || strings.Count(got, "{") > 2 {
			t.Errorf("got %d bytes that start with %.20q, want %d", len(got), got, size)
		}
	}

	// An endless one ends when the client stops reading; the server's Close would hang if it did not.
	pool.Fail(cognitotest.JWKS, cognitotest.Fault{HugeBytes: math.MaxInt64})
	res, err := client.Get(pool.JWKSURL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, res.Body, 8<<20); err != nil {
		t.Error(err)
	}
	res.Body.Close()
}

func TestFaultIsOverAfterTimes(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	pool.Fail(cognitotest.JWKS, cognitotest.Fault{Status: 500, Times: 2})
	var got []int
	for range 4 {
		got = append(got, get(t, pool.JWKSURL()).Status)
	}
	if diff := cmp.Diff([]int{500, 500, 200, 200}, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
	if n := pool.Requests(cognitotest.JWKS); n != 4 {
		t.Errorf("counted %d requests, want 4", n)
	}
}

func TestFaultsOfOneEndpointLeaveTheOthersAlone(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 500})
	if got := granted().send(t, s); got.Status != 500 {
		t.Errorf("token endpoint: %d, want 500", got.Status)
	}
	if a, b := get(t, pool.JWKSURL()), get(t, pool.DiscoveryURL()); a.Status != 200 || b.Status != 200 {
		t.Errorf("keys %d, metadata %d; want 200, 200", a.Status, b.Status)
	}
}

// TestHeldRequests: requests wait without an answer until the test lets them go on.
func TestHeldRequests(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	release := make(chan struct{})
	pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release})

	const n = 5
	statuses := make(chan int, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { statuses <- granted().send(t, s).Status })
	}
	if err := pool.WaitRequests(t.Context(), cognitotest.Token, n); err != nil {
		t.Fatal(err)
	}
	pool.Heal(cognitotest.Token) // later requests only
	if len(statuses) != 0 {
		t.Errorf("%d requests were answered while held", len(statuses))
	}
	close(release)
	wg.Wait()
	for range n {
		if got := <-statuses; got != 200 {
			t.Errorf("status is %d, want 200", got)
		}
	}
}

func TestWaitRequestsEndsWithItsContext(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := pool.WaitRequests(ctx, cognitotest.JWKS, 1)
	if want := `cognitotest: pool "eu-west-1_Demo12345": jwks has had 0 requests, want 1: context canceled`; !errors.Is(err, context.Canceled) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestWaitingEnds: whatever holds a request, the client's going away ends it, and so does Close. Each server is closed by
// its test, which would not end otherwise.
func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	faults := map[string]cognitotest.Fault{
		"hang":  {Hang: true},
		"until": {Until: make(chan struct{})},
		"delay": {Delay: 24 * time.Hour},
	}
	for name, fault := range faults {
		t.Run(name+" ends with the client", func(t *testing.T) {
			t.Parallel()
			_, pool := start(t)
			pool.Fail(cognitotest.JWKS, fault)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				_ = pool.WaitRequests(t.Context(), cognitotest.JWKS, 1)
				cancel()
			}()
			req := newRequest(t, http.MethodGet, pool.JWKSURL(), "").WithContext(ctx)
			if _, err := client.Do(req); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
		t.Run(name+" ends with Close", func(t *testing.T) {
			t.Parallel()
			s, pool := start(t)
			pool.Fail(cognitotest.Token, fault)
			go func() {
				_ = pool.WaitRequests(t.Context(), cognitotest.Token, 1)
				s.Close()
			}()
			req := newRequest(t, http.MethodPost, pool.TokenURL(), "grant_type=client_credentials")
			if res, err := client.Do(req); err == nil {
				t.Errorf("status is %d, want no answer", res.StatusCode)
			}
		})
	}
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s, pool := start(t, func(cfg *cognitotest.Config) { cfg.Control = true })
	var wg sync.WaitGroup
	for _, use := range []func(){
		func() { get(t, pool.JWKSURL()) },
		func() { get(t, pool.DiscoveryURL()) },
		func() { get(t, s.URL+"/_control/state") },
		func() { granted().send(t, s) },
		func() { pool.RemoveKey(pool.Rotate().ID) },
		func() { pool.AddKey() },
		func() { pool.Token(cognitotest.DemoClientID) },
		func() { pool.IDToken(cognitotest.DemoWebID, "jane") },
		func() { _ = pool.SetSecrets(cognitotest.DemoClientID, cognitotest.DemoClientSecret, "new") },
		func() {
			pool.Fail(cognitotest.JWKS, cognitotest.Fault{Status: 500, Times: 1})
			pool.Heal(cognitotest.JWKS)
		},
		func() { _ = pool.WaitRequests(t.Context(), cognitotest.JWKS, 1) },
		func() { pool.Requests(cognitotest.Token); pool.Keys() },
	} {
		wg.Go(func() {
			for range 3 {
				use()
			}
		})
	}
	wg.Wait()
}
