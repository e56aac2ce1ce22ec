package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// A cell is what one server did under one load in one round.
type cell struct {
	Round    int     `json:"round"`
	Group    string  `json:"group"` // checks, latency, envoy, or a scale curve
	Server   string  `json:"server"`
	Scenario string  `json:"scenario"`
	Answered int64   `json:"answered"`
	Seconds  float64 `json:"seconds"`
	CPU      float64 `json:"cpu_us"`                 // of the server, microseconds a check
	EnvoyCPU float64 `json:"envoy_cpu_us,omitempty"` // of Envoy, microseconds a request
	RSS      int64   `json:"rss_bytes,omitempty"`
	P50      float64 `json:"p50_us,omitempty"`
	P99      float64 `json:"p99_us,omitempty"`
	P999     float64 `json:"p999_us,omitempty"`
	Slow     bool    `json:"slow,omitempty"` // did not keep up with the rate

	// Of the cache of verified tokens: how many it holds, what the heap grew by, and what it believes that they take.
	Tokens   int64 `json:"tokens,omitempty"`
	Heap     int64 `json:"heap_bytes,omitempty"`
	Estimate int64 `json:"estimate_bytes,omitempty"`

	// What extauthz says of itself after the window: decisions that are remembered, series of metrics, bytes of log of the window
	// and lines that were lost, bytes that were sent to a collector.
	Decisions     int64 `json:"decisions,omitempty"`
	DecisionBytes int64 `json:"decision_bytes,omitempty"`
	Series        int   `json:"series,omitempty"`
	Logged        int64 `json:"logged_bytes,omitempty"`
	Lost          int64 `json:"lost_lines,omitempty"`
	Sent          int64 `json:"sent_bytes,omitempty"`
}

func (c cell) note() string {
	switch {
	case c.Slow:
		return errSlow.Error()
	case c.EnvoyCPU > 0:
		return fmt.Sprintf("Envoy %.1f us", c.EnvoyCPU)
	}
	return ""
}

// The groups of cells.
const (
	groupChecks  = "checks"
	groupLatency = "latency"
	groupEnvoy   = "envoy"
)

// A runner measures.
type runner struct {
	programs *programs
	window   time.Duration
	rounds   int
	log      io.Writer
	cells    []cell
}

// A job is a cell to be measured.
type job struct {
	name string
	run  func(ctx context.Context) (cell, error)
}

// round does the jobs of one round: groups in a random order, and the jobs of a group, which are compared with each other,
// in a random order one after the other. What else the machine does at the time then meets all of them.
func (r *runner) round(ctx context.Context, round int, groups [][]job) error {
	shuffle(groups)
	for _, jobs := range groups {
		shuffle(jobs)
		for _, j := range jobs {
			c, err := j.run(ctx)
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round, j.name, err)
			}
			c.Round = round
			r.cells = append(r.cells, c)
			fmt.Fprintf(r.log, "round %d  %-38s %7d answers %8.1f us %s\n", round, j.name, c.Answered, c.CPU, c.note())
		}
	}
	return nil
}

func shuffle[T any](list []T) {
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] }) // #nosec G404 -- nobody gains by a guess
}

// checks are the jobs of the scenarios, grouped by scenario.
func (r *runner) checks(all []scenario, servers []string) [][]job {
	var groups [][]job
	for _, s := range all {
		var jobs []job
		for _, name := range s.Servers {
			if slices.Contains(servers, name) {
				jobs = append(jobs, job{name + ", " + s.Name, func(ctx context.Context) (cell, error) {
					return r.measure(ctx, name, s, setup{})
				}})
			}
		}
		groups = append(groups, jobs)
	}
	return groups
}

// warmUp is how long messages that are sent again and again are sent before the window: connections, stacks and caches have
// then settled.
const warmUp = 300 * time.Millisecond

// settle is warmUp, but for a test that measures nothing.
func (r *runner) settle() time.Duration { return min(warmUp, r.window) }

