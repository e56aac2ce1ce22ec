package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/cognito-extauthz/extauthz/internal/reload"
	"github.com/cognito-extauthz/extauthz/internal/server"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A status is what /status of the admin listener shows. Times that have not come are left out.
type status struct {
	Version        string                `json:"version"`
	ConfigRevision string                `json:"config_revision"`
	PolicyRevision string                `json:"policy_revision"`
	Pools          map[string]poolStatus `json:"pools"`
	Files          []fileStatus          `json:"files"`
	Bundles        []bundleStatus        `json:"bundles,omitempty"`
	TokenCache     *cacheStatus          `json:"token_cache,omitempty"`
	DecisionCache  *decisionCacheStatus  `json:"decision_cache,omitempty"`
}

// poolStatus is the state of a pool's keys that are fetched. Of those in a file, [status.Files] tells.
type poolStatus struct {
	Usable     bool      `json:"usable"`
	Keys       int       `json:"keys"`
	FetchedAt  time.Time `json:"fetched_at,omitzero"`
	AgeSeconds float64   `json:"age_seconds,omitzero"`
	NextFetch  time.Time `json:"next_fetch,omitzero"`
	// UnknownKeyFetchFrom is from when a token with an unknown kid may cause a fetch before that.
	UnknownKeyFetchFrom time.Time `json:"unknown_key_fetch_from,omitzero"`
	Fetches             uint64    `json:"fetches"`
	Failures            uint64    `json:"failures"`
	LastError           string    `json:"last_error,omitempty"`
}

type fileStatus struct {
	Name     string    `json:"name"`
	Path     string    `json:"path"`
	Revision string    `json:"revision"`
	LoadedAt time.Time `json:"loaded_at,omitzero"`
	Loads    uint64    `json:"loads"`
	Failures uint64    `json:"failures"`
	Error    string    `json:"error,omitempty"`
}

type cacheStatus struct {
	Verified int    `json:"verified"`
	Bytes    uint64 `json:"bytes"`
	Refused  int    `json:"refused"`
	Hits     uint64 `json:"hits"`
	Misses   uint64 `json:"misses"`
}

func (l *live) status() status {
	g := l.now.Load()
	s := status{
		Version: programVersion(), ConfigRevision: g.cfg.Revision(), PolicyRevision: g.engine.Revision(),
		Pools: make(map[string]poolStatus), Files: []fileStatus{},
	}
	for name, keys := range g.pools.remote {
		s.Pools[name] = statusOf(keys.Status())
	}
	for _, f := range l.fileStatus() {
		s.Files = append(s.Files, fileStatus{
			Name: f.Name, Path: f.Path, Revision: f.Revision, LoadedAt: f.LoadedAt, Loads: f.Loads, Failures: f.Failures, Error: textOf(f.Err),
		})
	}
	s.Bundles = l.bundles.status()
	if g.pools.cache != nil {
		c := cacheStatus(g.pools.cache.Status())
		s.TokenCache = &c
	}
	if g.cfg.DecisionCache.Enabled {
		s.DecisionCache = decisionCacheOf(g.engine)
	}
	return s
}

// fileStatus is the state of all that the configuration names, and its own.
func (l *live) fileStatus() []reload.Status {
	return slices.Concat(l.now.Load().pools.files.Status(), l.files.Status())
}

func statusOf(k validator.KeyStatus) poolStatus {
	s := poolStatus{
		Usable: k.Usable, Keys: k.Keys, FetchedAt: k.FetchedAt, NextFetch: k.NextRun, UnknownKeyFetchFrom: k.NextFetch,
		Fetches: k.Fetches, Failures: k.Failures, LastError: textOf(k.LastError),
	}
	if !k.FetchedAt.IsZero() {
		s.AgeSeconds = time.Since(k.FetchedAt).Seconds()
	}
	return s
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// observe shows the state of what decides as metrics.
func (l *live) observe(meter metric.Meter) error {
	return errors.Join(l.observeKeys(meter), l.observeFiles(meter), l.observeCache(meter), l.bundles.observe(meter), l.observePolicy(meter), l.observeDecisionCache(meter))
}

func (l *live) observeKeys(meter metric.Meter) error {
	age, err1 := meter.Float64ObservableGauge("extauthz.jwks.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the fetch that last confirmed a pool's keys began. Absent before the first."))
	usable, err2 := meter.Int64ObservableGauge("extauthz.jwks.usable",
		metric.WithDescription("1 if the pool's tokens can be verified, 0 if its checks fail."))
	fetches, err3 := meter.Int64ObservableCounter("extauthz.jwks.fetches",
		metric.WithDescription("Fetches of a pool's keys, by result."))
	next, err4 := meter.Float64ObservableGauge("extauthz.jwks.next.fetch", metric.WithUnit("s"),
		metric.WithDescription("Time until the next planned fetch of a pool's keys."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, keys := range l.now.Load().pools.remote {
			s, pool := keys.Status(), attribute.String("pool", name)
			labels := metric.WithAttributes(pool)
			if !s.FetchedAt.IsZero() {
				o.ObserveFloat64(age, time.Since(s.FetchedAt).Seconds(), labels)
			}
			if !s.NextRun.IsZero() {
				o.ObserveFloat64(next, time.Until(s.NextRun).Seconds(), labels)
			}
			o.ObserveInt64(usable, asInt(s.Usable), labels)
			o.ObserveInt64(fetches, int64(s.Fetches-s.Failures), metric.WithAttributes(pool, attribute.String("result", "ok")))
			o.ObserveInt64(fetches, int64(s.Failures), metric.WithAttributes(pool, attribute.String("result", "failed")))
		}
		return nil
	}, age, usable, fetches, next)
	return err
}

