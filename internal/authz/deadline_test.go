package authz

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestMargin(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		time.Second: 100 * time.Millisecond, 200 * time.Millisecond: 40 * time.Millisecond, 20 * time.Millisecond: 10 * time.Millisecond,
		5 * time.Millisecond: 5 * time.Millisecond, 0: 0,
	} {
		if got := margin(left); got != want {
			t.Errorf("of %v left, the margin is %v, want %v", left, got, want)
		}
	}
}

// within returns a context that ends in 200 ms, so that the check must have ended after 160.
func within(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 200*time.Millisecond)
}

func TestEarlierEndsBeforeItsParent(t *testing.T) {
	for name, wait := range map[string]func(ctx context.Context){
		"itself":          func(ctx context.Context) { <-ctx.Done() },
		"a context of it": func(ctx context.Context) { child, cancel := context.WithCancel(ctx); defer cancel(); <-child.Done() },
		"one with a later deadline": func(ctx context.Context) {
			child, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			<-child.Done()
		},
		"asked again and again": func(ctx context.Context) {
			for ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := within(t)
			defer cancel()
			began := time.Now()
			ctx := beforeDeadline(parent, began)
			defer ctx.release()
			wait(ctx)
			if took := time.Since(began); took != 160*time.Millisecond {
				t.Errorf("%s: ended after %v, want 160ms", name, took)
			}
			if parent.Err() != nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("%s: error %v and the parent's %v, want the former past its deadline", name, ctx.Err(), parent.Err())
			}
		})
	}
}

func TestEarlierEndsWithItsParent(t *testing.T) {
	parent, cancel := within(t)
	ctx := beforeDeadline(parent, time.Now())
	defer ctx.release()
	if err := ctx.Err(); err != nil {
		t.Fatalf("error %v before anything has ended", err)
	}
	done := ctx.Done()
	cancel()
	<-done
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("error %v, want that it was canceled", ctx.Err())
	}
}

func TestEarlierWithoutDeadline(t *testing.T) {
	ctx := beforeDeadline(t.Context(), time.Now())
	if deadline, ok := ctx.Deadline(); ok {
		t.Errorf("a deadline of %v, want none", deadline)
	}
	done := ctx.Done()
	ctx.release()
	<-done
}

// Whoever outlives the check, such as an evaluation that has not noticed its end, sees that it is over.
func TestEarlierIsOverWhenReleased(t *testing.T) {
	parent, cancel := within(t)
	defer cancel()
	ctx := beforeDeadline(parent, time.Now())
	ctx.release()
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("error %v, want that it was canceled", ctx.Err())
	}
}

// A context of one that somebody waits on takes no goroutine.
func TestEarlierTakesNoGoroutine(t *testing.T) {
	parent, cancel := within(t)
	defer cancel()
	type key struct{}
	ctx := beforeDeadline(context.WithValue(parent, key{}, "kept"), time.Now())
	defer ctx.release()
	before := runtime.NumGoroutine()
	var ends []context.CancelFunc
	for range 100 {
		child, end := context.WithCancel(ctx)
		ends = append(ends, end)
		if child.Value(key{}) != "kept" {
			t.Fatal("a value is lost")
		}
	}
	if more := runtime.NumGoroutine() - before; more > 10 {
		t.Errorf("%d goroutines more, want none", more)
	}
	for _, end := range ends {
		end()
	}
}
