package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/open-policy-agent/opa/v1/ast"
)

// fullInput has a value of its own in every field.
func fullInput() *Input {
	return &Input{
		Attributes: map[string]any{
			"source":  map[string]any{"principal": "spiffe://a/b", "address": map[string]any{"socketAddress": map[string]any{"portValue": json.Number("8080")}}},
			"request": map[string]any{"http": map[string]any{"headers": map[string]any{"x-tenant": "acme"}, "size": json.Number("-1")}},
		},
		ParsedPath:      []string{"orders", "ü", ""},
		ParsedQuery:     map[string][]string{"a": {"1", "2"}, "b": {""}},
		ParsedBody:      map[string]any{"n": json.Number("1.50"), "l": []any{true, nil, "x"}},
		TruncatedBody:   true,
		SourcePrincipal: "spiffe://a/b",
		Canonical:       Canonical{Host: "api.example.com", Path: "/orders/%C3%BC/"},
		Token: &Token{
			ClientID: "c1", ClientName: "c2", Pool: "c3", Issuer: "c4", Subject: "c5", TokenID: "c6", TokenUse: "c7",
			Scopes: []string{"a/b", "c/d"}, Claims: map[string]any{"exp": json.Number("1790000000"), "custom:a": "b"},
		},
		Route: &Route{
			Name: "r1", Hosts: []string{"r2"}, Methods: []string{"r3"}, Path: "r4", Params: map[string]string{"r5": "r6"}, Pools: []string{"r7"},
			Scopes: Scopes{All: []string{"r8"}, Any: []string{"r9"}}, Clients: []string{"r10"}, AnyClient: true, Public: true,
		},
		Context: Context{
			Extensions: map[string]string{"x1": "x2"}, Metadata: map[string]any{"x3": "x4"}, RouteMetadata: map[string]any{"x5": "x6"},
		},
	}
}

// TestInputIsItsJSON holds that what a policy sees is what encoding/json makes of the struct by its tags: no field is
// forgotten, none has another name.
func TestInputIsItsJSON(t *testing.T) {
	in := fullInput()
	wantNoZero(t, reflect.ValueOf(*in), "Input")

	type plain Input // without MarshalJSON
	want, err := json.Marshal((*plain)(in))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(indent(t, want), indent(t, got)); diff != "" {
		t.Errorf("input document (-by encoding/json +by Input):\n%s", diff)
	}

	var back Input
	decoder := json.NewDecoder(bytes.NewReader(got))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, &back); diff != "" {
		t.Errorf("after MarshalJSON and back:\n%s", diff)
	}
}

func wantNoZero(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	if v.IsZero() {
		t.Errorf("%s is zero in the test's input, want a value", path)
	}
	switch v.Kind() {
	case reflect.Pointer:
		wantNoZero(t, v.Elem(), path)
	case reflect.Struct:
		for f, value := range v.Fields() {
			if jsonName(f) == "-" {
				continue // no part of what the policy sees
			}
			wantNoZero(t, value, path+"."+f.Name)
		}
	}
}

