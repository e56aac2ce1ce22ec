package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

func TestTables(t *testing.T) {
	file := filepath.Join(t.TempDir(), "extauthz.yaml")
	text := `
clients: {batch: {id: id-of-batch}}
pools: {main: {issuer: https://idp.example.com/main, clients: [batch]}}
routes:
  - {name: read, methods: [GET], path: "/orders/{id}", scopes: {any: [orders/read]}}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(tables(cfg))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"clients":{"batch":{"id":"id-of-batch"}},` +
		`"pools":{"main":{"any_client":false,"clients":["batch"],"issuers":["https://idp.example.com/main"]}},` +
		`"routes":[{"any_client":false,"clients":[],"hosts":[],"methods":["GET"],"name":"read","path":"/orders/{id}","pools":[],"public":false,"scopes":{"all":[],"any":["orders/read"]}}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A route in the table has the keys of input.route, so that a policy may use one for the other.
func TestTablesHaveTheKeysOfTheInput(t *testing.T) {
	text, err := json.Marshal(policy.Route{})
	if err != nil {
		t.Fatal(err)
	}
	var want, got map[string]any
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	delete(want, "params")
	got, _ = tables(&config.Config{Routes: []config.Route{{}}})["routes"].([]any)[0].(map[string]any)
	if diff := cmp.Diff(keysOf(want), keysOf(got)); diff != "" {
		t.Errorf("keys (-input.route +table):\n%s", diff)
	}
}

func keysOf(m map[string]any) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
