package e2e_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

const notAccepted = "The access token was not accepted."

// badToken is a token that is refused, and how.
type badToken struct {
	name  string
	token string
	path  string // of a route that a good token is allowed on
	want  outcome
}

// badTokens has one or more tokens for each reason to refuse one. All but the first few differ in one thing from a token
// that is accepted.
func badTokens(t *testing.T) []badToken {
	t.Helper()
	p, strict := pool(t, mainPool), pool(t, strictPool)
	strictToken := func(opts ...cognitotest.TokenOption) string {
		return strict.Token(batchID, append([]cognitotest.TokenOption{cognitotest.Claim("aud", "https://api.example.com")}, opts...)...)
	}
	good := p.Token(batchID)
	parts := strings.Split(good, ".")
	newKid := p.ForgedKey()
	newKid.ID = "bm90IGEga2V5IG9mIHRoaXMgcG9vbA=="
	long := time.Now().Add(-5 * time.Minute) // ago: keys have been fetched since

	const orders = "/orders/7"
	return []badToken{
		{"malformed: no JWS", "junk", orders, refused("malformed", notAccepted)},
		{"malformed: two parts", parts[0] + "." + parts[1], orders, refused("malformed", notAccepted)},
		{"malformed: no signature", parts[0] + "." + parts[1] + ".", orders, refused("malformed", notAccepted)},
		{"malformed: four parts", good + ".AAAA", orders, refused("malformed", notAccepted)},
		{"malformed: padding", good + "==", orders, refused("malformed", notAccepted)},
		{"malformed: a key of its own", p.Token(batchID, cognitotest.HeaderParam("jku", "http://127.0.0.1:1/jwks.json")), orders, refused("malformed", notAccepted)},
		{"malformed: an extension", p.Token(batchID, cognitotest.HeaderParam("crit", []string{"exp"})), orders, refused("malformed", notAccepted)},
		{"malformed: another typ", p.Token(batchID, cognitotest.HeaderParam("typ", "logout+jwt")), orders, refused("malformed", notAccepted)},
		{"malformed: no kid", p.Sign(map[string]any{"alg": "RS256"}, p.Claims(batchID)), orders, refused("malformed", notAccepted)},
		{"malformed: a member twice", p.SignBytes(nil, []byte(`{"iss":"a","iss":"b"}`)), orders, refused("malformed", notAccepted)},
		{"malformed: claims that are no object", p.SignBytes(nil, []byte(`["iss"]`)), orders, refused("malformed", notAccepted)},
		{"algorithm: none", p.Token(batchID, cognitotest.HeaderParam("alg", "none")), orders, refused("algorithm", notAccepted)},
		{"algorithm: HS256", p.Token(batchID, cognitotest.HeaderParam("alg", "HS256")), orders, refused("algorithm", notAccepted)},
		{"algorithm: RS512", p.Token(batchID, cognitotest.HeaderParam("alg", "RS512")), orders, refused("algorithm", notAccepted)},
		{"issuer: another", p.Token(batchID, cognitotest.Claim("iss", "https://evil.example")), orders, refused("issuer", notAccepted)},
		{"issuer: with a slash", p.Token(batchID, cognitotest.Claim("iss", p.Issuer()+"/")), orders, refused("issuer", notAccepted)},
		{"claims: no issuer", p.Token(batchID, cognitotest.WithoutClaim("iss")), orders, refused("claims", notAccepted)},
		{"claims: no client_id", p.Token(batchID, cognitotest.WithoutClaim("client_id")), orders, refused("claims", notAccepted)},
		{"claims: no exp", p.Token(batchID, cognitotest.WithoutClaim("exp")), orders, refused("claims", notAccepted)},
		{"claims: exp is text", p.Token(batchID, cognitotest.Claim("exp", "9999999999")), orders, refused("claims", notAccepted)},
		{"claims: client_id is a list", p.Token(batchID, cognitotest.Claim("client_id", []string{batchID})), orders, refused("claims", notAccepted)},
		{"expired: an hour ago", p.Token(batchID, cognitotest.IssuedAt(time.Now().Add(-2*time.Hour))), orders, refused("expired", "The access token has expired. Get a new one.")},
		{"expired: this second", p.Token(batchID, cognitotest.TTL(0)), orders, refused("expired", "The access token has expired. Get a new one.")},
		{"not_yet_valid: iat", p.Token(batchID, cognitotest.IssuedAt(time.Now().Add(5*time.Minute))), orders, refused("not_yet_valid", "The access token is not valid yet. Check the clocks.")},
		{"not_yet_valid: nbf", p.Token(batchID, cognitotest.Claim("nbf", time.Now().Add(5*time.Minute).Unix())), orders, refused("not_yet_valid", "The access token is not valid yet. Check the clocks.")},
		{"token_use: an ID token", p.IDToken(batchID, "ann"), orders, refused("token_use", "This is no access token. Send the access token.")},
		{"scope_claim: a list", p.Token(batchID, cognitotest.Claim("scope", []string{"orders/read"})), orders, refused("scope_claim", notAccepted)},
		{"scope_claim: a quote", p.Token(batchID, cognitotest.Claim("scope", `orders/read "`)), orders, refused("scope_claim", notAccepted)},
		{"audience: none", strict.Token(batchID), "/strict", refused("audience", notAccepted)},
		{"audience: another", strictToken(cognitotest.Claim("aud", []string{"https://other.example.com"})), "/strict", refused("audience", notAccepted)},
		{"not_a_machine", strict.UserToken(batchID, "ann", cognitotest.Claim("aud", "https://api.example.com")), "/strict", refused("not_a_machine", "Only tokens of the client credentials grant are accepted here.")},
		{"unknown_key", p.Token(batchID, cognitotest.IssuedAt(long), cognitotest.SignedBy(newKid)), orders, refused("unknown_key", notAccepted)},
		{"signature: another key under a known kid", p.Token(batchID, cognitotest.SignedBy(p.ForgedKey())), orders, refused("signature", notAccepted)},
		{"signature: other claims", parts[0] + "." + strings.Split(p.Token(adminID), ".")[1] + "." + parts[2], orders, refused("signature", notAccepted)},
		{"signature: another pool's token under this issuer", strict.Token(batchID, cognitotest.Claim("iss", p.Issuer()), cognitotest.SignedBy(cognitotest.Key{ID: p.AccessKey().ID, Private: strict.AccessKey().Private})), orders, refused("signature", notAccepted)},

		{"client_not_allowed: not one of the pool's", p.Token(outsiderID), orders, denied("client_not_allowed")},
		{"client_not_allowed: not one of the route's", p.Token(reportsID), "/orders/export", denied("client_not_allowed")},
		{"client_not_allowed: a token of another pool than the route's", strictToken(), orders, denied("client_not_allowed")},
		{"insufficient_scope: of the pool", strictToken(cognitotest.Scopes("orders/read")), "/strict", scopeMissing("orders/read orders/write")},
		{"insufficient_scope: of the route, one of several", p.Token(batchID, cognitotest.Scopes("orders/write")), orders, scopeMissing("orders/read")},
		{"insufficient_scope: of the route, none at all", p.Token(batchID, cognitotest.Scopes()), orders, scopeMissing("orders/read")},
		{"insufficient_scope: of the route, only one that looks like it", p.Token(batchID, cognitotest.Scopes("orders/reading", "orders", "read", "ORDERS/READ")), orders, scopeMissing("orders/read")},
		{"insufficient_scope: a powerful route", good, "/admin/users", scopeMissing("orders/admin")},
		{"no_route", good, "/no/such/route", denied("no_route")},
		{"no_route: a trailing slash is another path", good, "/orders/7/", denied("no_route")},

		{"keys_unavailable: never had", pool(t, darkPool).Token(batchID), "/dark", failed("keys_unavailable")},
		// As fresh as leeway allows, so that no fetch can be younger while the test runs.
		{"keys_unavailable: a kid that may be new", p.Token(batchID, cognitotest.IssuedAt(time.Now().Add(20*time.Second)), cognitotest.SignedBy(newKid)), orders, failed("keys_unavailable")},
	}
}

