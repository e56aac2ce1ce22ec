package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// This file does the sums of docs/scaling.md, from what was measured and simulated.

// What the sums suppose. Each is named on the page; the defaults are held to docs/config.md and deploy/ by a test.
const (
	hpaTarget     = 0.6     // deploy/istio/horizontal-pod-autoscaler.yaml
	leastReplicas = 3       // the same
	jwksMaxAge    = 3600    // seconds, pools.*.jwks.maxAge
	jwksInterval  = 10      // seconds, pools.*.jwks.minInterval
	bundleLeast   = 60      // seconds, OPA's own default of polling.min_delay_seconds
	bundleMost    = 120     // seconds, and of max_delay_seconds
	jwksBytes     = 1 << 10 // a set of two keys is less
	denials       = 0.01    // share of the checks that is not allowed, and so logged
	aReplica      = 5_000   // checks a second, where one has to be named
	slowAnswer    = 0.005   // seconds, a p99 that is bad already
	checksAtOnce  = 1024    // limits.concurrentChecks
	logQueue      = 8 << 10 // lines, decisionlog.Limits
	layoutRate    = 100_000 // checks a second of the fleet that the layouts are compared with,
	layoutPods    = 1_000   // its pods,
	layoutNodes   = 50      // its nodes,
	layoutClients = 10_000  // and its callers
	millionChecks = 1_000_000.
)

var capacityRates = []float64{1_000, 10_000, 100_000, millionChecks}

// A costAt is what a check costs a server that gets so many a second.
type costAt struct{ rate, cpu float64 }

// costs are what was measured of that for extauthz, by rate: those at a fixed rate, and the one at which the server was full.
func (r *results) costs() []costAt {
	var all []costAt
	for _, rate := range openRates {
		cells := slices.DeleteFunc(r.of(groupLatency, extauthz, fmt.Sprintf("%d/s", rate)), func(c cell) bool { return c.Slow })
		if len(cells) > 0 {
			all = append(all, costAt{float64(rate), median(each(cells, cpuOf))})
		}
	}
	if full := r.of(groupChecks, extauthz, "warm"); len(full) > 0 {
		all = append(all, costAt{median(each(full, perSecond)), median(each(full, cpuOf))})
	}
	slices.SortFunc(all, func(a, b costAt) int { return cmp.Compare(a.rate, b.rate) })
	for i := len(all) - 2; i >= 0; i-- {
		all[i].cpu = max(all[i].cpu, all[i+1].cpu) // less to do at once never makes a check cheaper
	}
	return all
}

func perSecond(c cell) float64 { return float64(c.Answered) / c.Seconds }

// at returns the cost at a rate: on the line between the rates that were measured, over their logarithm.
func at(all []costAt, rate float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	if rate <= all[0].rate {
		return all[0].cpu
	}
	for i, right := range all[1:] {
		if left := all[i]; rate <= right.rate {
			along := math.Log(rate/left.rate) / math.Log(right.rate/left.rate)
			return left.cpu + along*(right.cpu-left.cpu)
		}
	}
	return all[len(all)-1].cpu
}

// cores is the CPU of so many checks a second.
func cores(rate, cpu float64) float64 { return rate * cpu / 1e6 }

