package main

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/reload"
)

// newTLS returns what listen.tls says, nil if that is nothing. Its files are read again when they change: each connection gets
// what is current when it begins.
func newTLS(cfg *config.Config, files *reload.Watcher) (*tls.Config, error) {
	t := cfg.Listen.TLS
	if !t.Enabled() {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	var current atomic.Pointer[tls.Config]
	err := files.Add(reload.File{
		Name: "listen.tls", Path: cfg.Path(t.CertFile),
		Fingerprint: reload.Together(cfg.Path(t.CertFile), cfg.Path(t.KeyFile), cfg.Path(t.ClientCAFile)),
		Use: func([]byte) error {
			c, err := loadTLS(cfg)
			if err == nil {
				current.Store(c)
			}
			return err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("listen.tls: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil },
	}, nil
}

// loadTLS reads the files of listen.tls.
func loadTLS(cfg *config.Config) (*tls.Config, error) {
	t := cfg.Listen.TLS
	cert, err := tls.LoadX509KeyPair(cfg.Path(t.CertFile), cfg.Path(t.KeyFile))
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
		SessionTicketsDisabled: true, // a session that is resumed is that of an authority which may be trusted no more
	}
	if t.ClientCAFile != "" {
		if c.ClientCAs, _, err = loadRoots(cfg.Path(t.ClientCAFile)); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}
