package authz

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// respond builds the answer of a verdict.
func (s *Service) respond(c *check, v verdict) *authv3.CheckResponse {
	switch {
	case v.outcome == Allowed && v.reason == OK:
		return s.allow(c, v)
	case v.outcome == "" || v.outcome == Allowed:
		v = fail(Panic, "a check ended without a verdict", 0)
	}
	return s.denied(c, v)
}

// allow builds the only answer that lets a request through.
func (s *Service) allow(c *check, v verdict) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{
		HeadersToRemove:         slices.Clone(v.decision.RemoveRequestHeaders),
		ResponseHeadersToAdd:    headerOptions(v.decision.ResponseHeaders, addedCookie),
		QueryParametersToRemove: v.decision.RemoveQueryParameters,
	}
	for _, q := range v.decision.SetQueryParameters {
		for _, value := range q.Values {
			ok.QueryParametersToSet = append(ok.QueryParametersToSet, &corev3.QueryParameter{Key: q.Name, Value: value})
		}
	}
	ok.Headers = append(s.identityHeaders(c), headerOptions(v.decision.RequestHeaders, addedCookie)...)
	ok.HeadersToRemove = append(ok.HeadersToRemove, s.unsetHeaders(c, ok.Headers)...)
	if s.RemoveAuthorization && !c.public() && !sets(ok.Headers, "authorization") {
		ok.HeadersToRemove = append(ok.HeadersToRemove, "authorization")
	}
	slices.Sort(ok.HeadersToRemove)
	ok.HeadersToRemove = slices.Compact(ok.HeadersToRemove)
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: metadata(c, v),
	}
}

func (s *Service) identityHeaders(c *check) []*corev3.HeaderValueOption {
	var set []*corev3.HeaderValueOption
	for _, fact := range c.identity {
		if text := headerText(fact.value); text != "" && len(text) <= s.Identity.MaxBytes {
			set = append(set, header(fact.header, text))
		}
	}
	return set
}

// unsetHeaders returns every identity header that is not set: the ones that have no value, and the ones that the
// request brought in whatever spelling. A name that is set must not be among them, since Envoy removes last.
func (s *Service) unsetHeaders(c *check, set []*corev3.HeaderValueOption) []string {
	names := append(s.scrub.forged(c.request.headers), s.scrub.names...)
	return slices.DeleteFunc(names, func(name string) bool { return sets(set, strings.ToLower(name)) })
}

// sets reports whether a header, named in lower case, is among those that are set.
func sets(headers []*corev3.HeaderValueOption, name string) bool {
	return slices.ContainsFunc(headers, func(h *corev3.HeaderValueOption) bool { return h.Header.Key == name })
}

// header sets a header in place of any that the request has.
func header(name, value string) *corev3.HeaderValueOption {
	return option(name, value, wrapperspb.Bool(false), corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
}

// option says twice what becomes of a header that is there already, as releases of Envoy differ in which they heed.
func option(name, value string, add *wrapperspb.BoolValue, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		Append:       add, //nolint:staticcheck // deprecated, and what Envoy 1.40 goes by
		AppendAction: action,
	}
}

// headerOptions writes a policy's headers. Several values of a name become one, separated by commas, which means the
// same (RFC 9110 section 5.3) and leaves nothing to the order in which Envoy sets and appends. Cookies cannot be joined:
// cookie writes each.
func headerOptions(headers []policy.Header, cookie func(i int, value string) *corev3.HeaderValueOption) []*corev3.HeaderValueOption {
	var set []*corev3.HeaderValueOption
	for _, h := range headers {
		if h.Name != "set-cookie" {
			set = append(set, header(h.Name, strings.Join(h.Values, ",")))
			continue
		}
		for i, value := range h.Values {
			set = append(set, cookie(i, value))
		}
	}
	return set
}

