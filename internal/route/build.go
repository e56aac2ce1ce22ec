package route

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxTableSize bounds states and edges together, and with them the memory of a table at about 100 MB. A plain table
// needs a few for each route; only literals and {segments} that overlap many times over need more.
const maxTableSize = 1 << 20

// A route is a rule made ready for matching.
type route struct {
	index    int
	rule     *Rule
	segments []segment
	rank     string // of the path; the greater of two is the more specific
	every    bool   // methods: ["*"]
	fixed    *Match // if every request has the same
}

func newRoute(index int, rule *Rule, segments []segment) *route {
	r := &route{index: index, rule: rule, segments: segments, every: slices.Equal(rule.Methods, []string{"*"})}
	rank := make([]byte, 0, len(segments)+1)
	parameters := false
	for _, s := range segments {
		rank = append(rank, byte(s.kind))
		parameters = parameters || s.kind != literal
	}
	r.rank = string(append(rank, byte(finish)))
	if !parameters {
		r.fixed = &Match{Rule: rule}
	}
	return r
}

// params returns the values of [Match.Params] for a path that r matches.
func (r *route) params(path []string) map[string]string {
	if r.fixed != nil {
		return nil
	}
	params := make(map[string]string)
	for i, s := range r.segments {
		switch s.kind {
		case variable:
			params[s.text] = path[i]
		case tail:
			params["**"] = joinTail(path[i:])
		}
	}
	return params
}

// joinTail leaves %2F encoded. The result is not ambiguous: ParsePath refuses a path in which a segment has "%2F" once
// it is decoded.
func joinTail(segments []string) string {
	joined := strings.Join(segments, "/")
	if strings.Count(joined, "/") < len(segments) {
		return joined
	}
	kept := make([]string, len(segments))
	for i, s := range segments {
		kept[i] = strings.ReplaceAll(s, "/", "%2F")
	}
	return strings.Join(kept, "/")
}

// A state is where a path has led so far, by all templates at once.
type state struct {
	wild  int // next state for a segment that no edge has; 0: none
	here  int // the choice if the path ends here
	below int // the choice if it goes on where no template does
}

// An edge leads from a state by a literal.
type edge struct {
	from    int
	literal string
}

// A choice is the most specific route for each method, of all that match one path.
type choice struct {
	listed []methodRoute
	other  *route // for any other method
}

type methodRoute struct {
	method string
	route  *route
}

func (c *choice) pick(method string) *route {
	for i := range c.listed {
		if c.listed[i].method == method {
			return c.listed[i].route
		}
	}
	return c.other
}

// A node is a place in the templates of one host: they part only at literals and variables. Its states are sets of nodes.
type node struct {
	id       int
	owner    *route // the first that came by
	literals map[string]*node
	variable *node
	ends     []*route
	tails    []*route
}

type builder struct {
	table  *Table
	routes []*route
	given  []bool // by rule: it came with a name
	errs   []error

	tied    map[[2]int]bool // pairs of rules already said to tie
	hosts   map[string]int  // indexes of the routes of a host -> first state
	nodes   int             // number of nodes made
	states  map[string]int  // ids of nodes, indexes of tails -> state
	choices map[string]int  // indexes of routes -> choice
	full    bool            // the table is over its size
}

func newBuilder() *builder {
	return &builder{
		// State and choice 0 are those of no route.
		table: &Table{
			exact: map[string]int{}, suffix: map[string]int{}, edges: map[edge]int{},
			states: make([]state, 1), choices: make([]choice, 1),
		},
		tied: map[[2]int]bool{}, hosts: map[string]int{}, states: map[string]int{}, choices: map[string]int{},
	}
}

