package policy

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A Decision is the value of the deciding rule. The zero Decision denies.
//
// In Rego it is true, false, or an object whose keys are those of OPA-Envoy, and reason and scope: allowed (required),
// headers, response_headers_to_add, request_headers_to_remove, query_parameters_to_set, query_parameters_to_remove,
// http_status, body, dynamic_metadata. Any other key is an error. A key of the other outcome, such as body with
// "allowed": true, must be of the right type and is then ignored.
//
// All text in a Decision is valid UTF-8, and within a size that Envoy takes.
type Decision struct {
	// Allowed is the key allowed: let the request pass.
	Allowed bool
	// Reason says why a request is denied: one of the built-in reasons or of Config.Reasons. Empty if it is allowed.
	Reason Reason
	// Detail is the key reason as the policy gave it, [a-z0-9_]{1,64}: for logs. Empty without one.
	Detail string
	// Scope is the key scope of a denial: the scopes that would do, in the form of RFC 6749 section 3.3. With a scope
	// and no reason, the reason is [InsufficientScope].
	Scope string
	// HTTPStatus is the key http_status of a denial, 403 without one; zero if the request is allowed.
	HTTPStatus int
	// Body is the key body of a denial; nil without one.
	Body *string
	// ResponseHeaders go to the client: the key headers of a denial, response_headers_to_add of an allow.
	ResponseHeaders []Header
	// RequestHeaders are the key headers of an allow: to be set on the upstream request.
	RequestHeaders []Header
	// RemoveRequestHeaders are the key request_headers_to_remove of an allow. None of them is in RequestHeaders.
	RemoveRequestHeaders []string
	// SetQueryParameters are the key query_parameters_to_set of an allow, names and values percent-encoded.
	SetQueryParameters []Parameter
	// RemoveQueryParameters are the key query_parameters_to_remove of an allow. None of them is in SetQueryParameters.
	RemoveQueryParameters []string
	// Metadata is the key dynamic_metadata, of JSON's types as google.protobuf.Struct has them: nil, bool, float64,
	// string, []any, map[string]any. Nil without it.
	Metadata map[string]any
	// Revision identifies the policy that decided; see [Engine.Revision].
	Revision string
}

// A Header is a field name in lower case with its values, in order. There is at least one.
type Header struct {
	Name   string
	Values []string
}

// A Parameter is the name of a query parameter with its values, in order. There is at least one.
type Parameter struct {
	Name   string
	Values []string
}

// Bounds of what a decision holds. Envoy answers 500 when it cannot take a header, and its protobuf parser refuses a
// message of more than 100 levels, of which each level of metadata takes three; what it then does is up to
// failure_mode_allow. So neither may happen.
const (
	maxDecisionBytes  = 32 << 10
	maxDecisionValues = 1000 // of headers and of parameters
	maxMetadataDepth  = 16
)

// A decoder knows what decisions may hold.
type decoder struct {
	reserved map[string]bool   // identity headers, by spelling
	request  map[string]bool   // headers that may be set on or removed from the upstream request
	reasons  map[string]Reason // that may be shown
	unknown  *unknownKeys      // of [DialectOPAEnvoy]; nil in our own, where a key that means nothing is an error
}

func newDecoder(request, reserved, reasons []string) (decoder, error) {
	d := decoder{reserved: map[string]bool{}, request: map[string]bool{}, reasons: map[string]Reason{}}
	var errs []error
	for _, name := range reserved {
		if !isToken(name) {
			errs = append(errs, fmt.Errorf("ReservedHeaders holds %q, want a header name (RFC 9110 section 5.1)", name))
		}
		d.reserved[spelling(name)] = true
	}
	for _, name := range request {
		if problem := d.headerProblem(name); problem != "" {
			errs = append(errs, fmt.Errorf("RequestHeaders holds %q, which is %s", name, problem))
		}
		d.request[strings.ToLower(name)] = true
	}
	for _, reason := range slices.Concat([]string{
		string(InsufficientScope), string(ClientNotAllowed), string(NoRoute), string(PolicyDenied),
	}, reasons) {
		if !reasonPattern.MatchString(reason) {
			errs = append(errs, fmt.Errorf("Reasons holds %q, want %s", reason, reasonPattern))
		}
		d.reasons[reason] = Reason(reason)
	}
	return d, errors.Join(errs...)
}

