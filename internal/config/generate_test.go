package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGenerated holds the schema and the manual to the types. Run with -update after a change to these.
func TestGenerated(t *testing.T) {
	c := readComments(t)
	schema := c.schemaFile(reflect.TypeFor[Config](), "extauthz configuration",
		"The configuration file of extauthz. docs/config.md explains every key; `extauthz config check FILE` also checks what a schema cannot say.")
	profiles := c.schemaFile(reflect.TypeFor[ProfileFile](), "cognitoctl configuration",
		"The configuration file of cognitoctl. docs/callers.md explains it; `cognitoctl config check` also checks what a schema cannot say.")
	for file, want := range map[string][]byte{
		"extauthz.schema.json":              schema,
		"../../docs/extauthz.schema.json":   schema,
		"../../docs/config.md":              c.manual(t),
		"cognitoctl.schema.json":            profiles,
		"../../docs/cognitoctl.schema.json": profiles,
		"../../docs/profiles.md":            c.profileManual(),
	} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(readFile(t, file), string(want)); diff != "" {
			t.Errorf("%s is not what the types say (run go test -update; - file, + types):\n%s", file, diff)
		}
	}
}

// TestComments holds that every key is explained.
func TestComments(t *testing.T) {
	c := readComments(t)
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Map, reflect.Slice:
			walk(typ.Elem())
		case reflect.Struct:
			for _, f := range fieldsOf(typ) {
				if text := c[typ.Name()+"."+f.name]; !strings.HasSuffix(text, ".") && !strings.HasSuffix(text, ".)") {
					t.Errorf("%s.%s has the comment %q, want a sentence", typ.Name(), f.name, text)
				}
				walk(typ.Field(f.index).Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
	walk(reflect.TypeFor[ProfileFile]())
}

// comments are those of the types and fields of config.go and profiles.go, by "Type" and "Type.Field", on one line each.
type comments map[string]string

func readComments(t *testing.T) comments {
	t.Helper()
	c := make(comments)
	for _, name := range []string{"config.go", "profiles.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		c.read(file)
	}
	return c
}

func (c comments) read(file *ast.File) {
	oneLine := func(g *ast.CommentGroup) string { return strings.Join(strings.Fields(g.Text()), " ") }
	ast.Inspect(file, func(n ast.Node) bool {
		decl, ok := n.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			return true
		}
		for _, spec := range decl.Specs {
			typ := spec.(*ast.TypeSpec)
			c[typ.Name.Name] = oneLine(decl.Doc)
			if s, ok := typ.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					for _, name := range f.Names {
						c[typ.Name.Name+"."+name.Name] = oneLine(f.Doc)
					}
				}
			}
		}
		return false
	})
}

// object is a JSON object; encoding/json writes its members in order of their names.
type object = map[string]any