func indent(t *testing.T, text []byte) string {
	t.Helper()
	var x any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&x); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestZeroInput(t *testing.T) {
	got, err := json.Marshal(&Input{Token: &Token{}, Route: &Route{}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{
		"attributes": {}, "parsed_path": [], "parsed_query": {}, "parsed_body": null, "truncated_body": false, "canonical": {"host": "", "path": ""},
		"token": {"client_id": "", "client_name": "", "pool": "", "issuer": "", "subject": "", "token_id": "", "token_use": "", "scopes": [], "claims": {}},
		"route": {"name": "", "hosts": [], "methods": [], "path": "", "params": {}, "pools": [], "scopes": {"all": [], "any": []}, "clients": [], "any_client": false, "public": false},
		"context": {"extensions": {}, "metadata": {}, "route_metadata": {}}
	}`
	if diff := cmp.Diff(indent(t, []byte(want)), indent(t, got)); diff != "" {
		t.Errorf("input document (-want +got):\n%s", diff)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   any
		want string // as Rego
	}{
		{"nil", nil, `null`},
		{"bool", true, `true`},
		{"string", "a\"b", `"a\"b"`},
		{"int", 7, `7`},
		{"int32", int32(-7), `-7`},
		{"int64", int64(math.MinInt64), `-9223372036854775808`},
		{"uint32", uint32(8080), `8080`},
		{"uint64", uint64(math.MaxUint64), `18446744073709551615`},
		{"json.Number keeps its text", json.Number("1.50"), `1.50`},
		{"json.Number with an exponent", json.Number("1E+400"), `1E+400`},
		{"a whole float is written in full", 1790000000.0, `1790000000`},
		{"a float", 1.5, `1.5`},
		{"a large float", 1e300, `1e+300`},
		{"a float just beyond 2^53", float64(1<<53) * 2, `1.8014398509481984e+16`},
		{"strings", []string{"a"}, `["a"]`},
		{"list", []any{1, []any{}}, `[1, []]`},
		{"map", map[string]any{"a": map[string]any{}}, `{"a": {}}`},
		{"map of strings", map[string]string{"a": "b"}, `{"a": "b"}`},
		{"map of lists", map[string][]string{"a": {"b"}}, `{"a": ["b"]}`},
		{"deep", nest(maxInputDepth), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c converter
			got := c.any("x", tt.in)
			if c.err != nil {
				t.Fatal(c.err)
			}
			if tt.want != "" && got.String() != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func nest(n int) any {
	var x any = "x"
	for range n {
		x = []any{x}
	}
	return x
}

func TestInputErrors(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]any{
		"infinite":            math.Inf(1),
		"no number":           math.NaN(),
		"a struct":            time.Time{},
		"a channel":           make(chan int),
		"bytes":               []byte("secret"),
		"too deep":            nest(maxInputDepth + 1),
		"json.Number, empty":  json.Number(""),
		"json.Number, text":   json.Number("secret"),
		"json.Number, spaces": json.Number("1 "),
		"json.Number, true":   json.Number("true"),
		"json.Number, hex":    json.Number("0x10"),
		"json.Number, two":    json.Number("1,2"),
		"large exponent":      json.Number("1e1001"),
		"small exponent":      json.Number("1e-1001"),
		"huge exponent":       json.Number("1e99999999999999999999"),
		"many digits":         json.Number(strings.Repeat("9", 1001)),
	} {
		for field, edit := range map[string]func(*Input, any){
			"attributes":             func(in *Input, x any) { in.Attributes["x"] = []any{x} },
			"parsed_body":            func(in *Input, x any) { in.ParsedBody = x },
			"token.claims":           func(in *Input, x any) { in.Token.Claims["x"] = x },
			"context.metadata":       func(in *Input, x any) { in.Context.Metadata = map[string]any{"x": x} },
			"context.route_metadata": func(in *Input, x any) { in.Context.RouteMetadata = map[string]any{"x": x} },
		} {
			t.Run(name+" in "+field, func(t *testing.T) {
				in := accepted()
				edit(in, x)
				d, err := newEngine(t, nil).Decide(t.Context(), in)
				var e *InputError
				if !errors.As(err, &e) || !errors.Is(err, ErrPolicy) || e.Field != field || d.Allowed || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %+v, %v, want an *InputError about %s", d, err, field)
				}
			})
		}
	}
}

// TestDeepInputIsEvaluated holds that the deepest input that is taken does not overflow a stack in OPA.
func TestDeepInputIsEvaluated(t *testing.T) {
	e := newEngine(t, rule(`decision if { count(json.marshal(input)) > 20000; input.parsed_body == json.unmarshal(json.marshal(input.parsed_body)) }`))
	in := accepted()
	in.ParsedBody = nest(maxInputDepth - 1)
	if d, err := e.Decide(t.Context(), in); err != nil && !errors.Is(err, ErrUndefined) {
		t.Errorf("got %+v, %v", d, err)
	}
}

// TestSchemaFitsTheInput holds that the compiler knows every key that a policy can see.
func TestSchemaFitsTheInput(t *testing.T) {
	v, err := fullInput().value()
	if err != nil {
		t.Fatal(err)
	}
	x, err := ast.JSON(v)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var compare func(path string, schema map[string]any, value any)
	compare = func(path string, schema map[string]any, value any) {
		properties, _ := schema["properties"].(map[string]any)
		object, _ := value.(map[string]any)
		if properties == nil || path == ".attributes" {
			return
		}
		seen++
		var keys []string
		for k := range properties {
			keys = append(keys, k)
			compare(path+"."+k, properties[k].(map[string]any), object[k])
		}
		var have []string
		for k := range object {
			have = append(have, k)
		}
		slices.Sort(keys)
		slices.Sort(have)
		if diff := cmp.Diff(keys, have, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("input%s (-schema +input):\n%s", path, diff)
		}
	}
	compare("", inputSchema(), x)
	if seen != 6 { // input, canonical, token, route, route.scopes, context
		t.Errorf("compared %d objects, want 6", seen)
	}
}

// FuzzInput decodes any JSON as an input and holds that a policy sees the same, and decides or fails.
func FuzzInput(f *testing.F) {
	full, err := json.Marshal(fullInput())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	for _, seed := range []string{
		`{}`, `{"token": {}, "route": {}}`, `{"parsed_body": 1e400}`, `{"parsed_body": [[[[]]]]}`, `{"token": {"claims": {"a": 1e-9, "b": -0}}}`,
		`{"route": {"public": true}}`, `{"route": {"any_client": true}, "token": {"scopes": ["a"]}}`, `{"parsed_path": ["\ud800", "\u0000"]}`,
	} {
		f.Add([]byte(seed))
	}
	e := newEngine(f, nil)
	f.Fuzz(func(t *testing.T, text []byte) {
		decode := func(text []byte) *Input {
			var in Input
			d := json.NewDecoder(bytes.NewReader(text))
			d.UseNumber()
			if d.Decode(&in) != nil {
				return nil
			}
			return &in
		}
		in := decode(text)
		if in == nil {
			return
		}
		d, err := e.Decide(t.Context(), in)
		if err != nil {
			if d.Allowed {
				t.Fatalf("allowed with %v", err)
			}
			return
		}
		if want := allowedByRoute(in); d.Allowed != want {
			t.Fatalf("allowed is %v, want %v", d.Allowed, want)
		}
		once, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := json.Marshal(decode(once))
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("after MarshalJSON and back (%v):\n%s\n%s", err, once, twice)
		}
	})
}

// allowedByRoute is the built-in policy once more, in Go.
func allowedByRoute(in *Input) bool {
	r, token := in.Route, in.Token
	switch {
	case r == nil:
		return false
	case r.Public:
		return true
	case token == nil:
		return false
	case len(r.Pools) > 0 && !slices.Contains(r.Pools, token.Pool):
		return false
	}
	holds := func(scope string) bool { return slices.Contains(token.Scopes, scope) }
	byScopes := len(r.Clients) == 0 && len(r.Scopes.All)+len(r.Scopes.Any) > 0
	if !r.AnyClient && !byScopes && !slices.Contains(r.Clients, token.ClientName) {
		return false
	}
	for _, scope := range r.Scopes.All {
		if !holds(scope) {
			return false
		}
	}
	return len(r.Scopes.Any) == 0 || slices.ContainsFunc(r.Scopes.Any, holds)
}