// decode makes a Decision of the rule's value, or a [*DecisionError].
func (d *decoder) decode(value ast.Value) (Decision, error) {
	if allowed, ok := value.(ast.Boolean); ok {
		if allowed {
			return Decision{Allowed: true}, nil
		}
		return Decision{Reason: PolicyDenied, HTTPStatus: http.StatusForbidden}, nil
	}
	object, ok := value.(ast.Object)
	if !ok {
		return Decision{}, &DecisionError{Got: typeName(value), Want: "a boolean or an object"}
	}
	read := readKeys
	if d.unknown != nil {
		read = d.readOPAEnvoy
	}
	keys, err := read(object)
	if err != nil {
		return Decision{}, err
	}
	if *keys.allowed {
		return d.allow(keys)
	}
	return d.deny(keys)
}

// keys are the keys of a decision, of the right types and not looked at any closer.
type keys struct {
	allowed     *bool
	headers     []Header
	respHeaders []Header
	remove      []string
	setQuery    []Header
	removeQuery []string
	status      *ast.Number
	body        *string
	metadata    ast.Object
	reason      *string
	scope       *string
}

func readKeys(object ast.Object) (keys, error) {
	var k keys
	var r reader
	for _, key := range object.Keys() { // sorted, so that of several mistakes the same is reported each time
		name, ok := key.Value.(ast.String)
		if !ok {
			return keys{}, &DecisionError{Got: "an object with " + typeName(key.Value) + " as a key", Want: "strings as keys"}
		}
		if !k.read(&r, name, object.Get(key).Value) {
			r.fail(show(string(name)), "a key that means nothing", "one of the keys of a decision (see docs/policy.md)")
		}
	}
	if k.allowed == nil {
		r.fail("allowed", "missing", "true or false")
	}
	if r.err != nil {
		return keys{}, r.err
	}
	return k, nil
}

// read reads one key, and reports whether it is one of a decision.
func (k *keys) read(r *reader, name ast.String, value ast.Value) bool {
	field := string(name)
	switch name {
	case "allowed":
		k.allowed = r.boolean(field, value)
	case "headers":
		k.headers = r.headers(field, value)
	case "response_headers_to_add":
		k.respHeaders = r.headers(field, value)
	case "request_headers_to_remove":
		k.remove = r.strings(field, value)
	case "query_parameters_to_set":
		k.setQuery = r.values(field, value, func(s string) string { return s })
	case "query_parameters_to_remove":
		k.removeQuery = r.strings(field, value)
	case "http_status":
		k.status = r.number(field, value)
	case "body":
		k.body = r.string(field, value)
	case "dynamic_metadata":
		k.metadata = r.object(field, value)
	case "reason":
		k.reason = r.string(field, value)
	case "scope":
		k.scope = r.string(field, value)
	default:
		return false
	}
	return true
}

func (d *decoder) allow(k keys) (Decision, error) {
	var c checker
	out := Decision{Allowed: true, Detail: c.reason(k.reason), Metadata: c.metadata(k.metadata)}
	for _, h := range k.headers {
		out.RequestHeaders = append(out.RequestHeaders, d.requestHeader(&c, "headers", h))
	}
	for _, name := range k.remove {
		h := d.requestHeader(&c, "request_headers_to_remove", Header{Name: strings.ToLower(name)})
		if slices.ContainsFunc(out.RequestHeaders, func(set Header) bool { return set.Name == h.Name }) {
			c.fail("request_headers_to_remove", "a name that headers holds as well", "it in one of the two: Envoy would remove what was set")
		}
		if !slices.Contains(out.RemoveRequestHeaders, h.Name) {
			out.RemoveRequestHeaders = append(out.RemoveRequestHeaders, h.Name)
		}
	}
	for _, h := range k.respHeaders {
		out.ResponseHeaders = append(out.ResponseHeaders, d.header(&c, "response_headers_to_add", h))
	}
	for _, p := range k.setQuery {
		out.SetQueryParameters = append(out.SetQueryParameters, Parameter(c.parameter("query_parameters_to_set", p)))
	}
	for _, name := range k.removeQuery {
		c.parameter("query_parameters_to_remove", Header{Name: name})
		if slices.ContainsFunc(out.SetQueryParameters, func(set Parameter) bool { return set.Name == name }) {
			c.fail("query_parameters_to_remove", "a name that query_parameters_to_set holds as well", "it in one of the two")
		}
		if !slices.Contains(out.RemoveQueryParameters, name) {
			out.RemoveQueryParameters = append(out.RemoveQueryParameters, name)
		}
	}
	return c.finish(out)
}

