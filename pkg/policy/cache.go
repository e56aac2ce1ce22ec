package policy

import (
	"encoding/json"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/maypok86/otter/v2"
	"github.com/open-policy-agent/opa/v1/ast"
)

// A Caching says by what decisions of a policy are remembered, or why they are not.
type Caching struct {
	// Remembered is set if decisions are remembered: Config.CacheBytes is set, and nothing is Against it.
	Remembered bool
	// By is what a decision may depend on, sorted by name: the parts of the input that the policy reads. It is never too
	// little: what Rego computes at run time counts as all of what it is computed from. Those with a Why are Against it too.
	By []Dependency
	// Against is what keeps decisions from being remembered, sorted by name, each with its Why.
	Against []Dependency
}

// A CacheStatus says what an [Engine] remembers, and what that was good for. Hits, Misses and Bypassed count from the
// start, over all policies.
type CacheStatus struct {
	Entries  int    // decisions of the policy that decides now
	Bytes    uint64 // what they take, by estimate
	Hits     uint64 // decisions that were remembered
	Misses   uint64 // decisions that were not
	Bypassed uint64 // decisions whose input was too long to remember them by
}

// A decisionCache remembers the decisions of one program by all that the program reads. It has no need to forget: the same
// program makes the same decision of it each time.
type decisionCache struct {
	parts   []keyPart
	seed    maphash.Seed
	entries *otter.Cache[uint64, *rememberedDecision]
}

// A rememberedDecision has the whole key, as other inputs may have the same hash. Nobody changes it.
type rememberedDecision struct {
	key      string
	decision Decision
}

// cacheCounts are the counters of an engine. They outlive its programs.
type cacheCounts struct{ hits, misses, bypassed atomic.Uint64 }

func newDecisionCache(parts []keyPart, bytes int64) (*decisionCache, error) {
	entries, err := otter.New(&otter.Options[uint64, *rememberedDecision]{
		MaximumWeight: uint64(bytes),
		Weigher:       func(_ uint64, r *rememberedDecision) uint32 { return r.size() },
		Executor:      func(f func()) { f() }, // evict before going on, not some time later
	})
	if err != nil {
		return nil, err
	}
	return &decisionCache{parts: parts, seed: maphash.MakeSeed(), entries: entries}, nil
}

// key writes what the decision on in depends on. The writer is the caller's to release.
func (c *decisionCache) key(in *Input) (*keyWriter, bool) {
	w, _ := keyWriters.Get().(*keyWriter)
	// What has no form in Rego fails, wherever it is, and goes on to do so.
	return w, in.formed() && w.parts(c.parts, in)
}

// get returns a decision of its own to the caller.
func (c *decisionCache) get(key []byte) (Decision, bool) {
	r, ok := c.entries.GetIfPresent(maphash.Bytes(c.seed, key))
	if !ok || r.key != string(key) {
		return Decision{}, false
	}
	return r.decision.clone(false), true
}

// set remembers a decision by a copy that shares no memory with the input: a string of a request may be a part of a
// larger one.
func (c *decisionCache) set(key string, d Decision) {
	c.entries.Set(maphash.String(c.seed, key), &rememberedDecision{key: key, decision: d.clone(true)})
}

// caching finds out whether decisions of a program may be remembered, and by what.
func caching(found *depends, cfg Config) (Caching, []keyPart) {
	c := Caching{Against: found.against}
	var parts []keyPart
	for _, r := range found.reads {
		dep := Dependency{Name: nameOf(r.path), Exists: r.exists, Why: r.unlike()}
		dep.place(r.at)
		c.By = append(c.By, dep)
		if dep.Why != "" {
			c.Against = append(c.Against, dep)
		}
		for _, path := range cfg.inputPaths(r.path) {
			parts = append(parts, keyPartsOf(path, r.exists)...)
		}
	}
	slices.SortStableFunc(c.Against, func(a, b Dependency) int { return strings.Compare(a.Name, b.Name) })
	c.Remembered = cfg.CacheBytes > 0 && len(c.Against) == 0
	return c, parts
}

