package e2e_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// Keys in a file are read again when the file changes: tokens of a new key are let in, those of a removed one refused,
// though they are in the cache, and a file that cannot be used changes nothing.
func TestKeyFileIsReadAgain(t *testing.T) {
	t.Parallel()
	p := newPool(t)
	file := filepath.Join(t.TempDir(), "jwks.json")
	write(t, file, string(p.JWKS()))
	x, g := newTokens(t, p, "jwksFile: "+file)
	const name = "pools.main.jwksFile"
	good, unknown := reaches(ordered), refused("unknown_key", notAccepted)

	oldKey, cached := p.AccessKey(), p.Token(batchID)
	g.expect(t, "the first key", cached, good)
	g.expect(t, "the first key, from the cache", cached, good)
	newKey := p.Rotate()
	g.expect(t, "a key that is not in the file yet", p.Token(batchID), unknown)
	replace(t, file, string(p.JWKS()))
	next := p.Token(batchID)
	g.await(t, "the new key", next, good)
	g.expect(t, "the old key beside it", cached, good)
	g.expect(t, "the old key beside it, never seen", p.Token(batchID, cognitotest.SignedBy(oldKey)), good)

	p.RemoveKey(oldKey.ID)
	write(t, file, string(p.JWKS()))
	g.await(t, "the removed key, from the cache", cached, unknown)
	g.expect(t, "the removed key, never seen", p.Token(batchID, cognitotest.SignedBy(oldKey)), unknown)
	g.expect(t, "the new key alone", next, good)

	for what, text := range map[string]string{
		"empty": "", "half": string(p.JWKS()[:len(p.JWKS())/2]), "no keys": `{"keys":[]}`, "no usable key": `{"keys":[{"kid":"a","kty":"EC","crv":"P-256"}]}`,
	} {
		write(t, file, text)
		f := x.awaitFile(t, name, 0)
		if x.logged("file not loaded, the last good one stays in use", "error", f.Error) == 0 {
			t.Errorf("%s: found no line with the error %q in the log", what, f.Error)
		}
		g.expect(t, what+": the last good key", next, good)
		g.expect(t, what+": the last good key, never seen", p.Token(batchID, cognitotest.SignedBy(newKey)), good)
		g.expect(t, what+": a removed key", cached, unknown)
		write(t, file, string(p.JWKS()))
		x.awaitFile(t, name, 1)
	}

	// A key that comes back is the same one, and a kid that gets another key is not.
	forged := p.ForgedKey()
	g.expect(t, "another key under the kid", p.Token(batchID, cognitotest.SignedBy(forged)), refused("signature", notAccepted))
	g.expect(t, "another key under the kid, from the cache", p.Token(batchID, cognitotest.SignedBy(forged)), refused("signature", notAccepted))
}

// With a seed, the service is ready though the key server is away, lets in whom the seed's keys prove, and refuses nobody
// for a key that it does not have. When the server is there, its keys count and the seed's no more.
func TestSeedServesUntilTheKeyServerIsThere(t *testing.T) {
	t.Parallel()
	server, p := newFront(t)
	seed := filepath.Join(t.TempDir(), "seed.json")
	write(t, seed, string(p.JWKS()))
	if _, err := program(); err != nil { // built before the clock runs
		t.Fatal(err)
	}
	start := time.Now()
	x := newService(t, "tokens.yaml", map[string]string{"MAIN": p.Issuer(), "KEYS": "jwks: {minInterval: 100ms, timeout: 500ms, seedFile: " + seed + "}"})
	const keysTimeout = 30 * time.Second // the default of startup.keysTimeout
	if took := time.Since(start); took > keysTimeout/3 {
		t.Errorf("it was ready after %s, want at once: it has keys", took)
	} else {
		t.Logf("it was ready after %s", took.Round(time.Millisecond))
	}
	g := newGateway(t, x, patience())
	if n := p.Requests(cognitotest.JWKS); n != 0 {
		t.Fatalf("%d requests at the key server, want none: it is away", n)
	}
	earlier := cognitotest.IssuedAt(time.Now().Add(-5 * time.Minute))
	good, unknown := reaches(ordered), failed("keys_unavailable")
	seeded, seededKey := p.Token(batchID, earlier), p.AccessKey()
	g.expect(t, "a key of the seed", seeded, good)
	g.expect(t, "a key of the seed, from the cache", seeded, good)
	if s := x.status(t).Pools["main"]; !s.Usable || s.Keys != 2 || !s.FetchedAt.IsZero() {
		t.Errorf("/status says %+v, want 2 usable keys that were never fetched", s)
	}
	eventually(t, func() error {
		if s := x.status(t).Pools["main"]; s.Failures == 0 || s.LastError == "" {
			return fmt.Errorf("/status says %+v, want a failed fetch and why", s)
		}
		return nil
	})
	key := p.Rotate()
	for range 10 {
		g.expect(t, "a key that is not in the seed", p.Token(batchID), unknown)
		g.expect(t, "a key that is not in the seed, for an early token", p.Token(batchID, earlier), unknown)
	}
	g.expect(t, "a key of the seed, after all that", seeded, good)

	p.RemoveKey(seededKey.ID)
	server.up(t)
	g.await(t, "the new key", p.Token(batchID, cognitotest.SignedBy(key)), good)
	g.expect(t, "a key that only the seed has", seeded, refused("unknown_key", notAccepted))
	if s := x.status(t).Pools["main"]; !s.Usable || s.FetchedAt.IsZero() || s.LastError != "" {
		t.Errorf("/status says %+v, want keys that were fetched and no error", s)
	}
}
