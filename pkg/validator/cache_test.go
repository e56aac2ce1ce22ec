package validator_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func newCached(t testing.TB, v *validator.Validator, cfg validator.CacheConfig) *validator.Cached {
	t.Helper()
	c, err := validator.NewCached(v, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// movable is a clock that a test sets.
type movable struct{ at atomic.Int64 }

func (m *movable) now() time.Time       { return time.Unix(0, m.at.Load()) }
func (m *movable) set(t time.Time)      { m.at.Store(t.UnixNano()) }
func (m *movable) move(d time.Duration) { m.at.Add(int64(d)) }

// A world is a pool whose clock, keys and denylist a test changes between two calls.
type world struct {
	clock  movable
	pool   *cognitotest.Pool
	keys   *validator.ReplaceableKeys
	plain  *validator.Validator
	cached *validator.Cached
	all    validator.StaticKeys
	tokens []string
}

func newWorld(t testing.TB, cfg validator.CacheConfig) *world {
	t.Helper()
	w := &world{pool: newPool(t)}
	w.clock.set(now)
	w.all = staticKeys(t, w.pool)
	var err error
	if w.keys, err = validator.NewReplaceableKeys(w.all); err != nil {
		t.Fatal(err)
	}
	c := config(t, w.pool)
	c.Keys, c.Now, c.RequiredScopes = w.keys, w.clock.now, []string{"orders/read"}
	w.plain = newValidator(t, c)
	w.cached = newCached(t, w.plain, cfg)
	w.tokens = w.everyKind()
	return w
}

// everyKind returns tokens that are accepted, and others for each way not to be.
func (w *world) everyKind() []string {
	p, claims := w.pool, w.pool.Claims(client)
	claims["nbf"] = now.Add(10 * time.Minute).Unix()
	tokens := []string{
		p.Token(client),
		p.Token(client, cognitotest.Claim("jti", "on-the-list")),
		p.Token(client, cognitotest.Claim("sub", "somebody")),
		p.Token(client, cognitotest.IssuedAt(now.Add(time.Minute))),
		p.Token(client, cognitotest.TTL(5*time.Minute)),
		p.Sign(nil, claims),
		p.Token(client, cognitotest.Scopes("orders/write")),
		p.Token(client, cognitotest.SignedBy(p.ForgedKey())),
		p.Token(client, cognitotest.SignedBy(p.ForgedKey()), cognitotest.TTL(5*time.Minute)),
		p.Token(client, cognitotest.SignedBy(p.IDKey())),
		p.Token(cognitotest.DemoReaderID),
		p.Token(client, cognitotest.HeaderParam("kid", "unknown")),
		p.Token(client, cognitotest.HeaderParam("alg", "none")),
		"no token",
	}
	return tokens
}

func (w *world) compare(t *testing.T, token string) {
	t.Helper()
	want, wantErr := w.plain.Validate(t.Context(), token)
	got, err := w.cached.Validate(t.Context(), token)
	if fmt.Sprint(err) != fmt.Sprint(wantErr) || reasonOf(t, err) != reasonOf(t, wantErr) {
		t.Fatalf("cached: %v, want as uncached: %v", err, wantErr)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(validator.Claims{})); diff != "" {
		t.Fatalf("cached claims (-uncached +cached):\n%s", diff)
	}
	if err == nil {
		if diff := cmp.Diff(want.Map(), got.Map()); diff != "" {
			t.Fatalf("cached claims (-uncached +cached):\n%s", diff)
		}
	}
}

// Whatever changes between two calls, a Cached answers as its Validator does.
func TestCachedAnswersAsUncached(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{Entries: 8, Bytes: 64 << 10, Refusals: 3})
	other := staticKeys(t, newPool(t))
	changes := []func(r *rand.Rand){
		func(r *rand.Rand) { w.clock.set(now.Add(time.Duration(r.IntN(5000)-600) * time.Second)) },
		func(*rand.Rand) { w.clock.set(now) },
		func(*rand.Rand) { w.replaceKeys(t, w.all) },
		func(*rand.Rand) { w.replaceKeys(t, other) },
		func(*rand.Rand) {
			// The same kid with another key: what the one verified, the other may not.
			swapped := validator.StaticKeys{}
			swapped[w.pool.AccessKey().ID], swapped[w.pool.IDKey().ID] = w.all[w.pool.IDKey().ID], w.all[w.pool.AccessKey().ID]
			w.replaceKeys(t, swapped)
		},
		func(*rand.Rand) {
			again, _, err := validator.ParseJWKS(w.pool.JWKS()) // the same keys, as other objects
			if err != nil {
				t.Fatal(err)
			}
			w.replaceKeys(t, again)
		},
		func(*rand.Rand) { w.deny(t) },
		func(*rand.Rand) { w.deny(t, validator.Revocation{TokenID: "on-the-list"}) },
		func(*rand.Rand) { w.deny(t, validator.Revocation{Pool: "main", Subject: "somebody"}) },
		func(r *rand.Rand) {
			w.deny(t, validator.Revocation{ClientID: client, IssuedBefore: now.Add(time.Duration(r.IntN(120)-60) * time.Second)})
		},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		if r.IntN(4) == 0 {
			changes[r.IntN(len(changes))](r)
		}
		w.compare(t, w.tokens[r.IntN(len(w.tokens))])
	}
}

func (w *world) replaceKeys(t testing.TB, keys validator.StaticKeys) {
	t.Helper()
	if err := w.keys.Replace(keys); err != nil {
		t.Fatal(err)
	}
}

func (w *world) deny(t testing.TB, list ...validator.Revocation) {
	t.Helper()
	if err := w.plain.SetDenylist(list); err != nil {
		t.Fatal(err)
	}
}

// Of a token seen before, neither form nor signature is looked at again.
func TestCachedSparesTheWork(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{})
	for _, test := range []struct {
		name  string
		token string
	}{
		{"verified", w.tokens[0]},
		{"signed with another key", w.tokens[7]},
	} {
		t.Run(test.name, func(t *testing.T) {
			first := testing.AllocsPerRun(1, func() { _, _ = w.plain.Validate(t.Context(), test.token) })
			_, _ = w.cached.Validate(t.Context(), test.token)
			again := testing.AllocsPerRun(100, func() { _, _ = w.cached.Validate(t.Context(), test.token) })
			if again > 1 || first < 20 {
				t.Errorf("%v allocations, and %v if it is cached, want many and at most 1", first, again)
			}
		})
	}
}

