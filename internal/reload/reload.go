// Package reload keeps what was made of a file, or of a directory, up to date while it changes. One that cannot be read
// or used changes nothing: what was made of the last good one stays, and a log line, a metric and the status say so.
package reload

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// MaxFileBytes is the longest file that is read.
const MaxFileBytes = 4 << 20

const (
	// poll is how often files are read without a sign that one has changed: network file systems send none, and neither
	// does the target of a symbolic link in another folder.
	poll = 5 * time.Second
	// settle is how long a file must stay the same before it is believed. Whoever writes into a file in place may be in
	// the middle of it, and the first half of a denylist can be a good, shorter denylist.
	settle = 100 * time.Millisecond
	// rest is how long nothing is read after a sign: a busy neighbour in the folder of a file causes many.
	rest = 20 * time.Millisecond
)

// Later marks an error of [File.Use] that is about something else than the content, such as a server that does not answer: the same
// content is tried again after some seconds.
func Later(err error) error { return &laterError{err} }

type laterError struct{ error }

func (e *laterError) Unwrap() error { return e.error }

func isLater(err error) bool {
	var later *laterError
	return errors.As(err, &later)
}

// A File is one file, or one directory, and what is made of it.
type File struct {
	// Name says what it is, in logs and as the label of metrics.
	Name string
	// Path is where it is. A symbolic link is followed anew at each reading.
	Path string
	// Fingerprint reads what matters of a directory, or of several files that belong together, and returns a text that is
	// another one after each change; it becomes the revision, and what Use gets. Nil for a file, which is read as it is.
	Fingerprint func() (string, error)
	// Use makes something of the content, all or nothing. It is called by one goroutine at a time.
	Use func(text []byte) error
}

func (f File) read() ([]byte, error) {
	if f.Fingerprint == nil {
		return Read(f.Path)
	}
	text, err := f.Fingerprint()
	return []byte(text), err
}

func (f File) revision(text []byte) string {
	if f.Fingerprint == nil {
		return fmt.Sprintf("sha256:%.6x", sha256.Sum256(text))
	}
	return string(text)
}

// Together is a [File.Fingerprint] of files that belong together. Empty paths are left out.
func Together(paths ...string) func() (string, error) {
	return func() (string, error) {
		sum := sha256.New()
		for _, path := range paths {
			if path == "" {
				continue
			}
			text, err := Read(path)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%d\n%s", len(text), text)
		}
		return fmt.Sprintf("sha256:%.6x", sum.Sum(nil)), nil
	}
}

// A Status is the state of a file.
type Status struct {
	Name, Path string
	Revision   string    // of the content in use: "sha256:" and 12 hex digits
	LoadedAt   time.Time // when that content came into use
	Loads      uint64    // how many contents came into use, the first included
	Failures   uint64    // how many could not be read or used
	Err        error     // why the file as it is now is not in use; nil if it is
}

// A Watcher keeps files up to date while its Run method runs. It is safe for concurrent use.
type Watcher struct {
	log   *slog.Logger
	asked chan struct{} // has something when Look was called
	mu    sync.Mutex    // not held while something is read or used, so that Status does not wait for that
	files []*state
}

type state struct {
	File
	last      []byte    // the content that was last tried
	lastErr   error     // why it is not in use; nil if it is
	tried     time.Time // when that was found
	candidate []byte    // a newer content that has not settled
	since     time.Time // since when it has been the same; zero if there is none
	status    Status    // with mu held
}

// New returns a Watcher without files.
func New(log *slog.Logger) *Watcher { return &Watcher{log: log, asked: make(chan struct{}, 1)} }

// Look has the files read now, for who knows that one has changed. It does not wait for that.
func (w *Watcher) Look() {
	select {
	case w.asked <- struct{}{}:
	default: // somebody has asked already
	}
}

// Add reads a file and uses it. An error is about that; the file is then not watched.
func (w *Watcher) Add(f File) error {
	text, err := f.read()
	if err != nil {
		return err
	}
	if err := f.Use(text); err != nil {
		return err
	}
	w.Watch(f, text)
	return nil
}

// Watch is Add for a file of which inUse is in use already. Nil is nothing: Run reads it.
func (w *Watcher) Watch(f File, inUse []byte) {
	s := &state{File: f, last: inUse, status: Status{Name: f.Name, Path: f.Path}}
	if inUse != nil {
		s.status.loaded(f.revision(inUse))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = append(w.files, s)
}

// Settle waits until the files have stayed the same for as long as it takes to believe them: Add takes them as they are, in the
// middle of being written perhaps. An error is about one that cannot be used as it is now. It is for between Add and Run.
func (w *Watcher) Settle(ctx context.Context) error {
	for soon := len(w.Status()) > 0; soon; soon = w.look(ctx, false) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settle):
		}
	}
	for _, s := range w.Status() {
		if s.Err != nil {
			return fmt.Errorf("%s: %w", s.Name, s.Err)
		}
	}
	return nil
}

func (s *Status) loaded(revision string) {
	s.Revision = revision
	s.LoadedAt, s.Err = time.Now(), nil
	s.Loads++
}

// Run watches the files until ctx ends, then returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	signs, follow, end := w.signs()
	defer end()
	for asked := false; ; {
		follow()
		wait := poll
		if w.look(ctx, asked) {
			wait = settle
		}
		asked = false
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-signs:
			timer.Stop()
			if !quiet(ctx, signs) {
				return nil
			}
		case <-w.asked:
			asked = true
			timer.Stop()
		case <-timer.C:
		}
	}
}

