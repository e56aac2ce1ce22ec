package unary_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

func TestAnswer(t *testing.T) {
	l := serve(t, nil)
	p := connect(t, l)
	p.call(1, echo, "hello")
	a := p.answer(1)
	if got := a.text(); got != "hello" {
		t.Errorf("got %s, want hello", got)
	}
	if got := a.headers["content-type"]; got != "application/grpc" {
		t.Errorf("content-type %s, want application/grpc", got)
	}
}

// What is wrong with one stream, and what becomes of it. The connection goes on.
func TestStreams(t *testing.T) {
	l := serve(t, nil)
	whole := func(edits ...string) func(*peer) { return func(p *peer) { p.call(1, echo, "a", edits...) } }
	body := func(parts ...string) func(*peer) {
		return func(p *peer) {
			p.open(1, len(parts) == 0, fields(echo)...)
			for i, part := range parts {
				p.must(p.WriteData(1, i == len(parts)-1, []byte(part)))
			}
		}
	}
	tests := []struct {
		name string
		send func(*peer)
		want string
	}{
		{"whole", whole(), "a"},
		{"an empty message", body("\x00\x00\x00\x00\x00"), ""},
		{"in single bytes", body(strings.Split(string(message("abc")), "")...), "abc"},
		{"with empty frames", body("", string(message("abc")), "", ""), "abc"},
		{"with padding", func(p *peer) {
			p.open(1, false, fields(echo)...)
			p.must(p.WriteDataPadded(1, true, message("abc"), make([]byte, 200)))
		}, "abc"},
		{"with trailers", func(p *peer) {
			p.open(1, false, fields(echo)...)
			p.must(p.WriteData(1, false, message("abc")))
			p.open(1, true, "x-more", "1")
		}, "abc"},
		{"trailers that do not end it", func(p *peer) {
			p.open(1, false, fields(echo)...)
			p.open(1, false, "x-more", "1")
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"trailers with a pseudo-header field", func(p *peer) {
			p.open(1, false, fields(echo)...)
			p.open(1, true, ":path", "/")
		}, "RST_STREAM PROTOCOL_ERROR"},
		{"headers in many parts", func(p *peer) {
			block := p.encode(fields(echo)...)
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:1]}))
			for i := 1; i < len(block)-1; i++ {
				p.must(p.WriteContinuation(1, false, block[i:i+1]))
			}
			p.must(p.WriteContinuation(1, true, block[len(block)-1:]))
			p.must(p.WriteData(1, true, message("abc")))
		}, "abc"},
		{"no message", body(), "status 13 cardinality violation: received no request message from non-client-streaming RPC"},
		{"a cut prefix", body("\x00\x00"), "status 13 unexpected EOF"},
		{"a cut message", body("\x00\x00\x00\x00\x05abc"), "status 13 unexpected EOF"},
		{"two messages", body(string(message("a")) + string(message("b"))), "status 13 cardinality violation: received multiple request messages for non-client-streaming RPC"},
		{"two messages in two frames", body(string(message("a")), string(message("b"))), "status 13 cardinality violation: received multiple request messages for non-client-streaming RPC"},
		{"compressed without saying how", body("\x01\x00\x00\x00\x01a"), "status 13 grpc: compressed flag set with identity or empty encoding"},
		{"an unknown flag", body("\x02\x00\x00\x00\x01a"), "status 13 grpc: received unexpected payload format 2"},
		{"compressed", func(p *peer) {
			p.open(1, false, fields(echo, "grpc-encoding", "gzip")...)
			p.must(p.WriteData(1, true, []byte("\x01\x00\x00\x00\x01a")))
		}, "none"},
		{"an encoding that is not used", whole("grpc-encoding", "gzip"), "a"},
		{"content-length", whole("content-length", "6"), "a"},
		{"a content-length that is wrong", whole("content-length", "7"), "RST_STREAM PROTOCOL_ERROR"},
		{"two content-lengths", whole("content-length", "6", "Content-length", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"a content-length that is none", whole("content-length", "-1"), "RST_STREAM PROTOCOL_ERROR"},
		{"upper case", whole("X-Upper", "1"), "RST_STREAM PROTOCOL_ERROR"},
		{"a space in a name", whole("x y", "1"), "RST_STREAM PROTOCOL_ERROR"},
		{"a control in a value", whole("x-y", "a\nb"), "RST_STREAM PROTOCOL_ERROR"},
		{"bytes in a value", whole("x-y", "\xff\x80"), "a"},
		{"connection", whole("connection", "close"), "RST_STREAM PROTOCOL_ERROR"},
		{"te: gzip", whole("te", "gzip"), "RST_STREAM PROTOCOL_ERROR"},
		{"no te", whole("te", ""), "a"},
		{"no path", whole(":path", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"no method", whole(":method", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"no scheme", whole(":scheme", ""), "RST_STREAM PROTOCOL_ERROR"},
		{"an unknown pseudo-header field", func(p *peer) { p.open(1, true, append([]string{":x", "1"}, fields(echo)...)...) }, "RST_STREAM PROTOCOL_ERROR"},
		{"a pseudo-header field at the end", whole(":protocol", "x"), "RST_STREAM PROTOCOL_ERROR"},
		{"a pseudo-header field twice", func(p *peer) { p.open(1, true, append([]string{":path", "/"}, fields(echo)...)...) }, "RST_STREAM PROTOCOL_ERROR"},
		{"no authority", whole(":authority", ""), "HTTP 400"},
		{"a host instead", whole(":authority", "", "host", "localhost"), "a"},
		{"two hosts", func(p *peer) { p.open(1, true, append(fields(echo), "host", "a", "host", "b")...) }, "HTTP 400"},
		{"GET", whole(":method", "GET"), "HTTP 405"},
		{"another content type", whole("content-type", "application/json"), "HTTP 415"},
		{"almost the content type", whole("content-type", "application/grpcx"), "HTTP 415"},
		{"a content type with more", whole("content-type", "application/grpc+x"), "a"},
		{"no content type", whole("content-type", ""), "HTTP 415"},
		{"an unknown service", whole(":path", "/a.B/C"), "status 12 unknown service a.B"},
		{"an unknown method", whole(":path", "/test.Service/C"), "status 12 unknown method C for service test.Service"},
		{"a malformed method", whole(":path", "abc"), "status 12 malformed method name: \"abc\""},
		{"a percent sign", whole(":path", "/a%\xc3\xa4\n/C"), "RST_STREAM PROTOCOL_ERROR"},
		{"text to be escaped", func(p *peer) { p.call(1, fail, "a%\xc3\xa4\n") }, "status 5 a%25%C3%A4%0A"},
		{"a timeout", whole("grpc-timeout", "10S"), "a"},
		{"a bad timeout", whole("grpc-timeout", "10"), "HTTP 400"},
		{"a timeout of nothing", whole("grpc-timeout", "0n"), "status 4 context deadline exceeded"},
		{"a panic", func(p *peer) { p.call(1, boom, "") }, "status 13 panic"},
		{"more data than the window, which is given back as it comes", func(p *peer) {
			p.open(1, false, fields(echo)...)
			for range 1<<20/(16<<10) + 1 {
				p.must(p.WriteData(1, false, make([]byte, 16<<10)))
			}
			p.must(p.WriteData(1, true, nil))
		}, "status 13 cardinality violation: received multiple request messages for non-client-streaming RPC"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := connect(t, l)
			tt.send(p)
			if got := p.answer(1).text(); got != tt.want {
				t.Errorf("got %.200s, want %.200s", got, tt.want)
			}
			p.call(3, echo, "next")
			if got := p.answer(3).text(); got != "next" {
				t.Errorf("then: %s, want next", got)
			}
		})
	}
}

