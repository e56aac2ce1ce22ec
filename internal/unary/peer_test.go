package unary_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// patience is how long a test waits for what must come, on a busy machine too.
const patience = 20 * time.Second

// A peer is a client that writes frames as a test wants them.
type peer struct {
	testing.TB
	net.Conn
	*http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	last    uint32 // stream, of a GOAWAY that came among answers
}

// connect greets the server, and reads its preface.
func connect(t testing.TB, l net.Listener, settings ...http2.Setting) *peer {
	t.Helper()
	p := dial(t, l)
	p.greet(settings...)
	p.wait("SETTINGS", func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
	p.must(p.WriteSettingsAck())
	return p
}

func (p *peer) greet(settings ...http2.Setting) {
	p.Helper()
	p.write([]byte(http2.ClientPreface))
	p.must(p.WriteSettings(settings...))
}

func dial(t testing.TB, l net.Listener) *peer {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return newPeer(t, c)
}

func newPeer(t testing.TB, c net.Conn) *peer {
	p := &peer{TB: t, Conn: c, Framer: http2.NewFramer(c, c), decoder: hpack.NewDecoder(4096, nil)}
	p.AllowIllegalWrites = true
	p.encoder = hpack.NewEncoder(&p.block)
	return p
}

func (p *peer) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *peer) write(b []byte) {
	p.Helper()
	_, err := p.Conn.Write(b)
	p.must(err)
}

// fields are the header fields of a good request, each replaced by one of the same name in edits, or left out if that is empty.
func fields(path string, edits ...string) []string {
	all := []string{
		":method", "POST", ":scheme", "http", ":path", path, ":authority", "localhost",
		"content-type", "application/grpc", "te", "trailers",
	}
	for i := 0; i < len(edits); i += 2 {
		found := false
		for j := 0; j < len(all); j += 2 {
			if all[j] != edits[i] {
				continue
			}
			if all[j+1] = edits[i+1]; edits[i+1] == "" {
				all = append(all[:j:j], all[j+2:]...)
			}
			found = true
			break
		}
		if !found {
			all = append(all, edits[i], edits[i+1])
		}
	}
	return all
}

func (p *peer) encode(fields ...string) []byte {
	p.Helper()
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(p.block.Bytes())
}

// open sends the headers of a request.
func (p *peer) open(id uint32, ended bool, fields ...string) {
	p.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fields...), EndHeaders: true, EndStream: ended}))
}

// message is a message as gRPC has it in a body.
func message(text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

// call sends a request with a message.
func (p *peer) call(id uint32, path, text string, edits ...string) {
	p.Helper()
	p.open(id, false, fields(path, edits...)...)
	p.must(p.WriteData(id, true, message(text)))
}

// An answer is what came back on a stream.
type answer struct {
	headers  map[string]string // those of the trailers too
	body     []byte
	reset    http2.ErrCode
	wasReset bool
}

// text is the message of an answer, or what else came.
func (a answer) text() string {
	switch {
	case a.wasReset && a.headers["grpc-status"] == "":
		return "RST_STREAM " + a.reset.String()
	case a.headers[":status"] != "200":
		return "HTTP " + a.headers[":status"]
	case a.headers["grpc-status"] != "0":
		return "status " + a.headers["grpc-status"] + " " + a.headers["grpc-message"]
	case len(a.body) < 5 || int(binary.BigEndian.Uint32(a.body[1:])) != len(a.body)-5:
		return fmt.Sprintf("a body of %q", a.body)
	}
	return string(a.body[5:])
}

// frame reads a frame. It returns nil at the end of the connection.
func (p *peer) frame() http2.Frame {
	p.Helper()
	f, err := p.ReadFrame()
	var netErr net.Error
	switch {
	case errors.As(err, &netErr) && netErr.Timeout():
		p.Fatal("nothing came")
	case errors.Is(err, io.EOF) || err != nil:
		return nil
	}
	return f
}

// wait reads frames until there is the one that is waited for.
func (p *peer) wait(what string, is func(http2.Frame) bool) http2.Frame {
	p.Helper()
	for {
		f := p.frame()
		if f == nil {
			p.Fatalf("the connection ended, want %s", what)
		}
		if is(f) {
			return f
		}
	}
}

// answers reads until the streams have ended, in whatever order.
func (p *peer) answers(ids ...uint32) map[uint32]answer {
	p.Helper()
	all := make(map[uint32]answer)
	open := make(map[uint32]bool)
	for _, id := range ids {
		open[id] = true
		all[id] = answer{headers: map[string]string{}}
	}
	for len(open) > 0 {
		f := p.frame()
		if f == nil {
			p.Fatalf("the connection ended, want answers on %v", open)
		}
		p.take(f, all, open)
	}
	return all
}

func (p *peer) take(f http2.Frame, all map[uint32]answer, open map[uint32]bool) {
	p.Helper()
	id := f.Header().StreamID
	a, ok := all[id]
	switch f := f.(type) {
	case *http2.HeadersFrame:
		list, err := p.decoder.DecodeFull(f.HeaderBlockFragment())
		p.must(err)
		if !ok {
			return
		}
		for _, field := range list {
			a.headers[field.Name] = field.Value
		}
		if f.StreamEnded() {
			delete(open, id)
		}
	case *http2.DataFrame:
		a.body = append(a.body, f.Data()...)
		if f.StreamEnded() {
			delete(open, id)
		}
	case *http2.RSTStreamFrame:
		a.reset, a.wasReset = f.ErrCode, true
		delete(open, id)
	case *http2.GoAwayFrame:
		if p.last = f.LastStreamID; f.ErrCode != http2.ErrCodeNo {
			p.Fatalf("GOAWAY %v", f.ErrCode)
		}
	}
	if ok {
		all[id] = a
	}
}

func (p *peer) answer(id uint32) answer {
	p.Helper()
	return p.answers(id)[id]
}

// ends reads until the connection ends, and returns what the last GOAWAY says.
func (p *peer) ends() string {
	p.Helper()
	code := "no GOAWAY"
	for {
		f := p.frame()
		if f == nil {
			return code
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code = g.ErrCode.String()
		}
	}
}

// synced returns when the server has taken all that was sent.
func (p *peer) synced() {
	p.Helper()
	p.must(p.WritePing(false, [8]byte{1}))
	p.wait("the acknowledgement of a PING", func(f http2.Frame) bool { g, ok := f.(*http2.PingFrame); return ok && g.IsAck() })
}
