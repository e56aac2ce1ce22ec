package authz

import (
	"slices"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// A reply is a CheckResponse before it is written. Only allow and denied in response.go make one. It is written in two
// ways, as a message of the API (proto) and as the bytes of that (appendTo), which a test holds to be the same.
type reply struct {
	code        codes.Code
	message     string
	denied      bool // a denied_response; else an ok_response
	status      int  // HTTP, of a denied_response
	body        string
	headers     []option // of the upstream request, or of the denied response
	remove      []string
	response    []option
	setQuery    []policy.Parameter
	removeQuery []string
	metadata    []fact

	room struct { // for headers and remove, which most answers have
		headers [12]option
		remove  [8]string
	}
}

// newReply returns the answer that is part of the check.
func (c *check) newReply() *reply {
	c.reply = reply{}
	c.reply.headers, c.reply.remove = c.reply.room.headers[:0], c.reply.room.remove[:0]
	return &c.reply
}

// An option sets a header. It says twice what becomes of one that is there already, as releases of Envoy differ in which
// they heed: Envoy 1.40 goes by the deprecated append.
type option struct {
	name, value string
	add         appending
	action      corev3.HeaderValueOption_HeaderAppendAction
}

// appending is the field append: a boolean that may be unset.
type appending int

const (
	appendUnset appending = iota
	appendFalse
	appendTrue
)

// A fact is a field of the dynamic metadata. Those about the caller are headers as well.
type fact struct {
	header string // empty: none
	field  string
	value
}

// maxFacts is how many facts most answers have: about the caller and, four, about the answer.
const maxFacts = 12

// A value is a text, a list of texts, or what a policy says, as JSON has it. It has its kinds side by side, as an interface
// would have to be allocated.
type value struct {
	kind valueKind
	text string
	list []string
	json any
}

type valueKind byte

const (
	isAbsent valueKind = iota // and not told
	isText
	isList
	isJSON
)

func textValue(s string) value      { return value{kind: isText, text: s} }
func listValue(list []string) value { return value{kind: isList, list: list} }
func jsonValue(x any) value         { return value{kind: isJSON, json: x} }

// proto returns a value as a protobuf one; nil if it is none or, which only a policy's may be, has no such form.
func (v value) proto() *structpb.Value {
	switch v.kind {
	case isAbsent:
		return nil
	case isText:
		return structpb.NewStringValue(text(v.text))
	case isList:
		list := make([]*structpb.Value, len(v.list))
		for i, item := range v.list {
			list[i] = structpb.NewStringValue(text(item))
		}
		return structpb.NewListValue(&structpb.ListValue{Values: list})
	}
	said, err := structpb.NewValue(v.json)
	if err != nil {
		return nil
	}
	return said
}

// text makes a claim's text fit for a protobuf string.
func text(s string) string {
	if utf8.ValidString(s) { // faster than ToValidUTF8, and nearly always so
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// proto returns the answer as a message.
func (a *reply) proto() *authv3.CheckResponse {
	resp := &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(a.code), Message: a.message},
		DynamicMetadata: &structpb.Struct{Fields: make(map[string]*structpb.Value, len(a.metadata))},
	}
	for _, f := range a.metadata {
		if v := f.proto(); v != nil {
			resp.DynamicMetadata.Fields[f.field] = v
		}
	}
	if a.denied {
		resp.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(a.status)}, Headers: optionsProto(a.headers), Body: a.body,
		}}
		return resp
	}
	ok := &authv3.OkHttpResponse{
		Headers: optionsProto(a.headers), HeadersToRemove: slices.Clone(a.remove), ResponseHeadersToAdd: optionsProto(a.response),
		QueryParametersToRemove: a.removeQuery,
	}
	for _, q := range a.setQuery {
		for _, value := range q.Values {
			ok.QueryParametersToSet = append(ok.QueryParametersToSet, &corev3.QueryParameter{Key: q.Name, Value: value})
		}
	}
	resp.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: ok}
	return resp
}

func optionsProto(options []option) []*corev3.HeaderValueOption {
	var list []*corev3.HeaderValueOption
	for _, o := range options {
		h := &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: o.name, Value: o.value}, AppendAction: o.action}
		if o.add != appendUnset {
			h.Append = wrapperspb.Bool(o.add == appendTrue) //nolint:staticcheck // deprecated, and what Envoy 1.40 goes by
		}
		list = append(list, h)
	}
	return list
}

// The field numbers of the answer. A test holds what is written with them to what proto returns.
const (
	responseStatus   protowire.Number = 1
	responseDenied   protowire.Number = 2
	responseOK       protowire.Number = 3
	responseMetadata protowire.Number = 4

	statusCode    protowire.Number = 1
	statusMessage protowire.Number = 2

	deniedStatus  protowire.Number = 1
	deniedHeaders protowire.Number = 2
	deniedBody    protowire.Number = 3

	okHeaders     protowire.Number = 2
	okRemove      protowire.Number = 5
	okResponse    protowire.Number = 6
	okSetQuery    protowire.Number = 7
	okRemoveQuery protowire.Number = 8

	optionHeader protowire.Number = 1
	optionAppend protowire.Number = 2
	optionAction protowire.Number = 3

	structFields protowire.Number = 1
	valueString  protowire.Number = 3
	valueList    protowire.Number = 6
	listValues   protowire.Number = 1
)

