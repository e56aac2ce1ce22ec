package unary_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// Mixed load for a while: quick, slow and forgetful handlers, long messages, deadlines, cancellations, clients that come and
// go, servers that drain. Each call has its own answer or an error that it has asked for, and nothing is left. EXTAUTHZ_SOAK=60s
// says for how long.
func TestSoak(t *testing.T) {
	long := time.Second
	if text := os.Getenv("EXTAUTHZ_SOAK"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	quick := func(_ context.Context, dst, msg []byte) ([]byte, unary.Status) {
		return append(dst, msg...), unary.Status{}
	}
	methods := map[string]unary.Handler{
		"/soak.Soak/Quick": quick,
		"/soak.Soak/Slow": func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
			unary.Detach(ctx)
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			return quick(ctx, dst, msg)
		},
		"/soak.Soak/Forgetful": func(ctx context.Context, dst, msg []byte) ([]byte, unary.Status) {
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			return quick(ctx, dst, msg)
		},
	}
	var paths []string
	for path := range methods {
		paths = append(paths, path)
	}
	ctx, stop := context.WithTimeout(t.Context(), long)
	defer stop()
	var answered, ended atomic.Int64
	for ctx.Err() == nil { // a server after the other, each drained under load
		l, s := listen(t, func(c *unary.Config) { c.Methods = methods })
		var clients sync.WaitGroup
		round, cancel := context.WithTimeout(ctx, min(long/2, 5*time.Second))
		for range 4 {
			clients.Go(func() {
				for round.Err() == nil {
					soakClient(t, round, l.Addr().String(), paths, &answered, &ended)
				}
			})
		}
		<-round.Done()
		cancel()
		grace, cancel := context.WithTimeout(t.Context(), patience)
		if err := s.Shutdown(grace); err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
		cancel()
		clients.Wait()
		s.Close()
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d answers, %d ended by the client; heap %d KiB, %d goroutines", answered.Load(), ended.Load(), m.HeapAlloc>>10, runtime.NumGoroutine())
	if answered.Load() == 0 {
		t.Error("no answers")
	}
}

// soakClient makes calls over a connection of its own for a while.
func soakClient(t *testing.T, ctx context.Context, addr string, paths []string, answered, ended *atomic.Int64) { //nolint:revive // t first, as everywhere
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	var calls sync.WaitGroup
	for worker := range 8 {
		calls.Go(func() {
			for i := range 100 {
				text := fmt.Sprint(worker, " ", i, " ", strings.Repeat("x", rand.IntN(3000)))
				if i == 50 {
					text += strings.Repeat("y", 200<<10)
				}
				timeout := time.Minute
				if i%10 == 0 {
					timeout = time.Duration(rand.IntN(2000)) * time.Microsecond
				}
				call, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
				if i%10 == 1 {
					time.AfterFunc(time.Duration(rand.IntN(1000))*time.Microsecond, cancel)
				}
				var reply []byte
				err := conn.Invoke(call, paths[i%len(paths)], []byte(text), &reply, grpc.ForceCodec(bytesCodec{}))
				mine := call.Err() != nil
				cancel()
				switch code := status.Code(err); {
				case err == nil && string(reply) == text:
					answered.Add(1)
				case err == nil:
					t.Errorf("an answer of %d bytes, want the %d of the question", len(reply), len(text))
				case mine && (code == codes.DeadlineExceeded || code == codes.Canceled):
					ended.Add(1)
				case code == codes.DeadlineExceeded && timeout < time.Second:
					ended.Add(1)
				case ctx.Err() != nil && code == codes.Unavailable:
					return // the server is gone
				default:
					t.Errorf("%v", err)
				}
			}
		})
	}
	calls.Wait()
}

// bytesCodec sends bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string                  { return "proto" }
func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}
