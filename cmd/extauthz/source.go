package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/opa"
	"github.com/cognito-extauthz/extauthz/internal/reload"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// watchPolicy has the policy's directory, if there is one, read again when it changes.
func watchPolicy(ctx context.Context, cfg *config.Config, files *reload.Watcher, engine *policy.Engine) error {
	if cfg.Policy.Dir == "" {
		return nil
	}
	err := files.Add(reload.File{
		Name: "policy.dir", Path: cfg.Path(cfg.Policy.Dir),
		Fingerprint: engine.Fingerprint,
		Use: func(revision []byte) error {
			if string(revision) == engine.Revision() {
				return nil
			}
			return engine.Reload(ctx)
		},
	})
	if err != nil {
		return fmt.Errorf("policy.dir: %w", err)
	}
	return nil
}

// newBundles makes ready what the section opa names, if there is one, for an engine to begin with.
func newBundles(ctx context.Context, cfg *config.Config, engine *policy.Engine, log *slog.Logger) (*bundles, error) {
	b := &bundles{engine: engine}
	if len(cfg.OPA) == 0 {
		return b, nil
	}
	c := opa.Config{Section: cfg.OPA, Getenv: os.LookupEnv, MinRevision: cfg.Policy.MinRevision, Logger: log}
	if cfg.HasBundles() {
		c.Load = b.load
	}
	var err error
	if b.source, err = opa.New(ctx, c); err != nil {
		return nil, fmt.Errorf("opa: %w", err)
	}
	return b, nil
}

// run fetches policies until ctx ends. An error means that it could not begin to.
func (b *bundles) run(ctx context.Context) error {
	if b.source == nil {
		return nil
	}
	return b.source.Run(ctx)
}

// await returns true when there is a policy to decide by; false if ctx ends before.
func (b *bundles) await(ctx context.Context, cfg *config.Config) bool {
	if !cfg.HasBundles() {
		return true
	}
	select {
	case <-b.source.Loaded():
		return true
	case <-ctx.Done():
		return false
	}
}

// bundleStatus is the state of a bundle.
type bundleStatus struct {
	Name        string    `json:"name"`
	Revision    string    `json:"revision"`
	CheckedAt   time.Time `json:"checked_at,omitzero"`
	ActivatedAt time.Time `json:"activated_at,omitzero"`
	Activations uint64    `json:"activations"`
	Failures    uint64    `json:"failures"`
	Error       string    `json:"error,omitempty"`
}

func (b *bundles) status() []bundleStatus {
	if b.source == nil {
		return nil
	}
	var all []bundleStatus
	for _, s := range b.source.Bundles() {
		all = append(all, bundleStatus{
			Name: s.Name, Revision: s.Revision, CheckedAt: s.CheckedAt, ActivatedAt: s.ActivatedAt, Activations: s.Activations, Failures: s.Failures, Error: textOf(s.Err),
		})
	}
	return all
}

// observe shows the state of bundles as metrics.
func (b *bundles) observe(meter metric.Meter) error {
	if b.source == nil {
		return nil
	}
	current, err1 := meter.Int64ObservableGauge("extauthz.bundle.current",
		metric.WithDescription("1 if what decides is the bundle as its server has it now, 0 if the last good one goes on or none came."))
	age, err3 := meter.Float64ObservableGauge("extauthz.bundle.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the bundle's server last answered. Absent before it did."))
	activations, err2 := meter.Int64ObservableCounter("extauthz.bundle.activations",
		metric.WithDescription("Bundles that were taken (ok), or could not be fetched or used (failed)."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, s := range b.source.Bundles() {
			name := attribute.String("bundle", s.Name)
			if !s.CheckedAt.IsZero() {
				o.ObserveFloat64(age, time.Since(s.CheckedAt).Seconds(), metric.WithAttributes(name))
			}
			o.ObserveInt64(current, asInt(s.Err == nil && !s.ActivatedAt.IsZero()), metric.WithAttributes(name))
			o.ObserveInt64(activations, int64(s.Activations), metric.WithAttributes(name, attribute.String("result", "ok")))
			o.ObserveInt64(activations, int64(s.Failures), metric.WithAttributes(name, attribute.String("result", "failed")))
		}
		return nil
	}, current, activations, age)
	return err
}
