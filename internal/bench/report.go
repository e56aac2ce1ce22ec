package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// A machine is where something was measured.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Envoy  string `json:"envoy,omitempty"`
	Commit string `json:"commit,omitempty"`
	Load   string `json:"load"` // average of the last minute, at the end of the run
	Time   string `json:"time"`
}

func thisMachine(ctx context.Context) machine {
	m := machine{Cores: runtime.NumCPU(), Kernel: kernel(), Go: runtime.Version(), Time: time.Now().UTC().Format("2006-01-02 15:04 UTC")}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // what is missing shows as missing
	if found := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(cpuinfo); found != nil {
		m.CPU = string(found[1])
	}
	loadavg, _ := os.ReadFile("/proc/loadavg")
	m.Load, _, _ = strings.Cut(string(loadavg), " ")
	if commit, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(commit))
	}
	if path, err := lab.FindEnvoy(ctx); err == nil {
		version, _ := exec.CommandContext(ctx, path, "--version").Output() // #nosec G204 -- the developer's own Envoy
		if found := regexp.MustCompile(`/(\d+\.\d+\.\d+)[^/]*/`).FindSubmatch(version); found != nil {
			m.Envoy = string(found[1])
		}
	}
	return m
}

// results are all that a run found.
type results struct {
	Machine machine `json:"machine"`
	Rounds  int     `json:"rounds"`
	Window  string  `json:"window"`
	Cells   []cell  `json:"cells"`
}

func (r *results) write(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, cellsInLines(text), 0o600)
}

// cellsInLines puts each cell into a line of indented JSON: 200 lines can be read, 3,000 cannot.
func cellsInLines(text []byte) []byte {
	text = regexp.MustCompile(`\n {3,}`).ReplaceAll(text, []byte(" "))
	return append(bytes.ReplaceAll(text, []byte("\n  }"), []byte("}")), '\n')
}

func readResults(file string) (*results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(results)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// of returns the cells of a server under a load, in the order of their rounds.
func (r *results) of(group, server, scenario string) []cell {
	var found []cell
	for _, c := range r.Cells {
		if c.Group == group && c.Server == server && c.Scenario == scenario {
			found = append(found, c)
		}
	}
	return found
}

// each maps cells to numbers.
func each(cells []cell, f func(cell) float64) []float64 {
	all := make([]float64, len(cells))
	for i, c := range cells {
		all[i] = f(c)
	}
	return all
}

// median returns the middle value; of an even number, the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func cpuOf(c cell) float64 { return c.CPU }

// medianRatio returns the median of the ratios of CPU to that of another cell of the same round; 0 if there are no such pairs.
func medianRatio(cells, others []cell) float64 {
	base := make(map[int]float64)
	for _, c := range others {
		base[c.Round] = c.CPU
	}
	var all []float64
	for _, c := range cells {
		if base[c.Round] > 0 {
			all = append(all, c.CPU/base[c.Round])
		}
	}
	return median(all)
}

// has reports whether there are such cells.
func (r *results) has(group, server, scenario string) bool {
	return len(r.of(group, server, scenario)) > 0
}

// scenarioRows are the rows of the first table, with the goal for extauthz as a ratio to the no-op server; 0: none.
var scenarioRows = []struct {
	name, says string
	goal       float64
}{
	{"warm", "10 tokens", 0.6},
	{"10k", "10,000 tokens, each sent once before", 0.6},
	{"cold", "every token new", 1.5},
	{"forged", "bad signatures, every one new", 1.5},
	{"forged again", "10 tokens with a bad signature", 0.6},
	{"refused cheaply", "malformed, wrong algorithm, issuer, client, or expired", 0.6},
	{"denied", "10 tokens that lack the scope", 0.6},
	{"no token", "no Authorization header", 0.6},
	{"one in flight", "10 tokens, one check at a time", 0.8},
}

// print writes the tables in Markdown, which reads well in a terminal too.
func (r *results) print(w io.Writer) {
	r.printMachine(w)
	r.printChecks(w)
	r.printLatency(w)
	r.printEnvoy(w)
	r.printObserved(w)
}

func (r *results) printMachine(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, %s, %s, Envoy %s; extauthz %s; %s; load average %s at the end; %d rounds of %s.\n",
		m.CPU, m.Cores, m.Kernel, m.Go, m.Envoy, m.Commit, m.Time, m.Load, r.Rounds, r.Window)
}

func (r *results) printChecks(w io.Writer) {
	fmt.Fprintf(w, "\nMicroseconds of CPU a check, smallest / median; in brackets the median ratio to the no-op server of the same round.\n\n")
	t := table{{"load", "", "no-op", "extauthz", "goal", "stock OPA"}}
	for _, row := range scenarioRows {
		if !r.has(groupChecks, extauthz, row.name) && !r.has(groupChecks, noop, row.name) {
			continue
		}
		goal := fmt.Sprintf("at most %.1f", row.goal)
		t = append(t, []string{row.name, row.says, r.figure(noop, row.name), r.figure(extauthz, row.name), goal, r.figure(stockOPA, row.name)})
	}
	t.print(w)

	fmt.Fprintf(w, "\nChecks a second, and resident memory at the end of the window, medians. Client and server share the machine.\n\n")
	t = table{{"load", "no-op", "extauthz", "stock OPA"}}
	for _, row := range scenarioRows {
		line := []string{row.name}
		for _, server := range everybody {
			line = append(line, r.throughput(server, row.name))
		}
		if line[1]+line[2]+line[3] != "" {
			t = append(t, []string{line[0], line[2], line[1], line[3]})
		}
	}
	t.print(w)
}

