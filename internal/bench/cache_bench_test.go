package main

import (
	"flag"
	"fmt"
	"testing"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

var entries = flag.Int("entries", 1_000_000, "largest `number` of entries of BenchmarkCache")

// A remembered token costs the same whatever the cache holds. A million of them take two minutes to make and verify;
// `-entries 10000` is a first look. `bench scale` records the same.
func BenchmarkCache(b *testing.B) {
	f, err := newFilling(testSigner(b), roomForAll)
	if err != nil {
		b.Fatal(err)
	}
	before := 0
	for _, n := range cacheSizes {
		if n > *entries {
			break
		}
		if err := f.to(b.Context(), before, n); err != nil {
			b.Fatal(err)
		}
		before = n
		c, err := f.cell(n)
		if err != nil {
			b.Fatal(err)
		}
		tokens := f.known(n)
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			misses, i := f.cache.Status().Misses, 0
			for b.Loop() {
				if _, err := f.cache.Validate(b.Context(), tokens[i%len(tokens)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
			if again := f.cache.Status().Misses - misses; again > 0 {
				b.Errorf("%d of %d lookups were of tokens that the cache had dropped", again, b.N)
			}
			b.ReportMetric(c.perToken(c.Heap), "heap-B/token")
			b.ReportMetric(c.perToken(c.Estimate), "estimate-B/token")
			b.ReportMetric(c.perToken(c.RSS), "rss-B/token")
		})
	}
}

// A cache of verified tokens stays within its bound, by its own estimate and by what the heap says, however many it is given.
func TestCacheStaysWithinItsBound(t *testing.T) {
	const bound, given = 1 << 20, 2_000
	f, err := newFilling(testSigner(t), validator.CacheConfig{Bytes: bound})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.to(t.Context(), 0, given); err != nil {
		t.Fatal(err)
	}
	c, err := f.cell(given)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d tokens, estimated %d bytes, %d bytes of heap", c.Tokens, given, c.Estimate, c.Heap)
	if c.Estimate > bound || c.Estimate < bound/2 || c.Tokens >= given {
		t.Errorf("the cache holds %d tokens and %d bytes by its estimate, want at most %d and the better part of it", c.Tokens, c.Estimate, bound)
	}
	// The heap has the cache's table and the frequencies of its keys on top, which count with few tokens.
	if c.Heap > bound*3/2 {
		t.Errorf("the heap grew by %d bytes, want little more than %d", c.Heap, bound)
	}
}
