package lab_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/structpb"
)

// checkFunc answers a check. It may return an error, which the real service never does.
type checkFunc func(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error)

// stub is an ext_authz server of a few lines, so that these tests are of Envoy's configuration and of nothing else.
type stub struct {
	authv3.UnimplementedAuthorizationServer
	check checkFunc

	mu   sync.Mutex
	seen []*authv3.AttributeContext_HttpRequest
}

// startStub listens on the port until the test ends or the returned function is called.
func startStub(t *testing.T, address string, check checkFunc) (s *stub, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s = &stub{check: check}
	server := grpc.NewServer(
		// Envoy pings an idle connection more often than grpc-go's default allows, which would end it with GOAWAY.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	authv3.RegisterAuthorizationServer(server, s)
	healthv1.RegisterHealthServer(server, health.NewServer())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	stop = sync.OnceFunc(func() {
		server.Stop()
		<-ended
	})
	t.Cleanup(stop)
	return s, stop
}

func (s *stub) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	s.mu.Lock()
	s.seen = append(s.seen, req.GetAttributes().GetRequest().GetHttp())
	s.mu.Unlock()
	return s.check(ctx, req)
}

// checks returns the requests that were asked about so far.
func (s *stub) checks() []*authv3.AttributeContext_HttpRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*authv3.AttributeContext_HttpRequest(nil), s.seen...)
}

// byToken allows "Bearer good" and denies everything else, in the form that extauthz answers.
func byToken(_ context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	if req.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"] != "Bearer good" {
		return denied(typev3.StatusCode_Unauthorized, "missing_token"), nil
	}
	return allowed(nil, nil), nil
}

func metadataOf(reason, client string) *structpb.Struct {
	fields := map[string]*structpb.Value{
		"reason":      structpb.NewStringValue(reason),
		"decision_id": structpb.NewStringValue("decision-1"),
	}
	if client != "" {
		fields["client_id"] = structpb.NewStringValue(client)
	}
	return &structpb.Struct{Fields: fields}
}

// allowed sets the client id and removes the token, as extauthz does by default, and sets and removes further headers.
func allowed(set map[string]string, remove []string) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{HeadersToRemove: append([]string{"authorization", "x-auth-subject"}, remove...)}
	add := func(name, value string) {
		ok.Headers = append(ok.Headers, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: name, Value: value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	add("x-auth-client-id", "7a8b9c")
	for name, value := range set {
		add(name, value)
	}
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: metadataOf("allowed", "7a8b9c"),
	}
}

func denied(code typev3.StatusCode, reason string) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.Unauthenticated)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: code},
			Headers: []*corev3.HeaderValueOption{
				{Header: &corev3.HeaderValue{Key: "www-authenticate", Value: `Bearer realm="extauthz"`}},
				{Header: &corev3.HeaderValue{Key: "content-type", Value: "application/problem+json"}},
			},
			Body: `{"reason":"` + reason + `"}`,
		}},
		DynamicMetadata: metadataOf(reason, ""),
	}
}
