package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// A point is a size at which extauthz is measured.
type point struct {
	curve string
	n     int
	edit  func(config string) string
	load  scenario
}

// The curves: what grows, and from where to where.
const (
	curveRoutes  = "routes"
	curveClients = "clients"
	curvePools   = "pools"
	curveTokens  = "tokens"
)

var curves = []struct {
	name  string
	sizes []int
}{
	{curveRoutes, []int{10, 100, 1_000, 10_000}},
	{curveClients, []int{10, 100, 1_000, 10_000}},
	{curvePools, []int{1, 10, 100}},
	{curveTokens, []int{10, 1_000, 10_000, 100_000}},
}

// scale measures extauthz on its own along the curves.
func scale(ctx context.Context, o options) error {
	r, err := newRunner(o)
	if err != nil {
		return err
	}
	defer r.programs.mint.close()
	few := o.live != liveTokens
	// First, as what this process holds later would count for the cache's.
	if o.curves == "" {
		alone, err := cacheCells(ctx, r.programs.mint, r.log, o.rounds, o.window, upTo(cacheSizes, few), upTo(boundSizes, few))
		if err != nil {
			return err
		}
		r.cells = alone
	}
	points, err := scalePoints(r.programs.mint, few)
	if err != nil {
		return err
	}
	byCurve := make(map[string][]job)
	for _, p := range points {
		byCurve[p.curve] = append(byCurve[p.curve], job{fmt.Sprintf("%d %s", p.n, p.curve), func(ctx context.Context) (cell, error) {
			c, err := r.measure(ctx, extauthz, p.load, setup{edit: p.edit})
			c.Group, c.Scenario = p.curve, strconv.Itoa(p.n)
			return c, err
		}})
	}
	for round := range o.rounds {
		var groups [][]job
		for _, c := range curves {
			if o.curves == "" || slices.Contains(strings.Split(o.curves, ","), c.name) {
				groups = append(groups, byCurve[c.name])
			}
		}
		if err := r.round(ctx, round+1, groups); err != nil {
			return err
		}
	}
	results := &results{Machine: thisMachine(ctx), Rounds: o.rounds, Window: o.window.String(), Cells: r.cells}
	if err := results.write(filepath.Join(o.dir, "scale.json")); err != nil {
		return err
	}
	results.printScale(os.Stdout)
	results.printCache(os.Stdout)
	return nil
}

// upTo leaves out the sizes that take minutes.
func upTo(sizes []int, few bool) []int {
	if !few {
		return sizes
	}
	return slices.DeleteFunc(slices.Clone(sizes), func(n int) bool { return n > 10_000 })
}

// scalePoints makes the points of all curves; few leaves out the largest, which take minutes to sign for.
func scalePoints(m *mint, few bool) ([]point, error) {
	t, err := newTemplates()
	if err != nil {
		return nil, err
	}
	most := 100_000
	if few {
		most = 1_000
	}
	tokens, err := m.good(most)
	if err != nil {
		return nil, err
	}
	var points []point
	for _, c := range curves {
		for _, n := range c.sizes {
			if n > most {
				continue
			}
			p := point{curve: c.name, n: n}
			p.edit, p.load = grown(c.name, n, m, t, tokens)
			points = append(points, p)
		}
	}
	return points, nil
}

func warmLoad(messages []message) scenario {
	return scenario{Name: "warm", InFlight: inFlight, Conns: conns, before: messages, messages: messages, again: true}
}

