package route

import (
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
)

// servers are ways in which software behind Envoy is known to make the path that it routes by, from the one that was
// sent. Each is written after that software, and knows nothing of package route.
var servers = []struct {
	name string
	read func(raw string) string
}{
	{"decodes (Go, Node)", lenientDecode},
	{"cleans, then decodes (Envoy and an upstream)", func(s string) string { return lenientDecode(clean(s)) }},
	{"decodes, then cleans (nginx, WSGI)", func(s string) string { return clean(lenientDecode(s)) }},
	{"drops parameters, decodes, cleans (Tomcat)", func(s string) string { return clean(lenientDecode(withoutParameters(s))) }},
	{"decodes, drops parameters, cleans", func(s string) string { return clean(withoutParameters(lenientDecode(s))) }},
	{"cleans, then drops parameters", func(s string) string { return withoutParameters(lenientDecode(clean(s))) }},
	{"takes backslashes for slashes (IIS)", func(s string) string {
		return clean(strings.ReplaceAll(lenientDecode(s), `\`, "/"))
	}},
	{"decodes, ends at ? (Apache)", func(s string) string { return clean(endAt("?", lenientDecode(s))) }},
	{"drops parameters, decodes, ends at ?", func(s string) string {
		return clean(endAt("?", lenientDecode(withoutParameters(s))))
	}},
	{"decodes, ends at ?, drops parameters", func(s string) string {
		return clean(withoutParameters(endAt("?", lenientDecode(s))))
	}},
	{"decodes, ends at #", func(s string) string { return clean(endAt("#", lenientDecode(s))) }},
	{"ends at NUL (C)", func(s string) string { return clean(endAt("\x00", lenientDecode(s))) }},
	{"ends at a space", func(s string) string { return endAt(" ", s) }},
}

func clean(s string) string { return path.Clean("/" + s) }

func endAt(mark, s string) string {
	before, _, _ := strings.Cut(s, mark)
	return before
}

func withoutParameters(s string) string {
	segments := strings.Split(s, "/")
	for i := range segments {
		segments[i] = endAt(";", segments[i])
	}
	return strings.Join(segments, "/")
}

// strictTables have rules with literals that must hold against every reading, among others that allow all there is.
// For each, strict says without a table which paths those rules are for.
func strictTables(t testing.TB) []strictTable {
	lax := func(p string) Rule {
		return Rule{Path: p, Methods: []string{"GET"}, Public: true, EncodedSlash: true, PathParameters: true}
	}
	strict := func(p string) Rule {
		return Rule{Path: p, Methods: []string{"GET"}, ScopesAll: []string{"admin"}}
	}
	return []strictTable{
		{
			newTable(t,
				strict("/admin/**"), strict("/app/admin/**"), strict("/app/{x}/admin/**"),
				lax("/{x}"), lax("/app/{x}"), lax("/app/{x}/public"), lax("/{x}/y/**"), lax("/**"),
			),
			func(served string) bool {
				s := strings.Split(served+"//", "/")[1:]
				return s[0] == "admin" || s[0] == "app" && (s[1] == "admin" || s[1] != "" && s[2] == "admin")
			},
		},
		{
			// Without a lax ** nothing but the very path is let through, so that trailing slashes cannot help either.
			newTable(t, strict("/admin"), strict("/app/admin"), lax("/{x}"), lax("/{x}/{y}"), lax("/{x}/y/{z}")),
			func(served string) bool { return served == "/admin" || served == "/app/admin" },
		},
	}
}

type strictTable struct {
	table  *Table
	strict func(served string) bool
}

var tokens = []string{
	"/", "/", "/", "admin", "admin", "app", "app", "public", "x", "y", "%61dmin", "%2561dmin", "%252561dmin", "a%2564min", "%2525",
	"%2F", "%2f", "%252F", "%25", "2F", "61", "dmin", "%", ";", ";x", "%3B", "%3b", "%253B", ".", "..", "%2e", "%2E%2e", "%252e", "%3F",
	"%253F", "%23", "!", "!", "a!dmin", "?", "#", "%5C", `\`, " ", "%20", "%00", "%u002f", "%C0%AE", "%c3%a9",
}

func (st strictTable) check(t *testing.T, raw string) (lax bool) {
	t.Helper()
	p, err := ParsePath(raw)
	if err != nil {
		return false
	}
	m := st.table.Match("", "GET", p)
	if m.Admits(p) != nil || m == nil || !m.Rule.Public {
		return false
	}
	for _, sent := range []string{p.Raw, strings.ReplaceAll(p.Raw, "!", "")} { // a server may skip what is not UTF-8
		for _, server := range servers {
			// A second server behind the first may decode what is left.
			for served, before := server.read(sent), ""; served != before; served = server.read(served) {
				if st.strict(served) {
					t.Fatalf("%q is let through by %s, but is %q to a server that %s", raw, m.Rule.Path, served, server.name)
				}
				before = served
			}
		}
	}
	return true
}

// FuzzServers holds what this package is for: no request gets by a strict rule because a server reads its path in
// another way than the table.
func FuzzServers(f *testing.F) {
	for _, c := range readJSON[[]pathCase](f, "paths.json") {
		f.Add([]byte(nil), c.raw(f))
	}
	for i := range tokens {
		f.Add([]byte{0, byte(i), 3}, "")          // "/", a token, "admin"
		f.Add([]byte{0, 5, byte(i), 3}, "")       // "/", "app", a token, "admin"
		f.Add([]byte{0, 3, byte(i), 7, 0, 3}, "") // "/", "admin", a token, "public", "/", "admin"
	}
	tables := strictTables(f)
	f.Fuzz(func(t *testing.T, drawn []byte, rest string) {
		var raw strings.Builder
		for _, b := range drawn {
			raw.WriteString(tokens[int(b)%len(tokens)])
		}
		for _, st := range tables {
			st.check(t, raw.String()+rest)
		}
	})
}

// TestServers draws more paths than the seeds of FuzzServers are, and counts that enough of them got through to mean
// anything.
func TestServers(t *testing.T) {
	t.Parallel()
	tables := strictTables(t)
	lax := make([]int, len(tables))
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		var raw strings.Builder
		raw.WriteString("/")
		for range 1 + random.IntN(8) {
			raw.WriteString(tokens[random.IntN(len(tokens))])
		}
		for i, st := range tables {
			if st.check(t, raw.String()) {
				lax[i]++
			}
		}
	}
	if slices.Min(lax) < 1000 {
		t.Errorf("only %d paths got through, want a thousand for each table", lax)
	}
}