func (d *decoder) deny(k keys) (Decision, error) {
	var c checker
	out := Decision{
		Detail: c.reason(k.reason), Scope: c.scope(k.scope),
		HTTPStatus: c.status(k.status), Body: c.body(k.body), Metadata: c.metadata(k.metadata),
	}
	for _, h := range k.headers {
		out.ResponseHeaders = append(out.ResponseHeaders, d.header(&c, "headers", h))
	}
	switch reason, known := d.reasons[out.Detail]; {
	case known:
		out.Reason = reason
	case out.Detail == "" && out.Scope != "":
		out.Reason = InsufficientScope
	default:
		out.Reason = PolicyDenied
	}
	return c.finish(out)
}

// requestHeader checks a header of the upstream request: only those that the configuration lists, because Envoy's
// mutation rules are made of the same list. The authorization header may be removed by anybody, since that takes a
// right away; a header with no values stands for a removal.
func (d *decoder) requestHeader(c *checker, field string, h Header) Header {
	h = d.header(c, field, h)
	if !d.request[h.Name] && !(h.Name == "authorization" && len(h.Values) == 0) {
		c.fail(field+"."+show(h.Name), "a request header that is not listed", "one of policy.requestHeaders")
	}
	return h
}

// header checks a header of either direction.
func (d *decoder) header(c *checker, field string, h Header) Header {
	field += "." + show(h.Name)
	if problem := d.headerProblem(h.Name); problem != "" {
		c.fail(field, problem, "a header that a policy may set")
	}
	c.size += len(h.Name)
	for _, v := range h.Values {
		c.text(field, v)
	}
	return h
}

// headerProblem says why no policy may set or remove a header, or returns "".
func (d *decoder) headerProblem(name string) string {
	switch {
	case strings.HasPrefix(name, ":"):
		return "a pseudo header"
	case !isToken(name):
		return "no header name (RFC 9110 section 5.1)"
	case d.reserved[spelling(name)]:
		return "an identity header"
	case transportHeaders[spelling(name)]:
		return "a header of the connection or the message's framing"
	}
	return ""
}

// transportHeaders are about a connection (RFC 9110 section 7.6.1) or about where a message goes and ends. Whoever sets
// them makes two servers see two different requests.
var transportHeaders = map[string]bool{
	"connection": true, "keep-alive": true, "proxy-connection": true, "te": true, "trailer": true,
	"transfer-encoding": true, "upgrade": true,
	"host": true, "content-length": true,
}

// spelling makes names equal that some server takes for the same: those that hand headers to programs as environment
// variables (CGI, WSGI) map case and punctuation to one form.
func spelling(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// statuses are the statuses of a denial: those from 300 to 599 that both net/http and Envoy's
// envoy.type.v3.StatusCode know, without 304, which tells a client to use what it has.
var statuses = []int{
	300, 301, 302, 303, 305, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 426, 428, 429, 431,
	500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
}

var (
	reasonPattern = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)
	// scopePattern is RFC 6749 section 3.3: scope tokens with single spaces between them.
	scopePattern = regexp.MustCompile(`^[!#-\[\]-~]+( [!#-\[\]-~]+)*$`)
	// What a query may hold (RFC 3986 section 3.4) without what separates parameters. Envoy writes names and values as
	// they are, so that an "&" in a value would be one more parameter.
	paramNamePattern  = regexp.MustCompile(`^(?:[A-Za-z0-9._~!$'()*+,:@/?-]|%[0-9A-Fa-f]{2})+$`)
	paramValuePattern = regexp.MustCompile(`^(?:[A-Za-z0-9._~!$'()*+,:@/?=-]|%[0-9A-Fa-f]{2})*$`)
)

// A checker checks the values of a decision and keeps the first error.
type checker struct {
	err  *DecisionError
	size int // bytes of text so far
}

func (c *checker) fail(field, got, want string) {
	if c.err == nil {
		c.err = &DecisionError{Field: field, Got: got, Want: want}
	}
}

func (c *checker) finish(out Decision) (Decision, error) {
	if c.size > maxDecisionBytes {
		c.fail("", fmt.Sprintf("%d bytes of text", c.size), fmt.Sprintf("at most %d", maxDecisionBytes))
	}
	if c.err != nil {
		return Decision{}, c.err
	}
	return out, nil
}

