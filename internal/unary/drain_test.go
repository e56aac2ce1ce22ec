package unary

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// A stream that the final GOAWAY names is answered, however close the two come: the connection does not finish in between.
func TestLastStreamIsAnswered(t *testing.T) {
	s := New(Config{Methods: map[string]Handler{}})
	block := block(field{":method", "POST"}, field{":scheme", "http"}, field{":path", "/a/b"}, field{":authority", strings.Repeat("a", 12_000)},
		field{"content-type", "application/grpc"})
	for range 200 {
		here, there := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, here) }()
		c := newConn(s, there)
		c.drain()
		f := readHeaders(t, block)
		var wg sync.WaitGroup
		wg.Go(func() {
			for named := false; !named; {
				c.mu.Lock()
				if named = c.maxID == 1; named {
					c.sayLast()
				}
				c.mu.Unlock()
			}
			_ = c.flush(false)
		})
		_, err := c.headers(f)
		wg.Wait()
		c.mu.Lock()
		if c.finished && len(c.out) > 0 {
			t.Error("the connection has finished without the answer")
		}
		c.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		_ = there.Close()
		if t.Failed() {
			return
		}
	}
}

func readHeaders(t *testing.T, block []byte) *http2.HeadersFrame {
	t.Helper()
	frame := appendHeaders(nil, 1, block, true)
	f, err := http2.NewFramer(nil, strings.NewReader(string(frame))).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	return f.(*http2.HeadersFrame)
}
