package authz

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strconv"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// completeOPAEnvoy fills in what a policy written for OPA-Envoy reads: what that plugin would show it, with the
// Authorization header, and ours beside it. testdata/opa-envoy has what a real one showed; where we do not follow it,
// docs/from-opa-envoy.md says why.
func (c *check) completeOPAEnvoy(in *policy.Input, reads func(field string) bool) error {
	if reads("attributes") {
		in.Attributes, _ = message(c.request.attributes().ProtoReflect()).(map[string]any)
		if c.claims == nil && slices.ContainsFunc(c.request.authorization, holdsToken) {
			request, _ := in.Attributes["request"].(map[string]any)
			http, _ := request["http"].(map[string]any)
			withoutAuthorization(http)
		}
	}
	if reads("extauthz") {
		c.describe(in)
		c.describeContext(in)
	}
	return c.request.completeWith(in, reads, parseBodyOPAEnvoy)
}

// holdsToken reports whether an Authorization header holds something of a token's form. Where no token was verified, on a
// public route or with another scheme than Bearer, a policy that decodes what stands there would take it for one that was.
func holdsToken(authorization string) bool {
	return slices.ContainsFunc(strings.Fields(authorization), func(word string) bool { return strings.Count(word, ".") >= 2 })
}

// parseBodyOPAEnvoy decodes the body as the plugin does. Its rules are not ours: a content type is found by a part of its
// name, and a length that is no number is an error. Case is the one thing that we do not follow it in: to a server,
// Application/JSON is JSON, and what a policy cannot see it cannot deny.
func parseBodyOPAEnvoy(http *authv3.AttributeContext_HttpRequest, headers headers) (body, error) {
	text := bodyText(http)
	if headers.value("x-envoy-auth-partial-body") == "true" {
		return body{truncated: true}, nil
	}
	parse := parserOPAEnvoy(headers.value("content-type"))
	if len(text) == 0 || parse == nil {
		return body{}, nil
	}
	if length, ok := headers.get("content-length"); ok {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil {
			return body{}, errors.New("content-length is no number")
		}
		if n > int64(len(text)) {
			return body{truncated: true}, nil
		}
	}
	if encoding := headers.value("content-encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return body{}, errors.New("the body has a content-encoding, which is not decoded, and the policy reads it")
	}
	return parse(text)
}

// parserOPAEnvoy returns the parser of a content type; nil if there is none.
func parserOPAEnvoy(contentType string) func(text []byte) (body, error) {
	has := func(name string) bool { return strings.Contains(strings.ToLower(contentType), name) }
	switch {
	case has("application/json"):
		return jsonBody
	case has("application/grpc"):
		return nil
	case has("application/x-www-form-urlencoded"):
		return formBody
	case has("multipart/form-data"):
		return func(text []byte) (body, error) { return multipartBody(contentType, text) }
	}
	return nil
}

var errMultipart = errors.New("the body is no well-formed multipart form, as its content-type says it is")

// multipartBody decodes a form of parts (RFC 7578). Each name has a list: of what a part of JSON holds, of the bytes of
// any other. Parts without a name are left out.
func multipartBody(contentType string, text []byte) (body, error) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return body{}, errMultipart
	}
	if params["boundary"] == "" {
		return body{}, nil
	}
	form := make(map[string]any)
	for reader := multipart.NewReader(bytes.NewReader(text), params["boundary"]); ; {
		part, err := reader.NextPart()
		switch {
		case err == io.EOF: //nolint:errorlint // one that wraps it is about a form that is cut off
			return body{parsed: form}, nil
		case err != nil:
			return body{}, errMultipart
		}
		name := part.FormName()
		if name == "" {
			continue
		}
		value, err := partValue(part)
		if err != nil {
			return body{}, err
		}
		list, _ := form[name].([]any)
		form[name] = append(list, value)
	}
}

func partValue(part *multipart.Part) (any, error) {
	text, err := io.ReadAll(part)
	if err != nil {
		return nil, errMultipart
	}
	if !strings.Contains(strings.ToLower(part.Header.Get("content-type")), "application/json") {
		return string(text), nil
	}
	b, err := jsonBody(text)
	return b.parsed, err
}