// perReplica is how many checks a second a replica with a core gets where the autoscaler holds it at its target.
func perReplica(all []costAt) float64 {
	low, high := 1.0, 1e6
	for range 60 {
		if middle := (low + high) / 2; cores(middle, at(all, middle)) <= hpaTarget {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

func replicasFor(rate float64, all []costAt) float64 {
	return max(leastReplicas, math.Ceil(rate/perReplica(all)))
}

// cost is what a check costs extauthz under a load.
func (r *results) cost(scenario string) float64 {
	return median(each(r.of(groupChecks, extauthz, scenario), cpuOf))
}

// hop is what asking an ext_authz server costs Envoy itself, a request.
func (r *results) hop() float64 {
	with := median(each(r.of(groupEnvoy, "ext_authz, extauthz", "warm"), func(c cell) float64 { return c.EnvoyCPU }))
	return with - median(each(r.of(groupEnvoy, "no auth", "warm"), func(c cell) float64 { return c.EnvoyCPU }))
}

func number(n float64) string {
	switch {
	case math.IsNaN(n):
		return "?"
	case n > 0 && n < 1:
		return strconv.FormatFloat(n, 'g', 2, 64)
	case n < 10 && n != math.Trunc(n):
		return fmt.Sprintf("%.1f", n)
	}
	return thousands(math.Round(n))
}

// size writes bytes.
func size(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if n < 1024 || unit == "TiB" {
			return number(n) + " " + unit
		}
		n /= 1024
	}
	return ""
}

func (r *recorded) printCapacity(w io.Writer) {
	all := r.bench.costs()
	var said []string
	for _, c := range all {
		said = append(said, fmt.Sprintf("%s µs at %s", number(c.cpu), number(c.rate)))
	}
	miss := r.bench.cost("cold") - r.bench.cost("warm")
	fmt.Fprintf(w, "A check costs %s checks a second to one replica (medians; extauthz %s, load average %s while measuring). "+
		"A token that is not remembered costs %s µs more. Asking costs Envoy itself %s µs a request.\n\n",
		strings.Join(said, ", "), r.bench.Machine.Commit, r.bench.Machine.Load, number(miss), number(r.bench.hop()))
	fmt.Fprintf(w, "With %.0f %% as the autoscaler's target, a replica with one core gets %s checks a second.\n\n", 100*hpaTarget, number(perReplica(all)))
	t := table{{"checks a second", "replicas", "cores busy", "cores requested", "more cores for each 1 % of misses", "Envoy's cores for asking"}}
	for _, rate := range capacityRates {
		n := replicasFor(rate, all)
		t = append(t, []string{
			number(rate), number(n), number(cores(rate, at(all, rate/n))), number(n), number(cores(rate, miss/100)), number(cores(rate, r.bench.hop())),
		})
	}
	t.print(w)
}

// A layout is a way to place extauthz.
type layout struct {
	name     string
	replicas float64
}

func (r *recorded) layouts() []layout {
	return []layout{
		{"sidecar of each pod", layoutPods},
		{"one on each node", layoutNodes},
		{"shared deployment", replicasFor(layoutRate, r.bench.costs())},
	}
}

// resident is the memory of a replica that remembers so many tokens: as measured with few, and the growth from few to many.
func (r *recorded) resident(tokens float64) float64 {
	memory := func(c cell) float64 { return float64(c.RSS) }
	empty := median(each(r.bench.of(groupChecks, extauthz, "no token"), memory))
	return empty + tokens*r.residentToken()
}

// residentToken is what a token adds to the resident memory of a server at work, garbage included.
func (r *recorded) residentToken() float64 {
	memory := func(c cell) float64 { return float64(c.RSS) }
	few := r.scale.of(curveTokens, extauthz, "10")
	for i := len(curves[3].sizes) - 1; i > 0; i-- {
		n := curves[3].sizes[i]
		if many := r.scale.of(curveTokens, extauthz, strconv.Itoa(n)); len(many) > 0 {
			return (median(each(many, memory)) - median(each(few, memory))) / float64(n-10)
		}
	}
	return math.NaN()
}

func (r *recorded) printLayouts(w io.Writer) {
	all := r.bench.costs()
	fmt.Fprintf(w, "%s checks a second of %s callers with tokens of an hour, %s pods, %s nodes, one user pool.\n\n",
		number(layoutRate), number(layoutClients), number(layoutPods), number(layoutNodes))
	t := table{{"", "replicas", "checks a second each", "CPU a check", "cores", "memory each", "memory", "misses a second, at most", "JWKS fetches an hour"}}
	for _, l := range r.layouts() {
		rate := layoutRate / l.replicas
		cpu := at(all, rate)
		// Each caller's token is new to each replica once an hour, and no replica remembers more than there is room for.
		misses := min(layoutClients*l.replicas/3600, layoutRate)
		memory := r.resident(min(layoutClients, defaultCacheBytes/float64(r.simulation.TokenBytes)))
		t = append(t, []string{
			l.name, number(l.replicas), number(rate), number(cpu) + " µs", number(cores(layoutRate, cpu)), size(memory), size(memory * l.replicas),
			fmt.Sprintf("%s (%s)", number(misses), percent(misses/layoutRate)), number(l.replicas * 3600 / jwksMaxAge),
		})
	}
	t.print(w)
}

func (r *recorded) printSources(w io.Writer) {
	most := replicasFor(millionChecks, r.bench.costs())
	t := table{{"replicas", "JWKS fetches a second", "bytes a second", "with tokens of unknown keys, at most", "bundle polls a second", "of each, if all start within a minute"}}
	for _, n := range []float64{3, 30, most, layoutPods} {
		fetches := n / jwksMaxAge
		t = append(t, []string{
			number(n), number(fetches), size(fetches * jwksBytes), number(n / jwksInterval), number(n / ((bundleLeast + bundleMost) / 2)), number(n / 60),
		})
	}
	fmt.Fprintf(w, "Of each user pool and of each bundle, with the default intervals. %s replicas are those for %s checks a second.\n\n", number(most), number(millionChecks))
	t.print(w)
}

func (r *recorded) printHits(w io.Writer) {
	s := r.simulation
	fmt.Fprintf(w, "A fleet that gets %s checks a second, with %s of cache in each replica. Client n calls 1/n times as often as the first. In brackets the misses of a second, all replicas together.\n\n",
		number(float64(s.Rate)), size(defaultCacheBytes))
	head := []string{"clients", "token lives"}
	for _, spread := range simSpreads {
		switch {
		case spread.replicas == 1:
			head = append(head, "1 replica")
		case spread.balancing == anyReplica:
			head = append(head, fmt.Sprintf("%d, any", spread.replicas))
		default:
			head = append(head, fmt.Sprintf("%d, by client", spread.replicas))
		}
	}
	t := table{head}
	for _, clients := range simClients {
		for _, lifetime := range simLifetimes {
			row := []string{number(float64(clients)), lives(lifetime)}
			for _, spread := range simSpreads {
				o := s.of(fleet{clients, lifetime, spread.replicas, spread.balancing, defaultCacheBytes})
				if o == nil {
					row = append(row, "")
					continue
				}
				row = append(row, fmt.Sprintf("%s (%s)", percent(o.Hits), number(o.Misses)))
			}
			t = append(t, row)
		}
	}
	t.print(w)
	fmt.Fprintf(w, "\nWith a replica for each client, the busiest replica gets this many times what they get on average:\n\n")
	t = table{{"clients", "5 replicas", "25 replicas"}}
	for _, clients := range simClients {
		row := []string{number(float64(clients))}
		for _, n := range []int{5, 25} {
			o := s.of(fleet{clients, 300, n, ownReplica, defaultCacheBytes})
			if o == nil {
				row = append(row, "")
				continue
			}
			row = append(row, fmt.Sprintf("%.1f", o.Busiest))
		}
		t = append(t, row)
	}
	t.print(w)
	warm, cold := r.bench.cost("warm"), r.bench.cost("cold")
	fmt.Fprintf(w, "\nA hit costs %s µs and a miss %s µs. So at 90 %% hits a check costs %.1f times a hit, and at 50 %% %.1f times.\n",
		number(warm), number(cold), (0.9*warm+0.1*cold)/warm, (0.5*warm+0.5*cold)/warm)
}

func (r *recorded) printSizes(w io.Writer) {
	s := r.simulation
	fmt.Fprintf(w, "%d replicas, tokens that live an hour, any replica for any check, %s checks a second all together.\n\n", sizedReplicas, number(float64(s.Rate)))
	t := table{{"`tokenCache.maxBytes`", "room for", "100,000 clients", "1,000,000 clients", "CPU a check, by those hits"}}
	warm, cold := r.bench.cost("warm"), r.bench.cost("cold")
	for _, bytes := range simCaches {
		row := []string{fmt.Sprintf("%d (%s)", bytes, size(float64(bytes))), number(float64(bytes)/float64(s.TokenBytes)) + " tokens"}
		var costs []string
		for _, clients := range sizedClients {
			o := s.of(fleet{clients, 3600, sizedReplicas, anyReplica, bytes})
			if o == nil {
				row = append(row, "")
				continue
			}
			row = append(row, percent(o.Hits))
			costs = append(costs, number(o.Hits*warm+(1-o.Hits)*cold)+" µs")
		}
		t = append(t, append(row, strings.Join(costs, ", ")))
	}
	t.print(w)
}

// last returns the cells of a curve at its largest size.
func (r *results) last(curve string) []cell {
	var found []cell
	most := -1
	for _, c := range r.Cells {
		n, err := strconv.Atoi(c.Scenario)
		if c.Group != curve || err != nil {
			continue
		}
		if n > most {
			found, most = nil, n
		}
		if n == most {
			found = append(found, c)
		}
	}
	return found
}

func (r *recorded) printMemory(w io.Writer) {
	t := table{{"what", "takes", "by"}}
	if room := r.scale.last(curveCache); len(room) > 0 {
		c := room[0]
		t = append(t, []string{"a remembered token, on the heap", size(c.perToken(c.Heap)), number(float64(c.Tokens)) + " of them in process; the cache itself counts " + size(c.perToken(c.Estimate))})
	}
	if bound := r.scale.last(curveBound); len(bound) > 0 {
		c := bound[0]
		t = append(t, []string{
			fmt.Sprintf("the cache with its default bound, %s, on the heap", size(defaultCacheBytes)), size(float64(c.Heap)),
			fmt.Sprintf("given %s tokens, of which it holds %s", thousandsOf(c.Scenario), number(float64(c.Tokens))),
		})
	}
	t = append(t, []string{"a token in the resident memory of a server at work", size(r.residentToken()), "the collector lets the heap grow to five times what is alive (GOGC=400), unless GOMEMLIMIT stops it"})
	if warm := r.bench.of(groupChecks, extauthz, "warm"); len(warm) > 0 && warm[0].Decisions > 0 {
		t = append(t, []string{"a remembered decision, by the cache's estimate", size(float64(warm[0].DecisionBytes) / float64(warm[0].Decisions)), "the built-in policy, one for each route and client"})
	}
	memory := func(c cell) float64 { return float64(c.RSS) }
	t = append(t, []string{"a replica that remembers nothing yet, resident", size(median(each(r.bench.of(groupChecks, extauthz, "no token"), memory))), "the load without tokens"})
	t.print(w)
}

func thousandsOf(text string) string {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	return number(n)
}

// perLine is the length of a line of the decision log.
func (r *recorded) perLine() float64 {
	var all []float64
	for _, c := range r.bench.of(groupObserve, extauthz, "decisionLog.allowed: all") {
		if written := float64(c.Answered - c.Lost); written > 0 && c.Logged > 0 {
			all = append(all, float64(c.Logged)/written)
		}
	}
	return median(all)
}

func (r *recorded) printLogs(w io.Writer) {
	line := r.perLine()
	fmt.Fprintf(w, "A line has %s. %.0f %% of the checks are refused, denied or failed.\n\n", size(line), 100*denials)
	t := table{{"checks a second", "lines a second, as shipped", "", "with `allowed: sampled` (1 %)", "", "with `allowed: all`", "", "a day of that"}}
	for _, rate := range capacityRates {
		row := []string{number(rate)}
		for _, share := range []float64{denials, denials + (1-denials)*0.01, 1} {
			row = append(row, number(rate*share), size(rate*share*line)+"/s")
		}
		t = append(t, append(row, size(rate*line*86400)))
	}
	t.print(w)
	if warm := r.bench.of(groupChecks, extauthz, "warm"); len(warm) > 0 && warm[0].Series > 0 {
		n := replicasFor(millionChecks, r.bench.costs())
		fmt.Fprintf(w, "\nMetrics: %d series of a replica with one route and one outcome in use, besides those of Go and the process; %s for the %s replicas of %s checks a second. "+
			"Each further route, outcome and reason that occurs adds one to `extauthz_checks_total`; clients and tokens add none.\n",
			warm[0].Series, number(float64(warm[0].Series)*n), number(n), number(millionChecks))
	}
}

func (r *recorded) printLimits(w io.Writer) {
	warm, cold := r.bench.cost("warm"), r.bench.cost("cold")
	line := r.perLine()
	t := table{{"what", "is full at", "by", "then"}}
	t = append(t,
		[]string{"one core, tokens remembered", number(1e6/warm) + " checks a second", "measured CPU of a warm check", "more replicas; the autoscaler does it"},
		[]string{"one core, every token new", number(1e6/cold) + " checks a second", "measured CPU of a cold check", "callers that keep their tokens; more replicas"},
	)
	if one := r.bench.of(groupLimits, extauthz, oneConnection); len(one) > 0 {
		t = append(t, []string{"one HTTP/2 connection (one worker of one Envoy)", "more than " + number(median(each(one, perSecond))) + " checks a second", "measured with 32 in flight; client and server share the machine", "each worker of each Envoy has its own: more of them, never fewer replicas"})
	}
	if envoy := r.bench.of(groupEnvoy, "ext_authz, extauthz", "warm"); len(envoy) > 0 {
		own := median(each(envoy, func(c cell) float64 { return c.EnvoyCPU }))
		t = append(t, []string{"one worker of Envoy that asks for each request", number(1e6/own) + " requests a second", "measured CPU of Envoy, its own work included", "more workers; public routes that Envoy answers without asking"})
	}
	t = append(t,
		[]string{"`limits.concurrentChecks`", number(checksAtOnce/slowAnswer) + " checks a second", fmt.Sprintf("%s at once, if each took %.0f ms", number(checksAtOnce), 1000*slowAnswer), "503 `overloaded` at once; look for what makes answers slow"},
		[]string{"the log's queue, with `allowed: all`", number(logQueue) + " lines that wait", fmt.Sprintf("its bound; %s checks a second write %s/s", number(aReplica), size(aReplica*line)), "lines are lost and counted, answers never wait; sample"},
		[]string{"the token cache", number(defaultCacheBytes/float64(r.simulation.TokenBytes)) + " tokens", fmt.Sprintf("%s at %s each", size(defaultCacheBytes), size(float64(r.simulation.TokenBytes))), "misses; raise `tokenCache.maxBytes` and the memory"},
		[]string{"the key server", "nothing that we know of", fmt.Sprintf("%s fetches a second of 1,000 replicas", number(1000./jwksMaxAge)), "keys serve on for a day (`jwks.maxStale`)"},
	)
	t.print(w)
}

// printCache writes what the cache of verified tokens costs by itself.
func (r *results) printCache(w io.Writer) {
	fmt.Fprintf(w, "The cache of verified tokens alone, filled by verifying each: CPU of finding one again, smallest / median, bytes of heap each, what the cache counts for each, and what the process grew by.\n\n")
	t := table{{"tokens", "find", "ratio", "heap each", "counted each", "process"}}
	for _, n := range cacheSizes {
		cells := r.of(curveCache, extauthz, strconv.Itoa(n))
		if len(cells) == 0 {
			continue
		}
		values, c := each(cells, cpuOf), cells[0]
		t = append(t, []string{
			number(float64(n)), fmt.Sprintf("%.2f / %.2f µs", slices.Min(values), median(values)), fmt.Sprintf("%.2f", r.growth(curveCache, cacheSizes[0], n)),
			number(c.perToken(c.Heap)), number(c.perToken(c.Estimate)), size(math.Max(0, float64(c.RSS))),
		})
	}
	t.print(w)
	fmt.Fprintf(w, "\nWith the default bound, %s:\n\n", size(defaultCacheBytes))
	t = table{{"tokens given", "held", "counted", "heap", "process"}}
	for _, n := range boundSizes {
		for _, c := range r.of(curveBound, extauthz, strconv.Itoa(n)) {
			t = append(t, []string{
				number(float64(n)), number(float64(c.Tokens)), size(float64(c.Estimate)), size(float64(c.Heap)), size(math.Max(0, float64(c.RSS))),
			})
		}
	}
	t.print(w)
}
