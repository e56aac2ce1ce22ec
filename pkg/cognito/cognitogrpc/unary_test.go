package cognitogrpc_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/cognitogrpc"
)

const challenged = `Bearer realm="orders", error="invalid_token"`

// inTrailer and inHeader refuse calls with what is, or is not, a challenge.
func inTrailer(code codes.Code, challenge string) func(context.Context) error {
	return func(ctx context.Context) error {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("www-authenticate", challenge))
		return status.Error(code, "no")
	}
}

func inHeader(ctx context.Context) error {
	_ = grpc.SendHeader(ctx, metadata.Pairs("www-authenticate", challenged))
	return status.Error(codes.Unauthenticated, "no")
}

// Each row differs in one thing from a call that is repeated.
func TestRefusedCallIsRepeatedOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		refuse func(context.Context) error
		always bool // also with the newer token
		age    time.Duration
		want   codes.Code
		calls  int
	}{
		"as Envoy answers":    {inTrailer(codes.Unauthenticated, challenged), false, time.Hour / 2, codes.OK, 2},
		"in the header":       {inHeader, false, time.Hour / 2, codes.OK, 2},
		"refused again":       {inTrailer(codes.Unauthenticated, challenged), true, time.Hour / 2, codes.Unauthenticated, 2},
		"a token that is new": {inTrailer(codes.Unauthenticated, challenged), false, time.Minute / 2, codes.Unauthenticated, 1},
		"no challenge":        {func(context.Context) error { return status.Error(codes.Unauthenticated, "no") }, false, time.Hour / 2, codes.Unauthenticated, 1},
		"another challenge":   {inTrailer(codes.Unauthenticated, `Bearer error="insufficient_scope"`), false, time.Hour / 2, codes.Unauthenticated, 1},
		"another code":        {inTrailer(codes.PermissionDenied, challenged), false, time.Hour / 2, codes.PermissionDenied, 1},
		"an answer beside that": {func(ctx context.Context) error {
			return grpc.SetTrailer(ctx, metadata.Pairs("www-authenticate", challenged))
		}, false, time.Hour / 2, codes.OK, 1},
	} {
		t.Run(name, func(t *testing.T) {
			pool, s := startPool(t), startService(t, true)
			now := time.Now()
			source := newSource(t, pool, func(c *cognito.Config) { c.Now = func() time.Time { return now } })
			first, err := source.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.refuse = func(ctx context.Context, authorization string) error {
				if authorization == first.Authorization() || tc.always {
					return tc.refuse(ctx)
				}
				return nil
			}
			now = now.Add(tc.age)
			err = s.call(t, s.tls(), cognitogrpc.New(source), grpc.WithUnaryInterceptor(cognitogrpc.UnaryClientInterceptor))
			if got := status.Code(err); got != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if len(s.authorization) != tc.calls {
				t.Errorf("%d calls, want %d", len(s.authorization), tc.calls)
			}
			if n := pool.Requests(cognitotest.Token); n != tc.calls {
				t.Errorf("%d token requests, want %d", n, tc.calls)
			}
		})
	}
}

// Options of the call are served by the answer that it returns.
func TestOptionsOfARepeatedCall(t *testing.T) {
	pool, s := startPool(t), startService(t, true)
	now := time.Now()
	source := newSource(t, pool, func(c *cognito.Config) { c.Now = func() time.Time { return now } })
	refused := false
	s.refuse = func(ctx context.Context, _ string) error {
		if !refused {
			refused = true
			return inTrailer(codes.Unauthenticated, challenged)(ctx)
		}
		return grpc.SetTrailer(ctx, metadata.Pairs("answer", "2"))
	}
	if _, err := source.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour / 2)
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(s.tls()), grpc.WithUnaryInterceptor(cognitogrpc.UnaryClientInterceptor))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var trailer metadata.MD
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.PerRPCCredentials(cognitogrpc.New(source)), grpc.Trailer(&trailer))
	if err != nil || len(trailer["answer"]) != 1 || len(trailer["www-authenticate"]) != 0 {
		t.Errorf("got %v and the trailer %v, want that of the second answer", err, trailer)
	}
}

// Without credentials of this package, the refusal stands.
func TestInterceptorWithoutCredentials(t *testing.T) {
	s := startService(t, true)
	s.refuse = func(ctx context.Context, _ string) error { return inTrailer(codes.Unauthenticated, challenged)(ctx) }
	err := s.call(t, s.tls(), nil, grpc.WithUnaryInterceptor(cognitogrpc.UnaryClientInterceptor))
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, want UNAUTHENTICATED", err)
	}
}
