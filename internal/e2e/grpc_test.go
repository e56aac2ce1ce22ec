package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// call calls a method of a gRPC service behind Envoy, as a generated client does.
func (g *gateway) call(t *testing.T, method string, headers ...string) (*lab.Echoed, *status.Status) {
	t.Helper()
	conn, err := grpc.NewClient(g.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	for _, f := range toFields(headers) {
		ctx = metadata.AppendToOutgoingContext(ctx, f[0], f[1])
	}
	var reply wrapperspb.StringValue
	if err := conn.Invoke(ctx, method, &emptypb.Empty{}, &reply); err != nil {
		return nil, status.Convert(err)
	}
	var seen lab.Echoed
	if err := json.Unmarshal([]byte(reply.GetValue()), &seen); err != nil {
		t.Fatalf("%v in %q", err, reply.GetValue())
	}
	return &seen, nil
}

func TestGRPCCallReachesTheService(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]*gateway{"shipped": shipped(t), "open": open(t)} {
		seen, refused := g.call(t, "/shop.v1.Orders/Create", bearer(t, batchID))
		if refused != nil {
			t.Fatalf("%s: got %v, want an answer", name, refused)
		}
		got := []string{
			seen.Method, seen.Path, seen.Proto, strings.Join(seen.Headers["content-type"], ","), strings.Join(seen.Headers["x-auth-client-id"], ","),
			strings.Join(seen.Headers["authorization"], ","), strings.Join(seen.Headers["te"], ","),
		}
		want := []string{"POST", "/shop.v1.Orders/Create", "HTTP/2.0", "application/grpc", batchID, "", "trailers"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: method, path, protocol, content-type, client id, authorization, te: -want +got:\n%s", name, diff)
		}
	}
}

// A gRPC caller gets the status that fits, and one line that names the reason, whatever Envoy would make of the HTTP
// status.
func TestGRPCCallersGetGRPCStatuses(t *testing.T) {
	t.Parallel()
	batch := bearer(t, batchID)
	dark := "Authorization: Bearer " + pool(t, darkPool).Token(batchID)
	tests := []struct {
		name    string
		gateway *gateway
		method  string
		headers []string
		code    codes.Code
		reason  string
	}{
		{"no token", shipped(t), "/shop.v1.Orders/Create", nil, codes.Unauthenticated, "missing_token"},
		{"a bad token", shipped(t), "/shop.v1.Orders/Create", []string{"Authorization: Bearer junk"}, codes.Unauthenticated, "malformed"},
		{"two tokens", shipped(t), "/shop.v1.Orders/Create", []string{batch, batch}, codes.InvalidArgument, "invalid_request"},
		{"an ambiguous path", shipped(t), "/shop.v1.Orders/%252e%252e", []string{batch}, codes.InvalidArgument, "invalid_path"},
		{"another service", shipped(t), "/shop.v1.Admin/Create", []string{batch}, codes.PermissionDenied, "no_route"},
		{"a scope missing", shipped(t), "/shop.v1.Orders/Create", []string{bearer(t, reportsID)}, codes.PermissionDenied, "insufficient_scope"},
		{"another client", shipped(t), "/shop.v1.Orders/Create", []string{bearer(t, outsiderID)}, codes.PermissionDenied, "client_not_allowed"},
		{"no keys", shipped(t), "/dark", []string{dark}, codes.Unavailable, "keys_unavailable"},
		{"content type with a suffix", shipped(t), "/shop.v1.Orders/Create", []string{"X-Unused: 1"}, codes.Unauthenticated, "missing_token"},
		{"policy: no", ownShipped(t), "/shop.v1.Orders/no", []string{batch}, codes.PermissionDenied, "policy_denied"},
		{"policy: too many requests", ownShipped(t), "/shop.v1.Orders/quota", []string{batch}, codes.PermissionDenied, "quota_used_up"},
		{"policy: a body of its own", ownShipped(t), "/shop.v1.Orders/own-body", []string{batch}, codes.PermissionDenied, "policy_denied"},
		{"policy: fails", ownShipped(t), "/shop.v1.Orders/conflict", []string{batch}, codes.Unavailable, "policy_error"},
		{"policy: undefined", ownShipped(t), "/shop.v1.Orders/no-such-case", []string{batch}, codes.Unavailable, "policy_undefined"},
	}
	line := regexp.MustCompile(`^([a-z_]+) \(decision [0-9a-f]{32}\)$`)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seen, got := tt.gateway.call(t, tt.method, tt.headers...)
			if seen != nil {
				t.Fatalf("the service saw %+v, want no request there", seen)
			}
			if got.Code() != tt.code {
				t.Errorf("got %v, want code %v", got, tt.code)
			}
			if found := line.FindStringSubmatch(got.Message()); found == nil || found[1] != tt.reason {
				t.Errorf("the message is %q, want one line with the reason %s", got.Message(), tt.reason)
			}
		})
	}
}

// Answers to content types of gRPC's family are for gRPC callers, also where Envoy does not know them and leaves them in
// their HTTP form. One that only begins like gRPC's is no gRPC.
func TestGRPCContentTypes(t *testing.T) {
	t.Parallel()
	g := shipped(t)
	const trailersOnly, plain, problem = "200 16 application/grpc", "401 16 text/plain; charset=utf-8", "401  application/problem+json"
	for contentType, want := range map[string]string{
		"application/grpc": trailersOnly, "application/grpc+proto": trailersOnly,
		"Application/GRPC": plain, "application/grpc; charset=utf-8": plain, "application/grpc-web": plain, "application/grpc-web-text": plain,
		"application/grpcx": problem, "application/json": problem, "": problem,
	} {
		a := g.sendH2(t, h2("POST", "/shop.v1.Orders/Create", field{"content-type", contentType}))
		got := fmt.Sprintf("%d %s %s", a.status, a.header.Get("Grpc-Status"), a.header.Get("Content-Type"))
		if got != want {
			t.Errorf("%s: status, grpc-status, content-type are %q, want %q", contentType, got, want)
		}
	}
}
