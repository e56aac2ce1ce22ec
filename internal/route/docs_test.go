package route

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the generated parts of docs/paths.md")

const docsFile = "../../docs/paths.md"

// TestDocs holds that the tables and examples of docs/paths.md are those of testdata, which the other tests hold the
// package to.
func TestDocs(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	was := string(data)
	is := was
	paths := readJSON[[]pathCase](t, "paths.json")
	hosts := readJSON[[]hostCase](t, "hosts.json")
	is = replacePart(t, is, "paths accepted", acceptedPaths(paths))
	is = replacePart(t, is, "paths refused", refusedPaths(t, paths))
	is = replacePart(t, is, "hosts accepted", acceptedHosts(hosts))
	is = replacePart(t, is, "hosts refused", refusedHosts(hosts))
	for _, c := range readJSON[[]tableCase](t, "routes.json") {
		is = replacePart(t, is, c.Title+" config", exampleConfig(&c))
		is = replacePart(t, is, c.Title+" requests", exampleRequests(&c))
	}
	if was == is {
		return
	}
	if !*update {
		t.Fatalf("docs/paths.md is not what testdata says (-file +testdata); run go test ./internal/route -update\n%s", gocmp.Diff(was, is))
	}
	if err := os.WriteFile(docsFile, []byte(is), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replacePart puts text between the two comments that name a generated part.
func replacePart(t *testing.T, doc, name, text string) string {
	t.Helper()
	begin := "<!-- generated: " + name + " -->\n"
	before, rest, ok1 := strings.Cut(doc, begin)
	_, after, ok2 := strings.Cut(rest, "<!-- end -->\n")
	if !ok1 || !ok2 {
		t.Fatalf("docs/paths.md has no part %q", name)
	}
	return before + begin + text + "<!-- end -->\n" + after
}

func acceptedPaths(cases []pathCase) string {
	var rows [][]string
	for _, c := range cases {
		if c.Refused == "" {
			why := c.Why
			if c.Only != "" {
				why = strings.TrimSuffix("only with `"+strings.ReplaceAll(c.Only, ", ", ": allow` and `")+": allow`; "+why, "; ")
			}
			rows = append(rows, []string{code(c.Path), code(c.Canonical), why})
		}
	}
	return markdownTable([]string{"Sent", "Canonical", ""}, rows)
}

func refusedPaths(t *testing.T, cases []pathCase) string {
	var rows [][]string
	for _, c := range cases {
		if c.Refused != "" {
			rows = addRefused(rows, c.Refused, code(c.raw(t)), c.Why)
		}
	}
	return markdownTable([]string{"Refused as", "Sent", "Why"}, rows)
}

func acceptedHosts(cases []hostCase) string {
	var rows [][]string
	for _, c := range cases {
		if c.Refused == "" {
			rows = append(rows, []string{code(c.Host), code(c.Canonical), c.Why})
		}
	}
	return markdownTable([]string{"Sent", "Canonical", ""}, rows)
}

func refusedHosts(cases []hostCase) string {
	var rows [][]string
	for _, c := range cases {
		if c.Refused != "" {
			rows = addRefused(rows, c.Refused, code(cmp.Or(c.Show, c.Host)), c.Why)
		}
	}
	return markdownTable([]string{"Refused as", "Sent", "Why"}, rows)
}

// addRefused adds a row, or, to save some, a further example to the last one if it adds nothing to the reason.
func addRefused(rows [][]string, reason, sent, why string) [][]string {
	if n := len(rows); n > 0 && rows[n-1][0] == reason && why == "" {
		rows[n-1][1] += " " + sent
		return rows
	}
	return append(rows, []string{reason, sent, why})
}

func exampleConfig(c *tableCase) string {
	var b strings.Builder
	b.WriteString("```yaml\nroutes:\n")
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "  - {%s}\n", strings.Join(r.yaml(), ", "))
	}
	b.WriteString("```\n")
	return b.String()
}

func (c *ruleCase) yaml() []string {
	var keys []string
	add := func(key, value string) { keys = append(keys, key+": "+value) }
	if c.Hosts != nil {
		add("hosts", yamlList(c.Hosts))
	}
	add("methods", yamlList(c.Methods))
	add("path", yamlString(c.Path))
	if c.Scopes.All != nil {
		add("scopes", "{all: "+yamlList(c.Scopes.All)+"}")
	}
	if c.Scopes.Any != nil {
		add("scopes", "{any: "+yamlList(c.Scopes.Any)+"}")
	}
	if c.Clients != nil {
		add("clients", yamlList(c.Clients))
	}
	if c.AnyClient {
		add("anyClient", "true")
	}
	if c.Public {
		add("public", "true")
	}
	if c.EncodedSlash != "" {
		add("encodedSlash", c.EncodedSlash)
	}
	if c.PathParameters != "" {
		add("pathParameters", c.PathParameters)
	}
	return keys
}

func yamlList(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = yamlString(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func yamlString(s string) string {
	if strings.ContainsAny(s, "*{}") {
		return `"` + s + `"`
	}
	return s
}

func exampleRequests(c *tableCase) string {
	var rows [][]string
	for _, r := range c.Requests {
		result := "no route"
		switch {
		case r.Refused != "":
			result = "400: " + r.Refused
		case r.Route != "":
			result = code(r.Route)
		}
		var params []string
		for _, name := range slices.Sorted(maps.Keys(r.Params)) {
			if r.Params[name] == "" {
				params = append(params, code(name)+" empty")
				continue
			}
			params = append(params, code(name+" = "+r.Params[name]))
		}
		rows = append(rows, []string{code(r.Method + " " + r.Host + r.Path), result, strings.Join(params, " "), r.Why})
	}
	return markdownTable([]string{"Request", "Route", "Values", ""}, rows)
}

func markdownTable(head []string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat(" --- |", len(head)))
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// code is a code span, with what cannot be seen as <hex>.
func code(s string) string {
	if s == "" {
		return "(nothing)"
	}
	var b strings.Builder
	for i, c := range s {
		switch {
		case c == '\uFFFD':
			fmt.Fprintf(&b, "<%02X>", s[i])
		case c < ' ' || c >= 0x7f && c < 0xa0:
			fmt.Fprintf(&b, "<U+%04X>", c)
		case c == '|':
			b.WriteString(`\|`) // a table cell ends at any other, code or not
		default:
			b.WriteRune(c)
		}
	}
	text := b.String()
	if strings.Contains(text, "`") {
		return "`` " + text + " ``"
	}
	if strings.HasPrefix(text, " ") || strings.HasSuffix(text, " ") {
		return "`" + strings.ReplaceAll(text, " ", "␠") + "`"
	}
	return "`" + text + "`"
}
