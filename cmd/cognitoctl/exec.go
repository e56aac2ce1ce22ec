package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func execCommand() *cobra.Command {
	var (
		opts sourceOptions
		env  string
	)
	cmd := &cobra.Command{
		Use:   "exec [flags] -- PROGRAM [ARGUMENT...]",
		Short: "Run a program with an access token in its environment",
		Long: `exec gets a token, as cognitoctl token does, and runs a program that has it in its environment:

  COGNITO_ACCESS_TOKEN              the token
  COGNITO_ACCESS_TOKEN_FILE         a file with the token
  COGNITO_ACCESS_TOKEN_HEADER_FILE  a file with the header, for curl -H @"$COGNITO_ACCESS_TOKEN_HEADER_FILE"

The variable holds the token of the start. A program that runs longer than a token lives reads the file
before each request: it is replaced, in one step, before the token expires. Only the user can read
the files, and they are gone when the program has ended.

The program does not get the app client's secret: variables that hold it are taken out of its environment.
Signals are passed on, and the exit code is the program's, or 128 and the number of the signal that
ended it. If there is no token, it is not started.`,
		Example: `  cognitoctl exec -- ./nightly-report
  cognitoctl exec -- sh -c 'curl -H @"$COGNITO_ACCESS_TOKEN_HEADER_FILE" https://api.example.com/orders'
  cognitoctl exec --profile orders --env ORDERS_TOKEN -- ./nightly-report --day yesterday`,
		Args: arguments(1, math.MaxInt, "a program behind --"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !variableForm.MatchString(env) {
				return &usageError{fmt.Errorf("--env is %q, want the name of a variable such as ORDERS_TOKEN", env)}
			}
			s, err := load(cmd, opts.user)
			if err != nil {
				return err
			}
			program, err := lookPath(args[0])
			if err != nil {
				return err
			}
			source, err := s.source(cmd, opts)
			if err != nil {
				return err
			}
			t, err := waitFor(cmd.Context(), "a token from "+source.endpoint, source.Token)
			if err != nil {
				return err
			}
			return runWith(cmd.Context(), source, t, env, s.childEnvironment(env), program, args)
		},
	}
	cmd.Flags().StringVar(&env, "env", "COGNITO_ACCESS_TOKEN", "`NAME` of the variable with the token; those of the files are NAME_FILE and NAME_HEADER_FILE")
	cmd.Flags().SetInterspersed(false) // the program's flags are its own
	addSource(cmd, &opts)
	return cmd
}

var variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// lookPath finds a program, with the exit codes of env(1).
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, fs.ErrPermission):
		return "", &codedError{exitCannotRun, fmt.Errorf("%s: %w", name, fs.ErrPermission), ""}
	case errors.Is(err, syscall.EISDIR):
		return "", &codedError{exitCannotRun, fmt.Errorf("%s is a folder, want a program", name), ""}
	}
	return "", &codedError{exitNotFound, fmt.Errorf("%s: found no such program", name), ""}
}

// childEnvironment returns the environment without secrets and without what runWith sets.
func (s *settings) childEnvironment(env string) []string {
	taken := append(slices.Clone(s.ClientSecretEnv), secretVariable, env, env+"_FILE", env+"_HEADER_FILE")
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(taken, name)
	})
}

// runWith runs a program with a token, which it keeps fresh, and returns how it ended.
func runWith(ctx context.Context, source *source, t bearer, env string, environ []string, program string, args []string) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn...) // before there are files that a signal could leave behind
	defer signal.Stop(signals)
	leaveSignals(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	files, err := newTokenFiles(t)
	if err != nil {
		return err
	}
	defer files.remove()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program)
	cmd.Args = args
	cmd.Env = slices.Concat(environ, []string{env + "=" + t.token, env + "_FILE=" + files.token(), env + "_HEADER_FILE=" + files.header()})
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr

	if err := cmd.Start(); err != nil {
		return &codedError{exitCannotRun, err, ""}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() {
		for {
			select {
			case s := <-signals:
				if !terminalSends(s) {
					_ = cmd.Process.Signal(s) // it may have ended
				}
			case <-background.Done():
				return
			}
		}
	}()
	refreshed := make(chan struct{})
	go func() {
		defer close(refreshed)
		keepFresh(background, source, t, files)
	}()
	err = cmd.Wait()
	stop()
	<-refreshed // so that no file comes after remove
	if err != nil {
		return ended(cmd.ProcessState, err)
	}
	return nil
}

// ended returns how a program ended, as shells have it.
func ended(state *os.ProcessState, err error) error {
	if state == nil {
		return err
	}
	if code := state.ExitCode(); code >= 0 {
		return &childError{code}
	}
	return &childError{exitSignal + killedBy(state)}
}

// keepFresh replaces the files when the source has another token, until ctx ends.
func keepFresh(ctx context.Context, source *source, t bearer, files *tokenFiles) {
	// The source decides when to fetch; asking it costs nothing. Sixty times in a token's life is often enough to see a
	// new one long before the old one ends.
	tick := time.NewTicker(min(time.Minute, max(100*time.Millisecond, t.expiry.Sub(t.obtained)/60)))
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		next, err := source.Token(ctx)
		if err == nil && next.token != t.token {
			if err = files.write(next); err == nil {
				t = next
			}
		}
		if ctx.Err() == nil && (err != nil) != failing {
			if failing = err != nil; failing {
				note("the token cannot be refreshed, and the one at hand holds until %s: %v", t.expiry.Local().Format(time.TimeOnly), err)
			} else {
				note("the token can be refreshed again")
			}
		}
	}
}

// tokenFiles are the files that a program finds the current token in.
type tokenFiles struct{ dir string }

func newTokenFiles(t bearer) (*tokenFiles, error) {
	base := os.Getenv("XDG_RUNTIME_DIR") // the user's own, and in memory
	dir, err := os.MkdirTemp(base, "cognitoctl-")
	if err != nil && base != "" {
		dir, err = os.MkdirTemp("", "cognitoctl-")
	}
	if err != nil {
		return nil, fmt.Errorf("make a folder for the token: %w", err)
	}
	f := &tokenFiles{dir}
	if err := f.write(t); err != nil {
		f.remove()
		return nil, err
	}
	return f, nil
}

func (f *tokenFiles) token() string  { return filepath.Join(f.dir, "token") }
func (f *tokenFiles) header() string { return filepath.Join(f.dir, "header") }

// write replaces the files, each in one step: who reads one gets a whole token.
func (f *tokenFiles) write(t bearer) error {
	// No line end after the token: not every program that reads it would cut it off.
	for path, text := range map[string]string{f.token(): t.token, f.header(): "Authorization: Bearer " + t.token + "\n"} {
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			return fmt.Errorf("write the token: %w", err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			return fmt.Errorf("write the token: %w", err)
		}
	}
	return nil
}

func (f *tokenFiles) remove() { _ = os.RemoveAll(f.dir) } // what is left is in a folder that only this user can read
