package lab

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Echoed is what the echo upstream answers: the request as it arrived.
type Echoed struct {
	Method    string              `json:"method"`
	Path      string              `json:"path"` // the request target as sent, with the query
	Host      string              `json:"host"`
	Proto     string              `json:"proto"`              // "HTTP/1.1", "HTTP/2.0"
	Headers   map[string][]string `json:"headers"`            // names in lower case; the values of a name in their order
	BodyBytes int64               `json:"body_bytes"`         // length of the body, which is not kept
	Trailers  map[string][]string `json:"trailers,omitempty"` // names in lower case
}

// An Echo is an upstream for HTTP/1.1 and HTTP/2 without TLS, both on one port. It answers every request with 200 and an
// [Echoed] as JSON. A gRPC request of any method gets status OK and the JSON in one google.protobuf.StringValue.
type Echo struct {
	Address  string // host and port
	server   *http.Server
	ended    chan struct{}
	requests atomic.Int64
}

// StartEcho listens on a loopback address; port 0 takes a free one.
func StartEcho(address string) (*Echo, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("lab: echo upstream: %w", err)
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		_ = listener.Close() // nothing was served on it
		return nil, fmt.Errorf("lab: echo upstream: found address %s, want a loopback one", address)
	}
	e := &Echo{Address: listener.Addr().String(), ended: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	e.server = &http.Server{Handler: http.HandlerFunc(e.serve), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(e.ended)
		_ = e.server.Serve(listener) // always http.ErrServerClosed: Close is the only way to its end
	}()
	return e, nil
}

// Requests returns how many requests have arrived.
func (e *Echo) Requests() int64 { return e.requests.Load() }

// Close ends the listener and all connections, and waits until nothing is served any more.
func (e *Echo) Close() error {
	err := e.server.Close()
	<-e.ended
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("lab: echo upstream: %w", err)
	}
	return nil
}

func (e *Echo) serve(w http.ResponseWriter, r *http.Request) {
	e.requests.Add(1)
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, "cannot read the body", http.StatusBadRequest)
		return
	}
	answer, err := json.Marshal(Echoed{
		Method:    r.Method,
		Path:      r.RequestURI,
		Host:      r.Host,
		Proto:     r.Proto,
		Headers:   lowerNames(r.Header),
		BodyBytes: n,
		Trailers:  lowerNames(r.Trailer),
	})
	if err != nil { // a struct of strings and numbers always encodes
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		serveGRPC(w, string(answer))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(answer, '\n')) // a client that has gone needs no answer
}

// serveGRPC writes text as a gRPC answer: one message, uncompressed, and the status in the trailers.
func serveGRPC(w http.ResponseWriter, text string) {
	message, err := proto.Marshal(wrapperspb.String(text))
	if err != nil { // only text that is not UTF-8, which JSON always is
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	_, _ = w.Write(append(frame, message...)) // a client that has gone needs no answer
	w.Header().Set("Grpc-Status", "0")
}

// lowerNames leaves out names without a value: trailers that were announced but did not come.
func lowerNames(h http.Header) map[string][]string {
	lower := make(map[string][]string, len(h))
	for name, values := range h {
		if len(values) > 0 {
			lower[strings.ToLower(name)] = values
		}
	}
	return lower
}
