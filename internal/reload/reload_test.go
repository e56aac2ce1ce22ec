package reload_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/reload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture is a watched file, and what was made of it.
type fixture struct {
	path  string
	watch *reload.Watcher
	used  chan string
	log   *logBuffer
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	line chan struct{}
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	select {
	case b.line <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start watches a file that holds "one". What begins with "bad" cannot be used.
func start(t *testing.T, path string) *fixture {
	t.Helper()
	f := watch(t, reload.File{Name: "denylist", Path: path})
	f.want(t, "one")
	return f
}

// watch watches what file says, and uses what does not begin with "bad".
func watch(t *testing.T, file reload.File) *fixture {
	t.Helper()
	f := &fixture{path: file.Path, used: make(chan string, 16), log: &logBuffer{line: make(chan struct{}, 1)}}
	f.watch = reload.New(slog.New(slog.NewTextHandler(f.log, nil)))
	file.Use = func(text []byte) error {
		if bytes.HasPrefix(text, []byte("bad")) {
			return errors.New("bad content: " + string(text))
		}
		if string(text) == "panic" {
			panic("boom")
		}
		f.used <- string(text)
		return nil
	}
	if err := f.watch.Add(file); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.watch.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return f
}

func (f *fixture) want(t *testing.T, text string) {
	t.Helper()
	select {
	case got := <-f.used:
		if got != text {
			t.Fatalf("%q came into use, want %q", got, text)
		}
	case <-t.Context().Done():
		t.Fatalf("%q did not come into use; the log:\n%s", text, f.log)
	}
}

// wantLog waits for a line with text.
func (f *fixture) wantLog(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(f.log.String(), text) {
		select {
		case <-f.log.line:
		case <-t.Context().Done():
			t.Fatalf("no %q in the log:\n%s", text, f.log)
		}
	}
}

func inFolder(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "one")
	return path
}

func TestWrittenInPlace(t *testing.T) {
	f := start(t, inFolder(t))
	write(t, f.path, "two")
	f.want(t, "two")
}

func TestReplaced(t *testing.T) {
	f := start(t, inFolder(t))
	write(t, f.path+".new", "two")
	if err := os.Rename(f.path+".new", f.path); err != nil {
		t.Fatal(err)
	}
	f.want(t, "two")
}

// showVersion makes a version of a ConfigMap the current one, as the kubelet does.
func showVersion(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, name, "file"), text)
	if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// Kubernetes shows a ConfigMap as links to links: ..data names the current version, and is put in place at once.
func TestConfigMap(t *testing.T) {
	dir := t.TempDir()
	showVersion(t, dir, "..1", "one")
	path := filepath.Join(dir, "file")
	if err := os.Symlink("..data/file", path); err != nil {
		t.Fatal(err)
	}
	f := start(t, path)
	showVersion(t, dir, "..2", "two")
	f.want(t, "two")
}

// The target of a link lies in a folder of its own, from which no sign comes.
func TestTargetOfALink(t *testing.T) {
	target := inFolder(t)
	path := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	f := start(t, path)
	write(t, target, "two")
	f.want(t, "two")
}

func TestBadContentChangesNothing(t *testing.T) {
	f := start(t, inFolder(t))
	good := f.watch.Status()[0]
	write(t, f.path, "bad")
	f.wantLog(t, "bad content")
	s := f.watch.Status()[0]
	if s.Err == nil || s.Failures != 1 || s.Revision != good.Revision || s.Loads != 1 {
		t.Errorf("status is %+v, want one failure and the revision %s", s, good.Revision)
	}
	write(t, f.path, "one") // again
	f.want(t, "one")
	write(t, f.path, "two")
	f.want(t, "two")
	if n := strings.Count(f.log.String(), "not loaded"); n != 1 {
		t.Errorf("%d lines about it, want 1:\n%s", n, f.log)
	}
	f.wantLog(t, fmt.Sprintf("revision=sha256:%.6x", sha256.Sum256([]byte("two"))))
	if s := f.watch.Status()[0]; s.Err != nil || s.Revision == good.Revision || s.Loads < 3 || !s.LoadedAt.After(good.LoadedAt) {
		t.Errorf("status is %+v, want it mended", s)
	}
}

