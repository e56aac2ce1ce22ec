package cognitotest_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// TestStartRefuses: each Config is one change away from one that starts.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	pool := func(edit func(*cognitotest.PoolConfig)) func(*cognitotest.Config) {
		return func(cfg *cognitotest.Config) { edit(&cfg.Pools[0]) }
	}
	first := func(edit func(*cognitotest.Client)) func(*cognitotest.Config) {
		return func(cfg *cognitotest.Config) { edit(&cfg.Pools[0].Clients[0]) }
	}
	tests := []struct {
		name string
		edit func(*cognitotest.Config)
		want string
	}{
		{"all interfaces", func(cfg *cognitotest.Config) { cfg.Addr = "0.0.0.0:0" }, `host "0.0.0.0" is reachable from elsewhere, want localhost or a loopback address`},
		{"no host", func(cfg *cognitotest.Config) { cfg.Addr = ":9199" }, `host "" is reachable from elsewhere`},
		{"a name", func(cfg *cognitotest.Config) { cfg.Addr = "example.com:1" }, `host "example.com" is reachable from elsewhere`},
		{"no port", func(cfg *cognitotest.Config) { cfg.Addr = "127.0.0.1" }, "want host:port, such as 127.0.0.1:9199"},
		{"a bad port", func(cfg *cognitotest.Config) { cfg.Addr = "127.0.0.1:x" }, "cognitotest: listen: "},
		{"no pool", func(cfg *cognitotest.Config) { cfg.Pools = nil }, "there is no pool, want at least one; DemoPool"},
		{"two pools of one ID", func(cfg *cognitotest.Config) { cfg.Pools = append(cfg.Pools, cognitotest.DemoPool()) }, `pool "eu-west-1_Demo12345": there are two of this ID`},
		{"pool ID", pool(func(p *cognitotest.PoolConfig) { p.ID = "demo" }), `pool "demo": the ID is "demo", want a region, _ and letters and digits`},
		{"pool ID with a slash", pool(func(p *cognitotest.PoolConfig) { p.ID = "a/b_c" }), `the ID is "a/b_c"`},
		{"resource server", pool(func(p *cognitotest.PoolConfig) { p.ResourceServers[0].Identifier = "a b" }), `resource server: the identifier is "a b"`},
		{"scope name", pool(func(p *cognitotest.PoolConfig) {
			p.ResourceServers[0].Scopes = append(p.ResourceServers[0].Scopes, "a/b")
		}), `resource server "orders": a scope is "a/b"`},
		{"two clients of one ID", pool(func(p *cognitotest.PoolConfig) { p.Clients[1].ID = p.Clients[0].ID }), `client "1ordersbatch0demo0client00": there are two of this ID`},
		{"client ID", first(func(c *cognitotest.Client) { c.ID = "a b" }), `client "a b": the ID is "a b", want 1 to 128 letters, digits, _ and +`},
		{"three secrets", first(func(c *cognitotest.Client) { c.Secrets = []string{"a", "b", "c"} }), "there are 3 secrets, want at most 2"},
		{"an empty secret", first(func(c *cognitotest.Client) { c.Secrets = []string{""} }), "a secret is empty"},
		{"another flow", first(func(c *cognitotest.Client) { c.Flows = []string{"implicit"} }), `a flow is "implicit", want client_credentials or code`},
		{"client credentials without a secret", first(func(c *cognitotest.Client) {
			c.Secrets, c.Flows = nil, []string{cognitotest.FlowClientCredentials}
		}), "there is no secret, want one for the flow client_credentials"},
		{"a scope of no resource server", first(func(c *cognitotest.Client) { c.Scopes = []string{"billing/read"} }), `scope "billing/read" is none of the pool's resource servers; they have [orders/admin orders/read orders/write]`},
		{"a scope for people", first(func(c *cognitotest.Client) { c.Scopes = []string{"openid"} }), `scope "openid" is one that only a user can grant`},
		{"a negative lifetime", first(func(c *cognitotest.Client) { c.TokenTTL = -time.Second }), "the token lifetime is -1s, want whole seconds"},
		{"a part of a second", first(func(c *cognitotest.Client) { c.TokenTTL = 1500 * time.Millisecond }), "the token lifetime is 1.5s, want whole seconds"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}}
			tt.edit(&cfg)
			s, err := cognitotest.Start(cfg)
			if err == nil {
				s.Close()
				t.Fatal("it started")
			}
			if !strings.HasPrefix(err.Error(), "cognitotest: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
		})
	}
}

func TestStartNamesAllProblems(t *testing.T) {
	t.Parallel()
	p := cognitotest.DemoPool()
	p.ID = "x"
	p.Clients[0].ID = ""
	p.Clients[1].Secrets = []string{""}
	_, err := cognitotest.Start(cognitotest.Config{Addr: ":1", Pools: []cognitotest.PoolConfig{p}})
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v, want four lines", err)
	}
}

func TestListensOnLoopback(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"", "127.0.0.1:0", "127.0.0.2:0", "localhost:0"} {
		s, _ := start(t, func(cfg *cognitotest.Config) { cfg.Addr = addr })
		host, _, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
		if err != nil || !net.ParseIP(host).IsLoopback() {
			t.Errorf("%q: URL is %s, %v", addr, s.URL, err)
		}
	}
}

func TestPoolLookup(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	if s.Pool(cognitotest.DemoPoolID) != pool || s.Pool("x") != nil {
		t.Error("Pool does not find what is there, or finds what is not")
	}
	if want := s.URL + "/" + cognitotest.DemoPoolID; pool.Issuer() != want || pool.TokenURL() != want+"/oauth2/token" {
		t.Errorf("issuer %s, token endpoint %s; want them at %s", pool.Issuer(), pool.TokenURL(), want)
	}
}