// inputPaths returns where an Input has what a policy reads at path; nothing if it is the same in all of them.
func (cfg Config) inputPaths(path []string) [][]string {
	own := [][]string{{"canonical"}, {"token"}, {"route"}, {"context"}}
	switch {
	case cfg.Dialect != DialectOPAEnvoy || len(path) == 0:
		return [][]string{path}
	case path[0] == "extauthz" && !cfg.ExtauthzInput, slices.ContainsFunc(own, func(o []string) bool { return o[0] == path[0] }):
		return nil
	case path[0] != "extauthz":
		return [][]string{path}
	case len(path) == 1:
		return own
	}
	return [][]string{path[1:]}
}

// eachTime are parts of the input that are different in each request that Envoy sends: a decision that depends on one would be
// remembered for nothing.
var eachTime = [][]string{
	{"attributes", "request", "time"},
	{"attributes", "request", "http", "id"},
	{"attributes", "request", "http", "headers", "x-request-id"},
}

// unlike says why the part of the input is never the same; empty if it may be.
func (r inputRead) unlike() string {
	switch {
	case r.exists:
		return ""
	case len(r.path) == 0:
		return "is all of the input, which is different in each request"
	}
	for _, path := range eachTime {
		switch n := min(len(path), len(r.path)); {
		case !slices.Equal(path[:n], r.path[:n]):
		case n < len(path):
			return "is different in each request, as it includes " + nameOf(path)
		default:
			return "is different in each request"
		}
	}
	return ""
}

// nameOf writes a path as Rego does.
func nameOf(path []string) string {
	ref := ast.InputRootRef
	for _, name := range path {
		ref = ref.Append(ast.StringTerm(name))
	}
	return ref.String()
}

// clone copies what a Decision points to: with all, its strings as well.
func (d Decision) clone(all bool) Decision {
	text := func(s string) string {
		if all {
			return strings.Clone(s)
		}
		return s
	}
	d.Detail, d.Scope = text(d.Detail), text(d.Scope)
	if d.Body != nil {
		body := text(*d.Body)
		d.Body = &body
	}
	d.ResponseHeaders = cloneEach(d.ResponseHeaders, func(h Header) Header { return Header{text(h.Name), cloneEach(h.Values, text)} })
	d.RequestHeaders = cloneEach(d.RequestHeaders, func(h Header) Header { return Header{text(h.Name), cloneEach(h.Values, text)} })
	d.RemoveRequestHeaders = cloneEach(d.RemoveRequestHeaders, text)
	d.SetQueryParameters = cloneEach(d.SetQueryParameters, func(p Parameter) Parameter { return Parameter{text(p.Name), cloneEach(p.Values, text)} })
	d.RemoveQueryParameters = cloneEach(d.RemoveQueryParameters, text)
	if d.Metadata != nil {
		d.Metadata, _ = cloneJSON(d.Metadata, text).(map[string]any)
	}
	return d
}

// cloneEach keeps nil and empty apart.
func cloneEach[T any](list []T, clone func(T) T) []T {
	if list == nil {
		return nil
	}
	out := make([]T, len(list))
	for i, x := range list {
		out[i] = clone(x)
	}
	return out
}

func cloneJSON(x any, text func(string) string) any {
	switch x := x.(type) {
	case string:
		return text(x)
	case []any:
		return cloneEach(x, func(e any) any { return cloneJSON(e, text) })
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, v := range x {
			out[text(k)] = cloneJSON(v, text)
		}
		return out
	}
	return x
}

