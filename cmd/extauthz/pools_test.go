package main

import (
	"testing"

	"github.com/cognito-extauthz/extauthz/internal/config"
)

func TestAccepts(t *testing.T) {
	cfg := &config.Config{
		Clients: map[string]config.Client{"batch": {ID: "id-of-batch"}, "web": {ID: "id-of-web"}},
		Pools: map[string]config.Pool{
			"main":  {Clients: []string{"batch"}},
			"open":  {AnyClient: true},
			"other": {Clients: []string{"web"}},
		},
	}
	for _, test := range []struct {
		pool, id string
		want     bool
	}{
		{"main", "id-of-batch", true},
		{"main", "id-of-web", false},
		{"main", "ID-OF-BATCH", false},
		{"main", "batch", false},
		{"other", "id-of-batch", false},
		{"open", "anything", true},
		{"", "anything", true},
		{"none", "id-of-batch", false},
	} {
		if got := accepts(cfg, test.pool, test.id); got != test.want {
			t.Errorf("pool %q, client %q: %v, want %v", test.pool, test.id, got, test.want)
		}
	}
}
