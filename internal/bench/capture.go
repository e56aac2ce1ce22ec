package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// placeholder stands in captured requests where a token goes.
const placeholder = "TOKEN"

// A recorder lets everything through and keeps the last request.
type recorder struct {
	authv3.UnimplementedAuthorizationServer
	requests chan *authv3.CheckRequest
}

func (r recorder) Check(_ context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	r.requests <- req
	return &authv3.CheckResponse{
		Status:       &status.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}},
	}, nil
}

// capture returns what a real Envoy with the shipped configuration sends for the measured requests, by the names of their files.
func capture(ctx context.Context) (map[string]*authv3.CheckRequest, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := recorder{requests: make(chan *authv3.CheckRequest, 1)}
	g := grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, r)
	go func() { _ = g.Serve(listener) }() // ends with Stop
	defer g.Stop()

	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	e, err := startEnvoy(ctx, dir, listener.Addr().(*net.TCPAddr).Port, []lab.Edit{})
	if err != nil {
		return nil, err
	}
	defer e.Kill()
	all := make(map[string]*authv3.CheckRequest)
	for name, target := range map[string]string{readOrder: "GET /orders/42", createOrder: "POST /orders"} {
		conn, err := dialHTTP(ctx, e.Address)
		if err != nil {
			return nil, err
		}
		_, err = conn.do(httpRequest(target, placeholder))
		_ = conn.Close()
		if err != nil {
			return nil, err
		}
		req := <-r.requests
		req.GetAttributes().GetRequest().GetHttp().GetHeaders()["x-forwarded-for"] = "192.0.2.2" // for this machine's own address
		all[name] = req
	}
	return all, nil
}

// writeCaptured writes the requests into a directory.
func writeCaptured(dir string, all map[string]*authv3.CheckRequest) error {
	for name, req := range all {
		text, err := protojson.Marshal(req)
		if err != nil {
			return err
		}
		var pretty bytes.Buffer // protojson's own spacing changes from build to build
		if err := json.Indent(&pretty, text, "", "  "); err != nil {
			return err
		}
		pretty.WriteByte('\n')
		if err := os.WriteFile(filepath.Join(dir, name+".json"), pretty.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}
