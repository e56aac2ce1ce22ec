package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The groups of cells about what is told of checks, and about what bounds them.
const (
	groupObserve = "observe"
	groupLimits  = "limits"
)

// An observation is a way to tell of checks.
type observation struct {
	name     string
	config   string   // a line of it
	env      []string // COLLECTOR stands for the address of one
	untraced bool     // the requests have no trace of their own
}

const shipped = "as shipped"

// oneConnection is the load that comes as it does from one worker of Envoy.
const oneConnection = "one connection"

// observations are what the cost of a warm check is compared over. The requests have a sampled trace of their own, unless
// they are untraced.
func observations() []observation {
	protocol := "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
	traces := []string{ // sent every half second, not every five, as a window is shorter than that
		protocol, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://COLLECTOR/v1/traces", "OTEL_BSP_SCHEDULE_DELAY=500",
	}
	return []observation{
		{name: shipped},
		{name: "metrics pushed by OTLP each second", env: []string{
			protocol, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://COLLECTOR/v1/metrics", "OTEL_METRIC_EXPORT_INTERVAL=1000",
		}},
		{name: "traces, none sampled", config: "telemetry: {traceRate: 0}", env: traces},
		{name: "traces, 10 a second sampled (the default)", env: traces},
		{name: "traces, 1 % sampled", config: "telemetry: {traceRatio: 0.01}", env: traces, untraced: true},
		{name: "decisionLog.allowed: sampled (1 %)", config: "decisionLog: {allowed: sampled}"},
		{name: "decisionLog.allowed: all", config: "decisionLog: {allowed: all}"},
	}
}

// observing are the jobs of warm checks that are told of in different ways.
func (r *runner) observing(warm, untraced scenario) []job {
	var jobs []job
	for _, o := range observations() {
		s := warm
		if o.untraced {
			s = untraced
		}
		jobs = append(jobs, job{extauthz + ", " + o.name, func(ctx context.Context) (cell, error) {
			collector, err := startCollector(ctx)
			if err != nil {
				return cell{}, err
			}
			defer collector.close()
			set := setup{edit: func(config string) string { return strings.Replace(config, moreKeys, o.config, 1) }}
			for _, e := range o.env {
				set.env = append(set.env, strings.Replace(e, "COLLECTOR", collector.address, 1))
			}
			c, err := r.measure(ctx, extauthz, s, set)
			c.Group, c.Scenario, c.Sent = groupObserve, o.name, collector.bytes.Load()
			return c, err
		}})
	}
	return jobs
}

// limits are the jobs that say what one connection bears.
func (r *runner) limits(warm scenario) []job {
	warm.Conns = 1
	var jobs []job
	for _, name := range withoutOPA {
		jobs = append(jobs, job{name + ", " + oneConnection, func(ctx context.Context) (cell, error) {
			c, err := r.measure(ctx, name, warm, setup{})
			c.Group, c.Scenario = groupLimits, oneConnection
			return c, err
		}})
	}
	return jobs
}

// A collector takes what OTLP sends, and throws it away.
type collector struct {
	address string
	bytes   atomic.Int64
	server  *http.Server
}

func startCollector(ctx context.Context) (*collector, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &collector{address: listener.Addr().String()}
	c.server = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		n, _ := io.Copy(io.Discard, req.Body) // what was cut short counts as far as it came
		c.bytes.Add(n)
	})}
	go func() { _ = c.server.Serve(listener) }() // ends with close
	return c, nil
}

func (c *collector) close() { _ = c.server.Close() }

// told fills in what extauthz says of itself: its metrics, and how much it has logged. Other servers say nothing.
func (s *server) told(ctx context.Context, c *cell) error {
	if s.metrics == "" {
		return nil
	}
	values, series, err := scrape(ctx, "http://"+s.metrics+"/metrics")
	if err != nil {
		return err
	}
	c.Series = series
	c.Tokens = int64(values[`extauthz_token_cache_tokens{state="verified"}`])
	c.Estimate = int64(values["extauthz_token_cache_size_bytes"])
	c.Decisions = int64(values["extauthz_decision_cache_decisions"])
	c.DecisionBytes = int64(values["extauthz_decision_cache_size_bytes"])
	c.Lost = int64(values[`extauthz_log_lost_total{log="decisions"}`])
	return nil
}

// scrape returns the values of a page of metrics, and the number of extauthz's own series.
func scrape(ctx context.Context, url string) (map[string]float64, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("%s: %s, want 200", url, resp.Status)
	}
	values, series := make(map[string]float64), 0
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if at := strings.LastIndexByte(lines.Text(), ' '); at > 0 { // a label may have spaces
			name, value = lines.Text()[:at], lines.Text()[at+1:]
		}
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if strings.HasPrefix(name, "extauthz_") {
			series++
		}
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = number
		}
	}
	return values, series, lines.Err()
}

// logged is how long the log is.
func (s *server) logged() int64 {
	info, err := os.Stat(filepath.Join(s.dir, "extauthz.err"))
	if err != nil {
		return 0
	}
	return info.Size()
}
