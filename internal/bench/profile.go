package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// profile has extauthz profile itself under one scenario and writes what it says. The scenario is sent again and again, so
// with new tokens the window should not be longer than they last.
func profile(ctx context.Context, o options) error {
	r, err := newRunner(o)
	if err != nil {
		return err
	}
	defer r.programs.mint.close()
	all, err := scenarios(r.programs.mint, o.window, o.live)
	if err != nil {
		return err
	}
	if all = only(all, strings.Split(o.scenarios, ",")); len(all) != 1 {
		return errors.New("found no scenario or several, want one, such as -scenarios warm")
	}
	s := all[0]
	srv, err := r.programs.start(ctx, extauthz, setup{})
	if err != nil {
		return err
	}
	defer srv.stop()
	c, err := r.prepared(ctx, extauthz, srv, s)
	if err != nil {
		return err
	}
	defer c.close()
	file := filepath.Join(o.dir, strings.ReplaceAll(s.Name, " ", "-")+".prof")
	done := make(chan error, 1)
	go func() {
		done <- fetchProfile(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", srv.admin, max(1, int(o.window.Seconds()))), file)
	}()
	answered, took, err := c.closed(ctx, &feed{messages: s.messages, again: s.again}, s.InFlight, o.window)
	if err = errors.Join(err, <-done); err != nil {
		return err
	}
	fmt.Printf("%d checks in %s; see go tool pprof -top %s\n", answered, took.Round(1e6), file)
	found, err := sharesOf(ctx, file)
	if err != nil {
		return err
	}
	found.Commit, found.Load, found.Checks, found.Seconds = thisMachine(ctx).Commit, s.Name, answered, took.Seconds()
	found.print(os.Stdout)
	if s.Name != "warm" {
		return nil
	}
	return found.write(filepath.Join(o.dir, "profile.json"))
}

func fetchProfile(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return os.WriteFile(file, text, 0o600)
}
