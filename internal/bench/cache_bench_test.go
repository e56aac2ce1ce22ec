package main

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

var entries = flag.Int("entries", 1_000_000, "largest `number` of entries of BenchmarkCache")

// A cached answer costs the same whatever the cache holds. Its entries are tokens with a bad signature, as a million good ones
// would take a quarter of an hour to sign; both kinds live in caches of the same make. Filling it takes minutes.
func BenchmarkCache(b *testing.B) {
	m, err := newMint(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer m.close()
	keys, _, err := validator.ParseJWKS(m.jwkSet)
	if err != nil {
		b.Fatal(err)
	}
	v, err := validator.New(validator.Config{Issuers: []string{issuer}, ClientIDs: []string{cognitotest.DemoReaderID}, Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	token := m.token()
	for n := 10; n <= *entries; n *= 10 {
		b.Run(fmt.Sprint(n), func(b *testing.B) { lookUp(b, v, token, n) })
	}
}

// lookUp asks for one after the other of n tokens that the cache knows.
func lookUp(b *testing.B, v *validator.Validator, token string, n int) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cache, err := validator.NewCached(v, validator.CacheConfig{Refusals: int64(n) + int64(n)/10 + 10})
	if err != nil {
		b.Fatal(err)
	}
	ask := func(bad string) {
		if _, err := cache.Validate(b.Context(), bad); !errors.Is(err, validator.ErrSignature) {
			b.Errorf("error is %v, want one about the signature", err)
		}
	}
	var workers sync.WaitGroup
	for w := range runtime.NumCPU() {
		workers.Go(func() {
			for i := w; i < n; i += runtime.NumCPU() {
				ask(forged(token, i))
			}
		})
	}
	workers.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	known := make([]string, 1024) // from all over the cache
	for i := range known {
		known[i] = forged(token, i*n/len(known))
	}
	misses := cache.Status().Misses
	b.ResetTimer()
	for i := range b.N {
		ask(known[i%len(known)])
	}
	b.StopTimer()
	if again := cache.Status().Misses - misses; again > 0 {
		b.Errorf("%d of %d lookups were of tokens that the cache had dropped", again, b.N)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "heap-B/entry")
}