// goodTokens are the accepted ones that badTokens changes.
func TestGoodTokens(t *testing.T) {
	t.Parallel()
	g := shipped(t)
	for path, token := range map[string]string{
		"/orders/7":      pool(t, mainPool).Token(batchID),
		"/orders/8":      pool(t, mainPool).Token(adminID),
		"/orders/export": pool(t, mainPool).Token(batchID, cognitotest.Scopes()),
		"/admin/users":   pool(t, mainPool).Token(adminID),
		"/strict":        pool(t, strictPool).Token(batchID, cognitotest.Claim("aud", "https://api.example.com")),
		"/files/a":       pool(t, mainPool).UserToken(reportsID, "ann"), // a person, where a pool does not say machinesOnly
	} {
		if diff := cmp.Diff(reaches(path), g.get(t, path, "Authorization: Bearer "+token).outcome()); diff != "" {
			t.Errorf("%s: -want +got:\n%s", path, diff)
		}
	}
}

var decisionID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func TestBadTokens(t *testing.T) {
	t.Parallel()
	g, x := shipped(t), mainService(t)
	for _, tt := range badTokens(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := g.get(t, tt.path, "Authorization: Bearer "+tt.token)
			if diff := cmp.Diff(tt.want, a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s\n%s", diff, a.body)
			}
			checkProblem(t, a)
			checkRecords(t, g, x, a)
		})
	}
}

