package server

import (
	"context"
	"fmt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// A Checker answers Envoy's checks.
type Checker interface {
	// CheckMessage answers the bytes of a CheckRequest with those of a CheckResponse. Whatever the bytes are, there is an
	// answer.
	CheckMessage(ctx context.Context, msg []byte) []byte
}

// authorization describes envoy.service.auth.v3.Authorization as the generated code does, but for one thing: its
// handler gets the bytes of a message as they came. The generated handler would answer bytes that are no
// CheckRequest with a gRPC error, and that may be an allow to Envoy.
var authorization = grpc.ServiceDesc{
	ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
	HandlerType: (*Checker)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: handleCheck}},
	Metadata:    authv3.Authorization_ServiceDesc.Metadata,
}

//nolint:revive // the order of the arguments is grpc.MethodHandler's
func handleCheck(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var msg message
	if err := decode(&msg); err != nil {
		msg = nil // an empty message is answered with a denial; a gRPC error may be an allow to Envoy
	}
	return message(srv.(Checker).CheckMessage(ctx, msg)), nil
}

// A message is the bytes of a gRPC message.
type message []byte

// codec is the one for protobuf, which also takes and hands out a message as it is.
type codec struct{}

var standard = encoding.GetCodecV2(proto.Name)

func (codec) Name() string { return proto.Name }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if msg, ok := v.(message); ok {
		return mem.BufferSlice{mem.SliceBuffer(msg)}, nil
	}
	return standard.Marshal(v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if msg, ok := v.(*message); ok {
		*msg = data.Materialize()
		return nil
	}
	if err := standard.Unmarshal(data, v); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
