package config

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A decoder fills a [Config] from YAML nodes and environment variables and gathers problems. It goes on after each
// one, and remembers where it saw which key, so that later checks can point there.
type decoder struct {
	file     string
	least    string // what a file has at least
	begin    string // a hint for who has nothing
	problems []Problem
	places   map[string]place // of every key that was given, by full key
	missing  []func()         // report keys that one dialect of the policy needs; which one it is, is not known before the end
	bad      map[string]bool  // full keys that have a problem, so that none is reported for what follows from it

	homes map[string][]string             // for each key the sections that have it
	other func(key string) (hint string)  // a hint for a key that no section has; nil: none
	brief bool                            // whether a misspelt key does not bring a list of all
	hides func(line string) (hidden bool) // reports whether a line that is no YAML must not be shown; nil: none
}

// A place is where a value came from: a position in the file, or an environment variable.
type place struct {
	line, column int
	variable     string
}

func newDecoder(file string) *decoder {
	return &decoder{
		file: file, places: make(map[string]place), bad: make(map[string]bool),
		least: "pools and routes", begin: "begin with docs/extauthz.example.yaml",
	}
}

// decode fills what into points to, a struct for the whole file.
func (d *decoder) decode(root *yaml.Node, into any) {
	d.places[""] = at(root)
	v := reflect.ValueOf(into).Elem()
	d.homes = homesOf(v.Type())
	setDefaults(v)
	d.value(root, v, field{}, "")
}

func (d *decoder) error() *Error { return &Error{Problems: inOrder(d.problems)} }

// report adds a problem and marks its key as bad.
func (d *decoder) report(p place, key, message, hint string) {
	if key != "" {
		d.bad[key] = true
	}
	problem := Problem{Key: key, Message: visible(message), Hint: visible(hint)}
	if problem.Variable = p.variable; p.variable == "" {
		problem.File, problem.Line, problem.Column = d.file, p.line, p.column
	}
	d.problems = append(d.problems, problem)
}

// variables returns which keys came from which environment variable.
func (d *decoder) variables() map[string]string {
	sources := make(map[string]string)
	for key, p := range d.places {
		if p.variable != "" {
			sources[key] = p.variable
		}
	}
	return sources
}

func at(n *yaml.Node) place { return place{line: n.Line, column: n.Column} }

// join returns the full key of a member of a section or mapping, itemOf that of an item of a list.
func join(key, member string) string {
	if !simpleKey.MatchString(member) {
		member = quote(member)
	}
	if key == "" {
		return member
	}
	return key + "." + member
}

func itemOf(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }

// simpleKey is a member that is written as it is. Others are quoted, those with a dot too, so that no two full keys
// look alike.
var simpleKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)

// parent returns the full key of what a key is a member or an item of.
func parent(key string) string {
	return key[:max(0, strings.LastIndexAny(key, ".["))]
}

// value decodes a node into v, which the field f describes.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f field, key string) {
	if f.secret {
		defer d.hide(len(d.problems), f, v.Type(), hintBrackets(n, v.Type(), f))
	}
	if d.unusual(n, key) {
		return
	}
	if v.Type() == opaqueType {
		d.opaque(n, v, f, key)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.section(n, v, f, key)
	case reflect.Map:
		d.mapping(n, v, f, key)
	case reflect.Slice:
		d.list(n, v, f, key)
	default:
		d.scalar(n, v, f, key)
	}
}

// hide takes what a secret is out of the problems from the nth on. What is wrong with it may be told, and hint says
// nothing of it.
func (d *decoder) hide(n int, f field, t reflect.Type, hint string) {
	const found = "found a value that is not valid (it is a secret and not shown), want "
	for i := range d.problems[n:] {
		p := &d.problems[n+i]
		if !strings.HasPrefix(p.Message, found) { // that of an item of a list is hidden already
			p.Message, p.Hint = found+f.want(t), hint
		}
	}
}