// build makes the states of each host's routes.
func (b *builder) build() {
	byHost := make(map[string][]*route)
	for _, r := range b.routes {
		if r.rule.Hosts == nil {
			byHost[""] = append(byHost[""], r)
		}
		for _, h := range r.rule.Hosts {
			byHost[h] = append(byHost[h], r)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		start := b.host(host, byHost[host])
		suffix, wildcard := strings.CutPrefix(host, "*.")
		switch {
		case host == "":
			b.table.anywhere = start
		case wildcard:
			b.table.suffix[suffix] = start
		default:
			b.table.exact[host] = start
		}
	}
}

// host returns the first state of a host's routes. Hosts that have the same routes share their states.
func (b *builder) host(host string, routes []*route) int {
	key := routeKey(routes)
	if start, ok := b.hosts[key]; ok {
		return start
	}
	root := b.node(routes[0])
	for _, r := range routes {
		b.insert(root, host, r)
	}
	start := b.state([]*node{root}, nil)
	b.hosts[key] = start
	return start
}

func (b *builder) node(owner *route) *node {
	b.nodes++
	return &node{id: b.nodes, owner: owner, literals: map[string]*node{}}
}

func (b *builder) insert(at *node, host string, r *route) {
	for _, s := range r.segments {
		switch s.kind {
		case literal:
			if at.literals[s.text] == nil {
				at.literals[s.text] = b.node(r)
			}
			at = at.literals[s.text]
		case variable:
			if at.variable == nil {
				at.variable = b.node(r)
			}
			at = at.variable
		case tail:
			b.checkTies(host, at.tails, r)
			at.tails = append(at.tails, r)
			return
		}
	}
	b.checkTies(host, at.ends, r)
	at.ends = append(at.ends, r)
}

// checkTies looks for a route among others of the same template that r would have to toss a coin with.
func (b *builder) checkTies(host string, others []*route, r *route) {
	for _, other := range others {
		i := slices.IndexFunc(r.rule.Methods, func(m string) bool { return slices.Contains(other.rule.Methods, m) })
		pair := [2]int{other.index, r.index}
		if i < 0 || other == r || b.tied[pair] { // itself: a host listed twice, which is said elsewhere
			continue
		}
		b.tied[pair] = true
		where := "every host"
		if host != "" {
			where = "host " + host
		}
		b.errs = append(b.errs, &RuleError{Index: r.index, Field: "path", Err: fmt.Errorf(
			"found %q, which ties with %q of routes[%d] (%q) for method %s on %s, want one more specific than the other",
			r.rule.Path, other.rule.Path, other.index, other.rule.Name, r.rule.Methods[i], where)})
	}
}

// state returns the state for a set of nodes, and makes it and all that follow it if it is new. Tails are the routes
// with a trailing ** that the path has come by.
//
// This is the subset construction known from regular expressions: where a literal and a {segment} both take a path
// further, the state behind the literal stands for both. So a match never has to go back and try the other one.
func (b *builder) state(nodes []*node, tails []*route) int {
	var ends []*route
	for _, n := range nodes {
		ends = append(ends, n.ends...)
		tails = append(slices.Clip(tails), n.tails...)
	}
	key := stateKey(nodes, tails)
	if id, ok := b.states[key]; ok {
		return id
	}
	id := len(b.table.states)
	b.states[key] = id
	b.table.states = append(b.table.states, state{
		here:  b.choice(slices.Concat(ends, tails)),
		below: b.choice(tails),
	})
	for _, text := range literalsOf(nodes) {
		if b.overSize(nodes[0].owner) {
			return id
		}
		b.table.edges[edge{id, text}] = 0 // counts at once, so that the size holds while the states behind are made
		b.table.edges[edge{id, text}] = b.state(follow(nodes, text), tails)
	}
	if next := followVariable(nodes); len(next) > 0 && !b.overSize(nodes[0].owner) {
		wild := b.state(next, tails)
		b.table.states[id].wild = wild
	}
	return id
}

func literalsOf(nodes []*node) []string {
	var texts []string
	for _, n := range nodes {
		texts = slices.AppendSeq(texts, maps.Keys(n.literals))
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// follow returns the nodes that a literal leads to: its own, and those of variables, which take any segment but an
// empty one.
func follow(nodes []*node, text string) []*node {
	var next []*node
	for _, n := range nodes {
		if n.literals[text] != nil {
			next = append(next, n.literals[text])
		}
	}
	if text == "" {
		return next
	}
	return append(next, followVariable(nodes)...)
}

func followVariable(nodes []*node) []*node {
	var next []*node
	for _, n := range nodes {
		if n.variable != nil {
			next = append(next, n.variable)
		}
	}
	return next
}

func (b *builder) overSize(owner *route) bool {
	if len(b.table.states)+len(b.table.edges) < maxTableSize {
		return false
	}
	if !b.full {
		b.full = true
		b.errs = append(b.errs, &RuleError{Index: owner.index, Field: "path", Err: fmt.Errorf(
			"found %q, with which literals and {segments} of the table overlap in more than %d ways, want fewer\n"+
				"hint: a {segment} beside many literals repeats what is below it under each of them; give such routes different first segments or hosts",
			owner.rule.Path, maxTableSize)})
	}
	return true
}

// choice returns the choice between routes that match the same paths.
func (b *builder) choice(routes []*route) int {
	if len(routes) == 0 {
		return 0
	}
	routes = slices.SortedFunc(slices.Values(routes), func(a, b *route) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.index, b.index))
	})
	key := routeKey(routes)
	if id, ok := b.choices[key]; ok {
		return id
	}
	id := len(b.table.choices)
	b.choices[key] = id
	b.table.choices = append(b.table.choices, choose(routes))
	return id
}

// choose is given routes sorted by their paths, the most specific first.
func choose(routes []*route) choice {
	var c choice
	for len(routes) > 0 {
		same := slices.IndexFunc(routes, func(r *route) bool { return r.rank != routes[0].rank })
		if same < 0 {
			same = len(routes)
		}
		for _, r := range routes[:same] {
			if r.every {
				c.other = r
				continue
			}
			for _, m := range r.rule.Methods {
				if !slices.ContainsFunc(c.listed, func(l methodRoute) bool { return l.method == m }) {
					c.listed = append(c.listed, methodRoute{m, r})
				}
			}
		}
		if c.other != nil {
			break // nothing wider can win any more
		}
		routes = routes[same:]
	}
	return c
}

func routeKey(routes []*route) string {
	var key []byte
	for _, r := range routes {
		key = strconv.AppendInt(append(key, ' '), int64(r.index), 36)
	}
	return string(key)
}

func stateKey(nodes []*node, tails []*route) string {
	var key []byte
	for _, n := range nodes {
		key = strconv.AppendInt(append(key, ' '), int64(n.id), 36)
	}
	return string(key) + " **" + routeKey(tails)
}
