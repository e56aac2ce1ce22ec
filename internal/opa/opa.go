// Package opa brings policies from where OPA brings them: bundles from an HTTP server, a registry or a file, discovery,
// signatures, persistence, and reports of their status. All of that is OPA's plugin manager, configured in OPA's own
// format. It is the only package that links OPA's plugins.
//
// OPA activates a bundle in a transaction on its store. Before that transaction is committed, what the store would then
// hold goes to [Config.Load], which compiles it by rules of its own and begins to decide by it. If it refuses, the
// transaction is aborted. So OPA keeps the last good bundle as well, does not persist the bad one, asks for it again, and
// reports the error as that of the activation.
package opa

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/discovery"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// A Config says where policies come from and what is done with them.
type Config struct {
	// Section is the configuration in OPA's format, as encoding/json decodes or encodes it.
	Section map[string]any
	// Getenv returns the variables that ${NAME} in a value of Section means.
	Getenv func(name string) (value string, ok bool)
	// Load begins to decide by a policy, or says why it cannot be used and changes nothing. It gets the modules by path,
	// all data as data.json, and the names and revisions of the bundles in one text. It returns the revision by which
	// decisions are known. It is called by one goroutine at a time. Nil if Section has no bundles, so that none come.
	Load func(ctx context.Context, files map[string][]byte, label string) (revision string, err error)
	// MinRevision is the least revision of a bundle that is taken. Default: any.
	MinRevision string
	// Logger gets what OPA logs, without what is secret in Section.
	Logger *slog.Logger

	filePoll time.Duration // for tests; zero means filePoll
}

// A Source runs OPA's plugin manager. It is safe for concurrent use.
type Source struct {
	cfg     Config
	manager *plugins.Manager
	secrets secrets
	loaded  chan struct{} // closed when Load has first succeeded

	mu       sync.Mutex
	bundles  map[string]*Bundle
	policies []loadedPolicy // the newest last
	pending  string         // why OPA's store holds what is not decided by; empty if it does not
}

// A Bundle is the state of one bundle.
type Bundle struct {
	Name string
	// Revision is that of the manifest of the bundle which decides now; empty if none does, or if it has none.
	Revision string
	// CheckedAt is when the server last answered, with a bundle or that there is no other. Zero if it never did: a server
	// that stalls in the middle of an answer is no error yet.
	CheckedAt time.Time
	// ActivatedAt is when it began to. Zero if none does.
	ActivatedAt time.Time
	// Activations is how often a bundle was taken, Failures how often one could not be fetched or used.
	Activations, Failures uint64
	// Err is why the bundle as the server has it now does not decide; nil if it does.
	Err error

	heard time.Time // when OPA last activated it
}

// A loadedPolicy is what was made of the bundles at one time.
type loadedPolicy struct {
	revision string
	bundles  map[string]string
}

// keptPolicies is how many policies [Source.Revisions] remembers. A decision is asked about at once or never.
const keptPolicies = 16

// New checks the section and makes ready what it names. It connects to nothing; call Run for that.
func New(ctx context.Context, cfg Config) (*Source, error) {
	section, secrets, err := expand(cfg.Section, cfg.Getenv)
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, secrets: secrets, loaded: make(chan struct{}), bundles: make(map[string]*Bundle)}
	if err := s.start(ctx, section); err != nil {
		return nil, errors.New(s.secrets.hide(err.Error()))
	}
	return s, nil
}

func (s *Source) start(ctx context.Context, section map[string]any) error {
	if section["plugins"] != nil {
		return errors.New("found plugins, want none, as there are no others than OPA's own")
	}
	// Discovery puts what it finds below what is configured here, so this plugin is in either.
	section["plugins"] = map[string]any{watchName: map[string]any{}}
	if logs, ok := section["decision_logs"].(map[string]any); ok {
		// Our log has applied the policy's rules about it. Applied twice, one that fails would lose the line without a count.
		logs["mask_decision"], logs["drop_decision"] = "/extauthz/none/mask", "/extauthz/none/drop"
	}
	raw, err := json.Marshal(section)
	if err != nil {
		return err
	}
	log := &logger{log: s.cfg.Logger, hide: s.secrets.hide}
	s.manager, err = plugins.New(raw, rand.Text(), &store{Store: inmem.New(), commit: s.activate},
		plugins.Logger(log), plugins.ConsoleLogger(log))
	if err != nil {
		return err
	}
	if unknown := s.manager.GetConfig().Warnings; len(unknown) > 0 {
		return fmt.Errorf("%v, want only what OPA knows", unknown)
	}
	// It may be written back into by OPA, so it gets its own.
	var boot map[string]any
	if err := json.Unmarshal(raw, &boot); err != nil {
		return err
	}
	d, err := discovery.New(s.manager, discovery.BootConfig(boot),
		discovery.Factories(map[string]plugins.Factory{watchName: watchFactory{s}}))
	if err != nil {
		return err
	}
	s.manager.Register(discovery.Name, d)
	return s.manager.Init(ctx)
}

// Run fetches bundles and sends reports until ctx ends, and then stops within a few seconds. An error is about the start.
// It may be called once.
func (s *Source) Run(ctx context.Context) error {
	// OPA ends with Stop, not with the context, which is for what it stops.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.manager.Start(running); err != nil {
		return errors.New("opa: " + s.secrets.hide(err.Error()))
	}
	s.watchFiles(ctx)
	stopping, end := context.WithTimeout(running, stopTime)
	defer end()
	s.manager.Stop(stopping)
	return nil
}

// stopTime is how long reports may take that are sent at the end.
const stopTime = 5 * time.Second

// Manager returns OPA's plugin manager, by which its other plugins are found.
func (s *Source) Manager() *plugins.Manager { return s.manager }

// Loaded is closed when there is a policy to decide by.
func (s *Source) Loaded() <-chan struct{} { return s.loaded }

// KnownAs tells that a policy of bundles is known by another revision as well: the program's settings are part of that too.
func (s *Source) KnownAs(policy, other string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range slices.Backward(s.policies) {
		if p.revision == policy {
			s.remember(loadedPolicy{other, p.bundles})
			return
		}
	}
}

// remember adds a policy, with mu held, and forgets the oldest.
func (s *Source) remember(p loadedPolicy) {
	s.policies = append(s.policies[max(0, len(s.policies)+1-keptPolicies):], p)
}

// Revisions returns the revisions of the bundles, by name, that a policy was made of; nil if it is none of the last ones.
func (s *Source) Revisions(policy string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range slices.Backward(s.policies) {
		if p.revision == policy {
			return maps.Clone(p.bundles)
		}
	}
	return nil
}

// Bundles returns the state of all bundles, by name.
func (s *Source) Bundles() []Bundle {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.expected() { // one that never arrived is shown as well
		s.bundle(name)
	}
	all := make([]Bundle, 0, len(s.bundles))
	for _, name := range slices.Sorted(maps.Keys(s.bundles)) {
		b := *s.bundles[name]
		if b.Err == nil && s.pending != "" {
			b.Err = errors.New(s.pending)
		}
		all = append(all, b)
	}
	return all
}

// bundle returns the state of a bundle; s.mu is held.
func (s *Source) bundle(name string) *Bundle {
	b := s.bundles[name]
	if b == nil {
		b = &Bundle{Name: name}
		s.bundles[name] = b
	}
	return b
}

// expected returns the names of the bundles that are configured, by discovery perhaps.
func (s *Source) expected() []string {
	p := bundle.Lookup(s.manager)
	if p == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(p.Config().Bundles))
}