// size estimates the bytes that a remembered decision takes, the cache's own included.
func (r *rememberedDecision) size() uint32 {
	const node = 200 // of the cache, with its place in the table and the queues
	n := node + int(unsafe.Sizeof(*r)) + textSize(r.key) + textSize(r.decision.Detail) + textSize(r.decision.Scope)
	if r.decision.Body != nil {
		n += textSize(*r.decision.Body)
	}
	for _, list := range [][]Header{r.decision.ResponseHeaders, r.decision.RequestHeaders} {
		for _, h := range list {
			n += listSize(h.Values) + textSize(h.Name) + 24
		}
	}
	for _, p := range r.decision.SetQueryParameters {
		n += listSize(p.Values) + textSize(p.Name) + 24
	}
	n += listSize(r.decision.RemoveRequestHeaders) + listSize(r.decision.RemoveQueryParameters)
	if r.decision.Metadata != nil {
		n += jsonSize(r.decision.Metadata)
	}
	return uint32(min(n, math.MaxUint32))
}

// textSize estimates the bytes that a string takes, rounded up as the allocator does.
func textSize(s string) int { return 16 + 8 + len(s)*9/8 }

func listSize(list []string) int {
	n := 24
	for _, s := range list {
		n += textSize(s)
	}
	return n
}

func jsonSize(x any) int {
	const (
		word  = 24  // an interface and what it points to
		group = 340 // a map with up to 8 members
		slot  = 64  // of a larger map, for each member more
	)
	switch x := x.(type) {
	case string:
		return word + textSize(x)
	case []any:
		n := 2 * word
		for _, e := range x {
			n += jsonSize(e)
		}
		return n
	case map[string]any:
		n := group + slot*max(0, len(x)-8)
		for k, v := range x {
			n += textSize(k) + jsonSize(v)
		}
		return n
	}
	return word
}

// maxFormedDepth bounds how deep formed looks. What is deeper is evaluated.
const maxFormedDepth = 64

// formed reports whether all of in has a form in Rego. It may say no where it has.
func (in *Input) formed() bool {
	return formed(in.Attributes, 0) && formed(in.ParsedBody, 0) && (in.Token == nil || formed(in.Token.Claims, 0)) &&
		formed(in.Context.Metadata, 0) && formed(in.Context.RouteMetadata, 0)
}

func formed(x any, depth int) bool {
	if depth > maxFormedDepth {
		return false
	}
	switch x := x.(type) {
	case nil, string, bool, int, int32, int64, uint32, uint64, []string:
		return true
	case map[string]string:
		return len(x) <= fewNames
	case map[string][]string:
		return len(x) <= fewNames
	case float64:
		return !math.IsNaN(x) && !math.IsInf(x, 0)
	case json.Number:
		return formedNumber(x)
	case []any:
		for _, e := range x {
			if !formed(e, depth+1) {
				return false
			}
		}
		return true
	case map[string]any:
		if len(x) > fewNames { // whose names converting looks at
			return false
		}
		for _, e := range x {
			if !formed(e, depth+1) {
				return false
			}
		}
		return true
	}
	return false
}

func formedNumber(n json.Number) bool {
	if len(n) > 0 && len(n) < 20 && n[0] > '0' && strings.Trim(string(n), "0123456789") == "" {
		return true // a time, in most cases
	}
	var c converter
	c.number("", string(n))
	return c.err == nil
}

// Caching says by what the decisions of the policy that decides now are remembered, or why they are not. It is the zero
// Caching as long as nothing is loaded. Nobody may change its slices.
func (e *Engine) Caching() Caching {
	if p := e.program.Load(); p != nil {
		return p.caching
	}
	return Caching{}
}

// CacheStatus returns what the engine remembers.
func (e *Engine) CacheStatus() CacheStatus {
	s := CacheStatus{Hits: e.counts.hits.Load(), Misses: e.counts.misses.Load(), Bypassed: e.counts.bypassed.Load()}
	if p := e.program.Load(); p != nil && p.cache != nil {
		s.Entries, s.Bytes = p.cache.entries.EstimatedSize(), p.cache.entries.WeightedSize()
	}
	return s
}