// checkProblem checks what all problem bodies have in common.
func checkProblem(t *testing.T, a answer) {
	t.Helper()
	p := a.problem()
	if p.Status != a.status || p.Title == "" || p.Detail == "" || !decisionID.MatchString(p.DecisionID) {
		t.Errorf("the body is %s, want title, detail, status %d and a decision id", a.body, a.status)
	}
	if len(a.body) > 400 {
		t.Errorf("the body has %d bytes, want a few hundred", len(a.body))
	}
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("cache-control is %q, want no-store", got)
	}
}

// checkRecords checks that Envoy's access log and extauthz's log tell the same decision as the answer.
func checkRecords(t *testing.T, g *gateway, x *service, a answer) {
	t.Helper()
	p := a.problem()
	got := g.logged(t, a)
	want := map[string]any{"status": float64(a.status), "details": "ext_authz_denied", "flags": "UAEX", "reason": p.Reason, "decision_id": p.DecisionID}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("Envoy's access log: %s is %v, want %v", name, got[name], value)
		}
	}
	line := x.decision(t, p.DecisionID)
	outcomes := map[int]string{400: "refused", 401: "refused", 403: "denied", 503: "failed"}
	if line["reason"] != p.Reason || line["outcome"] != outcomes[a.status] {
		t.Errorf("extauthz's log: %v, want outcome %s and reason %s", line, outcomes[a.status], p.Reason)
	}
	level := "INFO"
	if a.status >= 500 {
		level = "ERROR"
	}
	if line["level"] != level {
		t.Errorf("extauthz's log: level %v, want %s", line["level"], level)
	}
}

