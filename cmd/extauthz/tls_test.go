package main

import (
	"crypto/tls"
	"log/slog"
	"net"
	"testing"

	"github.com/cognito-extauthz/extauthz/internal/certtest"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/reload"
)

func TestServerTLS(t *testing.T) {
	ours, theirs := certtest.New(t), certtest.New(t)
	ours.Issue(t, "tls")
	theirs.Issue(t, "tls")
	pair := func(a *certtest.Authority) []tls.Certificate { return []tls.Certificate{a.Pair(t, "tls")} }
	ca := ours.Cert("ca")
	tests := []struct {
		name   string
		ca     string
		client *tls.Config
		want   bool
	}{
		{"no client certificate, and none wanted", "", &tls.Config{}, true},
		{"TLS 1.1", "", &tls.Config{MaxVersion: tls.VersionTLS11}, false},
		{"no client certificate, and one wanted", ca, &tls.Config{}, false},
		{"the client certificate that is wanted", ca, &tls.Config{Certificates: pair(ours)}, true},
		{"a client certificate of another authority", ca, &tls.Config{Certificates: pair(theirs)}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := &config.Config{Listen: config.Listen{TLS: config.TLS{CertFile: ours.Cert("tls"), KeyFile: ours.Key("tls"), ClientCAFile: test.ca}}}
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
			client.RootCAs, client.ServerName, client.NextProtos = ours.Pool(), "127.0.0.1", []string{"h2"}
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
