package policy

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/fstest"
)

// What is costly to make is made only if the policy may read it. Too much is no harm, too little would be: a policy
// would not see what it asks for.
func TestCompleteIsToldWhatThePolicyMayRead(t *testing.T) {
	fields := []string{"parsed_query", "parsed_body", "truncated_body", "canonical", "token.claims", "token.scopes"}
	tests := []struct {
		name string
		rego string
		want []string
	}{
		{"nothing", `decision := true`, nil},
		{"a field", `decision if input.parsed_body.amount < 5`, []string{"parsed_body"}},
		{"a field by a function's argument", `decision if f(input.parsed_query)
			f(q) if q.x[0] == "1"`, []string{"parsed_query"}},
		{"a field by another rule", `decision if body.amount < 5
			body := input.parsed_body`, []string{"parsed_body"}},
		{"a field by a local name", `decision if { x := input.parsed_body; x.amount < 5 }`, []string{"parsed_body"}},
		{"the whole input", `decision if count(input) > 3`, fields},
		{"the whole input by a function's argument", `decision if f(input)
			f(i) if i.parsed_body`, fields},
		{"a field by a computed name", `decision if input[input.canonical.host]`, fields},
		{"a field below with", `decision if r with input.parsed_body as {}
			r if input.parsed_query.x`, []string{"parsed_query", "parsed_body"}}, // the latter is more than need be
		{"a field in a comprehension", `decision if count([1 | input.parsed_query[_]]) > 0`, []string{"parsed_query"}},
		{"a field by a rule that gives a part of another's object", `decision if p.foo.bar.baz
			p[x] := {"bar": {"baz": false}} if x := input.canonical.path
			p.foo.bar := {"baz": input.parsed_body.x}`, []string{"parsed_body"}},
		{"a field by the built-in policy alone", `decision := data.extauthz.base.decision`, []string{"token.scopes"}},
		{"whether there is a field", `decision if not input.token`, nil},
		{"a field's field", `decision if input.token.claims.tier == "gold"`, []string{"token.claims"}},
		{"a field's fields", `decision if count(input.token) > 3`, []string{"token.claims", "token.scopes"}},
		{"a field's field by a computed name", `decision if input.token[input.canonical.host]`, []string{"token.claims", "token.scopes"}},
		{"a field's field by a local name", `decision if { t := input.token; t.claims.x }`, []string{"token.claims"}},
		{"whether there is a field, and a field's field", `decision if { not input.token } else if "a" in input.token.scopes`, []string{"token.scopes"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, err := New(t.Context(), Config{FS: fstest.MapFS{"p.rego": {Data: []byte("package extauthz\n" + test.rego)}}})
			if err != nil {
				t.Fatal(err)
			}
			asked := 0
			_, _ = e.Decide(t.Context(), &Input{Complete: func(_ *Input, reads func(string) bool) error {
				asked++
				for _, f := range fields {
					if slices.Contains(test.want, f) && !reads(f) {
						t.Errorf("%s is said to be unread", f)
					}
					if !slices.Contains(test.want, f) && reads(f) && f != "canonical" {
						t.Errorf("%s is said to be read", f)
					}
				}
				return nil
			}})
			if asked != 1 {
				t.Errorf("Complete was called %d times, want once", asked)
			}
		})
	}
}

func TestCompleteFillsIn(t *testing.T) {
	e, err := New(t.Context(), Config{FS: fstest.MapFS{"p.rego": {Data: []byte("package extauthz\ndecision if input.parsed_body == 7\n")}}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decide(t.Context(), &Input{Complete: func(in *Input, _ func(string) bool) error {
		in.ParsedBody = 7.0
		return nil
	}})
	if err != nil || !d.Allowed {
		t.Errorf("decision is %+v, error %v, want an allow by what Complete filled in", d, err)
	}
	d, err = e.Decide(t.Context(), &Input{ParsedBody: 7.0, Complete: func(*Input, func(string) bool) error { return context.Canceled }})
	if !errors.Is(err, context.Canceled) || d.Allowed {
		t.Errorf("decision is %+v, error %v, want Complete's error and no allow", d, err)
	}
}