// quiet waits for rest and takes the signs that have come. It returns false if ctx ends.
func quiet(ctx context.Context, signs <-chan fsnotify.Event) bool {
	timer := time.NewTimer(rest)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-signs:
		}
	}
}

// look reads all files and reports whether one has to be read again soon. If it was asked for, nothing that can be tried again
// waits for its time.
func (w *Watcher) look(ctx context.Context, asked bool) (soon bool) {
	w.mu.Lock()
	files := slices.Clone(w.files)
	w.mu.Unlock()
	for _, s := range files {
		text, err := s.read()
		switch {
		case err != nil:
			s.settled()
			w.note(s, err)
		case s.last != nil && bytes.Equal(text, s.last):
			s.settled()
			if isLater(s.lastErr) && (asked || time.Since(s.tried) >= poll) {
				w.use(ctx, s)
			}
			w.note(s, s.lastErr)
		case s.since.IsZero() || !bytes.Equal(text, s.candidate):
			s.candidate, s.since, soon = text, time.Now(), true
		case time.Since(s.since) < settle:
			soon = true
		default:
			s.settled()
			s.last = text
			w.use(ctx, s)
		}
	}
	return soon
}

func (s *state) settled() { s.candidate, s.since = nil, time.Time{} }

// errNotYet is what is wrong with a file while something is made of it, which can take as long as a server takes to answer.
var errNotYet = errors.New("read, and not in use yet")

func (w *Watcher) use(ctx context.Context, s *state) {
	w.mu.Lock()
	s.status.Err = cmp.Or(s.status.Err, errNotYet)
	w.mu.Unlock()
	s.lastErr = s.use()
	s.tried = time.Now()
	if ctx.Err() != nil {
		return // an error is about that
	}
	if s.lastErr == nil {
		revision := s.revision(s.last)
		w.mu.Lock()
		s.status.loaded(revision)
		w.mu.Unlock()
		w.log.Info("file loaded again", "file", s.Name, "path", s.Path, "revision", revision)
	}
	w.note(s, s.lastErr)
}

// use is Use of what was last read. A panic is an error, as it would end the process, which has something good to go on with.
func (s *state) use() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.Use(s.last)
}

// note takes down what is wrong with a file as it is now, and logs it once.
func (w *Watcher) note(s *state, err error) {
	w.mu.Lock()
	before := s.status.Err
	s.status.Err = err
	isNew := err != nil && (before == nil || before.Error() != err.Error())
	revision := s.status.Revision
	if isNew {
		s.status.Failures++
	}
	w.mu.Unlock()
	if isNew {
		w.log.Error("file not loaded, the last good one stays in use", "file", s.Name, "path", s.Path, "error", err, "revision", revision)
	}
	if err == nil && before != nil {
		w.log.Info("file is again what is in use", "file", s.Name, "path", s.Path, "revision", revision)
	}
}

// Status returns the state of all files, in the order in which they were added.
func (w *Watcher) Status() []Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]Status, len(w.files))
	for i, s := range w.files {
		all[i] = s.status
	}
	return all
}

// signs returns a channel on which there is something when a file may have changed, and a function that looks for new
// folders to get signs from. Without signs, files are found to have changed by reading them.
func (w *Watcher) signs() (signs <-chan fsnotify.Event, follow, end func()) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("changes of files are seen late", "error", err, "after", poll)
		return nil, func() {}, func() {}
	}
	tried := make(map[string]bool)
	follow = func() {
		for _, folder := range w.folders() {
			err := notify.Add(folder) // no harm if it is known; needed if another one has taken its place
			if err != nil && !tried[folder] {
				w.log.Warn("changes of files are seen late", "folder", folder, "error", err, "after", poll)
			}
			tried[folder] = true
		}
	}
	go func() {
		for range notify.Errors { // until Close. Who sends one waits until it is read; what was lost, the poll finds
		}
	}()
	return notify.Events, follow, func() { _ = notify.Close() }
}

// maxFolders bounds how many folders of one directory give signs. The poll sees changes in the others.
const maxFolders = 256

// folders returns where signs of changes come from.
func (w *Watcher) folders() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var folders []string
	for _, s := range w.files {
		// The folder, as an editor or a Kubernetes volume puts another file, or symbolic link, in the file's place.
		folders = append(folders, filepath.Dir(s.Path))
		if s.Fingerprint != nil {
			folders = append(folders, below(s.Path)...)
		}
	}
	return folders
}

// below returns a directory and those in it. Names that begin with a dot are left out: Kubernetes keeps in such folders
// what it puts in place by a link, which is in the folder above.
func below(dir string) []string {
	var found []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case len(found) >= maxFolders:
			return filepath.SkipAll
		case err != nil: // the poll sees it as well, and says so
			return nil
		case path != dir && strings.HasPrefix(d.Name(), ".") && d.IsDir():
			return filepath.SkipDir
		case d.IsDir() || path == dir:
			found = append(found, path)
		}
		return nil
	})
	return found
}

// Read reads a regular file of at most MaxFileBytes. It waits for nobody.
func Read(path string) ([]byte, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path) // to open a pipe would be to wait for somebody who writes
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxFileBytes {
		return nil, fmt.Errorf("%s has more than %d bytes, want a smaller file", path, MaxFileBytes)
	}
	return text, nil
}
