// Package route finds the one route that a request belongs to.
//
// Three calls do it: [ParsePath] and [CanonicalHost] bring what the client sent into one canonical form, or refuse
// it because servers disagree about what it means; [Table.Match] then finds the most specific route:
//
//	p, err := route.ParsePath(rawPath)        // err: answer 400
//	host, err := route.CanonicalHost(rawHost) // err: answer 400
//	m := table.Match(host, method, p)
//	err = table.Admits(p)                     // err: answer 400
//	err = m.Admits(p)                         // err: answer 400, also if m is nil; who may know which routes exist?
//	if m == nil { ... }                       // no route
//
// Why so strict: a rule protects a path only if the service behind reads the same path as we do. Whatever two
// servers are known to read in two ways (dot segments, backslashes, encoded slashes, double encoding, path
// parameters) is refused here, or, where a rule has to allow it, is refused as soon as another reading would
// belong to another route. The page docs/paths.md says it to users.
//
// A [Table] does not change once it is made and may be used by any number of goroutines.
package route

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Rule is one entry of the route table: which requests it covers, and who may make them. Package route uses the
// first part only; what the second part asks for is decided by the policy. Field comments name the YAML key where
// it differs from the field's name.
//
// A list that is empty but not nil is an error: somebody wrote it and meant it to restrict something.
type Rule struct {
	// Name identifies the rule in logs and metadata. It is unique in its table. Default: the hosts joined by ","
	// and a space if there are any, the methods joined by ",", a space, and Path, such as "GET,POST /orders/{id}".
	Name string
	// Hosts are the hosts that the rule is for, in canonical form ([CanonicalHost]): each a whole host or "*.suffix",
	// which stands for every host that has one label or more before the suffix. Nil means every host.
	Hosts []string
	// Methods are the request methods (RFC 9110 section 9.1), compared byte for byte, so that GET is not HEAD.
	// Required; every method is ["*"].
	Methods []string
	// Path is a template. A segment is a literal in canonical form ([ParsePath]), {name} for any one segment that is
	// not empty, or, as the last one, ** for any number of segments, none included. Required.
	Path string

	// Pools are the names of the user pools whose tokens count. Nil leaves it to the configuration.
	Pools []string
	// ScopesAll must all be in the token (scopes.all).
	ScopesAll []string
	// ScopesAny holds scopes of which one at least must be in the token (scopes.any).
	ScopesAny []string
	// Clients are the names, in the configuration, of the app clients that may call.
	Clients []string
	// AnyClient admits every client of the pools, whatever its scopes.
	AnyClient bool
	// Public admits requests without a token.
	Public bool

	// EncodedSlash accepts %2F in the path (encodedSlash: allow). It stays encoded and never separates segments.
	EncodedSlash bool
	// PathParameters accepts ";" and %3B in the path (pathParameters: allow; RFC 3986 section 3.3).
	PathParameters bool
}

// A RuleError says what is wrong with one rule.
type RuleError struct {
	Index int    // of the rule, from 0
	Field string // YAML key: "path", "methods", "hosts", "scopes", ...
	Err   error  // what was found, then what was wanted; a second line may start with "hint: "
}

// Error names the rule by its index, as in routes[3].path.
func (e *RuleError) Error() string {
	return fmt.Sprintf("route: routes[%d].%s: %v", e.Index, e.Field, e.Err)
}

// Unwrap returns Err.
func (e *RuleError) Unwrap() error { return e.Err }

// A Table finds the most specific rule for a request. The zero Table has no rule.
type Table struct {
	rules []*Rule

	slash, parameters bool // whether any rule allows them

	exact    map[string]int // canonical host -> first state
	suffix   map[string]int // "example.com" of "*.example.com" -> first state
	anywhere int            // first state of the rules without hosts; 0 is the state that matches nothing

	states  []state
	edges   map[edge]int
	choices []choice
}

// NewTable checks the rules and builds their table. The rules' order means nothing.
//
// Its error joins one [*RuleError] for each thing that is wrong, two rules that tie included: such rules cover the
// same host, method and path, and neither is more specific. The table keeps the slices inside rules: they must not be
// changed afterwards.
func NewTable(rules []Rule) (*Table, error) {
	b := newBuilder()
	for i := range rules {
		rule := rules[i]
		segments := b.check(i, &rule)
		b.table.rules = append(b.table.rules, &rule)
		b.table.slash = b.table.slash || rule.EncodedSlash
		b.table.parameters = b.table.parameters || rule.PathParameters
		if segments != nil {
			b.routes = append(b.routes, newRoute(i, &rule, segments))
		}
	}
	b.checkNames()
	b.build()
	if len(b.errs) > 0 {
		return nil, errors.Join(b.errs...)
	}
	return b.table, nil
}

