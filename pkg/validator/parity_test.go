package validator_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
	"github.com/cognito-extauthz/extauthz/pkg/validator/validatortest"
)

// A parityCase is one behaviour of another package, and ours. Each starts from a token that is accepted and changes one
// thing. docs/compare.md has a row for it, under its name.
type parityCase struct {
	name  string
	edit  func(*validator.Config)                              // of the settings that accept it; nil: none
	keys  func(*testing.T, *cognitotest.Pool) validator.KeySet // nil: those of the pool
	token func(*cognitotest.Pool) string                       // nil: the one that is accepted
	build string                                               // what New says; empty: no error
	want  validator.Reason                                     // empty: accepted
	check func(t *testing.T, got *validator.Claims, err error) // what else is so; nil: nothing
	test  func(*testing.T, validator.Config) validator.Config  // what only a test can set; nil: nothing
}

func (c parityCase) run(t *testing.T, p *cognitotest.Pool) {
	cfg := config(t, p)
	if c.edit != nil {
		c.edit(&cfg)
	}
	if c.keys != nil {
		cfg.Keys = c.keys(t, p)
	}
	if c.test != nil {
		cfg = c.test(t, cfg)
	}
	v, err := validator.New(cfg)
	if c.build != "" {
		if err == nil || !strings.Contains(err.Error(), c.build) {
			t.Errorf("New: %v, want an error with %q", err, c.build)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	token := p.Token(client)
	if c.token != nil {
		token = c.token(p)
	}
	got, err := v.Validate(t.Context(), token)
	if reasonOf(t, err) != c.want || (got == nil) != (err != nil) {
		t.Errorf("claims %v and error %v, want reason %q", got, err, c.want)
	}
	if c.check != nil {
		c.check(t, got, err)
	}
}

// parityPool has the issuer that both packages make of a Region and a user pool id.
func parityPool(t *testing.T) *cognitotest.Pool {
	t.Helper()
	cfg := cognitotest.DemoPool()
	cfg.Issuer = validator.CognitoIssuer("eu-west-1", cognitotest.DemoPoolID)
	cfg.Now = func() time.Time { return now }
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cfg}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Pools()[0]
}

func TestParityWithM2MCognito(t *testing.T) {
	p := parityPool(t)
	for _, c := range m2mCognito {
		t.Run(c.name, func(t *testing.T) { c.run(t, p) })
	}
}

func TestParityWithCognitojwt(t *testing.T) {
	p := parityPool(t)
	for _, c := range cognitojwt {
		t.Run(c.name, func(t *testing.T) { c.run(t, p) })
	}
}

func tokenWith(opts ...cognitotest.TokenOption) func(*cognitotest.Pool) string {
	return func(p *cognitotest.Pool) string { return p.Token(client, opts...) }
}

func tokenOf(id string) func(*cognitotest.Pool) string {
	return func(p *cognitotest.Pool) string { return p.Token(id) }
}

func idToken(id string) func(*cognitotest.Pool) string {
	return func(p *cognitotest.Pool) string { return p.IDToken(id, "ada") }
}

func forgedToken(opts ...cognitotest.TokenOption) func(*cognitotest.Pool) string {
	return func(p *cognitotest.Pool) string {
		k := p.ForgedKey()
		k.ID = p.AccessKey().ID
		return p.Token(client, append(opts, cognitotest.SignedBy(k))...)
	}
}

func scopes(match validator.ScopeMatch, required ...string) func(*validator.Config) {
	return func(c *validator.Config) { c.RequiredScopes, c.ScopeMatch = required, match }
}

func clientIDs(ids ...string) func(*validator.Config) {
	return func(c *validator.Config) { c.ClientIDs = ids }
}

func anyClient(c *validator.Config) { c.ClientIDs, c.AllowAnyClient = nil, true }

func audience(c *validator.Config) { c.Audience = []string{"https://api.example.com"} }

func tokenUses(uses ...validator.TokenUse) func(*validator.Config) {
	return func(c *validator.Config) { c.TokenUses = uses }
}

var m2mCognito = []parityCase{
	{name: "a token that both accept"},
	{name: "region and user_pool_id", keys: keysOfJWKSURL},

	{name: "allowed_client_ids with the client and others", edit: clientIDs(cognitotest.DemoReaderID, client)},
	{name: "allowed_client_ids without the client", token: tokenOf(cognitotest.DemoReaderID), want: validator.ErrClient},
	{name: "allowed_client_ids None", edit: anyClient, token: tokenOf(cognitotest.DemoReaderID)},
	{name: "allowed_client_ids None, and nothing said", edit: clientIDs(), build: "AllowAnyClient"},

	{name: "required_scopes empty", edit: scopes(validator.MatchAll)},
	{name: "required_scopes empty, any of them", edit: scopes(validator.MatchAny)},
	{name: "required_scopes with scope_match all", edit: scopes(validator.MatchAll, "orders/write", "orders/read")},
	{name: "required_scopes with scope_match all, one missing", edit: scopes(validator.MatchAll, "orders/read", "orders/admin"), want: validator.ErrInsufficientScope, check: bothSides},
	{name: "required_scopes with scope_match any", edit: scopes(validator.MatchAny, "orders/read", "orders/admin")},
	{name: "required_scopes with scope_match any, all missing", edit: scopes(validator.MatchAny, "orders/admin", "orders"), want: validator.ErrInsufficientScope},
	{name: "scope_match neither all nor any", edit: scopes(7, "orders/read"), build: "ScopeMatch is 7"},

	{name: "no scope claim", token: tokenWith(cognitotest.WithoutClaim("scope")), check: noScopes},
	{name: "no scope claim, and required_scopes", edit: scopes(validator.MatchAny, "orders/read"), token: tokenWith(cognitotest.WithoutClaim("scope")), want: validator.ErrInsufficientScope},
	{name: "a scope claim that is no string", token: tokenWith(cognitotest.Claim("scope", []string{"orders/read"})), want: validator.ErrScopeClaim},
	{name: "a scope claim that is null", token: tokenWith(cognitotest.Claim("scope", nil)), want: validator.ErrScopeClaim},
	{name: "a scope claim with a tab", token: tokenWith(cognitotest.Claim("scope", "orders/read\torders/write")), want: validator.ErrScopeClaim},

	{name: "audience None, and the token has aud", token: tokenWith(cognitotest.Claim("aud", "anything"))},
	{name: "audience in the token", edit: audience, token: tokenWith(cognitotest.Claim("aud", "https://api.example.com"))},
	{name: "audience not in the token", edit: audience, want: validator.ErrAudience},
	{name: "audience another", edit: audience, token: tokenWith(cognitotest.Claim("aud", "https://api.example.org")), want: validator.ErrAudience},

	{name: "an ID token", token: idToken(client), want: validator.ErrTokenUse},
	{name: "no exp", token: tokenWith(cognitotest.WithoutClaim("exp")), want: validator.ErrClaims},
	{name: "no iat", token: tokenWith(cognitotest.WithoutClaim("iat")), want: validator.ErrClaims},
	{name: "no iss", token: tokenWith(cognitotest.WithoutClaim("iss")), want: validator.ErrClaims},
	{name: "no token_use", token: tokenWith(cognitotest.WithoutClaim("token_use")), want: validator.ErrClaims},
	{name: "no client_id", token: tokenWith(cognitotest.WithoutClaim("client_id")), want: validator.ErrClaims},
	{name: "a client_id that is no string", token: tokenWith(cognitotest.Claim("client_id", 7)), want: validator.ErrClaims},

	{name: "expired", token: tokenWith(cognitotest.IssuedAt(now.Add(-2 * time.Hour))), want: validator.ErrExpired},
	{name: "nbf in the future", token: tokenWith(cognitotest.Claim("nbf", now.Add(time.Minute).Unix())), want: validator.ErrNotYetValid},
	{name: "iat in the future", token: tokenWith(cognitotest.IssuedAt(now.Add(time.Minute))), want: validator.ErrNotYetValid},
	{name: "iat a few seconds in the future", token: tokenWith(cognitotest.IssuedAt(now.Add(5 * time.Second)))},
	{name: "iss of another pool", token: tokenWith(cognitotest.Claim("iss", validator.CognitoIssuer("eu-west-1", "eu-west-1_Another12"))), want: validator.ErrIssuer},
	{name: "iss of the updated form", edit: bothIssuers, token: tokenWith(cognitotest.Claim("iss", validator.UpdatedIssuer("eu-west-1", cognitotest.DemoPoolID)))},
	{name: "another alg than RS256", token: tokenWith(cognitotest.HeaderParam("alg", "RS512")), want: validator.ErrAlgorithm},
	{name: "a signature of another key", token: forgedToken(), want: validator.ErrSignature},
	{name: "a kid that the pool does not have", token: tokenWith(cognitotest.HeaderParam("kid", "another")), want: validator.ErrUnknownKey},
	{name: "Bearer before the token", token: func(p *cognitotest.Pool) string { return "Bearer " + p.Token(client) }, want: validator.ErrMalformed},
	{name: "no JWS at all", token: func(*cognitotest.Pool) string { return "x" }, want: validator.ErrMalformed},

	{name: "the JWK Set cannot be fetched", keys: unreachableKeys, want: validator.ErrKeysUnavailable, check: comeBack},
	{name: "TokenValidationError", token: tokenWith(cognitotest.IssuedAt(now.Add(-2 * time.Hour))), want: validator.ErrExpired, check: noInsufficientScope},
	{name: "ValidatedAccessToken", check: validated},
}

var cognitojwt = []parityCase{
	{name: "a token that both accept"},
	{name: "region and userpool_id", keys: keysOfJWKSURL},
	{name: "the claims that decode returns", check: validated},

	{name: "app_client_id of an access token", token: tokenOf(cognitotest.DemoReaderID), want: validator.ErrClient},
	{name: "app_client_id of an ID token", edit: tokenUses(validator.IDToken), token: idToken(client)},
	{name: "app_client_id of an ID token, another", edit: tokenUses(validator.IDToken), token: idToken(cognitotest.DemoWebID), want: validator.ErrClient},
	{name: "app_client_id a list or a tuple", edit: clientIDs(cognitotest.DemoReaderID, client)},
	{name: "app_client_id None", edit: anyClient, token: tokenOf(cognitotest.DemoReaderID)},
	{name: "app_client_id None, and nothing said", edit: clientIDs(), build: "AllowAnyClient"},
	{name: "app_client_id empty", edit: clientIDs(""), build: "ClientIDs or Audience has an empty item"},
	{name: "access and ID tokens, an access token", edit: tokenUses(validator.AccessToken, validator.IDToken)},
	{name: "access and ID tokens, an ID token", edit: tokenUses(validator.AccessToken, validator.IDToken), token: idToken(client)},
	{name: "an ID token, and nothing said", token: idToken(client), want: validator.ErrTokenUse},
	{name: "another token_use", edit: tokenUses(validator.AccessToken, validator.IDToken), token: tokenWith(cognitotest.Claim("token_use", "refresh")), want: validator.ErrTokenUse},

	{name: "testmode", test: ignoreExpiry, token: tokenWith(cognitotest.IssuedAt(now.Add(-48 * time.Hour)))},
	{name: "testmode, and a signature of another key", test: ignoreExpiry, token: forgedToken(cognitotest.IssuedAt(now.Add(-48 * time.Hour))), want: validator.ErrSignature},
	{name: "AWS_COGNITO_JWKS_PATH", keys: keysOfFile},

	{name: "Token is expired", token: tokenWith(cognitotest.IssuedAt(now.Add(-2 * time.Hour))), want: validator.ErrExpired},
	{name: "Signature verification failed", token: forgedToken(), want: validator.ErrSignature},
	{name: "Public key not found in jwks.json", token: tokenWith(cognitotest.HeaderParam("kid", "another")), want: validator.ErrUnknownKey},
	{name: "Token was not issued for this client id audience", token: tokenOf(cognitotest.DemoReaderID), want: validator.ErrClient},
	{name: "Invalid token_use", token: tokenWith(cognitotest.Claim("token_use", "x")), want: validator.ErrTokenUse},
	{name: "KeyError for a missing claim", token: tokenWith(cognitotest.WithoutClaim("exp")), want: validator.ErrClaims},
	{name: "JWTError for no JWS at all", token: func(*cognitotest.Pool) string { return "a.b.c" }, want: validator.ErrMalformed},

	{name: "iss is not looked at", token: tokenWith(cognitotest.Claim("iss", "https://issuer.example")), want: validator.ErrIssuer},
	{name: "nbf is not looked at", token: tokenWith(cognitotest.Claim("nbf", now.Add(time.Minute).Unix())), want: validator.ErrNotYetValid},
	{name: "alg is that of the key", token: tokenWith(cognitotest.HeaderParam("alg", "HS256")), want: validator.ErrAlgorithm},
}

// keysOfJWKSURL fetches from where the issuer of the Region and the user pool id says that the keys are.
func keysOfJWKSURL(t *testing.T, p *cognitotest.Pool) validator.KeySet {
	t.Helper()
	const want = "https://cognito-idp.eu-west-1.amazonaws.com/" + cognitotest.DemoPoolID + "/.well-known/jwks.json"
	return remoteKeys(t, func(req *http.Request) (*http.Response, error) {
		if got := req.URL.String(); got != want {
			t.Errorf("the keys are fetched from %s, want %s", got, want)
		}
		return httpGet(req.Context(), p.JWKSURL())
	})
}

func unreachableKeys(t *testing.T, _ *cognitotest.Pool) validator.KeySet {
	t.Helper()
	return remoteKeys(t, func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") })
}

func remoteKeys(t *testing.T, answer roundTripper) validator.KeySet {
	t.Helper()
	issuer := validator.CognitoIssuer("eu-west-1", cognitotest.DemoPoolID)
	keys, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{
		URL: validator.JWKSURL(issuer), Transport: answer, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func httpGet(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
}

func keysOfFile(t *testing.T, p *cognitotest.Pool) validator.KeySet {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, p.JWKS(), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	keys, problems, err := validator.ParseJWKS(text)
	if err != nil || problems != nil {
		t.Fatalf("%v and error %v, want keys without problems", problems, err)
	}
	return keys
}

func ignoreExpiry(t *testing.T, cfg validator.Config) validator.Config {
	t.Helper()
	return validatortest.IgnoreExpiry(t, cfg)
}

func bothIssuers(c *validator.Config) {
	c.Issuers = append(c.Issuers, validator.UpdatedIssuer("eu-west-1", cognitotest.DemoPoolID))
}

func validated(t *testing.T, got *validator.Claims, _ error) {
	t.Helper()
	if got.ClientID != client || !got.HasScope("orders/read") || got.HasScope("orders/admin") {
		t.Errorf("client %q with scopes %q, want %q with orders/read and without orders/admin", got.ClientID, got.Scopes, client)
	}
	if got.Map()["client_id"] != client || got.Map()["iss"] != got.Issuer {
		t.Errorf("the claims are %v, want all of the token's", got.Map())
	}
}

func noScopes(t *testing.T, got *validator.Claims, _ error) {
	t.Helper()
	if len(got.Scopes) > 0 {
		t.Errorf("scopes are %q, want none", got.Scopes)
	}
}

func bothSides(t *testing.T, _ *validator.Claims, err error) {
	t.Helper()
	var got *validator.InsufficientScopeError
	if !errors.As(err, &got) {
		t.Fatalf("%v, want an InsufficientScopeError", err)
	}
	want := &validator.InsufficientScopeError{
		TokenScopes: []string{"orders/read", "orders/write"}, RequiredScopes: []string{"orders/read", "orders/admin"},
	}
	if c := validator.VerifiedClaims(err); c == nil || c.ClientID != client {
		t.Errorf("claims are %v, want those of the token", c)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(validator.InsufficientScopeError{}, "Claims")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func noInsufficientScope(t *testing.T, _ *validator.Claims, err error) {
	t.Helper()
	var scope *validator.InsufficientScopeError
	var token *validator.TokenError
	if errors.As(err, &scope) || !errors.As(err, &token) || token.Reason != validator.ErrExpired {
		t.Errorf("%v, want a TokenError whose Reason is %q", err, validator.ErrExpired)
	}
}

func comeBack(t *testing.T, _ *validator.Claims, err error) {
	t.Helper()
	if got := validator.RetryAfter(err); got != 10*time.Second {
		t.Errorf("RetryAfter is %v, want MinInterval", got)
	}
}

// docs/compare.md has a row for each case, and its other links lead to tests.
func TestParityIsDocumented(t *testing.T) {
	page := readPage(t, "compare.md")
	for test, cases := range map[string][]parityCase{"M2MCognito": m2mCognito, "Cognitojwt": cognitojwt} {
		var names []string
		for _, c := range cases {
			names = append(names, c.name)
		}
		_, section, _ := strings.Cut(page, "<!-- TestParityWith"+test+" -->")
		section, _, ok := strings.Cut(section, "<!-- end -->")
		if !ok {
			t.Fatalf("docs/compare.md has no section of TestParityWith%s", test)
		}
		var rows []string
		for _, m := range regexp.MustCompile(`\[([^]]+)\]\(\.\./pkg/validator/parity_test\.go\)`).FindAllStringSubmatch(section, -1) {
			rows = append(rows, m[1])
		}
		slices.Sort(names)
		slices.Sort(rows)
		if diff := cmp.Diff(names, slices.Compact(rows)); diff != "" {
			t.Errorf("TestParityWith%s (-test +docs/compare.md):\n%s", test, diff)
		}
	}
}

// The tests that these pages name are where they say.
func TestDocumentedTestsExist(t *testing.T) {
	link := regexp.MustCompile(`\[(Test\w+)\]\(\.\./([^)]+_test\.go)\)`)
	for _, name := range []string{"compare.md", "tokens.md", "denylist.md"} {
		for _, m := range link.FindAllStringSubmatch(readPage(t, name), -1) {
			text, err := os.ReadFile(filepath.Join("..", "..", m[2]))
			if err != nil || !strings.Contains(string(text), "\nfunc "+m[1]+"(") {
				t.Errorf("docs/%s: %s is not in %s (%v)", name, m[1], m[2], err)
			}
		}
	}
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
