package authz

import (
	"encoding/json"
	"testing"
	"testing/fstest"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// A claim costs nothing, and can do no harm, where the policy reads no claims. A policy that reads one sees all.
func TestClaimsThatNobodyReads(t *testing.T) {
	for rego, want := range map[string]string{
		"": "allowed",
		"package extauthz\ndecision := data.extauthz.base.decision\n":                                   "allowed",
		"package extauthz\ndecision if input.token.claims.tier == \"gold\"\n":                           "allowed",
		"package extauthz\ndecision if { some name; input.token[name].tier == \"gold\" }\n":             "allowed",
		"package extauthz\ndecision if object.get(input, [\"token\", \"claims\"], {}).tier == \"gold\"": "allowed",
		"package extauthz\ndecision if not input.token.claims.tier\n":                                   "policy_undefined",
	} {
		s := newShipped(t, func(cfg *Config) {
			c := policy.Config{CacheBytes: 1 << 20}
			if rego != "" {
				c.FS = fstest.MapFS{"p.rego": {Data: []byte(rego)}}
			}
			var err error
			if cfg.Authorizer, err = policy.New(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		})
		ask := func(more ...cognitotest.TokenOption) string {
			options := append([]cognitotest.TokenOption{cognitotest.Scopes("orders/read"), cognitotest.Claim("tier", "gold")}, more...)
			resp := new(authv3.CheckResponse)
			if err := proto.Unmarshal(s.CheckMessage(t.Context(), nil, captured(t, "read-order", s.pool.Token(benchClient, options...))), resp); err != nil {
				t.Fatal(err)
			}
			return resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
		}
		for range 2 { // the second time it may be remembered
			if got := ask(); got != want {
				t.Errorf("%q: reason is %s, want %s", rego, got, want)
			}
		}
		want := "policy_error" // what has no form in Rego cannot be shown to who reads it
		if rego == "" || rego == "package extauthz\ndecision := data.extauthz.base.decision\n" {
			want = "allowed"
		}
		if got := ask(cognitotest.Claim("huge", json.Number("1e9999"))); got != want {
			t.Errorf("%q with a huge number among the claims: reason is %s, want %s", rego, got, want)
		}
	}
}
