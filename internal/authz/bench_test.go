package authz

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/internal/telemetry"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A shipped service has the parts that the program has, set as by default, and a user pool to get tokens from.
type shipped struct {
	*Service
	pool *cognitotest.Pool
}

const (
	benchClient = "1ordersbatch0demo0client00"
	otherClient = "2reports0demo0client000000"
)

// newShipped returns one with changes.
func newShipped(b testing.TB, changes ...func(*Config)) shipped {
	b.Helper()
	server, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Close)
	pool := server.Pools()[0]

	keys, _, err := validator.ParseJWKS(pool.JWKS())
	if err != nil {
		b.Fatal(err)
	}
	v, err := validator.New(validator.Config{Name: "main", Issuers: []string{pool.Issuer()}, ClientIDs: []string{benchClient}, Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	cached, err := validator.NewCached(v, validator.CacheConfig{})
	if err != nil {
		b.Fatal(err)
	}
	identity := Identity{Prefix: "x-auth-", MaxBytes: 4096}
	engine, err := policy.New(b.Context(), policy.Config{CacheBytes: 16 << 20, ReservedHeaders: identity.IdentityHeaders()})
	if err != nil {
		b.Fatal(err)
	}
	table, err := route.NewTable([]route.Rule{
		{Path: "/orders/{id}", Methods: []string{"GET"}, ScopesAny: []string{"orders/read"}},
		{Path: "/orders", Methods: []string{"POST"}, ScopesAll: []string{"orders/admin"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	tel, err := telemetry.New(b.Context(), telemetry.Config{Getenv: func(string) string { return "" }})
	if err != nil {
		b.Fatal(err)
	}
	lines := asynclog.New(io.Discard, decisionlog.Limits)
	b.Cleanup(func() { _ = lines.Queue.Close(b.Context()) })
	cfg := Config{
		Authenticator: cached, Authorizer: engine, Routes: table,
		ClientName: func(_, id string) string { return map[string]string{benchClient: "orders-batch"}[id] },
		Identity:   identity, Realm: "extauthz", RemoveAuthorization: true,
		Limits:  Limits{PathBytes: 8192, HeaderBytes: 64 << 10, BodyBytes: 64 << 10, TokenBytes: 16 << 10, ConcurrentChecks: 1000},
		Log:     DecisionLog{To: decisionlog.New(lines.Queue, decisionlog.Config{Rules: engine}), Ratios: map[Outcome]float64{Allowed: 0}},
		Metrics: metricsOf(b, tel.Meter), Tracer: tel.Tracer, Sample: tel.Sample,
	}
	for _, change := range changes {
		change(&cfg)
	}
	return shipped{New(cfg), pool}
}

// captured is a request that a real Envoy sent, with a token.
func captured(b testing.TB, name, token string) []byte {
	b.Helper()
	text, err := os.ReadFile("../bench/testdata/" + name + ".json")
	if err != nil {
		b.Fatal(err)
	}
	req := new(authv3.CheckRequest)
	if err := protojson.Unmarshal(text, req); err != nil {
		b.Fatal(err)
	}
	headers := req.GetAttributes().GetRequest().GetHttp().GetHeaders()
	headers["authorization"] = "Bearer " + token
	if token == "" {
		delete(headers, "authorization")
	}
	msg, err := proto.Marshal(req)
	if err != nil {
		b.Fatal(err)
	}
	return msg
}

// BenchmarkCheckMessage is a check without gRPC, with all that the program has on by default: caches, the built-in policy,
// metrics, the log of what is not allowed.
func BenchmarkCheckMessage(b *testing.B) {
	s := newShipped(b)
	good := s.pool.Token(benchClient, cognitotest.Scopes("orders/read"))
	for _, bench := range []struct {
		name, request, token string
		want                 string
	}{
		{"allowed", "read-order", good, "allowed"},
		{"denied", "create-order", good, "insufficient_scope"},
		{"no token", "read-order", "", "missing_token"},
		{"malformed", "read-order", strings.Replace(good, ".", "-", 1), "malformed"},
		{"expired", "read-order", s.pool.Token(benchClient, cognitotest.IssuedAt(time.Now().Add(-48*time.Hour))), "expired"},
		{"other client", "read-order", s.pool.Token(otherClient), "client_not_allowed"},
		{"signature", "read-order", good[:len(good)-8] + "AAAAAAAA", "signature"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			msg := captured(b, bench.request, bench.token)
			resp := new(authv3.CheckResponse)
			if err := proto.Unmarshal(s.CheckMessage(b.Context(), nil, msg), resp); err != nil {
				b.Fatal(err)
			}
			if got := resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); got != bench.want {
				b.Fatalf("the reason is %q, want %q", got, bench.want)
			}
			measureChecks(b, s, msg)
		})
	}
}

// arrived is a check that has been taken as far as its verdict.
func (s shipped) arrived(b *testing.B, msg []byte) (*check, verdict) {
	b.Helper()
	c := newCheck(b.Context())
	v := s.decide(c, func(r *request) bool { return take(msg, r) })
	if v.outcome != Allowed {
		b.Fatalf("the outcome is %s, want allowed", v.outcome)
	}
	c.ctx = b.Context()
	return c, v
}

// BenchmarkStep is each step of an allowed check by itself. What it works on has been made by the steps before.
func BenchmarkStep(b *testing.B) {
	s := newShipped(b)
	msg := captured(b, "read-order", s.pool.Token(benchClient, cognitotest.Scopes("orders/read")))
	c, v := s.arrived(b, msg)
	logging := newShipped(b, func(cfg *Config) { cfg.Log.Ratios = nil })
	buf := make([]byte, 0, 2<<10)
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"scan", func() {
			c.request = request{}
			if !take(msg, &c.request) {
				b.Fatal("the message was not read")
			}
		}},
		{"path-and-host", func() {
			if err := s.check(&c.request); err != nil {
				b.Fatal(err)
			}
		}},
		{"route", func() { _, _ = s.route(c) }},
		{"token", func() {
			if _, ok := s.authenticate(c); !ok {
				b.Fatal("the token was refused")
			}
		}},
		{"policy", func() {
			c.asked = asked{}
			if v = s.authorize(c); v.outcome != Allowed {
				b.Fatal("the request was denied")
			}
		}},
		{"answer", func() { buf = s.respond(c, v).appendTo(buf[:0]) }},
		{"record", func() { s.recorder.record(c, v) }},
		{"log-line", func() { logging.recorder.log(c, v, time.Millisecond) }},
	} {
		b.Run(step.name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				step.run()
			}
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N)/1000, "cpu-us/op")
		})
	}
}

