package authz

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite the generated pages of docs")

// An answer is what a caller sees, and what Envoy is told.
type answer struct {
	Code    codes.Code
	Status  int
	Reason  Reason
	Headers map[string]string
}

func answerOf(resp *authv3.CheckResponse) answer {
	a := answer{
		Code:    codes.Code(resp.GetStatus().GetCode()),
		Reason:  Reason(resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue()),
		Headers: make(map[string]string),
	}
	denied := resp.GetDeniedResponse()
	a.Status = int(denied.GetStatus().GetCode())
	for _, h := range denied.GetHeaders() {
		a.Headers[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	return a
}

const problem = "application/problem+json"

// Each case changes one thing of a request that is allowed.
func TestAnswers(t *testing.T) {
	refused := func(code, rest string) map[string]string {
		return map[string]string{
			"cache-control": "no-store", "content-type": problem,
			"www-authenticate": fmt.Sprintf(`Bearer realm="api", error="%s"%s`, code, rest),
		}
	}
	plain := map[string]string{"cache-control": "no-store", "content-type": problem}
	later := map[string]string{"cache-control": "no-store", "content-type": problem, "retry-after": "1"}
	const notAccepted = `, error_description="The access token was not accepted."`
	token := func(r validator.Reason) func(*Config) {
		return func(c *Config) {
			c.Authenticator = authenticator{"good": &validator.TokenError{Reason: r, Detail: "detail"}}
		}
	}
	engine := func(d policy.Decision, err error) func(*Config) {
		return func(c *Config) { c.Authorizer = decide(d, err) }
	}
	tests := []struct {
		name string
		edit func(*Config)
		req  *authv3.CheckRequest
		want answer
	}{
		{"nothing changed", nil, get("/orders"), answer{codes.OK, 0, OK, map[string]string{}}},
		{
			"no token", nil, get("/orders", withoutHeader("authorization")),
			answer{codes.Unauthenticated, 401, MissingToken, map[string]string{
				"cache-control": "no-store", "content-type": problem, "www-authenticate": `Bearer realm="api"`,
			}},
		},
		{"malformed header", nil, get("/orders", withHeader("authorization", "Bearer a b")), answer{codes.InvalidArgument, 400, InvalidRequest, refused("invalid_request", "")}},
		{"ambiguous path", nil, get("/a/../orders"), answer{codes.InvalidArgument, 400, InvalidPath, refused("invalid_request", "")}},
		{"encoded slash that the route does not admit", nil, get("/orders/a%2Fb"), answer{codes.InvalidArgument, 400, InvalidPath, refused("invalid_request", "")}},
		{"encoded slash that the route admits", nil, get("/files/a%2Fb"), answer{codes.OK, 0, OK, map[string]string{}}},
		{"encoded slash that the route does not admit, and no token", nil, get("/orders/a%2Fb", withoutHeader("authorization")), answer{codes.Unauthenticated, 401, MissingToken, map[string]string{
			"cache-control": "no-store", "content-type": problem, "www-authenticate": `Bearer realm="api"`,
		}}},
		{"path parameter that no route admits, and no token", nil, get("/orders/a;b", withoutHeader("authorization")), answer{codes.InvalidArgument, 400, InvalidPath, refused("invalid_request", "")}},
		{"path that some servers read as another route's", nil, get("/files/x%2F..x"), answer{codes.OK, 0, OK, map[string]string{}}},
		{"ambiguous host", nil, get("/orders", func(h *authv3.AttributeContext_HttpRequest) { h.Host = "a,b" }), answer{codes.InvalidArgument, 400, InvalidPath, refused("invalid_request", "")}},
		{"bad signature", token(validator.ErrSignature), get("/orders"), answer{codes.Unauthenticated, 401, Signature, refused("invalid_token", notAccepted)}},
		{"revoked", token(validator.ErrRevoked), get("/orders"), answer{codes.Unauthenticated, 401, Revoked, refused("invalid_token", `, error_description="The access token has been revoked."`)}},
		{"unknown key", token(validator.ErrUnknownKey), get("/orders"), answer{codes.Unauthenticated, 401, UnknownKey, refused("invalid_token", notAccepted)}},
		{"expired", token(validator.ErrExpired), get("/orders"), answer{codes.Unauthenticated, 401, Expired, refused("invalid_token", `, error_description="The access token has expired. Get a new one."`)}},
		{"client of another list", token(validator.ErrClient), get("/orders"), answer{codes.PermissionDenied, 403, ClientNotAllowed, plain}},
		{
			"pool's scopes missing",
			func(c *Config) {
				c.Authenticator = authenticator{"good": &validator.InsufficientScopeError{RequiredScopes: []string{"a/b", "a/c"}}}
			},
			get("/orders"),
			answer{codes.PermissionDenied, 403, InsufficientScope, refused("insufficient_scope", `, scope="a/b a/c"`)},
		},
		{
			"any of the pool's scopes missing",
			func(c *Config) {
				c.Authenticator = authenticator{"good": &validator.InsufficientScopeError{RequiredScopes: []string{"a/b", "a/c"}, ScopeMatch: validator.MatchAny}}
			},
			get("/orders"),
			answer{codes.PermissionDenied, 403, InsufficientScope, refused("insufficient_scope", `, scope="a/b"`)},
		},
		{
			"keys unavailable",
			func(c *Config) {
				c.Authenticator = authenticator{"good": &validator.TokenError{
					Reason: validator.ErrKeysUnavailable, Err: &validator.KeysUnavailableError{RetryAfter: 7 * time.Second},
				}}
			},
			get("/orders"),
			answer{codes.Unavailable, 503, KeysUnavailable, map[string]string{"cache-control": "no-store", "content-type": problem, "retry-after": "7"}},
		},
		{"an error that nobody knows", func(c *Config) { c.Authenticator = authenticator{"good": errOutage} }, get("/orders"), answer{codes.Unavailable, 503, KeysUnavailable, later}},
		{"no route", nil, get("/nowhere"), answer{codes.PermissionDenied, 403, NoRoute, plain}},
		{"no route for the method", nil, get("/orders", func(h *authv3.AttributeContext_HttpRequest) { h.Method = "HEAD" }), answer{codes.PermissionDenied, 403, NoRoute, plain}},
		{"no route and no token", nil, get("/nowhere", withoutHeader("authorization")), answer{codes.Unauthenticated, 401, MissingToken, map[string]string{
			"cache-control": "no-store", "content-type": problem, "www-authenticate": `Bearer realm="api"`,
		}}},
		{"policy denies", engine(policy.Decision{}, nil), get("/orders"), answer{codes.PermissionDenied, 403, PolicyDenied, plain}},
		{"policy denies with a reason", engine(policy.Decision{Reason: "quota"}, nil), get("/orders"), answer{codes.PermissionDenied, 403, "quota", plain}},
		{"policy names the scope", engine(policy.Decision{Scope: "orders/admin"}, nil), get("/orders"), answer{codes.PermissionDenied, 403, InsufficientScope, refused("insufficient_scope", `, scope="orders/admin"`)}},
		{"policy answers 401", engine(policy.Decision{HTTPStatus: 401}, nil), get("/orders"), answer{codes.PermissionDenied, 401, PolicyDenied, map[string]string{
			"cache-control": "no-store", "content-type": problem, "www-authenticate": `Bearer realm="api"`,
		}}},
		{"policy chooses the status", engine(policy.Decision{HTTPStatus: 404}, nil), get("/orders"), answer{codes.PermissionDenied, 404, PolicyDenied, plain}},
		{
			"policy chooses body and headers", engine(policy.Decision{
				HTTPStatus: 302, Body: new("moved"), ResponseHeaders: []policy.Header{{Name: "location", Values: []string{"/login"}}, {Name: "content-type", Values: []string{"text/html"}}},
			}, nil), get("/orders"),
			answer{codes.PermissionDenied, 302, PolicyDenied, map[string]string{"cache-control": "no-store", "content-type": "text/html", "location": "/login"}},
		},
		{"policy undefined", engine(policy.Decision{}, policy.ErrUndefined), get("/orders"), answer{codes.Unavailable, 503, PolicyUndefined, later}},
		{"policy late", engine(policy.Decision{}, policy.ErrTimeout), get("/orders"), answer{codes.Unavailable, 503, PolicyTimeout, later}},
		{"policy overloaded", engine(policy.Decision{}, policy.ErrOverloaded), get("/orders"), answer{codes.Unavailable, 503, Overloaded, later}},
		{"policy fails", engine(policy.Decision{}, errOutage), get("/orders"), answer{codes.Unavailable, 503, PolicyError, later}},
		{"body that the policy cannot be shown", engine(policy.Decision{}, fmt.Errorf("x: %w", &policy.InputError{Field: "parsed_body"})), get("/orders"), answer{codes.InvalidArgument, 400, InvalidRequest, refused("invalid_request", "")}},
		{"other input that the policy cannot be shown", engine(policy.Decision{}, &policy.InputError{Field: "attributes"}), get("/orders"), answer{codes.Unavailable, 503, PolicyError, later}},
		{"policy fails and says allowed", engine(policy.Decision{Allowed: true}, errOutage), get("/orders"), answer{codes.Unavailable, 503, PolicyError, later}},
		{"public", nil, get("/healthz", withoutHeader("authorization")), answer{codes.OK, 0, OK, map[string]string{}}},
		{"public with a bad token", nil, get("/healthz", withHeader("authorization", "Bearer a b")), answer{codes.OK, 0, OK, map[string]string{}}},
		{
			"gRPC, and the policy sets the status of its own", engine(policy.Decision{ResponseHeaders: []policy.Header{{Name: "grpc-status", Values: []string{"0"}}, {Name: "grpc-message", Values: []string{"x"}}}}, nil),
			get("/orders", withHeader("content-type", "application/grpc")),
			answer{codes.PermissionDenied, 403, PolicyDenied, map[string]string{"cache-control": "no-store", "content-type": "text/plain; charset=utf-8", "grpc-status": "7"}},
		},
		{
			"gRPC", nil, get("/nowhere", withHeader("content-type", "application/grpc")),
			answer{codes.PermissionDenied, 403, NoRoute, map[string]string{"cache-control": "no-store", "content-type": "text/plain; charset=utf-8", "grpc-status": "7"}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resp := send(t, newHarness(t, test.edit).Service, test.req)
			if diff := cmp.Diff(test.want, answerOf(resp)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if (resp.GetOkResponse() != nil) != (test.want.Code == codes.OK) || (resp.GetDeniedResponse() == nil) != (test.want.Code == codes.OK) {
				t.Errorf("response is %v, want one that fits its status", resp)
			}
		})
	}
}

func TestProblemBody(t *testing.T) {
	h := newHarness(t, nil)
	resp := send(t, h.Service, get("/nowhere"))
	var got map[string]any
	if err := json.Unmarshal([]byte(resp.GetDeniedResponse().GetBody()), &got); err != nil {
		t.Fatal(err)
	}
	id := resp.GetDynamicMetadata().GetFields()["decision_id"].GetStringValue()
	want := map[string]any{
		"title": "Forbidden", "status": 403.0, "reason": "no_route", "decision_id": id,
		"detail": "No route is configured for this method, host and path.",
	}
	if diff := cmp.Diff(want, got); diff != "" || len(id) != 32 {
		t.Errorf("decision id %q, body (-want +got)\n%s", id, diff)
	}
	grpc := send(t, h.Service, get("/nowhere", withHeader("content-type", "application/grpc+proto")))
	if body := grpc.GetDeniedResponse().GetBody(); !strings.HasPrefix(body, "no_route (decision ") || strings.ContainsAny(body, "\r\n{") {
		t.Errorf("body for a gRPC caller is %q, want one line of text", body)
	}
}

// Whatever step goes wrong, and however, the request does not pass, and Check returns no error.
func TestFaultsNeverAllow(t *testing.T) {
	panicking := func() { panic("fault") }
	faults := map[string]struct {
		edit func(*Config)
		want Reason
	}{
		"authenticator panics": {func(c *Config) {
			c.Authenticator = authenticateFunc(func() (*validator.Claims, error) { panicking(); return nil, nil })
		}, Panic},
		"authenticator returns nothing": {func(c *Config) {
			c.Authenticator = authenticateFunc(func() (*validator.Claims, error) { return nil, nil })
		}, Panic},
		"authenticator returns both": {func(c *Config) {
			c.Authenticator = authenticateFunc(func() (*validator.Claims, error) { return goodClaims(), errOutage })
		}, KeysUnavailable},
		"no authenticator":   {func(c *Config) { c.Authenticator = nil }, Panic},
		"authorizer panics":  {func(c *Config) { c.Authorizer = authorizer(nil) }, Panic},
		"no routes":          {func(c *Config) { c.Routes = nil }, Panic},
		"client names panic": {func(c *Config) { c.ClientName = nil }, Panic},
		"authorizer waits for the end": {func(c *Config) {
			c.Authorizer = authorizer(func(ctx context.Context, _ *policy.Input) (policy.Decision, error) {
				<-ctx.Done()
				return policy.Decision{Allowed: true}, policy.ErrTimeout
			})
		}, PolicyTimeout},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, fault.edit)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			resp, err := h.Check(ctx, get("/orders"))
			if err != nil {
				t.Fatalf("Check returned error %v, which may be an allow to Envoy", err)
			}
			got := answerOf(resp)
			if got.Reason != fault.want || got.Code == codes.OK || got.Status < 500 || resp.GetOkResponse() != nil {
				t.Errorf("answer is %+v, want a failure with reason %s", got, fault.want)
			}
			if resp.GetDeniedResponse() == nil {
				t.Error("there is no denied_response")
			}
		})
	}
}

