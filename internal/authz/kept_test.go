package authz

import (
	"context"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// What the log's rules make of a line changes the line, and not the claims of a token that others send too.
func TestMasksLeaveClaimsAlone(t *testing.T) {
	server, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	pool := server.Pools()[0]
	keys, _, err := validator.ParseJWKS(pool.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	v, err := validator.New(validator.Config{Name: "main", Issuers: []string{pool.Issuer()}, AllowAnyClient: true, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	cached, err := validator.NewCached(v, validator.CacheConfig{})
	if err != nil {
		t.Fatal(err)
	}
	engine, err := policy.New(t.Context(), policy.Config{FS: fstest.MapFS{
		"p.rego": {Data: []byte(`package extauthz
default decision := true
decision := false if input.token.claims.account.suspended_by
decision := false if input.token.claims.groups[_] == "suspended"
`)},
		"log.rego": {Data: []byte(`package system.log
mask contains "/input/token/claims/account/suspended_by"
mask contains {"op": "upsert", "path": "/input/token/claims/groups/0", "value": "***"}
`)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, claim := range map[string]cognitotest.TokenOption{
		"an object": cognitotest.Claim("account", map[string]any{"suspended_by": "bob@example.com"}),
		"a list":    cognitotest.Claim("groups", []any{"suspended"}),
	} {
		queue := asynclog.New(io.Discard, decisionlog.Limits)
		log := decisionlog.New(queue.Queue, decisionlog.Config{Path: "extauthz/decision", Rules: engine})
		h := newHarness(t, func(c *Config) {
			c.Authenticator, c.Authorizer = cached, engine
			c.Log = DecisionLog{To: log, Claims: []string{"account", "groups"}}
			c.Limits.TokenBytes, c.Limits.HeaderBytes = 4096, 16384
		})
		msg := marshal(t, get("/orders/7", withHeader("authorization", "Bearer "+pool.Token(cognitotest.DemoClientID, claim))))
		for i := range 2 {
			if got := reasonIn(t, sendBytes(t, h.Service, msg)); got != PolicyDenied {
				t.Errorf("%s: check %d has the reason %s, want policy_denied", name, i, got)
			}
			if err := queue.Close(context.Background()); err != nil { // the line is written
				t.Fatal(err)
			}
		}
	}
}

// A line that waits keeps nothing of the message but what it tells.
func TestLinesKeepNoMessages(t *testing.T) {
	reader, writer := io.Pipe() // a log that nobody reads
	queue := asynclog.New(writer, decisionlog.Limits)
	h := newHarness(t, func(c *Config) {
		c.Log = DecisionLog{To: decisionlog.New(queue.Queue, decisionlog.Config{}), Headers: []string{"x-tenant"}, Query: []string{"page"}}
	})
	const n, body = 200, 256 << 10
	before := heap()
	for range n {
		msg := marshal(t, get("/orders?page=2", withHeader("x-tenant", "a"), func(r *authv3.AttributeContext_HttpRequest) { r.Body = strings.Repeat("b", body) }))
		h.CheckMessage(t.Context(), nil, msg)
	}
	if grown := heap() - before; grown > n*body/4 {
		t.Errorf("%d lines keep %d bytes, want less than a quarter of the messages, of %d bytes each", n, grown, body)
	}
	_ = reader.Close()
	if err := queue.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
