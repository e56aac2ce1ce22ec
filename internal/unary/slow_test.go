package unary_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// inBubble serves a client over a pipe, with the bubble's clock.
func inBubble(t *testing.T, edit func(*unary.Config), f func(t *testing.T, p *peer)) {
	synctest.Test(t, func(t *testing.T) {
		cfg := unary.Config{Methods: newBackend().methods()}
		if edit != nil {
			edit(&cfg)
		}
		s, l := unary.New(cfg), newPipes()
		go func() { _ = s.Serve(l) }()
		p := newPeer(t, l.dial())
		greeted := make(chan struct{})
		go func() { // a pipe has no room: who writes waits for who reads
			p.greet()
			close(greeted)
		}()
		p.wait("SETTINGS", func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
		<-greeted
		f(t, p)
		_ = p.Conn.Close()
		_ = l.Close()
		s.Close()
		time.Sleep(time.Hour) // of the bubble's clock: goroutines that send end too
	})
}

// A request that does not get on is reset after Limits.Stall, or at its deadline. One that does is not.
func TestSlowRequests(t *testing.T) {
	const stall = 30 * time.Second // the default
	tests := []struct {
		name  string
		send  func(*peer)
		after time.Duration
	}{
		{"headers only", func(p *peer) { p.open(1, false, fields(echo)...) }, stall},
		{"a part of a message", func(p *peer) {
			p.open(1, false, fields(echo)...)
			p.must(p.WriteData(1, false, message("abcdefgh")[:9]))
		}, stall},
		{"what is not gRPC", func(p *peer) { p.open(1, false, fields(echo, "content-type", "text/plain")...) }, stall},
		{"a byte now and then", func(p *peer) {
			p.open(1, false, fields(echo)...)
			for p.WriteData(1, false, []byte{0}) == nil {
				time.Sleep(stall / 8)
			}
		}, stall},
		{"a deadline", func(p *peer) { p.open(1, false, fields(echo, "grpc-timeout", "2S")...) }, 2 * time.Second},
		{"a deadline at once", func(p *peer) { p.open(1, false, fields(echo, "grpc-timeout", "1n")...) }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, p *peer) {
				began := time.Now()
				go tt.send(p)
				if got := p.answer(1).text(); got != "RST_STREAM CANCEL" {
					t.Errorf("got %s, want RST_STREAM CANCEL", got)
				}
				if took := time.Since(began); took < tt.after || took > tt.after+tt.after/2+time.Second {
					t.Errorf("it took %v, want %v or a little more", took, tt.after)
				}
				_ = p.Conn.Close()
			})
		})
	}
	t.Run("steadily", func(t *testing.T) {
		inBubble(t, nil, func(t *testing.T, p *peer) {
			text := strings.Repeat("x", 3000)
			go func() {
				p.open(1, false, fields(echo)...)
				for i := range 3 {
					p.must(p.WriteData(1, false, message(text)[i*1000:(i+1)*1000]))
					time.Sleep(stall * 3 / 5)
				}
				p.must(p.WriteData(1, true, message(text)[3000:]))
			}()
			if got := p.answer(1).text(); got != text {
				t.Errorf("got %.50s, want its text", got)
			}
		})
	})
}

// A header block that does not end ends its connection, however its parts come.
func TestSlowHeaders(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *peer) {
		began := time.Now()
		go func() {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields(echo)...)}))
			for range 40 {
				if p.WriteContinuation(1, false, nil) != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		if got := p.ends(); got != "ENHANCE_YOUR_CALM" {
			t.Errorf("got %s, want ENHANCE_YOUR_CALM", got)
		}
		if took := time.Since(began); took < 30*time.Second || took > 32*time.Second {
			t.Errorf("it took %v, want 30 s", took)
		}
	})
}