type authenticateFunc func() (*validator.Claims, error)

func (f authenticateFunc) Validate(context.Context, string) (*validator.Claims, error) { return f() }

// A log or an exporter that panics loses the record, and nothing else.
func TestPanicsOfObserversChangeNothing(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"log":            func(c *Config) { c.Log.To = panickingRecorder{} },
		"tracer":         func(c *Config) { c.Tracer = panickingTracer{} },
		"end of a span":  func(c *Config) { c.Tracer = panickingTracer{inEnd: true} },
		"log, and fault": func(c *Config) { c.Logger, c.Authorizer = slog.New(panickingHandler{}), authorizer(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			got := answerOf(send(t, newHarness(t, edit).Service, get("/orders")))
			want := OK
			if name == "tracer" || name == "log, and fault" {
				want = Panic
			}
			if got.Reason != want {
				t.Errorf("answer is %+v, want %s", got, want)
			}
		})
	}
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("log") }

type panickingRecorder struct{}

func (panickingRecorder) Record(*decisionlog.Decision) { panic("log") }

type panickingTracer struct {
	tracenoop.Tracer
	inEnd bool
}

func (p panickingTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !p.inEnd {
		panic("tracer")
	}
	return ctx, panickingSpan{}
}

type panickingSpan struct{ tracenoop.Span }

