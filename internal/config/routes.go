package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cognito-extauthz/extauthz/internal/route"
)

// Rules returns the routes as [route.NewTable] takes them. For a Config of [Load] it accepts them.
func (c *Config) Rules() []route.Rule {
	rules := make([]route.Rule, len(c.Routes))
	for i, r := range c.Routes {
		rules[i] = r.rule()
	}
	return rules
}

func (r Route) rule() route.Rule {
	return route.Rule{
		Name:           r.Name,
		Hosts:          r.Hosts,
		Methods:        r.Methods,
		Path:           r.Path,
		Pools:          r.Pools,
		ScopesAll:      r.Scopes.All,
		ScopesAny:      r.Scopes.Any,
		Clients:        r.Clients,
		AnyClient:      r.AnyClient,
		Public:         r.Public,
		EncodedSlash:   r.EncodedSlash == Allow,
		PathParameters: r.PathParameters == Allow,
	}
}

// routes checks the route table and what its routes refer to, and fills in their names.
func (d *decoder) routes(c *Config) {
	for i := range c.Routes {
		d.routePools(c, i)
		d.routeClients(c, i)
	}
	table, err := route.NewTable(d.goodRules(c))
	if err != nil {
		for _, e := range unjoin(err) {
			d.ruleError(c, e)
		}
		return
	}
	for i, r := range table.Rules() {
		c.Routes[i].Name = r.Name
	}
}

func routeKey(i int) string { return itemOf("routes", i) }

// goodRules returns the rules without the items of lists that have a problem already.
func (d *decoder) goodRules(c *Config) []route.Rule {
	rules := c.Rules()
	for i := range rules {
		for _, l := range lists(&rules[i]) {
			*l.items = d.goodItems(routeKey(i)+"."+l.key, *l.items)
		}
	}
	return rules
}

func (d *decoder) goodItems(key string, items []string) []string {
	if !d.badItem(key, items) {
		return items
	}
	good := []string{}
	for i, item := range items {
		if !d.bad[itemOf(key, i)] {
			good = append(good, item)
		}
	}
	return good
}

func (d *decoder) badItem(key string, items []string) bool {
	for i := range items {
		if d.bad[itemOf(key, i)] {
			return true
		}
	}
	return false
}

// A list is one of a rule, with its key within the route.
type list struct {
	key   string
	items *[]string
}

func lists(r *route.Rule) []list {
	return []list{
		{"hosts", &r.Hosts},
		{"methods", &r.Methods},
		{"pools", &r.Pools},
		{"scopes.all", &r.ScopesAll},
		{"scopes.any", &r.ScopesAny},
		{"clients", &r.Clients},
	}
}

func (d *decoder) routePools(c *Config, i int) {
	r, list := c.Routes[i], join(routeKey(i), "pools")
	for j, name := range r.Pools {
		if _, ok := c.Pools[name]; !ok && name != "" && !d.bad["pools"] {
			d.problem(itemOf(list, j), fmt.Sprintf("found %s, want a name defined in pools", quote(name)), hintNames(name, sortedKeys(c.Pools)))
		}
	}
	if len(c.Pools) > 1 && r.Pools == nil && !r.Public && !d.given(list) {
		names := sortedKeys(c.Pools)
		d.problem(list, "missing, want the pools whose tokens this route accepts, as there are several pools",
			"write it like pools: ["+names[0]+"]; there is "+strings.Join(names[:min(len(names), 5)], ", "))
	}
}

// routeClients checks that each client exists, and that a pool of the route accepts its tokens under that name.
func (d *decoder) routeClients(c *Config, i int) {
	r, list := c.Routes[i], join(routeKey(i), "clients")
	pools := r.Pools
	if pools == nil {
		pools = sortedKeys(c.Pools)
	}
	for j, name := range r.Clients {
		key := itemOf(list, j)
		if _, ok := d.client(c, key, name); !ok {
			continue
		}
		lists := func(pool string) bool {
			p, ok := c.Pools[pool]
			key := join(join("pools", pool), "clients")
			return !ok || d.bad[join("pools", pool)] || d.bad[key] || d.badItem(key, p.Clients) || slices.Contains(p.Clients, name)
		}
		if len(pools) > 0 && !slices.ContainsFunc(pools, lists) {
			d.problem(key, fmt.Sprintf("found %s, want a client that a pool of this route lists (%s)", name, oneOf(pools[:min(len(pools), 5)])),
				"add "+name+" to "+join(join("pools", pools[0]), "clients"))
		}
	}
}

// unjoin returns the errors that errors.Join put together.
func unjoin(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

// ruleError reports an error of the route table at its place.
func (d *decoder) ruleError(c *Config, err error) {
	var e *route.RuleError
	if !errors.As(err, &e) || e.Index < 0 || e.Index >= len(c.Routes) {
		d.problem("routes", d.withLines(err.Error()), "")
		return
	}
	message, hint, _ := strings.Cut(e.Err.Error(), "\nhint: ")
	key := join(routeKey(e.Index), e.Field)
	if list, rest, ok := strings.Cut(message, ": "); ok && e.Field == "scopes" && (list == MatchAll || list == MatchAny) {
		key, message = join(key, list), rest
	}
	rule := c.Routes[e.Index].rule()
	for _, l := range lists(&rule) {
		full := routeKey(e.Index) + "." + l.key
		if l.key != e.Field && !strings.HasPrefix(l.key, e.Field+".") {
			continue
		}
		if d.bad[full] || d.badItem(full, *l.items) {
			return // it follows from what was reported
		}
		for i, item := range *l.items {
			if strings.HasPrefix(message, "found "+strconv.Quote(item)) {
				key = itemOf(full, i)
			}
		}
	}
	d.problem(key, d.withLines(message), hint)
}

var routeReference = regexp.MustCompile(`routes\[[0-9]+\]`)

// withLines adds to each route that a message mentions the line where it is.
func (d *decoder) withLines(message string) string {
	return routeReference.ReplaceAllStringFunc(message, func(key string) string {
		if p, ok := d.places[key]; ok {
			return fmt.Sprintf("%s (line %d)", key, p.line)
		}
		return key
	})
}
