package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The requests that a real Envoy sent; `bench capture` writes them. Tokens and request ids are put in later.
//
//go:embed testdata/read-order.json testdata/create-order.json
var captured embed.FS

// requestID is what a message's own id takes the place of. Only its last twelve characters change.
const requestID = "5f3759df-0000-4000-8000-000000000000"

const idDigits = 12

// A template is the bytes of a CheckRequest, with room for a token of a certain length.
type template struct {
	bytes           []byte
	tokenAt, tokenN int // where the token goes, and its length; 0: there is no Authorization header
	idAt            int // where the last digits of the request's id go
}

// A message is a CheckRequest to send, and the HTTP status that its answer must have.
type message struct {
	*template
	token string
	want  int
}

// append writes the bytes of the message with an id of its own, as every request has in reality: a server that remembers
// whole requests gains nothing by it.
func (m message) append(buf []byte, id uint64) []byte {
	buf = append(buf[:0], m.bytes...)
	copy(buf[m.tokenAt:], m.token)
	var digits [idDigits]byte
	for i := range digits {
		digits[idDigits-1-i] = "0123456789abcdef"[id>>(4*i)&15]
	}
	copy(buf[m.idAt:], digits[:])
	return buf
}

// templates makes messages. Tokens of one length share a template.
type templates struct {
	requests map[string]*authv3.CheckRequest
	made     map[string]*template
}

func newTemplates() (*templates, error) {
	t := &templates{requests: make(map[string]*authv3.CheckRequest), made: make(map[string]*template)}
	for _, name := range []string{readOrder, createOrder} {
		text, err := captured.ReadFile("testdata/" + name + ".json")
		if err != nil {
			return nil, err
		}
		req := new(authv3.CheckRequest)
		if err := protojson.Unmarshal(text, req); err != nil {
			return nil, fmt.Errorf("testdata/%s.json: %w", name, err)
		}
		t.requests[name] = req
	}
	untraced := proto.Clone(t.requests[readOrder]).(*authv3.CheckRequest)
	delete(untraced.GetAttributes().GetRequest().GetHttp().GetHeaders(), "traceparent")
	t.requests[readUntraced] = untraced
	return t, nil
}

// The captured requests, by the names of their files.
const (
	readOrder   = "read-order"   // GET /orders/42, which needs orders/read
	createOrder = "create-order" // POST /orders, which needs orders/write

	readUntraced = "read-order, untraced" // readOrder without the trace of a caller; no file
)

// message returns the captured request with this token; empty: without an Authorization header.
func (t *templates) message(request, token string, want int) message {
	id := request + strconv.Itoa(len(token))
	if t.made[id] == nil {
		t.made[id] = newTemplate(t.requests[request], len(token))
	}
	return message{template: t.made[id], token: token, want: want}
}

func newTemplate(req *authv3.CheckRequest, tokenN int) *template {
	req = proto.Clone(req).(*authv3.CheckRequest)
	headers := maps.Clone(req.GetAttributes().GetRequest().GetHttp().GetHeaders())
	place := strings.Repeat("~", tokenN)
	if tokenN > 0 {
		headers["authorization"] = "Bearer " + place
	} else {
		delete(headers, "authorization")
	}
	headers["x-request-id"] = requestID
	req.Attributes.Request.Http.Headers = headers
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		panic("bench: a captured request cannot be marshalled: " + err.Error()) // it was one
	}
	t := &template{bytes: text, tokenN: tokenN, idAt: bytes.Index(text, []byte(requestID)) + len(requestID) - idDigits}
	if tokenN > 0 {
		t.tokenAt = bytes.Index(text, []byte(place))
	}
	return t
}

// httpStatus returns what Envoy would make of a CheckResponse: 200 for one that lets the request through. It reads only the
// fields that say so, because the client's CPU is the servers' too.
func httpStatus(reply []byte) (int, error) {
	const status, denied, ok = 1, 2, 3 // fields of CheckResponse
	var code, http uint64
	var allowed bool
	for len(reply) > 0 {
		number, kind, n := protowire.ConsumeTag(reply)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		reply = reply[n:]
		if n = protowire.ConsumeFieldValue(number, kind, reply); n < 0 {
			return 0, protowire.ParseError(n)
		}
		value := reply[:n]
		reply = reply[n:]
		switch number {
		case status:
			code = firstVarint(content(value))
		case denied:
			http = firstVarint(content(firstField(content(value))))
		case ok:
			allowed = true
		}
	}
	switch {
	case allowed && code == 0 && http == 0:
		return 200, nil
	case !allowed && code != 0 && http >= 400:
		return int(http), nil
	}
	return 0, fmt.Errorf("found gRPC status %d, HTTP status %d and allowed %t, want one clear answer", code, http, allowed)
}

// content strips the length of a length-delimited value.
func content(value []byte) []byte {
	text, n := protowire.ConsumeBytes(value)
	if n < 0 {
		return nil
	}
	return text
}

// firstField returns the value of field 1 of a message, nil if it has none.
func firstField(message []byte) []byte {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return nil
		}
		if number == 1 {
			return message[:n]
		}
		message = message[n:]
	}
	return nil
}

func firstVarint(message []byte) uint64 {
	n, _ := protowire.ConsumeVarint(firstField(message))
	return n
}

var errNoHeaders = errors.New("the answer has no header x-auth-client-id, want the client's id")

// names reports an error unless the answer names the client to the upstream, as all servers but the no-op do.
func names(reply []byte, client string) error {
	var resp authv3.CheckResponse
	if err := proto.Unmarshal(reply, &resp); err != nil {
		return err
	}
	for _, h := range resp.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-auth-client-id" && h.GetHeader().GetValue() == client {
			return nil
		}
	}
	return errNoHeaders
}