// Faults of a connection, which end it with a GOAWAY that says why.
func TestConnectionFaults(t *testing.T) {
	l := serve(t, func(c *unary.Config) { c.Limits.HeaderBytes = 1 << 20 })
	setting := func(id http2.SettingID, v uint32) func(*peer) {
		return func(p *peer) { p.must(p.WriteSettings(http2.Setting{ID: id, Val: v})) }
	}
	raw := func(kind http2.FrameType, flags http2.Flags, id uint32, payload string) func(*peer) {
		return func(p *peer) { p.must(p.WriteRawFrame(kind, flags, id, []byte(payload))) }
	}
	tests := []struct {
		name string
		send func(*peer)
		want string
	}{
		{"an even stream", func(p *peer) { p.call(2, echo, "a") }, "PROTOCOL_ERROR"},
		{"a lower stream", func(p *peer) { p.call(5, echo, "a"); p.answer(5); p.call(3, echo, "a") }, "PROTOCOL_ERROR"},
		{"a closed stream", func(p *peer) { p.call(5, echo, "a"); p.answer(5); p.call(5, echo, "a") }, "STREAM_CLOSED"},
		{"DATA on an idle stream", func(p *peer) { p.must(p.WriteData(1, true, nil)) }, "PROTOCOL_ERROR"},
		{"RST_STREAM on an idle stream", func(p *peer) { p.must(p.WriteRSTStream(1, 0)) }, "PROTOCOL_ERROR"},
		{"WINDOW_UPDATE on an idle stream", func(p *peer) { p.must(p.WriteWindowUpdate(1, 1)) }, "PROTOCOL_ERROR"},
		{"PUSH_PROMISE", raw(http2.FramePushPromise, 4, 1, "\x00\x00\x00\x02"), "PROTOCOL_ERROR"},
		{"a window too large", func(p *peer) { p.must(p.WriteWindowUpdate(0, 1<<31-1)) }, "FLOW_CONTROL_ERROR"},
		{"an increment of nothing", func(p *peer) { p.must(p.WriteWindowUpdate(0, 0)) }, "PROTOCOL_ERROR"},
		{"a frame too long", raw(http2.FrameData, 0, 1, strings.Repeat("x", 16<<10+1)), "FRAME_SIZE_ERROR"},
		{"a PING too short", raw(http2.FramePing, 0, 0, "1234567"), "FRAME_SIZE_ERROR"},
		{"padding longer than the frame", raw(http2.FrameHeaders, http2.FlagHeadersPadded, 1, "\xff"), "PROTOCOL_ERROR"},
		{"padding that is missing", raw(http2.FrameHeaders, http2.FlagHeadersPadded, 1, ""), "FRAME_SIZE_ERROR"},
		{"an initial window too large", setting(http2.SettingInitialWindowSize, 1<<31), "FLOW_CONTROL_ERROR"},
		{"a frame size too small", setting(http2.SettingMaxFrameSize, 1), "PROTOCOL_ERROR"},
		{"a push setting of 2", setting(http2.SettingEnablePush, 2), "PROTOCOL_ERROR"},
		{"a header block that is none", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, "\xff\xff\xff\xff\xff"), "COMPRESSION_ERROR"},
		{"a header block that is cut", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, "\x00\x0a"), "COMPRESSION_ERROR"},
		{"an interrupted header block", func(p *peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields(echo)...)}))
			p.must(p.WritePing(false, [8]byte{}))
		}, "PROTOCOL_ERROR"},
		{"a header block in very many parts", func(p *peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields(echo)...)}))
			for range 100 {
				p.must(p.WriteContinuation(1, false, nil))
			}
		}, "ENHANCE_YOUR_CALM"},
		{"a header block that is too long", func(p *peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields(echo)...)}))
			for range 65 {
				_ = p.WriteContinuation(1, false, make([]byte, 16<<10)) // it may be over already
			}
		}, "ENHANCE_YOUR_CALM"},
		{"very many settings in a frame", func(p *peer) { p.must(p.WriteSettings(make([]http2.Setting, 101)...)) }, "ENHANCE_YOUR_CALM"},
		{"very many SETTINGS", func(p *peer) {
			for range 1001 {
				_ = p.WriteSettings()
			}
		}, "ENHANCE_YOUR_CALM"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := connect(t, l)
			tt.send(p)
			if got := p.ends(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestPreface(t *testing.T) {
	l := serve(t, func(c *unary.Config) { c.Limits.Handshake = 100 * time.Millisecond })
	for _, sent := range map[string]string{
		"HTTP/1.1":         "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"another preface":  "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"no SETTINGS":      http2.ClientPreface + "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678",
		"nothing":          "",
		"a cut preface":    http2.ClientPreface[:10],
		"nothing after it": http2.ClientPreface,
	} {
		p := dial(t, l)
		p.write([]byte(sent))
		p.ends() // whatever the last words are
	}
}

// A header list may be long: what Envoy passes on of a trace may be the client's.
func TestLongHeaders(t *testing.T) {
	l := serve(t, nil)
	p := connect(t, l)
	block := p.encode(fields(echo, "tracestate", strings.Repeat("x", 250<<10))...)
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16<<10]}))
	for block = block[16<<10:]; len(block) > 16<<10; block = block[16<<10:] {
		p.must(p.WriteContinuation(1, false, block[:16<<10]))
	}
	p.must(p.WriteContinuation(1, true, block))
	p.must(p.WriteData(1, true, message("a")))
	if got := p.answer(1).text(); got != "a" {
		t.Errorf("got %s, want a", got)
	}
}

