package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Stats says what the goroutines of an [Engine] do, and what it has counted.
type Stats struct {
	// Workers is the number of goroutines that evaluate, or wait to while [Engine.Run] runs. At most Config.Concurrency.
	Workers int
	// Late is the number of evaluations whose decision has timed out and that have not ended nevertheless. It goes back to
	// zero within microseconds unless a builtin function ignores cancellation. Up to Config.Concurrency of them are
	// replaced by new workers; from then on they take the place of workers.
	Late int
	// UnknownKeys is how many keys of decisions meant nothing and were ignored, since the start. Only [DialectOPAEnvoy]
	// ignores any.
	UnknownKeys uint64
}

// workers evaluates on goroutines of its own, so that the caller can leave at its deadline even if the evaluation does
// not. Each goroutine holds a slot, and there are as many slots as evaluations may run at once. While run runs, a
// goroutine that has nothing to do waits for the next job and keeps its slot; else it ends.
type workers struct {
	jobs     chan *job     // unbuffered: taken by a goroutine that waits
	slots    chan struct{} // one element for each goroutine that holds a slot
	ended    atomic.Pointer[chan struct{}]
	patience time.Duration // how long all slots may have late evaluations before nothing waits for one any more
	logger   *slog.Logger

	fullSince atomic.Int64 // when all slots came to have late evaluations, in Unix nanoseconds; zero if they have not
	told      atomic.Int64 // the fullSince that was logged
	mu        sync.Mutex   // protects what follows, and orders a job's end with its being given up
	replaced  int          // late evaluations whose slot was given away
	stuck     int          // late evaluations that hold a slot, because as many as there are slots were given away
}

// A job is one evaluation.
type job struct {
	eval   func(*cancel) (Decision, error)
	cancel cancel
	state  atomic.Int32
	done   chan struct{} // closed when what follows is there; never for a late one

	decision Decision
	err      error
}

// The states of a job. A running one becomes done, by its goroutine, or late, by its caller.
const (
	running int32 = iota
	done          // decision and err are there
	late          // nobody waits for it
)

func newWorkers(n int, patience time.Duration, logger *slog.Logger) *workers {
	w := &workers{jobs: make(chan *job), slots: make(chan struct{}, n), patience: patience, logger: logger}
	ended := make(chan struct{})
	close(ended)
	w.ended.Store(&ended)
	return w
}

// run lets goroutines wait for jobs until ctx ends.
func (w *workers) run(ctx context.Context) error {
	before := w.ended.Load()
	mine := make(chan struct{})
	select {
	case <-*before:
	default:
		return errors.New("Run runs already, want one at a time")
	}
	if !w.ended.CompareAndSwap(before, &mine) {
		return errors.New("Run runs already, want one at a time")
	}
	<-ctx.Done()
	close(mine)
	return nil
}

func (w *workers) stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{Workers: len(w.slots), Late: w.replaced + w.stuck}
}

// do runs eval and returns what it returns, or an error when ctx ends first.
func (w *workers) do(ctx context.Context, eval func(*cancel) (Decision, error)) (Decision, error) {
	j := &job{eval: eval, done: make(chan struct{})}
	if err := w.start(ctx, j); err != nil {
		return Decision{}, err
	}
	select {
	case <-j.done:
		return j.decision, j.err
	case <-ctx.Done():
		return w.giveUp(ctx, j)
	}
}

// start hands j to a goroutine that waits, else to a new one, else waits for one.
func (w *workers) start(ctx context.Context, j *job) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
	}
	if w.hopeless() {
		return fmt.Errorf("%w: %d evaluations do not end", ErrOverloaded, 2*cap(w.slots))
	}
	select {
	case w.jobs <- j:
		return nil
	default:
	}
	select {
	case w.jobs <- j:
		return nil
	case w.slots <- struct{}{}:
		go w.work(j)
		return nil
	case <-ctx.Done():
		cause := context.Cause(ctx)
		if errors.Is(cause, errTimeoutPassed) {
			return fmt.Errorf("%w: %d evaluations are under way", ErrOverloaded, cap(w.slots))
		}
		return fmt.Errorf("%w: %w", ErrTimeout, cause)
	}
}

// hopeless reports whether waiting for a slot is in vain. On a busy machine an evaluation may need a moment to notice
// that it is late; one that has not noticed for as long as a decision may take is inside a builtin function.
func (w *workers) hopeless() bool {
	since := w.fullSince.Load()
	if since == 0 || time.Since(time.Unix(0, since)) < w.patience {
		return false
	}
	if w.told.Swap(since) != since {
		w.logger.Error("policy evaluations do not end, so none can start: a builtin function ignores cancellation", "late", 2*cap(w.slots))
	}
	return true
}

// giveUp leaves j to itself, unless it is done at this very moment.
func (w *workers) giveUp(ctx context.Context, j *job) (Decision, error) {
	j.cancel.Cancel()
	if !w.writeOff(j) {
		<-j.done
		return j.decision, j.err
	}
	return Decision{}, fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
}

// writeOff marks a running j as late, and gives its slot to another goroutine if that was not done too often already.
func (w *workers) writeOff(j *job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !j.state.CompareAndSwap(running, late) {
		return false
	}
	if w.replaced < cap(w.slots) {
		w.replaced++
		<-w.slots
		return true
	}
	if w.stuck++; w.stuck == cap(w.slots) {
		w.fullSince.Store(time.Now().UnixNano())
	}
	return true
}

// work evaluates j, then what else comes.
func (w *workers) work(j *job) {
	for {
		j.decision, j.err = j.eval(&j.cancel)
		if j.state.CompareAndSwap(running, done) {
			close(j.done)
		} else if !w.endLate() {
			return
		}

		select {
		case j = <-w.jobs:
		case <-*w.ended.Load():
			<-w.slots
			return
		}
	}
}

// endLate counts a late job as ended, and reports whether its goroutine has a slot to go on with. Slots are all the
// same: if late jobs hold any, it takes one of those.
func (w *workers) endLate() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck == 0 {
		w.replaced--
		return false
	}
	w.stuck--
	w.fullSince.Store(0)
	return true
}
