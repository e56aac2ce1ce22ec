package unary_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	echo   = "/test.Service/Echo"   // answers with the message
	fail   = "/test.Service/Fail"   // answers with a status that the message names
	hold   = "/test.Service/Hold"   // answers when it is let
	forget = "/test.Service/Forget" // the same, and does not call Detach
	boom   = "/test.Service/Boom"   // panics
)

// A backend is the handlers of the tests.
type backend struct {
	entered chan context.Context // by hold and forget
	release chan struct{}
}

func newBackend() *backend {
	return &backend{entered: make(chan context.Context, 100_000), release: make(chan struct{})}
}

func (b *backend) methods() map[string]unary.Handler {
	wait := func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
		b.entered <- ctx
		select {
		case <-b.release:
			return append(dst, msg...), unary.Status{}
		case <-ctx.Done():
			s := status.FromContextError(ctx.Err())
			return dst, unary.Status{Code: s.Code(), Message: s.Message()}
		}
	}
	return map[string]unary.Handler{
		echo: func(_ context.Context, dst, msg []byte) ([]byte, unary.Status) {
			if msg == nil {
				return append(dst, "none"...), unary.Status{}
			}
			return append(dst, msg...), unary.Status{}
		},
		fail: func(_ context.Context, dst, msg []byte) ([]byte, unary.Status) {
			return dst, unary.Status{Code: codes.NotFound, Message: string(msg)}
		},
		hold: func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
			unary.Detach(ctx)
			return wait(ctx, dst, msg)
		},
		forget: wait,
		boom:   func(context.Context, []byte, []byte) ([]byte, unary.Status) { panic("boom") },
	}
}

// serve serves on loopback until the test ends.
func serve(t testing.TB, edit func(*unary.Config)) net.Listener {
	t.Helper()
	l, s := listen(t, edit)
	_ = s
	return l
}

func listen(t testing.TB, edit func(*unary.Config)) (net.Listener, *unary.Server) {
	t.Helper()
	cfg := unary.Config{Methods: newBackend().methods(), Logger: slog.New(slog.DiscardHandler)}
	if edit != nil {
		edit(&cfg)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := unary.New(cfg)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, unary.ErrClosed) {
			t.Errorf("Serve returned %v, want ErrClosed", err)
		}
	})
	return l, s
}
