package authz

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/url"
	"strconv"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// A body is what a policy sees of the request's body, where Envoy is set to forward it (with_request_body).
type body struct {
	parsed    any  // of JSON and forms; nil for all else
	truncated bool // Envoy did not forward all of it
}

// parseBody decodes the body by its content type. A body that is not whole is not decoded.
func parseBody(http *authv3.AttributeContext_HttpRequest, headers map[string]string) (body, error) {
	text := []byte(http.GetBody())
	if len(text) == 0 {
		text = http.GetRawBody()
	}
	if len(text) == 0 {
		return body{}, nil
	}
	length, err := strconv.ParseInt(headers["content-length"], 10, 64)
	if headers["x-envoy-auth-partial-body"] == "true" || err == nil && length > int64(len(text)) {
		return body{truncated: true}, nil
	}
	kind, _, err := mime.ParseMediaType(headers["content-type"])
	if err != nil {
		return body{}, nil //nolint:nilerr // a content type that nobody can read is an unknown one
	}
	switch kind {
	case "application/json":
		return jsonBody(text)
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(text))
		if err != nil {
			return body{}, errors.New("the body is no well-formed form, as its content-type says it is")
		}
		return body{parsed: map[string][]string(form)}, nil
	}
	return body{}, nil
}

func jsonBody(text []byte) (body, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return body{}, errors.New("the body is no well-formed JSON, as its content-type says it is")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return body{}, errors.New("the body has something after its JSON value")
	}
	return body{parsed: value}, nil
}
