package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// secretsOf returns what must not be found anywhere but in Credentials' fields and on its way to the service.
func secretsOf(t string) []string {
	parts := strings.Split(t, ".")
	return []string{t, parts[1], parts[2], parts[1][:40], "CANARY"}
}

// Nothing that is printed or logged has a secret in it, whatever the verb, and whatever a broken service sends back.
func TestCanary(t *testing.T) {
	id := token()
	echo := "Invalid login token " + id + " or " + strings.Split(id, ".")[1] + " or " + strings.Split(id, ".")[2] + ", cut off: " + id[:100]
	answers := map[string]answer{
		"well":                               {status: 200, body: credentials(1, jane, time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC))}, // when synctest's clock says midnight
		"the token in a message":             failure(400, "NotAuthorizedException", echo),
		"the token in a code":                failure(400, id, ""),
		"the token in garbage":               {status: 200, body: echo},
		"the token in an error without form": {status: 500, body: echo},
		"a secret of the wrong type":         {status: 200, body: `{"Credentials":{"AccessKeyId":{"x":"CANARY"},"SecretKey":["CANARY"],"SessionToken":"CANARY","Expiration":"CANARY"}}`},
		"a number for a secret":              {status: 200, body: `{"Credentials":{"AccessKeyId":"a","SecretKey":"CANARY secret","SessionToken":"CANARY session","Expiration":"CANARY end"}}`},
		"secrets that are cut off":           {status: 200, body: `{"Credentials":{"AccessKeyId":"a","SecretKey":"CANARY secret","SessionToken":"CANARY`},
		"secrets without an access key":      {status: 200, body: `{"Credentials":{"SecretKey":"CANARY secret","SessionToken":"CANARY session","Expiration":4102444800}}`},
		"secrets that have expired":          {status: 200, body: credentials(1, jane, time.Unix(0, 0))},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logged
				logger := log.logger()
				p, s := newProvider(t, func(c *Config) { c.Logger, c.IDToken, c.CacheDir = logger, always(id), t.TempDir() })
				s.always("GetCredentialsForIdentity", a)
				if a.status == 500 {
					s.always("GetId", a)
				}
				c, err := p.Credentials(t.Context())
				if (err == nil) != (name == "well") {
					t.Fatalf("got %v", err)
				}
				logger.Info("all", "credentials", c, "pointer", &c, "provider", p, "error", err, "nested", []any{c, struct{ C Credentials }{c}})
				texts := []string{log.String()}
				for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t"} {
					for _, v := range []any{c, &c, p, err, []Credentials{c}, map[string]Credentials{"a": c}, struct{ C Credentials }{c}, struct{ c Credentials }{c}, struct{ p *Provider }{p}, &struct{ c *Credentials }{&c}, p.cfg} {
						texts = append(texts, fmt.Sprintf(verb, v))
					}
				}
				out, marshalErr := json.Marshal(struct{ C any }{c})
				if marshalErr == nil || !strings.Contains(marshalErr.Error(), "want WriteProcess") {
					t.Errorf("got %v, want it said that credentials are not marshalled", marshalErr)
				}
				texts = append(texts, string(out), fmt.Sprint(marshalErr), fmt.Sprint(slog.AnyValue(c).Resolve()))
				for e := err; e != nil; e = errors.Unwrap(e) {
					if r := (*RequestError)(nil); errors.As(e, &r) {
						texts = append(texts, fmt.Sprintf("%v %+v %#v", *r, *r, *r))
					}
				}
				for _, text := range texts {
					for _, secret := range secretsOf(id) {
						if strings.Contains(text, secret) || strings.Contains(text, fmt.Sprintf("%x", secret)) {
							t.Errorf("%.300q has a secret in it: %.20q", text, secret)
						}
					}
				}
			})
		})
	}
}

// What goes to the disk is only what another process needs: not the ID token.
func TestTheIDTokenIsNotKept(t *testing.T) {
	folder := t.TempDir()
	key(t, shares(t, newService(), folder))
	text, err := os.ReadFile(onlyFile(t, folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range secretsOf(token())[:4] {
		if strings.Contains(string(text), secret) {
			t.Errorf("the file has the ID token in it: %s", text)
		}
	}
}
