package unary_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cognito-extauthz/extauthz/internal/certtest"
	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// certificate makes one, and returns what to trust for it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	a := certtest.New(t)
	a.Issue(t, "tls")
	return a.Pair(t, "tls"), a.Pool()
}

// With TLS, clients must agree on h2, and have a certificate if one is wanted.
func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	other, _ := certificate(t)
	addr := serve(t, func(c *unary.Config) {
		c.TLS = &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
			ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		}
	}).Addr().String()
	for name, tt := range map[string]struct {
		certs []tls.Certificate
		want  bool
	}{
		"the certificate that is wanted": {[]tls.Certificate{cert}, true},
		"another":                        {[]tls.Certificate{other}, false},
		"none":                           {nil, false},
	} {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: tt.certs})))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var reply []byte
			err := conn.Invoke(t.Context(), echo, []byte("hello"), &reply, grpc.ForceCodec(bytesCodec{}))
			if (err == nil && string(reply) == "hello") != tt.want {
				t.Errorf("%s: %q, %v, want an answer: %v", name, reply, err, tt.want)
			}
		}
		_ = conn.Close()
	}
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, NextProtos: protocols})
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("ALPN %v: %d bytes came, want the end", protocols, n)
		}
		_ = conn.Close()
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := unary.New(unary.Config{Methods: newBackend().methods()})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	p := connect(t, l)
	p.call(1, echo, "hello")
	if got := p.answer(1).text(); got != "hello" {
		t.Errorf("got %s, want hello", got)
	}
	s.Close()
	<-done
}
