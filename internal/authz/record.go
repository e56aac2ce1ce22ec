package authz

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A recorder writes down what a check came to. It runs when the verdict is fixed and cannot change it.
type recorder struct {
	Config
	checks   metric.Int64Counter
	duration metric.Float64Histogram
	skew     metric.Float64Histogram
	replay   *decisionlog.Replay
}

func newRecorder(cfg Config) (*recorder, error) {
	r := &recorder{Config: cfg, replay: cfg.Log.replay()}
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
