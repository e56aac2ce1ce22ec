package unary

import (
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// A stream that the final GOAWAY names is answered, however close the two come: the connection does not finish in between.
func TestLastStreamIsAnswered(t *testing.T) {
	s := New(Config{Methods: map[string]Handler{}})
	here, there := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, here) }()
	c := newConn(s, there)
	c.drain()
	s.beginning = func() {
		c.mu.Lock()
		c.sayLast()
		c.mu.Unlock()
		_ = c.flush(false)
	}
	block := block(field{":method", "POST"}, field{":scheme", "http"}, field{":path", "/a/b"}, field{":authority", "a"},
		field{"content-type", "application/grpc"})
	if _, err := c.headers(readHeaders(t, block)); err != nil {
		t.Fatal(err)
	}
	_ = there.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished || len(c.out) > 0 || c.named != 0 {
		t.Errorf("finished %v, and then %d bytes on stream 1 with stream %d named, want none and 0", c.finished, len(c.out), c.named)
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

// Saying farewell may take long, with TLS and a client that does not read. It holds up nobody who looks at the connection, as the
// watchdog does at all of them.
func TestFarewellHoldsUpNobody(t *testing.T) {
	here, there := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, here) }()
	nc := slowEnd{there, make(chan bool), make(chan bool)}
	c := newConn(New(Config{}), nc)
	c.drain()
	c.mu.Lock()
	c.sayLast()
	c.mu.Unlock()
	done := make(chan error)
	go func() { done <- c.flush(false) }()
	<-nc.began
	if !c.mu.TryLock() {
		t.Error("the connection is locked")
	} else {
		c.mu.Unlock()
	}
	close(nc.end)
	<-done
	_ = there.Close()
}

type slowEnd struct {
	net.Conn
	began, end chan bool
}

func (s slowEnd) CloseWrite() error {
	s.began <- true
	<-s.end
	return nil
}
