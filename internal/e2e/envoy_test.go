package e2e_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// The tests of this file record what Envoy does with answers that extauthz takes care not to give. An Envoy that does
// something else is reason to think again, and no fault of its own.

// stub gives one answer to all checks.
type stub struct {
	authv3.UnimplementedAuthorizationServer
	answer atomic.Pointer[authv3.CheckResponse]
}

func (s *stub) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.answer.Load(), nil
}

func startStub(t *testing.T, edits ...[]lab.Edit) (*stub, *gateway) {
	t.Helper()
	lab.NeedEnvoy(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &stub{}, grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, s)
	healthv1.RegisterHealthServer(server, health.NewServer())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until Stop
	}()
	t.Cleanup(func() { server.Stop(); <-ended })
	return s, newGateway(t, &service{grpcPort: listener.Addr().(*net.TCPAddr).Port}, edits...)
}

// Envoy lets a request pass on an answer that says nothing, although failure_mode_allow is false.
func TestEnvoyTakesAnEmptyAnswerForAnAllow(t *testing.T) {
	t.Parallel()
	s, g := startStub(t)
	for name, answer := range map[string]*authv3.CheckResponse{
		"nothing":         {},
		"OK alone":        {Status: &status.Status{Code: int32(codes.OK)}},
		"OK, in an error": {Status: &status.Status{Code: int32(codes.OK), Message: "policy failed"}},
	} {
		s.answer.Store(answer)
		if got := g.get(t, "/a").outcome(); got != reaches("/a") {
			t.Errorf("%s: got %+v, want the request to pass", name, got)
		}
	}
}

// Of the two ways to say whether a header's value takes the place of others, Envoy heeds one for request headers and the
// other one for response headers.
func TestEnvoyAppendsInTwoWays(t *testing.T) {
	t.Parallel()
	s, g := startStub(t, lab.PlainHeaders())
	const overwrite, add = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	values := func(options ...*corev3.HeaderValueOption) []*corev3.HeaderValueOption {
		for i, o := range options {
			o.Header = &corev3.HeaderValue{Key: "x-list", Value: []string{"one", "two"}[i]}
		}
		return options
	}
	tests := []struct {
		name                        string
		headers                     []*corev3.HeaderValueOption
		upstream, response, refused string // with the request having "sent"
	}{
		{"overwrite", values(&corev3.HeaderValueOption{AppendAction: overwrite}), "one", "one", "one"},
		{"append: false, overwrite", values(&corev3.HeaderValueOption{Append: wrapperspb.Bool(false), AppendAction: overwrite}), "one", "one", "one"},
		{"add", values(&corev3.HeaderValueOption{AppendAction: add}), "one", "one", "one"},
		{"append: true, add", values(&corev3.HeaderValueOption{Append: wrapperspb.Bool(true), AppendAction: add}), "sent,one", "one", ""},
		{"append: false, overwrite, append: true, add", values(
			&corev3.HeaderValueOption{Append: wrapperspb.Bool(false), AppendAction: overwrite}, &corev3.HeaderValueOption{Append: wrapperspb.Bool(true), AppendAction: add},
		), "one,two", "one", "one"},
		{"overwrite, add", values(&corev3.HeaderValueOption{AppendAction: overwrite}, &corev3.HeaderValueOption{AppendAction: add}), "two", "one", "one,two"},
		{"add, add", values(&corev3.HeaderValueOption{AppendAction: add}, &corev3.HeaderValueOption{AppendAction: add}), "two", "one,two", "one,two"},
	}
	for _, tt := range tests {
		s.answer.Store(&authv3.CheckResponse{
			Status:       &status.Status{Code: int32(codes.OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: tt.headers, ResponseHeadersToAdd: tt.headers}},
		})
		a := g.get(t, "/a", "X-List: sent")
		s.answer.Store(&authv3.CheckResponse{
			Status: &status.Status{Code: int32(codes.PermissionDenied)},
			HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}, Headers: tt.headers,
			}},
		})
		d := g.get(t, "/a")
		if a.seen == nil || d.seen != nil {
			t.Fatalf("%s: got %+v and %+v, want the first to pass", tt.name, a.outcome(), d.outcome())
		}
		got := []string{strings.Join(a.seen.Headers["x-list"], ","), strings.Join(a.header["X-List"], ","), strings.Join(d.header["X-List"], ",")}
		if want := []string{tt.upstream, tt.response, tt.refused}; strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("%s: upstream, response, denial have %q, want %q", tt.name, got, want)
		}
	}
}