func (c *checker) reason(s *string) string {
	if s == nil {
		return ""
	}
	if !reasonPattern.MatchString(*s) {
		c.fail("reason", "another string", "one that matches "+reasonPattern.String())
	}
	return *s
}

func (c *checker) scope(s *string) string {
	if s == nil || *s == "" {
		return ""
	}
	c.size += len(*s)
	if !scopePattern.MatchString(*s) {
		c.fail("scope", "another string", "scope tokens with single spaces between them (RFC 6749 section 3.3)")
	}
	return *s
}

func (c *checker) status(n *ast.Number) int {
	if n == nil {
		return http.StatusForbidden
	}
	status, ok := n.Int()
	if !ok || !slices.Contains(statuses, status) {
		c.fail("http_status", "another number", "a status from 300 to 599 that Envoy knows, and not 304")
	}
	return status
}

func (c *checker) body(s *string) *string {
	if s != nil {
		c.utf8("body", *s)
	}
	return s
}

// text checks a header's value.
func (c *checker) text(field, s string) {
	c.utf8(field, s)
	if strings.ContainsFunc(s, unicode.IsControl) {
		c.fail(field, "a string with control characters", "one without")
	}
}

// utf8 checks what protobuf asks of every string. A response that cannot be marshalled is a gRPC error, and that may be
// an allow to Envoy.
func (c *checker) utf8(field, s string) {
	c.size += len(s)
	if !utf8.ValidString(s) {
		c.fail(field, "a string that is not UTF-8", "UTF-8")
	}
}

// parameter checks the name and the values of a query parameter.
func (c *checker) parameter(field string, p Header) Header {
	const want = "it percent-encoded (urlquery.encode)"
	field += "." + show(p.Name)
	c.size += len(p.Name)
	if !paramNamePattern.MatchString(p.Name) {
		c.fail(field, "a name that a query cannot hold", want)
	}
	for _, v := range p.Values {
		c.size += len(v)
		if !paramValuePattern.MatchString(v) {
			c.fail(field, "a value that a query cannot hold", want)
		}
	}
	return p
}

func (c *checker) metadata(object ast.Object) map[string]any {
	if object == nil {
		return nil
	}
	m, _ := c.metadataValue(object, 1).(map[string]any)
	return m
}

func (c *checker) metadataValue(value ast.Value, depth int) any {
	const field = "dynamic_metadata"
	if depth > maxMetadataDepth {
		c.fail(field, "deeper", fmt.Sprintf("at most %d levels", maxMetadataDepth))
		return nil
	}
	c.size += 8 // about what a value takes without its text
	switch v := value.(type) {
	case ast.Null:
		return nil
	case ast.Boolean:
		return bool(v)
	case ast.String:
		c.utf8(field, string(v))
		return string(v)
	case ast.Number:
		f, ok := v.Float64()
		if !ok || math.IsInf(f, 0) || math.IsNaN(f) {
			c.fail(field, "a number that is out of range", "a finite float64")
		}
		return f
	case ast.Object:
		m := make(map[string]any, v.Len())
		for _, key := range v.Keys() {
			name, ok := key.Value.(ast.String)
			if !ok {
				c.fail(field, "an object with "+typeName(key.Value)+" as a key", "strings as keys")
				return nil
			}
			c.utf8(field, string(name))
			m[string(name)] = c.metadataValue(v.Get(key).Value, depth+1)
		}
		return m
	default:
		list, ok := elements(value)
		if !ok {
			c.fail(field, typeName(value), "a value that JSON has a form for")
			return nil
		}
		out := make([]any, len(list))
		for i, e := range list {
			out[i] = c.metadataValue(e.Value, depth+1)
		}
		return out
	}
}

// A reader reads the types of a decision's keys and keeps the first error.
type reader struct {
	err         error
	count       int  // values so far
	numberNames bool // a number is a name, as it becomes one in JSON
}

func (r *reader) fail(field, got, want string) {
	if r.err == nil {
		r.err = &DecisionError{Field: field, Got: got, Want: want}
	}
}

func (r *reader) boolean(field string, value ast.Value) *bool {
	b, ok := value.(ast.Boolean)
	if !ok {
		r.fail(field, typeName(value), "a boolean")
	}
	return (*bool)(&b)
}

func (r *reader) number(field string, value ast.Value) *ast.Number {
	n, ok := value.(ast.Number)
	if !ok {
		r.fail(field, typeName(value), "a number")
	}
	return &n
}

