package unary_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // as an OTLP exporter registers it
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// reference serves the methods of a backend with grpc-go, set as internal/server once had it.
func reference(t *testing.T, methods map[string]unary.Handler) net.Listener {
	t.Helper()
	desc := grpc.ServiceDesc{ServiceName: "test.Service", HandlerType: (*any)(nil)}
	for path, h := range methods {
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: strings.TrimPrefix(path, "/test.Service/"),
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var msg []byte
				if err := decode(&msg); err != nil {
					return nil, err
				}
				out, s := h(ctx, nil, msg)
				return out, status.Error(s.Code, s.Message)
			},
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}), grpc.MaxRecvMsgSize(math.MaxInt32))
	s.RegisterService(&desc, nil)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l
}

// The same calls to grpc-go's server and to ours have the same outcome, but for those that say otherwise.
func TestAsGRPCGo(t *testing.T) {
	b := newBackend()
	servers := map[string]string{
		"grpc-go": reference(t, b.methods()).Addr().String(),
		"unary":   serve(t, func(c *unary.Config) { c.Methods = b.methods() }).Addr().String(),
	}
	text := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	tests := []struct {
		name    string
		path    string
		msg     []byte
		edit    func(context.Context) (context.Context, context.CancelFunc)
		options []grpc.CallOption
		ours    string // where the outcome is not grpc-go's
	}{
		{name: "a message", path: echo, msg: []byte("hello")},
		{name: "an empty message", path: echo, msg: []byte{}},
		{name: "64 KiB", path: echo, msg: text(64 << 10)},
		{name: "4 MiB", path: echo, msg: text(4<<20 - 100)},
		{name: "16 MiB", path: echo, msg: text(16 << 20)},
		{name: "20 MiB", path: echo, msg: text(20 << 20), ours: "4 bytes"},
		{name: "a status", path: fail, msg: []byte("not here: 100 % \u00e4\n")},
		{name: "an unknown service", path: "/no.Service/Echo"},
		{name: "an unknown method", path: "/test.Service/None"},
		{name: "no service", path: "/Echo"},
		{name: "metadata", path: echo, msg: []byte("a"), edit: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return metadata.AppendToOutgoingContext(ctx, "x-text", strings.Repeat("v", 50_000), "x-bytes-bin", "\x00\xff"), func() {}
		}},
		{name: "a deadline", path: hold, edit: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 50*time.Millisecond)
		}},
		{name: "a deadline that has passed", path: echo, edit: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, -1)
		}},
		{name: "cancelled", path: hold, edit: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		}},
		// grpc-go decompresses what some other part of the program has registered a decompressor for.
		{name: "compressed", path: echo, msg: text(1000), options: []grpc.CallOption{grpc.UseCompressor("gzip")}, ours: "4 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := make(map[string]string)
			for name, addr := range servers {
				conn := client(t, addr)
				ctx, cancel := t.Context(), func() {}
				if tt.edit != nil {
					ctx, cancel = tt.edit(ctx)
				}
				options := append([]grpc.CallOption{grpc.ForceCodec(bytesCodec{}), grpc.MaxCallRecvMsgSize(math.MaxInt32)}, tt.options...)
				var reply []byte
				err := conn.Invoke(ctx, tt.path, tt.msg, &reply, options...)
				cancel()
				got[name] = fmt.Sprint(len(reply), " bytes")
				if err == nil && !bytes.Equal(reply, tt.msg) && tt.ours == "" {
					t.Errorf("%s: the answer is other than the question", name)
				}
				if err != nil {
					got[name] = status.Code(err).String()
					if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Canceled { // the client's own words
						got[name] = err.Error()
					}
				}
			}
			want := got["grpc-go"]
			if tt.ours != "" {
				want = tt.ours
			}
			if got["unary"] != want {
				t.Errorf("got %s, want %s (grpc-go: %s)", got["unary"], want, got["grpc-go"])
			}
		})
	}
}

