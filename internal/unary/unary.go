// Package unary serves unary gRPC methods over HTTP/2, with handlers that take and give the bytes of messages.
//
// It is there because what a check costs is mostly what its transport costs (docs/adr has the figures). A connection is read by
// one goroutine at a time, its leader, which runs each handler itself and keeps the answers until there is nothing more to
// read: most checks take some microseconds, less than it would take to wake somebody else for them. What may take longer says
// so with [Detach], and another goroutine becomes the leader. One that forgets to is found by a watchdog (detach.go).
//
// The sources are RFC 9113 (HTTP/2), RFC 7541 (HPACK), and "gRPC over HTTP2" (PROTOCOL-HTTP2.md of github.com/grpc/grpc).
// Frames are read, and header fields coded, by golang.org/x/net/http2.
//
//   - conn.go reads the frames of a connection; headers.go makes requests of header blocks.
//   - stream.go holds the states of streams and what comes in on them, write.go what goes out, both with flow control.
//   - grpc.go is what gRPC adds: messages, statuses, timeouts. call.go is the context of a handler.
//   - crowd.go bounds the connections; detach.go says who leads; shutdown.go how it all ends.
//
// It does no streaming, no compression, no metadata, and no HTTP/1.1.
package unary

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
)

// A Handler answers the message of a request: it appends the message of the answer to dst, or says with another status than OK
// why there is none. The message is the handler's to keep. It is nil, and not just empty, if it could not be had: it was
// compressed, or longer than [Limits] allow. The context ends with the request's deadline, and when the client or the
// connection is gone; after the handler has returned it is over.
//
// A handler that may wait or take long calls [Detach] before it does, and one that computes for a while [Compute].
type Handler func(ctx context.Context, dst, msg []byte) ([]byte, Status)

// A Status is how a call ended. The zero Status is OK.
type Status struct {
	Code    codes.Code
	Message string
}

// Limits bound what clients can make a server hold. The zero value of a field means the default named in its comment.
type Limits struct {
	// Streams is how many requests of a connection may be under way, those included that the client has reset and that are
	// being answered nevertheless. More are refused (RFC 9113 section 5.1.2). Default 10,000.
	Streams int
	// MessageBytes is how long a message may be. Default 16 MiB.
	MessageBytes int
	// Connections is how many there may be, those included that have not greeted. From nine tenths on, clients that have asked
	// nothing for a minute are told to go away; beyond, new ones are turned away. Default 10,000.
	Connections int
	// ConnBytes and Bytes are how many bytes of messages a connection, and all together, may have under way: requests and their
	// streams, header blocks in parts, and answers that wait until the client lets us send them. The first 32 KiB of each
	// connection do not count among Bytes. A message that would be beyond is thrown away, and its handler gets none. A stream
	// that would be is refused; a header block or an answer ends the connection. Default 64 and 256 MiB.
	ConnBytes, Bytes int64
	// HeaderBytes is how long a header block may be. One that is longer ends the connection. Default 256 KiB, far above
	// what Envoy sends of its own.
	HeaderBytes int
	// Detached is how many handlers may run beside the leaders of connections. At the limit connections wait. Default 20,000.
	Detached int
	// Handshake is how long a new connection may take until its first SETTINGS frame is read. Default 20 s.
	Handshake time.Duration
	// Stall is how long a client may take to read what there is for it, and how long a request or an answer may take to get on
	// by 1 KiB; a request by an eighth as well. A stream that is slower is reset, up to half as late again. A header block has
	// as long until it has ended. Default 30 s.
	Stall time.Duration
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Streams, 10_000)
	setDefault(&l.Connections, 10_000)
	setDefault(&l.MessageBytes, 16<<20)
	setDefault(&l.ConnBytes, 64<<20)
	setDefault(&l.Bytes, 256<<20)
	setDefault(&l.HeaderBytes, 256<<10)
	setDefault(&l.Detached, 20_000)
	setDefault(&l.Handshake, 20*time.Second)
	setDefault(&l.Stall, 30*time.Second)
	return l
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// A Config says what to serve. Methods is required.
type Config struct {
	// Methods by their path: /package.Service/Method.
	Methods map[string]Handler
	// TLS for the connections, which must then agree on h2 by ALPN (RFC 9113 section 3.2). Nil: none, and HTTP/2 with prior
	// knowledge (section 3.3).
	TLS    *tls.Config
	Limits Limits
	// Logger gets a line at DEBUG for each connection that ends for a fault, at ERROR for a panic, and now and then one at WARN
	// while connections are too many. Default: none.
	Logger *slog.Logger
}

