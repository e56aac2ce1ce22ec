package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// helpers is what the mutants call, without a package clause.
//
//go:embed switch.go.txt
var helpers string

// source is a package without its tests, parsed and type-checked.
type source struct {
	dir   string
	fset  *token.FileSet
	files []*ast.File
	text  map[string][]byte // by file
	types *types.Package
	info  *types.Info
}

// load reads the package that the pattern names. The go command compiles what it imports.
func load(ctx context.Context, pattern string) (*source, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-export", "-json=Dir,ImportPath,Export,GoFiles", "--", pattern) // #nosec G204 -- the developer's own package
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", pattern, err)
	}
	var last struct {
		Dir, ImportPath, Export string
		GoFiles                 []string
	}
	exports := make(map[string]string)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; exports[last.ImportPath] = last.Export {
		if err := dec.Decode(&last); errors.Is(err, io.EOF) {
			break // the package itself is the last, after all that it imports
		} else if err != nil {
			return nil, fmt.Errorf("go list %s: %w", pattern, err)
		}
	}
	pkg := &source{
		dir: last.Dir, fset: token.NewFileSet(), text: make(map[string][]byte),
		info: &types.Info{Types: make(map[ast.Expr]types.TypeAndValue), Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object)},
	}
	for _, name := range last.GoFiles {
		if err := pkg.parse(filepath.Join(last.Dir, name)); err != nil {
			return nil, err
		}
	}
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
	cfg := types.Config{Importer: importer.ForCompiler(pkg.fset, "gc", lookup)}
	pkg.types, err = cfg.Check(last.ImportPath, pkg.fset, pkg.files, pkg.info)
	return pkg, err
}

func (s *source) parse(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(s.fset, name, text, parser.SkipObjectResolution)
	s.files, s.text[name] = append(s.files, file), text
	return err
}

// binary is a test binary that holds all mutants.
type binary struct {
	path, dir string
	slow      string // a pattern of the slow tests
}

// build compiles the tests of a package with its insertions, in dir.
func build(ctx context.Context, dir string, pkg *source, insertions map[string][]insertion) (*binary, error) {
	replace := make(map[string]string)
	write := func(name string, text []byte) error {
		replace[name] = filepath.Join(dir, strconv.Itoa(len(replace))+".go")
		return os.WriteFile(replace[name], text, 0o600)
	}
	for name, text := range pkg.text {
		if err := write(name, apply(text, insertions[name])); err != nil {
			return nil, err
		}
	}
	if err := write(filepath.Join(pkg.dir, "mutation_switch.go"), []byte("package "+pkg.types.Name()+"\n"+helpers)); err != nil {
		return nil, err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	overlayFile, path := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tests")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlayFile, "-o", path, pkg.dir) // #nosec G204 -- the developer's own package
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("a mutant does not compile: %w\n%s", err, out)
	}
	return &binary{path: path, dir: pkg.dir}, nil
}

var passed = regexp.MustCompile(`(?m)^--- PASS: (\S+) \((\S+)s\)`)

// measure runs the tests as they are, and notes the slow ones: most mutants need none of them to be noticed.
func (b *binary) measure(ctx context.Context, timeout time.Duration) error {
	out, err := b.tests(ctx, 0, timeout, "-test.v")
	if err != nil {
		return fmt.Errorf("the tests fail as they are: %w\n%s", err, out)
	}
	var slow []string
	for _, m := range passed.FindAllStringSubmatch(out, -1) {
		if seconds, err := strconv.ParseFloat(m[2], 64); err == nil && seconds >= 0.1 {
			slow = append(slow, m[1])
		}
	}
	b.slow = "^(" + strings.Join(slow, "|") + ")$"
	return nil
}

// run runs the tests with one mutant switched on, the slow ones last.
func (b *binary) run(ctx context.Context, id int, timeout time.Duration) (string, error) {
	if out, err := b.tests(ctx, id, timeout, "-test.skip", b.slow); err != nil {
		return out, err
	}
	return b.tests(ctx, id, timeout, "-test.run", b.slow)
}

func (b *binary) tests(ctx context.Context, id int, timeout time.Duration, args ...string) (string, error) {
	args = append([]string{"-test.failfast", "-test.timeout", timeout.String()}, args...)
	cmd := exec.CommandContext(ctx, b.path, args...) // #nosec G204 -- built above
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "MUTANT="+strconv.Itoa(id))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^(panic: .*)`)

// fateOf says what became of a mutant. An error means that nothing is known.
func fateOf(out string, err error) (fate, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return fate{name: "survived"}, nil
	case !errors.As(err, &exit) || !exit.Exited():
		return fate{}, err
	case strings.Contains(out, "panic: test timed out"):
		return fate{name: "hung"}, nil
	}
	var by []string
	for _, m := range failure.FindAllStringSubmatch(out, -1) {
		by = append(by, m[1]+m[2])
	}
	return fate{"killed", strings.Join(by, ", ")}, nil
}