func client(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Requests that no gRPC client sends, sent by net/http's, have the same HTTP status and the same grpc-status.
func TestOddRequestsAsGRPCGo(t *testing.T) {
	b := newBackend()
	servers := map[string]string{
		"grpc-go": reference(t, b.methods()).Addr().String(),
		"unary":   serve(t, func(c *unary.Config) { c.Methods = b.methods() }).Addr().String(),
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	rt := &http.Transport{Protocols: &protocols}
	defer rt.CloseIdleConnections()
	tests := []struct {
		name, method, path, contentType, body string
		header                                [2]string
		want                                  string // where it is not grpc-go's
	}{
		{name: "GET", method: "GET", path: "/"},
		{name: "POST of JSON", method: "POST", path: echo, contentType: "application/json", body: "{}"},
		{name: "grpc-web", method: "POST", path: echo, contentType: "application/grpc-web", body: "a"},
		{name: "GET of gRPC", method: "GET", path: echo, contentType: "application/grpc"},
		{name: "PUT of gRPC", method: "PUT", path: echo, contentType: "application/grpc", body: string(message("a"))},
		{name: "a subtype", method: "POST", path: echo, contentType: "application/grpc+proto", body: string(message("a"))},
		{name: "another form of it", method: "POST", path: echo, contentType: "application/grpc;proto", body: string(message("a"))},
		{name: "no message", method: "POST", path: echo, contentType: "application/grpc"},
		{name: "a cut prefix", method: "POST", path: echo, contentType: "application/grpc", body: "\x00\x00"},
		{name: "a cut message", method: "POST", path: echo, contentType: "application/grpc", body: string(message("abc")[:6])},
		{name: "two messages", method: "POST", path: echo, contentType: "application/grpc", body: string(message("a")) + string(message("b"))},
		{name: "a flag of 1", method: "POST", path: echo, contentType: "application/grpc", body: "\x01\x00\x00\x00\x00"},
		{name: "a flag of 9", method: "POST", path: echo, contentType: "application/grpc", body: "\x09\x00\x00\x00\x00"},
		{name: "a timeout that is none", method: "POST", path: echo, contentType: "application/grpc", body: string(message("a")), header: [2]string{"grpc-timeout", "soon"}},
		{name: "a timeout of nothing", method: "POST", path: echo, contentType: "application/grpc", body: string(message("a")), header: [2]string{"grpc-timeout", "0S"}},
		{name: "an unknown encoding", method: "POST", path: echo, contentType: "application/grpc", body: "\x01\x00\x00\x00\x01a", header: [2]string{"grpc-encoding", "br"}, want: "200 grpc-status 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := make(map[string]string)
			for name, addr := range servers {
				req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+addr+tt.path, strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				if tt.contentType != "" {
					req.Header.Set("Content-Type", tt.contentType)
				}
				if tt.header[0] != "" {
					req.Header.Set(tt.header[0], tt.header[1])
				}
				resp, err := rt.RoundTrip(req)
				if err != nil {
					got[name] = err.Error()
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				grpcStatus := resp.Header.Get("grpc-status") + resp.Trailer.Get("grpc-status")
				if resp.StatusCode == http.StatusUnsupportedMediaType {
					grpcStatus = "-" // grpc-go says 3; ours is no gRPC
				}
				got[name] = fmt.Sprintf("%d grpc-status %s", resp.StatusCode, grpcStatus)
			}
			want := got["grpc-go"]
			if tt.want != "" {
				want = tt.want
			}
			if got["unary"] != want {
				t.Errorf("got %s, want %s (grpc-go: %s)", got["unary"], want, got["grpc-go"])
			}
		})
	}
}

// Many calls at once, over one connection and over many, each with its own answer.
func TestManyCalls(t *testing.T) {
	addr := serve(t, nil).Addr().String()
	const each = 1000
	for _, conns := range []int{1, 50} {
		var clients []*grpc.ClientConn
		for range conns {
			clients = append(clients, client(t, addr))
		}
		var calls sync.WaitGroup
		for i := range each {
			calls.Go(func() {
				var reply []byte
				text := fmt.Sprint("call ", i)
				err := clients[i%conns].Invoke(t.Context(), echo, []byte(text), &reply, grpc.ForceCodec(bytesCodec{}))
				if err != nil || string(reply) != text {
					t.Errorf("call %d: %q, %v", i, reply, err)
				}
			})
		}
		calls.Wait()
	}
}
