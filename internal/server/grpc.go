package server

import (
	"context"
	"fmt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	protobuf "google.golang.org/protobuf/proto"
)

// A Checker answers Envoy's checks. Neither method may fail otherwise than by its answer.
type Checker interface {
	Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error)
	// Undecodable answers a message that is no CheckRequest.
	Undecodable(ctx context.Context) *authv3.CheckResponse
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
	checker := srv.(Checker)
	var msg message
	if err := decode(&msg); err != nil {
		return checker.Undecodable(ctx), nil
	}
	req := new(authv3.CheckRequest)
	if err := protobuf.Unmarshal(msg, req); err != nil {
		return checker.Undecodable(ctx), nil
	}
	resp, err := checker.Check(ctx, req)
	if err != nil || resp == nil {
		return checker.Undecodable(ctx), nil //nolint:nilerr // a gRPC error may be an allow to Envoy
	}
	return resp, nil
}

// A message is the bytes of a gRPC message.
type message []byte

// codec is the one for protobuf, which also hands out a message undecoded.
type codec struct{}

var standard = encoding.GetCodecV2(proto.Name)

func (codec) Name() string { return proto.Name }

func (codec) Marshal(v any) (mem.BufferSlice, error) { return standard.Marshal(v) }

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
