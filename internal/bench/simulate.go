package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// The simulated fleet: how often the token cache of a replica has the token of a check, where clients differ in how often they
// call, tokens are renewed, and checks are spread over replicas.

// fleetRate is how many checks a second the whole fleet gets.
const fleetRate = 2_000

// defaultCacheBytes is the default of tokenCache.maxBytes.
const defaultCacheBytes = 64 << 20

// The ways to choose a replica for a check.
const (
	anyReplica = "any"             // at random; least request is the same to a cache
	ownReplica = "consistent hash" // one for each client
)

// A fleet is a case to be simulated.
type fleet struct {
	Clients    int    `json:"clients"`
	Lifetime   int    `json:"lifetime_s"` // of a token, seconds
	Replicas   int    `json:"replicas"`
	Balancing  string `json:"balancing"`
	CacheBytes int64  `json:"cache_bytes"` // of each replica
}

// An outcome is what came of a case.
type outcome struct {
	fleet
	Checks  int64   `json:"checks"`  // that were counted
	Hits    float64 `json:"hits"`    // share of the checks whose token was remembered
	Misses  float64 `json:"misses"`  // a second, all replicas together
	Held    int     `json:"held"`    // tokens in the cache of a replica at the end
	Busiest float64 `json:"busiest"` // checks of the busiest replica, over the mean
}

// A simulation is all cases.
type simulation struct {
	Commit     string    `json:"commit,omitempty"`
	Rate       int       `json:"rate"`        // checks a second, the whole fleet
	Zipf       float64   `json:"zipf"`        // client n calls n^-Zipf times as often as the first
	TokenBytes uint32    `json:"token_bytes"` // that the cache counts for a token
	Outcomes   []outcome `json:"outcomes"`
}

// zipf is the exponent of the clients' rates. With 1, the first of 10,000 clients makes a tenth of all calls.
const zipf = 1.0

// fleets are the cases: who is behind how many replicas, and how much room a cache wants.
func fleets() []fleet {
	var all []fleet
	for _, clients := range simClients {
		for _, lifetime := range simLifetimes {
			for _, s := range simSpreads {
				if clients == 1_000_000 && lifetime == 3600 && !s.quick() {
					continue // minutes of CPU, for a cache that is far too small either way
				}
				all = append(all, fleet{clients, lifetime, s.replicas, s.balancing, defaultCacheBytes})
			}
		}
	}
	for _, clients := range sizedClients {
		for _, bytes := range simCaches {
			if bytes != defaultCacheBytes { // which is above
				all = append(all, fleet{clients, 3600, sizedReplicas, anyReplica, bytes})
			}
		}
	}
	return all
}

// A spread is how checks come to replicas.
type spread struct {
	replicas  int
	balancing string
}

// quick says whether a part of the fleet stands for all of it.
func (s spread) quick() bool { return s.balancing == anyReplica && s.replicas > 1 }

// What the cases are made of.
var (
	simClients   = []int{1_000, 10_000, 100_000, 1_000_000}
	simLifetimes = []int{3600, 300}
	simSpreads   = []spread{{1, anyReplica}, {5, anyReplica}, {25, anyReplica}, {5, ownReplica}, {25, ownReplica}}
	sizedClients = []int{100_000, 1_000_000}
	simCaches    = []int64{16 << 20, defaultCacheBytes, 256 << 20, 1 << 30}
)

// sizedReplicas is the number of replicas where the size of the cache differs.
const sizedReplicas = 5

// simulate runs all cases and writes simulate.json.
func simulate(ctx context.Context, o options) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	m, err := newMint(o.dir)
	if err != nil {
		return err
	}
	defer m.close()
	signer, err := newQuickSigner(m, 1)
	if err != nil {
		return err
	}
	weight, err := weightOf(ctx, signer)
	if err != nil {
		return err
	}
	s := &simulation{Commit: thisMachine(ctx).Commit, Rate: fleetRate, Zipf: zipf, TokenBytes: weight}
	if s.Outcomes, err = outcomes(ctx, fleets(), weight, os.Stderr); err != nil {
		return err
	}
	if err := s.write(filepath.Join(o.dir, "simulate.json")); err != nil {
		return err
	}
	s.print(os.Stdout)
	return nil
}