// measure starts a server, sends what comes before, and counts the CPU of what comes then.
func (r *runner) measure(ctx context.Context, name string, s scenario, set setup) (cell, error) {
	server, err := r.programs.start(ctx, name, set)
	if err != nil {
		return cell{}, err
	}
	defer server.stop()
	c, err := r.prepared(ctx, name, server, s)
	if err != nil {
		return cell{}, err
	}
	defer c.close()

	f := &feed{messages: forServer(name, s.messages), again: s.again}
	logged := server.logged()
	before, err := cpu(server.pid)
	if err != nil {
		return cell{}, err
	}
	answered, took, err := c.closed(ctx, f, s.InFlight, r.window)
	if err != nil {
		return cell{}, err
	}
	after, err := cpu(server.pid)
	if err != nil {
		return cell{}, err
	}
	if answered == 0 {
		return cell{}, errors.New("nothing was answered, want at least one answer")
	}
	memory, err := rss(server.pid)
	if err != nil {
		return cell{}, err
	}
	found := cell{
		Group: groupChecks, Server: name, Scenario: s.Name, Answered: answered, Seconds: took.Seconds(),
		CPU: micros(after-before) / float64(answered), RSS: memory, Logged: server.logged() - logged,
	}
	return found, server.told(ctx, &found)
}

// prepared returns a client of a server that has had what comes before the window.
func (r *runner) prepared(ctx context.Context, name string, srv *server, s scenario) (*client, error) {
	c, err := newClient(srv.address, s.Conns)
	if err != nil {
		return nil, err
	}
	before := forServer(name, s.before)
	if err := c.warm(ctx, name, before, forServer(name, s.messages), s, r.settle()); err != nil {
		c.close()
		return nil, fmt.Errorf("before the window: %w", err)
	}
	return c, nil
}

func (c *client) warm(ctx context.Context, name string, before, messages []message, s scenario, settle time.Duration) error {
	if len(before) > 0 {
		if _, _, err := c.closed(ctx, &feed{messages: before}, inFlight, time.Minute); err != nil {
			return err
		}
	}
	if !s.again {
		return nil
	}
	if _, _, err := c.closed(ctx, &feed{messages: messages, again: true}, s.InFlight, settle); err != nil {
		return err
	}
	if name == noop || messages[0].want != 200 {
		return nil
	}
	buf := []byte{}
	reply, err := c.send(ctx, 0, messages[0], &buf)
	if err != nil {
		return err
	}
	return names(reply, cognitotest.DemoReaderID)
}

// latencies are the jobs with a fixed rate.
func (r *runner) latencies(warm scenario, servers []string, rates map[string][]int) [][]job {
	byRate := make(map[int][]job)
	var order []int
	for _, name := range servers {
		for _, rate := range rates[name] {
			if byRate[rate] == nil {
				order = append(order, rate)
			}
			byRate[rate] = append(byRate[rate], job{fmt.Sprintf("%s, %d a second", name, rate), func(ctx context.Context) (cell, error) {
				return r.latency(ctx, name, warm, rate)
			}})
		}
	}
	var groups [][]job
	for _, rate := range order {
		groups = append(groups, byRate[rate])
	}
	return groups
}

func (r *runner) latency(ctx context.Context, name string, s scenario, rate int) (cell, error) {
	server, err := r.programs.start(ctx, name, setup{})
	if err != nil {
		return cell{}, err
	}
	defer server.stop()
	c, err := r.prepared(ctx, name, server, s)
	if err != nil {
		return cell{}, err
	}
	defer c.close()
	before, err := cpu(server.pid)
	if err != nil {
		return cell{}, err
	}
	began := time.Now()
	took, err := c.open(ctx, &feed{messages: forServer(name, s.messages), again: true}, rate, r.window)
	result := cell{Group: groupLatency, Server: name, Scenario: fmt.Sprintf("%d/s", rate), Seconds: time.Since(began).Seconds()}
	if errors.Is(err, errSlow) {
		result.Slow = true
		return result, nil
	}
	if err != nil {
		return cell{}, err
	}
	after, err := cpu(server.pid)
	result.Answered = int64(len(took))
	result.CPU = micros(after-before) / float64(max(len(took), 1))
	result.P50, result.P99, result.P999 = micros(percentile(took, 0.5)), micros(percentile(took, 0.99)), micros(percentile(took, 0.999))
	return result, err
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
