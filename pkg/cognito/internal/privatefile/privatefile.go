// Package privatefile reads and writes files that hold secrets of one user: of mode 0600, in folders that nobody else may
// write to, replaced as a whole, and locked against other processes.
//
// What others may have read or written is not used, and the error says what to do. On Windows, where files have no mode, the
// access rules of the folder are left to the user.
package privatefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// lockPause is the time between two attempts to get a lock that another process has. What is done under a lock takes at
// least a request to a server.
const lockPause = 20 * time.Millisecond

// Read returns the content of a file of at most so many bytes. The error matches [fs.ErrNotExist] if there is none.
func Read(path string, most int64) ([]byte, error) {
	if err := checkDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes, want at most that\nhint: remove it", path, most)
	}
	return content, nil
}

// Write replaces the file, as a whole or not at all, also if the machine stops meanwhile. It makes the folder, with mode 0700,
// if there is none.
func Write(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	if err := MakeDir(dir); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, tempPrefix(path)+"*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	syncDir(dir)
	return nil
}

// MakeDir makes the folder with mode 0700, and those above it, if it is not there, and checks that nobody else may write to it.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return checkDir(dir)
}

// tempPrefix begins the names of what becomes the file. Digits follow.
func tempPrefix(path string) string { return "." + filepath.Base(path) + "." }

// Remove removes the file, if there is one, and what a process that was killed in [Write] has left: it holds secrets too.
func Remove(path string) error {
	dir := filepath.Dir(path)
	names := []string{filepath.Base(path)}
	files, _ := os.ReadDir(dir) // without a folder there is nothing to remove
	for _, f := range files {
		if rest, ok := strings.CutPrefix(f.Name(), tempPrefix(path)); ok && strings.Trim(rest, "0123456789") == "" {
			names = append(names, f.Name())
		}
	}
	var errs []error
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Lock waits until nobody else has the lock of the file, and returns what gives it back. The lock is a file beside it, which
// stays. Processes that end give their locks back.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	if err := MakeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, lockPause); err != nil {
		_ = lock.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("waiting for another process: %w", err)
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	return func() { _ = lock.Close() }, nil
}