func TestAnswersWithoutAToken(t *testing.T) {
	t.Parallel()
	g, x := shipped(t), mainService(t)
	tests := []struct {
		name   string
		target string
		header string
		want   outcome
	}{
		{"no Authorization header", "/orders/7", "", missing()},
		{"another scheme", "/orders/7", "Authorization: Basic eDp5", missing()},
		{"a scheme that begins like Bearer", "/orders/7", "Authorization: BearerToken abc", missing()},
		{"no route, and nobody learns it without a token", "/no/such/route", "", missing()},
		{"a route that only some clients may use, and nobody learns it", "/orders/export", "", missing()},
		{"a token in the query", "/orders/7?access_token=junk", "", missing()},
		{"a token in a cookie", "/orders/7", "Cookie: access_token=junk", missing()},
		{"a scheme and no token", "/orders/7", "Authorization: Bearer", invalid("invalid_request")},
		{"a token with a space", "/orders/7", "Authorization: Bearer a b", invalid("invalid_request")},
		{"a token with a character that no token has", "/orders/7", "Authorization: Bearer a(b)", invalid("invalid_request")},
		{"an ambiguous path", "/orders/%2e%2e;x/admin", "", invalid("invalid_path")},
		{"an ambiguous path on a public route", "/public/%2e%2e;/admin/users", "", invalid("invalid_path")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var headers []string
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			a := g.get(t, tt.target, headers...)
			if diff := cmp.Diff(tt.want, a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s\n%s", diff, a.body)
			}
			checkProblem(t, a)
			checkRecords(t, g, x, a)
		})
	}
}

// A path that no route at all would admit gets 400 from everybody; one that some route admits gets 401 without a token, so
// that nobody learns which.
func TestPathParametersWithoutAToken(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(invalid("invalid_path"), ownShipped(t).get(t, "/case/yes;x").outcome()); diff != "" {
		t.Errorf("where no route admits them: -want +got:\n%s", diff)
	}
	for _, target := range []string{"/orders/7;x", "/tickets/7;x", "/nowhere;x"} {
		if diff := cmp.Diff(missing(), shipped(t).get(t, target).outcome()); diff != "" {
			t.Errorf("%s: -want +got:\n%s", target, diff)
		}
	}
}

// A query that cannot be read is refused where a policy reads queries, as it would decide about another one than the
// service gets.
func TestQueryThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"?a=%zz", "?a=1;b=2", "?%", "?a=%ff"} {
		if diff := cmp.Diff(reaches("/orders/7"+query), shipped(t).get(t, "/orders/7"+query, bearer(t, batchID)).outcome()); diff != "" {
			t.Errorf("%s, read by nobody: -want +got:\n%s", query, diff)
		}
		if diff := cmp.Diff(invalid("invalid_request"), ownShipped(t).get(t, "/case/reads"+query, bearer(t, batchID)).outcome()); diff != "" {
			t.Errorf("%s, read by the policy: -want +got:\n%s", query, diff)
		}
	}
}

// GET, HEAD and HTTP/2 get the same answers.
func TestAnswersOfOtherForms(t *testing.T) {
	t.Parallel()
	g := shipped(t)
	for _, tt := range []struct {
		name, path string
		token      string
		want       outcome
	}{
		{"allowed", "/orders/7", pool(t, mainPool).Token(batchID), reaches("/orders/7")},
		{"refused", "/orders/7", "junk", refused("malformed", notAccepted)},
		{"denied", "/no/such/route", pool(t, mainPool).Token(batchID), denied("no_route")},
		{"failed", "/dark", pool(t, darkPool).Token(batchID), failed("keys_unavailable")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := g.sendH2(t, h2("GET", tt.path, field{"authorization", "Bearer " + tt.token}))
			if diff := cmp.Diff(tt.want, a.outcome()); diff != "" {
				t.Errorf("HTTP/2: -want +got:\n%s", diff)
			}
			if tt.name == "failed" {
				return // its route has no HEAD
			}
			a = g.send(t, "HEAD "+tt.path+" HTTP/1.1", host, "Authorization: Bearer "+tt.token)
			want := tt.want
			want.Reason, want.Upstream = "", "" // they are told in the body, which HEAD does not have
			if diff := cmp.Diff(want, a.outcome()); diff != "" {
				t.Errorf("HEAD: -want +got:\n%s", diff)
			}
			if a.body != "" {
				t.Errorf("HEAD: the body is %q, want none", a.body)
			}
			if entry := g.logged(t, a); entry["reason"] != wantReason(tt.want) {
				t.Errorf("HEAD: Envoy's access log has %v, want reason %s", entry, wantReason(tt.want))
			}
		})
	}
}

