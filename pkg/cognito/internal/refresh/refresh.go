// Package refresh keeps a value that expires, such as a token, and replaces it in time.
//
// A [Source] gets a value when somebody asks for one, and never otherwise: it has no goroutine but that of a fetch under
// way, which ends within [Config.Timeout]. Whoever asks while there is a usable value gets it at once. Near its end, the
// first who asks starts a fetch in the background. Without a usable value, all who ask wait for one fetch, each as long as
// their own context allows. After a fetch has failed, nobody asks again for a while: see [Config.Rest].
package refresh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Value is what is kept, with its life by the local clock.
type Value[T any] struct {
	V                T
	Obtained, Expiry time.Time
}

// A Config says how values are got.
type Config[T any] struct {
	// Fetch gets a value that was obtained at the given time or later; the zero time is for any that can be used. It must
	// return when ctx ends. ctx is that of no caller: the fetch is shared. Required.
	//
	// A value has an Expiry. One with an error means that no better one could be had: it is taken, and the failure counts.
	Fetch func(ctx context.Context, from time.Time) (Value[T], error)
	// Timeout bounds one fetch. Required.
	Timeout time.Duration
	// EarlyExpiry is how long before its expiry a value is replaced at the latest. See [Plan] for the default and for what
	// is made of it.
	EarlyExpiry time.Duration
	// Rest says for how long nobody asks again after so many fetches in a row have failed, the last of them with err: idle is
	// for those that replace a value which is still usable, needed for those without one, who get err until then. usable says
	// whether there is a usable value at that time. Required.
	Rest func(err error, failures int, usable bool) (idle, needed time.Duration)
	// Report, if set, is told how each fetch ended, after those who waited for it.
	Report func(Report)
	// Now is the clock. Required.
	Now func() time.Time
}

// A Report says how a fetch ended.
type Report struct {
	Err      error         // why it failed; nil if it did not
	Failures int           // how many have failed in a row; of a fetch that did not, how many had before it
	Took     time.Duration // by Config.Now
	Rest     time.Duration // how long nobody asks again now; only with Err
	Usable   bool          // whether there is a usable value now
}

// A Source yields a value that has not expired. It is safe for concurrent use.
type Source[T any] struct {
	cfg     Config[T]
	current atomic.Pointer[held[T]] // nil before the first; written with mu held

	mu       sync.Mutex
	flight   *flight[T] // the fetch under way; nil if none
	failures int        // how many have failed in a row
	err      error      // why the last one failed; nil if it did not
	failedAt time.Time
	idle     time.Duration // what Config.Rest said of it
	needed   time.Duration
}

// held is a value and how long it serves. It is not changed.
type held[T any] struct {
	Value[T]
	replace, end instant
}

// flight is a fetch under way. What it got is set before done is closed.
type flight[T any] struct {
	from  time.Time
	done  chan struct{}
	value Value[T]
	err   error
}

// New returns a source that has nothing yet.
func New[T any](cfg Config[T]) *Source[T] { return &Source[T]{cfg: cfg} }

// Get returns a value that has not expired. With one at hand it does not wait, and does not look at ctx. Errors are those of
// Fetch and of ctx.
func (s *Source[T]) Get(ctx context.Context) (T, error) {
	now := s.cfg.Now()
	if h := s.current.Load(); h != nil && !h.end.reached(now) {
		if h.replace.reached(now) {
			s.replaceInBackground(now, h)
		}
		return h.V, nil
	}
	return s.wait(ctx, time.Time{})
}

// Renew returns a value that was obtained at the given time or later, and has not expired: the one at hand, that of the
// fetch under way, or that of a new one. Errors are those of [Source.Get].
func (s *Source[T]) Renew(ctx context.Context, from time.Time) (T, error) {
	return s.wait(ctx, from.Round(0))
}

// wait returns a value obtained at from or later, as soon as there is one.
func (s *Source[T]) wait(ctx context.Context, from time.Time) (none T, _ error) {
	for {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		h, f, err := s.join(from)
		switch {
		case err != nil:
			return none, err
		case h != nil:
			return h.V, nil
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return none, ctx.Err()
		}
		// A fetch that was under way already may have asked for less than this caller needs; what it got may do all the same.
		if !f.from.Before(from) {
			return f.value.V, f.err
		}
	}
}

// join returns the value at hand if it will do, and else the fetch to wait for, which it starts if there is none.
func (s *Source[T]) join(from time.Time) (*held[T], *flight[T], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if h := s.current.Load(); h != nil && !h.end.reached(now) && !h.Obtained.Before(from) {
		return h, nil, nil
	}
	if s.flight == nil {
		rest := s.needed
		if !from.IsZero() {
			rest = max(rest, s.idle) // there is, or was, a value that has not expired
		}
		if left := s.resting(now, rest); left > 0 {
			return nil, nil, fmt.Errorf("%w (remembered; asking again in %v)", s.err, left.Round(100*time.Millisecond))
		}
		s.takeOff(now, from)
	}
	return nil, s.flight, nil
}

