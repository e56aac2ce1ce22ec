package e2e_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// onlyAllowed says if requests of traffic came to anything but a 200.
func onlyAllowed(t *testing.T, what string, got map[outcome]int) {
	t.Helper()
	for o, n := range got {
		if o != reaches(ordered) {
			t.Errorf("%s: %d times %+v, want only 200", what, n, o)
		}
	}
	if got[reaches(ordered)] == 0 {
		t.Errorf("%s: no request, want some", what)
	}
}

// neverRefused says if requests of traffic came to anything but a 200, or a 503 that says when to come back.
func neverRefused(t *testing.T, what string, got map[outcome]int) {
	t.Helper()
	for o, n := range got {
		if o != reaches(ordered) && o != failed("keys_unavailable") {
			t.Errorf("%s: %d times %+v, want only 200, and 503 keys_unavailable with Retry-After", what, n, o)
		}
	}
}

// Without unknown kids about, nobody notices that keys are rotated: the first token with a new key is let in, and so are
// those that come while its key is fetched.
func TestRotationIsNotNoticed(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	x, g := newTokens(t, p, "jwks: {minInterval: 200ms}")
	first, cached := p.AccessKey(), p.Token(batchID)
	stop := g.traffic(
		t,
		func() string { return cached },
		func() string { return p.Token(batchID, cognitotest.SignedBy(first)) },
		func() string { return p.Token(batchID) }, // with the new key from the moment on when it is there
		func() string { return p.Token(reportsID) },
	)
	for range 4 {
		x.awaitFetchAllowed(t)
		before := p.Requests(cognitotest.JWKS)
		key := p.Rotate()
		g.expect(t, "the first token with the new key", p.Token(batchID, cognitotest.SignedBy(key)), reaches(ordered))
		if n := p.Requests(cognitotest.JWKS) - before; n != 1 {
			t.Errorf("%d requests at the key server for one new key, want 1", n)
		}
	}
	got := stop()
	for i, what := range []string{"a token of the old key", "tokens of the old key", "tokens of the newest key", "tokens of another client"} {
		onlyAllowed(t, what, got[i])
	}
}

// Under a flood of unknown kids, which has used up the interval's fetch, a token with a new key waits for the next one, is
// told so, and is let in when it is there. Nobody else notices.
func TestRotationUnderAFloodWaitsAnInterval(t *testing.T) {
	t.Parallel()
	const interval = 500 * time.Millisecond
	p := newPool(t)
	x, g := newTokens(t, p, "jwks: {minInterval: "+interval.String()+"}")
	first, cached := p.AccessKey(), p.Token(batchID)
	over := make(chan struct{})
	f := newFlood(t, x, p)
	var flooding sync.WaitGroup
	more := func() bool {
		select {
		case <-over:
			return false
		default:
			return true
		}
	}
	for range 4 {
		flooding.Go(func() { f.pour(t, more) })
	}
	stop := g.traffic(
		t,
		func() string { return cached },
		func() string { return p.Token(batchID, cognitotest.SignedBy(first)) },
		func() string { return p.Token(batchID) },
	)
	for range 4 {
		wait, attempts := awaitNewKey(t, p, g)
		t.Logf("let in after %s and %d attempts that failed", wait.Round(time.Millisecond), attempts)
		if most := interval + 2*time.Second; wait > most { // the machine may be busy
			t.Errorf("a token with a new key was let in after %s, want at most the interval, %s", wait, interval)
		}
	}
	got := stop()
	close(over)
	flooding.Wait()
	onlyAllowed(t, "a token of the old key", got[0])
	onlyAllowed(t, "tokens of the old key", got[1])
	neverRefused(t, "tokens of the newest key", got[2])
	for v, n := range f.got {
		if v != unknownKey && v != unavailable {
			t.Errorf("%d tokens of the flood got %+v, want 401 unknown_key, or 503 keys_unavailable with Retry-After", n, v)
		}
	}
}