func (r *results) figure(server, scenario string) string {
	cells := r.of(groupChecks, server, scenario)
	if len(cells) == 0 {
		return ""
	}
	values := each(cells, cpuOf)
	text := fmt.Sprintf("%.0f / %.0f", slices.Min(values), median(values))
	if ratio := medianRatio(cells, r.of(groupChecks, noop, scenario)); ratio > 0 && server != noop {
		text += fmt.Sprintf(" (%.2f)", ratio)
	}
	return text
}

func (r *results) throughput(server, scenario string) string {
	cells := r.of(groupChecks, server, scenario)
	if len(cells) == 0 {
		return ""
	}
	rate := median(each(cells, func(c cell) float64 { return float64(c.Answered) / c.Seconds }))
	memory := median(each(cells, func(c cell) float64 { return float64(c.RSS) / (1 << 20) }))
	return fmt.Sprintf("%s, %.0f MiB", thousands(rate), memory)
}

// thousands writes a whole number with commas.
func thousands(n float64) string {
	text := fmt.Sprintf("%.0f", math.Floor(n))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func (r *results) printLatency(w io.Writer) {
	t := table{{"rate", "server", "p50", "p99", "p99.9", "CPU a check"}}
	for _, n := range openRates {
		rate := fmt.Sprintf("%d/s", n)
		for _, server := range []string{noop, extauthz, stockOPA} {
			if cells := r.of(groupLatency, server, rate); len(cells) > 0 {
				t = append(t, append([]string{rate, server}, latencyRow(cells)...))
			}
		}
	}
	if len(t) == 1 {
		return
	}
	fmt.Fprintf(w, "\nTime to the answer at a fixed rate, 10 tokens, in milliseconds, medians of the rounds. Time counts from when a check was due.\n\n")
	t.print(w)
}

func latencyRow(cells []cell) []string {
	kept := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return c.Slow })
	if len(kept) == 0 {
		return []string{"did not keep up", "", "", ""}
	}
	ms := func(f func(cell) float64) string { return fmt.Sprintf("%.2f", median(each(kept, f))/1000) }
	last := fmt.Sprintf("%.0f µs", median(each(kept, cpuOf)))
	if n := len(cells) - len(kept); n > 0 {
		last += fmt.Sprintf(" (did not keep up in %d of %d rounds)", n, len(cells))
	}
	return []string{
		ms(func(c cell) float64 { return c.P50 }), ms(func(c cell) float64 { return c.P99 }), ms(func(c cell) float64 { return c.P999 }), last,
	}
}

func (r *results) printEnvoy(w io.Writer) {
	t := table{{"Envoy with", "Envoy's CPU", "server's CPU", "together", "requests a second"}}
	for _, v := range envoyVariants() {
		cells := r.of(groupEnvoy, v.name, "warm")
		if len(cells) == 0 {
			continue
		}
		column := func(f func(cell) float64) string {
			values := each(cells, f)
			return fmt.Sprintf("%.0f / %.0f", slices.Min(values), median(values))
		}
		server := ""
		if v.server != "" {
			server = column(cpuOf)
		}
		t = append(t, []string{
			v.name, column(func(c cell) float64 { return c.EnvoyCPU }), server, column(together),
			thousands(median(each(cells, func(c cell) float64 { return float64(c.Answered) / c.Seconds }))),
		})
	}
	if len(t) == 1 {
		return
	}
	fmt.Fprintf(w, "\nThrough Envoy: one worker, %d connections of HTTP/1.1, 10 tokens, Envoy itself answers as the upstream. Microseconds of CPU a request, smallest / median.\n\n", httpConns)
	t.print(w)
}

// printObserved writes what telling of checks costs.
func (r *results) printObserved(w io.Writer) {
	base := r.of(groupObserve, extauthz, shipped)
	if len(base) == 0 {
		return
	}
	fmt.Fprintf(w, "\nWarm checks that are told of in different ways: microseconds of CPU a check, smallest / median, the median ratio to the first row of the same round, what is logged or sent of a check, and lines that were lost.\n\n")
	t := table{{"", "CPU a check", "ratio", "bytes a check", "lost"}}
	for _, o := range observations() {
		cells := r.of(groupObserve, extauthz, o.name)
		if len(cells) == 0 {
			continue
		}
		values := each(cells, cpuOf)
		t = append(t, []string{
			o.name, fmt.Sprintf("%.0f / %.0f", slices.Min(values), median(values)), fmt.Sprintf("%.2f", medianRatio(cells, base)),
			fmt.Sprintf("%.0f", median(each(cells, toldBytes))), percent(median(each(cells, lostLines))),
		})
	}
	t.print(w)
}

func toldBytes(c cell) float64 { return float64(c.Logged+c.Sent) / float64(c.Answered) }

// lostLines is the share of the checks whose line was lost. Those before the window are none that count.
func lostLines(c cell) float64 { return min(1, float64(c.Lost)/float64(c.Answered)) }

func together(c cell) float64 { return c.CPU + c.EnvoyCPU }

// A table is rows of cells, the first of which is its head.
type table [][]string

func (t table) print(w io.Writer) {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, text := range row {
			widths[i] = max(widths[i], len([]rune(text)))
		}
	}
	for n, row := range t {
		for i, text := range row {
			fmt.Fprintf(w, "| %s%s ", text, strings.Repeat(" ", widths[i]-len([]rune(text))))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprintf(w, "|-%s-", strings.Repeat("-", width))
			}
			fmt.Fprintln(w, "|")
		}
	}
}
