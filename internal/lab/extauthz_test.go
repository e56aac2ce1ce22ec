package lab_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// program makes this test binary stand in for extauthz: it then does what the file given by --config says in one word.
const program = "LAB_TEST_PROGRAM"

func runProgram(args []string) int {
	word, err := os.ReadFile(args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	fmt.Println("args", args[:2], "greeting", os.Getenv("GREETING"))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	status := http.StatusOK
	switch string(word) {
	case "bad":
		fmt.Fprintln(os.Stderr, "extauthz.yaml:1:1: found nothing, want a configuration")
		return 2
	case "unready":
		status = http.StatusServiceUnavailable
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	server := http.Server{
		Addr: os.Getenv("METRICS"),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "starting", status)
		}),
	}
	go func() { _ = server.ListenAndServe() }()
	<-ctx.Done()
	fmt.Fprintln(os.Stderr, "drained")
	return 0
}

func startProgram(t *testing.T, word string) (*lab.Extauthz, error) {
	t.Helper()
	ports, err := lab.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "extauthz.yaml")
	if err := os.WriteFile(file, []byte(word), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if word == "unready" {
		ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
	}
	metrics := lab.Loopback(ports[0])
	return lab.StartExtauthz(ctx, lab.ExtauthzConfig{
		Binary: binary, ConfigFile: file, Metrics: metrics, Dir: dir,
		Env: []string{program + "=1", "GREETING=hello", "METRICS=" + metrics},
	})
}

func TestExtauthzRunsAndStops(t *testing.T) {
	t.Parallel()
	x, err := startProgram(t, "good")
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Stop(t.Context()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if diff := cmp.Diff("args [serve --config] greeting hello\n", x.Stdout()); diff != "" {
		t.Errorf("standard output: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff("drained\n", x.Stderr()); diff != "" {
		t.Errorf("standard error: -want +got:\n%s", diff)
	}
}

func TestExtauthzThatDoesNotStopIsKilled(t *testing.T) {
	t.Parallel()
	x, err := startProgram(t, "stubborn")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := x.Stop(ctx); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("Stop: %v, want an error that says it was killed", err)
	}
	select {
	case <-x.Done():
	default:
		t.Error("it still runs after Stop")
	}
}

func TestStartExtauthzSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"bad":     "found nothing, want a configuration",
		"unready": "/readyz: 503 Service Unavailable: starting",
	} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			x, err := startProgram(t, word)
			if err == nil {
				x.Kill()
				t.Fatal("it runs, want an error")
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
		})
	}
}

func TestBuildExtauthz(t *testing.T) {
	t.Parallel()
	binary, err := lab.BuildExtauthz(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "extauthz ") {
		t.Errorf("extauthz version: %q, %v, want its name and version", out, err)
	}
}