// BenchmarkObserved is an allowed check that is told of in different ways. The request has a trace of its caller's, which is
// sampled, but for "traces-1-percent".
func BenchmarkObserved(b *testing.B) {
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	b.Cleanup(sink.Close)
	b.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", sink.URL+"/v1/traces")
	b.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	traces := func(rate, ratio float64) func(*Config) {
		return func(cfg *Config) {
			tel, err := telemetry.New(b.Context(), telemetry.Config{TraceRate: rate, TraceRatio: ratio})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = tel.Close(context.Background()) })
			cfg.Metrics, cfg.Tracer, cfg.Sample = metricsOf(b, tel.Meter), tel.Tracer, tel.Sample
		}
	}
	logs := func(ratio float64) func(*Config) {
		return func(cfg *Config) { cfg.Log.Ratios = map[Outcome]float64{Allowed: ratio} }
	}
	for _, bench := range []struct {
		name     string
		change   func(*Config)
		untraced bool
	}{
		{"no-metrics", func(cfg *Config) { cfg.Metrics = metricsOf(b, noopmetric.Meter{}) }, false},
		{"shipped", func(*Config) {}, false},
		{"traces-none", traces(0, 0), false},
		{"traces-1-percent", traces(0, 0.01), true},
		{"log-1-percent", logs(0.01), false},
		{"log-all", logs(1), false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := newShipped(b, bench.change)
			msg := captured(b, "read-order", s.pool.Token(benchClient, cognitotest.Scopes("orders/read")))
			if bench.untraced {
				msg = dropHeader(b, msg, "traceparent")
			}
			measureChecks(b, s, msg)
		})
	}
}

// dropHeader returns a request without a header that it must have.
func dropHeader(b *testing.B, msg []byte, name string) []byte {
	b.Helper()
	req := new(authv3.CheckRequest)
	if err := proto.Unmarshal(msg, req); err != nil {
		b.Fatal(err)
	}
	headers := req.GetAttributes().GetRequest().GetHttp().GetHeaders()
	if headers[name] == "" {
		b.Fatalf("the request has no %s", name)
	}
	delete(headers, name)
	msg, err := proto.Marshal(req)
	if err != nil {
		b.Fatal(err)
	}
	return msg
}

// measureChecks measures the checks of one message.
func measureChecks(b *testing.B, s shipped, msg []byte) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour) // Envoy sends a deadline with each check
	defer cancel()
	buf := make([]byte, 0, 2<<10)
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		s.CheckMessage(ctx, buf, msg)
	}
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N)/1000, "cpu-us/op")
}

// cpuTime is that of the whole process, the garbage collector's included: on a shared machine it is steadier than elapsed
// time.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
