package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// logger returns what our packages log to: with --verbose all of it is shown, else what a person must act on.
func logger(cmd *cobra.Command) (*slog.Logger, error) {
	level := slog.LevelError
	if text, source := place(cmd, verboseFlag); text != "" {
		verbose, err := strconv.ParseBool(text)
		if err != nil {
			return nil, &usageError{fmt.Errorf("%s: found %q, want true or false", source, text)}
		}
		if verbose {
			level = slog.LevelDebug
		}
	}
	return slog.New(slog.NewTextHandler(notes{}, &slog.HandlerOptions{Level: level})), nil
}

// notes are lines for the person.
type notes struct{}

func (notes) Write(line []byte) (int, error) {
	note("%s", strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

// A loggedTransport logs requests. Queries, headers, bodies and what is wrong with an answer may hold secrets, and are left out.
type loggedTransport struct {
	http.RoundTripper
	log *slog.Logger
}

func (t loggedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	begin := time.Now()
	resp, err := t.RoundTripper.RoundTrip(req)
	log := t.log.With("method", req.Method, "url", req.URL.Scheme+"://"+req.URL.Host+req.URL.EscapedPath(), "took", time.Since(begin).Round(time.Millisecond))
	if err != nil {
		log.DebugContext(req.Context(), "request without an answer")
	} else {
		log.DebugContext(req.Context(), "request", "status", resp.StatusCode)
	}
	return resp, err
}
