package unary

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/big"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pipes is a listener of connections in memory.
type pipes chan net.Conn

func (l pipes) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l pipes) Close() error   { return nil }
func (l pipes) Addr() net.Addr { return &net.UnixAddr{} }

func fuzzed(f *testing.F) (*Server, pipes) {
	s := New(Config{
		Limits: Limits{Streams: 50, MessageBytes: 1 << 16, ConnBytes: 1 << 18, HeaderBytes: 1 << 18, Stall: time.Second},
		Methods: map[string]Handler{
			"/a.B/C": func(_ context.Context, dst, msg []byte) ([]byte, Status) { return append(dst, msg...), Status{} },
			"/a.B/D": func(ctx context.Context, dst, msg []byte) ([]byte, Status) {
				Detach(ctx)
				return append(dst, msg...), Status{}
			},
		},
	})
	l := make(pipes)
	go func() { _ = s.Serve(l) }()
	f.Cleanup(func() { close(l); s.Close() })
	return s, l
}

// converse sends bytes, reads whatever comes, and waits until the server has let go of the connection and all that it held.
func converse(t *testing.T, s *Server, l pipes, sent []byte) []byte {
	t.Helper()
	here, there := net.Pipe()
	l <- there
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&got, here)
	}()
	_ = here.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := here.Write(sent); err == nil {
		// All is taken when the server reads on.
		_, _ = here.Write([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"))
	}
	_ = here.Close()
	<-read
	give := time.Now().Add(10 * time.Second)
	for {
		s.mu.Lock()
		left := len(s.conns) + len(s.shaking)
		s.mu.Unlock()
		if left == 0 && s.held.Load() == 0 && s.detached.Load() == 0 {
			return got.Bytes()
		}
		if time.Now().After(give) {
			t.Fatalf("%d connections, %d bytes and %d handlers are left", left, s.held.Load(), s.detached.Load())
		}
		time.Sleep(50 * time.Microsecond)
	}
}

func headersOf(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

var goodFields = []string{":method", "POST", ":scheme", "http", ":path", "/a.B/C", ":authority", "a", "content-type", "application/grpc"}

// Whatever a client sends after the preface, the server does not fall, and lets go of the connection; and what it sends itself
// are frames.
func FuzzFrames(f *testing.F) {
	seed := func(write func(*http2.Framer)) {
		var b bytes.Buffer
		w := http2.NewFramer(&b, nil)
		w.AllowIllegalWrites = true
		_ = w.WriteSettings()
		write(w)
		f.Add(b.Bytes())
	}
	message := []byte("\x00\x00\x00\x00\x01a")
	open := func(w *http2.Framer, id uint32, path string) {
		fields := strings.Split(strings.ReplaceAll(strings.Join(goodFields, "\n"), "/a.B/C", path), "\n")
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headersOf(fields...), EndHeaders: true})
	}
	seed(func(w *http2.Framer) { open(w, 1, "/a.B/C"); _ = w.WriteData(1, true, message) })
	seed(func(w *http2.Framer) {
		for id := uint32(1); id < 20; id += 2 {
			open(w, id, "/a.B/D")
			_ = w.WriteData(id, true, message)
		}
	})
	seed(func(w *http2.Framer) {
		open(w, 1, "/a.B/D")
		_ = w.WriteDataPadded(1, false, message[:3], make([]byte, 9))
		_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3})
		_ = w.WriteData(1, true, message[3:])
		_ = w.WriteWindowUpdate(1, 2)
		_ = w.WriteWindowUpdate(0, 100)
		_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		_ = w.WriteRSTStream(1, 8)
		_ = w.WritePing(false, [8]byte{})
		_ = w.WriteGoAway(1, 0, nil)
	})
	seed(func(w *http2.Framer) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headersOf(goodFields...)[:5]})
		_ = w.WriteContinuation(1, true, headersOf(goodFields...)[5:])
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headersOf("a", "b"), EndHeaders: true, EndStream: true})
		_ = w.WritePriority(3, http2.PriorityParam{StreamDep: 3})
		_ = w.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
	})
	s, l := fuzzed(f)
	f.Fuzz(func(t *testing.T, sent []byte) {
		got := converse(t, s, l, append([]byte(http2.ClientPreface), sent...))
		r := http2.NewFramer(nil, bytes.NewReader(got))
		r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for {
			if _, err := r.ReadFrame(); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // cut, if we were gone
				return
			} else if err != nil {
				t.Fatalf("what the server sends is wrong: %v\n%q", err, got)
			}
		}
	})
}