func wantReason(o outcome) string {
	if o.Upstream != "" {
		return "allowed"
	}
	return o.Reason
}

// Methods are compared exactly, and a route for one says nothing about another.
func TestMethods(t *testing.T) {
	t.Parallel()
	g := shipped(t)
	token := bearer(t, batchID)
	for _, tt := range []struct {
		method, target string
		want           outcome
	}{
		{"GET", "/orders/7", reaches("/orders/7")},
		{"POST", "/orders", reaches("/orders")},
		{"DELETE", "/orders/7", denied("no_route")},
		{"OPTIONS", "/orders/7", denied("no_route")},
		{"get", "/orders/7", byEnvoy(0)},
		{"PROPFIND", "/public/x", reaches("/public/x")},
		{"GET", "/orders", denied("no_route")},
	} {
		a := g.send(t, tt.method+" "+tt.target+" HTTP/1.1", host, token, "X-Http-Method-Override: GET", "Content-Length: 0")
		got := a.outcome()
		if got.Status == 400 && tt.want == byEnvoy(0) {
			got = byEnvoy(0) // Envoy may say so, or close
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s %s: -want +got:\n%s", tt.method, tt.target, diff)
		}
		if a.seen != nil && a.seen.Headers["x-http-method-override"] != nil {
			t.Errorf("%s %s: the upstream saw x-http-method-override", tt.method, tt.target)
		}
	}
}

func TestOwnPolicyDenies(t *testing.T) {
	t.Parallel()
	g := ownShipped(t)
	token := bearer(t, reportsID)
	own := func(status int, challenge, contentType string) outcome {
		return outcome{Status: status, Challenge: challenge, ContentType: contentType}
	}
	quota := denied("quota_used_up")
	quota.Status, quota.RetryAfter = 429, true
	tests := []struct {
		name string
		want outcome
		body string // checked if the policy gives one
		log  string // reason in Envoy's access log
	}{
		{"no", denied("policy_denied"), "", "policy_denied"},
		{"quota", quota, "", "quota_used_up"},
		{"unlisted-reason", denied("policy_denied"), "", "policy_denied"},
		{"scope", scopeMissing("orders/admin orders/write"), "", "insufficient_scope"},
		{"own-body", own(302, "", "text/html"), "<p>Sign in</p>", "policy_denied"},
		{"empty-body", own(403, "", ""), "", "policy_denied"}, // Envoy leaves the content type of nothing out
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := g.get(t, "/case/"+tt.name, token)
			if diff := cmp.Diff(tt.want, a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s\n%s", diff, a.body)
			}
			if tt.want.Reason == "" && a.body != tt.body {
				t.Errorf("the body is %q, want %q", a.body, tt.body)
			}
			if entry := g.logged(t, a); entry["reason"] != tt.log || entry["client_id"] != reportsID {
				t.Errorf("Envoy's access log has %v, want reason %s and the client", entry, tt.log)
			}
		})
	}
	a := g.get(t, "/case/own-body", token)
	if got := fmt.Sprint(a.header.Get("Location"), a.header["Set-Cookie"]); got != "https://login.example.com/[a=1 b=2]" {
		t.Errorf("location and cookies: got %s", got)
	}
	if a := g.get(t, "/case/quota", token); a.header.Get("Retry-After") != "7" {
		t.Errorf("retry-after is %q, want 7", a.header.Get("Retry-After"))
	}
}