// keyField and valueField are those that HeaderValue, QueryParameter and the entries of a map have alike.
const (
	keyField   protowire.Number = 1
	valueField protowire.Number = 2
)

// appendTo appends the answer as the bytes of a CheckResponse.
func (a *reply) appendTo(b []byte) []byte {
	b = appendMessage(b, responseStatus, func(b []byte) []byte {
		return appendText(appendNumber(b, statusCode, uint64(a.code)), statusMessage, a.message)
	})
	if a.denied {
		b = appendMessage(b, responseDenied, a.appendDenied)
	} else {
		b = appendMessage(b, responseOK, a.appendOK)
	}
	return appendMessage(b, responseMetadata, func(b []byte) []byte {
		for i := range a.metadata {
			b = a.metadata[i].appendTo(b)
		}
		return b
	})
}

func (a *reply) appendDenied(b []byte) []byte {
	b = appendMessage(b, deniedStatus, func(b []byte) []byte { return appendNumber(b, statusCode, uint64(a.status)) })
	return appendText(appendOptions(b, deniedHeaders, a.headers), deniedBody, a.body)
}

func (a *reply) appendOK(b []byte) []byte {
	b = appendOptions(b, okHeaders, a.headers)
	b = appendTexts(b, okRemove, a.remove)
	b = appendOptions(b, okResponse, a.response)
	for _, q := range a.setQuery {
		for _, v := range q.Values {
			b = appendMessage(b, okSetQuery, func(b []byte) []byte { return appendText(appendText(b, keyField, q.Name), valueField, v) })
		}
	}
	return appendTexts(b, okRemoveQuery, a.removeQuery)
}

func appendOptions(b []byte, n protowire.Number, options []option) []byte {
	for i := range options {
		o := &options[i]
		set, action := 0, numberSize(uint64(o.action))
		if o.add != appendUnset {
			set = 2 + numberSize(uint64(o.add-appendFalse))
		}
		named := textSize(o.name) + textSize(o.value)
		b = appendHead(b, n, 1+protowire.SizeBytes(named)+set+action)
		b = appendHead(b, optionHeader, named)
		b = appendText(appendText(b, keyField, o.name), valueField, o.value)
		if set > 0 {
			b = appendHead(b, optionAppend, set-2)
			b = appendNumber(b, 1, uint64(o.add-appendFalse))
		}
		b = appendNumber(b, optionAction, uint64(o.action))
	}
	return b
}

// appendTo appends an entry of the map of fields.
func (f *fact) appendTo(b []byte) []byte {
	switch f.kind {
	case isText:
		said := text(f.text)
		size := 1 + protowire.SizeBytes(len(said)) // of a Value
		b = appendHead(b, structFields, textSize(f.field)+1+protowire.SizeBytes(size))
		b = appendHead(appendText(b, keyField, f.field), valueField, size)
		return appendString(b, said)
	case isList:
		return f.appendValue(b, func(b []byte) []byte {
			return appendMessage(b, valueList, func(b []byte) []byte {
				for _, item := range f.list {
					b = appendMessage(b, listValues, func(b []byte) []byte { return appendString(b, text(item)) })
				}
				return b
			})
		})
	case isJSON:
		if said := f.proto(); said != nil {
			return f.appendValue(b, func(b []byte) []byte {
				b, _ = proto.MarshalOptions{}.MarshalAppend(b, said) // a Value that was made always marshals
				return b
			})
		}
	}
	return b
}

// appendValue appends the entry with what appends its value.
func (f *fact) appendValue(b []byte, value func([]byte) []byte) []byte {
	return appendMessage(b, structFields, func(b []byte) []byte {
		return appendMessage(appendText(b, keyField, f.field), valueField, value)
	})
}

// appendHead appends what goes before the content of a message, or of text, whose size is known. All field numbers here
// take one byte.
func appendHead(b []byte, n protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(size))
}

// textSize and numberSize are how many bytes appendText and appendNumber append.
func textSize(s string) int {
	if s == "" {
		return 0
	}
	return 1 + protowire.SizeBytes(len(s))
}

func numberSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// appendString appends a string of a oneof, which is there even if it is empty.
func appendString(b []byte, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, valueString, protowire.BytesType), s)
}

// appendText appends a string, which is absent if it is empty.
func appendText(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendTexts(b []byte, n protowire.Number, list []string) []byte {
	for _, s := range list {
		b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
	}
	return b
}

// appendNumber appends a number, which is absent if it is zero.
func appendNumber(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

// appendMessage appends a message that is there even if it is empty. Its length is known when it is written, so it is moved
// if that takes more than the one byte that was left for it.
func appendMessage(b []byte, n protowire.Number, f func([]byte) []byte) []byte {
	b = append(protowire.AppendTag(b, n, protowire.BytesType), 0)
	start := len(b)
	b = f(b)
	size := uint64(len(b) - start)
	if size < 0x80 {
		b[start-1] = byte(size)
		return b
	}
	var length [10]byte
	prefix := protowire.AppendVarint(length[:0], size)
	b = append(b, prefix[1:]...)
	copy(b[start+len(prefix)-1:], b[start:start+int(size)])
	copy(b[start-1:], prefix)
	return b
}
