package unary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// Header blocks that need no dynamic table, so that there is no encoder to keep: names and values of the static table, and
// literals that are not indexed (RFC 7541 sections 6.1 and 6.2.3).
var (
	okHeaders      = block(field{":status", "200"}, field{"content-type", "application/grpc"})
	okHeadersProto = block(field{":status", "200"}, field{"content-type", "application/grpc+proto"})
	okTrailers     = block(field{"grpc-status", "0"})
)

type field struct{ name, value string }

// block encodes header fields.
func block(fields ...field) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range fields {
		static := f == field{":status", "200"}
		_ = e.WriteField(hpack.HeaderField{Name: f.name, Value: f.value, Sensitive: !static}) // a Buffer takes all
	}
	return b.Bytes()
}

// contentType is that of the answer: the request's, as grpc-go has it.
func (c *call) contentType() string {
	if len(c.subtype) < 2 {
		return "application/grpc"
	}
	return "application/grpc+" + c.subtype[1:]
}

// plainText is the answer to what is not gRPC.
const plainText = "this server answers gRPC only\n"

// answer writes the answer of a call whose handler has returned.
func (c *conn) answer(call *call, msg []byte, status Status) {
	call.over()
	c.mu.Lock()
	defer c.mu.Unlock()
	call.running = false
	c.release(call, 0)
	switch {
	case call.gone:
		c.orphans--
	case status.Code != codes.OK:
		c.refuse(call, status, http.StatusOK)
	default:
		c.respond(call, call.okHeaders(), okTrailers, msg)
	}
}

func (c *call) okHeaders() []byte {
	switch c.subtype {
	case "":
		return okHeaders
	case "+proto": // as grpc-go's clients say that are told which codec to use
		return okHeadersProto
	}
	return block(field{":status", "200"}, field{"content-type", c.contentType()})
}

// prefix is what precedes the message of an answer.
const prefix = 5

// respond writes an answer with a message: headers, data, trailers. The caller holds mu.
func (c *conn) respond(call *call, headers, trailers, msg []byte) {
	c.putHeaders(call.id, headers, false)
	size := prefix + len(msg)
	if int64(size) > min(call.sendWindow, c.sendWindow, frameBytes) {
		call.trailer = trailers
		c.queue(call, append(appendPrefix(make([]byte, 0, size), len(msg)), msg...))
		return
	}
	c.out = appendPrefix(appendFrame(c.out, size, http2.FrameData, 0, call.id), len(msg))
	c.out = append(c.out, msg...)
	c.sendWindow -= int64(size) // the stream's own window is of no use any more
	c.putHeaders(call.id, trailers, true)
	c.sent(call)
}

// refuse writes an answer without a message. The caller holds mu.
func (c *conn) refuse(call *call, s Status, httpStatus int) {
	if call.plain {
		c.respondPlain(call, httpStatus)
		return
	}
	headers := block(field{":status", strconv.Itoa(httpStatus)}, field{"content-type", call.contentType()},
		field{"grpc-status", strconv.FormatUint(uint64(s.Code), 10)}, field{"grpc-message", escape(s.Message)})
	c.putHeaders(call.id, headers, true)
	c.sent(call)
}

// maxText is how long a status message may be as it goes out, as header blocks know no flow control.
const maxText = 1 << 10

func (c *conn) respondPlain(call *call, httpStatus int) {
	c.putHeaders(call.id, block(field{":status", strconv.Itoa(httpStatus)}, field{"content-type", "text/plain; charset=utf-8"}), false)
	c.queue(call, []byte(plainText))
}

// queue sends an answer's data as the windows let it. What waits for one is bounded too. The caller holds mu.
func (c *conn) queue(call *call, data []byte) {
	call.rest, call.mark = data, mark{}
	c.stalled++
	if c.send(call); call.gone {
		return
	}
	c.arm(until(c.server.limits.Stall / looks))
	if !c.hold(call, streamBytes+int64(len(call.rest))) {
		c.interrupt(c.broken(http2.ErrCodeEnhanceYourCalm, "too much waits for the client to let us send"))
	}
}

// noTable says that the encoder's dynamic table has no room from now on (RFC 7541 section 6.3). As it never has an entry, that is
// as good as any size that the client allows.
const noTable = 0x20

// putHeaders writes a header block. The first after the client has made the table smaller must say so (RFC 7541 section 4.2): some
// decoders insist. The caller holds mu.
func (c *conn) putHeaders(id uint32, block []byte, ended bool) {
	if c.shrunk {
		c.shrunk = false
		block = append([]byte{noTable}, block...)
	}
	c.out = appendHeaders(c.out, id, block, ended)
}

// sent ends a stream whose answer is written. If the client has not ended it, there is no need to go on (RFC 9113 section 8.1).
// The caller holds mu.
func (c *conn) sent(call *call) {
	if !call.remoteEnded {
		c.out = appendReset(c.out, call.id, http2.ErrCodeNo)
	}
	c.remove(call, !call.remoteEnded)
}

