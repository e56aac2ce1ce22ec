package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// recorded are all results that the pages show. A field is nil if nobody has measured it yet.
type recorded struct {
	bench, scale *results
	simulation   *simulation
	profile      *profiled
}

// The pages that have sections made of results.
const (
	performancePage = "performance.md"
	scalingPage     = "scaling.md"
)

// A section is a part of a page that is made of results.
type section struct {
	page string // in docs
	name string // of the comments that enclose it
	text func(*recorded, io.Writer)
}

var sections = []section{
	{performancePage, "bench", func(r *recorded, w io.Writer) { r.bench.print(w) }},
	{performancePage, "profile", func(r *recorded, w io.Writer) { r.profile.print(w) }},
	{performancePage, "scale", func(r *recorded, w io.Writer) { r.scale.printScale(w) }},
	{performancePage, "cache", func(r *recorded, w io.Writer) { r.scale.printCache(w) }},
	{scalingPage, "capacity", (*recorded).printCapacity},
	{scalingPage, "layouts", (*recorded).printLayouts},
	{scalingPage, "sources", (*recorded).printSources},
	{scalingPage, "hits", (*recorded).printHits},
	{scalingPage, "sizes", (*recorded).printSizes},
	{scalingPage, "memory", (*recorded).printMemory},
	{scalingPage, "logs", (*recorded).printLogs},
	{scalingPage, "limits", (*recorded).printLimits},
}

// A drawing is a picture in docs that is made of results.
type drawing struct {
	file string
	plot func(*recorded) []byte
}

var drawings = []drawing{
	{"performance.svg", func(r *recorded) []byte { return plotChecks(r.bench) }},
	{"performance-scale.svg", func(r *recorded) []byte { return plotScale(r.scale) }},
	{"performance-cache.svg", func(r *recorded) []byte { return plotCache(r.scale) }},
}

// readRecorded reads the results that are in a folder. Those that were measured another time are missing.
func readRecorded(dir string) (*recorded, error) {
	r := new(recorded)
	var errs [4]error
	r.bench, errs[0] = readResults(filepath.Join(dir, "bench.json"))
	r.scale, errs[1] = readResults(filepath.Join(dir, "scale.json"))
	r.simulation, errs[2] = readSimulation(filepath.Join(dir, "simulate.json"))
	r.profile, errs[3] = readProfiled(filepath.Join(dir, "profile.json"))
	for _, err := range errs {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return r, nil
}

// write keeps the results that there are.
func (r *recorded) write(dir string) error {
	var errs []error
	if r.bench != nil {
		errs = append(errs, r.bench.write(filepath.Join(dir, "bench.json")))
	}
	if r.scale != nil {
		errs = append(errs, r.scale.write(filepath.Join(dir, "scale.json")))
	}
	if r.simulation != nil {
		errs = append(errs, r.simulation.write(filepath.Join(dir, "simulate.json")))
	}
	if r.profile != nil {
		errs = append(errs, r.profile.write(filepath.Join(dir, "profile.json")))
	}
	return errors.Join(errs...)
}

// writeDocs keeps the results in dir in testdata, by which a test holds the pages, and puts all that is there into the pages and
// their pictures.
func writeDocs(dir string) error {
	root, err := lab.Root()
	if err != nil {
		return err
	}
	kept := filepath.Join(root, "internal", "bench", "testdata")
	fresh, err := readRecorded(dir)
	if err != nil {
		return err
	}
	if err := fresh.write(kept); err != nil {
		return err
	}
	all, err := readRecorded(kept)
	if err != nil {
		return err
	}
	docs := filepath.Join(root, "docs")
	for _, page := range []string{performancePage, scalingPage} {
		text, err := os.ReadFile(filepath.Join(docs, page))
		if err != nil {
			return err
		}
		if text, err = all.into(page, text); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(docs, page), text, 0o600); err != nil { // #nosec G703 -- a page of this project
			return err
		}
	}
	for _, d := range drawings {
		if err := os.WriteFile(filepath.Join(docs, d.file), d.plot(all), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// into replaces what stands between the comments of the page's sections.
func (r *recorded) into(page string, document []byte) ([]byte, error) {
	for _, s := range sections {
		if s.page != page {
			continue
		}
		begin := fmt.Appendf(nil, "<!-- %s: begin. `make bench-docs` writes what follows. -->\n", s.name)
		end := fmt.Appendf(nil, "<!-- %s: end -->\n", s.name)
		before, rest, found := bytes.Cut(document, begin)
		_, after, closed := bytes.Cut(rest, end)
		if !found || !closed {
			return nil, fmt.Errorf("docs/%s: found no lines %q and %q", page, begin, end)
		}
		var text bytes.Buffer
		s.text(r, &text)
		document = bytes.Join([][]byte{before, begin, []byte("\n"), bytes.TrimSpace(text.Bytes()), []byte("\n\n"), end, after}, nil)
	}
	return document, nil
}
