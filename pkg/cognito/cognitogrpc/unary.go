package cognitogrpc

import (
	"context"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
)

// UnaryClientInterceptor is one for grpc.WithUnaryInterceptor, beside the credentials of this package: it makes a call that
// was refused for its token once more, with a newer one. Without such credentials it does nothing.
//
// A call counts as refused for its token if it ends with UNAUTHENTICATED and, in the header or trailer of the answer, a
// "www-authenticate" with error="invalid_token" (RFC 6750 section 3.1), as extauthz answers: a gateway's refusal, which the
// service has not seen. A service that says so itself must do it before the call has an effect. An UNAUTHENTICATED without
// the challenge may be anybody's, and is not repeated. Neither are streams, whose messages are gone: see
// [cognito.TokenSource.Renew].
//
// A newer token is bought as seldom as [cognito.TokenSource.Transport] says.
func UnaryClientInterceptor(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var last lastSent
	var header, trailer metadata.MD
	ctx = context.WithValue(ctx, lastSentKey{}, &last)
	err := invoke(ctx, method, req, reply, conn, append(slices.Clone(opts), grpc.Header(&header), grpc.Trailer(&trailer))...)
	sent := last.Load()
	if status.Code(err) != codes.Unauthenticated || sent == nil {
		return err
	}
	if sent.source.Replacement(ctx, sent.token, append(header.Get(challengeKey), trailer.Get(challengeKey)...)) == nil {
		return err
	}
	return invoke(ctx, method, req, reply, conn, opts...) // the credentials have the newer token now
}

const challengeKey = "www-authenticate"

// lastSent is where the credentials leave what a call was last sent with: gRPC may make several attempts.
type lastSent struct{ atomic.Pointer[sent] }

type sent struct {
	source *cognito.TokenSource
	token  *cognito.Token
}

type lastSentKey struct{}
