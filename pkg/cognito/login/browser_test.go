package login

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cli/browser"
)

// The system's browser is started with the address, and what it writes goes nowhere.
func TestOpenBrowser(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("another system opens it in another way")
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	const address = "https://my-app.auth.eu-west-1.amazoncognito.com/oauth2/authorize?a=b&c=d"
	if err := OpenBrowser(t.Context(), address); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without a browser: %v, want exec.ErrNotFound", err)
	}
	script := "#!/bin/sh\necho noise; echo noise >&2; printf %s \"$*\" >" + dir + "/opened\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := os.Stdout, os.Stderr
	noise, err := os.Create(filepath.Join(dir, "noise"))
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout, os.Stderr = noise, noise
	err = OpenBrowser(t.Context(), address)
	os.Stdout, os.Stderr = stdout, stderr
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := os.ReadFile(filepath.Join(dir, "opened")); string(opened) != address {
		t.Errorf("the browser was opened at %q, %v", opened, err)
	}
	if info, err := noise.Stat(); err != nil || info.Size() != 0 || browser.Stdout == stdout || browser.Stderr == stderr {
		t.Errorf("what the browser wrote got through, %v", err)
	}
	if err := NoBrowser(t.Context(), address); err != nil {
		t.Error(err)
	}
}
