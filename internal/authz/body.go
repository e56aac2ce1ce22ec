package authz

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-json-experiment/json/jsontext"
)

// A body is what a policy sees of the request's body, where Envoy is set to forward it (with_request_body).
type body struct {
	parsed    any  // of JSON and forms; nil for all else
	truncated bool // Envoy did not forward all of it
}

// parseBody decodes the body by its content type. One that is not whole, or is encoded (gzip), is not decoded and
// counts as cut: the policy does not see what the upstream will.
func parseBody(http *authv3.AttributeContext_HttpRequest, headers headers) (body, error) {
	text := bodyText(http)
	if len(text) == 0 {
		return body{}, nil
	}
	length, err := strconv.ParseInt(headers.value("content-length"), 10, 64)
	cut := headers.value("x-envoy-auth-partial-body") == "true" || err == nil && length > int64(len(text))
	if encoding := headers.value("content-encoding"); cut || encoding != "" && encoding != "identity" {
		return body{truncated: true}, nil
	}
	// Parameters are left alone: a server that minds a broken one less than we do would read a body that we have not.
	kind, _, _ := strings.Cut(headers.value("content-type"), ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "application/json":
		return jsonBody(text)
	case "application/x-www-form-urlencoded":
		return formBody(text)
	}
	return body{}, nil
}

// A bodyParser decodes the body of a request whose headers have lower-case names.
type bodyParser func(http *authv3.AttributeContext_HttpRequest, headers headers) (body, error)

// bodyText is the body from where Envoy put it: body, or raw_body if it is set to pack_as_bytes.
func bodyText(http *authv3.AttributeContext_HttpRequest) []byte {
	if text := http.GetBody(); text != "" {
		return []byte(text)
	}
	return http.GetRawBody()
}

func formBody(text []byte) (body, error) {
	form, ok := parseForm(string(text))
	if !ok {
		return body{}, errors.New("the body is no well-formed form in UTF-8, as its content-type says it is")
	}
	return body{parsed: form}, nil
}

// parseForm decodes a query or a form. It is not ok with a bad escape, a bare semicolon, which some servers take for a
// separator, or bytes that are not UTF-8, of which every server makes something else.
func parseForm(text string) (form map[string][]string, ok bool) {
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, false
	}
	for name, list := range values {
		if !utf8.ValidString(name) || !utf8.ValidString(strings.Join(list, " ")) {
			return nil, false
		}
	}
	return values, true
}

// jsonBody decodes one JSON value. A member name that is there twice is an error: of which one the upstream takes, the
// policy can know nothing.
func jsonBody(text []byte) (body, error) {
	if !jsontext.Value(text).IsValid() {
		return body{}, errors.New("the body is no well-formed JSON in UTF-8 without repeated names, as its content-type says it is")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return body{}, errors.New("the body is no well-formed JSON, as its content-type says it is")
	}
	return body{parsed: value}, nil
}
