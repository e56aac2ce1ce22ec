package unary_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// A handler that waits holds up no other stream of its connection, whether it has called Detach or not.
func TestWaitingHandlersHoldUpNobody(t *testing.T) {
	for _, method := range []string{hold, forget} {
		t.Run(method, func(t *testing.T) {
			b := newBackend()
			p := connect(t, serve(t, func(c *unary.Config) { c.Methods = b.methods() }))
			const waiting = 50
			var ids []uint32
			for i := range uint32(waiting) {
				id := 4*i + 1
				ids = append(ids, id)
				p.call(id, method, "late")
				p.call(id+2, echo, "soon")
				if got := p.answer(id + 2).text(); got != "soon" {
					t.Fatalf("got %s, want soon", got)
				}
			}
			for range waiting {
				<-b.entered
			}
			close(b.release)
			for id, a := range p.answers(ids...) {
				if got := a.text(); got != "late" {
					t.Errorf("stream %d: %s, want late", id, got)
				}
			}
		})
	}
}

// What was answered before a handler that waits goes out.
func TestAnswersDoNotWaitForHandlers(t *testing.T) {
	for _, method := range []string{hold, forget} {
		b := newBackend()
		p := connect(t, serve(t, func(c *unary.Config) { c.Methods = b.methods() }))
		p.write(join(func(w *http2.Framer) { // in one segment, so that they are read together
			for i, path := range []string{echo, method} {
				id := uint32(2*i + 1)
				p.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields(path)...), EndHeaders: true}))
				p.must(w.WriteData(id, true, message("a")))
			}
		}))
		if got := p.answer(1).text(); got != "a" {
			t.Errorf("got %s, want a", got)
		}
		<-b.entered
		close(b.release)
		p.answer(3)
	}
}

// join returns the frames that f writes.
func join(f func(*http2.Framer)) []byte {
	var b buffer
	f(http2.NewFramer(&b, nil))
	return b
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) { *b = append(*b, p...); return len(p), nil }

// At the limit of handlers beside the leader, a connection waits, and goes on.
func TestDetachedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{entered: make(chan context.Context, 10), release: make(chan struct{})}
		s := unary.New(unary.Config{Methods: b.methods(), Limits: unary.Limits{Detached: 2}})
		l := newPipes()
		go func() { _ = s.Serve(l) }()
		p := newPeer(t, l.dial())
		p.greetBoth()
		go func() {
			for _, id := range []uint32{1, 3, 5, 7} {
				p.call(id, hold, "a")
			}
		}()
		time.Sleep(time.Minute) // of the bubble's clock: the watchdog looks many times
		synctest.Wait()
		if got := len(b.entered); got != 3 { // two beside, and the leader itself
			t.Errorf("%d handlers run, want three", got)
		}
		close(b.release)
		for id, a := range p.answers(1, 3, 5, 7) {
			if got := a.text(); got != "a" {
				t.Errorf("stream %d: %s, want a", id, got)
			}
		}
		_ = p.Conn.Close()
		_ = l.Close()
		s.Close()
	})
}

// A handler that has forgotten Detach is relieved within two ticks of the watchdog, which then sleeps.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{entered: make(chan context.Context, 10), release: make(chan struct{})}
		s := unary.New(unary.Config{Methods: b.methods()})
		l := newPipes()
		go func() { _ = s.Serve(l) }()
		p := newPeer(t, l.dial())
		p.greetBoth()
		began := time.Now()
		go func() {
			p.call(1, forget, "a")
			p.call(3, echo, "b")
		}()
		if got := p.answer(3).text(); got != "b" {
			t.Errorf("got %s, want b", got)
		}
		if took := time.Since(began); took > 2*time.Millisecond {
			t.Errorf("it took %v, want at most 2 ms", took)
		}
		close(b.release)
		p.answer(1)
		_ = p.Conn.Close()
		_ = l.Close()
		s.Close()
	})
}

// A handler that says that it computes holds up the others as long as the connection's patience lasts, and no longer.
func TestCompute(t *testing.T) {
	for name, tt := range map[string]struct {
		before time.Duration // that the connection has not been read for
		want   time.Duration // until the other is answered
		busy   int           // processors of two that have something else to do
	}{
		"at once":              {0, 2 * time.Millisecond, 0}, // the watchdog's
		"later":                {300 * time.Microsecond, 300 * time.Microsecond, 0},
		"no processor is free": {300 * time.Microsecond, 2 * time.Millisecond, 1},
	} {
		t.Run(name, func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
			synctest.Test(t, func(t *testing.T) {
				b := &backend{entered: make(chan context.Context, 10), release: make(chan struct{})}
				methods := b.methods()
				methods[hold] = func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
					time.Sleep(tt.before)
					unary.Compute(ctx)
					return b.methods()[forget](ctx, dst, msg)
				}
				s := unary.New(unary.Config{Methods: methods})
				l := newPipes()
				go func() { _ = s.Serve(l) }()
				for range tt.busy {
					other := newPeer(t, l.dial())
					other.greetBoth()
					go other.call(1, forget, "c")
					<-b.entered
					defer func(p *peer) { _ = p.Conn.Close() }(other) //nolint:gocritic // to the test's end
				}
				p := newPeer(t, l.dial())
				p.greetBoth()
				began := time.Now()
				go func() {
					p.call(1, hold, "a")
					p.call(3, echo, "b")
				}()
				if got := p.answer(3).text(); got != "b" {
					t.Errorf("got %s, want b", got)
				}
				if took := time.Since(began); took > tt.want || tt.want > time.Millisecond && took < time.Millisecond {
					t.Errorf("it took %v, want about %v", took, tt.want)
				}
				close(b.release)
				p.answer(1)
				_ = p.Conn.Close()
				_ = l.Close()
				s.Close()
			})
		})
	}
}

