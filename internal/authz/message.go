package authz

import (
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// The field numbers of the Envoy API that a check needs. A test holds them to the API's own descriptors.
const (
	checkRequestAttributes protowire.Number = 1

	attributesSource  protowire.Number = 1
	attributesRequest protowire.Number = 4

	peerPrincipal protowire.Number = 4

	requestHTTP protowire.Number = 2

	httpMethod    protowire.Number = 2
	httpHeaders   protowire.Number = 3
	httpPath      protowire.Number = 4
	httpHost      protowire.Number = 5
	httpBody      protowire.Number = 11
	httpRawBody   protowire.Number = 12
	httpHeaderMap protowire.Number = 13
)

// scan takes from a CheckRequest what every check needs, without decoding the rest: a twentieth of what decoding all of it
// costs. It returns false for whatever is not exactly what Envoy sends as a rule, so that there is one reading of the odd
// cases, the decoder's: a message in two parts, a name twice, raw headers, text that is not UTF-8, another wire type. The
// request is then good for nothing.
//
// The strings of the request are parts of msg, which must not change any more.
func scan(msg []byte, into *request) bool {
	into.raw, into.headers = msg, into.room[:0]
	s := scanner{request: into}
	return s.check(msg) && s.seen&seenHTTP != 0
}

// A scanner fills in a request, field by field.
type scanner struct {
	*request
	seen uint32 // the fields that may come once
}

// The fields that may come once.
const (
	seenAttributes = 1 << iota
	seenSource
	seenPrincipal
	seenRequest
	seenHTTP
	seenMethod
	seenPath
	seenHost
	seenBody
)

// once reports whether a field comes for the first time.
func (s *scanner) once(field uint32) bool {
	before := s.seen
	s.seen |= field
	return before&field == 0
}

// next takes the next field that has a length off a message: text, bytes and messages. Fields of other wire types are those
// that nobody here looks at. With the end of the message it returns the number 0; a broken message is not ok.
func next(msg []byte) (n protowire.Number, v, rest []byte, ok bool) {
	for len(msg) > 0 {
		if n, v, rest, ok = withLength(msg); ok {
			return n, v, rest, true
		}
		n, typ, size := protowire.ConsumeField(msg)
		if size < 0 || n == 0 || typ == protowire.StartGroupType || typ == protowire.BytesType {
			return 0, nil, nil, false
		}
		msg = msg[size:]
	}
	return 0, nil, nil, true
}

// withLength takes a field that has a length off a message. It is not ok if the message does not begin with one.
func withLength(msg []byte) (n protowire.Number, v, rest []byte, ok bool) {
	if len(msg) > 1 && msg[0]&0x87 == byte(protowire.BytesType) && msg[1] < 0x80 { // tag and length of a byte each, as mostly
		n, msg = protowire.Number(msg[0]>>3), msg[1:]
		size := int(msg[0])
		if msg = msg[1:]; n == 0 || size > len(msg) {
			return 0, nil, nil, false
		}
		return n, msg[:size], msg[size:], true
	}
	n, typ, size := protowire.ConsumeTag(msg)
	if size < 0 || typ != protowire.BytesType {
		return 0, nil, nil, false
	}
	v, length := protowire.ConsumeBytes(msg[size:])
	if length < 0 {
		return 0, nil, nil, false
	}
	return n, v, msg[size+length:], true
}

func (s *scanner) check(msg []byte) bool {
	n, v, msg, ok := next(msg)
	for ; ok && n != 0; n, v, msg, ok = next(msg) {
		if n == checkRequestAttributes && !(s.once(seenAttributes) && s.attributes(v)) {
			return false
		}
	}
	return ok
}

func (s *scanner) attributes(msg []byte) bool {
	n, v, msg, ok := next(msg)
	for ; ok && n != 0; n, v, msg, ok = next(msg) {
		switch n {
		case attributesSource:
			ok = s.once(seenSource) && s.source(v)
		case attributesRequest:
			ok = s.once(seenRequest) && s.requestHTTP(v)
		}
		if !ok {
			return false
		}
	}
	return ok
}

func (s *scanner) source(msg []byte) bool {
	n, v, msg, ok := next(msg)
	for ; ok && n != 0; n, v, msg, ok = next(msg) {
		if n == peerPrincipal && !(s.once(seenPrincipal) && s.text(&s.principal, v)) {
			return false
		}
	}
	return ok
}

func (s *scanner) requestHTTP(msg []byte) bool {
	n, v, msg, ok := next(msg)
	for ; ok && n != 0; n, v, msg, ok = next(msg) {
		if n == requestHTTP && !(s.once(seenHTTP) && s.http(v)) {
			return false
		}
	}
	return ok
}

func (s *scanner) http(msg []byte) bool {
	n, v, msg, ok := next(msg)
	for ; ok && n != 0; n, v, msg, ok = next(msg) {
		switch n {
		case httpMethod:
			ok = s.once(seenMethod) && s.text(&s.method, v)
		case httpPath:
			ok = s.once(seenPath) && s.text(&s.rawPath, v)
		case httpHost:
			ok = s.once(seenHost) && s.text(&s.rawHost, v)
		case httpBody, httpRawBody:
			s.bodyBytes += len(v)
			ok = s.once(seenBody)
		case httpHeaderMap:
			return false
		case httpHeaders:
			ok = s.header(v)
		}
		if !ok {
			return false
		}
	}
	return ok
}

// header reads an entry of the map of headers: a name and a value, each with a length. Any other is left to the decoder, and
// so are more headers than there is room for, as looking for a name among them would take longer and longer.
func (s *scanner) header(entry []byte) bool {
	var parts [2][]byte // in the order of their field numbers, 1 and 2
	for len(entry) > 0 {
		n, v, rest, ok := withLength(entry)
		if !ok || n > 2 {
			return false
		}
		parts[n-1], entry = v, rest
	}
	if len(s.headers) == cap(s.headers) || !isName(parts[0]) {
		return false
	}
	name, value := unsafeString(parts[0]), ""
	if _, twice := s.headers.get(name); twice || !s.text(&value, parts[1]) {
		return false
	}
	s.addHeader(name, value)
	return true
}

// isName reports whether a header's name is ASCII without upper case, so that it is lower case already.
func isName(name []byte) bool {
	for _, c := range name {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// text takes a string without copying it.
func (s *scanner) text(into *string, v []byte) bool {
	if !utf8.Valid(v) {
		return false
	}
	*into = unsafeString(v)
	return true
}

func unsafeString(v []byte) string {
	return unsafe.String(unsafe.SliceData(v), len(v)) //nolint:gosec // the message does not change any more, see scan
}