func grown(curve string, n int, m *mint, t *templates, tokens []string) (func(string) string, scenario) {
	ten := make([]message, 10)
	for i := range ten {
		ten[i] = t.message(readOrder, tokens[i], http.StatusOK)
	}
	switch curve {
	case curveRoutes:
		return func(config string) string { return strings.Replace(config, moreRoutes, routes(n-2), 1) }, warmLoad(ten)
	case curveClients:
		return func(config string) string {
			names, list := clients(n - 2)
			return strings.NewReplacer(moreClients, names, moreNames, list).Replace(config)
		}, warmLoad(ten)
	case curvePools:
		return func(config string) string { return pools(config, n, m.jwksURL) }, warmLoad(poolTokens(m, t, n))
	}
	// As many messages for each size, each with memory of its own: what it costs the client to walk through 200 MB would slow it
	// down, and a server that is asked less often finds fewer checks at once. That is no cost of the server's tokens.
	many := make([]message, len(tokens))
	for i := range many {
		many[i] = t.message(readOrder, strings.Clone(tokens[i%n]), http.StatusOK)
	}
	// Room for all of them: an entry counts about two kilobytes.
	return func(config string) string {
		return strings.Replace(config, moreKeys, "tokenCache: {maxBytes: 536870912}", 1)
	}, warmLoad(many)
}

// routes writes n routes of the forms that real tables have: fixed segments, parameters and tails.
func routes(n int) string {
	var b strings.Builder
	for i := range n {
		path := fmt.Sprintf("/service%d/items", i)
		switch i % 3 {
		case 1:
			path += "/{id}"
		case 2:
			path += "/**"
		}
		fmt.Fprintf(&b, "- {path: %q, methods: [GET], scopes: {any: [orders/read]}, pools: [main]}\n", path)
	}
	return b.String()
}

func clients(n int) (names, list string) {
	var a, b strings.Builder
	for i := range n {
		fmt.Fprintf(&a, "  client-%d: {id: another%019d}\n", i, i)
		fmt.Fprintf(&b, "    - client-%d\n", i)
	}
	return a.String(), b.String()
}

// pools writes a configuration with n pools, which share a JWK Set, as only their issuers matter here.
func pools(config string, n int, jwksURL string) string {
	var b strings.Builder
	names := []string{"main"}
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "  pool-%d: {issuer: %s, jwksUrl: %q, clients: [reports]}\n", i, poolIssuer(i), jwksURL)
		names = append(names, fmt.Sprintf("pool-%d", i))
	}
	config = strings.ReplaceAll(config, "pools: [main]", "pools: ["+strings.Join(names, ", ")+"]")
	return strings.Replace(config, morePools, b.String(), 1)
}

func poolIssuer(i int) string { return fmt.Sprintf("%s%03d", issuer, i) }

// poolTokens returns ten tokens from over all of n pools.
func poolTokens(m *mint, t *templates, n int) []message {
	all := make([]message, 10)
	for i := range all {
		iss := issuer
		if pool := i * n / len(all); pool > 0 {
			iss = poolIssuer(pool)
		}
		all[i] = t.message(readOrder, m.token(cognitotest.Claim("iss", iss)), http.StatusOK)
	}
	return all
}

// printScale writes the curves as tables.
func (r *results) printScale(w io.Writer) {
	r.printMachine(w)
	fmt.Fprintf(w, "\nWarm checks as something grows: microseconds of CPU a check, smallest / median, the median ratio to the first row of the same round, and resident memory.\n\n")
	t := table{{"", "CPU a check", "ratio", "memory"}}
	for _, c := range curves {
		for _, n := range c.sizes {
			cells := r.of(c.name, extauthz, strconv.Itoa(n))
			if len(cells) == 0 {
				continue
			}
			values := each(cells, cpuOf)
			t = append(t, []string{
				sized(n, c.name), fmt.Sprintf("%.0f / %.0f", slices.Min(values), median(values)),
				fmt.Sprintf("%.2f", r.growth(c.name, c.sizes[0], n)),
				fmt.Sprintf("%.0f MiB", median(each(cells, func(c cell) float64 { return float64(c.RSS) / (1 << 20) }))),
			})
		}
	}
	t.print(w)
}

// growth returns the median of the rounds' ratios of the cost at size n to that at the first size.
func (r *results) growth(curve string, first, n int) float64 {
	return medianRatio(r.of(curve, extauthz, strconv.Itoa(n)), r.of(curve, extauthz, strconv.Itoa(first)))
}

func sized(n int, curve string) string {
	if n == 1 {
		return "1 " + strings.TrimSuffix(curve, "s")
	}
	return thousands(float64(n)) + " " + curve
}
