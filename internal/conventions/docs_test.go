package conventions

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// A command is one that the documentation tells users to run, with what it says that they will see.
type command struct {
	file string
	line int
	text string
	want string // "…" stands for anything; empty: nothing is said
	yaml string // the YAML that the page showed last, which the command may be about
}

// A fence is a fenced block of a page.
type fence struct {
	info string // what stands behind the backticks
	line int    // of its first line
	body []string
}

func root(t testing.TB) string {
	t.Helper()
	dir, err := lab.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// pages are all Markdown files that users read.
func pages(t testing.TB) (files []string) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != top && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".md") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func fences(t testing.TB, file string) (all []fence) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var open *fence
	for i, line := range strings.Split(string(text), "\n") {
		mark, isMark := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isMark && open == nil:
			open = &fence{info: mark, line: i + 2}
		case isMark:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.body = append(open.body, line)
		}
	}
	return all
}

// programs are those that a line of a block without a language is taken for a command of.
var programs = regexp.MustCompile(`^([A-Z_]+=\S+ )*(make|extauthz|bin/extauthz|fakecognito|cognitoctl|curl|kubectl|istioctl|opa|go|docker|helm) `)

func commands(t testing.TB, file string) (all []command) {
	t.Helper()
	yaml := ""
	for _, f := range fences(t, file) {
		if strings.HasPrefix(f.info, "yaml") {
			yaml = strings.Join(f.body, "\n") + "\n"
		}
		for i, line := range f.body {
			text, isPrompt := strings.CutPrefix(line, "$ ")
			switch {
			case f.info == "console" && isPrompt:
				all = append(all, command{file: file, line: f.line + i, text: text, yaml: yaml})
			case f.info == "console" && len(all) > 0 && all[len(all)-1].file == file && i > 0:
				all[len(all)-1].want += line + "\n"
			case (f.info == "" || f.info == "sh") && programs.MatchString(strings.TrimSpace(line)):
				all = append(all, command{file: file, line: f.line + i, text: strings.TrimSpace(line), yaml: yaml})
			}
		}
	}
	return all
}

// heldElsewhere are pages whose commands a test of their own package runs.
var heldElsewhere = map[string]string{
	"docs/fakecognito.md": "cmd/fakecognito",
	"docs/policy.md":      "pkg/policy",
}

// elsewhere are programs that need a cluster or an image builder. What can be held of such a command is that the files
// that it names are there.
var elsewhere = []string{"kubectl", "istioctl", "docker", "helm"}

func TestDocumentedCommands(t *testing.T) {
	top := root(t)
	for _, file := range pages(t) {
		name, err := filepath.Rel(top, file)
		if err != nil {
			t.Fatal(err)
		}
		if heldElsewhere[name] != "" {
			continue
		}
		var callers *callersPage // started when a command needs it
		for _, c := range commands(t, file) {
			if callers == nil && strings.Contains(c.text, "cognitoctl ") {
				callers = newCallersPage(t)
			}
			t.Run(name+"/"+c.text, func(t *testing.T) {
				switch program, _, _ := strings.Cut(c.text, " "); {
				case strings.Contains(c.text, "cognitoctl "):
					callers.run(t, c)
				case c.text == "fakecognito", program == "export":
					// The stand-in that callers.run has; cmd/fakecognito holds the program itself. What is exported is in its
					// environment.
				case strings.HasPrefix(c.text, "make demo") && c.want != "":
					demoOutput(t, c)
				case program == "make":
					makeTarget(t, c)
				case program == "extauthz" || program == "bin/extauthz":
					runExtauthz(t, c)
				case program == "opa":
					runOPA(t, c)
				case program == "curl" && strings.Contains(c.text, "//127.0.0.1:"):
					runInDemo(t, c)
				case slices.Contains(elsewhere, program) || program == "curl":
					filesExist(t, c)
				default:
					t.Errorf("%s:%d: no test runs %q", c.file, c.line, c.text)
				}
			})
		}
	}
}

// makeTarget holds that the Makefile has the targets.
func makeTarget(t *testing.T, c command) {
	text, _, _ := strings.Cut(c.text, "#")
	args := append([]string{"--dry-run"}, strings.Fields(text)[1:]...)
	cmd := exec.CommandContext(t.Context(), "make", args...)
	cmd.Dir = root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", c.text, err, out)
	}
}

// demoOutput holds that what the page shows is in the demo's output, which the demo's own test holds to the letter.
func demoOutput(t *testing.T, c command) {
	out, err := os.ReadFile(filepath.Join(root(t), "internal", "demo", "testdata", "output.txt"))
	if err != nil {
		t.Fatal(err)
	}
	matches(t, c, string(out))
}

