package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/reload"
)

// writeCertificate makes a certificate that is its own authority, and returns its files.
func writeCertificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestServerTLS(t *testing.T) {
	cert, key := writeCertificate(t)
	otherCert, otherKey := writeCertificate(t)
	pair := func(cert, key string) []tls.Certificate {
		p, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{p}
	}
	roots, _, err := loadRoots(cert)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		ca     string
		client *tls.Config
		want   bool
	}{
		{"no client certificate, and none wanted", "", &tls.Config{}, true},
		{"TLS 1.1", "", &tls.Config{MaxVersion: tls.VersionTLS11}, false},
		{"no client certificate, and one wanted", cert, &tls.Config{}, false},
		{"the client certificate that is wanted", cert, &tls.Config{Certificates: pair(cert, key)}, true},
		{"a client certificate of another authority", cert, &tls.Config{Certificates: pair(otherCert, otherKey)}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := &config.Config{Listen: config.Listen{TLS: config.TLS{CertFile: cert, KeyFile: key, ClientCAFile: test.ca}}}
			server, err := newTLS(cfg, reload.New(slog.New(slog.DiscardHandler)))
			if err != nil {
				t.Fatal(err)
			}
			here, there := net.Pipe()
			defer func() { _ = here.Close(); _ = there.Close() }()
			ended := make(chan error, 1)
			go func() {
				err := tls.Server(here, server).HandshakeContext(t.Context())
				if err != nil {
					_ = here.Close()
				}
				ended <- err
			}()
			client := test.client.Clone()
			client.RootCAs, client.ServerName, client.NextProtos = roots, "127.0.0.1", []string{"h2"}
			conn := tls.Client(there, client)
			clientErr := conn.HandshakeContext(t.Context())
			if clientErr != nil {
				_ = there.Close()
			} else {
				go func() { _, _ = conn.Read(make([]byte, 1)) }() // takes what the server says at the end of TLS 1.3's handshake
			}
			if err := <-ended; (err == nil && clientErr == nil) != test.want {
				t.Errorf("handshake: server %v, client %v, want it to succeed: %v", err, clientErr, test.want)
			}
		})
	}
	if got, err := newTLS(&config.Config{}, reload.New(slog.New(slog.DiscardHandler))); got != nil || err != nil {
		t.Errorf("without a certificate: %v and error %v, want neither", got, err)
	}
}
