package unary

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A replay is a connection whose client sends the same requests again and again, in batches, and reads nothing.
type replay struct {
	net.Conn
	preface []byte
	batch   func(first uint32) []byte
	next    uint32
	left    int
	size    int
	pending []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.preface) > 0 {
		n := copy(p, r.preface)
		r.preface = r.preface[n:]
		return n, nil
	}
	if len(r.pending) == 0 {
		if r.left <= 0 {
			return 0, io.EOF
		}
		r.pending = r.batch(r.next)
		r.next += uint32(2 * r.size)
		r.left -= r.size
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

func (*replay) Write(p []byte) (int, error)      { return len(p), nil }
func (*replay) Close() error                     { return nil }
func (*replay) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (*replay) SetReadDeadline(time.Time) error  { return nil }
func (*replay) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkTransport is what a call costs without system calls and without its handler: sixteen at once, or one.
func BenchmarkTransport(b *testing.B) {
	for name, size := range map[string]int{"16 at once": 16, "1": 1} {
		b.Run(name, func(b *testing.B) {
			answer := make([]byte, 1000)
			s := New(Config{Methods: map[string]Handler{"/a.B/C": func(_ context.Context, dst, _ []byte) ([]byte, Status) {
				return append(dst, answer...), Status{}
			}}})
			defer s.Close()
			c, err := s.handshake(newReplay(b.N, size))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var w worker
			c.lead(&w)
		})
	}
}

func newReplay(n, size int) *replay {
	var block, out bytes.Buffer
	e := hpack.NewEncoder(&block)
	w := http2.NewFramer(&out, nil)
	message := append([]byte{0, 0, 0, 6, 64}, make([]byte, 1600)...)
	preface := bytes.NewBufferString(http2.ClientPreface)
	settings := http2.NewFramer(preface, nil)
	_ = settings.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	return &replay{preface: preface.Bytes(), left: n, size: size, next: 1, batch: func(first uint32) []byte {
		out.Reset()
		_ = w.WriteWindowUpdate(0, uint32(size)*1005)
		for i := range size {
			id := first + uint32(2*i)
			block.Reset()
			for j := 0; j < len(benchFields); j += 2 {
				_ = e.WriteField(hpack.HeaderField{Name: benchFields[j], Value: benchFields[j+1]})
			}
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
			_ = w.WriteData(id, true, message)
		}
		return out.Bytes()
	}}
}

// benchFields are those of Envoy's requests.
var benchFields = []string{
	":method", "POST", ":path", "/a.B/C", ":authority", "extauthz", ":scheme", "http", "te", "trailers", "grpc-timeout", "500m",
	"content-type", "application/grpc", "x-envoy-internal", "true", "x-forwarded-for", "192.0.2.2",
}

// What a call costs in allocations is the frame, the call and its message: a handler's context and what it keeps.
func TestAllocations(t *testing.T) {
	s := New(Config{Methods: map[string]Handler{"/a.B/C": func(_ context.Context, dst, _ []byte) ([]byte, Status) {
		return append(dst, 1), Status{}
	}}})
	defer s.Close()
	const calls = 2000
	allocs := func(n int) float64 {
		return testing.AllocsPerRun(5, func() {
			c, err := s.handshake(newReplay(n, 16))
			if err != nil {
				t.Fatal(err)
			}
			var w worker
			c.lead(&w)
		})
	}
	// Each WINDOW_UPDATE is one more, for sixteen calls.
	if got := (allocs(calls+160) - allocs(160)) / calls; got > 6 {
		t.Errorf("%.1f allocations a call, want at most 6", got)
	} else {
		t.Logf("%.1f allocations a call", got)
	}
}
