package refresh

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	life  = time.Hour
	early = 6 * time.Minute // so that a value is replaced from 51 to 54 minutes on
	slow  = 5 * time.Second // how long a fetch takes
)

var errDown = errors.New("down")

// origin is where values come from: numbers, one for each fetch.
type origin struct {
	mu      sync.Mutex
	fetches int
	from    []time.Time
	fail    error
	life    time.Duration
	reports []Report
}

func (o *origin) fetch(ctx context.Context, from time.Time) (Value[int], error) {
	obtained := time.Now()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return Value[int]{}, ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fetches++
	o.from = append(o.from, from)
	if o.fail != nil {
		return Value[int]{}, o.fail
	}
	return Value[int]{V: o.fetches, Obtained: obtained, Expiry: obtained.Add(o.life)}, nil
}

func (o *origin) setFail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = err
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fetches
}

func newSource(edit ...func(*Config[int])) (*Source[int], *origin) {
	o := &origin{life: life}
	cfg := Config[int]{
		Fetch:       o.fetch,
		Timeout:     time.Minute,
		EarlyExpiry: early,
		Rest: func(_ error, failures int, usable bool) (idle, needed time.Duration) {
			if usable {
				return 30 * time.Second, 0
			}
			return 30 * time.Second, time.Duration(failures) * time.Second
		},
		Report: func(r Report) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.reports = append(o.reports, r)
		},
		Now: time.Now,
	}
	for _, e := range edit {
		e(&cfg)
	}
	return New(cfg), o
}

// get fails the test unless the value is want, or the error matches it.
func get(t *testing.T, s *Source[int], want any) {
	t.Helper()
	got, err := s.Get(t.Context())
	check(t, got, err, want)
}

func check(t *testing.T, got int, err error, want any) {
	t.Helper()
	switch want := want.(type) {
	case int:
		if err != nil || got != want {
			t.Errorf("got %d, %v, want %d", got, err, want)
		}
	case error:
		if !errors.Is(err, want) || got != 0 {
			t.Errorf("got %d, %v, want %v", got, err, want)
		}
	}
}

func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { get(t, s, 1) })
		}
		all.Wait()
		get(t, s, 1)
		if o.count() != 1 {
			t.Errorf("%d fetches, want 1", o.count())
		}
	})
}

func TestValueIsReplacedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		start := time.Now()
		get(t, s, 1)
		time.Sleep(time.Until(start.Add(51*time.Minute - time.Second)))
		get(t, s, 1)
		synctest.Wait()
		time.Sleep(time.Until(start.Add(54 * time.Minute)))
		before := time.Now()
		for range 100 { // only the first of them starts a fetch, and nobody waits for it
			get(t, s, 1)
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("callers waited %v, want not at all", waited)
		}
		time.Sleep(slow)
		synctest.Wait()
		get(t, s, 2)
		if o.count() != 2 {
			t.Errorf("%d fetches, want 2", o.count())
		}
	})
}

// A fleet that got its values at one instant replaces them spread over half of EarlyExpiry.
func TestFleetDoesNotReplaceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fleet = 1000
		var sources [fleet]*Source[int]
		var origins [fleet]*origin
		var wg sync.WaitGroup
		for i := range sources {
			sources[i], origins[i] = newSource()
			wg.Go(func() { get(t, sources[i], 1) })
		}
		wg.Wait()
		begin := time.Now().Add(-slow)
		var minutes [4]int // how many were replaced in each minute from 51 on
		time.Sleep(time.Until(begin.Add(51 * time.Minute)))
		for minute := range minutes {
			for range 12 {
				for i := range sources {
					if _, err := sources[i].Get(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(5 * time.Second)
			}
			synctest.Wait()
			for i := range origins {
				minutes[minute] += origins[i].count() - 1
			}
		}
		for i := len(minutes) - 1; i > 0; i-- {
			minutes[i] -= minutes[i-1]
		}
		for i, n := range minutes[:3] {
			if n < fleet/5 || n > fleet/2 {
				t.Errorf("%d of %d were replaced in minute %d, want about a third: %v", n, fleet, 51+i, minutes)
			}
		}
	})
}

func TestValueAtHandServesWhileFetchesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		start := time.Now()
		get(t, s, 1)
		o.setFail(errDown)
		end := start.Add(life - 10*time.Second)
		for time.Now().Before(end) {
			get(t, s, 1)
			time.Sleep(100 * time.Millisecond)
		}
		// From 51 to 54 minutes on, a fetch of 5s and a rest of 30s, in turn.
		if n := o.count(); n < 10 || n > 16 {
			t.Errorf("%d fetches in an outage of some 8 minutes, want about one in 35s", n)
		}
		get(t, s, errDown)
		o.setFail(nil)
		time.Sleep(time.Minute)
		get(t, s, o.count()+1)
	})
}

// Whenever the fetch is due within its spread: an outage that begins with it is not seen if it ends before the value does.
func TestOutageShorterThanEarlyExpiryIsNotSeen(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			s, o := newSource()
			get(t, s, 1)
			o.setFail(errDown)
			for o.count() == 1 {
				get(t, s, 1)
				time.Sleep(time.Second)
			}
			ends := time.Now().Add(early - 10*time.Second - slow)
			time.AfterFunc(time.Until(ends), func() { o.setFail(nil) })
			for until := ends.Add(time.Minute); time.Now().Before(until); time.Sleep(time.Second) {
				if _, err := s.Get(t.Context()); err != nil {
					t.Fatalf("%v before the outage ends: %v", time.Until(ends), err)
				}
			}
			time.Sleep(time.Minute)
		})
	}
}

func TestEachContextBoundsItsOwnWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		begin := time.Now()
		first, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			got, err := s.Get(first)
			check(t, got, err, context.Canceled)
			if waited := time.Since(begin); waited != time.Second {
				t.Errorf("the first caller waited %v, want until it was cancelled", waited)
			}
		})
		synctest.Wait()
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			got, err := s.Get(ctx)
			check(t, got, err, context.DeadlineExceeded)
		})
		all.Go(func() { get(t, s, 1) })
		time.Sleep(time.Second)
		cancel()
		all.Wait()
		if o.count() != 1 {
			t.Errorf("%d fetches, want 1", o.count())
		}
	})
}

func TestNoFetchForAContextThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got, err := s.Get(ctx)
		check(t, got, err, context.Canceled)
		time.Sleep(slow + time.Second)
		if o.count() != 0 {
			t.Errorf("%d fetches, want none", o.count())
		}
		get(t, s, 1)
		if got, err := s.Get(ctx); got != 1 || err != nil { // which is at hand
			t.Errorf("got %d, %v, want 1", got, err)
		}
	})
}

func TestFetchWithoutCallersEndsWithinItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Duration, 1)
		begin := time.Now()
		s, _ := newSource(func(c *Config[int]) {
			c.Timeout = 20 * time.Second
			c.Fetch = func(ctx context.Context, _ time.Time) (Value[int], error) {
				<-ctx.Done()
				ended <- time.Since(begin)
				return Value[int]{}, ctx.Err()
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err := s.Get(ctx)
		check(t, got, err, context.DeadlineExceeded)
		if took := <-ended; took != 20*time.Second {
			t.Errorf("the fetch ended after %v, want 20s", took)
		}
	})
}

func TestFailureIsRememberedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		o.setFail(errDown)
		get(t, s, errDown)
		for range 1000 {
			_, err := s.Get(t.Context())
			if !errors.Is(err, errDown) || !strings.Contains(err.Error(), "asking again in 1s") {
				t.Fatalf("got %v, want the same error, and when it is asked again", err)
			}
		}
		if o.count() != 1 {
			t.Errorf("%d fetches, want 1", o.count())
		}
		time.Sleep(time.Second)
		get(t, s, errDown)
		time.Sleep(time.Second) // the second failure rests for two
		get(t, s, errDown)
		if o.count() != 2 {
			t.Errorf("%d fetches, want 2", o.count())
		}
		time.Sleep(time.Second)
		o.setFail(nil)
		get(t, s, 3)

		o.mu.Lock()
		defer o.mu.Unlock()
		want := []Report{
			{Err: errDown, Failures: 1, Took: slow, Rest: time.Second},
			{Err: errDown, Failures: 2, Took: slow, Rest: 2 * time.Second},
			{Failures: 2, Took: slow, Usable: true},
		}
		synctest.Wait()
		if fmt.Sprint(o.reports) != fmt.Sprint(want) {
			t.Errorf("reports are\n%v, want\n%v", o.reports, want)
		}
	})
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		get(t, s, 1)
		time.Sleep(time.Minute)
		now := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				got, err := s.Renew(t.Context(), now)
				check(t, got, err, 2)
			})
		}
		all.Wait()
		got, err := s.Renew(t.Context(), now) // it has been renewed since
		check(t, got, err, 2)
		get(t, s, 2)
		if o.count() != 2 {
			t.Errorf("%d fetches, want 2", o.count())
		}
	})
}

// A fetch that began before the call is not what Renew is asked for.
func TestRenewDoesNotTakeWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		var all sync.WaitGroup
		all.Go(func() { get(t, s, 1) })
		time.Sleep(time.Second)
		all.Go(func() {
			got, err := s.Renew(t.Context(), time.Now())
			check(t, got, err, 2)
		})
		all.Wait()
		if o.count() != 2 {
			t.Errorf("%d fetches, want 2", o.count())
		}
	})
}

func TestFailedRenewLeavesTheValueAtHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		get(t, s, 1)
		o.setFail(errDown)
		got, err := s.Renew(t.Context(), time.Now())
		check(t, got, err, errDown)
		got, err = s.Renew(t.Context(), time.Now()) // remembered
		check(t, got, err, errDown)
		get(t, s, 1)
		if o.count() != 2 {
			t.Errorf("%d fetches, want 2", o.count())
		}
	})
}

// What a shared cache has serves while no better value can be had, and the failure counts.
func TestValueWithAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource(func(c *Config[int]) {
			inner := c.Fetch
			c.Fetch = func(ctx context.Context, from time.Time) (Value[int], error) {
				v, err := inner(ctx, from)
				if err != nil && from.IsZero() {
					now := time.Now()
					return Value[int]{V: 7, Obtained: now.Add(-55 * time.Minute), Expiry: now.Add(5 * time.Minute)}, err
				}
				return v, err
			}
		})
		o.setFail(errDown)
		for range 10 {
			get(t, s, 7)
		}
		synctest.Wait()
		if o.count() != 1 { // it is due, but the source rests
			t.Errorf("%d fetches, want 1", o.count())
		}
		time.Sleep(30 * time.Second)
		get(t, s, 7)
		time.Sleep(slow)
		synctest.Wait()
		if o.count() != 2 || o.from[1].IsZero() {
			t.Errorf("%d fetches, the last from %v, want 2, and it newer than the value at hand", o.count(), o.from[1])
		}
	})
}

// With the clock set back, what was fetched looks older than it was asked for. It must not be fetched again and again.
func TestRenewWhileTheClockIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		got, err := s.Renew(t.Context(), time.Now().Add(time.Hour))
		check(t, got, err, 1)
		if o.count() != 1 {
			t.Errorf("%d fetches, want 1", o.count())
		}
	})
}

// Who found a value due may come too late: another has replaced it already.
func TestReplacedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		get(t, s, 1)
		old := s.current.Load()
		time.Sleep(55 * time.Minute)
		got, err := s.Renew(t.Context(), time.Now())
		check(t, got, err, 2)
		s.replaceInBackground(time.Now(), old)
		time.Sleep(slow)
		synctest.Wait()
		if o.count() != 2 {
			t.Errorf("%d fetches, want 2", o.count())
		}
	})
}

