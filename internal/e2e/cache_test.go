package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// withAndWithoutCache starts extauthz twice with main.yaml, which has all kinds of pools and routes.
func withAndWithoutCache(t *testing.T) (with, without *service) {
	t.Helper()
	values := map[string]string{
		"MAIN": pool(t, mainPool).Issuer(), "STRICT": pool(t, strictPool).Issuer(),
		"DARK": pool(t, darkPool).Issuer(), "HANGING": pool(t, hangingPool).Issuer(),
	}
	return newService(t, "main.yaml", values), newService(t, "main.yaml", values, "EXTAUTHZ__TOKEN_CACHE__ENABLED=false", "EXTAUTHZ__DECISION_CACHE__ENABLED=false")
}

// A cacheCase is a request and what it comes to, with a cache and without.
type cacheCase struct {
	name   string
	path   string
	header map[string]string
	status int // HTTP; 200 for an allow
	reason string
}

func cacheCases(t *testing.T) (all []cacheCase) {
	t.Helper()
	p, strict := pool(t, mainPool), pool(t, strictPool)
	as := func(token string) map[string]string { return map[string]string{"authorization": "Bearer " + token} }
	for _, b := range badTokens(t) {
		all = append(all, cacheCase{b.name, b.path, as(b.token), b.want.Status, b.want.Reason})
	}
	good := p.Token(batchID)
	forged := as(good)
	forged["x-auth-client-id"], forged["x_auth_pool"] = "forged", "forged"
	return append(
		all,
		cacheCase{"a good token", "/orders/7", as(good), 200, "allowed"},
		cacheCase{"the same on another route", "/orders/8?page=2", as(good), 200, "allowed"},
		cacheCase{"the same on a route of few clients", "/orders/export", as(good), 200, "allowed"},
		cacheCase{"the same with forged headers", "/orders/7", forged, 200, "allowed"},
		cacheCase{"another client", "/admin/users", as(p.Token(adminID)), 200, "allowed"},
		cacheCase{"a claim for a header", "/orders/7", as(p.Token(batchID, cognitotest.Claim("custom:tier", "gold & 100%"))), 200, "allowed"},
		cacheCase{"a list for a header", "/files/a", as(p.Token(batchID, cognitotest.Scopes(), cognitotest.WithoutClaim("jti"), cognitotest.Claim("custom:tier", []any{"a b", 7, true}))), 200, "allowed"},
		cacheCase{"a person", "/files/a", as(p.UserToken(reportsID, "ann")), 200, "allowed"},
		cacheCase{"an audience", "/strict", as(strict.Token(batchID, cognitotest.Claim("aud", "https://api.example.com"))), 200, "allowed"},
		cacheCase{"a public route", "/healthz", as(good), 200, "allowed"},
		cacheCase{"a public route, a bad token", "/healthz", as("junk"), 200, "allowed"},
		cacheCase{"no token", "/orders/7", nil, 401, "missing_token"},
		cacheCase{"two tokens", "/orders/7", map[string]string{"authorization": "Bearer " + good + ",Bearer " + good}, 400, "invalid_request"},
		cacheCase{"an ambiguous path", "/orders/%252e%252e", as(good), 400, "invalid_path"},
		cacheCase{"a gRPC call", "/orders/7", map[string]string{"authorization": "Bearer " + p.Token(outsiderID), "content-type": "application/grpc"}, 403, "client_not_allowed"},
	)
}

// The answer is the same with a token cache and without, the first time and the second: all of it, but for the decision id
// and for how long to wait.
func TestCacheChangesNoAnswer(t *testing.T) {
	t.Parallel()
	x, plain := withAndWithoutCache(t)
	with, without := connect(t, x), connect(t, plain)
	for _, tt := range cacheCases(t) {
		want := checked(t, without, tt)
		if got := verdictOf(want); got.Reason != tt.reason || max(got.Status, 200) != tt.status {
			t.Errorf("%s: got %+v, want %d %s", tt.name, got, tt.status, tt.reason)
		}
		for what, conn := range map[string]*grpc.ClientConn{"without the cache, once more": without, "with the cache": with, "with the cache, once more": with} {
			if diff := cmp.Diff(want, checked(t, conn, tt), protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s: -without +got:\n%s", tt.name, what, diff)
			}
		}
	}
	c := x.status(t).TokenCache
	if c == nil || c.Hits < 20 || c.Misses < 20 || c.Verified < 10 || c.Refused < 3 || c.Bytes < 1000*c.Verified {
		t.Fatalf("/status says of the cache %+v, want at least 20 hits, 20 misses, 10 verified tokens of 1,000 bytes each, and 3 bad ones", c)
	}
	for name, want := range map[string]int{
		`lookups_total{result="hit"`: c.Hits, `lookups_total{result="miss"`: c.Misses, `tokens{state="verified"`: c.Verified, `tokens{state="refused"`: c.Refused,
	} {
		if got := x.metric(t, "extauthz_token_cache_"+name); got != int64(want) {
			t.Errorf("extauthz_token_cache_%s} is %d, want what /status says, %d", name, got, want)
		}
	}
	if _, _, body := fetch(t, "http://"+plain.Metrics+"/metrics"); strings.Contains(body, "extauthz_token_cache") || plain.status(t).TokenCache != nil {
		t.Error("without a cache there are metrics or a status of one, want none")
	}
}

var anyID = regexp.MustCompile(`[0-9a-f]{32}`)

// checked returns the answer to a check without what is another each time.
func checked(t *testing.T, conn *grpc.ClientConn, tt cacheCase) *authv3.CheckResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	resp, err := authv3.NewAuthorizationClient(conn).Check(ctx, checkRequest(tt.path, tt.header))
	if err != nil {
		t.Fatalf("%s: gRPC error %v, want an answer", tt.name, err)
	}
	if id := resp.GetDynamicMetadata().GetFields()["decision_id"].GetStringValue(); !decisionID.MatchString(id) {
		t.Errorf("%s: the metadata has the decision id %q, want 32 hex digits", tt.name, id)
	}
	delete(resp.GetDynamicMetadata().GetFields(), "decision_id")
	if denied := resp.GetDeniedResponse(); denied != nil {
		denied.Body = anyID.ReplaceAllString(denied.Body, "an id")
		for _, h := range denied.Headers {
			if strings.EqualFold(h.GetHeader().GetKey(), "retry-after") {
				h.Header.Value = "some seconds"
			}
		}
	}
	return resp
}

// A token in the cache is let in until it expires, and not a moment longer.
func TestCachedTokenExpires(t *testing.T) {
	t.Parallel()
	g, p := shipped(t), pool(t, mainPool)
	issued := time.Now()
	expires := issued.Truncate(time.Second).Add(3 * time.Second)
	token := p.Token(batchID, cognitotest.IssuedAt(issued), cognitotest.TTL(3*time.Second))
	expired := refused("expired", "The access token has expired. Get a new one.")
	allowed := 0
	eventually(t, func() error {
		sent := time.Now()
		got := g.order(t, token)
		switch {
		case got == reaches(ordered) && sent.Before(expires):
			allowed++
		case got == reaches(ordered):
			t.Fatalf("let in %s after it expired", sent.Sub(expires))
		case got != expired || time.Now().Before(expires):
			t.Fatalf("got %+v %s before it expired, want 200 until then and expired after", got, expires.Sub(sent))
		}
		if got != expired {
			return fmt.Errorf("let in %d times, want it to expire", allowed)
		}
		return nil
	})
	if allowed < 2 {
		t.Errorf("let in %d times before it expired, want at least 2, the second from the cache", allowed)
	}
}
