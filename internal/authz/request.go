package authz

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"google.golang.org/protobuf/proto"

	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// A request is what the steps of a check need of a CheckRequest.
type request struct {
	raw     []byte                   // the message, if the request was scanned and not decoded
	decoded *authv3.AttributeContext // see attributes
	broken  bool                     // whether raw could not be decoded

	method        string
	rawHost       string
	rawPath       string // with the query
	host          string // canonical
	path          route.Path
	principal     string // of the peer
	headers       headers
	room          [maxScanned]field // for headers
	headerBytes   int               // their names and values
	rawHeaders    bool              // Envoy sent them as bytes
	bodyBytes     int
	authorization []string  // the Authorization headers
	usual         [1]string // room for authorization
	isGRPC        bool      // the caller speaks gRPC
}

// maxScanned is how many headers scan reads. A browser sends about twenty, Envoy and a mesh add ten.
const maxScanned = 48

// A field is a header with its name in lower case.
type field struct{ name, value string }

// headers are those of a request, each name once: values of one name are joined by commas, as Envoy joins them.
type headers []field

func (h headers) get(name string) (value string, ok bool) {
	for i := range h {
		if h[i].name == name {
			return h[i].value, true
		}
	}
	return "", false
}

// value is empty for a header that is not there.
func (h headers) value(name string) string {
	value, _ := h.get(name)
	return value
}

// attributes returns all that Envoy sent. Of a scanned request they are decoded when somebody asks for them first.
func (r *request) attributes() *authv3.AttributeContext {
	if r.decoded == nil {
		req := new(authv3.CheckRequest)
		r.broken = proto.Unmarshal(r.raw, req) != nil
		if r.decoded = req.GetAttributes(); r.decoded == nil || r.broken {
			r.decoded = new(authv3.AttributeContext)
		}
	}
	return r.decoded
}

var errUndecodable = &requestError{InvalidRequest, "the message from Envoy is no CheckRequest"}

// A requestError says why a CheckRequest cannot be read. Its detail is for the log, and quotes nothing.
type requestError struct {
	reason Reason
	detail string
}

func (e *requestError) Error() string { return "authz: " + e.detail }

func tooLarge(reason Reason, what string, size, limit int) *requestError {
	return &requestError{reason, fmt.Sprintf("%s has %d bytes, want at most %d", what, size, limit)}
}

// take reads a message: by scan, or else by decoding it. It returns false if it is no CheckRequest.
func take(msg []byte, into *request) bool {
	if scan(msg, into) {
		return true
	}
	*into = request{}
	req := new(authv3.CheckRequest)
	if err := proto.Unmarshal(msg, req); err != nil {
		return false
	}
	decoded(req, into)
	return true
}

// decoded takes what every check needs from a decoded CheckRequest, as scan does from its bytes.
func decoded(req *authv3.CheckRequest, r *request) {
	r.headers = r.room[:0]
	if r.decoded = req.GetAttributes(); r.decoded == nil {
		r.decoded = new(authv3.AttributeContext)
	}
	http := r.decoded.GetRequest().GetHttp()
	r.method, r.rawHost, r.rawPath = http.GetMethod(), http.GetHost(), http.GetPath()
	r.principal = r.decoded.GetSource().GetPrincipal()
	r.bodyBytes = len(http.GetBody()) + len(http.GetRawBody())
	raw := http.GetHeaderMap().GetHeaders()
	r.rawHeaders = len(raw) > 0
	at := make(map[string]int, len(http.GetHeaders())+len(raw)) // where a name is, as there may be very many
	add := func(name, value string) {
		name = strings.ToLower(name)
		i, twice := at[name]
		if !twice {
			at[name] = len(r.headers)
			r.addHeader(name, value)
			return
		}
		r.headerBytes += len(name) + len(value)
		r.note(name, value, r.headers[i].value+","+value)
		r.headers[i].value += "," + value
	}
	for name, value := range http.GetHeaders() {
		add(name, value)
	}
	for _, h := range raw {
		add(h.GetKey(), headerValue(h))
	}
}

// check holds a request to the limits and finds its canonical path and host. With an error, the request holds what was
// found before it.
func (s *Service) check(r *request) *requestError {
	if r.raw == nil && r.decoded.GetRequest().GetHttp() == nil {
		return &requestError{InvalidRequest, "the CheckRequest has no attributes.request.http"}
	}
	switch {
	case len(r.rawPath) > s.Limits.PathBytes:
		return tooLarge(InvalidPath, "path", len(r.rawPath), s.Limits.PathBytes)
	case r.headerBytes > s.Limits.HeaderBytes:
		return tooLarge(InvalidRequest, "all headers", r.headerBytes, s.Limits.HeaderBytes)
	}
	var err error
	if r.path, err = route.ParsePath(r.rawPath); err != nil {
		return &requestError{InvalidPath, err.Error()}
	}
	if r.host, err = route.CanonicalHost(r.rawHost); err != nil {
		return &requestError{InvalidPath, err.Error()}
	}
	if r.bodyBytes > s.Limits.BodyBytes {
		return tooLarge(InvalidRequest, "body", r.bodyBytes, s.Limits.BodyBytes)
	}
	return nil
}

// addHeader adds a header, which Envoy puts into headers, or into header_map if it is set to encode_raw_headers.
func (r *request) addHeader(name, value string) {
	r.headerBytes += len(name) + len(value)
	r.note(name, value, value)
	r.headers = append(r.headers, field{name, value})
}

// note keeps what every check looks at; joined is the value with those that came before.
func (r *request) note(name, value, joined string) {
	switch name {
	case "authorization":
		if r.authorization == nil {
			r.authorization = r.usual[:0]
		}
		r.authorization = append(r.authorization, value)
	case "content-type":
		r.isGRPC = isGRPC(joined)
	}
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
	if reads("parsed_path") {
		in.ParsedPath = r.path.Segments()
	}
	if reads("parsed_query") {
		_, query, _ := strings.Cut(r.rawPath, "?")
		var ok bool
		if in.ParsedQuery, ok = parseForm(query); !ok {
			return &requestError{InvalidRequest, "the query has a bad escape, a semicolon or bytes that are not UTF-8, and the policy reads it"}
		}
	}
	if reads("parsed_body") || reads("truncated_body") {
		b, err := parse(r.attributes().GetRequest().GetHttp(), r.headers)
		if err != nil {
			return &requestError{InvalidRequest, err.Error()}
		}
		in.ParsedBody, in.TruncatedBody = b.parsed, b.truncated
	}
	if r.broken {
		return errUndecodable
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
		if !b64TokenBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

var b64TokenBytes = func() (set [256]bool) {
	for _, b := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		set[b] = true
	}
	return set
}()