func (panickingSpan) End(...trace.SpanEndOption) { panic("span") }

// Removed last by Envoy, a header that the policy sets would vanish.
func TestPolicySetsAuthorization(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.Authorizer = decide(policy.Decision{Allowed: true, RequestHeaders: []policy.Header{{Name: "authorization", Values: []string{"Basic x"}}}}, nil)
	})
	if ok := send(t, h.Service, get("/orders")).GetOkResponse(); slices.Contains(ok.GetHeadersToRemove(), "authorization") {
		t.Error("authorization is set and removed")
	}
}

func TestUndecodable(t *testing.T) {
	got := answerOf(sendBytes(t, newHarness(t, nil).Service, []byte("\xff")))
	if got.Status != 400 || got.Reason != InvalidRequest || got.Code != codes.InvalidArgument {
		t.Errorf("answer is %+v, want 400 invalid_request", got)
	}
}

// The answer comes before the deadline that Envoy set, or Envoy takes it for an error.
func TestAnswerComesBeforeTheDeadline(t *testing.T) {
	var deadline time.Time
	h := newHarness(t, func(c *Config) {
		c.Authorizer = authorizer(func(ctx context.Context, _ *policy.Input) (policy.Decision, error) {
			deadline, _ = ctx.Deadline()
			return policy.Decision{Allowed: true}, nil
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := h.Check(ctx, get("/orders")); err != nil {
		t.Fatal(err)
	}
	envoys, _ := ctx.Deadline()
	if kept := envoys.Sub(deadline); kept < 99*time.Millisecond || kept > 101*time.Millisecond {
		t.Errorf("%v are kept to send the answer in, want 100ms", kept)
	}
	for left, want := range map[time.Duration]time.Duration{
		time.Hour: 100 * time.Millisecond, 200 * time.Millisecond: 40 * time.Millisecond, 20 * time.Millisecond: 10 * time.Millisecond,
		5 * time.Millisecond: 5 * time.Millisecond, -time.Second: -time.Second,
	} {
		if got := margin(left); got != want {
			t.Errorf("margin(%v) = %v, want %v", left, got, want)
		}
	}
}

func TestOverload(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	h := newHarness(t, func(c *Config) {
		c.Limits.ConcurrentChecks = 1
		c.Authorizer = authorizer(func(context.Context, *policy.Input) (policy.Decision, error) {
			entered <- struct{}{}
			<-release
			return policy.Decision{Allowed: true}, nil
		})
	})
	var wg sync.WaitGroup
	wg.Go(func() { sendOnce(t, h.Service, get("/orders")) })
	<-entered
	if got := answerOf(send(t, h.Service, get("/orders"))); got.Reason != Overloaded || got.Status != 503 || got.Headers["retry-after"] != "1" {
		t.Errorf("answer is %+v, want overloaded", got)
	}
	close(release)
	wg.Wait()
}

// Every identity header is set or removed, never both, whatever the request brought.
func TestIdentityHeaders(t *testing.T) {
	forged := map[string]string{
		"x-auth-client-id": "EVIL", "x_auth_client_id": "EVIL", "x-auth_scopes": "EVIL", "X-Auth-Pool": "EVIL",
		"x-auth-tier": "EVIL", "x-auth-unknown": "EVIL", "x.auth.subject": "EVIL", "x-other": "kept",
	}
	bring := func(h *authv3.AttributeContext_HttpRequest) { maps.Copy(h.Headers, forged) }
	h := newHarness(t, func(c *Config) { c.Identity.Claims = map[string]string{"tier": "custom:tier"} })
	for path, want := range map[string]map[string]string{
		"/orders": {
			"x-auth-client-id": "client-1", "x-auth-client-name": "orders-batch", "x-auth-scopes": "orders/read orders/write",
			"x-auth-pool": "main", "x-auth-issuer": "https://issuer.example/pool", "x-auth-subject": "client-1", "x-auth-token-id": "jti-1",
		},
		"/healthz": {},
	} {
		ok := send(t, h.Service, get(path, bring)).GetOkResponse()
		set := make(map[string]string)
		for _, o := range ok.GetHeaders() {
			set[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
			if o.GetAppend() == nil || o.GetAppend().GetValue() || o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
				t.Errorf("%s: %v does not overwrite", path, o)
			}
		}
		if diff := cmp.Diff(want, set); diff != "" {
			t.Errorf("%s: headers (-want +got)\n%s", path, diff)
		}
		removed := ok.GetHeadersToRemove()
		for _, name := range slices.Concat(h.Identity.IdentityHeaders(), slices.Collect(maps.Keys(forged))) {
			name = strings.ToLower(name) // as Envoy has them
			_, isSet := set[name]
			if isRemoved := slices.Contains(removed, name); isSet == isRemoved && name != "x-other" {
				t.Errorf("%s: %s is set: %v, and removed: %v, want one of the two", path, name, isSet, isRemoved)
			}
		}
		if slices.Contains(removed, "x-other") {
			t.Errorf("%s: x-other is removed", path)
		}
		if slices.Contains(removed, "authorization") != (path == "/orders") {
			t.Errorf("%s: removed are %v, want authorization among them unless the route is public", path, removed)
		}
	}
}

func TestAuthorizationIsForwarded(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.RemoveAuthorization = false })
	if ok := send(t, h.Service, get("/orders")).GetOkResponse(); slices.Contains(ok.GetHeadersToRemove(), "authorization") {
		t.Error("authorization is removed")
	}
}

func TestLongIdentityIsLeftToTheMetadata(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Identity.MaxBytes = 12 })
	resp := send(t, h.Service, get("/orders"))
	if !slices.Contains(resp.GetOkResponse().GetHeadersToRemove(), "x-auth-scopes") {
		t.Error("x-auth-scopes is not removed, and is longer than allowed")
	}
	if got := resp.GetDynamicMetadata().GetFields()["scopes"].GetListValue().AsSlice(); !cmp.Equal(got, []any{"orders/read", "orders/write"}) {
		t.Errorf("metadata has scopes %v", got)
	}
}

