package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// newKeys starts a stand-in whose keys may change, extauthz with it, and Envoy.
func newKeys(t *testing.T, leeway string) (*cognitotest.Pool, *service, *gateway) {
	t.Helper()
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{poolConfig(mainPool)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := s.Pool(mainPool)
	x := newService(t, "keys.yaml", map[string]string{"MAIN": p.Issuer(), "LEEWAY": leeway})
	return p, x, newGateway(t, x, patience())
}

// Keys are rotated while requests with new tokens run: none is refused. A check may fail, and says when to come back, as
// long as the key that the token names is newer than what is known.
func TestRotationRefusesNothingValid(t *testing.T) {
	t.Parallel()
	p, x, g := newKeys(t, "30s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[outcome]int{}
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				o := g.get(t, "/orders/7", "Authorization: Bearer "+p.Token(batchID)).outcome()
				mu.Lock()
				got[o]++
				mu.Unlock()
			}
		})
	}
	accepted := func(token string) {
		eventually(t, func() error {
			return differ(reaches("/orders/7"), g.get(t, "/orders/7", "Authorization: Bearer "+token).outcome())
		})
	}
	for range 4 {
		old := p.AccessKey()
		oldToken := p.Token(batchID)
		newKey := p.Rotate()
		accepted(p.Token(batchID, cognitotest.SignedBy(newKey)))
		accepted(oldToken) // both keys are published
		p.RemoveKey(old.ID)
	}
	cancel()
	wg.Wait()
	total := 0
	for o, n := range got {
		total += n
		if o != reaches("/orders/7") && o != failed("keys_unavailable") {
			t.Errorf("%d times %+v, want only 200 and, for a moment, 503 keys_unavailable with Retry-After", n, o)
		}
	}
	t.Logf("%d requests, %d of them 200, %d 503", total, got[reaches("/orders/7")], got[failed("keys_unavailable")])
	if got[reaches("/orders/7")] < 10 {
		t.Errorf("%d requests were allowed, want at least 10", got[reaches("/orders/7")])
	}
	if n := x.metric(t, `extauthz_checks_total{outcome="refused"`); n != 0 {
		t.Errorf("%d tokens were refused, want none", n)
	}
}

// The same without any leeway: iat is in whole seconds, so a token can be issued before the last fetch began, by its iat,
// and be signed with a key that was not yet there.
func TestRotationRefusesNothingValidWithoutLeeway(t *testing.T) {
	t.Parallel()
	p, _, g := newKeys(t, "0s")
	for range 3 {
		seen := p.Requests(cognitotest.JWKS)
		if err := p.WaitRequests(t.Context(), cognitotest.JWKS, seen+1); err != nil { // maxAge is a second
			t.Fatal(err)
		}
		p.Rotate()
		o := g.get(t, "/orders/7", "Authorization: Bearer "+p.Token(batchID)).outcome()
		if o != reaches("/orders/7") && o != failed("keys_unavailable") {
			t.Errorf("a token that was just issued, with a key that was just made: got %+v, want 200 or 503 keys_unavailable", o)
		}
	}
}

