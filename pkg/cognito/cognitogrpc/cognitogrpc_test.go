package cognitogrpc_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/cognitogrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// a service says what authorization it was called with.
type service struct {
	refuse        func(ctx context.Context, authorization string) error // if set, answers calls for which it returns an error
	mu            sync.Mutex
	authorization []string
	addr          string
	ca            *x509.CertPool
}

func (s *service) intercept(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	s.authorization = append(s.authorization, md.Get("authorization")...)
	s.mu.Unlock()
	if s.refuse != nil {
		if err := s.refuse(ctx, strings.Join(md.Get("authorization"), ",")); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}

func startService(t *testing.T, withTLS bool) *service {
	t.Helper()
	s := &service{ca: x509.NewCertPool()}
	opts := []grpc.ServerOption{grpc.UnaryInterceptor(s.intercept)}
	if withTLS {
		certs := httptest.NewTLSServer(nil) // for its certificate, which is for 127.0.0.1
		certs.Close()
		s.ca.AddCert(certs.Certificate())
		opts = append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: certs.TLS.Certificates, MinVersion: tls.VersionTLS12})))
	}
	server := grpc.NewServer(opts...)
	healthv1.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return s
}

func (s *service) tls() credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{RootCAs: s.ca, MinVersion: tls.VersionTLS12})
}