// What fails for another reason than the content is tried again, though the file stays as it is.
func TestLater(t *testing.T) {
	t.Parallel() // takes as long as two polls
	path := inFolder(t)
	tries := 0
	used := make(chan string, 1)
	log := &logBuffer{line: make(chan struct{}, 1)}
	f := &fixture{path: path, used: used, log: log, watch: reload.New(slog.New(slog.NewTextHandler(log, nil)))}
	err := f.watch.Add(reload.File{Name: "config", Path: path, Use: func(text []byte) error {
		if tries++; tries == 2 || tries == 3 {
			return fmt.Errorf("file: %w", reload.Later(errors.New("the server does not answer")))
		}
		used <- string(text)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	f.want(t, "one")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.watch.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	write(t, path, "two")
	f.wantLog(t, "does not answer")
	f.want(t, "two")
	if s := f.watch.Status()[0]; s.Failures != 1 {
		t.Errorf("status is %+v, want the failure counted and told once", s)
	}
}

func TestMissingFileChangesNothing(t *testing.T) {
	f := start(t, inFolder(t))
	if err := os.Rename(f.path, f.path+".away"); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t, "no such file")
	if s := f.watch.Status()[0]; !errors.Is(s.Err, fs.ErrNotExist) || s.Loads != 1 {
		t.Errorf("status is %+v, want the file missing", s)
	}
	if err := os.Rename(f.path+".away", f.path); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t, "file is again what is in use")
	if s := f.watch.Status()[0]; s.Err != nil || s.Loads != 1 {
		t.Errorf("status is %+v, want it mended, and no other load", s)
	}
	write(t, f.path, "two")
	f.want(t, "two")
}

// A file that grows is believed once it stays the same: its first half may be good, and mean something else.
func TestFileThatIsBeingWritten(t *testing.T) {
	f := start(t, inFolder(t))
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 50 {
		if _, err := file.WriteString(", more"); err != nil {
			t.Fatal(err)
		}
	}
	f.want(t, "one"+strings.Repeat(", more", 50))
}

func TestAddRefuses(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	write(t, large, strings.Repeat("x", reload.MaxFileBytes+1))
	bad := filepath.Join(dir, "bad")
	write(t, bad, "bad")
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file",
		dir:                        "no regular file",
		large:                      "more than",
		bad:                        "bad content",
	} {
		w := reload.New(slog.New(slog.DiscardHandler))
		err := w.Add(reload.File{Path: path, Use: func([]byte) error { return errors.New("bad content") }})
		if err == nil || !strings.Contains(err.Error(), want) || len(w.Status()) != 0 {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// A directory is what its fingerprint says, wherever below it something changes.

func startDirectory(t *testing.T, dir string) *fixture {
	t.Helper()
	return watch(t, reload.File{
		Name: "policy.dir", Path: dir,
		Fingerprint: func() (string, error) {
			var all strings.Builder
			err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				if strings.HasPrefix(path, "..") && d.IsDir() {
					return fs.SkipDir
				}
				if strings.HasPrefix(path, "..") {
					return nil
				}
				text, err := fs.ReadFile(os.DirFS(dir), path)
				if err == nil {
					all.Write(text)
				}
				return nil
			})
			return all.String(), err
		},
	})
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(deep, "1"), "one")
	f := startDirectory(t, dir)
	f.want(t, "one")
	if s := f.watch.Status()[0]; s.Revision != "one" || s.Path != dir {
		t.Errorf("status is %+v, want the fingerprint as revision", s)
	}
	write(t, filepath.Join(deep, "2"), "two")
	f.want(t, "onetwo")
	// A folder that comes later is watched as well.
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "c", "3"), "three")
	f.want(t, "onetwothree")
	write(t, filepath.Join(dir, "c", "3"), "four")
	f.want(t, "onetwofour")
	write(t, filepath.Join(deep, "1"), "bad")
	f.wantLog(t, "bad content")
	if s := f.watch.Status()[0]; s.Err == nil || s.Revision != "onetwofour" || s.Failures != 1 {
		t.Errorf("status is %+v, want one failure and the last good revision", s)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t, "no such file")
}

// Kubernetes puts a new version of a ConfigMap in place by a link within the directory.
func TestDirectoryOfAConfigMap(t *testing.T) {
	dir := t.TempDir()
	showVersion(t, dir, "..1", "one")
	if err := os.Symlink("..data/file", filepath.Join(dir, "file")); err != nil {
		t.Fatal(err)
	}
	f := startDirectory(t, dir)
	f.want(t, "one")
	showVersion(t, dir, "..2", "two")
	f.want(t, "two")
}

