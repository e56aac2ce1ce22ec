// Command mutation checks that the tests of a package notice when a check is gone: it leaves out or loosens each
// condition, operand, limit and list item of the package, one at a time, and runs the package's tests. What no test
// notices is a survivor. A survivor that no test can notice stands in a list, with the reason.
//
//	go run ./internal/mutation ./pkg/validator
//
// All mutants are compiled into one test binary, which is told by the environment which of them is on: compiling and
// linking each would take longer than running the tests. The tree is not touched (go help build, -overlay).
//
// It finds mutants by the syntax: the conditions of if and of switch, the operands of || and &&, the borders of
// comparisons of numbers and times, returned bools, errors returned at the end of a function, the items of lists of
// strings and functions, and constants that are numbers. A check of another form it does not see.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	accepted := flag.String("accepted", "internal/mutation/accepted.txt", "`file` of the survivors that no test can notice")
	timeout := flag.Duration("timeout", time.Minute, "after which the tests of a mutant count as hanging")
	only := flag.String("only", "", "run only the mutants whose key has this `text`")
	verbose := flag.Bool("v", false, "print every mutant, and which test noticed it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c := checker{out: os.Stdout, timeout: *timeout, only: *only, verbose: *verbose}
	if err := c.check(ctx, flag.Arg(0), *accepted); err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

type checker struct {
	out     io.Writer
	timeout time.Duration
	only    string
	verbose bool
}

// check returns an error for a survivor that is not accepted, and for a row of the list that accepts nothing.
func (c *checker) check(ctx context.Context, pattern, acceptedFile string) error {
	accepted, err := readAccepted(acceptedFile)
	if err != nil {
		return err
	}
	start := time.Now()
	pkg, err := load(ctx, pattern)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutation")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	found := find(pkg)
	tests, err := build(ctx, dir, pkg, found.insertions)
	if err != nil {
		return err
	}
	if err := tests.measure(ctx, c.timeout); err != nil {
		return err
	}
	fates, err := c.runAll(ctx, tests, found.mutants)
	if err != nil {
		return err
	}
	return c.report(found.mutants, fates, accepted, time.Since(start))
}

// A fate is what became of a mutant.
type fate struct {
	name string // killed, hung, survived; empty if it was not run
	by   string // the test that noticed
}

func (c *checker) runAll(ctx context.Context, tests *binary, mutants []mutant) ([]fate, error) {
	fates := make([]fate, len(mutants))
	errs := make([]error, len(mutants))
	var wg sync.WaitGroup
	places := make(chan struct{}, runtime.NumCPU())
	for i, m := range mutants {
		if !strings.Contains(m.key, c.only) {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			out, err := tests.run(ctx, i+1, c.timeout)
			fates[i], errs[i] = fateOf(out, err)
		})
	}
	wg.Wait()
	return fates, errors.Join(errors.Join(errs...), ctx.Err())
}

// report prints what is to be done, and returns it as an error.
func (c *checker) report(mutants []mutant, fates []fate, accepted map[string]string, took time.Duration) error {
	count := make(map[string]int)
	unused := make(map[string]bool)
	for key := range accepted {
		unused[key] = c.only == ""
	}
	for i, m := range mutants {
		name := fates[i].name
		_, known := accepted[m.key]
		if name == "survived" && known {
			name, unused[m.key] = "accepted", false
		}
		count[name]++
		if name == "survived" || name == "hung" || c.verbose && name != "" {
			file, change, _ := strings.Cut(m.key, " ")
			line := fmt.Sprintf("%s:%d: %s: %s", file, m.line, name, change)
			if by := fates[i].by; by != "" {
				line += " (" + by + ")"
			}
			fmt.Fprintln(c.out, line)
		}
	}
	var stale []string
	for key, is := range unused {
		if is {
			stale = append(stale, key)
		}
	}
	slices.Sort(stale)
	for _, key := range stale {
		fmt.Fprintf(c.out, "accepted, but it does not survive or does not exist: %s\n", key)
	}
	ran := len(mutants) - count[""]
	fmt.Fprintf(c.out, "%d mutants in %v: %d killed, of them %d by hanging; %d survivors accepted, %d not accepted; %d rows stale\n",
		ran, took.Round(time.Second), count["killed"]+count["hung"], count["hung"], count["accepted"], count["survived"], len(stale))
	if bad := count["survived"] + len(stale); bad > 0 || ran == 0 {
		return fmt.Errorf("%d mutants ran, %d survivors are not accepted and %d rows are stale, want none of both", ran, count["survived"], len(stale))
	}
	return nil
}

// readAccepted reads the accepted survivors: a line with the key of a mutant, then indented lines that say why no test can
// notice it. Empty lines and those that begin with # are left out.
func readAccepted(name string) (map[string]string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	accepted := make(map[string]string)
	key := ""
	for line := range strings.Lines(string(text)) {
		reason := strings.TrimSpace(line)
		switch {
		case reason == "" || strings.HasPrefix(line, "#"):
		case !strings.HasPrefix(line, "\t"):
			key = reason
			if _, ok := accepted[key]; ok {
				return nil, fmt.Errorf("%s: %s stands twice", name, key)
			}
			accepted[key] = ""
		default:
			accepted[key] += reason + " "
		}
	}
	for key, reason := range accepted {
		if key == "" || reason == "" {
			return nil, fmt.Errorf("%s: %q has no reason below it, or a reason no mutant above it", name, key)
		}
	}
	return accepted, nil
}
