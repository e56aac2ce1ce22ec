package authz

import (
	"context"
	"sync"
	"time"
)

// margin is what is kept of Envoy's deadline to send the answer in: a fifth of the time left, between 10 and 100 ms. An
// answer that comes too late is an error to Envoy, which may let the request through.
func margin(left time.Duration) time.Duration {
	return min(max(left/5, 10*time.Millisecond), 100*time.Millisecond, left)
}

// An earlier is a context that ends the margin before its parent does. Most checks wait for nothing, so it has no timer until
// somebody waits: with one for each check, [context.WithDeadline] would be a tenth of what the check costs.
type earlier struct {
	context.Context
	began time.Time

	mu     sync.Mutex
	waited context.Context // with the timer; nil until somebody waits
	cancel context.CancelFunc
	ended  bool // by release
}

// beforeDeadline returns a context for a check that began at a time. The caller must call release when nobody needs the context
// any more.
func beforeDeadline(ctx context.Context, began time.Time) *earlier {
	return &earlier{Context: ctx, began: began}
}

// Deadline implements [context.Context].
func (e *earlier) Deadline() (time.Time, bool) {
	deadline, ok := e.Context.Deadline()
	if ok {
		deadline = deadline.Add(-margin(deadline.Sub(e.began)))
	}
	return deadline, ok
}

// Done implements [context.Context].
func (e *earlier) Done() <-chan struct{} { return e.timed().Done() }

// timed returns the context that Done is about.
func (e *earlier) timed() context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waited == nil {
		e.waited, e.cancel = context.WithCancel(e.Context)
		if deadline, ok := e.Deadline(); ok {
			e.waited, e.cancel = context.WithDeadline(e.Context, deadline)
		}
		if e.ended {
			e.cancel()
		}
	}
	return e.waited
}

// Err implements [context.Context].
func (e *earlier) Err() error {
	if err := e.Context.Err(); err != nil {
		return err //nolint:wrapcheck // it is one of the two that a context has
	}
	if deadline, ok := e.Deadline(); ok && !time.Now().Before(deadline) {
		return e.timed().Err() // its Done is closed by now
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waited != nil {
		return e.waited.Err()
	}
	return nil
}

// Value implements [context.Context]. What package context looks up there tells it that it needs no goroutine of its own to
// watch a context whose Done somebody has asked for.
func (e *earlier) Value(key any) any {
	e.mu.Lock()
	waited := e.waited
	e.mu.Unlock()
	if waited != nil {
		return waited.Value(key)
	}
	return e.Context.Value(key)
}

func (e *earlier) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	if e.cancel != nil {
		e.cancel()
	}
}
