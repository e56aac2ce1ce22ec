package policy

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// keyOf is the key of an input by the paths, which are written with slashes; one that ends in ? is for existence only.
func keyOf(t testing.TB, in *Input, paths ...string) string {
	t.Helper()
	var parts []keyPart
	for _, path := range paths {
		path, exists := strings.CutSuffix(path, "?")
		parts = append(parts, keyPartsOf(strings.Split(path, "/"), exists)...)
	}
	w := &keyWriter{}
	if !w.parts(parts, in) {
		t.Fatalf("no key of %v", paths)
	}
	return string(w.buf)
}

// The fields that keys are made of are those of the input.
func TestKeyLeavesAreTheFields(t *testing.T) {
	var want, have []string
	var fields func(at string, of reflect.Type)
	fields = func(at string, of reflect.Type) {
		for f := range of.Fields() {
			name := at + jsonName(f)
			if jsonName(f) == "-" {
				continue
			}
			if inner := structOf(f.Type); inner != nil {
				fields(name+"/", inner)
			} else {
				want = append(want, name)
			}
		}
	}
	fields("", reflect.TypeFor[Input]())
	for _, leaf := range keyLeaves {
		have = append(have, leaf.path)
	}
	if slices.Sort(want); !slices.Equal(want, slices.Sorted(slices.Values(have))) {
		t.Errorf("the leaves are %v, want %v", have, want)
	}
}

// Each leaf writes the field of its name, and no other.
func TestKeyLeavesWriteTheirFields(t *testing.T) {
	full := func() *Input {
		in := accepted()
		in.ParsedBody, in.Context.Extensions = map[string]any{"a": "b"}, map[string]string{"a": "b"}
		in.Context.Metadata, in.Context.RouteMetadata = map[string]any{"a": "b"}, map[string]any{"a": "b"}
		return in
	}
	for _, leaf := range keyLeaves {
		in, before := full(), keyOf(t, full(), leaf.path)
		v := reflect.ValueOf(in).Elem()
		for _, name := range strings.Split(leaf.path, "/") {
			if v.Kind() == reflect.Pointer {
				v = v.Elem()
			}
			for f, field := range v.Fields() {
				if jsonName(f) == name {
					v = field
					break
				}
			}
		}
		switch v.Kind() {
		case reflect.String:
			v.SetString("another")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Slice:
			v.Set(reflect.ValueOf([]string{"another"}))
		case reflect.Interface:
			v.Set(reflect.ValueOf("another"))
		case reflect.Map:
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("another"), reflect.Zero(v.Type().Elem()))
		}
		if keyOf(t, in, leaf.path) == before {
			t.Errorf("%s: the key is the same for another value", leaf.path)
		}
		for _, other := range keyLeaves {
			if other.path != leaf.path && keyOf(t, in, other.path) != keyOf(t, full(), other.path) {
				t.Errorf("%s: its value changes the key of %s", leaf.path, other.path)
			}
		}
	}
}

// What is different to a policy has different keys, and how Go holds the same is the same where it can be.
func TestKeysTellValuesApart(t *testing.T) {
	values := []any{
		nil, false, true, "", "a", "nil", "t", 0, 1, -1, 1.5, json.Number("2"), uint64(3),
		[]any{},
		[]any{nil},
		[]any{[]any{}},
		[]any{"a", "b"},
		[]any{"ab"},
		[]any{"a,b"},
		map[string]any{},
		map[string]any{"a": nil},
		map[string]any{"a": "b"},
		map[string]any{"ab": ""},
		map[string]any{"a": "", "b": ""},
		"e\u0301", "\u00e9", "\x00", "\x00\x00",
	}
	seen := map[string]any{}
	for _, v := range values {
		in := accepted()
		in.Token.Claims["a"] = v
		key := keyOf(t, in, "token/claims/a")
		if other, ok := seen[key]; ok {
			t.Errorf("%#v and %#v have the same key", v, other)
		}
		seen[key] = v
	}
	for _, ways := range []string{"token/claims/b", "token/claims/a/b", "token/claims"} {
		for _, edit := range []func(*Input){func(in *Input) { in.Token = nil }, func(in *Input) { in.Token.Claims = nil }, func(in *Input) { in.Token.Claims = map[string]any{"a": "x"} }} {
			in := accepted()
			edit(in)
			key := keyOf(t, in, ways)
			if _, ok := seen[key]; ok && in.Token == nil {
				t.Errorf("%s: absent is a value", ways)
			}
		}
	}
	if a, b := keyOf(t, &Input{}, "token/claims/a"), keyOf(t, &Input{Token: &Token{}}, "token/claims/a"); a == b {
		t.Error("no token and no claim have the same key")
	}
}

// FuzzKey holds that keys of two inputs are the same only if all that they are made of is.
func FuzzKey(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed+1, uint8(seed))
	}
	paths := [][]string{
		{"token/claims"},
		{"token/claims/a"},
		{"token/claims/a/b"},
		{"token?"},
		{"token/scopes", "route/scopes"},
		{"token"},
		{"route", "canonical"},
		{"parsed_query"},
		{"parsed_body", "parsed_path"},
		{"attributes"},
		{"context"},
		{"token/claims/a", "token/claims/b", "route/params/id"},
	}
	f.Fuzz(func(t *testing.T, a, b uint64, which uint8) {
		read := paths[int(which)%len(paths)]
		some := func(seed uint64) *Input {
			rnd, in := rand.New(rand.NewPCG(seed, 2)), accepted()
			for range rnd.IntN(6) {
				mutate(rnd, in)
			}
			return in
		}
		x, y := some(a), some(b)
		if !x.formed() || !y.formed() || longKey(x, read) || longKey(y, read) {
			return
		}
		// The inputs as a policy sees them are what has to be the same.
		if keyOf(t, x, read...) == keyOf(t, y, read...) && seen(t, x, read) != seen(t, y, read) {
			t.Errorf("%v is\n%s and\n%s, and the keys are the same", read, seen(t, x, read), seen(t, y, read))
		}
	})
}

func longKey(in *Input, paths []string) bool {
	w := &keyWriter{}
	for _, path := range paths {
		if !w.parts(keyPartsOf(strings.Split(path, "/"), false), in) {
			return true
		}
	}
	return false
}

// seen is the JSON of what a policy sees at paths.
func seen(t *testing.T, in *Input, paths []string) string {
	t.Helper()
	var doc any
	if err := json.Unmarshal(mustJSON(t, in), &doc); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, path := range paths {
		path, exists := strings.CutSuffix(path, "?")
		x, there := doc, true
		for _, name := range strings.Split(path, "/") {
			object, _ := x.(map[string]any)
			if x, there = object[name]; !there {
				break
			}
		}
		if exists {
			x = nil
		}
		out.Write(mustJSON(t, []any{there, x}))
	}
	return out.String()
}
