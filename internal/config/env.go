package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// variablePrefix is what all our variables begin with. Kubernetes sets EXTAUTHZ_PORT, EXTAUTHZ_SERVICE_HOST and
// the like for a Service named extauthz, so one underscore would not tell whose a variable is.
const variablePrefix = "EXTAUTHZ__"

// environment sets what variables of ours say, and reports those that cannot be used. Their values are over
// those of the file.
func (d *decoder) environment(environ []string, c *Config) {
	vars := make(map[string]variable)
	addVariables(vars, reflect.ValueOf(c).Elem(), "", strings.TrimSuffix(variablePrefix, "__"))
	seen := make(map[string]bool)
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, variablePrefix) || seen[name] {
			continue // of two entries the first counts, as for getenv
		}
		seen[name] = true
		from := place{variable: name}
		v, known := vars[name]
		switch {
		case !known:
			d.unknownVariable(from, vars)
		case v.whole != "":
			d.report(from, v.key, "found a variable for "+v.whole+", which the environment cannot set", v.hint)
		default:
			if message, hint := set(v.value, v.field, text); message != "" {
				if text == "" {
					hint = "to leave the key alone, unset the variable"
				}
				d.report(from, v.key, message, hint)
				if v.field.secret {
					d.hide(len(d.problems)-1, v.field, v.value.Type(), "")
				}
				continue
			}
			d.places[v.key] = from
		}
	}
}

// A variable is what a name in the environment stands for.
type variable struct {
	key   string
	value reflect.Value
	field field
	whole string // "a list" or the like, for a key that only the file can set
	hint  string
}

// addVariables adds the variables of a section and of all below it.
func addVariables(vars map[string]variable, section reflect.Value, key, name string) {
	for _, f := range fieldsOf(section.Type()) {
		v := variable{key: join(key, f.key), value: section.Field(f.index), field: f}
		member := variableName(name, f.key)
		switch v.value.Kind() {
		case reflect.Struct:
			v.whole = "a section"
			v.hint = "there is a variable for each of its keys, such as " + variableName(member, fieldsOf(v.value.Type())[0].key)
			addVariables(vars, v.value, v.key, member)
		case reflect.Map:
			v.whole, v.hint = "a mapping of your own names", "write it in the file"
		case reflect.Slice:
			v.whole, v.hint = "a list", "write it in the file"
		}
		vars[member] = v
	}
}

// variableName returns the variable of a member: userPoolId of EXTAUTHZ__X is EXTAUTHZ__X__USER_POOL_ID.
func variableName(section, key string) string {
	var b strings.Builder
	letters := []rune(key)
	for i, r := range letters {
		afterLower := i > 0 && unicode.IsLower(letters[i-1])
		endOfAcronym := i > 0 && i+1 < len(letters) && unicode.IsLower(letters[i+1])
		if unicode.IsUpper(r) && (afterLower || endOfAcronym) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return section + "__" + b.String()
}

func (d *decoder) unknownVariable(from place, vars map[string]variable) {
	for name := from.variable; name != ""; name = name[:max(0, strings.LastIndex(name, "__"))] {
		if v, ok := vars[name]; ok && v.whole != "" && v.whole != "a section" {
			d.report(from, "", "found a variable for a part of "+v.key+", which the environment cannot set", v.hint)
			return
		}
	}
	hint := "docs/config.md has the variable of each key"
	settable := maps.Clone(vars)
	maps.DeleteFunc(settable, func(_ string, v variable) bool { return v.whole != "" })
	if meant := nearest(from.variable, slices.Sorted(maps.Keys(settable))); meant != "" {
		hint = "did you mean " + meant + "?"
	}
	d.report(from, "", "unknown variable, want one for a key of the file (names that begin with "+variablePrefix+" are this program's)", hint)
}