// Whatever the header block of a request holds, the connection's next request is understood, unless the connection ends for it.
func FuzzHeaders(f *testing.F) {
	f.Add(headersOf(goodFields...))
	f.Add(headersOf(append(goodFields, "grpc-timeout", "1S", "content-length", "3", "te", "trailers", "host", "b")...))
	f.Add(headersOf(":method", "CONNECT", ":authority", "a"))
	f.Add([]byte("\x20\x3f\xe1\x1f\x82\x86\x84\x41\x01a"))
	f.Add([]byte("\x00\x01X\x00"))
	s, l := fuzzed(f)
	f.Fuzz(func(t *testing.T, block []byte) {
		var b bytes.Buffer
		b.WriteString(http2.ClientPreface)
		w := http2.NewFramer(&b, nil)
		_ = w.WriteSettings()
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:min(len(block), 16000)], EndHeaders: true, EndStream: true})
		// Without the dynamic table, so that it means the same whatever the block has put there.
		var next []byte
		for i := 0; i < len(goodFields); i += 2 {
			next = append(next, 0, byte(len(goodFields[i])))
			next = append(append(next, goodFields[i]...), byte(len(goodFields[i+1])))
			next = append(next, goodFields[i+1]...)
		}
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: next, EndHeaders: true})
		_ = w.WriteData(3, true, []byte("\x00\x00\x00\x00\x05hello"))
		got := converse(t, s, l, b.Bytes())
		goAway := false
		r := http2.NewFramer(nil, bytes.NewReader(got))
		for {
			frame, err := r.ReadFrame()
			if err != nil {
				break
			}
			if g, ok := frame.(*http2.GoAwayFrame); ok && g.ErrCode == http2.ErrCodeCompression {
				goAway = true
			}
		}
		if !goAway && !bytes.Contains(got, []byte("\x00\x00\x00\x00\x05hello")) {
			t.Errorf("neither an answer nor COMPRESSION_ERROR: %q", got)
		}
	})
}

var timeoutForm = regexp.MustCompile(`\A[0-9]{1,8}[HMSmun]\z`)

// A timeout is what the specification says, and nothing else is one.
func FuzzTimeout(f *testing.F) {
	for _, s := range []string{"1S", "99999999H", "00000000n", "123456789m", "1", "m", "", "+1S", "1 S", "1s", "99999999M", "2562047H", "2562048H"} {
		f.Add(s)
	}
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTimeout(s)
		if ok := timeoutForm.MatchString(s); ok != (err == nil) {
			t.Fatalf("%q: error %v, want one: %v", s, err, !ok)
		}
		if err != nil {
			return
		}
		n, _ := new(big.Int).SetString(s[:len(s)-1], 10)
		n.Mul(n, big.NewInt(int64(units[s[len(s)-1]])))
		if n.Cmp(big.NewInt(math.MaxInt64)) > 0 {
			n.SetInt64(math.MaxInt64)
		}
		if n.Int64() != int64(got) {
			t.Errorf("%q is %v, want %v", s, got, time.Duration(n.Int64()))
		}
	})
}

// The frames that are appended by hand are those of the library.
func TestFramesAreTheLibrarys(t *testing.T) {
	var b bytes.Buffer
	w := http2.NewFramer(&b, nil)
	long := bytes.Repeat([]byte("x"), frameBytes+1)
	_ = w.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 7}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	_ = w.WriteSettingsAck()
	_ = w.WriteWindowUpdate(5, 77)
	_ = w.WritePing(true, drainPing)
	_ = w.WritePing(false, drainPing)
	_ = w.WriteGoAway(maxWindow, http2.ErrCodeProtocol, nil)
	_ = w.WriteRSTStream(1<<30+1, http2.ErrCodeCancel)
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: okHeaders, EndHeaders: true})
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: long[:frameBytes], EndStream: true})
	_ = w.WriteContinuation(3, true, long[frameBytes:])
	_ = w.WriteData(9, false, binary.BigEndian.AppendUint32([]byte{0}, 300))

	got := appendSettings(nil, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 7}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	got = appendFrame(got, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	got = appendWindowUpdate(got, 5, 77)
	got = appendPing(got, true, drainPing)
	got = appendPing(got, false, drainPing)
	got = appendGoAway(got, maxWindow, http2.ErrCodeProtocol)
	got = appendReset(got, 1<<30+1, http2.ErrCodeCancel)
	got = appendHeaders(got, 3, okHeaders, false)
	got = appendHeaders(got, 3, long, true)
	got = appendPrefix(appendFrame(got, prefix, http2.FrameData, 0, 9), 300)
	if !bytes.Equal(got, b.Bytes()) {
		t.Errorf("got\n%q, want\n%q", got, b.Bytes())
	}
}