// An answer goes out as fast as the windows let it: of the stream and of the connection, which both may grow by little, and the
// stream's may have become negative (RFC 9113 section 6.9.2).
func TestWindows(t *testing.T) {
	l := serve(t, nil)
	text := strings.Repeat("0123456789", 20_000)
	whole := len(message(text))
	window := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n} }
	read := func(p *peer, want int) (got int) {
		for got < want {
			if d, ok := p.wait("DATA", func(f http2.Frame) bool { _, ok := f.(*http2.DataFrame); return ok }).(*http2.DataFrame); ok {
				got += len(d.Data())
			}
		}
		return got
	}
	ask := func(p *peer, id uint32) {
		p.open(id, false, fields(echo)...)
		m := message(text)
		for len(m) > 16<<10 {
			p.must(p.WriteData(id, false, m[:16<<10]))
			m = m[16<<10:]
		}
		p.must(p.WriteData(id, true, m))
	}
	t.Run("of the connection", func(t *testing.T) {
		p := connect(t, l, window(1<<20))
		ask(p, 1)
		if got := read(p, 65535); got != 65535 {
			t.Errorf("got %d bytes, want 65535", got)
		}
		p.must(p.WriteWindowUpdate(0, 1))
		if got := read(p, 1); got != 1 {
			t.Errorf("got %d bytes, want 1", got)
		}
		p.must(p.WriteWindowUpdate(0, 1<<20))
		if got := read(p, whole-65536); got != whole-65536 {
			t.Errorf("got %d bytes, want %d", got, whole-65536)
		}
	})
	t.Run("of a stream, which becomes negative", func(t *testing.T) {
		p := connect(t, l, window(100))
		p.must(p.WriteWindowUpdate(0, 1<<24))
		ask(p, 1)
		if got := read(p, 100); got != 100 {
			t.Errorf("got %d bytes, want 100", got)
		}
		p.must(p.WriteSettings(window(50))) // -50
		p.must(p.WriteWindowUpdate(1, 50))  // 0
		p.synced()
		p.must(p.WriteWindowUpdate(1, 7))
		if got := read(p, 7); got != 7 {
			t.Errorf("got %d bytes, want 7", got)
		}
		p.must(p.WriteSettings(window(1 << 20)))
		if got := read(p, whole-107); got != whole-107 {
			t.Errorf("got %d bytes, want %d", got, whole-107)
		}
	})
	t.Run("one waits, others do not", func(t *testing.T) {
		p := connect(t, l, window(10))
		p.call(1, echo, text[:100])
		p.call(3, echo, "short")
		if got := p.answer(3).text(); got != "short" {
			t.Errorf("got %s, want short", got)
		}
		p.must(p.WriteWindowUpdate(1, 1<<20))
		p.wait("the rest", func(f http2.Frame) bool {
			return f.Header().StreamID == 1 && f.Header().Flags.Has(http2.FlagHeadersEndStream)
		})
	})
	t.Run("of a stream, too large", func(t *testing.T) {
		p := connect(t, l, window(10))
		ask(p, 1)
		read(p, 10) // the window is used up, else it would be too large at once
		p.must(p.WriteWindowUpdate(1, 1<<31-1))
		read(p, 65535-10)
		p.must(p.WriteWindowUpdate(1, 1<<31-1))
		p.wait("RST_STREAM", func(f http2.Frame) bool {
			r, ok := f.(*http2.RSTStreamFrame)
			return ok && r.ErrCode == http2.ErrCodeFlowControl
		})
	})
	t.Run("of streams, too large by a setting", func(t *testing.T) {
		p := connect(t, l, window(10))
		ask(p, 1)
		read(p, 10) // the window is used up, else it would be too large at once
		p.must(p.WriteWindowUpdate(1, 1<<31-1))
		read(p, 65535-10)
		p.must(p.WriteSettings(window(1<<31 - 1)))
		if got := p.ends(); got != "FLOW_CONTROL_ERROR" {
			t.Errorf("got %s, want FLOW_CONTROL_ERROR", got)
		}
	})
}

