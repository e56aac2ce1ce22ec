package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// quiet is how long a command waits without a word: most answers come sooner.
const quiet = time.Second

// waitFor calls f and says on a terminal what is waited for, if it takes long.
func waitFor[T any](ctx context.Context, what string, f func(context.Context) (T, error)) (T, error) {
	if !isTerminal(os.Stderr) {
		return f(ctx)
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		showWait(what, done)
	}()
	defer func() {
		close(done)
		<-ended
	}()
	return f(ctx)
}

var (
	shown  atomic.Bool  // whether the last line of the terminal says what is waited for
	hushed atomic.Int32 // how many talk to the person there
)

// clearProgress takes back the line that says what is waited for.
func clearProgress() {
	if shown.Swap(false) {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}

// hushProgress keeps the terminal for somebody who may ask the person there, until the function is called that it returns.
func hushProgress() (end func()) {
	hushed.Add(1)
	clearProgress()
	return func() { hushed.Add(-1) }
}

// showWait shows on one line, which it takes back, what is waited for and since when.
func showWait(what string, done <-chan struct{}) {
	begin := time.Now()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for {
		select {
		case <-done:
			clearProgress()
			return
		case <-tick.C:
			if hushed.Load() > 0 {
				continue
			}
			// A terminal that knows no control sequences gets one line, once.
			if dumb := os.Getenv("TERM") == "dumb" || os.Getenv("TERM") == ""; dumb {
				fmt.Fprintf(os.Stderr, "cognitoctl: waiting for %s\n", what)
				<-done
				return
			}
			shown.Store(true)
			fmt.Fprintf(os.Stderr, "\rcognitoctl: waiting for %s (%s)\x1b[K", what, span(time.Since(begin)))
		}
	}
}