func (l *live) observeFiles(meter metric.Meter) error {
	current, err1 := meter.Int64ObservableGauge("extauthz.file.current",
		metric.WithDescription("1 if what is in use is the file as it is now, 0 if the last good one goes on."))
	loads, err2 := meter.Int64ObservableCounter("extauthz.file.loads",
		metric.WithDescription("Contents of a file that came into use (ok) or could not (failed)."))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, f := range l.fileStatus() {
			file := attribute.String("file", f.Name)
			o.ObserveInt64(current, asInt(f.Err == nil), metric.WithAttributes(file))
			o.ObserveInt64(loads, int64(f.Loads), metric.WithAttributes(file, attribute.String("result", "ok")))
			o.ObserveInt64(loads, int64(f.Failures), metric.WithAttributes(file, attribute.String("result", "failed")))
		}
		return nil
	}, current, loads)
	return err
}

func (l *live) observeCache(meter metric.Meter) error {
	tokens, err1 := meter.Int64ObservableGauge("extauthz.token.cache.tokens",
		metric.WithDescription("Tokens that are remembered: verified, or refused for their signature."))
	bytes, err2 := meter.Int64ObservableGauge("extauthz.token.cache.size", metric.WithUnit("By"),
		metric.WithDescription("Memory that verified tokens take, by estimate."))
	lookups, err3 := meter.Int64ObservableCounter("extauthz.token.cache.lookups",
		metric.WithDescription("Tokens whose signature was known (hit) or not (miss)."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		cache := l.now.Load().pools.cache
		if cache == nil {
			return nil
		}
		s := cache.Status()
		o.ObserveInt64(tokens, int64(s.Verified), metric.WithAttributes(attribute.String("state", "verified")))
		o.ObserveInt64(tokens, int64(s.Refused), metric.WithAttributes(attribute.String("state", "refused")))
		o.ObserveInt64(bytes, int64(s.Bytes))
		o.ObserveInt64(lookups, int64(s.Hits), metric.WithAttributes(attribute.String("result", "hit")))
		o.ObserveInt64(lookups, int64(s.Misses), metric.WithAttributes(attribute.String("result", "miss")))
		return nil
	}, tokens, bytes, lookups)
	return err
}

// observePolicy shows what the policy engine counts.
func (l *live) observePolicy(meter metric.Meter) error {
	_, err := meter.Int64ObservableCounter("extauthz.policy.unknown.keys",
		metric.WithDescription("Keys of decisions that mean nothing and were ignored. Only the dialect opa-envoy ignores any."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(l.now.Load().engine.Stats().UnknownKeys))
			return nil
		}))
	return err
}

// observeConnections shows the connections of listen.grpc.
func observeConnections(meter metric.Meter, srv *server.Server) error {
	connections, err1 := meter.Int64ObservableGauge("extauthz.connections",
		metric.WithDescription("Connections of listen.grpc."))
	notTaken, err2 := meter.Int64ObservableCounter("extauthz.connections.not.taken",
		metric.WithDescription("Connections that were closed because there were too many (too_many), or that the system could not hand over (accept)."))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now, turnedAway, notAccepted := srv.Connections()
		o.ObserveInt64(connections, int64(now))
		o.ObserveInt64(notTaken, turnedAway, metric.WithAttributes(attribute.String("reason", "too_many")))
		o.ObserveInt64(notTaken, notAccepted, metric.WithAttributes(attribute.String("reason", "accept")))
		return nil
	}, connections, notTaken)
	return err
}

func asInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
