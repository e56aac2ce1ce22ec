package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A profiled is where the CPU of checks went, by a profile.
type profiled struct {
	Commit  string  `json:"commit,omitempty"`
	Load    string  `json:"load"`
	Checks  int64   `json:"checks"`
	Seconds float64 `json:"seconds"`
	Sampled float64 `json:"sampled_s"` // CPU
	Shares  []share `json:"shares"`
}

// A share is what of the CPU a part of the work took.
type share struct {
	Part string  `json:"part"`
	CPU  float64 `json:"cpu"` // 0 to 1
}

// parts tell by the functions on a stack what a sample of the profile belongs to: the first that matches any of them.
var parts = []struct {
	name  string
	check bool // a step of extauthz's own
	match *regexp.Regexp
}{
	{"garbage collector", false, regexp.MustCompile(`^runtime\.(gc[A-Z]\w*|bgsweep|bgscavenge|\(\*gcWork\)|markroot|scanobject|scanSpan|greyobject|sweepone|\(\*sweepLocked\))`)},
	{"read: the message, the path and the host", true, regexp.MustCompile(`internal/authz\.(take|scan|decoded|\(\*Service\)\.read)$`)},
	{"route", true, regexp.MustCompile(`internal/authz\.\(\*Service\)\.route$`)},
	{"authenticate: the token's hash, the cache, key, times, claims", true, regexp.MustCompile(`internal/authz\.\(\*Service\)\.authenticate$`)},
	{"authorize: the policy's key and its remembered decision", true, regexp.MustCompile(`internal/authz\.\(\*Service\)\.authorize$`)},
	{"respond: the answer and its bytes", true, regexp.MustCompile(`internal/authz\.(\(\*Service\)\.respond|\(\*reply\)\.appendTo)$`)},
	{"record: metrics, and whether to log", true, regexp.MustCompile(`internal/authz\.\(\*recorder\)\.record$`)},
	{"the rest of a check: decision id, clock, deadline", true, regexp.MustCompile(`internal/authz\.\(\*Service\)\.`)},
	{"system calls: the connections", false, regexp.MustCompile(`^(internal/runtime/syscall|syscall)\.(Syscall6?|RawSyscall6?|read|write|writev)$`)},
	{"scheduler: waking and parking goroutines", false, regexp.MustCompile(`^runtime\.(schedule|findRunnable|park_m|goready|ready|wakep|mcall|goschedImpl|mstart|futex\w*|netpoll|sysmon|selectgo|chansend|chanrecv)`)},
	{"gRPC and HTTP/2", false, regexp.MustCompile(`^(google\.golang\.org/grpc|golang\.org/x/net/http2)`)},
}

const elsewherePart = "all else"

// sharesOf reads a profile by the Go tool, as only that knows its format.
func sharesOf(ctx context.Context, file string) (*profiled, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", "-unit", "ms", file) // #nosec G204 -- a file of our own
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w", err)
	}
	return readTraces(bytes.NewReader(out))
}

// readTraces adds up the stacks that `go tool pprof -traces` prints: the time before the innermost function, then its callers.
func readTraces(traces io.Reader) (*profiled, error) {
	sums := make(map[string]time.Duration)
	var all, took time.Duration
	var stack []string
	flush := func() {
		if len(stack) > 0 {
			sums[partOf(stack)] += took
			all += took
		}
		stack, took = stack[:0], 0
	}
	lines := bufio.NewScanner(traces)
	lines.Buffer(nil, 1<<20)
	inside := false
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "-----------+") {
			flush()
			inside = true
			continue
		}
		name := strings.TrimSuffix(strings.TrimSpace(line), " (inline)")
		if !inside || name == "" {
			continue
		}
		if value, rest, ok := strings.Cut(name, "  "); ok && len(stack) == 0 {
			var err error
			if took, err = time.ParseDuration(value); err != nil {
				continue // a label
			}
			name = strings.TrimSpace(rest)
		}
		stack = append(stack, name)
	}
	flush()
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if all == 0 {
		return nil, fmt.Errorf("found a profile without samples, want some: is the window too short?")
	}
	p := &profiled{Sampled: all.Seconds()}
	for name, took := range sums {
		p.Shares = append(p.Shares, share{name, took.Seconds() / all.Seconds()})
	}
	slices.SortFunc(p.Shares, func(a, b share) int { return cmp.Or(cmp.Compare(b.CPU, a.CPU), strings.Compare(a.Part, b.Part)) })
	return p, nil
}

func partOf(stack []string) string {
	for _, p := range parts {
		if slices.ContainsFunc(stack, p.match.MatchString) {
			return p.name
		}
	}
	return elsewherePart
}

// own is the share of extauthz's own steps.
func (p *profiled) own() float64 {
	sum := 0.0
	for _, s := range p.Shares {
		for _, part := range parts {
			if part.name == s.Part && part.check {
				sum += s.CPU
			}
		}
	}
	return sum
}

func (p *profiled) write(file string) error {
	text, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, cellsInLines(text), 0o600)
}

func readProfiled(file string) (*profiled, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := new(profiled)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return p, nil
}

// print writes the shares as a table.
func (p *profiled) print(w io.Writer) {
	perCheck := 1e6 * p.Sampled / float64(p.Checks)
	fmt.Fprintf(w, "extauthz %s, load %q: %s checks in %.1f s, %.0f µs of CPU each by the profile, %s of it in the steps of the check themselves (*).\n\n",
		p.Commit, p.Load, thousands(float64(p.Checks)), p.Seconds, perCheck, percent(p.own()))
	t := table{{"part", "share", "µs"}}
	for _, s := range p.Shares {
		name := s.Part
		for _, part := range parts {
			if part.name == s.Part && part.check {
				name += " *"
			}
		}
		t = append(t, []string{name, percent(s.CPU), fmt.Sprintf("%.1f", s.CPU*perCheck)})
	}
	t.print(w)
}
