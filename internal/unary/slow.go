package unary

import (
	"time"

	"golang.org/x/net/http2"
)

// A client that begins requests and does not end them, or lets no answer through, gets only so much time: what it makes us hold
// is held for Limits.Stall, or until the request's deadline. The leader looks after it, as the streams are its own: when
// reading is interrupted by its deadline, which is set while something is incomplete.

// A mark is when a stream had got how far.
type mark struct {
	at    time.Time
	bytes int64
}

const (
	// looks is how often in Limits.Stall there is a look at the streams, and mostLooks how often for the sake of deadlines.
	looks, mostLooks = 4, 128
	// leastProgress is how many bytes in Limits.Stall are enough. A message needs an eighth of what has come as well, so that
	// it cannot be kept for long with little.
	leastProgress = 1 << 10
	leastPart     = 8
)

// expect sees to it that there is a look at the requests that are not complete with what was read.
func (c *conn) expect() {
	for _, call := range c.fresh {
		if !call.remoteEnded {
			now := time.Now()
			c.mu.Lock()
			c.arm(c.nextLook(call, now))
			c.mu.Unlock()
		}
	}
	clear(c.fresh)
	c.fresh = c.fresh[:0]
	if !c.blockEnds.IsZero() {
		c.mu.Lock()
		c.arm(c.blockEnds)
		c.mu.Unlock()
	}
}

func (c *conn) nextLook(call *call, now time.Time) time.Time {
	at := now.Add(c.server.limits.Stall / looks)
	if d := call.deadline; !call.remoteEnded && !d.IsZero() && d.Before(at) {
		at = d
	}
	if soonest := now.Add(c.server.limits.Stall / mostLooks); at.Before(soonest) {
		return soonest
	}
	return at
}

// arm interrupts reading at a time, if not before. The caller holds mu.
func (c *conn) arm(at time.Time) {
	if c.finished || !c.lookAt.IsZero() && !at.Before(c.lookAt) {
		return
	}
	c.lookAt = at
	_ = c.nc.SetReadDeadline(at)
}

// interrupt has the leader end the connection. The caller holds mu.
func (c *conn) interrupt(fault error) {
	if c.fault == nil {
		c.fault = fault
		c.arm(time.Unix(1, 0))
	}
}

// look looks at all streams, after err has interrupted reading. It returns an error if that is to be the end: err, if it is
// none of our interruptions.
func (c *conn) look(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, stall := time.Now(), c.server.limits.Stall
	switch {
	case c.fault != nil:
		return c.fault
	case c.finished || c.lookAt.IsZero():
		return err
	case !c.blockEnds.IsZero() && !now.Before(c.blockEnds):
		return c.broken(http2.ErrCodeEnhanceYourCalm, "a header block that does not end")
	}
	// When nobody has read for long, what is missing may have come. But it is not an excuse for ever.
	c.late = !c.late && now.Sub(c.lookAt) > stall/(2*looks)
	c.lookAt = time.Time{}
	_ = c.nc.SetReadDeadline(time.Time{})
	for _, call := range c.streams {
		if call.remoteEnded && call.rest == nil {
			continue // its handler runs
		}
		if c.tooSlow(call, now) {
			c.resetLocked(call.id, http2.ErrCodeCancel)
			continue
		}
		c.arm(c.nextLook(call, now))
	}
	return nil
}

// tooSlow returns whether a stream has had its time.
func (c *conn) tooSlow(call *call, now time.Time) bool {
	bytes, least := call.incoming.bytes+call.sent, int64(leastProgress)
	if !call.remoteEnded {
		if !call.deadline.IsZero() && !now.Before(call.deadline) {
			return true
		}
		least = max(least, bytes/leastPart)
	}
	if call.mark.at.IsZero() || bytes-call.mark.bytes >= least {
		call.mark = mark{now, bytes}
	}
	return now.Sub(call.mark.at) >= c.server.limits.Stall && !c.late
}
