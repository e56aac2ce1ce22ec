package main

import (
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// The curves of the token cache alone, in process: with room for all tokens, and with the default bound.
const (
	curveCache = "cache"
	curveBound = "bound"
)

// cacheSizes are how many verified tokens the cache is filled with; boundSizes, how many it is given when it has room for fewer.
var (
	cacheSizes = []int{10, 100, 1_000, 10_000, 100_000, 1_000_000}
	boundSizes = []int{10_000, 30_000, 100_000, 300_000}
)

// roomForAll is a cache that drops none of them.
var roomForAll = validator.CacheConfig{Bytes: 8 << 30, Entries: 100_000_000}

// lookups is how many different tokens are asked for in turn, from all over the cache: many enough that they are not all in the
// processor's own caches.
const lookups = 16_384

// cacheCells measures the cache of verified tokens by itself. It is filled through the same door as in the service: each token is
// parsed and its signature verified.
func cacheCells(ctx context.Context, m *mint, log io.Writer, rounds int, window time.Duration, sizes, bounds []int) ([]cell, error) {
	signer, err := newQuickSigner(m, 1)
	if err != nil {
		return nil, err
	}
	room, err := fillCache(ctx, signer, roomForAll, curveCache, sizes, log, rounds, window)
	if err != nil {
		return nil, err
	}
	bounded, err := fillCache(ctx, signer, validator.CacheConfig{}, curveBound, bounds, log, 1, window)
	return append(room, bounded...), err
}

// A filling is a cache and what the process had before it.
type filling struct {
	signer *quickSigner
	cache  *validator.Cached
	heap   uint64
	rss    int64
}

func newFilling(signer *quickSigner, cfg validator.CacheConfig) (*filling, error) {
	f := &filling{signer: signer}
	var err error
	if f.heap, f.rss, err = memory(); err != nil {
		return nil, err
	}
	f.cache, err = validator.NewCached(signer.validator, cfg)
	return f, err
}

// memory returns what is alive on the heap, and what the process holds, garbage given back.
func memory() (heap uint64, resident int64, err error) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	resident, err = rss(os.Getpid())
	return m.HeapAlloc, resident, err
}

// to has the cache verify the tokens from number `from` to `to`, on all processors.
func (f *filling) to(ctx context.Context, from, to int) error {
	var next, failed atomic.Int64
	next.Store(int64(from))
	var first error
	var once sync.Once
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < to && failed.Load() == 0; i = int(next.Add(1)) - 1 {
				if _, err := f.cache.Validate(ctx, f.signer.token(i)); err != nil {
					failed.Add(1)
					once.Do(func() { first = fmt.Errorf("token %d: %w", i, err) })
				}
			}
		})
	}
	workers.Wait()
	return first
}

// cell says what the cache takes with n tokens given to it.
func (f *filling) cell(n int) (cell, error) {
	heap, resident, err := memory()
	s := f.cache.Status()
	return cell{
		Server: extauthz, Scenario: strconv.Itoa(n), RSS: resident - f.rss, Tokens: int64(s.Verified),
		Heap: int64(heap) - int64(f.heap), Estimate: int64(s.Bytes),
	}, err
}

// known makes tokens again that the cache has, in a random order.
func (f *filling) known(n int) []string {
	tokens := make([]string, min(n, lookups))
	random := mathrand.New(mathrand.NewPCG(2, 0)) // #nosec G404 -- keeps no secret
	for i, at := range random.Perm(len(tokens)) {
		tokens[i] = f.signer.token(at * n / len(tokens))
	}
	return tokens
}

// lookUp asks for the tokens in turn until the time is over, and returns the answers and their CPU. It reports an error if one
// was not remembered.
func (f *filling) lookUp(ctx context.Context, tokens []string, window time.Duration) (int64, time.Duration, error) {
	misses := f.cache.Status().Misses
	before, err := cpu(os.Getpid())
	if err != nil {
		return 0, 0, err
	}
	answered := int64(0)
	for began := time.Now(); time.Since(began) < window; {
		for range 256 {
			if _, err := f.cache.Validate(ctx, tokens[answered%int64(len(tokens))]); err != nil {
				return 0, 0, err
			}
			answered++
		}
	}
	after, err := cpu(os.Getpid())
	if again := f.cache.Status().Misses - misses; err == nil && again > 0 {
		err = fmt.Errorf("%d of %d tokens were not remembered, want all", again, answered)
	}
	return answered, after - before, err
}

// fillCache fills one cache step by step and measures it at each.
func fillCache(
	ctx context.Context, signer *quickSigner, cfg validator.CacheConfig, curve string, sizes []int, log io.Writer, rounds int, window time.Duration,
) ([]cell, error) {
	f, err := newFilling(signer, cfg)
	if err != nil {
		return nil, err
	}
	var cells []cell
	before := 0
	for _, n := range sizes {
		if err := f.to(ctx, before, n); err != nil {
			return nil, err
		}
		before = n
		c, err := f.cell(n)
		if err != nil {
			return nil, err
		}
		c.Group = curve
		var tokens []string
		if curve == curveCache { // of a bounded one, nobody knows which tokens it has
			tokens = f.known(n)
		}
		for round := range rounds {
			c.Round = round + 1
			if tokens != nil {
				answered, took, err := f.lookUp(ctx, tokens, window)
				if err != nil {
					return nil, err
				}
				c.Answered, c.CPU = answered, micros(took)/float64(answered)
			}
			cells = append(cells, c)
		}
		fmt.Fprintf(log, "%-8s %9d tokens given, %9d held, %6.0f bytes of heap each, estimated %6.0f, %7.2f us\n",
			curve, n, c.Tokens, c.perToken(c.Heap), c.perToken(c.Estimate), c.CPU)
	}
	runtime.KeepAlive(f)
	return cells, nil
}

func (c cell) perToken(n int64) float64 { return float64(n) / float64(max(c.Tokens, 1)) }
