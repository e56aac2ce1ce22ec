package unary

import (
	"context"
	"fmt"
	"math/bits"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// A connection has one leader: the goroutine that reads it. It runs a handler itself, and while it does, nobody reads. The
// connection's turn says so: it is odd while a handler runs on the leader. Who makes it even again, by compare and swap, is
// the next leader or appoints one:
//
//   - the leader itself, when the handler has returned;
//   - Detach, called by the handler;
//   - the watchdog, when the turn has been the same for a tick.
//
// Whoever loses has only the answer to write. As a turn never comes back, one who comes late does nothing.

// Detach says that the handler whose context this is, or is derived from, may now wait or take long: another goroutine reads
// the connection from here on. It does nothing for another context, and the second time.
func Detach(ctx context.Context) {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.conn.relieve(c.turn)
	}
}

// patience is how long a connection goes unread for handlers that compute.
const patience = 250 * time.Microsecond

// Compute says that the handler whose context this is, or is derived from, is about to compute for some tens of microseconds,
// as a signature check does. To have another goroutine read costs ten of them, so that happens only if the connection has not
// been read for some time already, and if there is a processor for it: where all are busy, others are answered no sooner.
func Compute(ctx context.Context) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok || c.conn.server.crew.busy.Load() >= c.conn.server.processors {
		return
	}
	if now := c.conn.server.clock(); now-time.Duration(c.conn.readAt.Load()) > patience {
		c.conn.readAt.Store(int64(now)) // the next leader has its own patience
		c.conn.relieve(c.turn)
	}
}

// clock is the time since the server was made.
func (s *Server) clock() time.Duration { return time.Since(s.made) }

// relieve makes another goroutine the leader, if the handler of this turn still runs on the one that is.
func (c *conn) relieve(turn uint64) {
	s := c.server
	if s.detached.Add(1) > int64(s.limits.Detached) && !s.hurry.Load() || !c.turn.CompareAndSwap(turn, turn+1) {
		s.detached.Add(-1)
		return
	}
	s.crew.send(c)
}

// A worker is a goroutine that leads connections.
type worker struct {
	leads bool   // the connection that it leads or has led
	buf   []byte // for answers
}

// serve runs the handler of a call and writes its answer.
func (c *conn) serve(call *call, w *worker) {
	turn := c.turn.Load() + 1
	call.turn = turn
	c.turn.Store(turn)
	c.server.watchdog.wake()
	msg, status := c.handle(call, w.buf[:0])
	if w.leads = c.turn.CompareAndSwap(turn, turn+1); !w.leads {
		defer c.server.detached.Add(-1)
	}
	c.answer(call, msg, status)
	// A message that is elsewhere than in buf may be the handler's own.
	if n := len(msg); n > cap(w.buf) && n <= maxKeptBuffer {
		w.buf = make([]byte, 0, max(1<<10, 1<<bits.Len(uint(n-1))))
	}
	if !w.leads {
		_ = c.flush(false) // the leader finds the connection closed
	}
}

// maxKeptBuffer is how large a buffer for answers is kept for the next one.
const maxKeptBuffer = 64 << 10

// A crew are the goroutines that lead connections. One whose connection has got another leader, or has ended, waits for the
// next to lead: its stack has grown already.
type crew struct {
	next chan *conn   // unbuffered: taken by one who waits
	busy atomic.Int64 // those who neither wait for that nor for something to read
	idle atomic.Int64
	done chan struct{} // closed when nobody shall wait any more
}

// maxIdle is how many wait at most.
const maxIdle = 64

func (w *crew) init() { w.next, w.done = make(chan *conn), make(chan struct{}) }

// send finds a leader for a connection.
func (w *crew) send(c *conn) {
	select {
	case w.next <- c:
	default:
		go w.work(c)
	}
}

// work leads a connection, then others.
func (w *crew) work(c *conn) {
	var self worker
	for {
		w.busy.Add(1)
		c.leadSafely(&self)
		w.busy.Add(-1)
		if w.idle.Add(1) > maxIdle {
			w.idle.Add(-1)
			return
		}
		select {
		case c = <-w.next:
			w.idle.Add(-1)
		case <-w.done:
			return
		}
	}
}

// leadSafely leads a connection. A fault of ours costs that connection and not the process.
func (c *conn) leadSafely(w *worker) {
	defer func() {
		if p := recover(); p != nil {
			c.server.log.Error("panic in a connection", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			c.endSafely(w.leads)
		}
	}()
	c.lead(w)
}

// endSafely ends a connection after a panic, or has its leader end it.
func (c *conn) endSafely(leads bool) {
	defer func() {
		if p := recover(); p != nil {
			_ = c.raw.Close()
			c.server.forget(c)
		}
	}()
	if leads {
		c.end(c.broken(http2.ErrCodeInternal, "panic"))
		return
	}
	_ = c.raw.Close()
}

// A watchdog finds handlers that keep their connection from being read. It looks at all connections while handlers run, and
// sleeps when nothing has happened between two looks.
type watchdog struct {
	server *Server
	awake  atomic.Bool
	timer  *time.Timer
}

// tick is the time between two looks. A handler is found after one or two. With many connections it is longer, so that looking
// at them costs a hundredth of a processor at most.
const (
	tick        = time.Millisecond
	tickForEach = 5 * time.Microsecond
)

func (w *watchdog) init(s *Server) {
	w.server = s
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
}

// wake is called after a turn has become odd.
func (w *watchdog) wake() {
	if !w.awake.Load() && w.awake.CompareAndSwap(false, true) {
		w.timer.Reset(tick)
	}
}

func (w *watchdog) look() {
	conns, busy := w.scan()
	if !busy {
		w.awake.Store(false)
		// What has begun since the scan did not wake anybody.
		if conns, busy = w.scan(); !busy || !w.awake.CompareAndSwap(false, true) {
			return
		}
	}
	w.timer.Reset(max(tick, time.Duration(conns)*tickForEach))
}

// hasten writes what has been there since the last look, as quick handlers one after the other keep the leader from it.
func (c *conn) hasten() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waited && len(c.out) > 0 && !c.flushing {
		go c.flush(false) // the leader finds the connection closed
	}
	c.waited = len(c.out) > 0
}

// scan relieves who runs the same handler as at the last scan, and reports whether anything has happened since.
func (w *watchdog) scan() (conns int, busy bool) {
	s := w.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.hasten()
		turn := c.turn.Load()
		if turn != c.seen {
			c.seen, busy = turn, true
		} else if turn%2 == 1 {
			busy = true // as long as it could not be relieved
			c.relieve(turn)
		}
	}
	return len(s.conns), busy
}