// unusual refuses what YAML has for more than plain data. None of it is needed here, and each makes a file read
// differently from what it does.
func (d *decoder) unusual(n *yaml.Node, key string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		d.report(at(n), key, "found the alias "+quote("*"+n.Value)+", want the value itself",
			"write the value out; if the * is text, quote it")
	case n.Anchor != "":
		d.report(at(n), key, "found the anchor "+quote("&"+n.Anchor)+", want a value without one",
			"remove the anchor; if the & is text, quote it")
	case n.Style&yaml.TaggedStyle != 0:
		d.report(at(n), key, "found the tag "+quote(n.Tag)+", want a value without one",
			"for text, quote the value; if the ! is text, quote it")
	default:
		return false
	}
	return true
}

// section decodes a mapping with fixed keys.
func (d *decoder) section(n *yaml.Node, v reflect.Value, f field, key string) {
	fields := fieldsOf(v.Type())
	keys := make([]string, len(fields))
	byKey := make(map[string]field)
	for i, f := range fields {
		keys[i], byKey[f.key] = f.key, f
	}
	if n.Kind != yaml.MappingNode {
		d.report(at(n), key, "found "+found(n)+", want "+wantSection(keys), hintSection(n, f, keys))
		return
	}
	given := make(map[string]bool)
	for name, pair := range d.members(n, key) {
		given[name] = true
		f, ok := byKey[name]
		if !ok {
			d.unknownKey(pair.name, key, keys)
			continue
		}
		full := join(key, name)
		d.places[full] = at(pair.value)
		if pair.value.Kind != yaml.ScalarNode {
			d.places[full] = at(pair.name)
		}
		d.value(pair.value, v.Field(f.index), f, full)
	}
	for _, f := range fields {
		full := join(key, f.key)
		if given[f.key] || d.bad[full] {
			continue
		}
		missing := func() {
			d.report(d.places[key], full, "missing, want "+f.want(v.Field(f.index).Type()), f.hintExample())
		}
		switch {
		case f.required:
			missing()
		case f.unlessDialect:
			d.missing = append(d.missing, missing)
		}
	}
}

func wantSection(keys []string) string {
	if len(keys) == 1 {
		return "a section with the key " + keys[0]
	}
	return "a section with any of the keys " + strings.Join(keys, ", ")
}

// A pair is a member of a YAML mapping.
type pair struct{ name, value *yaml.Node }

// members returns the members of a mapping by name, in order, without those that cannot be used.
func (d *decoder) members(n *yaml.Node, key string) iter.Seq2[string, pair] {
	return func(yield func(string, pair) bool) {
		first := make(map[string]int)
		for i := 0; i+1 < len(n.Content); i += 2 {
			p := pair{n.Content[i], n.Content[i+1]}
			if !d.memberName(p.name, key) {
				continue
			}
			name := p.name.Value
			if line, twice := first[name]; twice {
				d.report(at(p.name), join(key, name), fmt.Sprintf("found the key a second time, the first is on line %d; want it once", line), "")
				continue
			}
			first[name] = p.name.Line
			if !yield(name, p) {
				return
			}
		}
	}
}

func (d *decoder) memberName(n *yaml.Node, key string) bool {
	switch {
	case n.Tag == "!!merge" && n.Kind == yaml.ScalarNode:
		d.report(at(n), key, "found a merge key (<<), want the keys themselves", "write the merged keys out")
	case d.unusual(n, key):
	case n.Kind != yaml.ScalarNode:
		d.report(at(n), key, "found "+found(n)+" where a key belongs", "in YAML { begins a mapping and [ a list; quote them where they are text")
	case n.Tag != "!!str":
		d.report(at(n), join(key, n.Value), "found "+found(n)+" as a key, want text", "quote it: "+strconv.Quote(shorten(n.Value)))
	default:
		return true
	}
	return false
}

func (d *decoder) unknownKey(n *yaml.Node, key string, valid []string) {
	hint, meant := "", false
	if near := nearest(n.Value, valid); near != "" {
		hint, meant = "did you mean "+near+"?", true
		d.bad[join(key, near)] = true // it is not missing, only misspelt
	} else if homes := d.homes[n.Value]; len(homes) > 0 {
		hint = "it belongs to " + oneOf(homes) + "; check the indentation"
	} else if d.other != nil {
		hint = d.other(n.Value)
	}
	message := "unknown key"
	if !meant || !d.brief {
		message += ", want one of " + strings.Join(valid, ", ")
	}
	d.report(at(n), join(key, n.Value), message, hint)
}

