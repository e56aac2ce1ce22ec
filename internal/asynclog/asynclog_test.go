package asynclog

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryLineIsWrittenOnce(t *testing.T) {
	var out bytes.Buffer
	w := New(&out, 1000)
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
	if lines := strings.Count(out.String(), "line "); lines != 100 || w.Dropped() != 0 {
		t.Errorf("%d lines and %d dropped, want 100 and none", lines, w.Dropped())
	}
	if _, err := w.Write([]byte("late\n")); err != nil || w.Dropped() != 1 {
		t.Errorf("after Close: error %v and %d dropped, want none and one", err, w.Dropped())
	}
	if err := w.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

type blocked chan struct{}

func (b blocked) Write(p []byte) (int, error) { <-b; return len(p), nil }

// Nobody waits for an output that does not move.
func TestBlockedOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(blocked)
		w := New(out, 10)
		start := time.Now()
		for range 100 {
			_, _ = w.Write([]byte("line\n"))
		}
		if time.Since(start) != 0 {
			t.Error("Write waited")
		}
		if d := w.Dropped(); d < 89 || d > 90 {
			t.Errorf("%d lines dropped, want all but those that are held", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Close(ctx); err == nil {
			t.Error("Close returned before the lines were written, and no error")
		}
		close(out)
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
