package authz

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// Metrics count checks and time them. Services that follow each other share them, so that counters go on. They are safe for
// concurrent use.
type Metrics struct {
	duration metric.Float64Histogram
	skew     metric.Float64Histogram
	mu       sync.Mutex
	routes   map[string]*ofRoute // by name; that of no route is empty
}

// NewMetrics returns metrics of meter. There should be one for each meter.
func NewMetrics(meter metric.Meter) (*Metrics, error) {
	m := &Metrics{routes: make(map[string]*ofRoute)}
	// What is counted is read when somebody asks for it: adding to a counter of OpenTelemetry's takes longer than finding the
	// policy's decision.
	_, err := meter.Int64ObservableCounter("extauthz.checks",
		metric.WithDescription("Checks, by what came of them and why."), metric.WithInt64Callback(m.observe))
	if err != nil {
		return nil, fmt.Errorf("authz: %w", err)
	}
	if m.duration, err = meter.Float64Histogram("extauthz.check.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a CheckRequest to its answer."),
		metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1)); err != nil {
		return nil, fmt.Errorf("authz: %w", err)
	}
	if m.skew, err = meter.Float64Histogram("extauthz.token.skew", metric.WithUnit("s"),
		metric.WithDescription("How far ahead of our clock the times of tokens were that were refused as not yet valid."),
		metric.WithExplicitBucketBoundaries(1, 5, 10, 30, 60, 120, 300, 600, 3600)); err != nil {
		return nil, fmt.Errorf("authz: %w", err)
	}
	return m, nil
}

// of returns what counts the checks of a route.
func (m *Metrics) of(route string) *ofRoute {
	m.mu.Lock()
	defer m.mu.Unlock()
	of, ok := m.routes[route]
	if !ok {
		of = &ofRoute{name: route}
		of.measured.Store(&map[labels]*measured{})
		m.routes[route] = of
	}
	return of
}

// observe tells OpenTelemetry how many checks there were.
func (m *Metrics) observe(_ context.Context, o metric.Int64Observer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, of := range m.routes {
		for _, n := range *of.measured.Load() {
			o.Observe(n.checks.Load(), n.all)
		}
	}
	return nil
}

// A recorder writes down what a check came to. It runs when the verdict is fixed and cannot change it.
type recorder struct {
	Config
	replay *decisionlog.Replay
	routes sync.Map // *route.Rule to *ofRoute
}

func newRecorder(cfg Config) *recorder { return &recorder{Config: cfg, replay: cfg.Log.replay()} }

// span starts the span of a check as a child of the request's own, if the request is to be traced.
func (r *recorder) span(ctx context.Context, req *request) (context.Context, trace.Span) {
	if parent, _ := req.headers.get("traceparent"); !r.Sample(parent) {
		return ctx, nil
	}
	return r.Tracer.Start(req.traceContext(ctx), "check", serverSpan...)
}

var serverSpan = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// traceContext returns ctx with the request's span (W3C Trace Context, in the request's headers).
func (r *request) traceContext(ctx context.Context) context.Context {
	if _, ok := r.headers.get("traceparent"); !ok {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, (*carrier)(r))
}

// A carrier shows a request's headers to OpenTelemetry.
type carrier request

// Get implements [propagation.TextMapCarrier].
func (c *carrier) Get(name string) string { return c.headers.value(name) }

// Set implements [propagation.TextMapCarrier]. Nothing is sent on.
func (*carrier) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier].
func (c *carrier) Keys() []string {
	names := make([]string, len(c.headers))
	for i, h := range c.headers {
		names[i] = h.name
	}
	return names
}

// record runs after the answer is made: a panic here, of an exporter or a log handler, loses the record and nothing else.
// It is not logged, since what panicked may be the log.
func (r *recorder) record(c *check, v verdict) {
	took := time.Since(c.start)
	defer func() { _ = recover() }()
	if c.span != nil {
		defer c.span.End()
	}
	m := r.measure(c.knownRoute(), labels{v.outcome, v.reason, c.pool()})
	m.checks.Add(1)
	r.Metrics.duration.Record(c.ctx, took.Seconds(), m.outcome...)
	if v.ahead > 0 {
		r.Metrics.skew.Record(c.ctx, v.ahead.Seconds())
	}
	r.trace(c, v)
	r.log(c, v, took)
}

// labels are the values of a check's metric labels, but for the route. All are of closed sets.
type labels struct {
	outcome Outcome
	reason  Reason
	pool    string
}

// ofRoute is what is counted of one route. Its map is replaced by a larger one, and never changed: a route has few.
type ofRoute struct {
	name     string
	measured atomic.Pointer[map[labels]*measured]
	adding   sync.Mutex
}

// measured is the number of checks with the same labels, and the options that say those to OpenTelemetry, which take longer
// to make than to use.
type measured struct {
	checks  atomic.Int64
	all     metric.ObserveOption
	outcome []metric.RecordOption
}

// measure returns what counts the checks with these labels. A nil rule is no route.
func (r *recorder) measure(rule *route.Rule, l labels) *measured {
	known, ok := r.routes.Load(rule)
	if !ok {
		name := ""
		if rule != nil {
			name = rule.Name
		}
		known, _ = r.routes.LoadOrStore(rule, r.Metrics.of(name))
	}
	of, _ := known.(*ofRoute)
	if m, ok := (*of.measured.Load())[l]; ok {
		return m
	}
	return of.add(l)
}

func (of *ofRoute) add(l labels) *measured {
	of.adding.Lock()
	defer of.adding.Unlock()
	if m, ok := (*of.measured.Load())[l]; ok {
		return m
	}
	outcome := attribute.String("outcome", string(l.outcome))
	m := &measured{
		all: metric.WithAttributeSet(attribute.NewSet(outcome,
			attribute.String("reason", string(l.reason)), attribute.String("route", of.name), attribute.String("pool", l.pool))),
		outcome: []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(outcome))},
	}
	more := maps.Clone(*of.measured.Load())
	more[l] = m
	of.measured.Store(&more)
	return m
}

func (r *recorder) trace(c *check, v verdict) {
	if c.span == nil || !c.span.IsRecording() {
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

// knownRoute is the rule whose name is a label: only a caller whom we know, or anybody on a public route, picks one. With as
// many series as routes and reasons, a caller without a token could fill what a metrics store, or OpenTelemetry's limit, can
// take.
func (c *check) knownRoute() *route.Rule {
	if c.match == nil || c.claims == nil && !c.public() {
		return nil
	}
	return c.match.Rule
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
	var id [32]byte
	random := id[16:]
	_, _ = rand.Read(random) // never fails, as its documentation says
	hex.Encode(id[:], random)
	return string(id[:])
}

// skewOf returns how far ahead of our clock a token was that is not yet valid.
func skewOf(err error) time.Duration {
	var skew *validator.SkewError
	if errors.As(err, &skew) {
		return skew.Ahead
	}
	return 0
}
