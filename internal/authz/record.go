package authz

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"net/url"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A DecisionLog says which decisions get a log line. Refused, denied and failed ones always do.
type DecisionLog struct {
	// AllowedRatio is the share of allowed requests that get one: 0 none, 1 all.
	AllowedRatio float64
	// Headers, Query and Claims are what a line tells besides its own fields: names of request headers (in lower
	// case), query parameters and claims, whose values are otherwise never logged.
	Headers, Query, Claims []string
}

// A recorder writes down what a check came to. It runs when the verdict is fixed and cannot change it.
type recorder struct {
	Config
	checks   metric.Int64Counter
	duration metric.Float64Histogram
	skew     metric.Float64Histogram
}

func newRecorder(cfg Config) (*recorder, error) {
	r := &recorder{Config: cfg}
	var err error
	if r.checks, err = cfg.Meter.Int64Counter("extauthz.checks",
		metric.WithDescription("Checks, by what came of them and why.")); err != nil {
		return nil, err
	}
	if r.duration, err = cfg.Meter.Float64Histogram("extauthz.check.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a CheckRequest to its answer."),
		metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1)); err != nil {
		return nil, err
	}
	r.skew, err = cfg.Meter.Float64Histogram("extauthz.token.skew", metric.WithUnit("s"),
		metric.WithDescription("How far ahead of our clock the times of tokens were that were refused as not yet valid."),
		metric.WithExplicitBucketBoundaries(1, 5, 10, 30, 60, 120, 300, 600, 3600))
	return r, err
}

// span starts the span of a check as a child of the request's own (W3C Trace Context, in the request's headers).
func (r *recorder) span(ctx context.Context, req *authv3.CheckRequest) (context.Context, trace.Span) {
	headers := req.GetAttributes().GetRequest().GetHttp().GetHeaders()
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(headers))
	return r.Tracer.Start(ctx, "check", trace.WithSpanKind(trace.SpanKindServer))
}

// record runs after the answer is made: a panic here, of an exporter or a log handler, loses the record and nothing else.
// It is not logged, since what panicked may be the log.
func (r *recorder) record(c *check, v verdict) {
	took := time.Since(c.start)
	defer func() { _ = recover() }()
	defer c.span.End()
	labels := metric.WithAttributes(
		attribute.String("outcome", string(v.outcome)),
		attribute.String("reason", string(v.reason)),
		attribute.String("route", c.knownRoute()),
		attribute.String("pool", c.pool()),
	)
	r.checks.Add(c.ctx, 1, labels)
	r.duration.Record(c.ctx, took.Seconds(), metric.WithAttributes(attribute.String("outcome", string(v.outcome))))
	if v.ahead > 0 {
		r.skew.Record(c.ctx, v.ahead.Seconds())
	}
	r.trace(c, v)
	r.log(c, v, took)
}

func (r *recorder) trace(c *check, v verdict) {
	if !c.span.IsRecording() {
		return
	}
	c.span.SetAttributes(
		attribute.String("extauthz.outcome", string(v.outcome)),
		attribute.String("extauthz.reason", string(v.reason)),
		attribute.String("extauthz.decision_id", c.id),
		attribute.String("extauthz.route", c.routeName()),
		attribute.String("extauthz.pool", c.pool()),
	)
	if v.outcome == Failed {
		c.span.SetStatus(otelcodes.Error, string(v.reason))
	}
}

// log writes the decision line. It holds no token, no query and no header value, but for those that the
// configuration asks for by name.
func (r *recorder) log(c *check, v verdict, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case v.outcome == Failed:
		level = slog.LevelError
	case v.outcome == Allowed && (r.Log.AllowedRatio <= 0 || mathrand.Float64() >= r.Log.AllowedRatio): //nolint:gosec // sampling
		return
	}
	if !r.Logger.Enabled(c.ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("outcome", string(v.outcome)),
		slog.String("reason", string(v.reason)),
		slog.String("decision_id", c.id),
		slog.String("method", short(c.request.method)),
		slog.String("host", c.request.host),
		slog.String("path", c.request.path.Canonical),
		slog.String("route", c.routeName()),
		slog.String("policy_revision", r.Authorizer.Revision()),
		slog.Float64("took_ms", float64(took.Microseconds())/1000),
	}
	attrs = appendText(attrs, "detail", v.detail)
	attrs = appendText(attrs, "request_id", requestID(c.request.headers["x-request-id"]))
	if sc := c.span.SpanContext(); sc.HasTraceID() {
		attrs = append(attrs, slog.String("trace_id", sc.TraceID().String()))
	}
	if c.claims != nil {
		attrs = append(attrs, slog.String("pool", c.claims.Pool), slog.String("client_id", c.claims.ClientID))
		attrs = appendText(attrs, "client", c.client)
		attrs = appendText(attrs, "jti", c.claims.TokenID)
		attrs = append(attrs, slog.Any("scopes", c.claims.Scopes))
	}
	r.Logger.LogAttrs(c.ctx, level, "check", append(attrs, r.included(c)...)...)
}

func (r *recorder) included(c *check) []slog.Attr {
	var attrs []slog.Attr
	for _, name := range r.Log.Headers {
		attrs = appendText(attrs, "headers."+name, c.request.headers[name])
	}
	if len(r.Log.Query) > 0 {
		_, query, _ := strings.Cut(c.request.attributes.GetRequest().GetHttp().GetPath(), "?")
		values, _ := url.ParseQuery(query) // what can be read of it
		for _, name := range r.Log.Query {
			attrs = appendText(attrs, "query."+name, values.Get(name))
		}
	}
	for _, name := range r.Log.Claims {
		if c.claims != nil {
			attrs = appendText(attrs, "claims."+name, headerText(claimValue(c.claims.Map()[name])))
		}
	}
	return attrs
}

func appendText(attrs []slog.Attr, name, value string) []slog.Attr {
	if value == "" {
		return attrs
	}
	return append(attrs, slog.String(name, value))
}

// knownRoute is a label: only a caller whom we know, or anybody on a public route, picks one. With as many series as
// routes and reasons, a caller without a token could fill what a metrics store, or OpenTelemetry's limit, can take.
func (c *check) knownRoute() string {
	if c.claims == nil && !c.public() {
		return ""
	}
	return c.routeName()
}

// pool is a label: only a verified token names one.
func (c *check) pool() string {
	if c.claims == nil {
		return ""
	}
	return c.claims.Pool
}

// short keeps a caller's made-up method from filling the log.
func short(method string) string {
	const most = 32
	if len(method) > most {
		return method[:most] + "…"
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

// newDecisionID returns 128 random bits in hex.
func newDecisionID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, as its documentation says
	return hex.EncodeToString(b[:])
}

// skewOf returns how far ahead of our clock a token was that is not yet valid.
func skewOf(err error) time.Duration {
	var skew *validator.SkewError
	if errors.As(err, &skew) {
		return skew.Ahead
	}
	return 0
}
