package server

import (
	"context"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// A Checker answers Envoy's checks.
type Checker interface {
	// CheckMessage answers the bytes of a CheckRequest with those of a CheckResponse, which it appends to dst. Whatever the
	// bytes are, there is an answer. They are nil if the message was compressed or too long.
	CheckMessage(ctx context.Context, dst, msg []byte) []byte
}

// quickMessage is how long a message may be to be read in some microseconds. One with a body that a policy looks at is not.
const quickMessage = 32 << 10

// authorizationService is the name of Envoy's service.
var authorizationService = authv3.Authorization_ServiceDesc.ServiceName

// methods are what listen.grpc serves. The handler of Check gets the bytes of a message as they came: a generated one would
// answer bytes that are no CheckRequest with a gRPC error, and that may be an allow to Envoy.
func (s *Server) methods() map[string]unary.Handler {
	return map[string]unary.Handler{
		authv3.Authorization_Check_FullMethodName: func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
			if len(msg) > quickMessage {
				unary.Detach(ctx)
			}
			return s.cfg.Checker.CheckMessage(ctx, dst, msg), unary.Status{}
		},
		healthv1.Health_Check_FullMethodName: decoded(s.health.Check),
		healthv1.Health_List_FullMethodName:  decoded(s.health.List),
		// Its streams would keep a drain from ending. Envoy does not use it.
		healthv1.Health_Watch_FullMethodName: func(_ context.Context, dst, _ []byte) ([]byte, unary.Status) {
			return dst, unary.Status{Code: codes.Unimplemented, Message: "use Check"}
		},
	}
}

// decoded is a handler whose messages are decoded and encoded.
func decoded[Req any, Resp proto.Message, P interface {
	*Req
	proto.Message
}](f func(context.Context, P) (Resp, error),
) unary.Handler {
	return func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
		if msg == nil {
			return dst, unary.Status{Code: codes.Unimplemented, Message: "the message is compressed or too long"}
		}
		req := P(new(Req))
		if err := proto.Unmarshal(msg, req); err != nil {
			return dst, unary.Status{Code: codes.Internal, Message: "the message cannot be decoded"}
		}
		resp, err := f(ctx, req)
		if err != nil {
			s := status.Convert(err)
			return dst, unary.Status{Code: s.Code(), Message: s.Message()}
		}
		out, err := proto.MarshalOptions{}.MarshalAppend(dst, resp)
		if err != nil {
			return dst, unary.Status{Code: codes.Internal, Message: "the answer cannot be encoded"}
		}
		return out, unary.Status{}
	}
}
