// Package telemetry sets up OpenTelemetry: metrics that Prometheus can scrape, and traces and metrics sent by OTLP if
// the standard OTEL_* variables ask for it.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const scope = "github.com/cognito-extauthz/extauthz"

// maxSeries bounds the series of one metric, beyond which OpenTelemetry folds all others into one. Its own default, 2000,
// is less than a large route table has of extauthz_checks_total.
const maxSeries = 100_000

// A Config says what the program is and which requests are traced.
type Config struct {
	Version string
	// TraceRate is how many requests a second are traced because their own trace context says so. Callers set it,
	// so it is bounded.
	TraceRate float64
	// TraceRatio is the share of the requests without a trace context that are traced, 0 to 1.
	TraceRatio float64
	// Getenv reads the OTEL_* variables that say where to. Default [os.Getenv]. The exporters themselves always
	// read the process's environment.
	Getenv func(string) string
}

// Telemetry holds what the program records with. Close ends it.
type Telemetry struct {
	Meter  metric.Meter
	Tracer trace.Tracer
	// Metrics serves the metrics in the formats of Prometheus and OpenMetrics.
	Metrics http.Handler
	sampler *sampler // nil: traces are not sent
	close   []func(context.Context) error
}

// Sample decides whether to start a span for a request, by the traceparent that it has or an empty string. It is asked once
// for each request: Tracer itself records all that it is told to start. It is safe for concurrent use.
func (t *Telemetry) Sample(traceparent string) bool {
	return t.sampler != nil && t.sampler.sample(traceparent)
}

// New sets telemetry up. It connects to nothing: exporters do so when they have something to send, and drop what
// they cannot send in time.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	res, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName("extauthz"), semconv.ServiceVersion(cfg.Version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("telemetry: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	t := &Telemetry{Tracer: noop.NewTracerProvider().Tracer(scope)}
	if err := t.metrics(ctx, cfg, res); err != nil {
		return nil, fmt.Errorf("telemetry: metrics: %w", err)
	}
	if err := t.traces(ctx, cfg, res); err != nil {
		return nil, fmt.Errorf("telemetry: traces: %w", err)
	}
	return t, nil
}

func (t *Telemetry) metrics(ctx context.Context, cfg Config, res *resource.Resource) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scrape, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return err
	}
	options := []sdkmetric.Option{sdkmetric.WithReader(scrape), sdkmetric.WithResource(res), sdkmetric.WithCardinalityLimit(maxSeries)}
	if cfg.asked("METRICS") {
		push, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return err
		}
		options = append(options, sdkmetric.WithReader(push))
	}
	provider := sdkmetric.NewMeterProvider(options...)
	t.Meter = provider.Meter(scope)
	t.Metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry, EnableOpenMetrics: true})
	t.close = append(t.close, provider.Shutdown)
	return nil
}

func (t *Telemetry) traces(ctx context.Context, cfg Config, res *resource.Resource) error {
	if !cfg.asked("TRACES") {
		return nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return err
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
	)
	t.Tracer, t.sampler = provider.Tracer(scope), newSampler(cfg.TraceRate, cfg.TraceRatio)
	t.close = append(t.close, provider.Shutdown)
	return nil
}

// asked reports whether the environment names somewhere to send a signal. By the specification, OTLP to localhost
// would be the default; a service that nobody told to send anything should not try.
//
// Source: OpenTelemetry, "Environment Variable Specification" and "OTLP Exporter Configuration".
func (c Config) asked(signal string) bool {
	if c.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	switch c.Getenv("OTEL_" + signal + "_EXPORTER") {
	case "none", "prometheus": // Prometheus is served anyway, on our own listener
		return false
	case "":
		return c.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || c.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	}
	return true
}

// Close sends what is left and ends the exporters. ctx bounds it.
func (t *Telemetry) Close(ctx context.Context) error {
	var errs []error
	for _, c := range t.close {
		errs = append(errs, c(ctx))
	}
	return errors.Join(errs...)
}