func TestPolicyAnswer(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.Authorizer = decide(policy.Decision{
			Allowed:               true,
			RequestHeaders:        []policy.Header{{Name: "x-tenant", Values: []string{"a", "b"}}},
			RemoveRequestHeaders:  []string{"x-debug", "authorization"},
			ResponseHeaders:       []policy.Header{{Name: "x-decided-by", Values: []string{"policy"}}, {Name: "set-cookie", Values: []string{"a=1", "b=2"}}},
			SetQueryParameters:    []policy.Parameter{{Name: "tenant", Values: []string{"a"}}},
			RemoveQueryParameters: []string{"debug"},
			Metadata:              map[string]any{"tier": "gold", "client_id": "EVIL", "reason": "EVIL"},
		}, nil)
	})
	resp := send(t, h.Service, get("/orders"))
	ok := resp.GetOkResponse()
	options := func(all []*corev3.HeaderValueOption, name string) (got []string) {
		for _, o := range all {
			if o.GetHeader().GetKey() == name {
				got = append(got, fmt.Sprint(o.GetHeader().GetValue(), " ", o.GetAppend().GetValue(), " ", o.GetAppendAction()))
			}
		}
		return got
	}
	if diff := cmp.Diff([]string{"a,b false OVERWRITE_IF_EXISTS_OR_ADD"}, options(ok.GetHeaders(), "x-tenant")); diff != "" {
		t.Error(diff)
	}
	cookies := []string{"a=1 true APPEND_IF_EXISTS_OR_ADD", "b=2 true APPEND_IF_EXISTS_OR_ADD"}
	if diff := cmp.Diff(cookies, options(ok.GetResponseHeadersToAdd(), "set-cookie")); diff != "" {
		t.Error(diff)
	}
	if removed := ok.GetHeadersToRemove(); !slices.Contains(removed, "x-debug") || slices.Index(removed, "authorization") < 0 || len(slices.Compact(slices.Clone(removed))) != len(removed) {
		t.Errorf("removed are %v", removed)
	}
	if got := ok.GetResponseHeadersToAdd()[0].GetHeader(); got.GetKey() != "x-decided-by" || got.GetValue() != "policy" {
		t.Errorf("response header is %v", got)
	}
	if got := ok.GetQueryParametersToSet()[0]; got.GetKey() != "tenant" || got.GetValue() != "a" || ok.GetQueryParametersToRemove()[0] != "debug" {
		t.Errorf("query changes are %v and %v", ok.GetQueryParametersToSet(), ok.GetQueryParametersToRemove())
	}
	meta := resp.GetDynamicMetadata().AsMap()
	if meta["tier"] != "gold" || meta["client_id"] != "client-1" || meta["reason"] != "allowed" {
		t.Errorf("metadata is %v, want the policy's own and ours unharmed", meta)
	}
}