// send writes as much of an answer as the windows let it. The caller holds mu.
func (c *conn) send(call *call) {
	if call.rest == nil {
		return
	}
	for len(call.rest) > 0 && call.sendWindow > 0 && c.sendWindow > 0 {
		n := min(int64(len(call.rest)), call.sendWindow, c.sendWindow, frameBytes)
		flags := http2.Flags(0)
		if int64(len(call.rest)) == n && call.trailer == nil {
			flags = http2.FlagDataEndStream
		}
		c.out = append(appendFrame(c.out, int(n), http2.FrameData, flags, call.id), call.rest[:n]...)
		call.rest = call.rest[n:]
		call.sent += n
		call.sendWindow -= n
		c.sendWindow -= n
	}
	switch {
	case len(call.rest) == 0:
		if call.trailer != nil {
			c.putHeaders(call.id, call.trailer, true)
		}
		c.sent(call)
	case call.sendWindow > 0 && !call.starving:
		call.starving = true
		if len(c.starved) > 2*len(c.streams)+16 { // most are gone
			c.starved = slices.DeleteFunc(c.starved, isGone)
		}
		c.starved = append(c.starved, call)
	}
}

// feedStarved lets those send who waited for the connection's window, in the order in which they came. The caller holds mu.
func (c *conn) feedStarved() {
	for len(c.starved) > 0 && c.sendWindow > 0 {
		call := c.starved[0]
		c.starved = c.starved[1:]
		call.starving = false
		if !call.gone {
			c.send(call)
		}
	}
}

// backlog is how much may wait to be written before the connection is read no further.
const backlog = 64 << 10

// flush writes what there is to be written, unless another goroutine does. The leader waits for that one if there is much.
func (c *conn) flush(leads bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for leads && c.flushing && len(c.out) > backlog {
		c.flushed.Wait()
	}
	if c.flushing {
		return c.writeErr
	}
	if c.finished {
		c.out = c.out[:0] // the client is not listened to any more either
	}
	c.writeAll()
	if c.final && !c.finished && len(c.streams) == 0 {
		c.finish()
		c.mu.Unlock()
		closeWrite(c.nc) // TLS may wait with its farewell, for a client that does not read
		c.mu.Lock()
	}
	return c.writeErr
}

// writeAll writes until out is empty. The caller holds mu.
func (c *conn) writeAll() {
	if len(c.out) == 0 {
		return
	}
	c.flushing = true
	defer func() {
		c.flushing = false
		c.flushed.Broadcast()
	}()
	for len(c.out) > 0 && c.writeErr == nil {
		c.writeOut()
	}
}

// writeOut writes what is in out, while others may append to it. The caller holds mu, and has it back at the end.
func (c *conn) writeOut() {
	buf := c.out
	c.out, c.spare, c.waited = c.spare[:0], nil, false
	err := c.write(buf)
	if cap(buf) <= maxKeptBuffer {
		c.spare = buf
	}
	if err != nil && c.writeErr == nil {
		c.writeErr = err
		_ = c.raw.Close() // the leader notices
	}
}

// write writes without mu. Nothing is written any more after a panic.
func (c *conn) write(buf []byte) error {
	c.mu.Unlock()
	returned := false
	defer func() {
		if c.mu.Lock(); !returned && c.writeErr == nil {
			c.writeErr = errPanic
		}
	}()
	_, err := c.nc.Write(buf)
	returned = true
	return err //nolint:wrapcheck // nobody looks at it
}

// A timedConn lets each write take some time. It is below TLS, which also writes when it reads, to answer a KeyUpdate for one
// (RFC 8446 section 4.6.3): one write after its deadline, and no other succeeds.
type timedConn struct {
	net.Conn
	most time.Duration
	set  time.Time // when the deadline was set
}

func (t *timedConn) Write(p []byte) (int, error) {
	// Setting a deadline costs more than looking at the clock, so one holds for some time.
	if now := time.Now(); now.Sub(t.set) > t.most/4 {
		t.set = now
		_ = t.SetWriteDeadline(now.Add(t.most + t.most/4))
	}
	return t.Conn.Write(p) //nolint:wrapcheck // nothing is added
}

func (t *timedConn) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite() //nolint:wrapcheck // nobody looks at it
	}
	return nil
}

var errPanic = errors.New("panic while writing")

// appendFrame appends the head of a frame (RFC 9113 section 4.1).
func appendFrame(b []byte, length int, t http2.FrameType, flags http2.Flags, id uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// appendHeaders appends a header block, in as many frames as it takes.
func appendHeaders(b []byte, id uint32, block []byte, ended bool) []byte {
	t, flags := http2.FrameHeaders, http2.Flags(0)
	if ended {
		flags = http2.FlagHeadersEndStream
	}
	for len(block) > frameBytes {
		b = append(appendFrame(b, frameBytes, t, flags, id), block[:frameBytes]...)
		block, t, flags = block[frameBytes:], http2.FrameContinuation, 0
	}
	return append(appendFrame(b, len(block), t, flags|http2.FlagHeadersEndHeaders, id), block...) // the flag is CONTINUATION's too
}

// appendPrefix appends what precedes a message that is not compressed.
func appendPrefix(b []byte, size int) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0), uint32(size))
}

func appendReset(b []byte, id uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, http2.FrameRSTStream, 0, id), uint32(code))
}

func appendWindowUpdate(b []byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, http2.FrameWindowUpdate, 0, id), n)
}

func appendPing(b []byte, ack bool, data [8]byte) []byte {
	flags := http2.Flags(0)
	if ack {
		flags = http2.FlagPingAck
	}
	return append(appendFrame(b, len(data), http2.FramePing, flags, 0), data[:]...)
}

func appendGoAway(b []byte, lastID uint32, code http2.ErrCode) []byte {
	b = binary.BigEndian.AppendUint32(appendFrame(b, 8, http2.FrameGoAway, 0, 0), lastID)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrame(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, uint16(s.ID)), s.Val)
	}
	return b
}

func isGone(c *call) bool { return c.gone }
