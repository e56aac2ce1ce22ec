package unary

import (
	"context"
	"sync"
	"time"
)

// A call is a request on its way: a stream, what came in on it and what has yet to go out, and the context of its handler. It
// is allocated for each request and not used again, as others may keep the context.
type call struct {
	conn *conn
	id   uint32

	// Of the leader, until the handler runs.
	handler     Handler
	plain       bool   // not gRPC
	subtype     string // of the content type, with what separates it
	incoming    incoming
	window      int64 // what the client may still send
	credit      int64 // what it may be told that it may send again
	length      int64 // content-length; -1 if there is none
	turn        uint64
	heldBytes   int64
	remoteEnded bool // END_STREAM came in

	// Protected by conn.mu.
	running    bool
	gone       bool  // no longer among the connection's streams
	sendWindow int64 // negative after SETTINGS_INITIAL_WINDOW_SIZE went down (RFC 9113 section 6.9.2)
	rest       []byte
	sent       int64 // of rest
	mark       mark
	trailer    []byte
	starving   bool // among conn.starved

	deadline time.Time // zero: none

	ctx struct {
		sync.Mutex
		waited context.Context //nolint:containedctx // the part of this context that somebody waits for
		cancel context.CancelFunc
		ended  bool
	}
}

type callKey struct{}

// Deadline implements [context.Context].
func (c *call) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements [context.Context].
func (c *call) Done() <-chan struct{} { return c.waited().Done() }

// waited returns the context that Done is about. Most handlers wait for nothing, so there is none, and no timer, until one does.
func (c *call) waited() context.Context {
	c.ctx.Lock()
	defer c.ctx.Unlock()
	if c.ctx.waited == nil {
		if c.deadline.IsZero() {
			c.ctx.waited, c.ctx.cancel = context.WithCancel(context.Background())
		} else {
			c.ctx.waited, c.ctx.cancel = context.WithDeadline(context.Background(), c.deadline)
		}
		if c.ctx.ended {
			c.ctx.cancel()
		}
	}
	return c.ctx.waited
}

// Err implements [context.Context].
func (c *call) Err() error {
	c.ctx.Lock()
	waited, ended := c.ctx.waited, c.ctx.ended
	c.ctx.Unlock()
	if waited == nil && (ended || !c.deadline.IsZero() && !time.Now().Before(c.deadline)) {
		waited = c.waited() // its Done is closed by now
	}
	if waited == nil {
		return nil
	}
	return waited.Err() //nolint:wrapcheck // it is one of the two that a context has
}

// Value implements [context.Context]. What package context looks up tells it that it needs no goroutine of its own to watch a
// context whose Done somebody has asked for.
func (c *call) Value(key any) any {
	if key == (callKey{}) {
		return c
	}
	c.ctx.Lock()
	waited := c.ctx.waited
	c.ctx.Unlock()
	if waited == nil {
		return nil
	}
	return waited.Value(key)
}

// over ends the context.
func (c *call) over() {
	c.ctx.Lock()
	defer c.ctx.Unlock()
	c.ctx.ended = true
	if c.ctx.cancel != nil {
		c.ctx.cancel()
	}
}
