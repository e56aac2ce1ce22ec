package route

import (
	"slices"
	"strings"
)

// A step is what servers are known to do with a path before they route it.
type step byte

const (
	decodeAgain    step = '%' // a proxy decodes, the service decodes again
	dropParameters step = ';' // Tomcat, Jetty, Spring
	endAtQuery     step = '?' // CVE-2024-38474 of Apache httpd; services that put a URL together again, also with "#"
	splitAtSlash   step = '/' // %2F separates: WSGI, CGI, Go's ServeMux before 1.22, nginx with a URI in proxy_pass
)

// maxReadSegments bounds the work for a path that can be read in several ways. It is several times what an honest one
// has; such a path with more is refused.
const maxReadSegments = 64

// misread reports whether some server could take a path that r matches for one of another route. Then who may call the
// one could call the other: with the routes /admin and /{page}, /%2561dmin is a page here, and /admin to a server that
// decodes twice.
func (t *Table) misread(host, method string, p Path, r *route) bool {
	steps := ambiguities(p, r.rule)
	skipped := Path{Canonical: withoutInvalid(p.Canonical)}
	if len(steps) == 0 && skipped.Canonical == p.Canonical {
		return false
	}
	if strings.Count(p.Canonical, "/")+strings.Count(p.Canonical, "%2F") > maxReadSegments {
		return true
	}
	sent := p.Segments()
	for _, read := range readings(steps, sent, skipped.Segments()) {
		read = mergeSlashes(read)
		if t.belongsElsewhere(host, method, p, r, sent, read) {
			return true
		}
		// Many servers drop a trailing slash. One that was sent is another path to us; one that only this reading
		// brings about must not be.
		if end := len(read) - 1; read[end] == "" && sent[len(sent)-1] != "" &&
			t.belongsElsewhere(host, method, p, r, sent, read[:end]) {
			return true
		}
	}
	return false
}

// belongsElsewhere reports whether a reading of the path belongs to another route than r.
func (t *Table) belongsElsewhere(host, method string, p Path, r *route, sent, read []string) bool {
	other := t.find(host, method, read)
	if other == nil || other == r {
		return false
	}
	cutAtQuery := len(read) < len(sent) && strings.Contains(p.Canonical, "%3F")
	return cutAtQuery || other.claims(sent, read)
}

// ambiguities returns the steps that change a path. What the rule does not allow is refused anyway.
func ambiguities(p Path, rule *Rule) (steps []step) {
	if p.Parameters && rule.PathParameters {
		steps = append(steps, dropParameters)
	}
	if strings.IndexByte(p.Canonical, '%') < 0 {
		return steps
	}
	if strings.Contains(p.Canonical, "%3F") || strings.Contains(p.Canonical, "%23") {
		steps = append(steps, endAtQuery)
	}
	if p.EncodedSlash && rule.EncodedSlash {
		steps = append(steps, splitAtSlash)
	}
	if strings.Contains(p.Canonical, "%25") {
		steps = append(steps, decodeAgain)
	}
	return steps
}

// readings returns paths and what they can become by these steps, in any order: a;b%2Fc is a for a server that drops
// parameters first, and a/c for one that first splits. There are few: a step changes nothing the second time, but for
// decodeAgain, which ParsePath bounds, and what it uncovers gives the others nothing to do.
func readings(steps []step, all ...[]string) [][]string {
	for i := 0; i < len(all); i++ {
		for _, s := range steps {
			read := readAs(s, all[i])
			if !slices.ContainsFunc(all, func(other []string) bool { return slices.Equal(other, read) }) {
				all = append(all, read)
			}
		}
	}
	return all
}

func readAs(by step, segments []string) []string {
	read := make([]string, 0, len(segments))
	for _, s := range segments {
		switch by {
		case decodeAgain:
			s, _ = unescape(s)
			read = append(read, s)
		case dropParameters:
			s, _, _ = strings.Cut(s, ";")
			read = append(read, s)
		case endAtQuery:
			if end := strings.IndexAny(s, "?#"); end >= 0 {
				return append(read, s[:end])
			}
			read = append(read, s)
		case splitAtSlash:
			read = append(read, strings.Split(s, "/")...)
		}
	}
	return read
}

// mergeSlashes drops empty segments, except for the last. ParsePath lets none through: they come from what was encoded.
func mergeSlashes(segments []string) []string {
	merged := make([]string, 0, len(segments))
	for i, s := range segments {
		if s != "" || i == len(segments)-1 {
			merged = append(merged, s)
		}
	}
	return merged
}

// claims reports whether a path that reads as one of r's belongs to r rather than to the route of the path as it was
// sent: r has to name, by a literal, a segment from where the two readings part, or end there. It does not suffice that
// a {segment} of r takes any text: a rule that allows encoded slashes says that /files/a%2Fb is not /files/{dir}/{name}.
func (r *route) claims(sent, read []string) bool {
	from := 0
	for from < len(sent) && from < len(read) && sent[from] == read[from] {
		from++
	}
	if from == len(read) {
		return true
	}
	for i := from; i < len(r.segments); i++ {
		if r.segments[i].kind == literal {
			return true
		}
	}
	return false
}