func TestCacheIsBounded(t *testing.T) {
	const entries, refusals = 20, 10
	w := newWorld(t, validator.CacheConfig{Entries: entries, Refusals: refusals})
	forged := w.pool.ForgedKey()
	for i := range 4 * entries {
		for _, token := range []string{
			w.pool.Token(client, cognitotest.Claim("n", i)),
			w.pool.Token(client, cognitotest.Claim("n", i), cognitotest.SignedBy(forged)),
		} {
			w.compare(t, token)
		}
		if s := w.cached.Status(); s.Verified > entries || s.Refused > refusals {
			t.Fatalf("%+v, want at most %d and %d", s, entries, refusals)
		}
	}
	if s := w.cached.Status(); s.Verified < entries/2 || s.Refused < refusals/2 {
		t.Errorf("%+v, want it well filled", s)
	}
}

func TestCacheIsBoundedInBytes(t *testing.T) {
	const bytes = 64 << 10
	w := newWorld(t, validator.CacheConfig{Bytes: bytes})
	filler := make([]byte, 4<<10)
	for i := range filler {
		filler[i] = 'x'
	}
	for i := range 40 {
		w.compare(t, w.pool.Token(client, cognitotest.Claim("n", i), cognitotest.Claim("filler", string(filler))))
		if s := w.cached.Status(); s.Bytes > bytes || s.Verified > bytes/len(filler) {
			t.Fatalf("%+v, want at most %d bytes", s, bytes)
		}
	}
	if s := w.cached.Status(); s.Bytes < bytes/2 {
		t.Errorf("%+v, want it well filled", s)
	}
}

// Whoever sends forged tokens displaces none that are verified.
func TestRefusalsDisplaceNothingVerified(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{Refusals: 4})
	w.compare(t, w.tokens[0])
	forged := w.pool.ForgedKey()
	for i := range 50 {
		w.compare(t, w.pool.Token(client, cognitotest.Claim("n", i), cognitotest.SignedBy(forged)))
	}
	if s := w.cached.Status(); s.Verified != 1 || s.Refused > 4 {
		t.Errorf("%+v, want 1 verified and at most 4 refused", s)
	}
}