// keep copies what is only good for the call.
func keep(in *policy.Input) policy.Input {
	got := *in
	if in.Token != nil {
		token := *in.Token
		got.Token = &token
	}
	if in.Route != nil {
		route := *in.Route
		got.Route = &route
	}
	return got
}

// What the policy sees, but for the attributes.
func TestInput(t *testing.T) {
	var got policy.Input
	h := newHarness(t, func(c *Config) {
		c.Authorizer = authorizer(func(_ context.Context, in *policy.Input) (policy.Decision, error) {
			got = keep(in)
			return policy.Decision{Allowed: true}, nil
		})
	})
	send(t, h.Service, get("/orders/%61b?x=1&x=2", func(h *authv3.AttributeContext_HttpRequest) { h.Host = "API.example.com:443" }))
	if got.Canonical != (policy.Canonical{Host: "api.example.com", Path: "/orders/ab"}) {
		t.Errorf("canonical is %+v", got.Canonical)
	}
	if diff := cmp.Diff([]string{"orders", "ab"}, got.ParsedPath); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string][]string{"x": {"1", "2"}}, got.ParsedQuery); diff != "" {
		t.Error(diff)
	}
	if got.Token.ClientName != "orders-batch" || got.Token.ClientID != "client-1" || got.Route.Params["id"] != "ab" {
		t.Errorf("token is %+v and route %+v", got.Token, got.Route)
	}
	if text := fmt.Sprint(got.Attributes); strings.Contains(text, "Bearer") || !strings.Contains(text, "x-request-id") {
		t.Errorf("attributes are %s, want the headers without the token", text)
	}
	send(t, h.Service, get("/healthz"))
	if got.Token != nil || !got.Route.Public {
		t.Errorf("token is %+v and route %+v, want a public route and no token", got.Token, got.Route)
	}
}

