package authz

import (
	"context"
	mathrand "math/rand/v2"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// A DecisionLog says which decisions are written down, with what, and where.
type DecisionLog struct {
	// To takes the decisions. It must not wait. Required.
	To DecisionRecorder
	// Ratios are the shares that are logged, by outcome: 0 none, 1 all. Of an outcome that is not in it, all are.
	Ratios map[Outcome]float64
	// Headers, Query and Claims are what a line tells besides its own fields: names of request headers (in lower
	// case), query parameters and claims, whose values are otherwise never logged.
	Headers, Query, Claims []string
	// ConfigRevision identifies the configuration.
	ConfigRevision string
}

// A DecisionRecorder takes decisions. A [*decisionlog.Log] is one.
type DecisionRecorder interface {
	Record(d *decisionlog.Decision)
}

// replay returns what tells which lines can be replayed.
func (l DecisionLog) replay() *decisionlog.Replay {
	var include []decisionlog.Included
	for kind, names := range map[decisionlog.Kind][]string{
		decisionlog.Headers: l.Headers, decisionlog.Query: l.Query, decisionlog.Claims: l.Claims,
	} {
		for _, name := range names {
			include = append(include, decisionlog.Included{Kind: kind, Name: name})
		}
	}
	return decisionlog.NewReplay(include)
}

// ratio returns the share of checks of an outcome that is logged.
func (l DecisionLog) ratio(o Outcome) float64 {
	if ratio, ok := l.Ratios[o]; ok {
		return ratio
	}
	return 1
}

// log hands the decision to the decision log. It holds no token, no query and no header value, but for those that the
// configuration asks for by name.
func (r *recorder) log(c *check, v verdict, took time.Duration) {
	ratio := r.Log.ratio(v.outcome)
	if ratio < 1 && mathrand.Float64() >= ratio { //nolint:gosec // sampling
		return
	}
	d := &decisionlog.Decision{
		ID: c.id, Time: c.start, Took: took,
		Outcome: string(v.outcome), Reason: string(v.reason), Status: v.status, Detail: v.detail, Failed: v.outcome == Failed,
		// Copies: a line may wait, and as parts of the message these would keep all of it, the body too.
		Method: strings.Clone(short(c.request.method)), Host: strings.Clone(c.request.host), Path: strings.Clone(c.request.path.Canonical),
		Route: c.routeName(), SourcePrincipal: strings.Clone(c.request.principal),
		Policy:         c.policyAsked(v),
		ConfigRevision: r.Log.ConfigRevision,
		Read:           c.steps.read, ToRoute: c.steps.route, Authenticate: c.steps.authenticate, Authorize: c.steps.authorize, Respond: c.steps.respond,
		RequestID:   strings.Clone(requestID(c.request.headers.value("x-request-id"))),
		SampleRatio: ratio,
		Included:    r.included(c),
		Replay:      r.replay,
		Request: decisionlog.Request{
			RawHeaders: c.request.rawHeaders,
			Unreadable: v.reason == InvalidRequest,
			LongMethod: len(c.request.method) > maxMethod,
		},
	}
	d.TraceID = c.traceID()
	if t := c.claims; t != nil {
		d.Pool, d.Client, d.ClientID, d.TokenID, d.Scopes = t.Pool, c.client, t.ClientID, t.TokenID, t.Scopes
	}
	r.Log.To.Record(d)
}

// traceID is that of the check's span; without one, of the request's own. It is empty without either.
func (c *check) traceID() string {
	if c.span != nil {
		return traceIDOf(c.span.SpanContext())
	}
	parent, ok := c.request.headers.get("traceparent")
	if !ok {
		return ""
	}
	// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01, of which nearly all are
	if p := parent; len(p) == 55 && p[:3] == "00-" && p[35] == '-' && p[52] == '-' && (p[53:] == "00" || p[53:] == "01") {
		_, err := trace.TraceIDFromHex(p[3:35])
		_, err2 := trace.SpanIDFromHex(p[36:52])
		if err != nil || err2 != nil {
			return ""
		}
		return strings.Clone(p[3:35])
	}
	return traceIDOf(trace.SpanContextFromContext(c.request.traceContext(context.Background())))
}

func traceIDOf(sc trace.SpanContext) string {
	if !sc.HasTraceID() {
		return ""
	}
	return sc.TraceID().String()
}

// policyAsked returns the policy that was asked. An Authorizer that does not say which has said its revision.
func (c *check) policyAsked(v verdict) policy.Policy {
	p := c.policy
	if p.Revision == "" {
		p.Revision = v.decision.Revision
	}
	return p
}

func (r *recorder) included(c *check) []decisionlog.Included {
	var list []decisionlog.Included
	add := func(kind decisionlog.Kind, name string, value any) {
		list = append(list, decisionlog.Included{Kind: kind, Name: name, Value: value})
	}
	for _, name := range r.Log.Headers {
		if value, ok := c.request.headers.get(name); ok {
			add(decisionlog.Headers, name, strings.Clone(value))
		}
	}
	if len(r.Log.Query) > 0 {
		_, query, _ := strings.Cut(c.request.rawPath, "?")
		values, _ := url.ParseQuery(strings.Clone(query)) // what can be read of it
		for _, name := range r.Log.Query {
			if list := values[name]; len(list) > 0 {
				add(decisionlog.Query, name, parameter(list))
			}
		}
	}
	for _, name := range r.Log.Claims {
		if c.claims == nil {
			break
		}
		if value, ok := c.claims.Map()[name]; ok {
			add(decisionlog.Claims, name, value)
		}
	}
	return list
}

// parameter is a query parameter as a line has it: mostly there is one.
func parameter(values []string) any {
	if len(values) == 1 {
		return values[0]
	}
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v
	}
	return list
}

// maxMethod bounds a method in a line. A caller may make one up, of any length.
const maxMethod = 32

func short(method string) string {
	if len(method) > maxMethod {
		return method[:maxMethod] + "…"
	}
	return method
}

// requestID returns an x-request-id that looks like one, and nothing else a caller may have put there.
func requestID(id string) string {
	if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z') && r != '.' && r != '_' && r != '-'
	}) {
		return ""
	}
	return id
}
