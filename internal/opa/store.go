package opa

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/storage"
)

// A store asks before it commits.
type store struct {
	storage.Store
	// commit may look at what the store is about to hold. An error aborts the transaction. It is called by one goroutine
	// at a time, as there is one writer at a time.
	commit func(ctx context.Context, s storage.Store, txn storage.Transaction, activation bool) error
	writes sync.Map // of *storage.Context, by transaction id
}

func (s *store) NewTransaction(ctx context.Context, params ...storage.TransactionParams) (storage.Transaction, error) {
	txn, err := s.Store.NewTransaction(ctx, params...)
	if err == nil && len(params) > 0 && params[0].Write {
		s.writes.Store(txn.ID(), params[0].Context)
	}
	return txn, err
}

func (s *store) Abort(ctx context.Context, txn storage.Transaction) {
	s.writes.Delete(txn.ID())
	s.Store.Abort(ctx, txn)
}

func (s *store) Commit(ctx context.Context, txn storage.Transaction) error {
	about, write := s.writes.LoadAndDelete(txn.ID())
	if write {
		// The bundle plugin compiles what it activates and puts the compiler there. It does not when it takes bundles away,
		// and panics if it cannot commit that.
		context, _ := about.(*storage.Context)
		activation := context != nil && plugins.GetCompilerOnContext(context) != nil
		if err := s.commit(ctx, s.Store, txn, activation); err != nil {
			s.Store.Abort(ctx, txn)
			return err
		}
	}
	return s.Store.Commit(ctx, txn)
}

// activate hands what the store is about to hold to Load. Only an activation can be refused.
func (s *Source) activate(ctx context.Context, from storage.Store, txn storage.Transaction, activation bool) error {
	if s.cfg.Load == nil {
		return nil
	}
	expected := s.expected()
	found, err := manifests(ctx, from, txn)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return nil // nothing came yet, or everything was taken away: the last good policy goes on
	}
	missing := slices.DeleteFunc(expected, func(name string) bool { _, ok := found[name]; return ok })
	if err := s.checkRevisions(found); err != nil && activation {
		return err
	}
	if len(missing) > 0 {
		// Half of the policy is one that nobody wrote.
		s.setPending("waits for the bundles " + strings.Join(missing, ", "))
		return nil
	}
	err = s.load(ctx, from, txn, found)
	if err != nil && !activation {
		s.cfg.Logger.ErrorContext(ctx, "policy not loaded, the last good one stays in use", "error", err)
		s.setPending(err.Error())
		return nil
	}
	return err
}

func (s *Source) setPending(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = why
}

// load makes files of the store's content and begins to decide by them. A panic is an error, as this runs on a goroutine
// of OPA's, which would end the process.
func (s *Source) load(ctx context.Context, from storage.Store, txn storage.Transaction, revisions map[string]string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the policy cannot be compiled: %v", r)
		}
	}()
	files, err := content(ctx, from, txn)
	if err != nil {
		return err
	}
	revision, err := s.cfg.Load(ctx, files, label(revisions))
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = ""
	before := map[string]string{}
	if n := len(s.policies); n > 0 {
		before = s.policies[n-1].bundles
	}
	s.remember(loadedPolicy{revision, revisions})
	maps.DeleteFunc(s.bundles, func(name string, _ *Bundle) bool { _, ok := revisions[name]; return !ok })
	for name, rev := range revisions {
		b := s.bundle(name)
		if was, had := before[name]; !had || was != rev || b.ActivatedAt.IsZero() {
			b.Revision, b.ActivatedAt = rev, time.Now()
		}
	}
	s.cfg.Logger.InfoContext(ctx, "policy loaded", "bundles", label(revisions), "revision", revision)
	select {
	case <-s.loaded:
	default:
		close(s.loaded)
	}
	return nil
}

// manifests returns the revision of each bundle in the store.
func manifests(ctx context.Context, from storage.Store, txn storage.Transaction) (map[string]string, error) {
	names, err := bundle.ReadBundleNamesFromStore(ctx, from, txn)
	if err != nil && !storage.IsNotFound(err) {
		return nil, err
	}
	revisions := make(map[string]string, len(names))
	for _, name := range names {
		revision, err := bundle.ReadBundleRevisionFromStore(ctx, from, txn, name)
		if storage.IsNotFound(err) {
			continue // OPA leaves an empty mapping behind for some
		}
		if err != nil {
			return nil, err
		}
		revisions[name] = revision
	}
	return revisions, nil
}

// content returns the modules and the data of the store as files.
func content(ctx context.Context, from storage.Store, txn storage.Transaction) (map[string][]byte, error) {
	files := make(map[string][]byte)
	modules, err := from.ListPolicies(ctx, txn)
	if err != nil {
		return nil, err
	}
	for _, id := range modules {
		text, err := from.GetPolicy(ctx, txn, id)
		if err != nil {
			return nil, err
		}
		files[fileName(id)] = text
	}
	root, err := from.Read(ctx, txn, storage.RootPath)
	if err != nil {
		return nil, err
	}
	all, ok := root.(map[string]any)
	if !ok {
		return nil, errors.New("the root of the data is no object, want one")
	}
	data := maps.Clone(all) // shallow, as the store's own may not change
	delete(data, "system")  // OPA's own account of its bundles
	if files["data.json"], err = json.Marshal(data); err != nil {
		return nil, err
	}
	return files, nil
}

// fileName is where a module goes among the files. Ids are paths within a bundle behind its name, so that they never end
// in data.json; one that does not end in .rego would not be seen as a module.
func fileName(id string) string {
	if id = strings.TrimPrefix(path.Clean("/"+id), "/"); path.Ext(id) != ".rego" {
		return id + ".rego"
	}
	return id
}

// label names bundles and their revisions in one text, in which nothing can pass for something else.
func label(revisions map[string]string) string {
	parts := make([]string, 0, len(revisions))
	for _, name := range slices.Sorted(maps.Keys(revisions)) {
		parts = append(parts, plain(name)+"="+plain(cmp.Or(revisions[name], "none")))
	}
	return strings.Join(parts, ",")
}

// maxName is the longest name or revision in a label. A git commit has 40.
const maxName = 64

func plain(text string) string {
	if len(text) > maxName {
		text = text[:maxName]
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`,=@"\`, r) {
			return '_'
		}
		return r
	}, text)
}

// checkRevisions compares with the least revision.
func (s *Source) checkRevisions(found map[string]string) error {
	least := s.cfg.MinRevision
	if least == "" {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !atLeast(found[name], least) {
			return fmt.Errorf("the revision of bundle %s is %q, want at least %q (policy.minRevision)", name, found[name], least)
		}
	}
	return nil
}

// atLeast compares whole numbers as such, and other texts byte by byte. Where a number is wanted, a text is never enough.
func atLeast(revision, least string) bool {
	want, number := new(big.Int).SetString(least, 10)
	if !number {
		return revision >= least
	}
	have, ok := new(big.Int).SetString(revision, 10)
	return ok && have.Cmp(want) >= 0
}