// Nothing of a request is logged, traced or counted but what is meant to be.
func TestCanary(t *testing.T) {
	const canary = "CANARY0123456789"
	spans := tracetest.NewSpanRecorder()
	reader := sdkmetric.NewManualReader()
	edit := func(c *Config) {
		c.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("")
		c.Metrics = metricsOf(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter(""))
		c.Authenticator = authenticator{canary: &validator.TokenError{Reason: validator.ErrExpired}}
	}
	h := newHarness(t, edit)
	for _, req := range []*authv3.CheckRequest{
		get("/orders?secret="+canary, withHeader("x-secret", canary), withHeader("cookie", canary), withHeader("x-request-id", canary+" ")),
		get("/orders?secret="+canary, withHeader("authorization", "Bearer "+canary)),
		get("/orders?secret=%zz"+canary, withHeader("authorization", "Bearer "+canary+" "+canary)),
		get("/a/../"+canary, withHeader("authorization", "Basic "+canary)),
		get("/orders", func(h *authv3.AttributeContext_HttpRequest) { h.Host = "a," + canary }),
	} {
		resp := sendOnce(t, h.Service, req)
		if denied := resp.GetDeniedResponse(); strings.Contains(denied.String(), canary) {
			t.Errorf("the answer holds the canary: %v", denied)
		}
	}
	var metrics metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &metrics); err != nil {
		t.Fatal(err)
	}
	recorded := fmt.Sprintf("%+v", metrics)
	for _, s := range spans.Ended() {
		recorded += fmt.Sprintf("%+v %+v", s.Name(), s.Attributes())
	}
	if out := h.log.String() + recorded; strings.Contains(out, canary) || strings.Contains(out, strings.ToLower(canary)) {
		t.Errorf("the canary was recorded:\n%s", out)
	}
	if lines := strings.Count(h.log.String(), "\n"); lines != 5 {
		t.Errorf("%d log lines, want 5", lines)
	}
}

