package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
)

// stuck is a log that nobody reads.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) { <-s; return len(p), nil }

// A log that nobody reads changes no answer: a check that waits for it would end as a gRPC error, which Envoy may be set
// to take for an allow.
func TestStuckLogHoldsUpNoAnswer(t *testing.T) {
	pool, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	dir := t.TempDir()
	socket, file := filepath.Join(dir, "grpc.sock"), filepath.Join(dir, "extauthz.yaml")
	text := "listen: {grpc: \"unix://" + socket + "\", metrics: \"\", admin: \"\"}\nshutdown: {delay: 0s}\n" +
		"pools: {main: {issuer: \"" + pool.Pools()[0].Issuer() + "\", anyClient: true}}\n" +
		"routes: [{path: /x, methods: [GET], anyClient: true}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	log := make(stuck)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := command()
	cmd.SetArgs([]string{"serve", "--config", file})
	cmd.SetErr(log)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()

	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := authv3.NewAuthorizationClient(conn)
	req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/x", Host: "api.example.com"},
	}}}
	for i := range decisionlog.Limits.Items + 200 { // each is logged, and they are more than may wait
		call, done := context.WithTimeout(ctx, 20*time.Second)
		resp, err := client.Check(call, req, grpc.WaitForReady(true))
		done()
		if err != nil || resp.GetDeniedResponse() == nil {
			t.Fatalf("check %d: %v and error %v, want a denial", i, resp, err)
		}
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("serve ended without an error, want one that says that the log was not written")
	}
	close(log)
}
