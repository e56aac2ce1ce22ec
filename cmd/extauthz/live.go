package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/opa"
	"github.com/cognito-extauthz/extauthz/internal/reload"
	"github.com/cognito-extauthz/extauthz/internal/telemetry"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A generation is what is made of one configuration to decide by. Checks that have begun with one end with it.
type generation struct {
	parts
	cfg     *config.Config
	service *authz.Service
	end     func() // of what keeps it fresh
}

// A live is the service while its configuration changes: the generation that decides, and what no change replaces.
type live struct {
	path    string
	log     *slog.Logger
	tel     *telemetry.Telemetry
	metrics *authz.Metrics
	bundles *bundles
	to      authz.DecisionRecorder
	files   *reload.Watcher // of the configuration itself, and of certificates

	now        atomic.Pointer[generation]
	background context.Context //nolint:containedctx // what keeps all generations fresh runs under it, from start on
	running    sync.WaitGroup
	fetching   map[*validator.RemoteKeys]context.CancelFunc // of one goroutine at a time: that which starts, then that which reloads
}

// CheckMessage answers by the generation that decides.
func (l *live) CheckMessage(ctx context.Context, dst, msg []byte) []byte {
	return l.now.Load().service.CheckMessage(ctx, dst, msg)
}

// HasLogRules and MaskLog are [decisionlog.Rules]: those of the policy that decided, whichever generation's that was.
func (l *live) HasLogRules(by policy.Policy) bool { return l.now.Load().engine.HasLogRules(by) }

func (l *live) MaskLog(ctx context.Context, by policy.Policy, event map[string]any) (policy.LogVerdict, error) {
	return l.now.Load().engine.MaskLog(ctx, by, event) //nolint:wrapcheck // is the method of that name
}

// start keeps what decides fresh until background ends, and watches for what is to decide next.
func (l *live) start(background context.Context) {
	l.background = background
	l.keepFresh(l.now.Load())
	l.watch()
	l.running.Go(func() { _ = l.files.Run(background) }) // ends with background, without an error
	l.running.Go(func() { followHeap(background) })
}

// look has all files read now.
func (l *live) look() {
	l.files.Look()
	l.now.Load().pools.files.Look()
}

// generation makes one of what was made of a configuration.
func (l *live) generation(cfg *config.Config, p parts) *generation {
	return &generation{parts: p, cfg: cfg, service: newService(cfg, p, l.to, l.log, l.tel, l.metrics)}
}

// keepFresh has a generation's files read and its keys fetched, until its end. Keys that the one before has are fetched already.
func (l *live) keepFresh(g *generation) {
	ctx, end := context.WithCancel(l.background)
	g.end = end
	l.running.Go(func() { _ = g.pools.files.Run(ctx) }) // ends with ctx, without an error
	l.running.Go(func() { _ = g.engine.Run(ctx) })      // likewise
	for _, keys := range g.pools.remote {
		if l.fetching[keys] != nil {
			continue
		}
		ctx, end := context.WithCancel(l.background)
		l.fetching[keys] = end
		l.running.Go(func() { _ = keys.Run(ctx) }) // likewise
	}
}

// retire ends what keeps a generation fresh, but for the keys that the other one has too. Its checks under way still end well.
func (l *live) retire(g, other *generation) {
	g.end()
	kept := slices.Collect(maps.Values(other.pools.remote))
	for _, keys := range g.pools.remote {
		if end := l.fetching[keys]; end != nil && !slices.Contains(kept, keys) {
			end()
			delete(l.fetching, keys)
		}
	}
}

// watch has the configuration read again when it changes.
func (l *live) watch() {
	if info, err := os.Stat(l.path); err == nil && !info.Mode().IsRegular() {
		l.log.Info("the configuration is no regular file: changes take effect at a restart", "path", l.path)
		return
	}
	// It may have changed since it was read. That is a change as any other, which must not hold up the start.
	text, err := reload.Read(l.path)
	if cfg, wrong := config.Parse(l.path, text, os.Environ()); err != nil || wrong != nil || cfg.Revision() != l.now.Load().cfg.Revision() {
		text = nil
	}
	l.files.Watch(reload.File{Name: "config", Path: l.path, Use: l.reload}, text)
}