func TestLogIncludesWhatIsAskedFor(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Log.Headers, c.Log.Query = []string{"x-tenant"}, []string{"page"} })
	sendOnce(t, h.Service, get("/orders?page=7&other=8", withHeader("x-tenant", "a")))
	var line map[string]any
	if err := json.Unmarshal(h.log.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"headers.x-tenant": "a", "query.page": "7", "outcome": "allowed", "reason": "allowed", "method": "GET", "path": "/orders",
		"host": "api.example.com", "route": "GET /orders", "pool": "main", "client_id": "client-1", "client": "orders-batch",
		"jti": "jti-1", "policy_revision": "sha256:test", "request_id": "4f6b0a2e-9f52-4b3f-8d5e-000000000001", "msg": "check",
	} {
		if line[name] != want {
			t.Errorf("%s is %v, want %v", name, line[name], want)
		}
	}
	if _, ok := line["query.other"]; ok {
		t.Error("the line has a parameter that nobody asked for")
	}
}

func TestAllowedAreLoggedOnlyIfAskedFor(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Log.Ratios = map[Outcome]float64{Allowed: 0} })
	send(t, h.Service, get("/orders"))
	if h.log.Len() > 0 {
		t.Errorf("log is %s, want none", h.log)
	}
	send(t, h.Service, get("/nowhere"))
	if h.log.Len() == 0 {
		t.Error("a denied check was not logged")
	}
}

