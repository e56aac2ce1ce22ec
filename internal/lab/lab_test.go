package lab_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

func TestMain(m *testing.M) {
	if os.Getenv(program) != "" {
		os.Exit(runProgram(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

func TestRootHoldsTheModule(t *testing.T) {
	root, err := lab.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "internal", "lab", "lab.go")); err != nil {
		t.Error(err)
	}
}

func TestRootOutsideTheProjectIsAnError(t *testing.T) {
	t.Chdir(t.TempDir())
	if root, err := lab.Root(); err == nil {
		t.Errorf("Root() = %q, want an error", root)
	}
}

func TestFreePortsAreDifferentAndFree(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 3 {
		ports, err := lab.FreePorts(20)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			if seen[port] {
				t.Errorf("port %d came twice", port)
			}
			seen[port] = true
			l, err := net.Listen("tcp", lab.Loopback(port))
			if err != nil {
				t.Errorf("port %d: %v", port, err)
				continue
			}
			if !lab.Taken(port) {
				t.Errorf("port %d is listened on, but Taken says false", port)
			}
			l.Close()
		}
	}
}

func TestFindEnvoyTakesNoOtherThanTheNamedOne(t *testing.T) {
	old := filepath.Join(t.TempDir(), "envoy")
	script := "#!/bin/sh\necho 'envoy  version: 0123abc/1.37.9/Clean/RELEASE/BoringSSL'\n"
	if err := os.WriteFile(old, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want string
	}{
		{"too old", old, "found version 1.37, want at least 1.38"},
		{"not there", old + "x", "no such file"},
		{"not an Envoy", "/bin/true", "want a version such as"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("EXTAUTHZ_ENVOY", tt.path)
			path, err := lab.FindEnvoy(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("FindEnvoy() = %q, %v, want an error with %q", path, err, tt.want)
			}
		})
	}
}
