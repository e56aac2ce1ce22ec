package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestDataIsBelowExtauthz(t *testing.T) {
	tables := map[string]any{"clients": map[string]any{"batch": map[string]any{"id": "id-of-batch"}}, "routes": []map[string]string{{"name": "read"}}}
	with := func(c *Config) { c.Data = tables }
	e := newEngine(t, map[string]string{"a.rego": `package extauthz
default decision := false
decision if {
	data.extauthz.clients.batch.id == "id-of-batch"
	data.extauthz.routes[0].name == "read"
	count(data.extauthz.routes) == 1
	data.extauthz.base
}`}, with)
	if d, err := e.Decide(t.Context(), &Input{}); err != nil || !d.Allowed {
		t.Errorf("%+v, %v, want it allowed", d, err)
	}
	// What decides is told by the revision.
	other := newEngine(t, map[string]string{"a.rego": "package extauthz\ndecision := data.extauthz.base.decision"}, with)
	without := newEngine(t, map[string]string{"a.rego": "package extauthz\ndecision := data.extauthz.base.decision"}, func(*Config) {})
	if other.Revision() == without.Revision() {
		t.Error("the revision is the same with other data")
	}
	// The built-in policy alone has it too.
	if _, err := New(t.Context(), Config{Data: tables}); err != nil {
		t.Error(err)
	}
}

func TestDataHasNamesOfItsOwn(t *testing.T) {
	tables := map[string]any{"routes": []any{}}
	for name, files := range map[string]map[string]string{
		"a data file": {"a.rego": "package extauthz\ndecision := false", "extauthz/data.json": `{"routes": []}`},
		"a rule":      {"a.rego": "package extauthz\ndecision := false\nroutes := []"},
		"an addition": {"a.rego": "package extauthz\ndecision := false", "extauthz/routes/data.json": `{"more": 1}`},
		"a package":   {"a.rego": "package extauthz\ndecision := false", "b.rego": "package extauthz.routes\nmore := 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tryEngine(t, files, func(c *Config) { c.Data = tables })
			if load := (*LoadError)(nil); !errors.As(err, &load) || !strings.Contains(err.Error(), "routes") {
				t.Errorf("%v, want a LoadError that names routes", err)
			}
		})
	}
	if _, err := New(t.Context(), Config{Data: map[string]any{"f": func() {}}}); err == nil || !strings.Contains(err.Error(), "no JSON") {
		t.Errorf("%v, want an error about what is no JSON", err)
	}
}