// A policy in place of the built-in one decides alone; one beside it can build on it.
func TestOwnPolicyInPlaceOfAndBeside(t *testing.T) {
	t.Parallel()
	reports, batch := bearer(t, reportsID), bearer(t, batchID)
	notFound := denied("policy_denied")
	notFound.Status = 404
	tests := []struct {
		name    string
		gateway *gateway
		target  string
		token   string
		want    outcome
	}{
		{"in place: allows", ownShipped(t), "/case/yes", reports, reaches("/case/yes")},
		{"in place: denies", ownShipped(t), "/case/no", reports, denied("policy_denied")},
		{"in place: a token is needed all the same", ownShipped(t), "/case/yes", "Authorization: Bearer junk", refused("malformed", notAccepted)},
		{"in place: so is a route", ownShipped(t), "/elsewhere", reports, denied("no_route")},
		{"in place: decides about public routes too", ownShipped(t), "/open/no", reports, denied("policy_denied")},
		{"in place: allows on a public route", ownShipped(t), "/open/yes", reports, reaches("/open/yes")},
		{"beside: allows what the routes allow", extendShipped(t), "/orders/7", batch, reaches("/orders/7")},
		{"beside: denies what the routes deny", extendShipped(t), "/orders/7", bearer(t, batchID, cognitotest.Scopes("orders/write")), scopeMissing("orders/read")},
		{"beside: denies what the rule denies", extendShipped(t), "/orders/13", batch, notFound},
		{"beside: public", extendShipped(t), "/public/a", batch, reaches("/public/a")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.gateway.get(t, tt.target, tt.token).outcome()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A policy that fails lets nobody pass, and tells callers nothing about itself.
func TestOwnPolicyFails(t *testing.T) {
	t.Parallel()
	g, x := ownShipped(t), ownPolicy(t)
	token := bearer(t, reportsID)
	for _, tt := range policyFaults {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := g.get(t, "/case/"+tt.name, token)
			if diff := cmp.Diff(failed(tt.reason), a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s\n%s", diff, a.body)
			}
			checkProblem(t, a)
			checkRecords(t, g, x, a)
			if detail, _ := x.decision(t, a.problem().DecisionID)["detail"].(string); detail == "" || strings.Contains(detail, "forged") {
				t.Errorf("extauthz's log says %q, want what is wrong without the value", detail)
			}
		})
	}
}

// policyFaults are the cases of testdata/own that are no decision.
var policyFaults = []struct{ name, reason string }{
	{"no-such-case", "policy_undefined"},
	{"slow", "policy_timeout"},
	{"conflict", "policy_error"},
	{"unknown-key", "policy_error"},
	{"wrong-type", "policy_error"},
	{"identity-header", "policy_error"},
	{"identity-header-removed", "policy_error"},
	{"identity-header-in-answer", "policy_error"},
	{"pseudo-header", "policy_error"},
	{"host-header", "policy_error"},
	{"unlisted-header", "policy_error"},
	{"line-break", "policy_error"},
	{"set-and-removed", "policy_error"},
	{"query-injection", "policy_error"},
	{"denial-with-200", "policy_error"},
	{"denial-with-304", "policy_error"},
	{"list", "policy_error"},
	{"too-long", "policy_error"},
}

// With room for one check, of several slow ones at once the first is decided about (late) and the others are sent away.
func TestOverloadShedsAtOnce(t *testing.T) {
	t.Parallel()
	x := newService(t, "own.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()}, "EXTAUTHZ__LIMITS__CONCURRENT_CHECKS=1")
	g := newGateway(t, x, lab.FailOpen(), patience())
	token := bearer(t, reportsID)
	const n = 4
	answers := make(chan outcome, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { answers <- g.get(t, "/case/slow", token).outcome() })
	}
	wg.Wait()
	close(answers)
	got := map[outcome]int{}
	for a := range answers {
		got[a]++
	}
	late, shed := got[failed("policy_timeout")], got[failed("overloaded")]
	if late == 0 || shed == 0 || late+shed != n {
		t.Errorf("got %v, want some overloaded and the others policy_timeout", got)
	}
	if seen := g.echo.Requests(); seen != 0 {
		t.Errorf("%d requests reached the upstream, want none", seen)
	}
	if diff := cmp.Diff(reaches("/case/yes"), g.get(t, "/case/yes", token).outcome()); diff != "" {
		t.Errorf("after that: -want +got:\n%s", diff)
	}
}