// A message that is longer than the limits is thrown away, and its handler answers without it.
func TestLongMessages(t *testing.T) {
	l := serve(t, func(c *unary.Config) {
		c.Limits.MessageBytes, c.Limits.ConnBytes = 1<<20, 3<<19
	})
	send := func(p *peer, id uint32, size int, whole bool) {
		p.open(id, false, fields(echo)...)
		m := message(strings.Repeat("x", size))
		for ; len(m) > 16<<10; m = m[16<<10:] {
			p.must(p.WriteData(id, false, m[:16<<10]))
		}
		p.must(p.WriteData(id, whole, m))
	}
	p := connect(t, l, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 24})
	p.must(p.WriteWindowUpdate(0, 1<<24))
	go func() { // the answers of others come in between
		send(p, 1, 1<<20, true)
		send(p, 3, 1<<20+1, true)
		send(p, 5, 10<<20, true)
		send(p, 7, 1<<20, false) // takes most of what the connection may hold
		send(p, 9, 1<<20, true)
		send(p, 11, 1<<18, true)
		p.must(p.WriteData(7, true, nil))
		p.call(13, echo, strings.Repeat("y", 10))
	}()
	all := p.answers(1, 3, 5, 7, 9, 11, 13)
	for id, want := range map[uint32]int{1: 1 << 20, 3: 4, 5: 4, 7: 1 << 20, 9: 4, 11: 1 << 18, 13: 10} {
		if got := all[id].text(); len(got) != want {
			t.Errorf("stream %d: %d bytes, %.50s, want %d", id, len(got), got, want)
		}
	}
}

