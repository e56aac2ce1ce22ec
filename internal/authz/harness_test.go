package authz

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// authenticator accepts the token "good" and answers every other with its error.
type authenticator map[string]error

func (a authenticator) Validate(_ context.Context, token string) (*validator.Claims, error) {
	if err, ok := a[token]; ok {
		return nil, err
	}
	if token != "good" {
		return nil, &validator.TokenError{Reason: validator.ErrSignature}
	}
	return goodClaims(), nil
}

func goodClaims() *validator.Claims {
	return &validator.Claims{
		Pool: "main", Issuer: "https://issuer.example/pool", Subject: "client-1", ClientID: "client-1",
		TokenUse: validator.AccessToken, Scopes: []string{"orders/read", "orders/write"}, TokenID: "jti-1",
	}
}

// authorizer is a policy in Go, which reads all of its input.
type authorizer func(context.Context, *policy.Input) (policy.Decision, error)

func (a authorizer) Decide(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	in.Asked(policy.Policy{Revision: a.Revision()})
	if err := in.Complete(in, func(string) bool { return true }); err != nil {
		return policy.Decision{}, err
	}
	return a(ctx, in)
}

func (authorizer) Revision() string { return "sha256:test" }

func allowAll(context.Context, *policy.Input) (policy.Decision, error) {
	return policy.Decision{Allowed: true}, nil
}

func decide(d policy.Decision, err error) authorizer {
	return func(context.Context, *policy.Input) (policy.Decision, error) { return d, err }
}

var rules = []route.Rule{
	{Path: "/orders", Methods: []string{"GET"}, ScopesAny: []string{"orders/read"}},
	{Path: "/orders/{id}", Methods: []string{"GET"}, AnyClient: true},
	{Path: "/files/{id}", Methods: []string{"GET"}, AnyClient: true, EncodedSlash: true},
	{Path: "/healthz", Methods: []string{"GET"}, Public: true},
}

// lineRecorder writes lines at once.
type lineRecorder struct{ log *bytes.Buffer }

func (r lineRecorder) Record(d *decisionlog.Decision) { r.log.Write(decisionlog.Line(d)) }

type harness struct {
	*Service
	log *bytes.Buffer
}

// newHarness returns a service that allows GET /orders with the token "good".
func newHarness(t testing.TB, edit func(*Config)) harness {
	t.Helper()
	table, err := route.NewTable(rules)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg := Config{
		Authenticator:       authenticator{},
		Authorizer:          authorizer(allowAll),
		Routes:              table,
		ClientName:          func(_, id string) string { return map[string]string{"client-1": "orders-batch"}[id] },
		Identity:            Identity{Prefix: "x-auth-", MaxBytes: 4096},
		Realm:               "api",
		RemoveAuthorization: true,
		Limits:              Limits{PathBytes: 1024, HeaderBytes: 8192, BodyBytes: 1024, TokenBytes: 1024, ConcurrentChecks: 8},
		Log:                 DecisionLog{To: lineRecorder{&log}},
		Logger:              slog.New(slog.NewJSONHandler(&log, nil)),
		Metrics:             metricsOf(t, noop.NewMeterProvider().Meter("")),
		Tracer:              tracenoop.NewTracerProvider().Tracer(""),
		Sample:              func(string) bool { return true },
	}
	if edit != nil {
		edit(&cfg)
	}
	return harness{New(cfg), &log}
}

func metricsOf(t testing.TB, meter metric.Meter) *Metrics {
	t.Helper()
	m, err := NewMetrics(meter)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// request is a CheckRequest as Envoy sends it, for GET /orders with the token "good".
func get(path string, edit ...func(*authv3.AttributeContext_HttpRequest)) *authv3.CheckRequest {
	http := &authv3.AttributeContext_HttpRequest{
		Method: "GET", Path: path, Host: "api.example.com", Scheme: "https", Protocol: "HTTP/2", Size: -1,
		Headers: map[string]string{
			":method": "GET", ":path": path, ":authority": "api.example.com", "authorization": "Bearer good",
			"x-request-id": "4f6b0a2e-9f52-4b3f-8d5e-000000000001",
		},
	}
	for _, e := range edit {
		e(http)
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: http}}}
}

func withHeader(name, value string) func(*authv3.AttributeContext_HttpRequest) {
	return func(h *authv3.AttributeContext_HttpRequest) { h.Headers[name] = value }
}

func withoutHeader(name string) func(*authv3.AttributeContext_HttpRequest) {
	return func(h *authv3.AttributeContext_HttpRequest) { delete(h.Headers, name) }
}

// send returns the answer to a request, and holds that a message with the request is answered alike.
func send(t testing.TB, s *Service, req *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	resp := sendOnce(t, s, req)
	sameAnswer(t, s, req, resp)
	return resp
}

func sendOnce(t testing.TB, s *Service, req *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	resp, err := s.Check(ctx, req)
	if err != nil || resp == nil {
		t.Fatalf("Check returned %v and error %v, want a response", resp, err)
	}
	return resp
}

func sendBytes(t testing.TB, s *Service, msg []byte) *authv3.CheckResponse {
	t.Helper()
	resp := new(authv3.CheckResponse)
	if err := proto.Unmarshal(s.CheckMessage(t.Context(), nil, msg), resp); err != nil {
		t.Fatalf("the answer to a message is no CheckResponse: %v", err)
	}
	return resp
}

// sameAnswer holds that a message is answered as the request in it is: the hot path as the plain one.
func sameAnswer(t testing.TB, s *Service, req *authv3.CheckRequest, want *authv3.CheckResponse) {
	t.Helper()
	msg, err := proto.Marshal(req)
	if err != nil {
		return // text that is not UTF-8 cannot be sent
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got := new(authv3.CheckResponse)
	if err := proto.Unmarshal(s.CheckMessage(ctx, nil, msg), got); err != nil {
		t.Fatalf("the answer to a message is no CheckResponse: %v", err)
	}
	if diff := cmp.Diff(withoutID(want), withoutID(got), protocmp.Transform()); diff != "" {
		t.Errorf("the answer to the message (-to the request +to the message):\n%s", diff)
	}
}

// withoutID takes the decision id out of an answer: no two have the same.
func withoutID(resp *authv3.CheckResponse) *authv3.CheckResponse {
	resp = proto.Clone(resp).(*authv3.CheckResponse)
	fields := resp.GetDynamicMetadata().GetFields()
	id := fields["decision_id"].GetStringValue()
	delete(fields, "decision_id")
	if denied := resp.GetDeniedResponse(); denied != nil && id != "" {
		denied.Body = strings.ReplaceAll(denied.GetBody(), id, "ID")
	}
	return resp
}

var errOutage = errors.New("outage")
