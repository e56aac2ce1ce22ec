package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"sync"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// TestSchema holds that the schema accepts what Parse accepts, and refuses what a schema can tell. That it never
// refuses what Parse accepts is also fuzzed.
func TestSchema(t *testing.T) {
	t.Parallel()
	good := readFile(t, "testdata/good.yaml")
	for name, text := range map[string]string{
		"good.yaml": good,
		"minimal":   minimal,
		"example":   readFile(t, "../../docs/extauthz.example.yaml"),
		"effective": readFile(t, "testdata/good.effective.yaml"),
	} {
		if problem := schemaProblem(t, text); problem != "" {
			t.Errorf("%s: %s", name, problem)
		}
	}
	_, mistakes := parseMistakes(t, readFile(t, "testdata/mistakes.txt"))
	refused := make(map[string]bool)
	for _, m := range mistakes {
		if len(m.environ) == 0 {
			refused[m.name] = schemaProblem(t, m.change(t, good)) != ""
		}
	}
	for _, name := range []string{
		"a list at the top", "an empty mapping", "a misspelt section", "a misspelt key", "a key without value", "a section that is text",
		"a number where text belongs", "text where a list belongs", "routes as a mapping", "pools as a list", "a quoted boolean",
		"a number without unit where a duration belongs", "a duration in days", "a negative duration", "a size with a unit",
		"a fraction where a whole number belongs", "a number out of bounds", "a ratio above one", "an unfilled template",
		"an empty gRPC address", "a client without id", "a client with a placeholder", "a client's name with a space", "no pools",
		"an empty mapping of pools", "an empty list of routes", "an availability zone", "a pool id without Region",
		"an issuer beside a Region", "an unknown issuer type", "an issuer without scheme", "a pool that says nothing about clients",
		"a client twice in a list", "no token use", "two scopes in one", "a route without path", "a route without methods",
		"a route that says nothing about access", "an unknown word for encoded slashes", "a decision as a path", "a pseudo header",
		"a reason with a space", "a header prefix with an underscore", "a claim without name", "a log field without kind", "a realm with quotes",
	} {
		if r, ok := refused[name]; !ok || !r {
			t.Errorf("%s: the schema accepts it, or there is no such mistake", name)
		}
	}
}

// schemaProblem reads a file as an editor does and checks it by the schema.
func schemaProblem(tb testing.TB, text string) string {
	tb.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return "no YAML: " + err.Error()
	}
	return validate(tb, parsedSchema(), value, "")
}

var parsedSchema = sync.OnceValue(func() (s map[string]any) {
	if err := json.Unmarshal(Schema(), &s); err != nil {
		panic(err)
	}
	return s
})

var schemaPatterns sync.Map // of *regexp.Regexp, by pattern

func matches(pattern, text string) bool {
	compiled, ok := schemaPatterns.Load(pattern)
	if !ok {
		compiled, _ = schemaPatterns.LoadOrStore(pattern, regexp.MustCompile(pattern))
	}
	return compiled.(*regexp.Regexp).MatchString(text)
}

// validate is as much of JSON Schema as ours uses; another keyword fails the test.
func validate(tb testing.TB, s map[string]any, value any, key string) string {
	tb.Helper()
	for _, keyword := range slices.Sorted(maps.Keys(s)) {
		wrong := ""
		arg := s[keyword]
		switch object, _ := value.(map[string]any); keyword {
		case "$schema", "title", "description", "default":
		case "type":
			if !hasType(value, arg.(string)) {
				wrong = fmt.Sprintf("found %T", value)
			}
		case "properties", "additionalProperties":
			for name, v := range object {
				properties, _ := s["properties"].(map[string]any)
				schema, known := properties[name].(map[string]any)
				rest, open := s["additionalProperties"].(map[string]any)
				switch {
				case known:
					wrong = validate(tb, schema, v, key+"."+name)
				case open:
					wrong = validate(tb, rest, v, key+"."+name)
				default:
					wrong = "found " + name
				}
				if wrong != "" {
					break
				}
			}
		case "propertyNames":
			for name := range object {
				if wrong == "" {
					wrong = validate(tb, arg.(map[string]any), name, key+" name")
				}
			}
		case "required":
			for _, name := range arg.([]any) {
				if _, ok := object[name.(string)]; !ok {
					wrong = fmt.Sprintf("no %s", name)
				}
			}
		case "minProperties":
			if float64(len(object)) < arg.(float64) {
				wrong = "too few"
			}
		case "items", "minItems", "uniqueItems":
			wrong = validateItems(tb, keyword, arg, value, key)
		case "pattern":
			if text, ok := value.(string); ok && !matches(arg.(string), text) {
				wrong = fmt.Sprintf("found %q", text)
			}
		case "minLength":
			if text, ok := value.(string); ok && float64(utf8.RuneCountInString(text)) < arg.(float64) {
				wrong = fmt.Sprintf("found %q", text)
			}
		case "enum":
			if !slices.Contains(arg.([]any), value) {
				wrong = fmt.Sprint(value)
			}
		case "minimum":
			if x, ok := number(value); ok && x < arg.(float64) {
				wrong = fmt.Sprint(value)
			}
		case "maximum":
			if x, ok := number(value); ok && x > arg.(float64) {
				wrong = fmt.Sprint(value)
			}
		case "allOf", "anyOf", "oneOf":
			all := arg.([]any)
			valid := 0
			for _, option := range all {
				if validate(tb, option.(map[string]any), value, key) == "" {
					valid++
				}
			}
			if keyword == "allOf" && valid < len(all) || valid == 0 || keyword == "oneOf" && valid > 1 {
				wrong = fmt.Sprintf("%d of %d", valid, len(all))
			}
		default:
			tb.Fatalf("the schema has the keyword %s, which this test does not know", keyword)
		}
		if wrong != "" {
			return key + ": " + keyword + ": " + wrong
		}
	}
	return ""
}

func validateItems(tb testing.TB, keyword string, arg, value any, key string) string {
	tb.Helper()
	items, ok := value.([]any)
	if !ok {
		return ""
	}
	for i, item := range items {
		switch keyword {
		case "items":
			if wrong := validate(tb, arg.(map[string]any), item, fmt.Sprintf("%s[%d]", key, i)); wrong != "" {
				return wrong
			}
		case "uniqueItems":
			if slices.ContainsFunc(items[:i], func(other any) bool { return reflect.DeepEqual(item, other) }) {
				return fmt.Sprint(item)
			}
		}
	}
	if keyword == "minItems" && float64(len(items)) < arg.(float64) {
		return "too few"
	}
	return ""
}

func number(value any) (float64, bool) {
	switch x := value.(type) {
	case int:
		return float64(x), true
	case float64:
		return x, true
	}
	return 0, false
}

func hasType(value any, name string) bool {
	x, isNumber := number(value)
	switch name {
	case "object":
		_, ok := value.(map[string]any)
		return ok
	case "array":
		_, ok := value.([]any)
		return ok
	case "string":
		_, ok := value.(string)
		return ok
	case "boolean":
		_, ok := value.(bool)
		return ok
	case "integer":
		return isNumber && x == math.Trunc(x)
	}
	return name == "number" && isNumber
}
