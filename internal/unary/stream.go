package unary

import (
	"time"

	"golang.org/x/net/http2"
)

// headers takes a header block, which opens a stream or ends one with trailers.
func (c *conn) headers(f *http2.HeadersFrame) (*call, error) {
	id, ended := f.StreamID, f.StreamEnded()
	defer func() { c.request = request{} }() // nothing of it is kept
	dependsOnItself := f.HasPriority() && f.Priority.StreamDep == id
	if err := c.headerBlock(f); err != nil {
		return nil, err
	}
	if id%2 == 0 {
		return nil, c.broken(http2.ErrCodeProtocol, "a stream with an even number from a client") // RFC 9113 section 5.1.1
	}
	if id <= c.maxID { // only the leader changes it
		return c.trailers(id, ended)
	}
	call := c.open(id, ended, dependsOnItself)
	switch {
	case call == nil:
		return nil, nil
	case ended:
		return c.requestEnded(call)
	}
	c.fresh = append(c.fresh, call)
	return nil, nil
}

// open makes a call of a request, unless it is answered already. A GOAWAY that names the stream as the last finds it among those
// that there are, or answered: maxID and streams change together.
func (c *conn) open(id uint32, ended, dependsOnItself bool) *call {
	r := &c.request
	r.check()
	call := &call{conn: c, id: id, window: window, length: r.length}
	status, httpStatus := call.begin(r)
	if c.server.beginning != nil {
		c.server.beginning()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.maxID = id
	switch {
	case c.final: // RFC 9113 section 6.8: above the last that we have named
		c.remember(past{id, true})
		return nil
	case dependsOnItself || r.malformed != "":
		c.resetLocked(id, http2.ErrCodeProtocol)
		return nil
	case len(c.streams)+c.orphans >= c.server.limits.Streams || !c.hold(call, streamBytes):
		c.resetLocked(id, http2.ErrCodeRefusedStream)
		return nil
	}
	call.sendWindow = c.initialWindow
	c.streams[id] = call
	c.asked = c.readAt.Load()
	if httpStatus != 0 { // there is nothing to wait for
		call.remoteEnded = ended
		c.refuse(call, status, httpStatus)
		return nil
	}
	return call
}

// trailers takes a header block on a stream that was opened before.
func (c *conn) trailers(id uint32, ended bool) (*call, error) {
	call, was := c.find(id)
	switch {
	case call != nil && call.remoteEnded:
		return nil, c.streamFault(id, http2.ErrCodeStreamClosed)
	case call != nil && (!ended || c.request.pseudo != 0 || c.request.malformed != ""):
		return nil, c.streamFault(id, http2.ErrCodeProtocol) // RFC 9113 section 8.1
	case call != nil:
		return c.requestEnded(call)
	case was.reset:
		return nil, nil // on its way before the client knew
	case was.id != 0:
		return nil, c.broken(http2.ErrCodeStreamClosed, "HEADERS on a closed stream") // RFC 9113 section 5.1
	case c.forgetful():
		return nil, c.streamFault(id, http2.ErrCodeStreamClosed) // it may have been reset
	}
	return nil, c.broken(http2.ErrCodeProtocol, "a stream with a lower number than one before") // RFC 9113 section 5.1.1
}

// find returns the call of a stream, or else what is known of it from the past.
func (c *conn) find(id uint32) (*call, past) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call := c.streams[id]; call != nil {
		return call, past{}
	}
	for _, p := range &c.recent {
		if p.id == id {
			return nil, p
		}
	}
	return nil, past{}
}

// forgetful returns whether more streams have ended than are known.
func (c *conn) forgetful() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recentNext > len(c.recent)
}

// data takes a part of a request's body.
func (c *conn) data(f *http2.DataFrame) (*call, error) {
	size := int64(f.Length) // with its padding (RFC 9113 section 6.9.1)
	if c.recvWindow -= size; c.recvWindow < 0 {
		return nil, c.broken(http2.ErrCodeFlowControl, "more data than the connection's window")
	}
	c.creditConn(size)
	id := f.StreamID
	call, was := c.find(id)
	switch {
	case call == nil && id > c.maxID:
		return nil, c.broken(http2.ErrCodeProtocol, "DATA on an idle stream")
	case call == nil && was.reset:
		return nil, nil
	case call == nil || call.remoteEnded:
		return nil, c.streamFault(id, http2.ErrCodeStreamClosed)
	}
	if call.window -= size; call.window < 0 {
		return nil, c.streamFault(id, http2.ErrCodeFlowControl)
	}
	call.receive(f.Data())
	if f.StreamEnded() {
		return c.requestEnded(call)
	}
	c.creditStream(call, size)
	return nil, nil
}

// creditConn lets the client send again what it has sent. It is told when half of the window is used up.
func (c *conn) creditConn(n int64) {
	if c.credit += n; c.credit < window/2 {
		return
	}
	c.mu.Lock()
	c.out = appendWindowUpdate(c.out, 0, uint32(c.credit))
	c.mu.Unlock()
	c.recvWindow += c.credit
	c.credit = 0
}

