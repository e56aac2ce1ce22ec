package decisionlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// A File is a file of lines that is rotated by its size. It is safe for concurrent use.
//
// lumberjack names, opens and deletes the files. It counts in MiB, so when to begin a new one is said here.
type File struct {
	out      *lumberjack.Logger
	maxBytes int64

	mu      sync.Mutex
	known   bool // whether the next two are
	regular bool // a pipe or a device is never rotated
	size    int64
	rotated time.Time
	looked  time.Time // when it was last seen that the file is there
}

// rotateEvery keeps the names of two full files apart: they have milliseconds, and the second would replace the first.
const rotateEvery = 2 * time.Millisecond

// OpenFile opens or makes a file. One that is longer than maxBytes gets the time into its name; of those, keep are kept.
// One write is never split, so a file is longer if a write is.
func OpenFile(path string, maxBytes int64, keep int) (*File, error) {
	const never = 1 << 40 // MiB
	f := &File{out: &lumberjack.Logger{Filename: path, MaxSize: never, MaxBackups: keep}, maxBytes: maxBytes}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory, want a file", path)
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		// To open a pipe is to wait for somebody who reads it.
		pipe, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("%s is a pipe that nobody reads: %w", path, err)
		}
		defer pipe.Close()
	}
	// A disk that is full now loses decisions, as it would later, and stops no start.
	if _, err := f.out.Write(nil); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	return f, nil
}

// Write appends lines.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followRemoval()
	if !f.known {
		f.look()
	}
	if f.regular && f.size > 0 && f.size+int64(len(p)) > f.maxBytes && time.Since(f.rotated) > rotateEvery {
		f.rotated = time.Now()
		if err := f.out.Rotate(); err != nil {
			return 0, err
		}
		f.size = 0
	}
	n, err := f.out.Write(p)
	f.size += int64(n)
	return n, err
}

// lookEvery is how often a file is looked for that somebody may have removed: what is written into it then is lost.
const lookEvery = time.Second

// followRemoval begins anew if the file is not there any more.
func (f *File) followRemoval() {
	if time.Since(f.looked) < lookEvery {
		return
	}
	f.looked = time.Now()
	if _, err := os.Stat(f.out.Filename); errors.Is(err, fs.ErrNotExist) {
		f.known = false
		_ = f.out.Close() // of a file that nobody can read
	}
}

// Reopen makes the next write open the file by its name again: somebody may have moved it.
func (f *File) Reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = false
	return f.out.Close()
}

// Close closes the file.
func (f *File) Close() error { return f.Reopen() }

func (f *File) look() {
	f.known, f.regular, f.size = true, true, 0
	if info, err := os.Stat(f.out.Filename); err == nil {
		f.regular, f.size = info.Mode()&fs.ModeType == 0, info.Size()
	}
}
