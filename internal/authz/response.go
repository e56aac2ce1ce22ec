package authz

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// respond builds the answer of a verdict.
func (s *Service) respond(c *check, v verdict) *reply {
	switch {
	case v.outcome == Allowed && v.reason == OK:
		return s.allow(c, v)
	case v.outcome == "" || v.outcome == Allowed:
		v = fail(Panic, "a check ended without a verdict", 0)
	}
	return s.denied(c, v)
}

// allow builds the only answer that lets a request through.
func (s *Service) allow(c *check, v verdict) *reply {
	a := c.newReply()
	a.code = codes.OK
	a.response = headerOptions(v.decision.ResponseHeaders, addedCookie)
	a.setQuery, a.removeQuery = v.decision.SetQueryParameters, v.decision.RemoveQueryParameters
	a.metadata = metadata(c, v)
	s.identify(c, a)
	a.headers = append(a.headers, headerOptions(v.decision.RequestHeaders, addedCookie)...)
	a.remove = append(s.scrub.forged(c.request.headers, a.remove), v.decision.RemoveRequestHeaders...)
	// Envoy removes last, so that a name in both lists would be gone.
	a.remove = slices.DeleteFunc(a.remove, func(name string) bool { return sets(a.headers, strings.ToLower(name)) })
	if s.RemoveAuthorization && !c.public() && !sets(a.headers, "authorization") {
		a.remove = append(a.remove, "authorization")
	}
	slices.Sort(a.remove)
	a.remove = slices.Compact(a.remove)
	return a
}

// identify sets the headers that say who is calling, and removes those that have nothing to say.
func (s *Service) identify(c *check, a *reply) {
	if len(c.identity) == 0 {
		a.remove = append(a.remove, s.scrub.names...)
	}
	for i := range c.identity {
		fact := &c.identity[i]
		if text := headerText(&fact.value); text != "" && len(text) <= s.Identity.MaxBytes {
			a.headers = append(a.headers, overwrite(fact.header, text))
		} else {
			a.remove = append(a.remove, fact.header)
		}
	}
}

// sets reports whether a header, named in lower case, is among those that are set.
func sets(headers []option, name string) bool {
	return slices.ContainsFunc(headers, func(h option) bool { return h.name == name })
}

// overwrite sets a header in place of any that the request has.
func overwrite(name, value string) option {
	return option{name, value, appendFalse, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}
}

// headerOptions writes a policy's headers. Several values of a name become one, separated by commas, which means the
// same (RFC 9110 section 5.3) and leaves nothing to the order in which Envoy sets and appends. Cookies cannot be joined:
// cookie writes each.
func headerOptions(headers []policy.Header, cookie func(i int, value string) option) []option {
	var set []option
	for _, h := range headers {
		if h.Name != "set-cookie" {
			set = append(set, overwrite(h.Name, strings.Join(h.Values, ",")))
			continue
		}
		for i, value := range h.Values {
			set = append(set, cookie(i, value))
		}
	}
	return set
}

// addedCookie leaves the upstream's own cookies in an allowed response.
func addedCookie(_ int, value string) option {
	return option{"set-cookie", value, appendTrue, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD}
}

// ownCookie is for a denied response, where Envoy 1.40 loses a second value for which append is set.
func ownCookie(i int, value string) option {
	if i == 0 {
		return overwrite("set-cookie", value)
	}
	return option{"set-cookie", value, appendUnset, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD}
}