func runExtauthz(t *testing.T, c command) {
	args := strings.Fields(c.text)[1:]
	if args[0] == "serve" {
		return // it would not end; the demo and the end-to-end tests run it
	}
	dir := t.TempDir()
	for _, name := range []string{"deploy", "docs"} {
		if err := os.Symlink(filepath.Join(root(t), name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "extauthz.yaml"), []byte(c.yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if wrong := strings.Contains(c.want, ": ok (") || c.want == ""; err != nil && wrong {
		t.Errorf("%s: %v\n%s", c.text, err, out)
	}
	matches(t, c, string(out))
}

// runOPA runs OPA's program in a folder that has a policy and a signing key.
func runOPA(t *testing.T, c command) {
	opa := filepath.Join(root(t), ".tools", "bin", "opa")
	if _, err := os.Stat(opa); err != nil {
		lab.Skip(t, "no OPA here; make test builds it")
	}
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"policies/extauthz/policy.rego": []byte("package extauthz\n\ndecision := data.extauthz.base.decision\n"),
		"private.pem":                   pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), opa, strings.Fields(c.text)[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", c.text, err, out)
	}
	matches(t, c, string(out))
}

// program builds extauthz, which the build cache makes cheap.
func program(t *testing.T) string {
	t.Helper()
	path, err := lab.BuildExtauthz(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// runInDemo runs a command while the demo is up, on the demo's own ports.
func runInDemo(t *testing.T, c command) {
	lab.NeedCurl(t)
	lab.NeedEnvoy(t)
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	demo := exec.CommandContext(ctx, filepath.Join(build(t, "./internal/demo"), "demo"), "-free-ports", "-extauthz", program(t), "-dir", filepath.Join(dir, ".demo"))
	demo.Dir = root(t)
	demo.Cancel = func() error { return demo.Process.Signal(os.Interrupt) }
	demo.WaitDelay = 20 * time.Second
	stdout, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = demo.Wait() }()
	defer cancel()
	replace := ports(t, bufio.NewScanner(stdout))
	cmd := exec.CommandContext(ctx, "bash", "-c", replace.Replace(c.text))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", c.text, err, out)
	}
	matches(t, c, string(out))
}

// ports reads the demo's output until it stays up, and returns what makes the usual addresses the demo's.
func ports(t *testing.T, out *bufio.Scanner) *strings.Replacer {
	t.Helper()
	var pairs []string
	address := regexp.MustCompile(`^(user pool|envoy|upstream|extauthz) +(?:http://)?(127\.0\.0\.1:\d+)`)
	usual := map[string]string{"user pool": "127.0.0.1:9000", "envoy": "127.0.0.1:8080", "upstream": "127.0.0.1:8081", "extauthz": "127.0.0.1:9191"}
	for out.Scan() {
		if m := address.FindStringSubmatch(out.Text()); m != nil {
			pairs = append(pairs, usual[m[1]], m[2])
		}
		if strings.Contains(out.Text(), "Ctrl-C") {
			return strings.NewReplacer(pairs...)
		}
	}
	t.Fatal("the demo ended before it was up")
	return nil
}

func build(t *testing.T, pkg string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir+"/", pkg)
	cmd.Dir = root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// filesExist holds that the files and folders of this project that a command names are there.
func filesExist(t *testing.T, c command) {
	for _, word := range strings.Fields(c.text) {
		if !strings.HasPrefix(word, "deploy/") && !strings.HasPrefix(word, "docs/") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root(t), word)); err != nil {
			t.Error(err)
		}
	}
}

// matches compares an output with what the page shows of it.
func matches(t *testing.T, c command, out string) {
	t.Helper()
	if c.want == "" {
		return
	}
	pattern := "(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(c.want)), "…", ".*") + "$"
	if !regexp.MustCompile(pattern).MatchString(strings.TrimSpace(out)) {
		t.Errorf("%s:%d: %s\nsays\n%s\nand the page shows\n%s", c.file, c.line, c.text, out, c.want)
	}
}

// The Go of the README compiles, and is that of the package's own documentation, or of the programs of docs/callers.md.
func TestGoInREADME(t *testing.T) {
	var doc []byte
	for _, name := range []string{"pkg/validator/validator.go", "docs/callers.md"} {
		text, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		doc = append(doc, text...)
	}
	for _, f := range fences(t, filepath.Join(root(t), "README.md")) {
		if f.info != "go" {
			continue
		}
		for _, line := range f.body {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "v, err := validator.New(") {
				line = "v, err := validator.New(validator.Config{"
			}
			if !bytes.Contains(doc, []byte(line)) {
				t.Errorf("README has %q, which neither the documentation of pkg/validator nor docs/callers.md has", line)
			}
		}
	}
}

// Links between the project's own pages lead somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, file := range pages(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", file, m[1], err)
			}
		}
	}
}