// mapping decodes a mapping whose keys are the user's names.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, f field, key string) {
	if n.Kind != yaml.MappingNode {
		d.report(at(n), key, "found "+found(n)+", want "+f.want(v.Type()), cmp.Or(hintEmptySection(n), f.hintExample()))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for name, pair := range d.members(n, key) {
		full := join(key, name)
		d.places[full] = at(pair.name)
		if !isValid(f.keys, name) {
			d.report(at(pair.name), full, fmt.Sprintf("found the name %s, want %s", quote(name), formats[f.keys].want), hintFormat(f.keys, name))
		}
		item := reflect.New(v.Type().Elem()).Elem()
		setDefaults(item)
		d.value(pair.value, item, f.item(), full)
		v.SetMapIndex(reflect.ValueOf(name), item)
	}
	d.enough(n, v.Len(), f, v.Type(), key)
}

// list decodes a list of sections, or of distinct scalars.
func (d *decoder) list(n *yaml.Node, v reflect.Value, f field, key string) {
	if n.Kind != yaml.SequenceNode {
		d.report(at(n), key, "found "+found(n)+", want "+f.want(v.Type()), hintList(n, v.Type(), f))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	first := make(map[any]int)
	for i, node := range n.Content {
		full := itemOf(key, i)
		item := v.Index(i)
		d.places[full] = at(node)
		setDefaults(item)
		d.value(node, item, f.item(), full)
		if !item.Comparable() || d.bad[full] {
			continue
		}
		if line, twice := first[item.Interface()]; twice {
			d.report(at(node), full, fmt.Sprintf("found %s a second time, the first is on line %d; want it once", found(node), line), "")
			continue
		}
		first[item.Interface()] = node.Line
	}
	d.enough(n, v.Len(), f, v.Type(), key)
}

// enough checks the least length of a list or mapping.
func (d *decoder) enough(n *yaml.Node, length int, f field, t reflect.Type, key string) {
	if least, err := strconv.Atoi(f.min); err == nil && length < least {
		d.report(at(n), key, "found "+found(n)+", want "+f.want(t), f.hintExample())
	}
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, f field, key string) {
	kind := kindOf(v.Type())
	isTime := f.format == "time" && n.Tag == "!!timestamp"
	if n.Kind != yaml.ScalarNode || !slices.Contains(kind.tags, n.Tag) && !isTime {
		d.report(at(n), key, "found "+found(n)+", want "+f.want(v.Type()), kind.hintType(n, f))
		return
	}
	if message, hint := set(v, f, n.Value); message != "" {
		d.report(at(n), key, message, hint)
	}
}

// set stores a scalar that is written as text. If it cannot, it returns what was found and wanted, and a hint.
// The file and the environment come together here, so that both take and refuse the same.
func set(v reflect.Value, f field, text string) (message, hint string) {
	return kindOf(v.Type()).set(v, f, text)
}

// A kind is a type of scalar.
type kind struct {
	tags     []string                                                           // the YAML types it is written as
	set      func(v reflect.Value, f field, text string) (message, hint string) // see [set]
	hintType func(n *yaml.Node, f field) string                                 // a remedy for a value of another YAML type
}

var durationType = reflect.TypeFor[time.Duration]()

func kindOf(t reflect.Type) kind {
	switch {
	case t == durationType:
		return kind{[]string{"!!str"}, setDuration, hintDurationType}
	case t.Kind() == reflect.String:
		return kind{[]string{"!!str"}, setText, hintTextType}
	case t.Kind() == reflect.Bool:
		return kind{[]string{"!!bool"}, setBool, hintBoolType}
	case t.Kind() == reflect.Int:
		return kind{[]string{"!!int"}, setInt, hintNumberType}
	case t.Kind() == reflect.Float64:
		return kind{[]string{"!!int", "!!float"}, setFloat, hintNumberType}
	}
	panic("config: no decoder for " + t.String()) // a field of a type that nobody wrote a case for
}

func setText(v reflect.Value, f field, text string) (message, hint string) {
	form := formats[f.format]
	if form.fold {
		text = strings.ToLower(text)
	}
	switch {
	case text == "" && (f.empty != "" || f.optional()):
		v.SetString("")
		return "", ""
	case text == "":
		return "found empty text, want " + f.want(v.Type()), f.hintDefault()
	case !utf8.ValidString(text):
		return "found text that is not UTF-8, want " + f.want(v.Type()), ""
	case strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Sprintf("found %s with a control character, want %s", quote(text), f.want(v.Type())), hintControl(text)
	case strings.TrimSpace(text) != text:
		return fmt.Sprintf("found %s with white space at an end, want %s", quote(text), f.want(v.Type())), ""
	case len(f.enum) > 0 && !slices.Contains(f.enum, text):
		return fmt.Sprintf("found %s, want %s", quote(text), oneOf(f.enum)), hintEnum(text, f.enum)
	}
	if !isValid(f.format, text) {
		return "found " + quote(text) + ", want " + form.want, hintFormat(f.format, text)
	}
	v.SetString(text)
	return "", ""
}

func setBool(v reflect.Value, f field, text string) (message, hint string) {
	switch strings.ToLower(text) {
	case "true":
		v.SetBool(true)
	case "false":
		v.SetBool(false)
	default:
		return "found " + quote(text) + ", want true or false", hintBool(text)
	}
	return "", ""
}

// decimal is the one way to write a number. YAML's others are traps: 010 is eight, 1_0 is ten.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

func setInt(v reflect.Value, f field, text string) (message, hint string) {
	i, err := strconv.Atoi(text)
	if err != nil || !decimal.MatchString(text) {
		return "found " + quote(text) + ", want " + f.want(v.Type()), hintNumber(text)
	}
	if i < f.bound(f.min) || i > f.bound(f.max) {
		return fmt.Sprintf("found %d, want %s", i, f.want(v.Type())), ""
	}
	v.SetInt(int64(i))
	return "", ""
}

func setFloat(v reflect.Value, f field, text string) (message, hint string) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !decimal.MatchString(text) {
		return "found " + quote(text) + ", want " + f.want(v.Type()), hintNumber(text)
	}
	least, _ := strconv.ParseFloat(f.min, 64)
	most, _ := strconv.ParseFloat(f.max, 64)
	if x < least || x > most {
		return "found " + shorten(text) + ", want " + f.want(v.Type()), ""
	}
	v.SetFloat(math.Abs(x)) // no negative zero
	return "", ""
}

