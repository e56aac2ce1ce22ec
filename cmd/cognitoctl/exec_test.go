//go:build unix

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/config"
)

// A signal that comes before the program of exec runs ends us, and leaves no token behind.
func TestSignalBeforeTheProgram(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	ctx, stop := interruptible()
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	started := filepath.Join(t.TempDir(), "started")
	err := runWith(ctx, &source{}, bearer{token: "x"}, "X", nil, "/bin/sh", []string{"sh", "-c", "touch " + started})
	if s := (*signalError)(nil); !errors.As(err, &s) || s.signal != syscall.SIGTERM {
		t.Errorf("got %v, want the signal", err)
	}
	if _, err := os.Stat(started); err == nil {
		t.Error("the program was started")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("there are %v, %v, want no files", left, err)
	}
}

// Nor does one get lost that comes at the last moment.
func TestSignalAtTheLastMoment(t *testing.T) {
	seen := make(chan os.Signal, 1)
	signal.Notify(seen, syscall.SIGTERM)
	defer signal.Stop(seen)
	for range 100 {
		ctx, stop := interruptible()
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-seen
		leaveSignals(ctx)
		if ctx.Err() == nil {
			t.Fatal("the signal is lost")
		}
		stop()
	}
}

// A command that hangs is an error that says so, and one that may pass.
func TestSecretCommandThatHangs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := usageSecret(secretCommand("exec sleep 60"))(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "clientSecretCommand has not ended") {
		t.Errorf("got %v, want that it has not ended", err)
	}
}

// All requests together take half a minute by default, but one may take as long as the timeout says.
func TestTimeoutAboveTheDefaultOfAll(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{10 * time.Second: 0, 5 * time.Minute: 5 * time.Minute} {
		s := settings{Profile: &config.Profile{Timeout: timeout}}
		if got := s.retry().MaxElapsed; got != want {
			t.Errorf("timeout %v: MaxElapsed is %v, want %v", timeout, got, want)
		}
	}
}
