package unary

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// window is how many bytes a client may have under way on a stream, and on a connection. A check is a few KiB.
	window = 1 << 20
	// frameBytes is the largest frame either side sends: what SETTINGS_MAX_FRAME_SIZE begins with (RFC 9113 section 6.5.2).
	frameBytes = 16 << 10
	// defaultWindow is what flow control begins with (RFC 9113 section 6.9.2), and maxWindow its bound (section 6.9.1).
	defaultWindow = 1<<16 - 1
	maxWindow     = 1<<31 - 1
	// readBytes is how much is read at once. Answers wait until what was read at once is answered.
	readBytes = 32 << 10
	// maxSettings is how often a client may change its settings. They cost more than the frame that brings them, and no client
	// sends more than a few.
	maxSettings        = 1000
	maxSettingsInFrame = 100
	// linger is how long a connection that we end waits for the client to end it too, so that the last that we sent arrives.
	linger = time.Second
)

// A conn is a connection.
type conn struct {
	server *Server
	nc     net.Conn
	raw    net.Conn // what is below TLS: closing it waits for nobody

	// Of the leader.
	reader     *bufio.Reader
	framer     *http2.Framer
	decoder    *hpack.Decoder
	request    request
	recvWindow int64     // what the client may still send
	credit     int64     // what it may be told that it may send again
	settings   int       // SETTINGS frames
	fresh      []*call   // opened since the last read, and not complete with their headers
	blockEnds  time.Time // when the header block that is being read must have ended; zero: none is
	late       bool      // the last look at slow streams came late

	turn   atomic.Uint64 // see detach.go
	readAt atomic.Int64  // clock of the last read
	seen   uint64        // of the watchdog
	held   atomic.Int64  // bytes kept for streams

	mu            sync.Mutex // protects what follows
	streams       map[uint32]*call
	recent        [64]past // streams that ended lately
	recentNext    int
	maxID         uint32 // the last that the client opened
	asked         int64  // clock of the read that it came with, or when the connection was new
	orphans       int    // handlers whose stream is gone
	sendWindow    int64
	initialWindow int64     // of streams
	shrunk        bool      // the next header block says that the table of ours has no room
	tableless     bool      // one says so, or has
	starved       []*call   // have something to send and nothing but the connection's window is in the way
	stalled       int       // streams that have something to send and no window
	lookAt        time.Time // when reading is interrupted for a look at slow streams; zero: it is not
	fault         error     // for which the leader is to end the connection

	out      []byte // to be written
	spare    []byte // the buffer written last
	flushing bool   // somebody writes
	flushed  sync.Cond
	writeErr error
	waited   bool // the watchdog has seen something in out that is still there

	draining  bool        // GOAWAY was sent
	final     bool        // the GOAWAY that names the last stream was sent
	named     uint32      // that stream
	finished  bool        // nothing is written any more
	drainOver *time.Timer // sends the final GOAWAY
}

// A past is a stream that has ended, and who ended it.
type past struct {
	id    uint32
	reset bool // by us: what the client has sent since is ignored
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s, nc: nc, raw: nc, streams: make(map[uint32]*call),
		recvWindow: window, sendWindow: defaultWindow, initialWindow: defaultWindow,
		asked: int64(s.clock()),
	}
	c.flushed.L = &c.mu
	c.reader = bufio.NewReaderSize(flushingReader{c}, readBytes)
	c.framer = http2.NewFramer(nil, c.reader)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(frameBytes)
	c.decoder = hpack.NewDecoder(tableBytes, c.field)
	c.decoder.SetMaxStringLength(s.limits.HeaderBytes)
	return c
}

// flushingReader writes what there is to be written before it reads, as it may have to wait for what it reads.
type flushingReader struct{ conn *conn }

func (r flushingReader) Read(p []byte) (int, error) {
	c := r.conn
	for {
		if err := c.flush(true); err != nil {
			return 0, err
		}
		c.expect()
		c.server.crew.busy.Add(-1)
		n, err := c.nc.Read(p)
		c.server.crew.busy.Add(1)
		c.readAt.Store(int64(c.server.clock()))
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err //nolint:wrapcheck // a reader's errors are looked at, io.EOF for one
		}
		if err := c.look(err); err != nil {
			return n, err
		}
	}
}

// greet exchanges the connection prefaces (RFC 9113 section 3.4).
func (c *conn) greet() error {
	c.mu.Lock()
	c.out = appendSettings(c.out,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.server.limits.Streams)},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	c.out = appendWindowUpdate(c.out, 0, window-defaultWindow)
	c.mu.Unlock()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.reader, preface); err != nil {
		return fmt.Errorf("preface: %w", err)
	}
	if string(preface) != http2.ClientPreface {
		return c.broken(http2.ErrCodeProtocol, "the client does not begin with the preface of HTTP/2")
	}
	f, err := c.framer.ReadFrame()
	if err != nil {
		return c.readError(err)
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return c.broken(http2.ErrCodeProtocol, "the first frame is no SETTINGS")
	}
	return c.applySettings(settings)
}

// lead reads the connection until it ends or another goroutine leads.
func (c *conn) lead(w *worker) {
	for w.leads = true; w.leads; {
		call, err := c.next()
		if err == nil {
			err = c.ease()
		}
		if err != nil {
			c.end(err)
			return
		}
		if call != nil {
			c.serve(call, w)
		}
	}
}