// denied builds every answer that does not let the request through: a denied_response, and never a gRPC error.
func (s *Service) denied(c *check, v verdict) *reply {
	a := c.newReply()
	a.code, a.message, a.denied, a.status = v.code, string(v.reason), true, v.status
	a.metadata = metadata(c, v)
	set := func(name, value string) { a.headers = append(a.headers, overwrite(name, value)) }
	set("cache-control", "no-store")
	if challenge := s.challenge(v); challenge != "" {
		set("www-authenticate", challenge)
	}
	if v.retryAfter > 0 {
		set("retry-after", strconv.Itoa(max(1, int(v.retryAfter/time.Second))))
	}
	switch {
	case c.request.isGRPC:
		// Envoy makes the body the grpc-message, so it must be one line, and its own mapping of HTTP to gRPC
		// statuses calls a 400 INTERNAL.
		set("content-type", "text/plain; charset=utf-8")
		set("grpc-status", strconv.Itoa(int(v.code)))
		a.body = fmt.Sprintf("%s (decision %s)", v.reason, c.id)
	case v.decision.Body != nil:
		set("content-type", "text/plain; charset=utf-8")
		a.body = *v.decision.Body
	default:
		set("content-type", "application/problem+json")
		a.body = problemBody(c, v)
	}
	a.headers = override(a.headers, headerOptions(v.decision.ResponseHeaders, ownCookie))
	return a
}

// override lets a policy's own headers take the place of ours, but for the gRPC status, which must fit the answer.
func override(ours, theirs []option) []option {
	theirs = slices.DeleteFunc(theirs, func(h option) bool {
		return strings.HasPrefix(h.name, "grpc-")
	})
	ours = slices.DeleteFunc(ours, func(h option) bool { return sets(theirs, h.name) })
	return append(ours, theirs...)
}

// challenge returns the WWW-Authenticate header of RFC 6750 section 3; empty if the answer has none. A 401 always has one
// (RFC 9110 section 15.5.2), a policy's own too.
func (s *Service) challenge(v verdict) string {
	if v.kind.challenge == "" && v.status != http.StatusUnauthorized {
		return ""
	}
	c := append(make([]byte, 0, 192), `Bearer realm="`...)
	c = append(append(c, s.Realm...), '"')
	parameter := func(name, value string) {
		c = append(append(c, ", "...), name...)
		c = append(append(append(c, `="`...), value...), '"')
	}
	if v.kind.challenge != "" {
		parameter("error", v.kind.challenge)
	}
	if v.kind == isRefused {
		parameter("error_description", rowOf(v.reason).tell)
	}
	if v.scope != "" {
		parameter("scope", v.scope)
	}
	return string(c)
}

// problemBody is the body of RFC 9457. Without a type, title is the status's own.
func problemBody(c *check, v verdict) string {
	p := append(make([]byte, 0, 256), `{"title":`...)
	p = appendJSON(p, http.StatusText(v.status))
	p = strconv.AppendInt(append(p, `,"status":`...), int64(v.status), 10)
	p = appendJSON(append(p, `,"detail":`...), rowOf(v.reason).tell)
	p = appendJSON(append(p, `,"reason":`...), string(v.reason))
	p = appendJSON(append(p, `,"decision_id":`...), c.id)
	return string(append(p, '}'))
}

// appendJSON appends a text of ours, which is UTF-8.
func appendJSON(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// metadata is what Envoy's access log, rate limits and other filters can read of the decision, in the namespace
// envoy.filters.http.ext_authz.
func metadata(c *check, v verdict) []fact {
	facts := c.identity
	if facts == nil {
		facts = c.facts[:0]
	}
	for name, said := range v.decision.Metadata {
		if !ours(c, name) {
			facts = append(facts, fact{field: name, value: jsonValue(said)})
		}
	}
	return append(facts,
		fact{field: "outcome", value: textValue(string(v.outcome))}, fact{field: "reason", value: textValue(string(v.reason))},
		fact{field: "decision_id", value: textValue(c.id)}, fact{field: "route", value: textValue(c.routeName())})
}

// ours reports whether a name of the metadata is one that we set, so that no policy can.
func ours(c *check, name string) bool {
	switch name {
	case "outcome", "reason", "decision_id", "route":
		return true
	}
	return slices.ContainsFunc(c.identity, func(f fact) bool { return f.field == name && f.kind != isAbsent })
}

func (c *check) routeName() string {
	if c.match == nil {
		return ""
	}
	return c.match.Rule.Name
}
