package telemetry

import (
	"fmt"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/time/rate"
)

// newSampler follows the trace context of a request, but no oftener than perSecond: the flag is the caller's, and
// must not let a caller make us work. Requests without one are sampled by ratio.
func newSampler(perSecond, ratio float64) sdktrace.Sampler {
	limited := &limiter{rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))}
	if perSecond <= 0 {
		limited.SetBurst(0)
	}
	return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio), sdktrace.WithRemoteParentSampled(limited))
}

type limiter struct{ *rate.Limiter }

// ShouldSample implements [sdktrace.Sampler].
func (l *limiter) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if l.Allow() {
		return sdktrace.AlwaysSample().ShouldSample(p)
	}
	return sdktrace.NeverSample().ShouldSample(p)
}

// Description implements [sdktrace.Sampler].
func (l *limiter) Description() string {
	return fmt.Sprintf("RateLimited{%g}", float64(l.Limit()))
}