// What is past does not count once a fetch has gone well.
func TestNoRestAfterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource(func(c *Config[int]) {
			c.Rest = func(error, int, bool) (idle, needed time.Duration) { return time.Hour, 0 }
		})
		o.setFail(errDown)
		get(t, s, errDown)
		o.setFail(nil)
		get(t, s, 2)
		time.Sleep(time.Second)
		got, err := s.Renew(t.Context(), time.Now())
		check(t, got, err, 3)
	})
}

func TestNoRestAfterTheClockWasSetBack(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	fetches := 0
	s := New(Config[int]{
		Fetch: func(context.Context, time.Time) (Value[int], error) {
			fetches++
			return Value[int]{}, errDown
		},
		Timeout: time.Minute,
		Rest:    func(error, int, bool) (idle, needed time.Duration) { return time.Minute, time.Minute },
		Now:     func() time.Time { return now },
	})
	for _, back := range []time.Duration{0, 0, time.Hour, 0} {
		now = now.Add(-back)
		get(t, s, errDown)
	}
	if fetches != 2 {
		t.Errorf("%d fetches, want one at first and one after the clock was set back", fetches)
	}
}

// What a report says of a failure, with a usable value and without one.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		get(t, s, 1)
		o.setFail(errDown)
		time.Sleep(55 * time.Minute)
		get(t, s, 1)
		time.Sleep(10 * time.Minute)
		get(t, s, errDown)
		synctest.Wait()
		o.mu.Lock()
		defer o.mu.Unlock()
		want := []Report{
			{Took: slow, Usable: true},
			{Err: errDown, Failures: 1, Took: slow, Rest: 30 * time.Second, Usable: true},
			{Err: errDown, Failures: 2, Took: slow, Rest: 2 * time.Second},
		}
		if fmt.Sprint(o.reports) != fmt.Sprint(want) {
			t.Errorf("reports are\n%v, want\n%v", o.reports, want)
		}
	})
}

func TestInstant(t *testing.T) {
	base := time.Now()
	i := instantAt(base.Add(time.Minute), base)
	for name, tc := range map[string]struct {
		monotonic, wall time.Duration
		want            bool
	}{
		"before":                       {time.Minute - 1, time.Minute - 1, false},
		"at it":                        {time.Minute, time.Minute, true},
		"at it by the monotonic clock": {time.Minute, 0, true},
		"at it by the wall clock":      {0, time.Minute, true},
	} {
		if got := i.reached(apart(base, tc.monotonic, tc.wall)); got != tc.want {
			t.Errorf("%s: reached is %v, want %v", name, got, tc.want)
		}
	}
}

// A value that lives for less than a margin is given to those who waited for it, and to nobody else.
func TestValueThatHardlyLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, o := newSource()
		o.life = slow
		get(t, s, 1)
		get(t, s, 2)
		if o.count() != 2 {
			t.Errorf("%d fetches, want 2", o.count())
		}
	})
}

type thrown struct{ secret string }

func TestFetchThatDoesNotReturn(t *testing.T) {
	for name, tc := range map[string]struct {
		fetch func()
		want  string
	}{
		"panics":             {func() { panic(thrown{"canary"}) }, "panic with a refresh.thrown"},
		"divides by zero":    {func() { _ = 1 / len(t.Name()[:0]) }, "panic: runtime error: integer divide by zero"},
		"panics with text":   {func() { panic("canary") }, "panic with a string"},
		"ends its goroutine": {runtime.Goexit, "the fetch ended without a result"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newSource(func(c *Config[int]) {
				c.Fetch = func(context.Context, time.Time) (Value[int], error) {
					tc.fetch()
					return Value[int]{}, nil
				}
			})
			_, err := s.Get(t.Context())
			if err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestReportThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSource(func(c *Config[int]) { c.Report = func(Report) { panic("a logger") } })
		get(t, s, 1)
		synctest.Wait()
		get(t, s, 1)
	})
}

