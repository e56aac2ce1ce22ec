// Package asynclog keeps a log that is slow, or that nobody reads, from holding up what is logged.
package asynclog

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// A Writer hands lines to a goroutine that writes them. When more wait than it may hold, it drops and counts them.
// It is safe for concurrent use.
type Writer struct {
	lines   chan []byte
	done    chan struct{}
	dropped atomic.Uint64

	mu     sync.RWMutex // orders Write and Close
	closed bool
}

// New returns a Writer that holds up to size lines for out. Close ends it.
func New(out io.Writer, size int) *Writer {
	w := &Writer{lines: make(chan []byte, size), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for line := range w.lines {
			_, _ = out.Write(line) // there is nowhere to say that the log cannot be written
		}
	}()
	return w
}

// Write takes a copy of line. It never waits and never fails.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		w.dropped.Add(1)
		return len(line), nil
	}
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

// Dropped returns how many lines were lost.
func (w *Writer) Dropped() uint64 { return w.dropped.Load() }

// Close writes what waits and ends the goroutine, or returns ctx's error if that takes too long.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.lines)
	}
	w.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
