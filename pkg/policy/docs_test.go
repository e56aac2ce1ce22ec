package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const docsDir = "../../docs"

// TestInputDocument holds docs/policy-input.md to the types: its tables are made of input.go, its example is an input.
func TestInputDocument(t *testing.T) {
	name := filepath.Join(docsDir, "policy-input.md")
	text := regenerate(t, name, inputTables(t))

	for _, block := range blocks(text) {
		if block.info != "json input" {
			continue
		}
		var doc any
		decoder := json.NewDecoder(strings.NewReader(block.text))
		decoder.UseNumber()
		if err := decoder.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		in := inputOf(t, doc)
		got, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(indent(t, []byte(block.text)), indent(t, got)); diff != "" {
			t.Errorf("the example is not what a policy sees (-document +policy):\n%s", diff)
		}
		if d, err := newEngine(t, nil).Decide(t.Context(), in); err != nil || !d.Allowed {
			t.Errorf("the example gives %+v, %v, want an allow", d, err)
		}
		return
	}
	t.Error("no example in the document")
}

// TestSchemaFile holds policies/schema/input.json to the schema that the compiler uses.
func TestSchemaFile(t *testing.T) {
	schema, err := json.MarshalIndent(inputSchema(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	compareFile(t, filepath.Join(policiesDir, "schema", "input.json"), string(schema)+"\n")
}

// TestPolicyDocument loads and runs each policy in docs/policy.md with the cases of its section.
func TestPolicyDocument(t *testing.T) {
	var table strings.Builder
	table.WriteString("| function | why |\n|---|---|\n")
	byReason := map[string][]string{}
	for name, why := range LeftOutBuiltins() {
		byReason[why] = append(byReason[why], "`"+name+"`")
	}
	for _, why := range slices.Sorted(maps.Keys(byReason)) {
		slices.Sort(byReason[why])
		fmt.Fprintf(&table, "| %s | %s |\n", strings.Join(byReason[why], ", "), why)
	}
	text := regenerate(t, filepath.Join(docsDir, "policy.md"), table.String())

	if ran := runDocument(t, text); ran != 5 {
		t.Errorf("%d sections with policies were run, want 5", ran)
	}
}

// TestPolicyExamples loads and runs each policy in docs/policy-examples.md with the cases of its section.
func TestPolicyExamples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(docsDir, "policy-examples.md"))
	if err != nil {
		t.Fatal(err)
	}
	if ran, want := runDocument(t, string(text)), strings.Count(string(text), "\n## "); ran != want {
		t.Errorf("%d sections with policies were run, want all %d", ran, want)
	}
}

// runDocument runs the policies of each section, and returns how many sections have some.
func runDocument(t *testing.T, text string) (ran int) {
	t.Helper()
	for _, section := range strings.Split(text, "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		files, tests := map[string]string{}, map[string]string{}
		var cases string
		for _, block := range blocks(section) {
			kind, name, _ := strings.Cut(block.info, " ")
			name = strings.TrimPrefix(name, "policies/")
			switch {
			case name == "cases":
				cases = block.text
			case strings.HasSuffix(name, "_test.rego"):
				tests[name] = block.text
			case name != "":
				files[name] = block.text
			case kind == "rego":
				t.Errorf("%s: a Rego block without a file name is not run", title)
			}
		}
		if len(files) == 0 {
			continue
		}
		ran++
		t.Run(title, func(t *testing.T) {
			subject := strings.ToLower(title)
			if short, ok := map[string]string{"extend the built-in policy": "extend", "replace the built-in policy": "replace"}[subject]; ok {
				subject = short
			}
			runCases(t, decodeCases(t, []byte(cases), subject), files)
			if len(tests) > 0 {
				for name, text := range files {
					if path.Ext(name) == ".rego" {
						tests[name] = text
					}
				}
				runRegoTests(t, tests)
			}
		})
	}
	return ran
}

// TestReasonsAreDocumented holds that docs/policy.md names every reason of this package.
func TestReasonsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(docsDir, "policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range []Reason{InsufficientScope, ClientNotAllowed, NoRoute, PolicyDenied, ErrUndefined, ErrTimeout, ErrOverloaded, ErrPolicy} {
		if !bytes.Contains(text, []byte("`"+reason+"`")) {
			t.Errorf("docs/policy.md does not name %s", reason)
		}
	}
}

var generatedPart = regexp.MustCompile(`(?s)(<!-- Generated [^\n]* -->\n).*(<!-- End of the generated part -->)`)

// regenerate returns the document with its generated part, and wants the file to be the same.
func regenerate(t *testing.T, name, part string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := generatedPart.ReplaceAllStringFunc(string(text), func(old string) string {
		m := generatedPart.FindStringSubmatch(old)
		return m[1] + "\n" + part + "\n" + m[2]
	})
	compareFile(t, name, want)
	return want
}

type block struct{ info, text string }

var blockPattern = regexp.MustCompile("(?ms)^```([a-z][^\n]*)\n(.*?)^```$")

// blocks are the fenced blocks of a Markdown text.
func blocks(text string) []block {
	var out []block
	for _, m := range blockPattern.FindAllStringSubmatch(text, -1) {
		out = append(out, block{strings.TrimSpace(m[1]), m[2]})
	}
	return out
}

// inputTables makes a table of each type that an Input is made of, from the comments in input.go.
func inputTables(t *testing.T) string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "input.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{} // by type and field
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			comments[spec.Name.Name+"."+f.Names[0].Name] = strings.TrimSpace(f.Doc.Text())
		}
		return false
	})

	var out strings.Builder
	var table func(path string, typ reflect.Type)
	table = func(path string, typ reflect.Type) {
		fmt.Fprintf(&out, "`%s`\n\n| field | type | |\n|---|---|---|\n", path)
		var below []func()
		for f := range typ.Fields() {
			if jsonName(f) == "-" {
				continue
			}
			comment := comments[typ.Name()+"."+f.Name]
			words := strings.SplitN(comment, " ", 3) // "Name is …" or "Name are …"
			if len(words) < 3 || words[0] != f.Name || words[1] != "is" && words[1] != "are" {
				t.Errorf("comment of %s.%s is %q, want it to start with its name, and is or are", typ.Name(), f.Name, comment)
				continue
			}
			meaning := strings.ReplaceAll(words[2], "|", `\|`)
			meaning = strings.ToUpper(meaning[:1]) + meaning[1:]
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", jsonName(f), docType(f.Type), meaning)
			if inner := structOf(f.Type); inner != nil {
				below = append(below, func() { out.WriteString("\n"); table(path+"."+jsonName(f), inner) })
			}
		}
		for _, f := range below {
			f()
		}
	}
	table("input", reflect.TypeFor[Input]())
	return out.String()
}

func structOf(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

func docType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Struct:
		return "object"
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "list of " + docType(t.Elem()) + "s"
	case reflect.Map:
		switch of := docType(t.Elem()); of {
		case "any":
			return "object"
		case "list of strings":
			return "object of lists of strings"
		default:
			return "object of " + of + "s"
		}
	}
	return "any"
}