// A key that was taken out of the set stops working at the next fetch.
func TestRemovedKeyStopsWorking(t *testing.T) {
	t.Parallel()
	p, _, g := newKeys(t, "30s")
	earlier := cognitotest.IssuedAt(time.Now().Add(-5 * time.Minute))
	stolen := "Authorization: Bearer " + p.Token(batchID, earlier)
	if diff := cmp.Diff(reaches("/orders/7"), g.get(t, "/orders/7", stolen).outcome()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	old := p.AccessKey()
	p.Rotate()
	p.RemoveKey(old.ID)
	eventually(t, func() error {
		return differ(refused("unknown_key", notAccepted), g.get(t, "/orders/7", stolen).outcome())
	})
}

// Whatever the key server answers after the start, the last good keys go on serving.
func TestKeysOutliveTheirServer(t *testing.T) {
	t.Parallel()
	p, x, g := newKeys(t, "30s")
	unknown := p.ForgedKey()
	unknown.ID = "bm90IGEga2V5IG9mIHRoaXMgcG9vbA=="
	faults := map[string]cognitotest.Fault{
		"503":            {Status: http.StatusServiceUnavailable},
		"404":            {Status: http.StatusNotFound},
		"hangs up":       {Drop: true},
		"hangs":          {Hang: true},
		"garbage":        cognitotest.Garbage,
		"no keys":        cognitotest.EmptyKeySet,
		"never ends":     {HugeBytes: math.MaxInt64},
		"half an answer": {Body: p.JWKS(), Truncate: true},
		"redirects":      {Redirect: "http://localhost:1/elsewhere"},
		"other keys":     {Body: []byte(`{"keys":[{"kid":"a","kty":"EC","crv":"P-256"},{"kid":"b","kty":"oct","k":"AAAA"}]}`)},
	}
	good := "Authorization: Bearer " + p.Token(batchID)
	for name, fault := range faults {
		p.Fail(cognitotest.JWKS, fault)
		failures := func() int64 { return x.metric(t, `extauthz_jwks_fetches_total{pool="main",result="failed"`) }
		before := failures()
		eventually(t, func() error { // an unknown kid makes it ask
			got := g.get(t, "/orders/7", "Authorization: Bearer "+p.Token(batchID, cognitotest.SignedBy(unknown))).outcome()
			if got != failed("keys_unavailable") {
				return fmt.Errorf("%s: an unknown kid got %+v, want keys_unavailable", name, got)
			}
			if failures() == before {
				return errors.New(name + ": no failed fetch")
			}
			return nil
		})
		if diff := cmp.Diff(reaches("/orders/7"), g.get(t, "/orders/7", good).outcome()); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
		if status, _, word := fetch(t, "http://"+x.Metrics+"/readyz"); status != 200 || word != "ok\n" {
			t.Errorf("%s: /readyz is %d %q, want 200 ok", name, status, word)
		}
		p.Heal(cognitotest.JWKS)
	}
	key := p.Rotate()
	eventually(t, func() error { // and after all that it finds new keys
		return differ(reaches("/orders/7"), g.get(t, "/orders/7", "Authorization: Bearer "+p.Token(batchID, cognitotest.SignedBy(key))).outcome())
	})
}

// A fetch counts when it is over, and as what it came to: a counter never goes back.
func TestFetchesAreCountedWhenTheyAreOver(t *testing.T) {
	t.Parallel()
	p, x, _ := newKeys(t, "30s")
	fetches := func(result string) int64 {
		return x.metric(t, `extauthz_jwks_fetches_total{pool="main",result="`+result+`"`)
	}
	p.Fail(cognitotest.JWKS, cognitotest.Fault{Hang: true})
	before := fetches("failed")
	if err := p.WaitRequests(t.Context(), cognitotest.JWKS, p.Requests(cognitotest.JWKS)+1); err != nil { // maxAge is a second
		t.Fatal(err)
	}
	during := fetches("ok")
	eventually(t, func() error {
		if fetches("failed") == before {
			return errors.New("found no failed fetch")
		}
		return nil
	})
	if after := fetches("ok"); after < during {
		t.Errorf("%d good fetches during one that fails, and %d after it, want no less", during, after)
	}
}

// However many unknown kids come, the key server is asked once in an interval.
func TestUnknownKidsDoNotFloodTheKeyServer(t *testing.T) {
	t.Parallel()
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{poolConfig(mainPool)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := s.Pool(mainPool)
	start := time.Now()
	g := newGateway(t, newService(t, "own.yaml", map[string]string{"MAIN": p.Issuer()}), patience())
	for i := range 40 {
		key := p.ForgedKey()
		key.ID = fmt.Sprint("kid-", i)
		if diff := cmp.Diff(failed("keys_unavailable"), g.get(t, "/case/yes", "Authorization: Bearer "+p.Token(batchID, cognitotest.SignedBy(key))).outcome()); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	}
	const interval = 10 * time.Second // the default of minInterval
	if n, most := p.Requests(cognitotest.JWKS), 1+int(time.Since(start)/interval); n > most {
		t.Errorf("%d requests at the key server for 40 unknown kids, want at most %d", n, most)
	}
}
