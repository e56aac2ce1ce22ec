package unary

import (
	"context"
	"time"

	"golang.org/x/net/http2"
)

// drainPing is the PING whose acknowledgement says that the client has seen the first GOAWAY.
var drainPing = [8]byte{'g', 'o', ' ', 'a', 'w', 'a', 'y', '!'}

// drainWait is how long to wait for it.
const drainWait = time.Second

// Shutdown takes no new connections, asks the clients of those there are to go elsewhere, answers what is under way, and closes
// each connection when that is done. It returns when all are closed, or with ctx's error when that ends. Call Close after it.
//
// A client is told twice (RFC 9113 section 6.8): first not to open streams, then, when it must have seen that, which was the
// last one that we took. So none that it has opened in between is lost.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for nc := range s.shaking {
		_ = nc.SetReadDeadline(time.Now().Add(drainWait))
	}
	for c := range s.conns {
		go c.drain()
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
	defer stop()

	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns)+len(s.shaking) > 0 && ctx.Err() == nil {
		s.changed.Wait()
	}
	if len(s.conns)+len(s.shaking) > 0 {
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
	return nil
}

// Close closes all listeners and connections and ends the contexts of what is under way. It does not wait for handlers.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.hurry.Store(true)
		close(s.crew.done)
	}
	for l := range s.listeners {
		_ = l.Close()
	}
	for nc := range s.shaking {
		_ = nc.Close()
	}
	for c := range s.conns {
		_ = c.raw.Close()
	}
	for len(s.conns)+len(s.shaking) > 0 {
		s.changed.Wait()
	}
}

// forget takes a connection that has ended off the list.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.changed.Broadcast()
}

// drain sends the first GOAWAY.
func (c *conn) drain() {
	c.mu.Lock()
	if !c.draining && !c.finished {
		c.draining = true
		c.out = appendGoAway(c.out, maxWindow, http2.ErrCodeNo) // the highest number that a stream can have
		c.out = appendPing(c.out, false, drainPing)
		c.drainOver = time.AfterFunc(drainWait, func() {
			c.mu.Lock()
			c.sayLast()
			c.mu.Unlock()
			_ = c.flush(false)
		})
	}
	c.mu.Unlock()
	_ = c.flush(false) // the leader notices an error
}

// sayLast sends the GOAWAY that names the last stream. The caller holds mu.
func (c *conn) sayLast() {
	if c.final || c.finished {
		return
	}
	c.final, c.named = true, c.maxID
	c.out = appendGoAway(c.out, c.named, http2.ErrCodeNo)
	c.drainOver.Stop()
}

// finish ends our side of a connection that has nothing left to answer. The client then ends its own, or is not waited for any
// longer. The caller holds mu.
func (c *conn) finish() {
	c.finished = true
	_ = c.nc.SetReadDeadline(time.Now().Add(linger))
}
