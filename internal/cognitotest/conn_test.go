package cognitotest

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestConnAcceptedWhileClosing: a connection that the listener hands out last must not outlive Close.
func TestConnAcceptedWhileClosing(t *testing.T) {
	t.Parallel()
	s, err := Start(Config{Pools: []PoolConfig{DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	here, there := net.Pipe()
	defer there.Close()
	s.trackConn(here, http.StateNew)
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read from the other end: %v, want %v", err, io.EOF)
	}
	s.trackConn(here, http.StateClosed)
}
