package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// A section is a part of docs/performance.md that is made of results.
type section struct {
	name    string // of the results, NAME.json, and of the comments that enclose the section
	picture string // in docs
	text    func(*results) []byte
	plot    func(*results) []byte
}

var sections = []section{
	{"bench", "performance.svg", text((*results).print), plotChecks},
	{"scale", "performance-scale.svg", text((*results).printScale), plotScale},
}

// writeDocs puts the results in dir into docs/performance.md and its pictures, and keeps them in testdata, by which a test
// holds the page.
func writeDocs(dir string) error {
	root, err := lab.Root()
	if err != nil {
		return err
	}
	page := filepath.Join(root, "docs", "performance.md")
	document, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	for _, s := range sections {
		r, err := readResults(filepath.Join(dir, s.name+".json"))
		if errors.Is(err, os.ErrNotExist) {
			continue // measured another time
		}
		if err != nil {
			return err
		}
		if document, err = s.into(document, r); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
		if err := r.write(filepath.Join(root, "internal", "bench", "testdata", s.name+".json")); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, "docs", s.picture), s.plot(r), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(page, document, 0o600) // #nosec G703 -- a page of this project
}

// into replaces what stands between the section's comments.
func (s section) into(document []byte, r *results) ([]byte, error) {
	begin := fmt.Appendf(nil, "<!-- %s: begin. `make bench-docs` writes what follows. -->\n", s.name)
	end := fmt.Appendf(nil, "<!-- %s: end -->\n", s.name)
	before, rest, found := bytes.Cut(document, begin)
	_, after, closed := bytes.Cut(rest, end)
	if !found || !closed {
		return nil, fmt.Errorf("found no lines %q and %q", begin, end)
	}
	return bytes.Join([][]byte{before, begin, []byte("\n"), s.text(r), []byte("\n"), end, after}, nil), nil
}
