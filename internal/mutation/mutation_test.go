package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const gate = "./testdata/gate"

func TestFind(t *testing.T) {
	pkg, err := load(t.Context(), gate)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range find(pkg).mutants {
		got = append(got, strings.TrimPrefix(m.key, "gate.go "))
	}
	want := []string{
		`package: banned, without "eve"`,
		`package: banned, without "mallory"`,
		`package: late, without "bob"`,
		`Open: age < 18 || len(name) > maxName, never`,
		`Open: age < 18 || len(name) > maxName, without age < 18`,
		`Open: age < 18 || len(name) > maxName, without len(name) > maxName`,
		`Open: age < 18, as <=`,
		`Open: len(name) > maxName, as >=`,
		`package: maxName, doubled`,
		`Open: banned[i] == name, never`,
		`Open: at.After(closes) && !late[name], never`,
		`Open: at.After(closes) && !late[name], without at.After(closes)`,
		`Open: at.After(closes) && !late[name], without !late[name]`,
		`Open: at.After(closes), or equal`,
		`Open: name == "", never`,
		`Open: return named(name), without the error`,
		`named: known(name), never`,
		`named: known(name), always`,
		`named: return errors.New("unknown"), without the error`,
		`known: return name[0] != '?', as true`,
		`known: name[0] != '?', as <`,
		`known: name[0] != '?', as >`,
		`isHigh: l >= high && l != 0, without l >= high`,
		`isHigh: l >= high && l != 0, without l != 0`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mutants (-want +got):\n%s", diff)
	}
}

// The survivors are what the tests of testdata/gate do not look at.
func TestCheck(t *testing.T) {
	accepted := filepath.Join(t.TempDir(), "accepted.txt")
	const rows = `# A comment.
gate.go isHigh: l >= high && l != 0, without l != 0
	What is high is not zero.

gate.go Open: age < 17, never
	There is no such check.
`
	if err := os.WriteFile(accepted, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := checker{out: &out, timeout: time.Minute}
	err := c.check(t.Context(), gate, accepted)
	text, summary, _ := strings.Cut(out.String(), "24 mutants in ")
	want := `gate.go:16: survived: package: banned, without "mallory"
gate.go:22: survived: Open: len(name) > maxName, as >=
gate.go:46: survived: known: name[0] != '?', as >
accepted, but it does not survive or does not exist: gate.go Open: age < 17, never
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if want := "20 killed, of them 0 by hanging; 1 survivors accepted, 3 not accepted; 1 rows stale\n"; !strings.HasSuffix(summary, want) {
		t.Errorf("summary is %q, want it to end in %q", summary, want)
	}
	if err == nil || !strings.Contains(err.Error(), "3 survivors are not accepted and 1 rows are stale") {
		t.Errorf("error is %v, want 3 survivors and 1 stale row", err)
	}
}

// A row that names no mutant is found without running any.
func TestAcceptedMutantsExist(t *testing.T) {
	accepted, err := readAccepted("accepted.txt")
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := load(t.Context(), "../../pkg/validator")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range find(pkg).mutants {
		delete(accepted, m.key)
	}
	for key := range accepted {
		t.Errorf("accepted.txt has %q, want a mutant of pkg/validator", key)
	}
}

func TestReadAcceptedRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no reason": "a.go f: x, never\n",
		"no mutant": "\tBecause.\n",
		"twice":     "a.go f: x, never\n\tBecause.\na.go f: x, never\n\tBecause.\n",
	} {
		file := filepath.Join(t.TempDir(), "accepted.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readAccepted(file); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFateOf(t *testing.T) {
	for out, want := range map[string]fate{
		"--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n": {"killed", "TestA, TestA/b"},
		"panic: nil map\n":                 {"killed", "panic: nil map"},
		"panic: test timed out after 1m0s": {"hung", ""},
	} {
		pkg := binary{path: "/bin/false"}
		_, err := pkg.run(t.Context(), 1, time.Minute)
		if got, err := fateOf(out, err); err != nil || got != want {
			t.Errorf("%q: fate is %v and error %v, want %v", out, got, err, want)
		}
	}
	if _, err := fateOf("", os.ErrNotExist); err == nil {
		t.Error("tests that did not run gave no error")
	}
}
