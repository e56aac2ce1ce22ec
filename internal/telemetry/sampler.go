package telemetry

import (
	"math/rand/v2"
	"strings"

	"golang.org/x/time/rate"
)

// A sampler decides which requests are traced, before anything is made of a trace: a span that OpenTelemetry makes and does not
// sample costs a tenth of a warm check.
type sampler struct {
	asked *rate.Limiter // of traces that callers ask for
	ratio float64       // of the others
}

func newSampler(perSecond, ratio float64) *sampler {
	s := &sampler{ratio: ratio}
	if perSecond > 0 {
		s.asked = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond)))
	}
	return s
}

// sample follows the flag "sampled" of a traceparent (W3C Trace Context, section 3.2.2.5), but no oftener than the limit: the flag
// is the caller's, and must not let a caller make us work. What has no such flag is sampled by ratio.
func (s *sampler) sample(traceparent string) bool {
	const flags = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0") // later versions may have more after the flags
	if len(traceparent) == flags+1 || len(traceparent) > flags+1 && traceparent[flags+1] == '-' {
		switch digit := traceparent[flags]; {
		case strings.IndexByte("02468ace", digit) >= 0:
			return false
		case strings.IndexByte("13579bdf", digit) >= 0:
			return s.asked != nil && s.asked.Allow()
		}
	}
	return s.ratio > 0 && rand.Float64() < s.ratio // #nosec G404 -- nobody gains by a guess
}