// durationPattern is narrower than [time.ParseDuration], so that the JSON Schema can have it too.
const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`

var durationText = regexp.MustCompile(durationPattern)

func setDuration(v reflect.Value, f field, text string) (message, hint string) {
	t, err := time.ParseDuration(text)
	if err != nil || !durationText.MatchString(text) {
		return "found " + quote(text) + ", want " + f.want(v.Type()), hintDuration(text)
	}
	least, most := duration(f.min), duration(f.max)
	if t < least || t > most {
		return "found " + shorten(text) + ", want " + f.want(v.Type()), ""
	}
	v.SetInt(int64(t))
	return "", ""
}

func duration(text string) time.Duration {
	t, err := time.ParseDuration(text)
	if err != nil {
		panic("config: a field tag has the duration " + text)
	}
	return t
}

// setDefaults fills v with what its tags say.
func setDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	for _, f := range fieldsOf(v.Type()) {
		member := v.Field(f.index)
		switch {
		case member.Kind() == reflect.Struct:
			setDefaults(member)
		case f.def == nil:
		case member.Kind() == reflect.Slice:
			member.Set(reflect.ValueOf(strings.Split(*f.def, ",")))
		default:
			if message, _ := set(member, f, *f.def); message != "" {
				panic("config: default of " + f.key + ": " + message) // a field tag that contradicts itself
			}
		}
	}
}

// A field is what the tags of a struct field say; see the package comment.
type field struct {
	index            int
	name             string // of the struct field, for the manual
	key              string
	def              *string
	required, secret bool
	redacted         bool // a secret that is not rendered either
	unlessDialect    bool // required in our own dialect
	enum             []string
	format, keys     string
	min, max         string
	empty, example   string
}

// fieldsOf returns the fields that the configuration file can set, in the order of the struct.
func fieldsOf(t reflect.Type) []field {
	if known, ok := fieldCache.Load(t); ok {
		return known.([]field)
	}
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		key, ok := sf.Tag.Lookup("yaml")
		if !ok {
			continue
		}
		f := field{index: i, name: sf.Name, key: key}
		if def, ok := sf.Tag.Lookup("default"); ok {
			f.def = &def
		}
		f.required, f.secret, f.redacted = sf.Tag.Get("required") == "true", sf.Tag.Get("secret") != "", sf.Tag.Get("secret") == "true"
		f.unlessDialect = sf.Tag.Get("required") == "dialect"
		if enum := sf.Tag.Get("enum"); enum != "" {
			f.enum = strings.Split(enum, "|")
		}
		f.format, f.keys = sf.Tag.Get("format"), sf.Tag.Get("keys")
		f.min, f.max = sf.Tag.Get("min"), sf.Tag.Get("max")
		f.empty, f.example = sf.Tag.Get("empty"), sf.Tag.Get("example")
		fields = append(fields, f)
	}
	fieldCache.Store(t, fields)
	return fields
}

var fieldCache sync.Map // of []field, by reflect.Type

// item returns what holds for each item of a list, or value of a mapping.
func (f field) item() field {
	item := field{key: f.key, required: true, secret: f.secret, redacted: f.redacted, enum: f.enum, format: f.format}
	if example, ok := strings.CutPrefix(f.example, "- "); ok {
		item.example = example
	}
	return item
}

// optional reports whether the empty text means that the key is not there.
func (f field) optional() bool { return f.def == nil && !f.required }

func (f field) bound(text string) int {
	i, err := strconv.Atoi(text)
	if err != nil {
		panic("config: a field tag has the number " + text)
	}
	return i
}

// want says what would be valid.
func (f field) want(t reflect.Type) string {
	switch {
	case t == opaqueType:
		return "a mapping, as OPA's documentation has it"
	case t == durationType:
		return fmt.Sprintf("a duration from %s to %s, such as %s", f.min, f.max, *f.def)
	case t.Kind() == reflect.Int:
		return fmt.Sprintf("a whole number from %s to %s", f.min, f.max)
	case t.Kind() == reflect.Float64:
		return fmt.Sprintf("a number from %s to %s", f.min, f.max)
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice && len(f.enum) > 0:
		return "a list with at least one of " + strings.Join(f.enum, ", ")
	case t.Kind() == reflect.Slice && f.min != "":
		return "a list with at least one " + f.noun(t)
	case t.Kind() == reflect.Slice:
		return "a list of " + f.noun(t) + "s"
	case t.Kind() == reflect.Map && f.min != "":
		return "at least one " + f.noun(t) + ", under a name"
	case t.Kind() == reflect.Map:
		return f.noun(t) + "s, each under a name"
	case t.Kind() == reflect.Struct:
		return "a section"
	case len(f.enum) > 0:
		return oneOf(f.enum)
	}
	return formats[f.format].want
}

// noun returns what a list or mapping is of, in the singular.
func (f field) noun(t reflect.Type) string {
	if t.Elem().Kind() == reflect.Struct {
		return strings.ToLower(t.Elem().Name())
	}
	return formats[f.format].noun
}

// homesOf returns for each key the sections of a file that have it. The file is a struct of the given type.
func homesOf(file reflect.Type) map[string][]string {
	homes := make(map[string][]string)
	var walk func(t reflect.Type, key string)
	walk = func(t reflect.Type, key string) {
		switch t.Kind() {
		case reflect.Map:
			walk(t.Elem(), key+".NAME")
		case reflect.Slice:
			walk(t.Elem(), "an item of "+key)
		case reflect.Struct:
			for _, f := range fieldsOf(t) {
				home := key
				if home == "" {
					home = "the top level"
				}
				homes[f.key] = append(homes[f.key], home)
				walk(t.Field(f.index).Type, strings.TrimPrefix(key+"."+f.key, "."))
			}
		}
	}
	walk(file, "")
	return homes
}

// found describes a node.
func found(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode && len(n.Content) == 0:
		return "an empty mapping"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		return "an empty list"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "no value"
	case "!!int", "!!float":
		return "the number " + shorten(n.Value)
	case "!!bool":
		return "the boolean " + n.Value
	case "!!timestamp":
		return "the date " + shorten(n.Value)
	}
	return quote(n.Value)
}

// sortedKeys returns the names of a mapping in order.
func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }
