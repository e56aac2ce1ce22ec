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
	// CheckMessage answers the bytes of a CheckRequest with those of a CheckResponse, which it appends to dst. Whatever the
	// bytes are, there is an answer.
	CheckMessage(ctx context.Context, dst, msg []byte) []byte
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
	buf := mem.DefaultBufferPool().Get(usual)
	*buf = srv.(Checker).CheckMessage(ctx, (*buf)[:0], msg)
	return (*answer)(buf), nil
}

// usual is how many bytes an answer takes, and some more.
const usual = 2 << 10

// A message is the bytes of a gRPC message that came in. They stay as they are as long as somebody has a part of them.
type message []byte

// An answer is the bytes of one that goes out, in a buffer of gRPC's.
type answer []byte

// codec is the one for protobuf, which also takes an answer and hands out a message as they are.
type codec struct{}

var standard = encoding.GetCodecV2(proto.Name)

func (codec) Name() string { return proto.Name }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if a, ok := v.(*answer); ok {
		return mem.BufferSlice{mem.NewBuffer((*[]byte)(a), mem.DefaultBufferPool())}, nil // and given back when it is sent
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