// A client that makes the table of our encoder smaller is told that it is, once (RFC 7541 section 4.2).
func TestTableSize(t *testing.T) {
	p := connect(t, serve(t, nil), http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}))
	var blocks []string
	for id := uint32(1); id < 5; id += 2 {
		p.call(id, echo, "a")
		for ended := false; !ended; {
			if h, ok := p.frame().(*http2.HeadersFrame); ok {
				blocks = append(blocks, string(h.HeaderBlockFragment()))
				ended = h.StreamEnded()
			}
		}
	}
	if len(blocks) != 4 || blocks[0] != "\x20"+blocks[2] || blocks[1] != blocks[3] {
		t.Errorf("got %q, want a size update at the beginning of the first, and nowhere else", blocks)
	}
	p.decoder.SetAllowedMaxDynamicTableSize(0)
	for _, b := range blocks {
		if _, err := p.decoder.DecodeFull([]byte(b)); err != nil {
			t.Errorf("%q: %v", b, err)
		}
	}
}

// Little of what a client sends comes back in headers, which no window bounds.
func TestLongTexts(t *testing.T) {
	p := connect(t, serve(t, nil))
	long := strings.Repeat("x", 12_000)
	p.open(1, true, fields("/no.Service/"+long, "content-type", "application/grpc+"+long[:3000])...)
	a := p.answer(1)
	if got := a.headers; got["grpc-status"] != "12" || len(got["grpc-message"]) > 3<<10 || got["content-type"] != "application/grpc" {
		t.Errorf("got %.100q, %d bytes, content-type %.100s", got["grpc-status"], len(got["grpc-message"]), got["content-type"])
	}
}

// Each answer comes on its own stream, whatever else does.
func TestManyStreams(t *testing.T) {
	l := serve(t, nil)
	p := connect(t, l)
	p.must(p.WriteWindowUpdate(0, 1<<24))
	var ids []uint32
	var all bytes.Buffer
	other := http2.NewFramer(&all, nil)
	for i := range uint32(2000) {
		id := 2*i + 1
		ids = append(ids, id)
		p.must(other.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields(echo)...), EndHeaders: true}))
		p.must(other.WriteData(id, true, message(fmt.Sprint(id))))
	}
	go p.write(all.Bytes())
	for id, a := range p.answers(ids...) {
		if got := a.text(); got != fmt.Sprint(id) {
			t.Errorf("stream %d: %s", id, got)
		}
	}
}
