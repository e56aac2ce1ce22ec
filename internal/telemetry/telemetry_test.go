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
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	count := func(s *sampler, traceparent string) (n int) {
		for range 100 {
			if s.sample(traceparent) {
				n++
			}
		}
		return n
	}
	synctest.Test(t, func(t *testing.T) {
		for _, sampled := range []string{parent + "1", parent + "3", parent + "f", "01" + parent[2:] + "1-more"} {
			s := newSampler(10, 0)
			if n := count(s, sampled); n != 10 {
				t.Errorf("%s: %d of 100 were sampled at once, want 10", sampled, n)
			}
			time.Sleep(time.Second)
			if n := count(s, sampled); n != 10 {
				t.Errorf("%s: %d of 100 were sampled in the next second, want 10", sampled, n)
			}
			if n := count(newSampler(0, 1), sampled); n != 0 {
				t.Errorf("%s: %d were sampled at rate zero", sampled, n)
			}
		}
		for _, unsampled := range []string{parent + "0", parent + "2", "01" + parent[2:] + "e-more"} {
			if n := count(newSampler(1000, 1), unsampled); n != 0 {
				t.Errorf("%s: %d of 100 were sampled, want none", unsampled, n)
			}
		}
		for _, none := range []string{"", parent, parent + "x", parent + "1x", "nonsense"} {
			if n := count(newSampler(1000, 0), none); n != 0 {
				t.Errorf("%q: %d were sampled at ratio zero", none, n)
			}
			if n := count(newSampler(0, 1), none); n != 100 {
				t.Errorf("%q: %d of 100 were sampled at ratio one", none, n)
			}
		}
		half := 0
		for range 100 {
			half += count(newSampler(0, 0.5), "")
		}
		if half < 4500 || half > 5500 { // ten standard deviations
			t.Errorf("%d of 10,000 were sampled at ratio 0.5", half)
		}
	})
}

// What is sampled is recorded, whatever its own trace says; without somewhere to send it, nothing is sampled.
func TestSampledIsRecorded(t *testing.T) {
	none, err := New(t.Context(), Config{TraceRatio: 1, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	if none.Sample("") {
		t.Error("a request is sampled, and there is nowhere to send its span")
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	tel, err := New(t.Context(), Config{TraceRatio: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !tel.Sample("") {
		t.Error("a request is not sampled at ratio one")
	}
	if _, span := tel.Tracer.Start(t.Context(), "check"); !span.IsRecording() {
		t.Error("a span is not recorded")
	}
	if err := tel.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