func (r *reader) string(field string, value ast.Value) *string {
	s, ok := value.(ast.String)
	if !ok {
		r.fail(field, typeName(value), "a string")
	}
	return (*string)(&s)
}

func (r *reader) object(field string, value ast.Value) ast.Object {
	o, ok := value.(ast.Object)
	if !ok {
		r.fail(field, typeName(value), "an object")
	}
	return o
}

// strings reads a list or a set of strings.
func (r *reader) strings(field string, value ast.Value) []string {
	list, ok := elements(value)
	if !ok {
		r.fail(field, typeName(value), "a list of strings")
	}
	return r.list(field, list)
}

// list reads strings, as long as they are not too many: checking them takes quadratic time.
func (r *reader) list(field string, list []*ast.Term) []string {
	if r.count += len(list); r.count > maxDecisionValues {
		r.fail(field, "one of too many values", fmt.Sprintf("at most %d in all", maxDecisionValues))
		return nil
	}
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = *r.string(field, e.Value)
	}
	return out
}

// headers reads an object of headers or a list of such objects. In a list, a name may come again: its values add up.
func (r *reader) headers(field string, value ast.Value) []Header {
	if _, ok := value.(ast.Object); ok {
		return r.values(field, value, strings.ToLower)
	}
	list, ok := elements(value)
	if !ok {
		r.fail(field, typeName(value), "an object or a list of objects")
	}
	var out []Header
	for _, e := range list {
		for _, h := range r.values(field, e.Value, strings.ToLower) {
			if i := slices.IndexFunc(out, func(o Header) bool { return o.Name == h.Name }); i >= 0 {
				out[i].Values = append(out[i].Values, h.Values...)
			} else {
				out = append(out, h)
			}
		}
	}
	return out
}

// values reads an object whose values are a string or a list of strings, sorted by name. A name with an empty list is
// left out, as OPA-Envoy does it.
func (r *reader) values(field string, value ast.Value, fold func(string) string) []Header {
	object, ok := value.(ast.Object)
	if !ok {
		r.fail(field, typeName(value), "an object of strings or lists of strings")
		return nil
	}
	var out []Header
	seen := make(map[string]bool, object.Len())
	for _, key := range object.Keys() {
		name, ok := key.Value.(ast.String)
		if number, isNumber := key.Value.(ast.Number); isNumber && r.numberNames {
			name, ok = ast.String(number), true
		}
		if !ok {
			r.fail(field, "an object with "+typeName(key.Value)+" as a key", "strings as keys")
			return nil
		}
		h := Header{Name: fold(string(name))}
		at := field + "." + show(h.Name)
		if seen[h.Name] {
			r.fail(at, "given twice, in two spellings", "it once")
		}
		seen[h.Name] = true

		value := object.Get(key)
		list, ok := elements(value.Value)
		if _, single := value.Value.(ast.String); single {
			list, ok = []*ast.Term{value}, true
		}
		if !ok {
			r.fail(at, typeName(value.Value), "a string or a list of strings")
		}
		if h.Values = r.list(at, list); len(h.Values) > 0 {
			out = append(out, h)
		}
	}
	return out
}

// elements returns what is in an array, or in a set in the order of its values.
func elements(value ast.Value) ([]*ast.Term, bool) {
	switch v := value.(type) {
	case *ast.Array:
		list := make([]*ast.Term, 0, v.Len())
		v.Foreach(func(t *ast.Term) { list = append(list, t) })
		return list, true
	case ast.Set:
		return v.Slice(), true
	}
	return nil, false
}

// typeName says what a value is, in the words of an error text.
func typeName(value ast.Value) string {
	switch value.(type) {
	case ast.Null:
		return "null"
	case ast.Boolean:
		return "a boolean"
	case ast.Number:
		return "a number"
	case ast.String:
		return "a string"
	case *ast.Array:
		return "a list"
	case ast.Object:
		return "an object"
	case ast.Set:
		return "a set"
	}
	return "no value"
}

// show quotes a name for an error text unless it looks like one that somebody wrote: a policy may, by mistake, use
// something of the request as a name, and a log is no place for that.
func show(name string) string {
	if len(name) > 64 || !isToken(name) {
		return "(" + strconv.Itoa(len(name)) + " bytes that are no name)"
	}
	return name
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2), as header names are.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