// greetBoth greets over a pipe, which has no room: who writes waits for who reads.
func (p *peer) greetBoth() {
	p.Helper()
	greeted := make(chan struct{})
	go func() {
		p.greet()
		close(greeted)
	}()
	p.wait("SETTINGS", func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
	<-greeted
}

// pipes is a listener of connections in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error { l.once.Do(func() { close(l.done) }); return nil }

func (*pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (l *pipes) dial() net.Conn {
	here, there := net.Pipe()
	l.conns <- there
	return here
}

// A handler's context ends when the client resets the stream, when the connection ends, at the deadline, and after the handler.
func TestContexts(t *testing.T) {
	begin := func(t *testing.T, edits ...string) (*peer, context.Context) {
		b := newBackend()
		p := connect(t, serve(t, func(c *unary.Config) { c.Methods = b.methods() }))
		p.call(1, hold, "a", edits...)
		ctx := <-b.entered
		if ctx.Err() != nil {
			t.Fatalf("the context has ended: %v", ctx.Err())
		}
		return p, ctx
	}
	ended := func(t *testing.T, ctx context.Context, want error) {
		t.Helper()
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Fatal("the context has not ended")
		}
		if err := ctx.Err(); !errors.Is(err, want) {
			t.Errorf("it ended with %v, want %v", err, want)
		}
	}
	t.Run("reset", func(t *testing.T) {
		p, ctx := begin(t)
		p.must(p.WriteRSTStream(1, http2.ErrCodeCancel))
		ended(t, ctx, context.Canceled)
	})
	t.Run("connection", func(t *testing.T) {
		p, ctx := begin(t)
		_ = p.Close()
		ended(t, ctx, context.Canceled)
	})
	t.Run("deadline", func(t *testing.T) {
		p, ctx := begin(t, "grpc-timeout", "200m")
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > 200*time.Millisecond {
			t.Errorf("the deadline is %v, %v, want one in 200 ms", d, ok)
		}
		ended(t, ctx, context.DeadlineExceeded)
		if got := p.answer(1).text(); got != "status 4 context deadline exceeded" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("handler", func(t *testing.T) {
		var kept context.Context
		p := connect(t, serve(t, func(c *unary.Config) {
			c.Methods = map[string]unary.Handler{echo: func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
				kept = ctx
				return append(dst, msg...), unary.Status{}
			}}
		}))
		p.call(1, echo, "a")
		p.answer(1)
		ended(t, kept, context.Canceled)
		unary.Detach(kept) // too late, and so nothing
		p.call(3, echo, "b")
		p.answer(3)
	})
	t.Run("a context below it", func(t *testing.T) {
		_, ctx := begin(t, "grpc-timeout", "100m")
		below, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		ended(t, below, context.DeadlineExceeded)
	})
	unary.Detach(t.Context()) // of somebody else: nothing
}

// Streams that a client resets count as long as their handlers run (CVE-2023-44487).
func TestResetStreamsCount(t *testing.T) {
	entered, release := make(chan bool, 10), make(chan bool)
	p := connect(t, serve(t, func(c *unary.Config) {
		c.Limits.Streams = 10
		c.Methods = map[string]unary.Handler{hold: func(ctx context.Context, dst, _ []byte) ([]byte, unary.Status) {
			unary.Detach(ctx)
			entered <- true
			<-release // whatever the context says
			return dst, unary.Status{}
		}}
	}))
	for i := range uint32(10) {
		p.call(2*i+1, hold, "a")
		p.must(p.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	}
	for range 10 {
		<-entered
	}
	p.call(21, hold, "a")
	if got := p.answer(21).text(); got != "RST_STREAM REFUSED_STREAM" {
		t.Errorf("got %s, want it refused", got)
	}
	close(release)
	for id := uint32(23); ; id += 2 {
		p.call(id, hold, "")
		if got := p.answer(id).text(); got == "" {
			break
		} else if got != "RST_STREAM REFUSED_STREAM" || id > 2000 {
			t.Fatalf("got %s, want an answer when the handlers have returned", got)
		}
	}
}

func TestMaxStreams(t *testing.T) {
	b := newBackend()
	p := connect(t, serve(t, func(c *unary.Config) { c.Methods, c.Limits.Streams = b.methods(), 2 }))
	p.call(1, hold, "a")
	p.call(3, hold, "b")
	p.call(5, echo, "c")
	if got := p.answer(5).text(); got != "RST_STREAM REFUSED_STREAM" {
		t.Errorf("got %s, want it refused", got)
	}
	close(b.release)
	p.answers(1, 3)
	p.call(7, echo, "d")
	if got := p.answer(7).text(); got != "d" {
		t.Errorf("got %s, want d", got)
	}
}

// A client that sends and does not read is not read any more either, and is gone after Limits.Stall.
func TestClientsThatDoNotRead(t *testing.T) {
	l := serve(t, func(c *unary.Config) { c.Limits.Stall = 200 * time.Millisecond })
	ping := join(func(w *http2.Framer) {
		for range 1000 {
			_ = w.WritePing(false, [8]byte{})
		}
	})
	send := map[string]func(*peer) error{
		"PING": func(p *peer) error { _, err := p.Conn.Write(ping); return err },
		"requests": func(p *peer) error {
			var err error
			text := message(strings.Repeat("x", 16_000))
			for id := uint32(1); err == nil; id += 2 {
				_, err = p.Conn.Write(join(func(w *http2.Framer) {
					_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields(echo)...), EndHeaders: true})
					_ = w.WriteData(id, true, text)
				}))
			}
			return err
		},
	}
	for name, f := range send {
		t.Run(name, func(t *testing.T) {
			p := connect(t, l, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
			p.must(p.WriteWindowUpdate(0, 1<<31-1-65535))
			_ = p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			var err error
			for err == nil {
				err = f(p)
			}
			var netErr net.Error
			if errors.As(err, &netErr) && netErr.Timeout() {
				t.Error("the connection lives on")
			}
		})
	}
	t.Run("a window of nothing", func(t *testing.T) {
		p := connect(t, l, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.call(1, echo, "a")
		if got := p.answer(1).text(); got != "HTTP 200" && !strings.Contains(got, "RST_STREAM CANCEL") {
			t.Errorf("got %s, want it reset", got)
		}
	})
}

// Shutdown answers what is under way, what comes until the client knows, and nothing after.
func TestShutdown(t *testing.T) {
	b := newBackend()
	l, s := listen(t, func(c *unary.Config) { c.Methods = b.methods() })
	p := connect(t, l)
	p.call(1, hold, "a")
	<-b.entered
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	goAway := func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }
	if g := p.wait("GOAWAY", goAway).(*http2.GoAwayFrame); g.LastStreamID != 1<<31-1 || g.ErrCode != 0 {
		t.Errorf("GOAWAY %d %v, want the highest and NO_ERROR", g.LastStreamID, g.ErrCode)
	}
	p.call(3, echo, "on its way")
	ping := p.wait("PING", func(f http2.Frame) bool { _, ok := f.(*http2.PingFrame); return ok }).(*http2.PingFrame)
	p.must(p.WritePing(true, ping.Data))
	if got := p.answer(3).text(); got != "on its way" {
		t.Errorf("got %s", got)
	}
	if p.last == 0 { // it did not come before the answer
		p.last = p.wait("GOAWAY", goAway).(*http2.GoAwayFrame).LastStreamID
	}
	if p.last != 3 {
		t.Errorf("GOAWAY %d, want 3", p.last)
	}
	p.call(5, echo, "too late")
	p.synced()
	close(b.release)
	if got := p.answer(1).text(); got != "a" {
		t.Errorf("got %s, want a", got)
	}
	if f := p.frame(); f != nil {
		t.Errorf("then %v, want the end", f)
	}
	_ = p.Close()
	if err := <-done; err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener lives on")
	}
}

// Shutdown ends with its context, a client that does not answer or end notwithstanding.
func TestShutdownIsBounded(t *testing.T) {
	b := newBackend()
	l, s := listen(t, func(c *unary.Config) { c.Methods = b.methods() })
	p := connect(t, l)
	p.call(1, forget, "a")
	ctx := <-b.entered
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v, want that its time is up", err)
	}
	s.Close()
	select {
	case <-ctx.Done():
	case <-time.After(patience):
		t.Error("the handler's context has not ended")
	}
}

// A client that says nothing to GOAWAY is told its last stream nevertheless, and an idle one's connection ends.
func TestShutdownOfSilentClients(t *testing.T) {
	l, s := listen(t, nil)
	idle := connect(t, l)
	half := dial(t, l) // has not even greeted
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
	})
	if got := idle.ends(); got != "NO_ERROR" {
		t.Errorf("got %s, want NO_ERROR", got)
	}
	_, _ = io.Copy(io.Discard, half.Conn)
	wg.Wait()
}
