package unary

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// tableBytes is the size of the dynamic table of the client's encoder: SETTINGS_HEADER_TABLE_SIZE's initial value, as we send
// none (RFC 9113 section 6.5.2).
const tableBytes = 4096

// A request is what a header block says, of what we need. The rest is held to the rules and forgotten.
type request struct {
	method, scheme, path, authority string
	host                            string
	contentType                     string
	timeout                         string
	encoding                        string
	length                          int64 // content-length; -1: none
	size                            int   // of the list (RFC 9113 section 6.5.2)
	pseudo                          uint  // those seen
	regular, twoHosts               bool
	malformed                       string // why it is malformed (RFC 9113 section 8.1.1); empty: it is not
}

// The pseudo-header fields of requests (RFC 9113 section 8.3.1).
const (
	hasMethod = 1 << iota
	hasScheme
	hasPath
	hasAuthority
)

// field takes a header field. It is called by the decoder for each.
func (c *conn) field(f hpack.HeaderField) {
	r := &c.request
	// A block may refer to the same long field again and again, with a byte for each.
	if r.size += int(f.Size()); r.size > c.server.limits.HeaderBytes {
		r.malformed = "a header list that is too long"
	}
	if r.malformed != "" {
		c.decoder.SetEmitEnabled(false)
		return
	}
	if !httpguts.ValidHeaderFieldValue(f.Value) {
		r.malformed = "a field value has a control character"
		return
	}
	if len(f.Name) > 0 && f.Name[0] == ':' {
		r.pseudoField(f.Name, f.Value)
		return
	}
	r.regular = true
	if !isFieldName(f.Name) {
		r.malformed = "a field name is no lower-case token"
		return
	}
	switch f.Name {
	case "content-type":
		r.contentType = f.Value
	case "grpc-timeout":
		r.timeout = f.Value
	case "grpc-encoding":
		r.encoding = f.Value
	case "host":
		r.twoHosts = r.twoHosts || r.host != ""
		r.host = f.Value
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 62)
		if err != nil || r.length >= 0 && r.length != int64(n) {
			r.malformed = "content-length is not one number"
			return
		}
		r.length = int64(n)
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		r.malformed = "a connection-specific field" // RFC 9113 section 8.2.2
	case "te":
		if f.Value != "trailers" {
			r.malformed = "te is other than trailers" // the same
		}
	}
}

func (r *request) pseudoField(name, value string) {
	var bit uint
	switch name {
	case ":method":
		bit, r.method = hasMethod, value
	case ":scheme":
		bit, r.scheme = hasScheme, value
	case ":path":
		bit, r.path = hasPath, value
	case ":authority":
		bit, r.authority = hasAuthority, value
	}
	switch {
	case bit == 0:
		r.malformed = "an unknown pseudo-header field"
	case r.regular:
		r.malformed = "a pseudo-header field after a regular one"
	case r.pseudo&bit != 0:
		r.malformed = "a pseudo-header field twice"
	}
	r.pseudo |= bit
}

// check finds what a request lacks (RFC 9113 section 8.3.1).
func (r *request) check() {
	const needed = hasMethod | hasScheme | hasPath
	if r.malformed == "" && (r.pseudo&needed != needed || r.path == "" || r.method == "" || r.scheme == "") {
		r.malformed = "want :method, :scheme and :path"
	}
}

// fieldChars are the characters of a field name in HTTP/2: those of a token (RFC 9110 section 5.6.2) without upper case.
var fieldChars = func() (is [256]bool) {
	for c := range is {
		is[c] = httpguts.IsTokenRune(rune(c)) && (c < 'A' || c > 'Z')
	}
	return is
}()

func isFieldName(name string) bool {
	for i := range len(name) {
		if !fieldChars[name[i]] {
			return false
		}
	}
	return name != ""
}

// headerBlock reads what follows a HEADERS frame up to END_HEADERS, and leaves what it says in c.request.
func (c *conn) headerBlock(f *http2.HeadersFrame) error {
	c.request = request{length: -1}
	c.decoder.SetEmitEnabled(true)
	block := f.HeaderBlockFragment()
	if !f.HeadersEnded() {
		var err error
		if block, err = c.continued(f.StreamID, block); err != nil {
			return err
		}
	}
	if _, err := c.decoder.Write(block); err != nil {
		return c.broken(http2.ErrCodeCompression, "a header block cannot be decoded")
	}
	if err := c.decoder.Close(); err != nil {
		return c.broken(http2.ErrCodeCompression, "a header block is cut")
	}
	return nil
}

// continued collects a header block that goes on in CONTINUATION frames. The framer sees to it that nothing comes in between.
// A block in many small parts costs more than it is worth (CVE-2024-27316), so it may only have as many as its length needs,
// and some more.
func (c *conn) continued(id uint32, first []byte) ([]byte, error) {
	const (
		free    = 64
		average = 1 << 10
	)
	c.blockEnds = until(c.server.limits.Stall)
	var held call // counts the block among the messages
	defer func() {
		c.blockEnds = time.Time{}
		c.release(&held, 0)
	}()
	block := append([]byte(nil), first...)
	for parts := 0; ; parts++ {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return nil, c.readError(err)
		}
		next, ok := f.(*http2.ContinuationFrame)
		if !ok || next.StreamID != id {
			return nil, c.broken(http2.ErrCodeProtocol, "a header block is interrupted")
		}
		if len(block)+len(next.HeaderBlockFragment()) > c.server.limits.HeaderBytes || parts > free+len(block)/average {
			return nil, c.broken(http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("a header block of more than %d bytes or %d parts", len(block), parts))
		}
		if !c.hold(&held, int64(len(next.HeaderBlockFragment()))) {
			return nil, c.broken(http2.ErrCodeEnhanceYourCalm, "no room for a header block")
		}
		block = append(block, next.HeaderBlockFragment()...)
		if next.HeadersEnded() {
			return block, nil
		}
	}
}