func (s *Source[T]) replaceInBackground(now time.Time, h *held[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil && s.current.Load() == h && s.resting(now, s.idle) <= 0 {
		s.takeOff(now, h.Obtained.Add(1))
	}
}

// resting returns how much is left of the rest after a failure. The caller holds mu.
func (s *Source[T]) resting(now time.Time, rest time.Duration) time.Duration {
	since := now.Sub(s.failedAt)
	if s.err == nil || since < 0 { // the clock was set back
		return 0
	}
	return rest - since
}

// takeOff starts a fetch. Its context is that of no caller, as others may come to wait for it, and what one caller's
// context carries is not for the others. The caller holds mu.
func (s *Source[T]) takeOff(now, from time.Time) {
	f := &flight[T]{from: from, done: make(chan struct{}), err: errEnded}
	s.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Timeout)
		defer cancel()
		defer func() { // also if Fetch ends the goroutine
			report := s.land(f)
			report.Took = s.cfg.Now().Sub(now)
			close(f.done)
			if s.cfg.Report != nil {
				defer func() { _ = recover() }() // of a logger, which must not end the process
				s.cfg.Report(report)
			}
		}()
		f.value, f.err = s.fetch(ctx, from)
	}()
}

// errEnded is for a Fetch that did not return.
var errEnded = errors.New("the fetch ended without a result")

// fetch turns a panic into an error: it happens in a goroutine of ours, where the program cannot recover from it.
func (s *Source[T]) fetch(ctx context.Context, from time.Time) (v Value[T], err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			err = fmt.Errorf("panic: %w", p)
		default:
			err = fmt.Errorf("panic with a %T", p) // whose text may be anything
		}
	}()
	return s.cfg.Fetch(ctx, from)
}

// land takes over what a fetch got.
func (s *Source[T]) land(f *flight[T]) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	s.flight = nil
	failed := f.err
	if !f.value.Expiry.IsZero() {
		s.current.Store(hold(f.value, now, s.cfg.EarlyExpiry))
		f.err = nil
	}
	h := s.current.Load()
	report := Report{Err: failed, Failures: s.failures, Usable: h != nil && !h.end.reached(now)}
	if s.err = failed; failed == nil {
		s.failures = 0
		return report
	}
	s.failures++
	s.failedAt = now
	s.idle, s.needed = s.cfg.Rest(failed, s.failures, report.Usable)
	report.Failures, report.Rest = s.failures, s.needed
	if report.Usable {
		report.Rest = s.idle
	}
	return report
}

func hold[T any](v Value[T], now time.Time, early time.Duration) *held[T] {
	replace, end := Plan(v.Obtained, v.Expiry, early, rand.Float64()) //nolint:gosec // spreads load, keeps no secret
	return &held[T]{Value: v, replace: instantAt(replace, now), end: instantAt(end, now)}
}

// Bounds of [Plan].
const (
	defaultEarly = 5 * time.Minute
	// margin is the life that a value has left at least when it is given out: for the request that it is sent with, and for
	// a server whose clock is ahead. It is what golang.org/x/oauth2 has (defaultExpiryDelta).
	margin = 10 * time.Second
)

// Plan returns when a value is replaced and when it no longer serves. early is how long before its expiry it is replaced at
// the latest, 0 for a tenth of its life, at most 5 minutes; it is at most a third of its life. spread, from 0 to 1, says how
// much earlier: up to half of early, so that nothing is replaced before half of its life has passed. It serves until 10
// seconds before its expiry, or half of early if that is less.
func Plan(obtained, expiry time.Time, early time.Duration, spread float64) (replace, end time.Time) {
	life := expiry.Sub(obtained)
	if early == 0 {
		early = min(life/10, defaultEarly)
	}
	early = max(min(early, life/3), 0)
	replace = expiry.Add(-early - time.Duration(spread*float64(early/2)))
	return replace, expiry.Add(-min(margin, early/2))
}

// An instant is a time by both clocks that a time.Time can have, reached when either says so: the monotonic one may stand
// still while the machine sleeps, and the wall clock may be set back.
type instant struct{ monotonic, wall time.Time }

func instantAt(t, now time.Time) instant {
	wall := t.Round(0)
	return instant{monotonic: now.Add(wall.Sub(now.Round(0))), wall: wall}
}

func (i instant) reached(now time.Time) bool {
	return !now.Before(i.monotonic) || !now.Round(0).Before(i.wall)
}
