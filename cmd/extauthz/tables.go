package main

import (
	"github.com/cognito-extauthz/extauthz/internal/config"
)

// tables is what policies see of the configuration, below data.extauthz: routes, clients and pools (docs/policy-examples.md).
// A route has the keys that it has in input.route, but for params.
func tables(cfg *config.Config) map[string]any {
	routes := make([]any, 0, len(cfg.Routes))
	for _, r := range cfg.Rules() {
		routes = append(routes, map[string]any{
			"name": r.Name, "path": r.Path, "any_client": r.AnyClient, "public": r.Public,
			"hosts": list(r.Hosts), "methods": list(r.Methods), "pools": list(r.Pools), "clients": list(r.Clients),
			"scopes": map[string]any{"all": list(r.ScopesAll), "any": list(r.ScopesAny)},
		})
	}
	clients, pools := make(map[string]any), make(map[string]any)
	for name, c := range cfg.Clients {
		clients[name] = map[string]any{"id": c.ID}
	}
	for name, p := range cfg.Pools {
		pools[name] = map[string]any{"issuers": p.Issuers(), "clients": list(p.Clients), "any_client": p.AnyClient}
	}
	return map[string]any{"routes": routes, "clients": clients, "pools": pools}
}

// list is an empty one where there is none: null would be no list to a policy.
func list(items []string) []string {
	if items == nil {
		return []string{}
	}
	return items
}