// An answer that the client lets through byte by byte is given up. The others go out.
func TestSlowAnswers(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, p *peer) {
		go func() {
			p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}))
			p.call(1, echo, strings.Repeat("x", 1000))
			for range 10 {
				p.must(p.WriteWindowUpdate(1, 1))
				time.Sleep(4 * time.Second)
			}
			p.call(3, echo, "a")
		}()
		all := p.answers(1, 3)
		if a := all[1]; !a.wasReset || a.reset != http2.ErrCodeCancel {
			t.Errorf("the slow one: %s, want it reset", a.text())
		}
		if got := all[3].text(); got != "a" {
			t.Errorf("the other: %s, want a", got)
		}
	})
}

// Answers that wait for a window are bounded like messages.
func TestWaitingAnswersAreBounded(t *testing.T) {
	long := func(_ context.Context, dst, _ []byte) ([]byte, unary.Status) {
		return append(dst, make([]byte, 10_000)...), unary.Status{}
	}
	p := connect(t, serve(t, func(c *unary.Config) {
		c.Limits.ConnBytes, c.Methods = 100_000, map[string]unary.Handler{echo: long}
	}), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range uint32(20) {
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: p.encode(fields(echo)...), EndHeaders: true})
		_ = p.WriteData(2*i+1, true, message("a")) // it may be over already
	}
	if got := p.ends(); got != "ENHANCE_YOUR_CALM" {
		t.Errorf("got %s, want ENHANCE_YOUR_CALM", got)
	}
}

// Messages that do not end take nothing from the short ones of others, nor do header blocks.
func TestShortMessagesFindRoom(t *testing.T) {
	l := serve(t, func(c *unary.Config) { c.Limits.Bytes = 1 << 20 })
	greedy := connect(t, l)
	for i := range uint32(4) {
		greedy.open(2*i+1, false, fields(echo)...)
		for part := message(strings.Repeat("x", 512<<10))[:512<<10]; len(part) > 0; part = part[16<<10:] {
			greedy.must(greedy.WriteData(2*i+1, false, part[:16<<10]))
		}
	}
	greedy.synced()
	p := connect(t, l)
	block := p.encode(fields(echo)...)
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:5]}))
	p.must(p.WriteContinuation(1, true, block[5:]))
	text := strings.Repeat("y", 10_000)
	p.must(p.WriteData(1, true, message(text)))
	if got := p.answer(1).text(); got != text {
		t.Errorf("got %.50s, want its text", got)
	}
}

// What little input makes much of is written before all of the input is read.
func TestAmplification(t *testing.T) {
	sizes := make(chan int, 1000)
	l, s := newPipes(), unary.New(unary.Config{Methods: newBackend().methods()})
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	defer l.Close()
	here, there := net.Pipe()
	l.conns <- &sizedConn{Conn: there, sizes: sizes}
	p := newPeer(t, here)
	go func() {
		p.greet()
		const n = 3000
		p.write(join(func(w *http2.Framer) {
			for i := range uint32(n) {
				path := "/" + strings.Repeat("\xff", 1000) + "/x"
				p.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: p.encode(fields(path)...), EndHeaders: true, EndStream: true}))
			}
		}))
		p.must(p.WritePing(false, [8]byte{1}))
	}()
	p.wait("the acknowledgement of a PING", func(f http2.Frame) bool {
		if h, ok := f.(*http2.HeadersFrame); ok && len(h.HeaderBlockFragment()) > 500 {
			t.Fatalf("an answer has %d bytes of headers, want at most 500", len(h.HeaderBlockFragment()))
		}
		g, ok := f.(*http2.PingFrame)
		return ok && g.IsAck()
	})
	_ = here.Close()
	for len(sizes) > 0 {
		if n := <-sizes; n > 100<<10 {
			t.Errorf("%d bytes are written at once, want at most 100 KiB", n)
		}
	}
}

type sizedConn struct {
	net.Conn
	sizes chan int
}

func (c *sizedConn) Write(p []byte) (int, error) {
	select {
	case c.sizes <- len(p):
	default:
	}
	return c.Conn.Write(p)
}

