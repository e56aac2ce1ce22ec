package route

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNameBytes bounds a name that somebody gives: it goes into logs, traces and metadata with every request.
const maxNameBytes = 200

// check adds what is wrong with a rule to b.errs, fills in its default name, and returns the segments of its path,
// nil if they cannot be had.
func (b *builder) check(index int, r *Rule) []segment {
	fail := func(field, format string, args ...any) {
		b.errs = append(b.errs, &RuleError{Index: index, Field: field, Err: fmt.Errorf(format, args...)})
	}
	b.given = append(b.given, r.Name != "")
	segments, err := parseTemplate(r.Path, r.EncodedSlash)
	if err != nil {
		fail("path", "%w", err)
	}
	checkMethods(r.Methods, fail)
	checkHosts(r.Hosts, fail)
	checkAccess(r, fail)
	for _, list := range []struct {
		field  string
		values []string
	}{{"pools", r.Pools}, {"clients", r.Clients}} {
		if slices.Contains(list.values, "") {
			fail(list.field, "found an empty name, want names from the configuration")
		}
	}
	for _, list := range []struct {
		field, key string
		values     []string
	}{
		{"methods", "", r.Methods},
		{"hosts", "", r.Hosts},
		{"pools", "", r.Pools},
		{"scopes", "all: ", r.ScopesAll},
		{"scopes", "any: ", r.ScopesAny},
		{"clients", "", r.Clients},
	} {
		if list.values != nil && len(list.values) == 0 {
			fail(list.field, "%sfound an empty list, want at least one value, or no such key", list.key)
		}
		if twice, ok := duplicate(list.values); ok {
			fail(list.field, "%sfound %q twice, want each value once", list.key, twice)
		}
	}
	checkName(r, fail)
	return segments
}

type failFunc func(field, format string, args ...any)

func checkMethods(methods []string, fail failFunc) {
	if methods == nil {
		fail("methods", "not set, want the methods of the route, such as [GET]\nhint: every method is [\"*\"]")
	}
	for _, m := range methods {
		switch upper := strings.ToUpper(m); {
		case m == "*" && len(methods) > 1:
			fail("methods", "found \"*\" beside other methods, want it alone: it covers them")
		case m == "*":
		case !isToken(m):
			fail("methods", "found %q, want a method such as GET", m)
		case m != upper && slices.Contains(standardMethods, upper):
			fail("methods", "found %q, want %q: methods are compared byte for byte", m, upper)
		}
	}
}

// standardMethods are written in capitals by every client, so a rule for get would cover nothing.
var standardMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

// isToken is RFC 9110 section 5.6.2, without "*": there is no such method, and somebody meant all of them.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && strings.IndexByte("!#$%&'+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func checkHosts(hosts []string, fail failFunc) {
	for _, h := range hosts {
		if h == "*" {
			fail("hosts", "found \"*\", want no hosts at all for a route of every host")
			continue
		}
		suffix, wildcard := strings.CutPrefix(h, "*.")
		canonical, reason := canonicalHost(suffix)
		switch {
		case reason != "":
			fail("hosts", "found %q (%s), want a host name such as api.example.com, or *.example.com", h, reason)
		case canonical != suffix:
			fail("hosts", "found %q, want its canonical spelling %q: case, port and trailing dot do not count",
				h, strings.TrimSuffix(h, suffix)+canonical)
		case wildcard && isAddress(suffix):
			fail("hosts", "found %q, want a suffix of names: addresses have none", h)
		}
	}
}

// isAddress reports whether a canonical host is an address or the end of one. No top-level domain is a number.
func isAddress(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return host[0] == '[' || strings.Trim(last, "0123456789") == ""
}

// checkAccess holds that a rule says in exactly one way who may call. Nothing said must never mean nothing checked.
func checkAccess(r *Rule, fail failFunc) {
	scopes := r.ScopesAll != nil || r.ScopesAny != nil
	switch {
	case r.Public:
		for _, other := range []struct {
			field string
			set   bool
		}{
			{"pools", r.Pools != nil},
			{"scopes", scopes},
			{"clients", r.Clients != nil},
			{"anyClient", r.AnyClient},
		} {
			if other.set {
				fail(other.field, "found beside public: true, want one of them: a public route looks at no token")
			}
		}
	case r.AnyClient && scopes:
		fail("anyClient", "found true beside scopes, want one of them\nhint: scopes alone admit any client that has them")
	case r.AnyClient && r.Clients != nil:
		fail("anyClient", "found true beside clients, want one of them")
	case !r.AnyClient && !scopes && r.Clients == nil:
		fail("scopes", "nothing says who may call, want scopes, clients, anyClient: true or public: true")
	}
	for _, scope := range slices.Concat(r.ScopesAll, r.ScopesAny) {
		if !isScope(scope) {
			fail("scopes", "found %q, want a scope such as orders/read: no white space, quotes or backslashes", scope)
		}
	}
	for _, scope := range r.ScopesAny {
		if slices.Contains(r.ScopesAll, scope) {
			fail("scopes", "found %q in both all and any, want it in one: all makes any of no effect", scope)
		}
	}
}

// isScope is scope-token of RFC 6749 section 3.3.
func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return false
		}
	}
	return s != ""
}

// checkName checks a name that was given, and makes one otherwise.
func checkName(r *Rule, fail failFunc) {
	switch {
	case r.Name == "":
		r.Name = strings.Join(r.Methods, ",") + " " + r.Path
		if len(r.Hosts) > 0 {
			r.Name = strings.Join(r.Hosts, ",") + " " + r.Name
		}
	case len(r.Name) > maxNameBytes:
		fail("name", "found %d bytes, want at most %d", len(r.Name), maxNameBytes)
	case !utf8.ValidString(r.Name), strings.ContainsFunc(r.Name, func(c rune) bool { return !unicode.IsPrint(c) }):
		fail("name", "found %q, want printable characters", r.Name)
	case strings.TrimSpace(r.Name) != r.Name:
		fail("name", "found %q, want no space before or after it", r.Name)
	}
}

// checkNames holds that names are unique. Rules whose default names are equal are left to build, which says that
// they tie.
func (b *builder) checkNames() {
	first := make(map[string]int)
	for i, r := range b.table.rules {
		j, taken := first[r.Name]
		switch {
		case !taken:
			first[r.Name] = i
		case b.given[i] || b.given[j]:
			b.errs = append(b.errs, &RuleError{
				Index: i, Field: "name",
				Err: fmt.Errorf("found %q, which is also the name of routes[%d], want another", r.Name, j),
			})
		}
	}
}

func duplicate(values []string) (string, bool) {
	seen := make(map[string]bool, len(values))
	for _, v := range values {
		if seen[v] {
			return v, true
		}
		seen[v] = true
	}
	return "", false
}
