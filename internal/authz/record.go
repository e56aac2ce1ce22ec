package authz

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"time"

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
	measured sync.Map // labels to measured
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
func (r *recorder) span(ctx context.Context, req *request) (context.Context, trace.Span) {
	if _, ok := req.headers["traceparent"]; ok {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(req.headers))
	}
	return r.Tracer.Start(ctx, "check", trace.WithSpanKind(trace.SpanKindServer))
}

// record runs after the answer is made: a panic here, of an exporter or a log handler, loses the record and nothing else.
// It is not logged, since what panicked may be the log.
func (r *recorder) record(c *check, v verdict) {
	took := time.Since(c.start)
	defer func() { _ = recover() }()
	defer c.span.End()
	labels := r.labels(labels{v.outcome, v.reason, c.knownRoute(), c.pool()})
	r.checks.Add(c.ctx, 1, labels.check)
	r.duration.Record(c.ctx, took.Seconds(), labels.outcome)
	if v.ahead > 0 {
		r.skew.Record(c.ctx, v.ahead.Seconds())
	}
	r.trace(c, v)
	r.log(c, v, took)
}

// labels are the values of a check's metric labels. All are of closed sets.
type labels struct {
	outcome     Outcome
	reason      Reason
	route, pool string
}

// measured are the options that say them to OpenTelemetry, which takes longer to make than to use.
type measured struct{ check, outcome metric.MeasurementOption }

func (r *recorder) labels(l labels) measured {
	if m, ok := r.measured.Load(l); ok {
		return m.(measured)
	}
	outcome := attribute.String("outcome", string(l.outcome))
	m := measured{
		check: metric.WithAttributeSet(attribute.NewSet(outcome,
			attribute.String("reason", string(l.reason)), attribute.String("route", l.route), attribute.String("pool", l.pool))),
		outcome: metric.WithAttributeSet(attribute.NewSet(outcome)),
	}
	r.measured.Store(l, m)
	return m
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