// ease writes what there is to be written if it is much, as a little that is read can make much of it.
func (c *conn) ease() error {
	c.mu.Lock()
	much, fault := len(c.out) > backlog, c.fault
	c.mu.Unlock()
	if fault != nil || !much {
		return fault
	}
	return c.flush(true)
}

// A connError is a connection error (RFC 9113 section 5.4.1).
type connError struct {
	code   http2.ErrCode
	reason string
}

func (e *connError) Error() string { return e.code.String() + ": " + e.reason }

func (c *conn) broken(code http2.ErrCode, reason string) error { return &connError{code, reason} }

// readError says what an error of the framer means for the connection.
func (c *conn) readError(err error) error {
	var (
		connection http2.ConnectionError
		stream     http2.StreamError
	)
	switch {
	case errors.As(err, &connection):
		return c.broken(http2.ErrCode(connection), fmt.Sprint(c.framer.ErrorDetail()))
	case errors.As(err, &stream):
		return c.broken(stream.Code, fmt.Sprint(stream.Cause))
	case errors.Is(err, http2.ErrFrameTooLarge):
		return c.broken(http2.ErrCodeFrameSize, "a frame is too long")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return c.broken(http2.ErrCodeFrameSize, "a frame is cut")
	}
	return err
}

// next reads a frame. It returns the call whose request is complete with it, if there is one.
func (c *conn) next() (*call, error) {
	head, err := c.framer.ReadFrameHeader()
	if err != nil {
		return nil, c.readError(err)
	}
	f, err := c.framer.ReadFrameForHeader(head)
	if err != nil {
		var stream http2.StreamError
		// A HEADERS frame that was not decoded leaves the decoder behind the client's encoder.
		if errors.As(err, &stream) && head.Type != http2.FrameHeaders {
			return nil, c.streamFault(stream.StreamID, stream.Code)
		}
		return nil, c.readError(err)
	}
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.WindowUpdateFrame:
		return nil, c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return nil, c.reset(f)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil, nil
		}
		return nil, c.applySettings(f)
	case *http2.PingFrame:
		c.ping(f)
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID { // RFC 7540 section 5.3.1; RFC 9113 leaves priorities to that
			return nil, c.streamFault(f.StreamID, http2.ErrCodeProtocol)
		}
	case *http2.PushPromiseFrame: // RFC 9113 section 8.4
		return nil, c.broken(http2.ErrCodeProtocol, "PUSH_PROMISE from a client")
	}
	return nil, nil // unknown frames, PRIORITY_UPDATE and the client's GOAWAY change nothing for us
}

func (c *conn) ping(f *http2.PingFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !f.IsAck() {
		c.out = appendPing(c.out, true, f.Data)
	} else if c.draining && f.Data == drainPing {
		c.sayLast()
	}
}

// applySettings takes the client's settings (RFC 9113 section 6.5.3).
func (c *conn) applySettings(f *http2.SettingsFrame) error {
	if c.settings++; c.settings > maxSettings {
		return c.broken(http2.ErrCodeEnhanceYourCalm, "too many SETTINGS frames")
	}
	if f.NumSettings() > maxSettingsInFrame {
		return c.broken(http2.ErrCodeEnhanceYourCalm, "too many settings in a frame")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	initial := c.initialWindow // the last of those that there are: each costs a look at all streams
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return c.readError(err)
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			initial = int64(s.Val)
		case http2.SettingHeaderTableSize:
			if s.Val < tableBytes && !c.tableless {
				c.shrunk, c.tableless = true, true
			}
		}
		return nil // we send no larger frames than all take, and push nothing
	})
	if err == nil {
		err = c.setInitialWindow(initial)
	}
	if err != nil {
		return err
	}
	c.out = appendFrame(c.out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	if c.stalled > 0 {
		for _, call := range c.streams {
			c.send(call)
		}
	}
	return nil
}

// end ends the connection, for an error: io.EOF and the like if the client has. The leader calls it.
func (c *conn) end(err error) {
	var fault *connError
	c.mu.Lock()
	if errors.As(err, &fault) && !c.finished {
		last := c.maxID
		if c.final {
			last = c.named // never more than before (RFC 9113 section 6.8)
		}
		c.out = appendGoAway(c.out, last, fault.code)
	}
	c.mu.Unlock()
	if fault != nil {
		c.server.log.Debug("connection ended", "client", c.nc.RemoteAddr().String(), "reason", fault.Error())
	}
	_ = c.flush(true)
	for _, call := range c.close() {
		call.over()
	}
	if fault != nil {
		c.lingerOn()
	}
	_ = c.nc.Close()
	c.server.forget(c)
}

// close takes all streams off the connection, and returns them.
func (c *conn) close() map[uint32]*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	streams := c.streams
	c.streams = nil
	for _, call := range streams {
		call.gone = true
		if !call.running {
			c.release(call, 0)
		}
	}
	if c.drainOver != nil {
		c.drainOver.Stop()
	}
	c.flushed.Broadcast()
	return streams
}

// lingerOn reads on after the last frame was sent: closing with something unread would have the client's system throw away
// what it has not read yet.
func (c *conn) lingerOn() {
	const most = 1 << 20
	closeWrite(c.nc)
	_ = c.nc.SetReadDeadline(time.Now().Add(linger))
	_, _ = io.CopyN(io.Discard, c.nc, most)
}

func closeWrite(nc net.Conn) {
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
