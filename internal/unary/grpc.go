package unary

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// begin looks at the headers of a request. With an HTTP status, there is nothing to wait for.
func (c *call) begin(r *request) (Status, int) {
	subtype, ok := strings.CutPrefix(r.contentType, "application/grpc")
	if !ok || subtype != "" && subtype[0] != '+' && subtype[0] != ';' {
		c.plain = true // and answered as such when it has ended
		return Status{}, 0
	}
	if len(subtype) <= maxSubtype {
		c.subtype = subtype
	}
	if r.twoHosts {
		return Status{codes.Internal, "more than one host"}, http.StatusBadRequest
	}
	if r.timeout != "" {
		timeout, err := parseTimeout(r.timeout)
		switch {
		case err != nil:
			return Status{codes.Internal, "malformed grpc-timeout: " + err.Error()}, http.StatusBadRequest
		case timeout == 0:
			return Status{codes.DeadlineExceeded, "context deadline exceeded"}, http.StatusOK
		}
		c.deadline = until(timeout)
	}
	if r.authority == "" && r.host == "" {
		return Status{codes.Internal, "no host or :authority header present"}, http.StatusBadRequest
	}
	if r.method != http.MethodPost {
		return Status{codes.Internal, fmt.Sprintf("Received a HEADERS frame with :method %q which should be POST", cut(r.method))}, http.StatusMethodNotAllowed
	}
	if c.handler = c.conn.server.methods[r.path]; c.handler == nil {
		return c.conn.server.unimplemented(r.path), http.StatusOK
	}
	c.incoming.encoded = r.encoding != "" && r.encoding != "identity"
	return Status{}, 0
}

// maxSubtype is how long a content type's end may be to be that of the answer too.
const maxSubtype = 64

// unimplemented says why a method is none.
func (s *Server) unimplemented(path string) Status {
	service, method, ok := splitPath(path)
	path, method = cut(path), cut(method)
	switch {
	case !ok:
		return Status{codes.Unimplemented, fmt.Sprintf("malformed method name: %q", path)}
	case !s.known[service]:
		return Status{codes.Unimplemented, "unknown service " + cut(service)}
	}
	return Status{codes.Unimplemented, "unknown method " + method + " for service " + service}
}

// cut returns the beginning of a client's text, as much as goes back.
func cut(text string) string { return text[:min(len(text), 100)] }

func splitPath(path string) (service, method string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/")
	i := strings.LastIndexByte(rest, '/')
	if !ok || i < 0 {
		return "", "", false
	}
	return rest[:i], rest[i+1:], true
}

// parseTimeout reads a grpc-timeout: 1 to 8 digits and a unit.
func parseTimeout(s string) (time.Duration, error) {
	if len(s) < 2 || len(s) > 9 {
		return 0, fmt.Errorf("found %d characters, want 2 to 9", len(s))
	}
	var unit int64
	switch s[len(s)-1] {
	case 'H':
		unit = int64(time.Hour)
	case 'M':
		unit = int64(time.Minute)
	case 'S':
		unit = int64(time.Second)
	case 'm':
		unit = int64(time.Millisecond)
	case 'u':
		unit = int64(time.Microsecond)
	case 'n':
		unit = int64(time.Nanosecond)
	default:
		return 0, fmt.Errorf("found %q, want a unit of HMSmun", s[len(s)-1:])
	}
	var n int64
	for i := range len(s) - 1 {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("found %q, want digits", s[:len(s)-1])
		}
		n = 10*n + int64(s[i]-'0')
	}
	if n > math.MaxInt64/unit {
		return math.MaxInt64, nil
	}
	return time.Duration(n * unit), nil
}

// incoming puts the message of a request together: a byte that says whether it is compressed, its length in four bytes, and
// the message (Length-Prefixed-Message).
type incoming struct {
	bytes   int64 // of the body
	head    [5]byte
	have    int // bytes of head
	size    int // of the message
	got     int // bytes of it
	msg     []byte
	encoded bool // grpc-encoding is other than identity
	lost    bool // too long: what came is thrown away
	more    bool // something follows the message
}

// receive takes a part of a request's body.
func (c *call) receive(p []byte) {
	in := &c.incoming
	in.bytes += int64(len(p))
	if c.plain || in.more {
		return
	}
	if in.have < len(in.head) {
		n := copy(in.head[in.have:], p)
		in.have += n
		p = p[n:]
		if in.have < len(in.head) {
			return
		}
		in.size = int(binary.BigEndian.Uint32(in.head[1:]))
		in.lost = in.size > c.conn.server.limits.MessageBytes
	}
	if len(p) > in.size-in.got {
		in.more = true
		p = p[:in.size-in.got]
	}
	in.got += len(p)
	if len(p) > 0 && !in.lost {
		c.keep(p)
	}
}

// keep appends a part of the message. Its room grows with what came and not with what was announced, and is in the end exactly
// what it takes: parts of it live on in caches and logs.
func (c *call) keep(p []byte) {
	in := &c.incoming
	need := len(in.msg) + len(p)
	if need > cap(in.msg) {
		room := min(in.size, max(2*cap(in.msg), need))
		if !c.conn.hold(c, int64(room-cap(in.msg))) {
			in.lost, in.msg = true, nil
			c.conn.release(c, streamBytes)
			return
		}
		grown := make([]byte, len(in.msg), room)
		copy(grown, in.msg)
		in.msg = grown
	}
	in.msg = append(in.msg, p...)
}

// complete looks at the request when it has ended. Without an HTTP status, its handler is to run.
func (c *call) complete() (Status, int) {
	in := &c.incoming
	switch {
	case c.plain:
		return Status{}, http.StatusUnsupportedMediaType
	case in.have == 0:
		return Status{codes.Internal, "cardinality violation: received no request message from non-client-streaming RPC"}, http.StatusOK
	case in.more:
		return Status{codes.Internal, "cardinality violation: received multiple request messages for non-client-streaming RPC"}, http.StatusOK
	case in.have < len(in.head) || in.got < in.size:
		return Status{codes.Internal, "unexpected EOF"}, http.StatusOK
	case in.head[0] > 1:
		return Status{codes.Internal, "grpc: received unexpected payload format " + strconv.Itoa(int(in.head[0]))}, http.StatusOK
	case in.head[0] == 1 && !in.encoded:
		return Status{codes.Internal, "grpc: compressed flag set with identity or empty encoding"}, http.StatusOK
	}
	return Status{}, 0
}

// message returns what the handler gets: nil for what could not be had.
func (in *incoming) message() []byte {
	switch {
	case in.lost || in.head[0] != 0:
		return nil
	case in.msg == nil:
		return []byte{}
	}
	return in.msg
}

// handle runs the handler of a call.
func (c *conn) handle(call *call, dst []byte) (msg []byte, status Status) {
	defer func() {
		if p := recover(); p != nil {
			c.server.log.Error("panic in a handler", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			msg, status = nil, Status{codes.Internal, "panic"}
		}
	}()
	in := call.incoming.message()
	call.incoming.msg = nil // the context may be kept longer than the message
	return call.handler(call, dst, in)
}

// escape makes a text fit for grpc-message (Percent-Encoded), or as much of it as comes to maxText.
func escape(text string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(text) && b.Len() <= maxText-3; i++ {
		if c := text[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}
