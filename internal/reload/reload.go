// Package reload keeps what was made of a file up to date while the file changes. A file that cannot be read or used
// changes nothing: what was made of the last good one stays, and a log line, a metric and the status say so.
package reload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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
)

// A File is one file and what is made of it.
type File struct {
	// Name says what it is, in logs and as the label of metrics.
	Name string
	// Path is where it is. A symbolic link is followed anew at each reading.
	Path string
	// Use makes something of the content, all or nothing. It is called by one goroutine at a time.
	Use func(text []byte) error
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
	mu    sync.Mutex
	files []*state
}

type state struct {
	File
	last      []byte    // the content that was last tried
	lastErr   error     // why it is not in use; nil if it is
	candidate []byte    // a newer content that has not settled
	since     time.Time // since when it has been the same; zero if there is none
	status    Status
}

// New returns a Watcher without files.
func New(log *slog.Logger) *Watcher { return &Watcher{log: log} }

// Add reads a file and uses it. An error is about that; the file is then not watched.
func (w *Watcher) Add(f File) error {
	text, err := read(f.Path)
	if err != nil {
		return err
	}
	if err := f.Use(text); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &state{File: f, last: text, status: Status{Name: f.Name, Path: f.Path}}
	s.status.loaded(text)
	w.files = append(w.files, s)
	return nil
}

func (s *Status) loaded(text []byte) {
	s.Revision = fmt.Sprintf("sha256:%.6x", sha256.Sum256(text))
	s.LoadedAt, s.Err = time.Now(), nil
	s.Loads++
}

// Run watches the files until ctx ends, then returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	signs, end := w.signs()
	defer end()
	for {
		wait := poll
		if w.look() {
			wait = settle
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-signs:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// look reads all files and reports whether one has to be read again soon.
func (w *Watcher) look() (soon bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.files {
		text, err := read(s.Path)
		switch {
		case err != nil:
			s.settled()
			w.note(s, err)
		case bytes.Equal(text, s.last):
			s.settled()
			w.note(s, s.lastErr)
		case s.since.IsZero() || !bytes.Equal(text, s.candidate):
			s.candidate, s.since, soon = text, time.Now(), true
		case time.Since(s.since) < settle:
			soon = true
		default:
			s.settled()
			s.last = text
			w.use(s)
		}
	}
	return soon
}

func (s *state) settled() { s.candidate, s.since = nil, time.Time{} }

func (w *Watcher) use(s *state) {
	if s.lastErr = s.Use(s.last); s.lastErr == nil {
		s.status.loaded(s.last)
		w.log.Info("file loaded again", "file", s.Name, "path", s.Path, "revision", s.status.Revision)
	}
	w.note(s, s.lastErr)
}

// note takes down what is wrong with a file as it is now, and logs it once.
func (w *Watcher) note(s *state, err error) {
	before := s.status.Err
	s.status.Err = err
	if err == nil || before != nil && before.Error() == err.Error() {
		return
	}
	s.status.Failures++
	w.log.Error("file not loaded, the last good one stays in use", "file", s.Name, "path", s.Path, "error", err, "revision", s.status.Revision)
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

// signs returns a channel on which there is something when a file may have changed. Without it, files are found to have
// changed by reading them.
func (w *Watcher) signs() (<-chan fsnotify.Event, func()) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("changes of files are seen late", "error", err, "after", poll)
		return nil, func() {}
	}
	folders := make(map[string]bool)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.files {
		// The folder, as an editor or a Kubernetes volume puts another file, or symbolic link, in the file's place.
		folder := filepath.Dir(s.Path)
		if folders[folder] {
			continue
		}
		folders[folder] = true
		if err := notify.Add(folder); err != nil {
			w.log.Warn("changes of files are seen late", "folder", folder, "error", err, "after", poll)
		}
	}
	return notify.Events, func() { _ = notify.Close() }
}

func read(path string) ([]byte, error) {
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