func (c comments) schemaFile(file reflect.Type, title, description string) []byte {
	s := c.schema(file, field{}, "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"], s["description"] = title, description
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// choices are what a schema can say of keys that exclude or need each other.
var choices = map[string]object{
	"Pool": {"allOf": []any{
		object{"oneOf": []any{needs("region", "userPoolId"), needs("issuer")}},
		object{"anyOf": []any{needs("clients"), needs("anyClient")}},
	}},
	"Config": {"anyOf": []any{
		needs("routes"),
		// Only this dialect does without routes. {} lets everything else through.
		object{"required": []string{"policy"}, "properties": object{"policy": object{
			"required": []string{"dialect"}, "properties": object{"dialect": object{"enum": []string{DialectOPAEnvoy}}}, "additionalProperties": object{},
		}}, "additionalProperties": object{}},
	}},
	"Route": {"anyOf": []any{needs("scopes"), needs("clients"), needs("anyClient"), needs("public")}},
}

func needs(keys ...string) object { return object{"required": keys} }

func (c comments) schema(t reflect.Type, f field, name string) object {
	s := make(object)
	if text := c[name]; text != "" {
		s["description"] = text
	}
	if t == opaqueType {
		s["type"] = "object"
		return s
	}
	switch t.Kind() {
	case reflect.Struct:
		properties := make(object)
		var required []string
		for _, f := range fieldsOf(t) {
			properties[f.key] = c.schema(t.Field(f.index).Type, f, t.Name()+"."+f.name)
			if f.required {
				required = append(required, f.key)
			}
		}
		s["type"], s["properties"], s["additionalProperties"] = "object", properties, false
		if required != nil {
			s["required"] = required
		}
		for key, value := range choices[t.Name()] {
			s[key] = value
		}
	case reflect.Map:
		s["type"] = "object"
		s["additionalProperties"] = c.schema(t.Elem(), f.item(), t.Elem().Name())
		s["propertyNames"] = object{"pattern": formats[f.keys].pattern.String()}
		if f.min != "" {
			s["minProperties"], _ = strconv.Atoi(f.min)
		}
	case reflect.Slice:
		s["type"], s["items"] = "array", c.schema(t.Elem(), f.item(), t.Elem().Name())
		if t.Elem().Kind() == reflect.String {
			s["uniqueItems"] = true
		}
		if f.min != "" {
			s["minItems"], _ = strconv.Atoi(f.min)
		}
		if f.def != nil {
			s["default"] = strings.Split(*f.def, ",")
		}
	default:
		scalarSchema(s, t, f)
	}
	return s
}

func scalarSchema(s object, t reflect.Type, f field) {
	if f.def != nil {
		s["default"] = *f.def
	}
	switch {
	case t == durationType:
		s["type"], s["pattern"] = "string", durationPattern
		return
	case t.Kind() == reflect.Bool:
		s["type"] = "boolean"
	case t.Kind() == reflect.Int:
		s["type"] = "integer"
	case t.Kind() == reflect.Float64:
		s["type"] = "number"
	default:
		s["type"] = "string"
		p := formats[f.format].pattern
		switch {
		case len(f.enum) > 0:
			s["enum"] = f.enum
		case p != nil && (f.optional() || f.empty != ""):
			s["pattern"] = "^$|" + p.String()
		case p != nil:
			s["pattern"] = p.String()
		case !f.optional() && f.empty == "":
			s["minLength"] = 1
		}
		return
	}
	for key, text := range map[string]string{"default": "", "minimum": f.min, "maximum": f.max} {
		if key == "default" && f.def != nil {
			text = *f.def
		}
		if text != "" {
			s[key] = json.RawMessage(text)
		}
	}
}

// manual returns docs/config.md.
func (c comments) manual(t *testing.T) []byte {
	t.Helper()
	var b strings.Builder
	b.WriteString(strings.Replace(manualHead, "{{problems}}", problemsOf(t, manualMistakes), 1))
	vars := make(map[string]variable)
	addVariables(vars, reflect.ValueOf(new(Config)).Elem(), "", strings.TrimSuffix(variablePrefix, "__"))
	names := make(map[string]string)
	for name, v := range vars {
		if v.whole == "" {
			names[v.key] = name
		}
	}
	var top []field
	for _, f := range fieldsOf(reflect.TypeFor[Config]()) {
		typ := reflect.TypeFor[Config]().Field(f.index).Type
		if kindName(typ, f) == "" {
			c.section(&b, typ, "Config", f, f.key, names, 2)
		} else {
			top = append(top, f)
		}
	}
	for _, f := range top {
		fmt.Fprintf(&b, "\n## `%s`\n\n", f.key)
		c.key(&b, reflect.TypeFor[Config](), f, f.key, names)
	}
	return []byte(b.String())
}

// section writes a section and, behind it, those inside it. What is said of it is the comment of the field that
// holds it, and that of its type but for the first sentence, which is for readers of Go.
func (c comments) section(b *strings.Builder, t reflect.Type, holder string, f field, key string, names map[string]string, level int) {
	fmt.Fprintf(b, "\n%s `%s`\n\n", strings.Repeat("#", level), key)
	for t.Kind() == reflect.Map || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	_, rest, _ := strings.Cut(c[t.Name()], ". ")
	b.WriteString(strings.TrimSpace(c[holder+"."+f.name]+" "+rest) + "\n\n")
	if f.example != "" {
		example := f.key + ": " + f.example
		if !strings.HasPrefix(f.example, "{") {
			example = f.key + ":\n  " + f.example
		}
		b.WriteString("```yaml\n" + example + "\n```\n\n")
	}
	type inner struct {
		t   reflect.Type
		f   field
		key string
	}
	var sections []inner
	for _, f := range fieldsOf(t) {
		typ := t.Field(f.index).Type
		full := join(key, f.key)
		if kindName(typ, f) == "" {
			sections = append(sections, inner{typ, f, full})
		}
		c.key(b, t, f, full, names)
	}
	for _, s := range sections {
		c.section(b, s.t, t.Name(), s.f, s.key, names, level+1)
	}
}

// key writes one key.
func (c comments) key(b *strings.Builder, section reflect.Type, f field, key string, names map[string]string) {
	typ := section.Field(f.index).Type
	var facts []string
	if kind := kindName(typ, f); kind != "" {
		facts = append(facts, kind)
	} else {
		facts = append(facts, "section, see [below](#"+strings.ToLower(strings.NewReplacer(".", "", "`", "").Replace(key))+")")
	}
	if f.required {
		facts = append(facts, "required")
	}
	if f.def != nil {
		facts = append(facts, "default `"+*f.def+"`")
	}
	if f.empty != "" {
		facts = append(facts, "`\"\"` "+f.empty)
	}
	if name := names[key]; name != "" {
		facts = append(facts, "variable `"+name+"`")
	}
	fmt.Fprintf(b, "- **`%s`**: %s.<br>\n  %s\n", f.key, strings.Join(facts, ", "), c[section.Name()+"."+f.name])
}

// kindName says what to write for a key, "" for a section.
func kindName(t reflect.Type, f field) string {
	switch {
	case t == opaqueType:
		return "mapping in OPA's own format"
	case t == durationType:
		return fmt.Sprintf("duration from %s to %s", f.min, f.max)
	case t.Kind() == reflect.Struct,
		(t.Kind() == reflect.Map || t.Kind() == reflect.Slice) && t.Elem().Kind() == reflect.Struct:
		return ""
	case t.Kind() == reflect.Map:
		return "names with " + formats[f.format].noun + "s"
	case t.Kind() == reflect.Slice && len(f.enum) > 0:
		return "list of `" + strings.Join(f.enum, "`, `") + "`"
	case t.Kind() == reflect.Slice:
		return "list of " + formats[f.format].noun + "s"
	case len(f.enum) > 0:
		return "`" + strings.Join(f.enum, "`, `") + "`"
	case t.Kind() == reflect.Bool:
		return "`true`, `false`"
	case t.Kind() == reflect.Int:
		return fmt.Sprintf("whole number from %s to %s", f.min, f.max)
	case t.Kind() == reflect.Float64:
		return fmt.Sprintf("number from %s to %s", f.min, f.max)
	}
	return formats[f.format].noun
}

const manualMistakes = `pools:
  main:
    regoin: eu-west-1
    userPoolId: eu-west-1_AbCdEfGhI
    leeway: 10m
routes:
  - {path: /orders, methods: [GET], scopes: {any: [orders/read]}, clients: [batch]}
`

func problemsOf(t *testing.T, text string) string {
	t.Helper()
	_, err := Parse("extauthz.yaml", []byte(text), nil)
	if err == nil {
		t.Fatal("accepted")
	}
	return "```yaml\n" + text + "```\n\n```console\n$ extauthz config check extauthz.yaml\n" + err.Error() + "\n```"
}

const manualHead = `# Configuration

<!-- Generated from the comments and tags in internal/config/config.go: go test ./internal/config -update -->

extauthz is configured by one YAML file. Begin with [extauthz.example.yaml](extauthz.example.yaml) and check what you
write. The check also loads the files that the configuration names and compiles the policy. It needs no AWS account and
connects to nothing:

{{problems}}

It is [read again](operating.md#change-the-configuration) when it changes, while extauthz runs: whole or not at all.

The file is strict. A key that does not exist, a value of the wrong type or out of bounds, a name that nothing has, two
values that contradict each other: each is a problem, and all of them are shown at once. The service does not start
with one. Anchors, aliases, tags and more than one document are not accepted, and nothing in the file is substituted.

- **Editors** complete and check keys with [extauthz.schema.json](extauthz.schema.json). With the YAML language server,
  write ` + "`# yaml-language-server: $schema=<path or URL of extauthz.schema.json>`" + ` in the first line.
- **Durations** are a number and a unit, or several: ` + "`500ms`, `30s`, `5m`, `1h30m`" + `. Units are ns, us, ms, s, m and h.
- **Sizes** are in bytes.
- **Paths** that are relative are relative to the configuration file.
- **Secrets** do not go into this file.

## Environment variables

A variable has the name of its key: ` + "`EXTAUTHZ__`" + `, the sections separated by two underscores, and words by one, so that
` + "`EXTAUTHZ__LISTEN__GRPC`" + ` is ` + "`listen.grpc`" + ` and ` + "`EXTAUTHZ__STARTUP__KEYS_TIMEOUT`" + ` is ` + "`startup.keysTimeout`" + `. It replaces
what the file says and is checked in the same way. Each key below names its variable if it has one: lists, and
what stands under names of your own (pools, clients, claims), can only be written in the file.

A variable that begins with ` + "`EXTAUTHZ__`" + ` and belongs to no key is a problem, so a misspelt one does not go unnoticed.
Variables with a single underscore, such as the ` + "`EXTAUTHZ_PORT`" + ` that Kubernetes sets for a Service named extauthz, are
ignored.
`

// profileManual returns docs/profiles.md.
func (c comments) profileManual() []byte {
	var b strings.Builder
	b.WriteString(profileHead)
	profile := reflect.TypeFor[Profile]()
	for _, f := range fieldsOf(profile) {
		c.key(&b, profile, f, f.key, nil)
	}
	return []byte(b.String())
}

const profileHead = `# Profiles of cognitoctl

<!-- Generated from the comments and tags in internal/config/profiles.go: go test ./internal/config -update -->

The configuration file of cognitoctl holds profiles: what does not change about an app client, under a name. It is YAML,
at the place that ` + "`cognitoctl config path`" + ` prints, or where ` + "`--config`" + ` or ` + "`COGNITOCTL_CONFIG`" + ` says. [callers.md](callers.md)
shows what they are good for.

` + "```yaml" + `
default: orders
profiles:
  orders:
    domain: my-team
    userPoolId: eu-west-1_AbCdEfGhI
    clientId: 7a8b9c0d1e2f3g4h5i6j7k8
    clientSecretFile: [orders.secret]
    scopes: [orders/read]
  me:
    domain: my-team
    userPoolId: eu-west-1_AbCdEfGhI
    clientId: 3n4b5urk1ft4fl3mg5e62d9ado
    scopes: [openid, email]
` + "```" + `

- **` + "`default`" + `** is the profile that counts where none is named by ` + "`--profile`" + ` or ` + "`COGNITOCTL_PROFILE`" + `. It need not be said
  while there is only one. It is left out if a flag or a variable names another app client.
- **Each key** of a profile is also a flag, with hyphens (` + "`--client-id`" + `; lists in the singular, and repeated), and a variable,
  in upper case (` + "`COGNITOCTL_CLIENT_ID`" + `; lists with spaces between). A flag counts most, then a variable, then the profile.
- **What replaces a key** replaces what belongs to it: the secret of a profile does not go to another app client, and the keys
  of an issuer do not verify the tokens of another. ` + "`cognitoctl config show`" + ` prints what counts, and where each value is from.
- **Secrets** do not stand in the file. It says in which files or variables they are, or which command prints them.
- **The file is strict**: what is wrong with it is said at once, with its place and what would be valid (` + "`cognitoctl config check`" + `).
  [cognitoctl.schema.json](cognitoctl.schema.json) helps editors.

## The keys of a profile

`
