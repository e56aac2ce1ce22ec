package config

import (
	"fmt"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (d *decoder) pool(c *Config, name string) {
	p, key := c.Pools[name], join("pools", name)
	if d.bad[key] {
		return
	}
	d.poolIssuer(p, key)
	d.poolKeys(p, key)
	d.poolClients(c, p, key)
	d.poolTokens(p, key)
}

// poolIssuer checks that the pool is named in one way, and that the name can be right.
func (d *decoder) poolIssuer(p Pool, key string) {
	region, id, issuer := join(key, "region"), join(key, "userPoolId"), join(key, "issuer")
	hasRegion, hasID, hasIssuer := p.Region != "" || d.bad[region], p.UserPoolID != "" || d.bad[id], p.Issuer != "" || d.bad[issuer]
	prefix, _, _ := strings.Cut(p.UserPoolID, "_")
	switch {
	case hasIssuer && (hasRegion || hasID):
		d.problem(issuer, "found issuer beside region or userPoolId, want one or the other", "delete issuer if it is the Region's usual one, else region and userPoolId")
	case hasIssuer && p.IssuerType != IssuerOriginal && !d.bad[join(key, "issuerType")]:
		d.problem(join(key, "issuerType"), "found issuerType beside issuer, want it only with region and userPoolId", "delete issuerType; issuer already says which iss the tokens have")
	case hasIssuer:
		d.issuerURL(p, issuer)
	case !hasRegion && !hasID:
		d.problem(key, "found neither region and userPoolId nor issuer, want the pool named in one of the two ways", "write it like region: eu-west-1 and userPoolId: eu-west-1_AbCdEfGhI")
	case !hasID:
		d.problem(id, "missing, want the user pool's id, such as "+p.Region+"_AbCdEfGhI", "")
	case !hasRegion:
		d.problem(region, "missing, want the user pool's Region", hintIf(isValid("region", prefix), "write region: "+prefix))
	case d.bad[region] || d.bad[id]:
	case otherPartition(p.Region):
		d.problem(region, fmt.Sprintf("found %s, whose AWS partition has issuers of its own; want issuer instead of region and userPoolId", p.Region),
			"take the iss of one of the pool's tokens")
	case !isValid("region", prefix):
		d.problem(id, fmt.Sprintf("found %s, want an id that begins with a Region, such as %s_AbCdEfGhI", p.UserPoolID, p.Region),
			"for a stand-in of Cognito, use issuer instead of region and userPoolId")
	case prefix != p.Region:
		d.problem(region, fmt.Sprintf("found %s with userPoolId %s, want the Region that the id begins with", p.Region, p.UserPoolID),
			"write region: "+prefix+"; for a replica of a multi-Region pool, use issuer instead of region and userPoolId")
	}
}

// otherPartition reports whether a Region is outside the partitions whose issuers are known to end in
// amazonaws.com (aws and aws-us-gov).
func otherPartition(region string) bool {
	for _, prefix := range []string{"cn-", "eusc-", "us-iso", "eu-iso"} {
		if strings.HasPrefix(region, prefix) {
			return true
		}
	}
	return false
}

func (d *decoder) issuerURL(p Pool, key string) {
	u := d.url(key, p.Issuer)
	if u == nil {
		return
	}
	const wellKnown = "/.well-known/"
	before, _, isDocument := strings.Cut(p.Issuer, wellKnown)
	switch {
	case isDocument:
		d.problem(key, fmt.Sprintf("found %s, want the iss of the pool's tokens", quote(p.Issuer)), "write "+before)
	case strings.HasSuffix(u.Hostname(), ".amazoncognito.com"):
		d.problem(key, fmt.Sprintf("found the pool's domain %s, want the iss of its tokens, which has another host", quote(p.Issuer)),
			"the domain is for login and token requests; write region and userPoolId instead")
	case u.RawQuery != "" || u.ForceQuery:
		d.problem(key, fmt.Sprintf("found %s with a query, want the iss of the pool's tokens", quote(p.Issuer)), "")
	case strings.HasSuffix(p.Issuer, "/"):
		d.problem(key, fmt.Sprintf("found %s, want no slash at the end, as Cognito's iss has none", quote(p.Issuer)), "write "+strings.TrimRight(p.Issuer, "/"))
	case u.Host != strings.ToLower(u.Host):
		d.problem(key, fmt.Sprintf("found %s, want the host in lower case, as it is compared with iss byte for byte", quote(p.Issuer)), "")
	}
}

// url checks a URL that keys come from, or belong to: what a network in between could change, could let anybody
// in. It returns nil if there is a problem with it.
func (d *decoder) url(key, text string) *url.URL {
	if text == "" || d.bad[key] {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || strings.Contains(text, " ") || u.Hostname() == "" || !hostName.MatchString(u.Hostname()) && net.ParseIP(u.Hostname()) == nil:
		d.problem(key, fmt.Sprintf("found %s, want an https URL with a host", quote(text)), hintSubstitution(text))
	case u.User != nil:
		// The text is not shown, as a password may be in it.
		d.problem(key, "found a URL with a user name, want one without", "")
	case u.Fragment != "" || strings.Contains(text, "#"):
		d.problem(key, fmt.Sprintf("found %s with a fragment (#), want a URL without", quote(text)), "")
	case u.Port() == "" && strings.HasSuffix(u.Host, ":") || !validPort(u.Port()):
		d.problem(key, fmt.Sprintf("found %s, want a port from 1 to 65535 or none", quote(text)), "")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		d.problem(key, fmt.Sprintf("found %s, want https; http only for localhost, 127.0.0.1 and [::1]", quote(text)), "write "+"https"+strings.TrimPrefix(text, "http"))
	default:
		return u
	}
	return nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

func (d *decoder) poolKeys(p Pool, key string) {
	if u := d.url(join(key, "jwksUrl"), p.JWKSURL); u != nil && (u.RawQuery != "" || u.ForceQuery) {
		// The query is not shown: that of a presigned URL is a secret, and here it would be in the effective configuration.
		d.problem(join(key, "jwksUrl"), "found a URL with a query, want one without", "a presigned URL expires; serve the key set at a lasting address, or use jwksFile")
	}
	if p.JWKSFile != "" && p.JWKSURL != "" {
		d.problem(join(key, "jwksFile"), "found jwksFile beside jwksUrl, want one of the two", "delete the one that you do not mean")
	}
	jwks := join(key, "jwks")
	if p.JWKSFile != "" && p.JWKS != defaultJWKS() {
		d.problem(jwks, "found jwks beside jwksFile, want it only where keys are fetched", "delete jwks, or jwksFile")
		return
	}
	d.ordered(jwks, "minInterval", p.JWKS.MinInterval, "maxAge", p.JWKS.MaxAge)
	d.ordered(jwks, "maxAge", p.JWKS.MaxAge, "maxStale", p.JWKS.MaxStale)
}

func defaultJWKS() JWKS {
	var j JWKS
	setDefaults(reflect.ValueOf(&j).Elem())
	return j
}

// ordered reports two spans of which the first is longer than the second, at one that was given.
func (d *decoder) ordered(section, less string, a time.Duration, more string, b time.Duration) {
	lessKey, moreKey := join(section, less), join(section, more)
	if a <= b || d.bad[lessKey] || d.bad[moreKey] {
		return
	}
	if d.given(moreKey) {
		d.problem(moreKey, fmt.Sprintf("found %s, want at least %s (%s)", writeDuration(b), less, writeDuration(a)), "")
		return
	}
	d.problem(lessKey, fmt.Sprintf("found %s, want at most %s (%s)", writeDuration(a), more, writeDuration(b)), "")
}

func (d *decoder) poolClients(c *Config, p Pool, key string) {
	list := join(key, "clients")
	if len(p.Clients) == 0 && !p.AnyClient {
		hint := "define the app clients that may call at the top level, as in clients: {NAME: {id: …}}, and list their names here"
		if names := sortedKeys(c.Clients); len(names) > 0 {
			hint = "write it like clients: [" + names[0] + "]"
		}
		at := key
		if d.given(list) {
			at = list
		}
		if !d.bad[join(key, "anyClient")] {
			d.problem(at, "found no clients, want clients with at least one name, or anyClient: true to accept every app client of the pool", hint)
		}
	}
	byID := make(map[string]string)
	for i, name := range p.Clients {
		client, ok := d.client(c, itemOf(list, i), name)
		if !ok || client.ID == "" {
			continue
		}
		if other, twice := byID[client.ID]; twice {
			d.problem(itemOf(list, i), fmt.Sprintf("found %s, which has the same id as %s; want one name for each client of a pool", name, other), "delete one of the two in clients")
			continue
		}
		byID[client.ID] = name
	}
}

// client finds a client by the name at a key.
func (d *decoder) client(c *Config, key, name string) (Client, bool) {
	client, ok := c.Clients[name]
	if ok || name == "" || d.bad["clients"] || d.bad[join("clients", name)] {
		return client, ok
	}
	names := sortedKeys(c.Clients)
	hint := hintNames(name, names)
	for _, n := range names {
		if c.Clients[n].ID == name {
			hint = "that is the id of " + n + "; write " + n
		}
	}
	if hint == "" && isValid("name", name) {
		hint = "define it at the top level, as in clients: {" + name + ": {id: …}}"
	}
	d.problem(key, fmt.Sprintf("found %s, want a name defined in clients", quote(name)), hint)
	return client, false
}

// hintNames guesses which name was meant, and else lists them if they are few.
func hintNames(name string, names []string) string {
	const many = 200 // a comparison with more of them would take longer than the hint is worth
	if meant := nearest(name, names[:min(len(names), many)]); meant != "" {
		return "did you mean " + meant + "?"
	}
	if len(names) > 0 && len(names) <= 5 {
		return "there is " + strings.Join(names, ", ")
	}
	return ""
}

func hintIf(ok bool, hint string) string {
	if ok {
		return hint
	}
	return ""
}

// poolTokens checks for tokens that could never be accepted, and for checks that would never be made.
func (d *decoder) poolTokens(p Pool, key string) {
	uses := join(key, "tokenUse")
	if d.bad[uses] || d.badItem(uses, p.TokenUse) || slices.Contains(p.TokenUse, TokenUseAccess) || len(p.TokenUse) == 0 {
		return
	}
	if p.MachinesOnly {
		d.problem(join(key, "machinesOnly"), "found true with tokenUse [id], want false, as ID tokens are issued for people", "")
	}
	if len(p.Audience) > 0 {
		d.problem(join(key, "audience"), "found a list with tokenUse [id], want it only with access tokens, as the aud of an ID token is its client", "list the allowed clients in clients")
	}
}

// distinctIssuers checks that a token can belong to one pool only.
func (d *decoder) distinctIssuers(c *Config) {
	owner := make(map[string]string)
	for _, name := range d.inFileOrder(c.Pools) {
		p, key := c.Pools[name], join("pools", name)
		at := join(key, "issuer")
		if p.Issuer == "" {
			at = join(key, "userPoolId")
		}
		if d.bad[key] || d.bad[at] || d.bad[join(key, "region")] || p.Issuer == "" && (p.Region == "" || p.UserPoolID == "") {
			continue
		}
		for _, iss := range p.Issuers() {
			if other, taken := owner[iss]; taken {
				d.problem(at, fmt.Sprintf("found the issuer %s, which is that of pool %s too; want each issuer in one pool", iss, other),
					"a pool may list several clients; if this is another pool, check its id")
				break
			}
			owner[iss] = name
		}
	}
}

// inFileOrder returns the names of pools so that the second of two is the later one.
func (d *decoder) inFileOrder(pools map[string]Pool) []string {
	names := sortedKeys(pools)
	slices.SortStableFunc(names, func(a, b string) int {
		pa, pb := d.places[join("pools", a)], d.places[join("pools", b)]
		if pa.line != pb.line {
			return pa.line - pb.line
		}
		return pa.column - pb.column
	})
	return names
}
