package asynclog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var roomy = Limits{Items: 1000, Bytes: 1 << 20}

func TestEveryLineIsWrittenOnce(t *testing.T) {
	var out bytes.Buffer
	w := New(&out, roomy)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			line := fmt.Appendf(nil, "line %d\n", i)
			if n, err := w.Write(line); n != len(line) || err != nil {
				t.Errorf("Write returned %d and %v", n, err)
			}
			clear(line) // the caller may use its bytes again
		})
	}
	wg.Wait()
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "line "); lines != 100 || w.LostLines() != 0 {
		t.Errorf("%d lines and %d lost, want 100 and none", lines, w.LostLines())
	}
	if _, err := w.Write([]byte("late\n")); err != nil || w.LostLines() != 1 {
		t.Errorf("after Close: error %v and %d lost, want none and one", err, w.LostLines())
	}
	if err := w.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) { <-b; return len(p), nil }

// Nobody waits for an output that does not move, and what is kept for it is bounded in number and in bytes.
func TestBlockedOutput(t *testing.T) {
	for name, test := range map[string]struct {
		limits    Limits
		line      string
		least, is uint64 // of 100 lines, how many are lost; the goroutine may have taken some
	}{
		"too many lines": {Limits{Items: 10, Bytes: 1 << 20}, "line\n", 79, 90},
		"too many bytes": {Limits{Items: 1000, Bytes: 50}, "line\n", 90, 90},
		"too long":       {Limits{Items: 1000, Bytes: 4}, "line\n", 100, 100},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := make(blocked)
				w := New(out, test.limits)
				start := time.Now()
				for range 100 {
					_, _ = w.Write([]byte(test.line))
				}
				if time.Since(start) != 0 {
					t.Error("Write waited")
				}
				if lost := w.LostLines(); lost < test.least || lost > test.is {
					t.Errorf("%d lines lost, want %d to %d", lost, test.least, test.is)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := w.Close(ctx); err == nil && test.is < 100 {
					t.Error("Close returned before the lines were written, and no error")
				}
				close(out)
				if err := w.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// full takes some bytes, then fails, then has room again.
type full struct {
	bytes.Buffer

	room []int
}

func (f *full) Write(p []byte) (int, error) {
	if len(f.room) == 0 {
		return f.Buffer.Write(p)
	}
	n := min(f.room[0], len(p))
	f.room = f.room[1:]
	f.Buffer.Write(p[:n])
	return n, errors.New("no space left on device")
}

// A line that did not fit counts as lost, and what is left of it spoils no other line.
func TestFullOutput(t *testing.T) {
	out := &full{room: []int{7, 0}}
	w := New(out, roomy)
	take := lines(out)
	item := func(s string) Item { return &text{[]byte(s), w} }
	take([]Item{item("one\n"), item("two\n"), item("three\n")})
	take([]Item{item("four\n")})
	take([]Item{item("")})
	take([]Item{item("five\n"), item(""), item("six\n")})
	if want := "one\ntwo\nfive\nsix\n"; out.String() != want {
		t.Errorf("found %q, want %q", out, want)
	}
	if w.LostLines() != 3 {
		t.Errorf("%d lines lost, want 3", w.LostLines())
	}
	if err := w.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