// Answers do not wait until all quick handlers of what was read together have run.
func TestQuickHandlersHoldNothingBack(t *testing.T) {
	const n, each = 100, 700 * time.Microsecond
	inBubble(t, func(c *unary.Config) {
		c.Methods = map[string]unary.Handler{echo: func(_ context.Context, dst, msg []byte) ([]byte, unary.Status) {
			time.Sleep(each)
			return append(dst, msg...), unary.Status{}
		}}
	}, func(t *testing.T, p *peer) {
		began := time.Now()
		var ids []uint32
		all := join(func(w *http2.Framer) {
			for i := range uint32(n) {
				ids = append(ids, 2*i+1)
				p.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: p.encode(fields(echo)...), EndHeaders: true}))
				p.must(w.WriteData(2*i+1, true, message("a")))
			}
		})
		go p.write(all)
		p.answer(1)
		if took := time.Since(began); took > 5*time.Millisecond {
			t.Errorf("the first of %d answers came after %v, want at most 5 ms", n, took)
		}
		p.answer(ids[n-1])
	})
}

// Trailers on a stream that was reset long ago end that stream again, and no other.
func TestTrailersOnForgottenStreams(t *testing.T) {
	p := connect(t, serve(t, nil))
	p.open(1, false, fields("/no.Such/Method")...) // answered and reset at once
	p.answer(1)
	for i := range uint32(64) {
		p.call(3+2*i, echo, "a")
		p.answer(3 + 2*i)
	}
	p.open(1, true, "x-more", "1")
	if got := p.answer(1).text(); got != "RST_STREAM STREAM_CLOSED" {
		t.Errorf("got %s, want RST_STREAM STREAM_CLOSED", got)
	}
	p.call(201, echo, "b")
	if got := p.answer(201).text(); got != "b" {
		t.Errorf("then: %s, want b", got)
	}
}

// A handler that answers with what it keeps has it left alone.
func TestHandlersKeepTheirAnswers(t *testing.T) {
	kept := []byte("a constant")
	p := connect(t, serve(t, func(c *unary.Config) {
		methods := newBackend().methods()
		methods[hold] = func(context.Context, []byte, []byte) ([]byte, unary.Status) { return kept, unary.Status{} }
		c.Methods = methods
	}))
	for i, path := range []string{hold, echo, hold} {
		id := uint32(2*i + 1)
		p.call(id, path, "other")
		if got := p.answer(id).text(); path == hold && got != "a constant" {
			t.Errorf("got %s, want a constant", got)
		}
	}
}

// A panic in a connection, while it writes and while it ends, ends the contexts of its handlers as well.
func TestPanicsInConnections(t *testing.T) {
	for name, spoil := range map[string]func(*panicker, *peer){
		"while it writes": func(p *panicker, _ *peer) { p.write = true },
		"while it ends":   func(p *panicker, c *peer) { p.log = true; c.must(c.WriteWindowUpdate(0, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			b, bad := newBackend(), &panicker{Handler: slog.DiscardHandler}
			s := unary.New(unary.Config{Methods: b.methods(), Logger: slog.New(bad)})
			l := newPipes()
			go func() { _ = s.Serve(l) }()
			defer s.Close()
			defer l.Close()
			here, there := net.Pipe()
			bad.Conn = there
			l.conns <- bad
			p := newPeer(t, here)
			greeted := make(chan struct{})
			go func() {
				p.greet()
				close(greeted)
			}()
			p.wait("SETTINGS", func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
			<-greeted
			p.call(1, hold, "a")
			ctx := <-b.entered
			go p.ends()
			spoil(bad, p)
			_ = p.WritePing(false, [8]byte{})
			select {
			case <-ctx.Done():
			case <-time.After(patience):
				t.Error("the context has not ended")
			}
			_ = here.Close()
		})
	}
}

// A panicker is a connection and a log that panic once they are told to.
type panicker struct {
	net.Conn
	slog.Handler
	write, log bool
}

func (p *panicker) Write(b []byte) (int, error) {
	if p.write {
		panic("write")
	}
	return p.Conn.Write(b)
}

func (p *panicker) Enabled(context.Context, slog.Level) bool { return true }

func (p *panicker) Handle(context.Context, slog.Record) error {
	if p.log {
		p.log = false
		panic("log")
	}
	return nil
}