func (c *conn) creditStream(call *call, n int64) {
	if call.credit += n; call.credit < window/2 {
		return
	}
	c.mu.Lock()
	c.out = appendWindowUpdate(c.out, call.id, uint32(call.credit))
	c.mu.Unlock()
	call.window += call.credit
	call.credit = 0
}

// requestEnded takes END_STREAM. It returns the call if its handler is to run.
func (c *conn) requestEnded(call *call) (*call, error) {
	call.remoteEnded = true
	if call.length >= 0 && call.length != call.incoming.bytes { // RFC 9113 section 8.1.1
		return nil, c.streamFault(call.id, http2.ErrCodeProtocol)
	}
	status, httpStatus := call.complete()
	c.mu.Lock()
	defer c.mu.Unlock()
	if httpStatus != 0 {
		c.refuse(call, status, httpStatus)
		return nil, nil
	}
	call.running = true
	return call, nil
}

// windowUpdate takes what the client lets us send (RFC 9113 section 6.9).
func (c *conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			return c.broken(http2.ErrCodeFlowControl, "a connection's window of more than 2^31-1")
		}
		c.feedStarved()
		return nil
	}
	if f.StreamID > c.maxID {
		return c.broken(http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	}
	call := c.streams[f.StreamID]
	if call == nil {
		return nil
	}
	if call.sendWindow += int64(f.Increment); call.sendWindow > maxWindow {
		c.resetLocked(call.id, http2.ErrCodeFlowControl)
		return nil
	}
	c.send(call)
	return nil
}

// setInitialWindow changes the windows of all streams (RFC 9113 section 6.9.2). The caller holds mu.
func (c *conn) setInitialWindow(n int64) error {
	change := n - c.initialWindow
	c.initialWindow = n
	if change == 0 {
		return nil
	}
	for _, call := range c.streams {
		if call.sendWindow += change; call.sendWindow > maxWindow {
			return c.broken(http2.ErrCodeFlowControl, "a stream's window of more than 2^31-1")
		}
	}
	return nil
}

// reset takes RST_STREAM (RFC 9113 section 6.4).
func (c *conn) reset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID > c.maxID {
		return c.broken(http2.ErrCodeProtocol, "RST_STREAM on an idle stream")
	}
	if call := c.streams[f.StreamID]; call != nil {
		c.remove(call, false)
		call.over()
	}
	return nil
}

// streamFault is a stream error (RFC 9113 section 5.4.2): it ends the stream, if there is one.
func (c *conn) streamFault(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id > c.maxID {
		return c.broken(code, "a fault on an idle stream")
	}
	c.resetLocked(id, code)
	return nil
}

// resetLocked sends RST_STREAM. The caller holds mu.
func (c *conn) resetLocked(id uint32, code http2.ErrCode) {
	c.out = appendReset(c.out, id, code)
	if call := c.streams[id]; call != nil {
		c.remove(call, true)
		call.over()
		return
	}
	c.remember(past{id, true})
}

// remove takes a stream off the connection. A handler that runs goes on, and counts until it has returned. The caller holds mu.
func (c *conn) remove(call *call, byUs bool) {
	delete(c.streams, call.id)
	c.remember(past{call.id, byUs})
	call.gone = true
	if call.rest != nil {
		c.stalled--
		call.rest = nil
	}
	if call.running {
		c.orphans++
	} else {
		c.release(call, 0)
	}
}

func (c *conn) remember(p past) {
	c.recent[c.recentNext%len(c.recent)] = p
	c.recentNext++
}

// share is how much of what a connection holds does not count among what all hold: whatever other clients do, a few short checks
// find room.
const share = 32 << 10

// streamBytes is what a stream takes beside its message: a client makes us hold that with some 20 bytes.
const streamBytes = 512

func beyondShare(n int64) int64 { return max(0, n-share) }

// hold counts bytes that are kept for a stream. It returns whether there may be as many.
func (c *conn) hold(call *call, n int64) bool {
	now, all := c.held.Add(n), int64(0)
	if shared := beyondShare(now) - beyondShare(now-n); shared > 0 {
		all = c.server.held.Add(shared)
	}
	if now > c.server.limits.ConnBytes || all > c.server.limits.Bytes {
		c.giveBack(n)
		return false
	}
	call.heldBytes += n
	return true
}

// release counts what a call held as gone, but for some bytes.
func (c *conn) release(call *call, rest int64) {
	if n := call.heldBytes - rest; n > 0 {
		c.giveBack(n)
		call.heldBytes = rest
	}
}

func (c *conn) giveBack(n int64) {
	now := c.held.Add(-n)
	if shared := beyondShare(now+n) - beyondShare(now); shared > 0 {
		c.server.held.Add(-shared)
	}
}

// until returns when a timeout from now on is over.
func until(timeout time.Duration) time.Time { return time.Now().Add(timeout) }