// Labels come from closed sets: a caller cannot make new ones.
func TestMetrics(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	h := newHarness(t, func(c *Config) {
		c.Metrics = metricsOf(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter(""))
		c.Authenticator = authenticator{"early": &validator.TokenError{Reason: validator.ErrNotYetValid, Err: &validator.SkewError{Ahead: time.Minute}}}
	})
	for i := range 10 {
		sendOnce(t, h.Service, get(fmt.Sprintf("/orders/%d", i)))
		sendOnce(t, h.Service, get(fmt.Sprintf("/nowhere/%d", i), withHeader("x-request-id", fmt.Sprint(i))))
		sendOnce(t, h.Service, get("/orders", withHeader("authorization", "Bearer early")))
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	skewed := uint64(0)
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				got[p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
			}
		case metricdata.Histogram[float64]:
			if m.Name == "extauthz.token.skew" {
				skewed = data.DataPoints[0].Count
			}
		}
	}
	want := map[string]int64{
		"outcome=allowed,pool=main,reason=allowed,route=GET /orders/{id}": 10,
		"outcome=denied,pool=main,reason=no_route,route=":                 10,
		"outcome=refused,pool=,reason=not_yet_valid,route=":               10,
	}
	if diff := cmp.Diff(want, got); diff != "" || skewed != 10 {
		t.Errorf("%d skews, checks (-want +got)\n%s", skewed, diff)
	}
}

// Services that follow each other, with route tables of their own, count on.
func TestMetricsOutliveAService(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	metrics := metricsOf(t, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter(""))
	for range 3 {
		h := newHarness(t, func(c *Config) { c.Metrics = metrics })
		sendOnce(t, h.Service, get("/orders"))
	}
	var found metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &found); err != nil {
		t.Fatal(err)
	}
	for _, m := range found.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && (len(sum.DataPoints) != 1 || sum.DataPoints[0].Value != 3) {
			t.Errorf("%s is %+v, want one series of three checks", m.Name, sum.DataPoints)
		}
	}
}

func TestSpanJoinsTheRequestsTrace(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	spans := tracetest.NewSpanRecorder()
	h := newHarness(t, func(c *Config) {
		c.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("")
		c.Sample = func(traceparent string) bool { return traceparent == parent }
	})
	sendOnce(t, h.Service, get("/orders", withHeader("traceparent", parent)))
	sendOnce(t, h.Service, get("/orders", withHeader("traceparent", parent[:len(parent)-1]+"0"))) // not to be traced
	sendOnce(t, h.Service, get("/orders"))
	ended := spans.Ended()
	if len(ended) != 1 || ended[0].SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || ended[0].Parent().SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("spans are %v, want one in the request's trace", ended)
	}
	if !strings.Contains(h.log.String(), `"trace_id":"0af7651916cd43dd8448eb211c80319c"`) {
		t.Errorf("log is %s, want the trace id", h.log)
	}
}

// docs/reasons.md shows the table that answers are made by.
func TestReasonsPage(t *testing.T) {
	const page = "../../docs/reasons.md"
	var b strings.Builder
	b.WriteString("| reason | outcome | HTTP | gRPC | challenge | what the caller is told |\n|---|---|---|---|---|---|\n")
	names := slices.Collect(maps.Keys(rows))
	slices.SortFunc(names, func(a, b Reason) int {
		return strings.Compare(fmt.Sprintf("%03d%s", rows[a].status, a), fmt.Sprintf("%03d%s", rows[b].status, b))
	})
	for _, name := range names {
		r := rows[name]
		status, challenge := fmt.Sprint(r.status), "`error=\""+r.challenge+"\"`"
		switch {
		case name == MissingToken:
			challenge = "no error code"
		case r.challenge == "":
			challenge = "-"
		}
		if name == OK {
			status = "-"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", name, r.outcome, status, r.code, challenge, r.tell)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- table -->\n", "<!-- end of table -->"
	head, rest, ok1 := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no marks for the table", page)
	}
	want := head + begin + b.String() + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not current; run: go test ./internal/authz -run TestReasonsPage -update", page)
	}
}
