package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
)

const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// checkTimeout is far above any answer's time, on a busy machine too. Envoy sends a deadline with each check, so this does.
const checkTimeout = 5 * time.Second

// rawCodec sends and receives bytes as they are, so that the client costs little.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// A client sends checks over a number of connections.
type client struct {
	conns []*grpc.ClientConn
	ids   atomic.Uint64
}

func newClient(address string, conns int) (*client, error) {
	c := new(client)
	for range conns {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			c.close()
			return nil, err
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

func (c *client) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// send sends one check and returns the answer's bytes, the HTTP status having been held to what the message wants.
func (c *client) send(ctx context.Context, worker int, m message, buf *[]byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	*buf = m.append(*buf, c.ids.Add(1))
	var reply []byte
	if err := c.conns[worker%len(c.conns)].Invoke(ctx, checkMethod, buf, &reply, grpc.ForceCodecV2(rawCodec{})); err != nil {
		return nil, err
	}
	status, err := httpStatus(reply)
	if err == nil && status != m.want {
		err = fmt.Errorf("the answer is %d, want %d: %q", status, m.want, reply[:min(len(reply), 400)])
	}
	return reply, err
}

// A feed hands out messages in turn: each once, or again and again.
type feed struct {
	messages []message
	again    bool
	next     atomic.Int64
}

func (f *feed) take() (message, bool) {
	i := f.next.Add(1) - 1
	if n := int64(len(f.messages)); i < n || f.again {
		return f.messages[i%n], true
	}
	return message{}, false
}

// closed keeps inFlight checks under way until the time is over or the messages are, and returns how many were answered
// rightly and how long that took. A wrong answer ends it.
func (c *client) closed(ctx context.Context, f *feed, inFlight int, window time.Duration) (int64, time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var answered atomic.Int64
	var workers sync.WaitGroup
	began := time.Now()
	for w := range inFlight {
		workers.Go(func() {
			buf := make([]byte, 0, 4<<10)
			var n int64
			defer func() { answered.Add(n) }()
			for time.Since(began) < window && ctx.Err() == nil {
				m, ok := f.take()
				if !ok {
					return
				}
				if _, err := c.send(ctx, w, m, &buf); err != nil {
					cancel(err)
					return
				}
				n++
			}
		})
	}
	workers.Wait()
	return answered.Load(), time.Since(began), context.Cause(ctx)
}

// openWorkers bounds the checks under way in an open loop. Each that has to wait for a worker is late, and its time counts
// from when it was due.
const openWorkers = 256

// tooSlow is the time of an answer at which a server does not keep up with an open loop: no pause of a busy machine is as long.
const tooSlow = time.Second

// errSlow says that a server did not keep up.
var errSlow = errors.New("did not keep up")

// open sends checks at a fixed rate, whether or not earlier ones were answered, and returns the times from when each was due
// to its answer, in ascending order: a server that stalls is charged for all that it made wait (no coordinated omission).
func (c *client) open(ctx context.Context, f *feed, rate int, window time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([]time.Duration, int(float64(rate)*window.Seconds()))
	var next atomic.Int64
	var workers sync.WaitGroup
	began := time.Now().Add(10 * time.Millisecond) // workers need a moment to start
	for w := range openWorkers {
		workers.Go(func() {
			buf := make([]byte, 0, 4<<10)
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(took)) {
					return
				}
				due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
				pause(ctx, time.Until(due))
				m, _ := f.take()
				if _, err := c.send(ctx, w, m, &buf); err != nil {
					cancel(err)
					return
				}
				if took[i] = time.Since(due); took[i] > max(window, tooSlow) {
					cancel(errSlow)
				}
			}
		})
	}
	workers.Wait()
	slices.Sort(took)
	return took, context.Cause(ctx)
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// percentile returns the value below which a share of the sorted ones is.
func percentile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}
