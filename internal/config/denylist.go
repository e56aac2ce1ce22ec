package config

import (
	"fmt"
	"time"
)

// A DenylistFile is the content of the file that [Denylist.File] names.
type DenylistFile struct {
	// What is revoked. An empty list revokes nothing.
	Revocations []Revocation `yaml:"revocations" required:"true" example:"- {client: orders-batch, issuedBefore: 2026-11-21T10:00:00Z}"`
}

// Revocation is one entry of a denylist: it names a client, a token or a subject, by exactly one of `client`, `clientId`,
// `jti` and `sub`.
type Revocation struct {
	// An app client, by its name in `clients` of the configuration.
	Client string `yaml:"client" format:"name"`
	// An app client, by its id.
	ClientID string `yaml:"clientId" format:"clientID"`
	// One token, by its `jti`.
	TokenID string `yaml:"jti" format:"text"`
	// Whom the tokens were issued for, by `sub`.
	Subject string `yaml:"sub" format:"text"`
	// The pool that is meant, by its name in `pools` of the configuration. Default: all of them.
	Pool string `yaml:"pool" format:"name"`
	// Only tokens issued before this time are refused, so that those that the client gets with its new secret are not.
	IssuedBefore string `yaml:"issuedBefore" format:"time"`
	// Why, for the log. Callers do not see it.
	Note string `yaml:"note" format:"text"`
}

// IssuedBeforeTime returns IssuedBefore; the zero time if there is none.
func (r Revocation) IssuedBeforeTime() time.Time {
	t, _ := time.Parse(time.RFC3339, r.IssuedBefore) // ParseDenylist has checked it
	return t
}

// ParseDenylist reads a denylist. Its file's name goes into messages. The names of clients and pools are those of c; in
// what it returns, clients are named by their ids alone. Every error is an [*Error].
func (c *Config) ParseDenylist(file string, data []byte) ([]Revocation, error) {
	d := newDecoder(file)
	d.least, d.begin = "revocations", "for a denylist that revokes nothing, write revocations: []"
	var list DenylistFile
	if root := d.syntax(data); root != nil {
		d.decode(root, &list)
	}
	for i := range list.Revocations {
		d.revoked(c, &list.Revocations[i], itemOf("revocations", i))
	}
	if len(d.problems) > 0 {
		return nil, d.error()
	}
	return list.Revocations, nil
}

func (d *decoder) revoked(c *Config, r *Revocation, key string) {
	named := 0
	for member, value := range map[string]string{"client": r.Client, "clientId": r.ClientID, "jti": r.TokenID, "sub": r.Subject} {
		full := join(key, member)
		if value == "" && d.given(full) {
			d.problem(full, "found empty text, want what is revoked", "")
		}
		if value != "" || d.given(full) {
			named++
		}
	}
	at := join(key, "issuedBefore")
	before, err := time.Parse(time.RFC3339, r.IssuedBefore)
	switch {
	case d.bad[key]:
	case named != 1:
		d.problem(key, fmt.Sprintf("found %d of client, clientId, jti and sub, want exactly one", named), "write several things that are revoked as several entries")
	case r.IssuedBefore != "" && err != nil && !d.bad[at]:
		d.problem(at, fmt.Sprintf("found %s, which is no date, want %s", quote(r.IssuedBefore), formats["time"].want), "")
	case r.IssuedBefore == "" && d.given(at), r.IssuedBefore != "" && err == nil && before.Unix() < 0:
		d.problem(at, fmt.Sprintf("found %s, want a time since 1970", quote(r.IssuedBefore)), "to revoke all tokens, delete issuedBefore")
	case r.IssuedBefore != "" && r.TokenID != "":
		d.problem(at, "found issuedBefore beside jti, want it only with a client or a subject", "a jti is one token: delete issuedBefore")
	}
	if client, ok := d.client(c, join(key, "client"), r.Client); ok {
		r.Client, r.ClientID = "", client.ID
	}
	if _, ok := c.Pools[r.Pool]; r.Pool != "" && !ok {
		d.problem(join(key, "pool"), fmt.Sprintf("found %s, want a name defined in pools", quote(r.Pool)), hintNames(r.Pool, sortedKeys(c.Pools)))
	}
}
