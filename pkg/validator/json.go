package validator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"
)

// maxJSONDepth bounds nesting. Cognito's claims are flat; a pre token generation trigger may add objects.
const maxJSONDepth = 16

// An object is a JSON object: its values are nil, bool, string, [json.Number], []any and map[string]any. Member
// names are exact; encoding/json's structs would fold their case, so that SCOPE could stand in for scope.
type object map[string]any

// parseObject takes over text, which may not change any more, and reads exactly one JSON object, as RFC 8259 and I-JSON (RFC 7493) have it: UTF-8, no member name
// twice at any depth, nothing after it, and at most so many values. Its errors do not quote the text.
func parseObject(text []byte, most int) (object, error) {
	dec, _ := readers.Get().(*reader)
	defer dec.release()
	dec.text.Reset(text)
	dec.Reset(&dec.text)
	dec.whole, dec.left = unsafe.String(unsafe.SliceData(text), len(text)), most //nolint:gosec // nobody changes it
	if dec.PeekKind() != '{' {
		return nil, errors.New("no JSON object")
	}
	value, err := readValue(dec, 1)
	if err != nil {
		return nil, describe(err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("a JSON object with something after it")
	}
	return value.(map[string]any), nil
}

const (
	// maxClaims bounds how many JSON values claims hold, at any depth: without it, 16 KiB of brackets cost more than a
	// signature check. Cognito's have a few dozen; a person in a hundred groups, with a role for each, some 300.
	maxClaims = 1000
	// maxHeaderValues and maxJWKSValues are the same for a JOSE header and for a JWK Set.
	maxHeaderValues = 64
	maxJWKSValues   = 100_000
)

var (
	errDepth  = errors.New("a JSON object nested too deeply")
	errValues = errors.New("a JSON object with too many values")
)

// A reader reads JSON values, and counts them. It is used again: making one costs half of what reading a token's claims does.
type reader struct {
	jsontext.Decoder
	text  bytes.Reader
	whole string // of which most strings that are read are parts: one piece of memory, and not one for each
	left  int    // how many more values there may be
}

// next reads a token, and returns it as it is in the text, too.
func (r *reader) next() (tok jsontext.Token, raw string, err error) {
	from := r.InputOffset()
	if tok, err = r.ReadToken(); err != nil {
		return tok, "", err
	}
	raw = r.whole[from:r.InputOffset()]
	for len(raw) > 1 && strings.IndexByte(" \t\r\n,:", raw[0]) >= 0 { // what is between two tokens
		raw = raw[1:]
	}
	return tok, raw, nil
}

// unquote returns the string that a token is.
func unquote(tok jsontext.Token, raw string) string {
	switch strings.Count(raw, `\`) {
	case 0:
		return raw[1 : len(raw)-1]
	case strings.Count(raw, `\/`): // as Cognito writes slashes
		return strings.ReplaceAll(raw[1:len(raw)-1], `\/`, `/`)
	}
	return tok.String()
}

var readers = sync.Pool{New: func() any { return new(reader) }}

// release lets go of the text.
func (r *reader) release() {
	r.text.Reset(nil)
	r.Reset(&r.text)
	r.whole = ""
	readers.Put(r)
}

func describe(err error) error {
	switch {
	case errors.Is(err, errDepth), errors.Is(err, errValues):
		return err
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("a JSON object with a member name twice")
	}
	return errors.New("no well-formed JSON object in UTF-8")
}

func readValue(dec *reader, depth int) (any, error) {
	tok, raw, err := dec.next()
	if err != nil {
		return nil, err
	}
	if depth > maxJSONDepth {
		return nil, errDepth
	}
	if dec.left--; dec.left < 0 {
		return nil, errValues
	}
	switch tok.Kind() {
	case '{':
		return readObject(dec, depth)
	case '[':
		return readArray(dec, depth)
	case '"':
		return unquote(tok, raw), nil
	case '0':
		return json.Number(raw), nil
	case 't', 'f':
		return tok.Bool(), nil
	}
	return nil, nil //nolint:nilnil // the value of JSON null
}

func readObject(dec *reader, depth int) (any, error) {
	members := 0
	if depth == 1 { // about as many as there are commas: a map that need not grow
		members = min(strings.Count(dec.whole, ",")+1, 32)
	}
	o := make(map[string]any, members)
	for dec.PeekKind() != '}' {
		name, raw, err := dec.next()
		if err != nil {
			return nil, err
		}
		key := unquote(name, raw) // before the next read, which invalidates the token
		if o[key], err = readValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.ReadToken()
	return o, err
}

func readArray(dec *reader, depth int) (any, error) {
	a := []any{}
	for dec.PeekKind() != ']' {
		v, err := readValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	_, err := dec.ReadToken()
	return a, err
}