// addedCookie leaves the upstream's own cookies in an allowed response.
func addedCookie(_ int, value string) *corev3.HeaderValueOption {
	return option("set-cookie", value, wrapperspb.Bool(true), corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
}

// ownCookie is for a denied response, where Envoy 1.40 loses a second value for which append is set.
func ownCookie(i int, value string) *corev3.HeaderValueOption {
	if i == 0 {
		return header("set-cookie", value)
	}
	return option("set-cookie", value, nil, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
}

// denied builds every answer that does not let the request through: a denied_response, and never a gRPC error.
func (s *Service) denied(c *check, v verdict) *authv3.CheckResponse {
	body := &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(v.status)},
	}
	set := func(name, value string) { body.Headers = append(body.Headers, header(name, value)) }
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
		body.Body = fmt.Sprintf("%s (decision %s)", v.reason, c.id)
	case v.decision.Body != nil:
		set("content-type", "text/plain; charset=utf-8")
		body.Body = *v.decision.Body
	default:
		set("content-type", "application/problem+json")
		body.Body = s.problem(c, v)
	}
	body.Headers = override(body.Headers, headerOptions(v.decision.ResponseHeaders, ownCookie))
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(v.code), Message: string(v.reason)},
		HttpResponse:    &authv3.CheckResponse_DeniedResponse{DeniedResponse: body},
		DynamicMetadata: metadata(c, v),
	}
}

// override lets a policy's own headers take the place of ours, but for the gRPC status, which must fit the answer.
func override(ours, theirs []*corev3.HeaderValueOption) []*corev3.HeaderValueOption {
	theirs = slices.DeleteFunc(theirs, func(h *corev3.HeaderValueOption) bool {
		return strings.HasPrefix(h.Header.Key, "grpc-")
	})
	ours = slices.DeleteFunc(ours, func(h *corev3.HeaderValueOption) bool { return sets(theirs, h.Header.Key) })
	return append(ours, theirs...)
}

// challenge returns the WWW-Authenticate header of RFC 6750 section 3; empty if the answer has none. A 401 always has one
// (RFC 9110 section 15.5.2), a policy's own too.
func (s *Service) challenge(v verdict) string {
	if v.kind.challenge == "" && v.status != http.StatusUnauthorized {
		return ""
	}
	parts := []string{fmt.Sprintf(`Bearer realm="%s"`, s.Realm)}
	if v.kind.challenge != "" {
		parts = append(parts, fmt.Sprintf(`error="%s"`, v.kind.challenge))
		if tell := rowOf(v.reason).tell; v.kind == isRefused {
			parts = append(parts, fmt.Sprintf(`error_description="%s"`, tell))
		}
	}
	if v.scope != "" {
		parts = append(parts, fmt.Sprintf(`scope="%s"`, v.scope))
	}
	return strings.Join(parts, ", ")
}

// problem is the body of RFC 9457. Without a type, title is the status's own.
func (s *Service) problem(c *check, v verdict) string {
	text, err := json.Marshal(struct {
		Title      string `json:"title"`
		Status     int    `json:"status"`
		Detail     string `json:"detail"`
		Reason     string `json:"reason"`
		DecisionID string `json:"decision_id"`
	}{http.StatusText(v.status), v.status, rowOf(v.reason).tell, string(v.reason), c.id})
	if err != nil {
		return `{"title":"Forbidden"}` // strings and a number always marshal
	}
	return string(text)
}

// metadata is what Envoy's access log, rate limits and other filters can read of the decision, in the namespace
// envoy.filters.http.ext_authz.
func metadata(c *check, v verdict) *structpb.Struct {
	fields := make(map[string]any, len(v.decision.Metadata)+len(c.identity)+4)
	for name, value := range v.decision.Metadata {
		fields[name] = value
	}
	for _, fact := range c.identity {
		switch value := fact.value.(type) {
		case string:
			fields[fact.field] = strings.ToValidUTF8(value, "\uFFFD")
		case []string:
			list := make([]any, len(value))
			for i, item := range value {
				list[i] = strings.ToValidUTF8(item, "\uFFFD")
			}
			fields[fact.field] = list
		}
	}
	fields["outcome"], fields["reason"], fields["decision_id"] = string(v.outcome), string(v.reason), c.id
	fields["route"] = c.routeName()
	st, err := structpb.NewStruct(fields)
	if err != nil {
		// Only a policy's own metadata can fail here; the rest must reach the access log all the same.
		v.decision.Metadata = nil
		return metadata(c, v)
	}
	return st
}

func (c *check) routeName() string {
	if c.match == nil {
		return ""
	}
	return c.match.Rule.Name
}