// awaitKeys returns true when every pool of what decides has keys, or when startup.keysTimeout has passed and one has; false if
// ctx ends before. What decides may become another one meanwhile, whose keys come from elsewhere.
func (l *live) awaitKeys(ctx context.Context) bool {
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		g := l.now.Load()
		have, all := g.pools.ready()
		if have == all || have > 0 && time.Since(began) >= g.cfg.Startup.KeysTimeout {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// reload puts what a configuration says in place of what decides, all of it or nothing.
func (l *live) reload(text []byte) error {
	before := l.now.Load()
	cfg, err := config.Parse(l.path, text, os.Environ())
	switch {
	case err != nil:
		return err
	case cfg.Revision() == before.cfg.Revision():
		return nil // it says the same
	}
	if sections := fixed(before.cfg, cfg); len(sections) > 0 {
		return fmt.Errorf("%s: found other settings in %s, which take effect at a restart: nothing of the file is used until then", l.path, strings.Join(sections, ", "))
	}
	// From here on an error can be about something else than this text, and go away while this stays as it is.
	p, err := newParts(l.background, l.path, cfg, l.log, before.pools)
	if err == nil {
		err = p.pools.files.Settle(l.background)
	}
	if err != nil {
		return reload.Later(err)
	}
	after := l.generation(cfg, p)
	l.keepFresh(after)
	err = l.awaitNewKeys(after, before, text)
	if err == nil {
		err = l.bundles.moveTo(l.background, after.engine, func() { l.now.Store(after) })
	}
	if err != nil {
		l.retire(after, before)
		return reload.Later(fmt.Errorf("%s: %w", l.path, err))
	}
	l.retire(before, after)
	l.log.Info("configuration in use", "config_revision", cfg.Revision(), "policy_revision", after.engine.Revision(), "before", before.cfg.Revision())
	warn(l.log, cfg)
	return nil
}

// fixed names the sections that differ and are used only at the start.
func fixed(before, after *config.Config) []string {
	sections := []struct {
		name          string
		before, after any
	}{
		{"decisionLog", before.DecisionLog, after.DecisionLog},
		{"limits", before.Limits, after.Limits},
		{"listen", before.Listen, after.Listen},
		{"log", before.Log, after.Log},
		{"opa", before.OPA, after.OPA},
		{"policy.decision", before.Policy.Decision, after.Policy.Decision},
		{"policy.minRevision", before.Policy.MinRevision, after.Policy.MinRevision},
		{"shutdown", before.Shutdown, after.Shutdown},
		{"telemetry", before.Telemetry, after.Telemetry},
	}
	var differ []string
	for _, s := range sections {
		if !reflect.DeepEqual(s.before, s.after) {
			differ = append(differ, s.name)
		}
	}
	return differ
}

// awaitNewKeys waits until all pools of after have had keys, but for those whose keys before has as well, or has not either. An
// error says which have not. It does not go on when the text of the configuration is another by now, which may mend that.
func (l *live) awaitNewKeys(after, before *generation, text []byte) error {
	timeout := after.cfg.Startup.KeysTimeout
	ctx, cancel := context.WithTimeout(l.background, timeout)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for name, keys := range after.pools.remote {
		for ready := before.pools.remote[name] == keys; !ready; {
			select {
			case <-keys.Ready():
				ready = true
			case <-tick.C:
				if now, err := reload.Read(l.path); err == nil && !bytes.Equal(now, text) {
					return fmt.Errorf("pools.%s: no keys yet, and the file has changed", name)
				}
			case <-ctx.Done():
				return fmt.Errorf("pools.%s: no keys within %v: %w", name, timeout, cmp.Or(keys.Status().LastError, ctx.Err()))
			}
		}
	}
	return nil
}

// bundles hands the policy that bundles brought to the engine that decides.
type bundles struct {
	source *opa.Source // nil: there are none

	mu     sync.Mutex
	engine *policy.Engine
	files  map[string][]byte // nil: none came
	label  string
}

// load is [opa.Config]'s.
func (b *bundles) load(ctx context.Context, files map[string][]byte, label string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.engine.Load(ctx, files, label); err != nil {
		return b.engine.Revision(), err
	}
	b.files, b.label = files, label
	return b.engine.Revision(), nil
}

// moveTo has another engine decide by the same policy, then calls use. With an error it changes nothing.
func (b *bundles) moveTo(ctx context.Context, engine *policy.Engine, use func()) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.files != nil {
		if err := engine.Load(ctx, b.files, b.label); err != nil {
			return errors.Join(errors.New("the policy of the bundles cannot be used"), err)
		}
		b.source.KnownAs(b.engine.Revision(), engine.Revision())
	}
	b.engine = engine
	use()
	return nil
}
