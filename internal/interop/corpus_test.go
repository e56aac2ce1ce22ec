package interop

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

const (
	region = "eu-west-1"
	poolID = cognitotest.DemoPoolID
	issuer = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Demo12345"
	client = cognitotest.DemoClientID
)

// A testCase is a token and what it is verified with.
type testCase struct {
	Name     string `json:"name"`
	Token    string `json:"token"`
	JWKS     string `json:"jwks"`
	TokenUse string `json:"tokenUse"`
}

// A corpus makes the cases. All depends on nothing but the pool's keys and the time at which it was made.
type corpus struct {
	t     testing.TB
	pool  *cognitotest.Pool
	now   time.Time
	cases []testCase
	names map[string]bool
}

// A base is a token that is accepted, taken apart so that one thing can be changed.
type base struct {
	name     string
	tokenUse string
	header   object
	claims   object
	key      cognitotest.Key
}

// theCorpus is made once: its RSA keys and signatures take seconds under the race detector.
var theCorpus struct {
	sync.Once
	cases []testCase
}

// allCases returns the corpus. Cases are not changed.
func allCases(t *testing.T) []testCase {
	t.Helper()
	theCorpus.Do(func() { theCorpus.cases = newCorpus(t).cases })
	if len(theCorpus.cases) == 0 {
		t.Fatal("the corpus could not be made, see the test that was first")
	}
	return theCorpus.cases
}

func newCorpus(t *testing.T) *corpus {
	t.Helper()
	cfg := cognitotest.DemoPool()
	cfg.Issuer = issuer
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cfg}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := &corpus{t: t, pool: s.Pools()[0], now: time.Now().Truncate(time.Second), names: make(map[string]bool)}

	machine, person, id := c.bases()
	for _, b := range []base{machine, person, id} {
		c.add(b, "accepted", c.sign(b))
		c.claimTypes(b)
		c.issuers(b)
		c.clients(b)
		c.tokenUses(b)
		c.times(b)
	}
	c.audiences(machine)
	c.scopes(machine)
	c.memberNames(machine)
	c.duplicates(machine)
	c.payloads(machine)
	c.headers(machine)
	c.algorithms(machine)
	c.encodings(machine)
	c.signatures(machine)
	c.keySets(machine)
	return c
}

func (c *corpus) bases() (machine, person, id base) {
	// What else Cognito makes up anew for each token.
	var fixed []cognitotest.TokenOption
	for _, name := range []string{"jti", "origin_jti", "event_id"} {
		fixed = append(fixed, cognitotest.Claim(name, "5f0c7a86-3f5d-4d2e-9a55-6f1f7d2e8b10"))
	}
	issuedAt := cognitotest.IssuedAt(c.now.Add(-10 * time.Minute))
	all := append([]cognitotest.TokenOption{issuedAt}, fixed...)
	opts := all[:2] // a machine's token has jti and neither of the others
	return c.takeApart("machine", "access", c.pool.Token(client, opts...), c.pool.AccessKey()),
		c.takeApart("person", "access", c.pool.UserToken(client, "jane", all...), c.pool.AccessKey()),
		c.takeApart("id", "id", c.pool.IDToken(client, "jane", all...), c.pool.IDKey())
}

func (c *corpus) takeApart(name, tokenUse, token string, key cognitotest.Key) base {
	parts := strings.Split(token, ".")
	return base{name: name, tokenUse: tokenUse, header: c.object(parts[0]), claims: c.object(parts[1]), key: key}
}

// add adds a case whose key set is the pool's.
func (c *corpus) add(b base, name, token string) {
	c.addWithKeys(b, name, token, string(c.pool.JWKS()))
}

func (c *corpus) addWithKeys(b base, name, token, jwks string) {
	c.t.Helper()
	name = b.name + "/" + name
	if c.names[name] {
		c.t.Fatalf("two cases are called %s, want one", name)
	}
	c.names[name] = true
	c.cases = append(c.cases, testCase{Name: name, Token: token, JWKS: jwks, TokenUse: b.tokenUse})
}

// claim adds a case with one claim changed. The value is JSON text.
func (c *corpus) claim(b base, name, claim, value string) {
	c.t.Helper()
	b.claims = b.claims.set(claim, value)
	c.add(b, name, c.sign(b))
}

// param adds a case with one header parameter changed, and the signature that RS256 makes of it.
func (c *corpus) param(b base, name, param, value string) {
	c.t.Helper()
	b.header = b.header.set(param, value)
	c.add(b, name, c.sign(b))
}

func (c *corpus) sign(b base) string { return b.key.Sign(b.header.text(), b.claims.text()) }

// object reads a part of a token.
func (c *corpus) object(part string) object {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		c.t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	_, _ = dec.Token() // the brace
	var o object
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			c.t.Fatal(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			c.t.Fatal(err)
		}
		o = append(o, member{name.(string), string(value)})
	}
	return o
}

// An object is a JSON object that keeps its order, may have a member twice, and whose values are JSON text, valid or not.
type object []member

type member struct{ name, value string }

func (o object) get(name string) string {
	for _, m := range o {
		if m.name == name {
			return m.value
		}
	}
	return ""
}

// set replaces a member, or adds it at the end.
func (o object) set(name, value string) object {
	var changed object
	found := false
	for _, m := range o {
		if m.name == name {
			m.value, found = value, true
		}
		changed = append(changed, m)
	}
	if !found {
		changed = append(changed, member{name, value})
	}
	return changed
}

func (o object) without(name string) object {
	var changed object
	for _, m := range o {
		if m.name != name {
			changed = append(changed, m)
		}
	}
	return changed
}

// with adds a member at the end, even if there is one of this name.
func (o object) with(name, value string) object {
	return append(append(object(nil), o...), member{name, value})
}

// first adds a member before all others.
func (o object) first(name, value string) object {
	return append(object{{name, value}}, o...)
}

func (o object) text() []byte {
	var b strings.Builder
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name := m.name
		if !strings.HasPrefix(name, `"`) { // one that is quoted already says how it is written
			name = fmt.Sprintf("%q", name)
		}
		b.WriteString(name + ":" + m.value)
	}
	return []byte("{" + b.String() + "}")
}

func encode(part []byte) string { return base64.RawURLEncoding.EncodeToString(part) }

func quoted(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always can be
	}
	return string(text)
}
