package policy

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// benchInput is a request as Envoy sends it, with 20 headers.
func benchInput() *Input {
	in := accepted()
	headers := map[string]any{}
	for _, name := range []string{
		":authority", ":method", ":path", ":scheme", "accept", "accept-encoding", "accept-language", "cache-control",
		"content-length", "content-type", "cookie", "forwarded", "traceparent", "tracestate", "user-agent", "x-envoy-internal",
		"x-forwarded-for", "x-forwarded-proto", "x-request-id", "x-tenant",
	} {
		headers[name] = "a value of some length for " + name
	}
	in.Attributes = map[string]any{
		"source":      map[string]any{"address": map[string]any{"socketAddress": map[string]any{"address": "10.0.0.7", "portValue": 41522}}},
		"destination": map[string]any{"address": map[string]any{"socketAddress": map[string]any{"address": "10.0.0.9", "portValue": 8080}}},
		"request": map[string]any{"http": map[string]any{
			"id": "7283154990273", "method": "GET", "host": "api.example.com", "path": "/orders/7?page=2", "protocol": "HTTP/1.1", "scheme": "https", "headers": headers,
		}},
	}
	in.Token.Claims = map[string]any{
		"sub": in.Token.ClientID, "client_id": in.Token.ClientID, "token_use": "access", "scope": "orders/read", "version": 2,
		"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI", "exp": 1790003600, "iat": 1790000000, "auth_time": 1790000000,
		"jti": "3c1d6a52-0000-4000-8000-000000000000",
	}
	return in
}

// reportCPU reports the CPU time of the whole process, the garbage collector's included: on a shared machine it is
// steadier than elapsed time.
func reportCPU(b *testing.B, before time.Duration) {
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N)/1000, "cpu-us/op")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDecide measures whole decisions by the built-in policy. "resident" is with Run, whose goroutines live on.
func BenchmarkDecide(b *testing.B) {
	for _, resident := range []bool{false, true} {
		name := "new goroutines"
		if resident {
			name = "resident"
		}
		b.Run(name, func(b *testing.B) {
			e := newEngine(b, nil)
			if resident {
				ctx, stop := context.WithCancel(b.Context())
				ended := make(chan error)
				go func() { ended <- e.Run(ctx) }()
				defer func() { stop(); <-ended }()
			}
			in := benchInput()
			b.ReportAllocs()
			defer reportCPU(b, cpuTime())
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if d, err := e.Decide(b.Context(), in); err != nil || !d.Allowed {
						b.Errorf("got %+v, %v", d, err)
					}
				}
			})
		})
	}
}

// BenchmarkRemembered measures decisions that are remembered: by the built-in policy, by one that reads two headers, and by
// one of OPA-Envoy's dialect.
func BenchmarkRemembered(b *testing.B) {
	const header = `object.get(input.attributes.request.http.headers, "x-tenant", "") != object.get(input.attributes.request.http.headers, "x-team", "")`
	for name, e := range map[string]*Engine{
		"built in": newEngine(b, nil, cached),
		"headers":  newEngine(b, rule("decision if { data.extauthz.base.decision.allowed; "+header+" }"), cached),
		"opa-envoy": newEngine(b, map[string]string{"p.rego": "package envoy.authz\nallow if { input.attributes.request.http.method == \"GET\"; " + header + " }"}, cached,
			func(c *Config) { c.Dialect = DialectOPAEnvoy }),
	} {
		b.Run(name, func(b *testing.B) {
			in := benchInput()
			if name == "built in" {
				in.Attributes = nil // which Input.Complete leaves out where nobody reads them
			}
			b.ReportAllocs()
			defer reportCPU(b, cpuTime())
			for b.Loop() {
				if d, err := e.Decide(b.Context(), in); err != nil || !d.Allowed {
					b.Fatalf("got %+v, %v", d, err)
				}
			}
			if s := e.CacheStatus(); s.Hits < s.Misses {
				b.Errorf("%+v, want hits", s)
			}
		})
	}
}

// BenchmarkInput measures the conversion of the input alone.
func BenchmarkInput(b *testing.B) {
	in := benchInput()
	b.ReportAllocs()
	defer reportCPU(b, cpuTime())
	for b.Loop() {
		if _, err := in.value(); err != nil {
			b.Fatal(err)
		}
	}
}
