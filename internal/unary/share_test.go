package unary_test

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// Little things add up: what is beyond a connection's share counts, be it short messages, streams without one, header blocks that
// do not end or answers that are not taken. Whoever has the share to themselves gets on.
func TestLittleThingsAddUp(t *testing.T) {
	l := serve(t, func(c *unary.Config) {
		c.Limits.Bytes = 1 << 20
		c.Methods[fail] = func(_ context.Context, dst, _ []byte) ([]byte, unary.Status) {
			return append(dst, make([]byte, 100<<10)...), unary.Status{}
		}
	})
	modest := connect(t, l)
	text := message(strings.Repeat("x", 100<<10))
	part := func(p *peer, ended bool, text []byte) {
		for ; len(text) > 16<<10; text = text[16<<10:] {
			p.must(p.WriteData(1, false, text[:16<<10]))
		}
		p.must(p.WriteData(1, ended, text))
	}
	for range 40 { // with 28 KiB each beyond their shares, until less than that is left
		p := connect(t, l)
		p.open(1, false, fields(echo)...)
		part(p, false, message(strings.Repeat("x", 60<<10))[:60<<10])
		p.synced()
	}

	t.Run("messages", func(t *testing.T) {
		p := connect(t, l)
		p.open(1, false, fields(echo)...)
		part(p, true, text)
		if got := p.answer(1).text(); got != "none" {
			t.Errorf("got %.50s, want that there is no message", got)
		}
	})
	t.Run("streams", func(t *testing.T) {
		p := connect(t, l)
		for id := uint32(1); id < 400; id += 2 {
			p.open(id, false, fields(echo)...)
		}
		if got := p.answer(399).text(); got != "RST_STREAM REFUSED_STREAM" {
			t.Errorf("got %s, want it refused", got)
		}
	})
	t.Run("header blocks", func(t *testing.T) {
		p := connect(t, l)
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(fields(echo)...)}))
		for range 6 {
			_ = p.WriteContinuation(1, false, make([]byte, 16<<10)) // it may be over already
		}
		if got := p.ends(); got != "ENHANCE_YOUR_CALM" {
			t.Errorf("got %s, want ENHANCE_YOUR_CALM", got)
		}
	})
	t.Run("answers", func(t *testing.T) {
		p := connect(t, l, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.call(1, fail, "a")
		if got := p.ends(); got != "ENHANCE_YOUR_CALM" {
			t.Errorf("got %s, want ENHANCE_YOUR_CALM", got)
		}
	})
	modest.open(1, false, fields(echo)...)
	part(modest, true, message(strings.Repeat("y", 30<<10)))
	if got := modest.answer(1).text(); len(got) != 30<<10 {
		t.Errorf("got %.50s, want its text", got)
	}
}

// What a header block took is given back when it has ended.
func TestHeaderBlocksAreGivenBack(t *testing.T) {
	p := connect(t, serve(t, func(c *unary.Config) { c.Limits.ConnBytes = 30 << 10 }))
	for id := uint32(1); id < 10; id += 2 {
		block := p.encode(fields(echo, "x", strings.Repeat("x", 15<<10))...)
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block[:5]}))
		p.must(p.WriteContinuation(id, true, block[5:]))
		p.must(p.WriteData(id, true, message("a")))
		if got := p.answer(id).text(); got != "a" {
			t.Fatalf("got %s, want a", got)
		}
	}
}