// A Server serves the connections of one or more listeners.
type Server struct {
	methods map[string]Handler
	known   map[string]bool // services
	tls     *tls.Config
	limits  Limits
	log     *slog.Logger

	made       time.Time
	processors int64        // that may be busy; two where there is one, so that nobody waits for a computation to end
	held       atomic.Int64 // bytes kept for streams
	detached   atomic.Int64 // handlers that run beside the leaders
	hurry      atomic.Bool  // Close was called
	crew       crew
	// beginning is for a test: it is called when a stream has been looked at and is not yet on its connection's list.
	beginning func()
	watchdog  watchdog

	mu        sync.Mutex
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	draining  bool
	closed    bool
	changed   sync.Cond                  // when conns or handshakes is one less
	shaking   map[net.Conn]time.Duration // when they came
	crowd     crowd
}

// ErrClosed is what Serve returns after Shutdown or Close.
var ErrClosed = errors.New("unary: server closed")

// New returns a Server.
func New(cfg Config) *Server {
	s := &Server{
		made: time.Now(), processors: int64(max(2, runtime.GOMAXPROCS(0))), methods: cfg.Methods, known: make(map[string]bool), limits: cfg.Limits.withDefaults(), log: cfg.Logger,
		listeners: make(map[net.Listener]bool), conns: make(map[*conn]bool), shaking: make(map[net.Conn]time.Duration),
	}
	for path := range cfg.Methods {
		service, _, _ := splitPath(path)
		s.known[service] = true
	}
	if cfg.TLS != nil {
		s.tls = cfg.TLS.Clone()
		if !slices.Contains(s.tls.NextProtos, http2.NextProtoTLS) {
			s.tls.NextProtos = append(s.tls.NextProtos, http2.NextProtoTLS)
		}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.changed.L = &s.mu
	s.crew.init()
	s.watchdog.init(s)
	return s
}

// Serve serves the connections of a listener, which it closes. It returns [ErrClosed] after Shutdown or Close, else what is
// wrong with the listener.
func (s *Server) Serve(l net.Listener) error {
	defer func() { _ = l.Close() }()
	s.mu.Lock()
	if s.draining || s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[l] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.listeners, l)
	}()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			if s.admit(nc) {
				go s.welcome(nc)
			} else {
				_ = nc.Close()
			}
		case s.ending():
			return ErrClosed
		case isTemporary(err):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.notAccepted(err)
			time.Sleep(pause)
		default:
			return fmt.Errorf("unary: %w", err)
		}
	}
}

func (s *Server) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining || s.closed
}

// welcome does what comes before the first request, within Limits.Handshake, then serves the connection.
func (s *Server) welcome(nc net.Conn) {
	c, err := s.handshake(nc)
	s.mu.Lock()
	delete(s.shaking, nc)
	if err == nil && s.closed {
		err = ErrClosed
	}
	if err == nil {
		s.conns[c] = true
	}
	draining := s.draining
	s.changed.Broadcast()
	s.mu.Unlock()
	if err != nil {
		_ = nc.Close()
		s.log.Debug("connection refused", "error", err)
		return
	}
	if draining {
		c.drain()
	}
	s.crew.work(c)
}

func (s *Server) handshake(nc net.Conn) (*conn, error) {
	raw := nc
	nc = &timedConn{Conn: nc, most: s.limits.Stall}
	if s.tls != nil {
		t := tls.Server(nc, s.tls)
		ctx, cancel := context.WithTimeout(context.Background(), s.limits.Handshake)
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		if got := t.ConnectionState().NegotiatedProtocol; got != http2.NextProtoTLS {
			return nil, fmt.Errorf("ALPN came to %q, want %q", got, http2.NextProtoTLS)
		}
		nc = t
	}
	c := newConn(s, nc)
	c.raw = raw
	s.crew.busy.Add(1)
	defer s.crew.busy.Add(-1)
	if err := c.greet(); err != nil {
		c.end(err)
		return nil, err
	}
	return c, nc.SetReadDeadline(time.Time{})
}
