package validator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// maxJSONDepth bounds nesting. Cognito's claims are flat; a pre token generation trigger may add objects.
const maxJSONDepth = 16

// An object is a JSON object: its values are nil, bool, string, [json.Number], []any and map[string]any. Member
// names are exact; encoding/json's structs would fold their case, so that SCOPE could stand in for scope.
type object map[string]any

// parseObject reads exactly one JSON object, as RFC 8259 and I-JSON (RFC 7493) have it: UTF-8, no member name
// twice at any depth, nothing after it. Its errors do not quote the text.
func parseObject(text []byte) (object, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
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

var errDepth = errors.New("a JSON object nested too deeply")

func describe(err error) error {
	switch {
	case errors.Is(err, errDepth):
		return err
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("a JSON object with a member name twice")
	}
	return errors.New("no well-formed JSON object in UTF-8")
}

func readValue(dec *jsontext.Decoder, depth int) (any, error) {
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	if depth > maxJSONDepth {
		return nil, errDepth
	}
	switch tok.Kind() {
	case '{':
		return readObject(dec, depth)
	case '[':
		return readArray(dec, depth)
	case '"':
		return tok.String(), nil
	case '0':
		return json.Number(tok.String()), nil
	case 't', 'f':
		return tok.Bool(), nil
	}
	return nil, nil //nolint:nilnil // the value of JSON null
}

func readObject(dec *jsontext.Decoder, depth int) (any, error) {
	o := make(map[string]any)
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String() // before the next read, which invalidates the token
		if o[key], err = readValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.ReadToken()
	return o, err
}

func readArray(dec *jsontext.Decoder, depth int) (any, error) {
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
