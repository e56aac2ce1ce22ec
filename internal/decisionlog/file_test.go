package decisionlog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
)

func openFile(t *testing.T, path string, maxBytes int64, keep int) *File {
	t.Helper()
	f, err := OpenFile(path, maxBytes, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// No line is lost or cut where one file ends and the next begins.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "decisions.log")
	if err := os.WriteFile(path, []byte("of before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path, 100, 1000)
	var files []string
	wrote := 1
	for ; len(files) < 4; wrote++ {
		if _, err := fmt.Fprintf(f, "line %02d\n", wrote); err != nil {
			t.Fatal(err)
		}
		var err error
		if files, err = filepath.Glob(filepath.Join(dir, "decisions*.log")); err != nil {
			t.Fatal(err)
		}
	}
	var all bytes.Buffer
	for _, name := range files { // those with a time in their names come before
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	lines := strings.Split(strings.TrimSpace(all.String()), "\n")
	if len(lines) != wrote || lines[0] != "of before" || lines[wrote-1] != fmt.Sprintf("line %02d", wrote-1) {
		t.Errorf("%d lines, want %d in order:\n%s", len(lines), wrote, &all)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v, want 0600", info.Mode(), err)
	}
}

// Who moves the file away and says so gets a new one.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "decisions.log")
	f := openFile(t, path, 100, 1)
	fmt.Fprintln(f, "one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "two")
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "three")
	for name, want := range map[string]string{path + ".1": "one\ntwo\n", path: "three\n"} {
		if text, err := os.ReadFile(name); string(text) != want || err != nil {
			t.Errorf("%s has %q, error %v, want %q", name, text, err, want)
		}
	}
}

// A full disk loses lines and counts each. A device is left in its place.
func TestFullDevice(t *testing.T) {
	const device = "/dev/full"
	before, err := os.Stat(device)
	switch {
	case err != nil && runtime.GOOS != "linux":
		t.Skip("this system has no ", device)
	case err != nil:
		t.Fatal(err)
	}
	f := openFile(t, device, 100, 1)
	w := asynclog.New(f, Limits)
	l := New(w.Queue, Config{})
	for range 1000 {
		l.Record(decided())
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.Lost() != 1000 {
		t.Errorf("%d lost, want 1000", l.Lost())
	}
	if after, err := os.Stat(device); err != nil || !os.SameFile(before, after) {
		t.Errorf("the device has gone: %v", err)
	}
}

func TestOpenFileFails(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, dir + "/a\x00b"} {
		if _, err := OpenFile(path, 100, 1); err == nil {
			t.Errorf("%q was opened", path)
		}
	}
}

// A file that somebody removes is made again.
func TestRemovedFileIsMadeAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "decisions.log")
	f, err := OpenFile(path, 1<<20, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	f.looked = time.Time{} // as if a second had passed
	if _, err := f.Write([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "line\n" {
		t.Errorf("%q and error %v, want the line", text, err)
	}
}

// A pipe that nobody reads is an error, and not a start that never ends.
func TestPipeThatNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(path, 1<<20, 1); err == nil || !strings.Contains(err.Error(), "nobody reads") {
		t.Errorf("%v, want an error about the pipe", err)
	}
}
