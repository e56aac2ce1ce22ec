// Bench measures extauthz beside baselines, all on one machine in one run: `make bench` and `make bench-scale`. docs/performance.md
// says what is measured and how; docs/scaling.md, what follows for a fleet.
//
//	bench run        measures, prints a table, and writes bench.json
//	bench scale      measures how the cost grows with routes, clients, pools and tokens, in process up to a million, and writes scale.json
//	bench simulate   simulates the token caches of fleets, and writes simulate.json
//	bench docs       puts all of it into docs/performance.md, docs/scaling.md and their pictures
//	bench profile    profiles extauthz under one scenario; under warm, writes profile.json
//	bench capture    asks a real Envoy again for the requests in testdata
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// options are the flags of all commands.
type options struct {
	dir       string
	program   string
	window    time.Duration
	rounds    int
	scenarios string
	curves    string
	live      int
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("found no command, want run, scale, simulate, docs, profile or capture")
	}
	var o options
	flags := flag.NewFlagSet("bench "+args[0], flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", ".bench", "`folder` of results, baselines and kept tokens")
	flags.StringVar(&o.program, "extauthz", "bin/extauthz", "`path` of the program to measure")
	flags.DurationVar(&o.window, "time", 1500*time.Millisecond, "`length` of each measurement")
	flags.IntVar(&o.rounds, "rounds", 5, "`number` of rounds")
	flags.StringVar(&o.scenarios, "scenarios", "", "only these scenarios, separated by commas")
	flags.StringVar(&o.curves, "curves", "", "only these curves of scale, separated by commas")
	flags.IntVar(&o.live, "live", liveTokens, "`number` of tokens of the scenario with many")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "run":
		return run(ctx, o)
	case "scale":
		return scale(ctx, o)
	case "simulate":
		return simulate(ctx, o)
	case "docs":
		return writeDocs(o.dir)
	case "profile":
		return profile(ctx, o)
	case "capture":
		all, err := capture(ctx)
		if err != nil {
			return err
		}
		root, err := lab.Root()
		if err != nil {
			return err
		}
		return writeCaptured(filepath.Join(root, "internal", "bench", "testdata"), all)
	}
	return fmt.Errorf("found command %q, want run, scale, simulate, docs, profile or capture", args[0])
}

// newRunner prepares the folder, which git is told to leave alone.
func newRunner(o options) (*runner, error) {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(o.dir, ".gitignore"), []byte("*\n"), 0o600); err != nil {
		return nil, err
	}
	m, err := newMint(o.dir)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, err
	}
	program, err := filepath.Abs(o.program)
	if err != nil {
		return nil, err
	}
	return &runner{
		window: o.window, rounds: o.rounds, log: os.Stderr,
		programs: &programs{dir: dir, mint: m, folders: map[string]string{
			extauthz: program, noop: filepath.Join(dir, "noop"), stockOPA: filepath.Join(dir, "stockopa"),
		}},
	}, nil
}

// openRates are those of the open loop, checks a second: from a sidecar's to a busy replica's.
var openRates = []int{100, 1000, 3000, 10_000}

// rates are those that each server gets. Stock OPA gets one that two processors can bear.
func rates() map[string][]int {
	return map[string][]int{extauthz: openRates, noop: openRates, stockOPA: {1000}}
}

func run(ctx context.Context, o options) error {
	r, err := newRunner(o)
	if err != nil {
		return err
	}
	defer r.programs.mint.close()
	all, err := scenarios(r.programs.mint, o.window, o.live)
	if err != nil {
		return err
	}
	warm := all[0]
	withoutTrace, err := untraced(r.programs.mint)
	if err != nil {
		return err
	}
	if o.scenarios != "" {
		all = only(all, strings.Split(o.scenarios, ","))
	}
	for round := range o.rounds {
		groups := r.checks(all, everybody)
		if o.scenarios == "" {
			groups = append(groups, r.latencies(warm, everybody, rates())...)
			groups = append(groups, r.throughEnvoy(warm), r.observing(warm, withoutTrace), r.limits(warm))
		}
		if err := r.round(ctx, round+1, groups); err != nil {
			return err
		}
	}
	results := &results{Machine: thisMachine(ctx), Rounds: o.rounds, Window: o.window.String(), Cells: r.cells}
	if err := results.write(filepath.Join(o.dir, "bench.json")); err != nil {
		return err
	}
	results.print(os.Stdout)
	return nil
}
