package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// pools holds the validator and what keeps its keys fresh.
type pools struct {
	validator *validator.Validator
	remote    map[string]*validator.RemoteKeys // by pool name; pools whose keys are in a file are not here
	keyed     int                              // how many pools have their keys from a file
}

func newPools(cfg *config.Config, log *slog.Logger, meter metric.Meter) (*pools, error) {
	p := &pools{remote: make(map[string]*validator.RemoteKeys)}
	configs := make([]validator.Config, 0, len(cfg.Pools))
	for name, pool := range cfg.Pools {
		keys, err := p.keys(cfg, name, pool, log)
		if err != nil {
			return nil, fmt.Errorf("pools.%s: %w", name, err)
		}
		configs = append(configs, poolConfig(cfg, name, pool, keys))
	}
	var err error
	if p.validator, err = validator.New(configs...); err != nil {
		return nil, err
	}
	if meter != nil {
		err = p.observe(meter)
	}
	return p, err
}

func poolConfig(cfg *config.Config, name string, pool config.Pool, keys validator.KeySet) validator.Config {
	c := validator.Config{
		Name:           name,
		Issuers:        pool.Issuers(),
		AllowAnyClient: pool.AnyClient,
		Audience:       pool.Audience,
		RequiredScopes: pool.RequiredScopes,
		MachinesOnly:   pool.MachinesOnly,
		Leeway:         pool.Leeway,
		ExpLeeway:      pool.ExpLeeway,
		Keys:           keys,
	}
	if pool.Leeway == 0 {
		c.Leeway = -1 // none, where zero would mean the default
	}
	if pool.ScopeMatch == config.MatchAny {
		c.ScopeMatch = validator.MatchAny
	}
	for _, use := range pool.TokenUse {
		c.TokenUses = append(c.TokenUses, validator.TokenUse(use))
	}
	for _, client := range pool.Clients {
		c.ClientIDs = append(c.ClientIDs, cfg.Clients[client].ID)
	}
	return c
}

func (p *pools) keys(cfg *config.Config, name string, pool config.Pool, log *slog.Logger) (validator.KeySet, error) {
	if pool.JWKSFile != "" {
		text, err := os.ReadFile(cfg.Path(pool.JWKSFile))
		if err != nil {
			return nil, fmt.Errorf("jwksFile: %w", err)
		}
		keys, problems, err := validator.ParseJWKS(text)
		if err != nil {
			return nil, fmt.Errorf("jwksFile: %s: %w", pool.JWKSFile, err)
		}
		if len(problems) > 0 {
			log.Warn("jwks has keys that are left out", "pool", name, "file", pool.JWKSFile, "problems", fmt.Sprint(problems))
		}
		p.keyed++
		return keys, nil
	}
	roots, err := loadRoots(cfg.Path(pool.JWKS.CAFile))
	if err != nil {
		return nil, fmt.Errorf("jwks.caFile: %w", err)
	}
	remote, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{
		URL:         pool.KeysURL(),
		MaxAge:      pool.JWKS.MaxAge,
		MinInterval: pool.JWKS.MinInterval,
		MaxStale:    pool.JWKS.MaxStale,
		Timeout:     pool.JWKS.Timeout,
		TLS:         &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		Logger:      log.With("pool", name),
	})
	if err != nil {
		return nil, err
	}
	p.remote[name] = remote
	return remote, nil
}

// loadRoots reads certificate authorities; without a file it returns nil, which means the system's.
func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // documented above
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate, want PEM", file)
	}
	return roots, nil
}

// run keeps all keys fresh until ctx ends.
func (p *pools) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, keys := range p.remote {
		wg.Go(func() { _ = keys.Run(ctx) }) // ends with ctx, without an error
	}
	wg.Wait()
}

// await returns true when every pool has keys, or when timeout has passed and one has; false if ctx ends before.
func (p *pools) await(ctx context.Context, timeout time.Duration) bool {
	ready := make(chan struct{}, len(p.remote))
	for _, keys := range p.remote {
		go func() {
			select {
			case <-keys.Ready():
				ready <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	passed := false
	for have := p.keyed; have < p.keyed+len(p.remote) && (!passed || have == 0); {
		select {
		case <-ready:
			have++
		case <-late.C:
			passed = true
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// observe shows the state of the keys as metrics.
func (p *pools) observe(meter metric.Meter) error {
	age, err1 := meter.Float64ObservableGauge("extauthz.jwks.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the fetch that last confirmed a pool's keys began. Absent before the first."))
	usable, err2 := meter.Int64ObservableGauge("extauthz.jwks.usable",
		metric.WithDescription("1 if the pool's tokens can be verified, 0 if its checks fail."))
	fetches, err3 := meter.Int64ObservableCounter("extauthz.jwks.fetches",
		metric.WithDescription("Fetches of a pool's keys, by result."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, keys := range p.remote {
			s, pool := keys.Status(), attribute.String("pool", name)
			labels := metric.WithAttributes(pool)
			if !s.FetchedAt.IsZero() {
				o.ObserveFloat64(age, time.Since(s.FetchedAt).Seconds(), labels)
			}
			o.ObserveInt64(usable, asInt(s.Usable), labels)
			o.ObserveInt64(fetches, int64(s.Fetches-s.Failures), metric.WithAttributes(pool, attribute.String("result", "ok")))
			o.ObserveInt64(fetches, int64(s.Failures), metric.WithAttributes(pool, attribute.String("result", "failed")))
		}
		return nil
	}, age, usable, fetches)
	return err
}

func asInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// clientNames returns the names of app clients. A client is a pool and an id: the same id in two pools is two.
func clientNames(cfg *config.Config) func(pool, clientID string) string {
	type client struct{ pool, id string }
	names := make(map[client]string)
	for name, pool := range cfg.Pools {
		for _, c := range pool.Clients {
			names[client{name, cfg.Clients[c].ID}] = c
		}
	}
	return func(pool, clientID string) string { return names[client{pool, clientID}] }
}

func identity(cfg *config.Config) authz.Identity {
	return authz.Identity{
		Prefix:   cfg.IdentityHeaders.Prefix,
		MaxBytes: cfg.IdentityHeaders.MaxBytes,
		Claims:   cfg.IdentityHeaders.Claims,
	}
}

func decisionLog(cfg *config.Config) authz.DecisionLog {
	var log authz.DecisionLog
	switch cfg.DecisionLog.Allowed {
	case config.LogAll:
		log.AllowedRatio = 1
	case config.LogSampled:
		log.AllowedRatio = cfg.DecisionLog.SampleRatio
	}
	for _, field := range cfg.DecisionLog.Include {
		kind, name, _ := strings.Cut(field, ".")
		switch kind {
		case "headers":
			log.Headers = append(log.Headers, strings.ToLower(name))
		case "query":
			log.Query = append(log.Query, name)
		case "claims":
			log.Claims = append(log.Claims, name)
		}
	}
	return log
}

func serverTLS(cfg *config.Config) (*tls.Config, error) {
	t := cfg.Listen.TLS
	if !t.Enabled() {
		return nil, nil //nolint:nilnil // no TLS is no error
	}
	cert, err := tls.LoadX509KeyPair(cfg.Path(t.CertFile), cfg.Path(t.KeyFile))
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if t.ClientCAFile != "" {
		if c.ClientCAs, err = loadRoots(cfg.Path(t.ClientCAFile)); err != nil {
			return nil, err
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}