func TestExpiredTokensLeaveTheCache(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{})
	for _, token := range []string{w.tokens[0], w.tokens[7]} {
		w.compare(t, token)
	}
	w.clock.move(2 * time.Hour)
	for _, token := range []string{w.tokens[0], w.tokens[7]} {
		w.compare(t, token)
	}
	if s := w.cached.Status(); s.Verified != 0 || s.Refused != 0 {
		t.Errorf("%+v, want nothing", s)
	}
}

func TestCachedIsSafeForConcurrentUse(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{Entries: 4, Refusals: 2})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				token := w.tokens[i%len(w.tokens)]
				claims, err := w.cached.Validate(t.Context(), token)
				if err == nil && claims.ClientID != client {
					t.Errorf("client is %q, want %q", claims.ClientID, client)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			w.deny(t, validator.Revocation{TokenID: "on-the-list"})
			w.replaceKeys(t, w.all)
			w.deny(t)
		}
	})
	wg.Wait()
	for _, token := range w.tokens {
		w.compare(t, token)
	}
}

// What is too long to be a token is not hashed.
func TestCachedBoundsTheToken(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{})
	w.compare(t, strings.Repeat("x", validator.MaxTokenBytes+1))
	if s := w.cached.Status(); s.Misses != 0 {
		t.Errorf("%+v, want nothing looked up", s)
	}
	w.compare(t, strings.Repeat("x", validator.MaxTokenBytes))
	if s := w.cached.Status(); s.Misses != 1 {
		t.Errorf("%+v, want one miss", s)
	}
}

// A set that was fetched again has the same keys as other objects.
func TestCachedKnowsAKeyByItsValue(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{})
	for range 3 {
		w.compare(t, w.tokens[0])
		again, _, err := validator.ParseJWKS(w.pool.JWKS())
		if err != nil {
			t.Fatal(err)
		}
		w.replaceKeys(t, again)
	}
	if s := w.cached.Status(); s.Misses != 1 || s.Hits != 2 {
		t.Errorf("%+v, want one signature checked", s)
	}
}

func TestCacheDefaults(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{})
	const n = 100
	for i := range n {
		w.compare(t, w.pool.Token(client, cognitotest.Claim("n", i)))
	}
	if s := w.cached.Status(); s.Verified != n || s.Bytes/n > 2500 {
		t.Errorf("%+v, want %d tokens of less than 2,500 bytes", s, n)
	}
}

func TestNewCachedRefuses(t *testing.T) {
	w := newWorld(t, validator.CacheConfig{})
	for _, cfg := range []validator.CacheConfig{{Bytes: -1}, {Entries: -1}, {Refusals: -1}} {
		if _, err := validator.NewCached(w.plain, cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func BenchmarkCached(b *testing.B) {
	w := newWorld(b, validator.CacheConfig{})
	for _, bench := range []struct {
		name  string
		token string
	}{
		{"verified", w.tokens[0]},
		{"signature", w.tokens[7]},
		{"client", w.tokens[10]},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = w.cached.Validate(b.Context(), bench.token)
			}
		})
	}
}

// Slow is told before a signature is checked, and not where none is.
func TestSlow(t *testing.T) {
	told := 0
	pool := newPool(t)
	c := config(t, pool)
	c.Slow = func(context.Context) { told++ }
	v := newCached(t, newValidator(t, c), validator.CacheConfig{})
	token := pool.Token(c.ClientIDs[0])
	for _, tt := range []struct {
		name, token string
		want        int
	}{
		{"a new token", token, 1},
		{"the same", token, 1},
		{"no token", "x", 1},
		{"one without a signature", token[:strings.LastIndexByte(token, '.')+1], 1},
		{"a bad signature", token[:len(token)-4] + "AAAA", 2},
		{"the same", token[:len(token)-4] + "AAAA", 2},
	} {
		_, _ = v.Validate(t.Context(), tt.token)
		if told != tt.want {
			t.Errorf("%s: told %d times by now, want %d", tt.name, told, tt.want)
		}
	}
}