// The wall clock and the monotonic one may go apart: a machine sleeps, a clock is set.
func TestClocksThatGoApart(t *testing.T) {
	base := time.Now()
	for name, tc := range map[string]struct {
		monotonic, wall time.Duration // how far each has come
		fetches         int
	}{
		"nothing has passed":                   {0, 0, 1},
		"both are at the end":                  {life, life, 2},
		"the machine has slept":                {0, life, 2},
		"the wall clock was set back":          {life, -life, 2},
		"the wall clock was set back, in time": {30 * time.Minute, -life, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var now atomic.Pointer[time.Time]
			now.Store(&base)
			fetches := 0
			s := New(Config[int]{
				Fetch: func(context.Context, time.Time) (Value[int], error) {
					fetches++
					wall := now.Load().Round(0)
					return Value[int]{V: fetches, Obtained: wall, Expiry: wall.Add(life)}, nil
				},
				Timeout: time.Minute,
				Rest:    func(error, int, bool) (idle, needed time.Duration) { return 0, 0 },
				Now:     func() time.Time { return *now.Load() },
			})
			get(t, s, 1)
			later := apart(base, tc.monotonic, tc.wall)
			now.Store(&later)
			get(t, s, tc.fetches)
		})
	}
}

// apart returns base with its two clocks moved by different spans, as package time has no way to do.
func apart(base time.Time, monotonic, wall time.Duration) time.Time {
	moved := base.Add(wall)
	reading := (*struct {
		wall      uint64
		monotonic int64
	})(unsafe.Pointer(&moved)) // the first two fields of a time.Time, which TestApart holds
	reading.monotonic += int64(monotonic - wall)
	return moved
}

func TestApart(t *testing.T) {
	base := time.Now()
	moved := apart(base, time.Minute, -time.Hour)
	if m, w := moved.Sub(base), moved.Round(0).Sub(base.Round(0)); m != time.Minute || w != -time.Hour {
		t.Fatalf("the clocks moved by %v and %v, want 1m and -1h", m, w)
	}
}

func TestPlan(t *testing.T) {
	obtained := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for name, tc := range map[string]struct {
		life, early  time.Duration
		spread       float64
		replace, end time.Duration // before the expiry
	}{
		"an hour":                       {time.Hour, 0, 0, 5 * time.Minute, 10 * time.Second},
		"an hour, as early as it gets":  {time.Hour, 0, 1, 7*time.Minute + 30*time.Second, 10 * time.Second},
		"five minutes":                  {5 * time.Minute, 0, 0, 30 * time.Second, 10 * time.Second},
		"a day":                         {24 * time.Hour, 0, 0.5, 6*time.Minute + 15*time.Second, 10 * time.Second},
		"half a minute":                 {30 * time.Second, 0, 0, 3 * time.Second, 1500 * time.Millisecond},
		"as configured":                 {time.Hour, time.Minute, 0, time.Minute, 10 * time.Second},
		"as configured, and spread":     {time.Hour, 10 * time.Minute, 1, 15 * time.Minute, 10 * time.Second},
		"earlier than it lives":         {time.Hour, 24 * time.Hour, 1, 30 * time.Minute, 10 * time.Second},
		"a second before":               {time.Hour, time.Second, 0, time.Second, 500 * time.Millisecond},
		"a life that is none":           {0, 0, 1, 0, 0},
		"a life that is less than none": {-time.Hour, 0, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			expiry := obtained.Add(tc.life)
			replace, end := Plan(obtained, expiry, tc.early, tc.spread)
			if got := expiry.Sub(replace); got != tc.replace {
				t.Errorf("it is replaced %v before its expiry, want %v", got, tc.replace)
			}
			if got := expiry.Sub(end); got != tc.end {
				t.Errorf("it serves until %v before its expiry, want %v", got, tc.end)
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := New(Config[*int]{
		Fetch: func(context.Context, time.Time) (Value[*int], error) {
			now := time.Now()
			return Value[*int]{V: new(int), Obtained: now, Expiry: now.Add(life)}, nil
		},
		Timeout: time.Minute,
		Now:     time.Now,
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
