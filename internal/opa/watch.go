package opa

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/bundle"
)

// watchName is a plugin that sees to it that we hear what becomes of bundles. The plugin for bundles is made late with
// discovery, and plugins are made after it.
const watchName = "extauthz"

type watchFactory struct{ s *Source }

func (f watchFactory) Validate(*plugins.Manager, []byte) (any, error) { return struct{}{}, nil }

func (f watchFactory) New(m *plugins.Manager, _ any) plugins.Plugin {
	w := watch{f.s, m}
	w.listen()
	return w
}

type watch struct {
	s       *Source
	manager *plugins.Manager
}

func (w watch) listen() {
	if p := bundle.Lookup(w.manager); p != nil {
		p.Register(watchName, w.s.heard)
	}
}

func (w watch) Start(context.Context) error {
	w.manager.UpdatePluginStatus(watchName, &plugins.Status{State: plugins.StateOK})
	return nil
}

func (w watch) Stop(context.Context)             {}
func (w watch) Reconfigure(context.Context, any) { w.listen() }

// heard is called after each attempt to fetch a bundle.
func (s *Source) heard(status bundle.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bundle(status.Name)
	if at := status.LastSuccessfulActivation; at.After(b.heard) {
		b.heard = at
		b.Activations++
		if s.pending == "" {
			b.ActivatedAt = at
		}
	}
	if at := status.LastSuccessfulRequest; at.After(b.CheckedAt) {
		b.CheckedAt = at
	}
	if status.Code == "" {
		b.Err = nil
		return
	}
	b.Failures++
	text := status.Message
	for _, err := range status.Errors {
		text += "\n" + err.Error()
	}
	b.Err = errors.New(s.secrets.hide(text))
}

// filePoll is how often bundles in files are looked at. OPA reads them once.
const filePoll = 5 * time.Second

// watchFiles has bundles in files read again when they have changed, until ctx ends.
func (s *Source) watchFiles(ctx context.Context) {
	if s.manager.GetConfig().Discovery != nil {
		// Loaders may then be made at any time, and the plugin's map of them has no lock.
		<-ctx.Done()
		return
	}
	seen := make(map[string]string)
	tried := make(map[string]string)
	for name, path := range s.files() {
		seen[name] = look(path)
		tried[name] = seen[name]
	}
	ticker := time.NewTicker(cmp.Or(s.cfg.filePoll, filePoll))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for name, path := range s.files() {
			now := look(path)
			settled := now == seen[name] // who writes into a file may be in the middle of it
			seen[name] = now
			if settled && now != tried[name] {
				tried[name] = now
				s.read(ctx, name)
			}
		}
	}
}

func (s *Source) read(ctx context.Context, name string) {
	if p := bundle.Lookup(s.manager); p != nil {
		if loader := p.Loaders()[name]; loader != nil {
			_ = loader.Trigger(ctx) // OPA logs what is wrong, and heard gets it
		}
	}
}

// files returns the paths of the bundles that are in files, by name.
func (s *Source) files() map[string]string {
	p := bundle.Lookup(s.manager)
	if p == nil {
		return nil
	}
	paths := make(map[string]string)
	for name, source := range p.Config().Bundles {
		if u, err := url.Parse(source.Resource); err == nil && strings.EqualFold(u.Scheme, "file") {
			paths[name] = u.Path
		}
	}
	return paths
}

// look returns a text that changes with what is at a path. Contents are not read, as bundles may be large.
func look(path string) string {
	var found strings.Builder
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintln(&found, p, err)
			return nil
		}
		if info, err := d.Info(); err == nil {
			fmt.Fprintln(&found, p, info.Size(), info.ModTime().UnixNano(), info.Mode())
		}
		return nil
	})
	return found.String()
}