// call calls the service once.
func (s *service) call(t *testing.T, transport credentials.TransportCredentials, perRPC credentials.PerRPCCredentials, opts ...grpc.DialOption) error {
	t.Helper()
	if perRPC != nil {
		opts = append(opts, grpc.WithPerRPCCredentials(perRPC))
	}
	conn, err := grpc.NewClient(s.addr, append(opts, grpc.WithTransportCredentials(transport))...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

func (s *service) want(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Join(s.authorization, ",") != strings.Join(want, ",") {
		t.Errorf("authorization is %q, want %q", s.authorization, want)
	}
}

func startPool(t *testing.T) *cognitotest.Pool {
	t.Helper()
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Pools()[0]
}

func newSource(t *testing.T, pool *cognitotest.Pool, edits ...func(*cognito.Config)) *cognito.TokenSource {
	t.Helper()
	cfg := cognito.Config{
		TokenURL: pool.TokenURL(), ClientID: cognitotest.DemoClientID, Secret: cognito.StaticSecret(cognitotest.DemoClientSecret),
		Retry: cognito.Retry{MaxAttempts: 1},
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	s, err := cognito.NewTokenSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConnections(t *testing.T) {
	const notSecure, neither = "cannot send secure credentials on an insecure connection", "neither TLS nor one of credentials/local"
	for name, tc := range map[string]struct {
		tls       bool
		transport func(*service) credentials.TransportCredentials
		perRPC    func(*cognito.TokenSource) credentials.PerRPCCredentials
		want      string // empty: the token is sent
	}{
		"TLS":                             {true, (*service).tls, cognitogrpc.New, ""},
		"none":                            {false, plain, cognitogrpc.New, "the credentials require transport level security"},
		"this machine":                    {false, here, cognitogrpc.New, notSecure},
		"TLS, where loopback would do":    {true, (*service).tls, cognitogrpc.NewLoopback, ""},
		"this machine, where it will do":  {false, here, cognitogrpc.NewLoopback, ""},
		"none, where loopback will do":    {false, plain, cognitogrpc.NewLoopback, neither},
		"TLS, whose server is another's":  {true, func(*service) credentials.TransportCredentials { return credentials.NewTLS(nil) }, cognitogrpc.New, "certificate"},
		"none, by an option of each call": {false, plain, perCall, notSecure},
	} {
		t.Run(name, func(t *testing.T) {
			pool, s := startPool(t), startService(t, tc.tls)
			source := newSource(t, pool)
			var err error
			if perRPC := tc.perRPC(source); perRPC != nil {
				err = s.call(t, tc.transport(s), perRPC)
			} else {
				err = s.callWithOption(t, tc.transport(s), cognitogrpc.New(source))
			}
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				s.want(t)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			token, err := source.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.want(t, token.Authorization())
			if n := pool.Requests(cognitotest.Token); n != 1 {
				t.Errorf("%d token requests, want 1", n)
			}
		})
	}
}

func plain(*service) credentials.TransportCredentials { return insecure.NewCredentials() }

func here(*service) credentials.TransportCredentials { return local.NewCredentials() }

// perCall stands for credentials that are given with each call.
func perCall(*cognito.TokenSource) credentials.PerRPCCredentials { return nil }

func (s *service) callWithOption(t *testing.T, transport credentials.TransportCredentials, perRPC credentials.PerRPCCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient(s.addr, grpc.WithTransportCredentials(transport))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.PerRPCCredentials(perRPC))
	return err
}

// anotherLocal stands for a connection to this machine, by another transport than gRPC's.
type anotherLocal struct{ credentials.CommonAuthInfo }

func (anotherLocal) AuthType() string { return "local" }

// Whoever calls the credentials without gRPC around them gets no token either.
func TestConnectionThatIsNotKnown(t *testing.T) {
	pool := startPool(t)
	ctx := credentials.NewContextWithRequestInfo(t.Context(), credentials.RequestInfo{
		AuthInfo: anotherLocal{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}},
	})
	if md, err := cognitogrpc.New(newSource(t, pool)).GetRequestMetadata(ctx); md != nil || status.Code(err) != codes.Unauthenticated {
		t.Errorf("for this machine, where it will not do: got %v, %v, want UNAUTHENTICATED", md, err)
	}
	for want, creds := range map[string]credentials.PerRPCCredentials{
		"cognitogrpc: the connection is not secure, want TLS, or NewLoopback with credentials/local": cognitogrpc.New(newSource(t, pool)),
		"cognitogrpc: the connection is neither TLS nor one of credentials/local, want one of these": cognitogrpc.NewLoopback(newSource(t, pool)),
	} {
		md, err := creds.GetRequestMetadata(t.Context(), "https://api.example.com/x")
		if s := status.Convert(err); md != nil || s.Code() != codes.Unauthenticated || s.Message() != want {
			t.Errorf("got %v, %v, want UNAUTHENTICATED: %s", md, err, want)
		}
	}
	if n := pool.Requests(cognitotest.Token); n != 0 {
		t.Errorf("%d token requests, want none", n)
	}
}

func TestCodes(t *testing.T) {
	for name, tc := range map[string]struct {
		fault   cognitotest.Fault
		timeout time.Duration
		want    codes.Code
		text    string
	}{
		"invalid_client": {cognitotest.Fault{Status: 400, Body: []byte(`{"error":"invalid_client"}`)}, 0, codes.Unauthenticated, `cognito: token request failed: status 400: error is "invalid_client"`},
		"503":            {cognitotest.Fault{Status: 503}, 0, codes.Unavailable, "cognito: token request failed: status 503"},
		"no network":     {cognitotest.Fault{Drop: true}, 0, codes.Unavailable, "cognito: token request failed: EOF"},
		"out of time":    {cognitotest.Fault{Hang: true}, 50 * time.Millisecond, codes.DeadlineExceeded, "cognito: waiting for a token"},
	} {
		t.Run(name, func(t *testing.T) {
			pool := startPool(t)
			pool.Fail(cognitotest.Token, tc.fault)
			creds := cognitogrpc.New(newSource(t, pool))
			ctx := credentials.NewContextWithRequestInfo(t.Context(), credentials.RequestInfo{AuthInfo: credentials.TLSInfo{
				CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
			}})
			if tc.timeout != 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tc.timeout)
				defer cancel()
			}
			md, err := creds.GetRequestMetadata(ctx)
			if md != nil || status.Code(err) != tc.want || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, %v, want %v: %s", md, err, tc.want, tc.text)
			}
			if strings.Contains(err.Error(), cognitotest.DemoClientSecret) {
				t.Errorf("the error has the secret in it: %v", err)
			}
		})
	}
}
