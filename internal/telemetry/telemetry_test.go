package telemetry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAsked(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		want bool
	}{
		{"nothing said", nil, false},
		{"an endpoint for all", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, true},
		{"an endpoint for traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318"}, true},
		{"an endpoint for metrics", map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318"}, false},
		{"an exporter", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true},
		{"no exporter, said aloud", map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, false},
		{"switched off", map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, false},
	}
	for _, test := range tests {
		cfg := Config{Getenv: func(name string) string { return test.env[name] }}
		if got := cfg.asked("TRACES"); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestWithoutExporters(t *testing.T) {
	tel, err := New(t.Context(), Config{Version: "1.2.3", Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	counter, err := tel.Meter.Int64Counter("extauthz.checks")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 3, metric.WithAttributes(attribute.String("outcome", "allowed")))
	w := httptest.NewRecorder()
	tel.Metrics.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, want := range []string{`extauthz_checks_total{outcome="allowed"} 3`, `service_version="1.2.3"`, "go_goroutines", "process_cpu_seconds_total"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics does not have %s:\n%s", want, w.Body)
		}
	}
	if _, span := tel.Tracer.Start(t.Context(), "x"); span.IsRecording() {
		t.Error("a span is recorded, and there is nowhere to send it")
	}
	if err := tel.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A collector that does not answer costs nothing but the spans.
func TestUnreachableCollector(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusBadRequest) // not retried
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	tel, err := New(t.Context(), Config{TraceRatio: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer.Start(t.Context(), "check")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_ = tel.Close(ctx)
	if requests.Load() == 0 {
		t.Error("nothing was sent to the collector")
	}
}

func TestBadEnvironment(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "nonsense")
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("an unknown exporter is no error")
	}
}

// The flag in a request's trace context is the caller's: it is followed, but only so often.
func TestSamplerIsLimited(t *testing.T) {
	parent := func(flags trace.TraceFlags) context.Context {
		return trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true,
		}))
	}
	count := func(s sdktrace.Sampler, ctx context.Context) (n int) {
		for range 100 {
			if s.ShouldSample(sdktrace.SamplingParameters{ParentContext: ctx, TraceID: trace.TraceID{1}}).Decision == sdktrace.RecordAndSample {
				n++
			}
		}
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSampler(10, 0)
		if n := count(s, parent(trace.FlagsSampled)); n != 10 {
			t.Errorf("%d of 100 were sampled at once, want 10", n)
		}
		time.Sleep(time.Second)
		if n := count(s, parent(trace.FlagsSampled)); n != 10 {
			t.Errorf("%d of 100 were sampled in the next second, want 10", n)
		}
		if n := count(s, parent(0)) + count(s, context.Background()); n != 0 {
			t.Errorf("%d were sampled that nobody asked for", n)
		}
		if n := count(newSampler(0, 0), parent(trace.FlagsSampled)); n != 0 {
			t.Errorf("%d were sampled at rate zero", n)
		}
		if n := count(newSampler(0, 1), context.Background()); n != 100 {
			t.Errorf("%d of 100 were sampled at ratio one", n)
		}
	})
}