// A pipe in the place of a file must hold up neither the end nor who asks for the status.
func TestPipeInPlaceOfAFile(t *testing.T) {
	f := start(t, inFolder(t))
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(f.path, 0o600); err != nil {
		t.Fatal(err)
	}
	f.wantLog(t, "no regular file")
	if s := f.watch.Status()[0]; s.Err == nil || s.Loads != 1 {
		t.Errorf("status is %+v, want the last good one in use", s)
	}
}

// Something slow that is made of one file holds up no status.
func TestStatusDoesNotWait(t *testing.T) {
	path := inFolder(t)
	begun, end := make(chan struct{}), make(chan struct{})
	w := reload.New(slog.New(slog.DiscardHandler))
	first := true
	err := w.Add(reload.File{Name: "slow", Path: path, Use: func([]byte) error {
		if first {
			first = false
			return nil
		}
		close(begun)
		<-end
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Run(ctx) })
	write(t, path, "two")
	<-begun
	if s := w.Status()[0]; s.Loads != 1 || s.Err == nil || s.Failures != 0 {
		t.Errorf("status is %+v, want the first content, and that there is another", s)
	}
	close(end)
	cancel()
	wg.Wait()
}

// What Add takes may be in the middle of being written. Settle waits for the rest.
func TestSettle(t *testing.T) {
	for text, want := range map[string]string{"one": "", "two": "", "bad": "file: bad content"} {
		path := inFolder(t)
		w := reload.New(slog.New(slog.DiscardHandler))
		if err := w.Settle(t.Context()); err != nil {
			t.Errorf("without files: %v", err)
		}
		var used string
		err := w.Add(reload.File{Name: "file", Path: path, Use: func(text []byte) error {
			if string(text) == "bad" {
				return errors.New("bad content")
			}
			used = string(text)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, text)
		switch err := w.Settle(t.Context()); {
		case want == "" && (err != nil || used != text):
			t.Errorf("%s: %q is used, with error %v", text, used, err)
		case want != "" && (err == nil || err.Error() != want || used != "one"):
			t.Errorf("%s: %q is used, with error %v, want %q", text, used, err, want)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.Settle(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: after the end: error %v", text, err)
		}
	}
}

// A panic of who uses a file ends nothing, and is said.
func TestPanicOfUse(t *testing.T) {
	f := start(t, inFolder(t))
	write(t, f.path, "panic")
	f.wantLog(t, "panic: boom")
	write(t, f.path, "two")
	f.want(t, "two")
}

// Who asks does not wait until what failed is due to be tried again.
func TestLookTriesAgain(t *testing.T) {
	path := inFolder(t)
	tries := 0
	f := &fixture{path: path, used: make(chan string, 1), log: &logBuffer{line: make(chan struct{}, 1)}}
	f.watch = reload.New(slog.New(slog.NewTextHandler(f.log, nil)))
	f.watch.Watch(reload.File{Name: "config", Path: path, Use: func(text []byte) error {
		if tries++; tries < 6 {
			return reload.Later(fmt.Errorf("try %d", tries))
		}
		f.used <- string(text)
		return nil
	}}, nil)
	if s := f.watch.Status()[0]; s.Loads != 0 || s.Revision != "" {
		t.Errorf("status is %+v, want nothing in use", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.watch.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	began := time.Now()
	for try := 1; try < 6; try++ {
		f.wantLog(t, fmt.Sprintf("try %d", try))
		f.watch.Look()
	}
	f.want(t, "one")
	if took := time.Since(began); took > 15*time.Second { // five polls take 25
		t.Errorf("it took %v", took)
	}
}

// What is broken off at the end is no mistake of the file.
func TestEndInTheMiddleOfUse(t *testing.T) {
	path := inFolder(t)
	log := &logBuffer{line: make(chan struct{}, 1)}
	w := reload.New(slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	w.Watch(reload.File{Name: "config", Path: path, Use: func([]byte) error {
		cancel()
		return ctx.Err()
	}}, nil)
	if err := w.Run(ctx); err != nil || log.String() != "" {
		t.Errorf("error %v and log %q, want neither", err, log)
	}
}
