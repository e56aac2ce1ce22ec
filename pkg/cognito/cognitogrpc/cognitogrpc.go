// Package cognitogrpc adds access tokens to gRPC calls.
//
//	conn, err := grpc.NewClient("api.example.com:443",
//		grpc.WithTransportCredentials(credentials.NewTLS(nil)),
//		grpc.WithPerRPCCredentials(cognitogrpc.New(source)),
//		grpc.WithUnaryInterceptor(cognitogrpc.UnaryClientInterceptor))
//
// It is a package of its own so that callers of HTTP services do not link gRPC.
package cognitogrpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
)

// New returns credentials, for grpc.WithPerRPCCredentials or grpc.PerRPCCredentials, that add a token of source to each
// call as its "authorization" metadata (RFC 6750 section 2.1). They need a connection with TLS, or one that is as secure.
//
// A call for which no token can be had ends with UNAVAILABLE if one may be had later, so that a retry policy applies, with
// UNAUTHENTICATED if not, and with the code of its context if that has ended. A call that the server answers with
// UNAUTHENTICATED is repeated only with [UnaryClientInterceptor]: credentials do not see answers.
func New(source *cognito.TokenSource) credentials.PerRPCCredentials {
	return &tokens{source: source}
}

// NewLoopback returns credentials that may be used without TLS too, where the connection is made with
// google.golang.org/grpc/credentials/local, which takes connections to this machine only: for development, and for a
// sidecar that adds TLS. With google.golang.org/grpc/credentials/insecure, which says nothing of the other end, calls fail.
func NewLoopback(source *cognito.TokenSource) credentials.PerRPCCredentials {
	return &tokens{source: source, loopback: true}
}

type tokens struct {
	source   *cognito.TokenSource
	loopback bool
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (t *tokens) RequireTransportSecurity() bool { return !t.loopback }

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (t *tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if err := t.checkConnection(ctx); err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	token, err := t.source.Token(ctx)
	if err != nil {
		return nil, status.Error(code(ctx, err), err.Error())
	}
	if last, ok := ctx.Value(lastSentKey{}).(*lastSent); ok {
		last.Store(&sent{t.source, token})
	}
	return map[string]string{"authorization": token.Authorization()}, nil
}

// checkConnection looks at the connection itself: gRPC asks RequireTransportSecurity of credentials that belong to it, but
// an interceptor or another transport may not.
func (t *tokens) checkConnection(ctx context.Context) error {
	ri, _ := credentials.RequestInfoFromContext(ctx)
	if t.loopback && ri.AuthInfo != nil && ri.AuthInfo.AuthType() == "local" {
		return nil
	}
	if err := credentials.CheckSecurityLevel(ri.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
		if t.loopback {
			return errors.New("cognitogrpc: the connection is neither TLS nor one of credentials/local, want one of these")
		}
		return errors.New("cognitogrpc: the connection is not secure, want TLS, or NewLoopback with credentials/local")
	}
	return nil
}

// code returns one that may come from credentials (gRFC A54).
func code(ctx context.Context, err error) codes.Code {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Code()
	case cognito.IsTemporary(err):
		return codes.Unavailable
	}
	return codes.Unauthenticated
}
