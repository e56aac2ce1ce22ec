package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

var update = flag.Bool("update", false, "rewrite testdata/output.txt")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startDemo starts everything on free ports, in a folder .demo as a user would have it.
func startDemo(t *testing.T) *deployment {
	t.Helper()
	lab.NeedEnvoy(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	binary, err := lab.BuildExtauthz(ctx, t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	ports, err := choosePorts(true)
	if err != nil {
		t.Fatal(err)
	}
	d, err := start(ctx, filepath.Join(t.TempDir(), ".demo"), binary, ports)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// usually puts the ports that `make demo` has in the place of the free ones of a test.
func (d *deployment) usually(text string) string {
	var pairs []string
	for _, p := range [][2]int{
		{d.ports.envoy, usual.envoy},
		{d.ports.upstream, usual.upstream},
		{d.ports.cognito, usual.cognito},
		{d.ports.grpc, usual.grpc},
		{d.ports.metrics, usual.metrics},
	} {
		pairs = append(pairs, lab.Loopback(p[0]), lab.Loopback(p[1]))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// The output is in README.md too, so it is held to the letter.
func TestDemoShowsWhatItSays(t *testing.T) {
	d := startDemo(t)
	var out bytes.Buffer
	d.describe(&out, ".demo")
	if unexpected := d.play(t.Context(), &out); unexpected != 0 {
		t.Errorf("%d unexpected answers:\n%s\nextauthz says:\n%s", unexpected, &out, d.service.Stderr())
	}
	got := d.usually(out.String())
	const file = "testdata/output.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("go test ./internal/demo -update rewrites %s; -want +got:\n%s", file, diff)
	}
}

// Each command that is printed works when it is pasted into a shell.
func TestDemoSuggestsWhatWorks(t *testing.T) {
	lab.NeedCurl(t)
	d := startDemo(t)
	if err := d.writeAuthorization(); err != nil {
		t.Fatal(err)
	}
	shell := func(command string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -o pipefail; "+command)
		cmd.Dir = filepath.Dir(d.dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	suggestions := d.suggestions(".demo")
	ask := suggestions[0].command
	wants := []string{"HTTP/1.1 200 OK", "insufficient_scope", `"access_token":"ey`, "", "", "access_kid", `"decision_id"`, `"decision_id"`, "extauthz_checks"}
	for i, s := range suggestions {
		if out := shell(s.command); !strings.Contains(out, wants[i]) {
			t.Errorf("%s: %s: found\n%s\nwant %q in it", s.shows, s.command, out, wants[i])
		}
		answer := ""
		switch i {
		case 3:
			answer = "HTTP/1.1 200 OK"
		case 4:
			answer = "HTTP/1.1 401 Unauthorized"
		}
		if out := shell(ask); answer != "" && !strings.Contains(out, answer) {
			t.Errorf("after %s: found\n%s\nwant %q in it", s.shows, out, answer)
		}
	}
}

func TestDemoEndsOnceWhenTold(t *testing.T) {
	lab.NeedEnvoy(t)
	binary, err := lab.BuildExtauthz(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	args := []string{"--once", "--free-ports", "--dir", filepath.Join(t.TempDir(), ".demo"), "--extauthz", binary}
	if err := run(t.Context(), args, &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	if strings.Contains(out.String(), "Left running") {
		t.Errorf("found\n%s\nwant no word of staying", &out)
	}
}

func TestDemoNamesTakenPorts(t *testing.T) {
	l, err := net.Listen("tcp", lab.Loopback(usual.envoy))
	if err == nil { // else it is taken anyway
		defer l.Close()
	}
	err = run(t.Context(), []string{"--once"}, &bytes.Buffer{})
	want := fmt.Sprintf("port %d, for Envoy, is in use", usual.envoy)
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--free-ports") {
		t.Errorf("got %v, want an error with %q and --free-ports", err, want)
	}
}

func TestDemoNeedsTheProgram(t *testing.T) {
	lab.NeedEnvoy(t)
	missing := filepath.Join(t.TempDir(), "extauthz")
	err := run(t.Context(), []string{"--free-ports", "--dir", t.TempDir(), "--extauthz", missing}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v, want an error that names %s", err, missing)
	}
}

func TestChallengeKeepsWhatTells(t *testing.T) {
	tests := []struct{ header, want string }{
		{`Bearer realm="extauthz"`, `Bearer realm="extauthz"`},
		{`Bearer realm="extauthz", error="invalid_token", error_description="Get a new one."`, `error="invalid_token"`},
		{`Bearer realm="extauthz", error="insufficient_scope", scope="a/b"`, `error="insufficient_scope", scope="a/b"`},
		{"", ""},
	}
	for _, tt := range tests {
		if got := challenge(tt.header); got != tt.want {
			t.Errorf("challenge(%q) = %q, want %q", tt.header, got, tt.want)
		}
	}
}

func TestTableHasColumns(t *testing.T) {
	var out bytes.Buffer
	table{{"a", "böse", "c"}, {"long", "x"}, {"", "", "", "d"}}.print(&out)
	want := "a     böse  c\nlong  x\n               d\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
