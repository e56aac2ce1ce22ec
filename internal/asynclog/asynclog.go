// Package asynclog keeps a log that is slow, or that nobody reads, from holding up what is logged.
//
// A [Queue] hands items to a goroutine. It holds a bounded number of them, of bounded size, and loses what is more: who
// logs never waits. A [Writer] is a Queue of lines for an [io.Writer].
package asynclog

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// An Item is what waits in a [Queue].
type Item interface {
	// Size is about how many bytes the item holds on to.
	Size() int
	// Append adds the item's text to dst, or nothing if it has none. It runs on the queue's goroutine, so it may take its
	// time. It may reuse dst, and what it appends is written whole or counts as lost.
	Append(dst []byte) []byte
	// Lost is called once for an item that was not written, from any goroutine.
	Lost()
}

// Limits bound what waits. Items is how many, Bytes their size together.
type Limits struct {
	Items int
	Bytes int
}

// A Queue is safe for concurrent use.
type Queue struct {
	items chan waiting
	bytes atomic.Int64 // of the items that wait
	most  int64
	done  chan struct{}

	mu     sync.RWMutex // orders Put and Close
	closed bool
}

// A waiting item has the size that it was taken with.
type waiting struct {
	item Item
	size int64
}

// batch is how many items are handed on at once if they are there.
const batch = 64

// linger is the least time between two batches, while which more items gather. Without it, a goroutine is woken and a line is
// written for each one, which costs the check that it is about a few microseconds more.
const linger = 2 * time.Millisecond

// NewQueue returns a Queue whose goroutine hands items to take, in order. The slice is only good for the call. Close
// ends it.
func NewQueue(limits Limits, take func(items []Item)) *Queue {
	q := &Queue{items: make(chan waiting, limits.Items), most: int64(limits.Bytes), done: make(chan struct{})}
	go q.run(take)
	return q
}

func (q *Queue) run(take func(items []Item)) {
	defer close(q.done)
	items := make([]Item, 0, batch)
	var written time.Time
	for first := range q.items {
		if len(q.items) < batch {
			time.Sleep(linger - time.Since(written))
		}
		items = append(items[:0], first.item)
		size := first.size
		for len(items) < batch {
			next, ok := q.poll()
			if !ok {
				break
			}
			items = append(items, next.item)
			size += next.size
		}
		take(items)
		written = time.Now()
		clear(items)
		q.bytes.Add(-size)
	}
}

// poll returns an item that is there already.
func (q *Queue) poll() (waiting, bool) {
	select {
	case next, ok := <-q.items:
		return next, ok
	default:
		return waiting{}, false
	}
}

// Put takes an item, or loses it if too much waits already. It never waits.
func (q *Queue) Put(item Item) {
	if !q.put(item) {
		item.Lost()
	}
}

func (q *Queue) put(item Item) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	size := int64(item.Size())
	if q.closed {
		return false
	}
	if q.bytes.Add(size) > q.most {
		q.bytes.Add(-size)
		return false
	}
	select {
	case q.items <- waiting{item, size}:
		return true
	default:
		q.bytes.Add(-size)
		return false
	}
}

// Close hands on what waits and ends the goroutine, or returns ctx's error if that takes too long.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.items)
	}
	q.mu.Unlock()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Writer is a [Queue] of lines. Each Write is one line, with its line break. It is safe for concurrent use.
type Writer struct {
	*Queue

	lost atomic.Uint64
}

// New returns a Writer to out.
func New(out io.Writer, limits Limits) *Writer {
	return &Writer{Queue: NewQueue(limits, lines(out))}
}

// Write takes a copy of line. It never waits and never fails.
func (w *Writer) Write(line []byte) (int, error) {
	w.Put(&text{append([]byte(nil), line...), w})
	return len(line), nil
}

// LostLines returns how many lines of Write were lost. Other items count for themselves.
func (w *Writer) LostLines() uint64 { return w.lost.Load() }

type text struct {
	bytes []byte
	w     *Writer
}

func (t *text) Size() int                { return len(t.bytes) }
func (t *text) Append(dst []byte) []byte { return append(dst, t.bytes...) }
func (t *text) Lost()                    { t.w.lost.Add(1) }

// lines returns a function that writes the texts of items with one call.
func lines(out io.Writer) func([]Item) {
	var buf []byte
	var ends []int
	torn := false // the last write broke off inside a line
	return func(items []Item) {
		buf, ends = buf[:0], ends[:0]
		if torn {
			buf = append(buf, '\n') // so that the next line is one
		}
		for _, item := range items {
			buf = item.Append(buf)
			ends = append(ends, len(buf))
		}
		if len(buf) == 0 || torn && len(buf) == 1 {
			return
		}
		n, err := out.Write(buf)
		if err == nil {
			n = len(buf)
		}
		if n > 0 {
			torn = buf[n-1] != '\n'
		}
		lose(items, ends, n)
		if cap(buf) > keep {
			buf = nil
		}
	}
}

// keep is how much memory a queue of lines holds on to for the next ones.
const keep = 256 << 10

// lose tells the items of which not all is within the first n bytes. An item without text was not lost.
func lose(items []Item, ends []int, n int) {
	begin := 0
	for i, end := range ends {
		if end > n && (i == 0 || end > begin) {
			items[i].Lost()
		}
		begin = end
	}
}