// awaitNewKey rotates keys and sends a token with the new one until it is let in.
func awaitNewKey(t *testing.T, p *cognitotest.Pool, g *gateway) (wait time.Duration, attempts int) {
	t.Helper()
	key := p.Rotate()
	// The key is in the answer to every request after these. When there have been two, the first is over.
	before, start := p.Requests(cognitotest.JWKS), time.Now()
	token := p.Token(batchID, cognitotest.SignedBy(key))
	eventually(t, func() error {
		fetched := p.Requests(cognitotest.JWKS)-before >= 2
		got := g.order(t, token)
		if got == reaches(ordered) {
			return nil
		}
		attempts++
		if got != failed("keys_unavailable") || fetched {
			t.Fatalf("a token with a new key got %+v (fetched since then: %t), want 200, or 503 keys_unavailable with Retry-After before that", got, fetched)
		}
		return differ(reaches(ordered), got)
	})
	return time.Since(start), attempts
}

// While the key server is away, or says what it should not, tokens of known keys are let in, and those of a new key are
// told to come back. When it is well again, they are let in too.
func TestNoOutageOfTheKeyServerRefusesAValidToken(t *testing.T) {
	t.Parallel()
	server, p := newFront(t)
	server.up(t)
	x, g := newTokens(t, p, "jwks: {minInterval: 200ms, timeout: 300ms}")
	ill := func(f cognitotest.Fault) func() { return func() { p.Fail(cognitotest.JWKS, f) } }
	heal := func() { p.Heal(cognitotest.JWKS) }
	outages := []struct {
		name       string
		begin, end func()
	}{
		{"away, and back at the same address", server.down, func() { server.up(t) }},
		{"hangs", ill(cognitotest.Fault{Hang: true}), heal},
		{"garbage", ill(cognitotest.Garbage), heal},
		{"500", ill(cognitotest.Fault{Status: http.StatusInternalServerError}), heal},
		{"no keys", ill(cognitotest.EmptyKeySet), heal},
		{"a cut answer", ill(cognitotest.Fault{Body: p.JWKS(), Truncate: true}), heal},
	}
	first, cached := p.AccessKey(), p.Token(batchID)
	stop := g.traffic(
		t,
		func() string { return cached },
		func() string { return p.Token(reportsID, cognitotest.SignedBy(first)) },
		func() string { return p.Token(batchID) },
	)
	for _, o := range outages {
		t.Logf("%s: let in %s after the end", o.name, outlive(t, x, p, g, o.begin, o.end).Round(time.Millisecond))
	}
	got := stop()
	onlyAllowed(t, "a token of a known key", got[0])
	onlyAllowed(t, "tokens of a known key", got[1])
	neverRefused(t, "tokens of the newest key", got[2])
}

// outlive rotates keys in an outage, and returns how long after its end a token with the new key was let in.
func outlive(t *testing.T, x *service, p *cognitotest.Pool, g *gateway, begin, end func()) time.Duration {
	t.Helper()
	begin()
	before := x.status(t).Pools["main"].Failures
	token := p.Token(batchID, cognitotest.SignedBy(p.Rotate()))
	eventually(t, func() error {
		g.expect(t, "a new key in an outage", token, failed("keys_unavailable"))
		if n := x.status(t).Pools["main"].Failures; n < before+2 {
			return fmt.Errorf("%d failed fetches, want %d", n, before+2)
		}
		return nil
	})
	if s := x.status(t).Pools["main"]; !s.Usable || s.LastError == "" {
		t.Errorf("/status says %+v, want usable keys and an error", s)
	}
	end()
	start := time.Now()
	eventually(t, func() error {
		got := g.order(t, token)
		if got != reaches(ordered) && got != failed("keys_unavailable") {
			t.Errorf("a new key after an outage: got %+v, want 200, or 503 keys_unavailable with Retry-After", got)
		}
		return differ(reaches(ordered), got)
	})
	return time.Since(start)
}