// Rules returns the rules in the order given, with their default names filled in. They must not be changed.
func (t *Table) Rules() []*Rule { return slices.Clone(t.rules) }

// A Match is the rule that a request belongs to. It must not be changed: requests share it.
type Match struct {
	Rule *Rule
	// Params are the values of the template's {name} segments, decoded; a value holds "/" where the path had %2F.
	// The key "**" has what a trailing ** stands for, its segments decoded and joined by "/", where %2F alone stays
	// encoded, so that segments can be told apart. Nil if the template has neither.
	Params map[string]string

	misread bool // another reading of the path is another route's
}

// Admits says whether the matched rule takes the path. Its error is a [*PathError], to be answered with 400, for an
// encoded slash or a path parameter that the rule does not allow, and for a path that some servers would read as
// one of another rule (docs/paths.md lists the readings). p is the path that m was found for. A nil m, no route,
// allows neither slash nor parameter.
//
// The answer says something about the table: to whom /%2561dmin is 400 and not 401, there is a route /admin. So a
// caller who wants routes to stay unknown asks after the token is verified, or at once if the route is public.
func (m *Match) Admits(p Path) error {
	switch {
	case p.EncodedSlash && (m == nil || !m.Rule.EncodedSlash):
		return &PathError{Reason: reasonSlash}
	case p.Parameters && (m == nil || !m.Rule.PathParameters):
		return &PathError{Reason: reasonParameter}
	case m != nil && m.misread:
		return &PathError{Reason: reasonOtherRoute}
	}
	return nil
}

// Admits says whether any rule could take the path: an encoded slash that no rule allows, or path parameters that no
// rule allows, are 400 whatever the route, and saying so tells nothing about a single one. Its error is a
// [*PathError].
func (t *Table) Admits(p Path) error {
	switch {
	case p.EncodedSlash && !t.slash:
		return &PathError{Reason: reasonSlash}
	case p.Parameters && !t.parameters:
		return &PathError{Reason: reasonParameter}
	}
	return nil
}

// Match returns the most specific rule for a request, nil if there is none. The host is canonical; a method is
// compared byte for byte. The caller must heed [Match.Admits].
//
// Of all rules that cover host, method and path, the most specific is the one with the most specific host (a whole
// host, then the longest suffix, then any); of those, the one whose path is more specific in the first segment,
// from the left, in which they differ (a literal, then {name}, then **); of those, the one that lists the method.
// Time grows with the length of path and host, not with the table.
func (t *Table) Match(host, method string, p Path) *Match {
	var buf [24]string // more segments than this cost an allocation, nothing else
	segments := p.appendSegments(buf[:0])
	r := t.find(host, method, segments)
	if r == nil {
		return nil
	}
	misread := t.misread(host, method, p, r)
	if r.fixed != nil && !misread {
		return r.fixed
	}
	return &Match{Rule: r.rule, Params: r.params(segments), misread: misread}
}

// find returns the most specific route for a path of decoded segments.
func (t *Table) find(host, method string, segments []string) *route {
	if len(segments) == 0 {
		return nil
	}
	if start, ok := t.exact[host]; ok {
		if r := t.walk(start, method, segments); r != nil {
			return r
		}
	}
	if len(t.suffix) > 0 {
		for rest := host; ; { // the longest suffix first
			_, after, ok := strings.Cut(rest, ".")
			if !ok {
				break
			}
			rest = after
			if start, ok := t.suffix[rest]; ok {
				if r := t.walk(start, method, segments); r != nil {
					return r
				}
			}
		}
	}
	return t.walk(t.anywhere, method, segments)
}

// walk follows the segments from one state to the next. There is one way at most: see builder.state.
func (t *Table) walk(at int, method string, segments []string) *route {
	if at == 0 {
		return nil
	}
	for _, segment := range segments {
		next := t.edges[edge{at, segment}]
		if next == 0 && !blank(segment) {
			next = t.states[at].wild
		}
		if next == 0 {
			return t.choices[t.states[at].below].pick(method)
		}
		at = next
	}
	return t.choices[t.states[at].here].pick(method)
}

// blank reports whether a decoded segment is empty to servers that drop path parameters. No {name} stands for it:
// /orders/;x is /orders/ to them.
func blank(segment string) bool { return segment == "" || segment[0] == ';' }
