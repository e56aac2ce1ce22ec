package main

import (
	"context"
	"fmt"
	"os"
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
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		showWait(what, done)
	}()
	defer func() {
		close(done)
		<-shown
	}()
	return f(ctx)
}

// showWait shows on one line, which it takes back, what is waited for and since when.
func showWait(what string, done <-chan struct{}) {
	begin := time.Now()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	said := false
	for {
		select {
		case <-done:
			if said {
				fmt.Fprint(os.Stderr, "\r\x1b[K")
			}
			return
		case <-tick.C:
			// A terminal that knows no control sequences gets one line, once.
			if dumb := os.Getenv("TERM") == "dumb" || os.Getenv("TERM") == ""; dumb && !said {
				fmt.Fprintf(os.Stderr, "cognitoctl: waiting for %s\n", what)
				<-done
				return
			}
			said = true
			fmt.Fprintf(os.Stderr, "\rcognitoctl: waiting for %s (%s)\x1b[K", what, span(time.Since(begin)))
		}
	}
}
