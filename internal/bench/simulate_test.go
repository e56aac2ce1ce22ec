package main

import (
	"io"
	"math"
	mathrand "math/rand/v2"
	"testing"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// The simulated cache is the real one: the same checks with really signed tokens find as many of them remembered.
func TestShadowIsTheCache(t *testing.T) {
	const clients, checks, renewed = 600, 12_000, 4_000
	signer := testSigner(t)
	weight, err := weightOf(t.Context(), signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []int64{200, 400, 2_000} { // tokens
		cache, err := validator.NewCached(signer.validator, validator.CacheConfig{Bytes: room * int64(weight), Entries: 1_000_000})
		if err != nil {
			t.Fatal(err)
		}
		s, err := newShadow(room*int64(weight), weight)
		if err != nil {
			t.Fatal(err)
		}
		callers, random := newChooser(clients), mathrand.New(mathrand.NewPCG(1, 1))
		tokens := make(map[int]string)
		for i := range checks {
			client, token := callers.choose(random), i/renewed
			n := token*clients + client
			if tokens[n] == "" {
				tokens[n] = signer.token(n)
			}
			if _, err := cache.Validate(t.Context(), tokens[n]); err != nil {
				t.Fatal(err)
			}
			s.check(client, uint64(token), true)
		}
		found, simulated := float64(cache.Status().Hits)/checks, float64(s.hits)/checks
		t.Logf("room for %d: %.4f really, %.4f simulated", room, found, simulated)
		if math.Abs(found-simulated) > 0.02 {
			t.Errorf("room for %d tokens: %.3f of the checks hit, and %.3f in the simulation", room, found, simulated)
		}
	}
}

// The same seed has the same outcome, but for what the cache itself leaves to chance: the seed of its hashes, by which a small
// cache that is full chooses what to keep.
func TestSimulate(t *testing.T) {
	cases := []fleet{
		{500, 10, 1, anyReplica, defaultCacheBytes},
		{500, 10, 5, anyReplica, defaultCacheBytes},
		{500, 10, 5, ownReplica, defaultCacheBytes},
		{5000, 10, 1, anyReplica, 1 << 20},
	}
	first, err := outcomes(t.Context(), cases, 2000, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	again, err := outcomes(t.Context(), cases, 2000, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range first {
		chance := 0.005
		if cases[i].CacheBytes < defaultCacheBytes {
			chance = 0.05
		}
		if math.Abs(o.Hits-again[i].Hits) > chance {
			t.Errorf("%+v: hits %.4f, and %.4f the second time", cases[i], o.Hits, again[i].Hits)
		}
	}
	one, any5, own5, tight := first[0], first[1], first[2], first[3]
	if any5.Hits >= one.Hits || math.Abs(own5.Hits-one.Hits) > 0.01 {
		t.Errorf("hits %.3f with one replica, %.3f and %.3f with five, want fewer with any and as many with one for each client", one.Hits, any5.Hits, own5.Hits)
	}
	if own5.Busiest < 1.1 || any5.Busiest != 1 {
		t.Errorf("the busiest of five has %.2f times the mean, and %.2f", own5.Busiest, any5.Busiest)
	}
	if tight.Held > 1<<20/2000 || tight.Held == 0 {
		t.Errorf("a cache of a MiB holds %d tokens of 2000 bytes", tight.Held)
	}
	// Every token is missed once: with 500 clients a lifetime of 10 s, about 50 a second, of those who call, within chance.
	if one.Misses > 65 || one.Misses < 35 {
		t.Errorf("%.1f misses a second, want nearly 50", one.Misses)
	}
}

func TestChooser(t *testing.T) {
	c, random := newChooser(100), mathrand.New(mathrand.NewPCG(1, 1))
	var counts [100]int
	const n = 200_000
	for range n {
		counts[c.choose(random)]++
	}
	const harmonic = 5.18738 // 1 + 1/2 + … + 1/100
	for i, want := range map[int]float64{0: n / harmonic, 1: n / harmonic / 2, 9: n / harmonic / 10, 99: n / harmonic / 100} {
		if got := float64(counts[i]); math.Abs(got-want) > 5*math.Sqrt(want) {
			t.Errorf("client %d was chosen %.0f times, want about %.0f", i+1, got, want)
		}
	}
}
