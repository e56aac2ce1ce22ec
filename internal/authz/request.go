package authz

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// A request is what the steps of a check need of a CheckRequest.
type request struct {
	attributes    *authv3.AttributeContext
	method        string
	host          string // canonical
	path          route.Path
	headers       map[string]string // by lower-case name; values of one name joined by commas, as Envoy joins them
	authorization []string          // the Authorization headers
	isGRPC        bool              // the caller speaks gRPC
}

// A requestError says why a CheckRequest cannot be read. Its detail is for the log, and quotes nothing.
type requestError struct {
	reason Reason
	detail string
}

func (e *requestError) Error() string { return "authz: " + e.detail }

func tooLarge(reason Reason, what string, size, limit int) *requestError {
	return &requestError{reason, fmt.Sprintf("%s has %d bytes, want at most %d", what, size, limit)}
}

// requestOf reads a CheckRequest. With an error, the request holds what was read before it.
func (s *Service) requestOf(req *authv3.CheckRequest) (*request, *requestError) {
	r := &request{attributes: req.GetAttributes()}
	http := r.attributes.GetRequest().GetHttp()
	if http == nil {
		return r, &requestError{InvalidRequest, "the CheckRequest has no attributes.request.http"}
	}
	r.method = http.GetMethod()
	size := r.readHeaders(http)
	r.isGRPC = isGRPC(r.headers["content-type"])
	switch {
	case len(http.GetPath()) > s.Limits.PathBytes:
		return r, tooLarge(InvalidPath, "path", len(http.GetPath()), s.Limits.PathBytes)
	case size > s.Limits.HeaderBytes:
		return r, tooLarge(InvalidRequest, "all headers", size, s.Limits.HeaderBytes)
	}
	var err error
	if r.path, err = route.ParsePath(http.GetPath()); err != nil {
		return r, &requestError{InvalidPath, err.Error()}
	}
	if r.host, err = route.CanonicalHost(http.GetHost()); err != nil {
		return r, &requestError{InvalidPath, err.Error()}
	}
	if size := len(http.GetBody()) + len(http.GetRawBody()); size > s.Limits.BodyBytes {
		return r, tooLarge(InvalidRequest, "body", size, s.Limits.BodyBytes)
	}
	return r, nil
}

// readHeaders takes the headers from where Envoy put them: headers, or header_map if it is set to
// encode_raw_headers. It returns how many bytes they have.
func (r *request) readHeaders(http *authv3.AttributeContext_HttpRequest) (size int) {
	raw := http.GetHeaderMap().GetHeaders()
	r.headers = make(map[string]string, len(http.GetHeaders())+len(raw))
	add := func(name, value string) {
		size += len(name) + len(value)
		name = strings.ToLower(name)
		if name == "authorization" {
			r.authorization = append(r.authorization, value)
		}
		if before, ok := r.headers[name]; ok {
			value = before + "," + value
		}
		r.headers[name] = value
	}
	for name, value := range http.GetHeaders() {
		add(name, value)
	}
	for _, h := range raw {
		add(h.GetKey(), headerValue(h))
	}
	return size
}

func headerValue(h *corev3.HeaderValue) string {
	if raw := h.GetRawValue(); len(raw) > 0 {
		return string(raw)
	}
	return h.GetValue()
}

// complete fills in what the policy reads of query and body. Nobody pays for parsing what no policy looks at, and a
// query or body that we cannot read is refused only where a policy would decide without having seen it: a parameter
// that it cannot see may be one that the upstream acts on.
func (r *request) complete(in *policy.Input, reads func(field string) bool) error {
	return r.completeWith(in, reads, parseBody)
}

// completeWith is complete with a parser of bodies.
func (r *request) completeWith(in *policy.Input, reads func(field string) bool, parse bodyParser) error {
	http := r.attributes.GetRequest().GetHttp()
	if reads("parsed_query") {
		_, query, _ := strings.Cut(http.GetPath(), "?")
		var ok bool
		if in.ParsedQuery, ok = parseForm(query); !ok {
			return &requestError{InvalidRequest, "the query has a bad escape, a semicolon or bytes that are not UTF-8, and the policy reads it"}
		}
	}
	if reads("parsed_body") || reads("truncated_body") {
		b, err := parse(http, r.headers)
		if err != nil {
			return &requestError{InvalidRequest, err.Error()}
		}
		in.ParsedBody, in.TruncatedBody = b.parsed, b.truncated
	}
	return nil
}

// isGRPC reports whether a content type is gRPC's: application/grpc, with or without a suffix.
//
// Source: "gRPC over HTTP2", Content-Type.
func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || strings.ContainsAny(rest[:1], "+; -"))
}

// bearer returns the token of the request's Authorization header (RFC 6750 section 2.1); empty if there is none or
// it has another scheme. Two headers, or one with more than one token, are an error: who reads only the first or
// the last would decide about another caller than the upstream does.
func bearer(authorization []string, limit int) (string, error) {
	if len(authorization) == 0 {
		return "", nil
	}
	if len(authorization) > 1 {
		return "", fmt.Errorf("%d Authorization headers, want one", len(authorization))
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	token = strings.TrimLeft(token, " ")
	switch {
	case token == "":
		return "", errors.New("the Authorization header has a scheme and no token")
	case len(token) > limit:
		return "", fmt.Errorf("the token has %d bytes, want at most %d", len(token), limit)
	case !isB64Token(token):
		return "", errors.New("the Authorization header is not Bearer and one b64token")
	}
	return token, nil
}

// isB64Token reports whether s is 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=".
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		b := s[i]
		letter := 'a' <= b|0x20 && b|0x20 <= 'z'
		if !letter && (b < '0' || b > '9') && !strings.ContainsRune("-._~+/", rune(b)) {
			return false
		}
	}
	return s != ""
}