// weightOf is what the cache counts for a token.
func weightOf(ctx context.Context, signer *quickSigner) (uint32, error) {
	const n = 100
	f, err := newFilling(signer, validator.CacheConfig{})
	if err != nil {
		return 0, err
	}
	if err := f.to(ctx, 0, n); err != nil {
		return 0, err
	}
	return uint32(f.cache.Status().Bytes / n), nil
}

// outcomes simulates the cases on all processors, each with a seed of its own.
func outcomes(ctx context.Context, all []fleet, weight uint32, log io.Writer) ([]outcome, error) {
	done := make([]outcome, len(all))
	errs := make([]error, len(all))
	next := make(chan int)
	callers := make(map[int]*chooser) // of a number of clients; shared, as large ones take a while to make
	for _, f := range all {
		if callers[f.Clients] == nil {
			callers[f.Clients] = newChooser(f.Clients)
		}
	}
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for i := range next {
				began := time.Now()
				done[i], errs[i] = all[i].simulate(ctx, uint64(i), callers[all[i].Clients], weight)
				fmt.Fprintf(log, "%7d clients, %4d s, %2d replicas, %-15s %5d MiB: %5.1f %% hits (%.1fs)\n",
					all[i].Clients, all[i].Lifetime, all[i].Replicas, all[i].Balancing, all[i].CacheBytes>>20, 100*done[i].Hits, time.Since(began).Seconds())
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return done, nil
}

// simulate runs one case. Where each check goes to any replica, all of them see the same, so one is simulated, with its share of the
// checks; else all are.
func (f fleet) simulate(ctx context.Context, seed uint64, callers *chooser, weight uint32) (outcome, error) {
	random := mathrand.New(mathrand.NewPCG(seed, 1)) // #nosec G404 -- keeps no secret
	phases := make([]uint32, f.Clients)              // when a client's first token ends, milliseconds
	for i := range phases {
		phases[i] = random.Uint32N(uint32(f.Lifetime) * 1000)
	}
	simulated, rate := f.Replicas, float64(fleetRate)
	if f.Balancing == anyReplica {
		simulated, rate = 1, rate/float64(f.Replicas)
	}
	caches := make([]*shadow, simulated)
	for i := range caches {
		var err error
		if caches[i], err = newShadow(f.CacheBytes, weight); err != nil {
			return outcome{}, err
		}
	}
	perLifetime := int64(rate * float64(f.Lifetime))
	warm, all := perLifetime, perLifetime+perLifetime/4 // what is counted begins when the first tokens are all gone
	for n := range all {
		if n%(1<<20) == 0 && ctx.Err() != nil {
			return outcome{}, ctx.Err()
		}
		client := callers.choose(random)
		token := (uint64(float64(n)/rate*1000) + uint64(phases[client])) / (uint64(f.Lifetime) * 1000)
		at := 0
		if simulated > 1 {
			at = int(mixed(uint64(client)) % uint64(simulated))
		}
		caches[at].check(client, token, n >= warm)
	}
	return f.result(caches, all-warm, rate), nil
}

func (f fleet) result(caches []*shadow, counted int64, rate float64) outcome {
	o := outcome{fleet: f, Checks: counted}
	var hits, most int64
	for _, c := range caches {
		hits += c.hits
		most = max(most, c.checks)
		o.Held += c.tokens.EstimatedSize() / len(caches)
	}
	o.Hits = float64(hits) / float64(counted)
	o.Misses = (1 - o.Hits) * rate
	if f.Balancing == anyReplica {
		o.Misses *= float64(f.Replicas)
	}
	o.Busiest = float64(most) * float64(len(caches)) / float64(counted)
	return o
}

// mixed spreads numbers, as a hash of a client's id does (the finalizer of MurmurHash3).
func mixed(n uint64) uint64 {
	n ^= n >> 33
	n *= 0xff51afd7ed558ccd
	n ^= n >> 33
	n *= 0xc4ceb9fe1a85ec53
	return n ^ n>>33
}

// A shadow is the cache of verified tokens without the tokens: the same cache, with the same keys, bound, weights and options, which
// are all that it decides by. A test holds it to [validator.Cached].
type shadow struct {
	tokens *otter.Cache[[sha256.Size]byte, uint32]
	weight uint32
	checks int64
	hits   int64
}

func newShadow(bytes int64, weight uint32) (*shadow, error) {
	tokens, err := otter.New(&otter.Options[[sha256.Size]byte, uint32]{
		MaximumWeight: uint64(bytes),
		Weigher:       func(_ [sha256.Size]byte, weight uint32) uint32 { return weight },
		Executor:      func(f func()) { f() },
	})
	return &shadow{tokens: tokens, weight: weight}, err
}

// check looks a client's token up, and remembers it if it is not there.
func (s *shadow) check(client int, token uint64, counted bool) {
	var name [16]byte
	binary.LittleEndian.PutUint64(name[:], uint64(client))
	binary.LittleEndian.PutUint64(name[8:], token)
	id := sha256.Sum256(name[:])
	_, hit := s.tokens.GetIfPresent(id)
	if !hit {
		s.tokens.Set(id, s.weight)
	}
	if !counted {
		return
	}
	s.checks++
	if hit {
		s.hits++
	}
}

// A chooser chooses clients by Zipf's law, each choice in the same time (A. J. Walker's alias method, 1977).
type chooser struct {
	keep  []float64
	alias []int32
}

func newChooser(clients int) *chooser {
	c := &chooser{keep: make([]float64, clients), alias: make([]int32, clients)}
	sum := 0.0
	for i := range c.keep {
		c.keep[i] = 1 / float64(i+1) // to the power of zipf, which is 1
		sum += c.keep[i]
	}
	var small, large []int32
	for i := range c.keep {
		c.keep[i] *= float64(clients) / sum
		if c.keep[i] < 1 {
			small = append(small, int32(i))
		} else {
			large = append(large, int32(i))
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		c.alias[s] = l
		c.keep[l] -= 1 - c.keep[s]
		if c.keep[l] < 1 {
			large, small = large[:len(large)-1], append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		c.keep[i] = 1 // up to rounding
	}
	return c
}

func (c *chooser) choose(random *mathrand.Rand) int {
	i := random.IntN(len(c.keep))
	if random.Float64() < c.keep[i] {
		return i
	}
	return int(c.alias[i])
}

func (s *simulation) write(file string) error {
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, cellsInLines(text), 0o600)
}

func readSimulation(file string) (*simulation, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := new(simulation)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// of returns what came of a case; nil if it was not simulated.
func (s *simulation) of(f fleet) *outcome {
	for i := range s.Outcomes {
		if s.Outcomes[i].fleet == f {
			return &s.Outcomes[i]
		}
	}
	return nil
}

// print writes the outcomes as a table.
func (s *simulation) print(w io.Writer) {
	t := table{{"clients", "token lives", "replicas", "balancing", "cache", "hits", "misses a second", "tokens held", "busiest"}}
	for _, o := range s.Outcomes {
		t = append(t, []string{
			thousands(float64(o.Clients)), lives(o.Lifetime), fmt.Sprint(o.Replicas), o.Balancing, fmt.Sprintf("%d MiB", o.CacheBytes>>20),
			percent(o.Hits), fmt.Sprintf("%.0f", o.Misses), thousands(float64(o.Held)), fmt.Sprintf("%.1f", o.Busiest),
		})
	}
	t.print(w)
}

func lives(seconds int) string {
	if seconds%3600 == 0 {
		return fmt.Sprintf("%d h", seconds/3600)
	}
	return fmt.Sprintf("%d min", seconds/60)
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
