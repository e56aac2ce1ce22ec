package config

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/route"
)

// FuzzParse holds that Parse never panics, that its problems point into the file and fit on a line, and that it
// accepts only what can then be used: see usable.
func FuzzParse(f *testing.F) {
	good := readFile(f, "testdata/good.yaml")
	_, mistakes := parseMistakes(f, readFile(f, "testdata/mistakes.txt"))
	for _, m := range mistakes {
		f.Add([]byte(m.change(f, good)), strings.Join(m.environ, ""))
	}
	for _, text := range []string{good, minimal, readFile(f, "../../docs/extauthz.example.yaml"), "\ufeff", "\xff\xfe", "? a\n: b", "a: |\n  b", "%YAML 1.2\n---\n", "- !!map {}"} {
		f.Add([]byte(text), "EXTAUTHZ__REALM=x")
	}
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		c, err := Parse("dir/f.yaml", data, []string{variable})
		if err == nil {
			usable(t, c, string(data))
			return
		}
		var e *Error
		if !errors.As(err, &e) || len(e.Problems) == 0 || c != nil {
			t.Fatalf("found %v and %T, want problems", c, err)
		}
		lines := bytes.Split(bytes.TrimPrefix(data, []byte("\ufeff")), []byte("\n"))
		for _, p := range e.Problems {
			if p.Message == "" || strings.Count(p.String(), "\n") > 1 || strings.Contains(p.Key+p.Message+p.Hint, "\n") {
				t.Errorf("found %q, want a line and perhaps a hint", p)
			}
			if p.Variable != "" {
				continue
			}
			if p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCount(lines[p.Line-1])+1 {
				t.Errorf("%v: line or column is not in the file", p)
			}
		}
	})
}

// usable fails the test if something in a configuration would be refused by what it is for.
func usable(t *testing.T, c *Config, text string) {
	t.Helper()
	again, err := Parse("dir/f.yaml", c.YAML(), nil)
	if err != nil {
		t.Fatalf("the effective configuration is refused:\n%v\n%s", err, c.YAML())
	}
	if diff := cmp.Diff(c, again, exported); diff != "" {
		t.Fatalf("the effective configuration means something else:\n%s", diff)
	}
	if c.Revision() != again.Revision() {
		t.Error("the effective configuration has another revision")
	}
	if problem := schemaProblem(t, text); problem != "" {
		t.Errorf("the schema refuses it: %s", problem)
	}
	if _, err := route.NewTable(c.Rules()); err != nil {
		t.Errorf("the route table is refused: %v", err)
	}
	for _, address := range []string{c.Listen.GRPC, c.Listen.Metrics, c.Listen.Admin} {
		if path, ok := UnixSocket(address); ok {
			if !strings.HasPrefix(path, "/") {
				t.Errorf("address %q has no absolute path", address)
			}
			continue
		}
		if _, port, err := net.SplitHostPort(address); address != "" && (err != nil || port == "") {
			t.Errorf("address %q: %v", address, err)
		} else if _, err := net.LookupPort("tcp", port); address != "" && err != nil {
			t.Errorf("address %q: %v", address, err)
		}
	}
	if len(c.Pools) == 0 || len(c.Routes) == 0 || c.Policy.Timeout <= 0 || c.Limits.ConcurrentChecks <= 0 || c.Shutdown.Timeout <= 0 {
		t.Error("something that is needed is zero")
	}
	issuers := make(map[string]bool)
	for name, p := range c.Pools {
		usablePool(t, c, name, p)
		for _, iss := range p.Issuers() {
			if issuers[iss] {
				t.Errorf("issuer %s is that of two pools", iss)
			}
			issuers[iss] = true
		}
	}
}

// usablePool checks a pool as pkg/validator does.
func usablePool(t *testing.T, c *Config, name string, p Pool) {
	t.Helper()
	if len(p.Clients) == 0 && !p.AnyClient {
		t.Errorf("pool %s says nothing about clients", name)
	}
	for _, client := range p.Clients {
		if c.Clients[client].ID == "" {
			t.Errorf("pool %s has the client %s without id", name, client)
		}
	}
	for _, text := range append(p.Issuers(), p.KeysURL()) {
		u, err := url.Parse(text)
		if text == "" && p.JWKSFile != "" {
			continue
		}
		if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
			t.Errorf("pool %s has the URL %q: %v", name, text, err)
		}
	}
	if p.Leeway > 5*time.Minute || p.ExpLeeway > 5*time.Minute || p.JWKS.MinInterval <= 0 || p.JWKS.Timeout <= 0 || p.JWKS.MaxStale < p.JWKS.MaxAge {
		t.Errorf("pool %s has unusable times: %+v", name, p)
	}
	if len(p.TokenUse) == 0 || slices.Contains(p.Audience, "") || slices.Contains(p.RequiredScopes, "") {
		t.Errorf("pool %s has empty items: %+v", name, p)
	}
}
