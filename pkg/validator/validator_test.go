package validator_test

import (
	"context"
	"encoding/base64"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const client = cognitotest.DemoClientID

// newPool starts a stand-in whose clock stands still.
func newPool(t testing.TB) *cognitotest.Pool {
	t.Helper()
	cfg := cognitotest.DemoPool()
	cfg.Now = func() time.Time { return now }
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cfg}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Pools()[0]
}

func staticKeys(t testing.TB, p *cognitotest.Pool) validator.StaticKeys {
	t.Helper()
	keys, problems, err := validator.ParseJWKS(p.JWKS())
	if err != nil || len(problems) > 0 {
		t.Fatalf("ParseJWKS of the stand-in: %v %v", problems, err)
	}
	return keys
}

// config accepts pool's token of client.
func config(t testing.TB, p *cognitotest.Pool) validator.Config {
	return validator.Config{
		Name:      "main",
		Issuers:   []string{p.Issuer()},
		ClientIDs: []string{client},
		Keys:      staticKeys(t, p),
		Now:       func() time.Time { return now },
	}
}

func newValidator(t testing.TB, cfg ...validator.Config) *validator.Validator {
	t.Helper()
	v, err := validator.New(cfg...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestValidate(t *testing.T) {
	p := newPool(t)
	got, err := newValidator(t, config(t, p)).Validate(t.Context(), p.Token(client))
	if err != nil {
		t.Fatal(err)
	}
	want := &validator.Claims{
		Pool: "main", Issuer: p.Issuer(), Subject: client, ClientID: client, TokenUse: validator.AccessToken,
		Scopes: []string{"orders/read", "orders/write"}, IssuedAt: now, ExpiresAt: now.Add(time.Hour),
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(validator.Claims{}), cmpopts.IgnoreFields(validator.Claims{}, "TokenID")); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if got.TokenID == "" || got.Map()["jti"] != got.TokenID {
		t.Errorf("TokenID is %q and jti %q, want them equal and set", got.TokenID, got.Map()["jti"])
	}
	if !got.HasScope("orders/read") || got.HasScope("orders") || got.HasScope("") {
		t.Error("HasScope does not compare whole scopes")
	}
}

// reasonOf returns the one Reason that err matches.
func reasonOf(t testing.TB, err error) validator.Reason {
	t.Helper()
	var found []validator.Reason
	for _, r := range reasons {
		if errors.Is(err, r) {
			found = append(found, r)
		}
	}
	if err == nil && len(found) == 0 {
		return ""
	}
	if len(found) != 1 {
		t.Errorf("%v matches %v, want exactly one Reason", err, found)
		return ""
	}
	return found[0]
}

var reasons = []validator.Reason{
	validator.ErrMalformed, validator.ErrAlgorithm, validator.ErrIssuer, validator.ErrClaims, validator.ErrExpired,
	validator.ErrNotYetValid, validator.ErrTokenUse, validator.ErrAudience, validator.ErrScopeClaim,
	validator.ErrNotAMachine, validator.ErrUnknownKey, validator.ErrSignature, validator.ErrClient,
	validator.ErrInsufficientScope, validator.ErrKeysUnavailable, validator.ErrRevoked,
}

// Each case changes one thing in the claims of a token that is accepted.
func TestClaims(t *testing.T) {
	p := newPool(t)
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	without := func(name string) func(map[string]any) {
		return func(c map[string]any) { delete(c, name) }
	}
	unix := func(d time.Duration) int64 { return now.Add(d).Unix() }
	rename := func(from, to string) func(map[string]any) {
		return func(c map[string]any) { c[to] = c[from]; delete(c, from) }
	}
	tests := []struct {
		name string
		edit func(map[string]any)
		want validator.Reason
	}{
		{"nothing changed", func(map[string]any) {}, ""},
		{"a claim that nobody knows", set("custom:tier", map[string]any{"a": []any{1, nil}}), ""},

		{"iss of another pool", set("iss", p.Issuer()+"X"), validator.ErrIssuer},
		{"iss with a slash at the end", set("iss", p.Issuer()+"/"), validator.ErrIssuer},
		{"iss in upper case", set("iss", strings.ToUpper(p.Issuer())), validator.ErrIssuer},
		{"no iss", without("iss"), validator.ErrClaims},
		{"iss a list", set("iss", []any{p.Issuer()}), validator.ErrClaims},
		{"iss under another case", rename("iss", "ISS"), validator.ErrClaims},

		{"exp one second ahead", set("exp", unix(time.Second)), ""},
		{"exp now", set("exp", unix(0)), validator.ErrExpired},
		{"exp a fraction ahead", set("exp", float64(unix(0))+0.5), ""},
		{"exp 30 s ago, within no leeway", set("exp", unix(-30*time.Second)), validator.ErrExpired},
		{"no exp", without("exp"), validator.ErrClaims},
		{"exp a string", set("exp", "9999999999"), validator.ErrClaims},
		{"exp null", set("exp", nil), validator.ErrClaims},
		{"exp true", set("exp", true), validator.ErrClaims},
		{"exp negative", set("exp", -1), validator.ErrClaims},
		{"exp beyond the year 9999", set("exp", 253402300800), validator.ErrClaims},
		{"exp huge", set("exp", math.MaxFloat64), validator.ErrClaims},
		{"exp under another case", rename("exp", "Exp"), validator.ErrClaims},

		{"iat at the leeway", set("iat", unix(30*time.Second)), ""},
		{"iat beyond the leeway", set("iat", unix(31*time.Second)), validator.ErrNotYetValid},
		{"no iat", without("iat"), validator.ErrClaims},
		{"iat a string", set("iat", "1"), validator.ErrClaims},
		{"nbf at the leeway", set("nbf", unix(30*time.Second)), ""},
		{"nbf beyond the leeway", set("nbf", unix(31*time.Second)), validator.ErrNotYetValid},
		{"nbf a string", set("nbf", "1"), validator.ErrClaims},
		{"nbf null", set("nbf", nil), validator.ErrClaims},

		{"token_use id", set("token_use", "id"), validator.ErrTokenUse},
		{"token_use in upper case", set("token_use", "ACCESS"), validator.ErrTokenUse},
		{"no token_use", without("token_use"), validator.ErrClaims},
		{"token_use a list", set("token_use", []any{"access"}), validator.ErrClaims},

		{"client_id of another client", set("client_id", cognitotest.DemoReaderID), validator.ErrClient},
		{"client_id with a space", set("client_id", client+" "), validator.ErrClient},
		{"no client_id, and the right aud", func(c map[string]any) { delete(c, "client_id"); c["aud"] = client }, validator.ErrClaims},
		{"client_id a list", set("client_id", []any{client}), validator.ErrClaims},
		{"client_id under another case", rename("client_id", "Client_ID"), validator.ErrClaims},

		{"aud a string", set("aud", "anything"), ""},
		{"aud a list", set("aud", []any{"a", "b"}), ""},
		{"aud a number", set("aud", 1), validator.ErrClaims},
		{"aud a list with a number", set("aud", []any{"a", 1}), validator.ErrClaims},
		{"aud null", set("aud", nil), validator.ErrClaims},
		{"sub a number", set("sub", 1), validator.ErrClaims},
		{"jti a number", set("jti", 1), validator.ErrClaims},
		{"no sub and no jti", func(c map[string]any) { delete(c, "sub"); delete(c, "jti") }, ""},

		{"no scope", without("scope"), ""},
		{"scope empty", set("scope", ""), ""},
		{"scope of spaces", set("scope", "   "), ""},
		{"scope a list", set("scope", []any{"orders/read"}), validator.ErrScopeClaim},
		{"scope null", set("scope", nil), validator.ErrScopeClaim},
		{"scope with a tab", set("scope", "orders/read\torders/write"), validator.ErrScopeClaim},
		{"scope with a no-break space", set("scope", "orders/read\u00a0orders/write"), validator.ErrScopeClaim},
		{"scope with a quote", set("scope", `orders/"read"`), validator.ErrScopeClaim},
		{"scope with a backslash", set("scope", `orders\read`), validator.ErrScopeClaim},
	}
	v := newValidator(t, config(t, p))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			claims := p.Claims(client)
			test.edit(claims)
			got, err := v.Validate(t.Context(), p.Sign(nil, claims))
			if reasonOf(t, err) != test.want {
				t.Errorf("error is %v, want reason %q", err, test.want)
			}
			if (got == nil) != (err != nil) {
				t.Errorf("claims are %v with error %v, want one of them", got, err)
			}
		})
	}
}

func TestScopesAreSplitAtSpacesOnly(t *testing.T) {
	p := newPool(t)
	claims := p.Claims(client)
	claims["scope"] = "  orders/read orders/write  a:b "
	got, err := newValidator(t, config(t, p)).Validate(t.Context(), p.Sign(nil, claims))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"orders/read", "orders/write", "a:b"}, got.Scopes); diff != "" {
		t.Error(diff)
	}
}

// Each case changes one thing in the form of a token that is accepted.
func TestForm(t *testing.T) {
	p := newPool(t)
	key := p.AccessKey()
	payload := mustJSON(t, p.Claims(client))
	header := func(text string) string { return p.SignBytes([]byte(text), payload) }
	good := p.SignBytes(nil, payload)
	parts := strings.Split(good, ".")
	kid := key.ID
	enc := base64.RawURLEncoding.EncodeToString
	tests := []struct {
		name  string
		token string
		want  validator.Reason
	}{
		{"nothing changed", good, ""},
		{"typ JWT", header(`{"alg":"RS256","typ":"JWT","kid":"` + kid + `"}`), ""},
		{"typ at+jwt", header(`{"alg":"RS256","typ":"at+JWT","kid":"` + kid + `"}`), ""},
		{"space around the header", header(" {\"alg\":\"RS256\",\n\"kid\":\"" + kid + `"} `), ""},

		{"empty", "", validator.ErrMalformed},
		{"one part", "x", validator.ErrMalformed},
		{"two parts", parts[0] + "." + parts[1], validator.ErrMalformed},
		{"four parts", good + ".", validator.ErrMalformed},
		{"five parts, a JWE", good + ".x.y", validator.ErrMalformed},
		{"detached payload", parts[0] + ".." + parts[2], validator.ErrMalformed},
		{"no signature", parts[0] + "." + parts[1] + ".", validator.ErrMalformed},
		{"JSON serialization", `{"payload":"` + parts[1] + `"}`, validator.ErrMalformed},
		{"Bearer before it", "Bearer " + good, validator.ErrMalformed},
		{"padding", parts[0] + "." + parts[1] + "." + parts[2] + "==", validator.ErrMalformed},
		{"line break in it", good[:20] + "\n" + good[20:], validator.ErrMalformed},
		{"carriage return after it", good + "\r", validator.ErrMalformed},
		{"space after it", good + " ", validator.ErrMalformed},
		{"standard base64", strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+", validator.ErrMalformed},
		{"too long", good + strings.Repeat("A", validator.MaxTokenBytes), validator.ErrMalformed},
		{"trailing bits in the signature", good[:len(good)-1] + string(nextBits(good[len(good)-1])), validator.ErrMalformed},

		{"alg none", header(`{"alg":"none","kid":"` + kid + `"}`), validator.ErrAlgorithm},
		{"alg rs256", header(`{"alg":"rs256","kid":"` + kid + `"}`), validator.ErrAlgorithm},
		{"alg HS256", header(`{"alg":"HS256","kid":"` + kid + `"}`), validator.ErrAlgorithm},
		{"alg RS512", header(`{"alg":"RS512","kid":"` + kid + `"}`), validator.ErrAlgorithm},
		{"no alg", header(`{"kid":"` + kid + `"}`), validator.ErrAlgorithm},
		{"alg a list", header(`{"alg":["RS256"],"kid":"` + kid + `"}`), validator.ErrAlgorithm},
		{"alg under another case", header(`{"Alg":"RS256","kid":"` + kid + `"}`), validator.ErrAlgorithm},

		{"no kid", header(`{"alg":"RS256"}`), validator.ErrMalformed},
		{"kid empty", header(`{"alg":"RS256","kid":""}`), validator.ErrMalformed},
		{"kid a number", header(`{"alg":"RS256","kid":1}`), validator.ErrMalformed},
		{"kid too long", header(`{"alg":"RS256","kid":"` + strings.Repeat("k", 257) + `"}`), validator.ErrMalformed},
		{"kid of no key", header(`{"alg":"RS256","kid":"unknown"}`), validator.ErrUnknownKey},
		{"kid of the ID token key", header(`{"alg":"RS256","kid":"` + p.IDKey().ID + `"}`), validator.ErrSignature},
		{"typ of another token", header(`{"alg":"RS256","typ":"logout+jwt","kid":"` + kid + `"}`), validator.ErrMalformed},
		{"typ a list", header(`{"alg":"RS256","typ":["JWT"],"kid":"` + kid + `"}`), validator.ErrMalformed},

		{"header with a member twice", header(`{"alg":"RS256","kid":"x","kid":"` + kid + `"}`), validator.ErrMalformed},
		{"header with an escaped member twice", header(`{"alg":"RS256","\u006bid":"x","kid":"` + kid + `"}`), validator.ErrMalformed},
		{"header with something after it", header(`{"alg":"RS256","kid":"` + kid + `"}{}`), validator.ErrMalformed},
		{"header a list", header(`["RS256"]`), validator.ErrMalformed},
		{"header null", header(`null`), validator.ErrMalformed},
		{"header with a byte order mark", header("\ufeff" + `{"alg":"RS256","kid":"` + kid + `"}`), validator.ErrMalformed},
		{"header not UTF-8", header(`{"alg":"RS256","kid":"` + kid + `","x":"` + "\xff" + `"}`), validator.ErrMalformed},
		{"header with a lone surrogate", header(`{"alg":"RS256","kid":"` + kid + `","x":"\ud800"}`), validator.ErrMalformed},

		{"payload a list", p.SignBytes(nil, []byte(`[]`)), validator.ErrMalformed},
		{"payload empty", p.SignBytes(nil, nil), validator.ErrMalformed},
		{"payload a nested token", p.SignBytes(nil, []byte(good)), validator.ErrMalformed},
		{"payload with a member twice", p.SignBytes(nil, append([]byte(`{"iss":"x",`), payload[1:]...)), validator.ErrMalformed},
		{"payload with a member twice below", p.SignBytes(nil, append([]byte(`{"x":{"a":1,"a":2},`), payload[1:]...)), validator.ErrMalformed},
		{"payload nested too deeply", p.SignBytes(nil, append([]byte(`{"x":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)+`,`), payload[1:]...)), validator.ErrMalformed},
		{"payload with NaN", p.SignBytes(nil, append([]byte(`{"x":NaN,`), payload[1:]...)), validator.ErrMalformed},
		{"payload in UTF-16", p.SignBytes(nil, utf16(payload)), validator.ErrMalformed},

		{"signed by nobody's key under the right kid", p.ForgedKey().Sign([]byte(`{"alg":"RS256","kid":"`+kid+`"}`), payload), validator.ErrSignature},
		{"signature of another token", parts[0] + "." + enc(append([]byte(" "), payload...)) + "." + parts[2], validator.ErrSignature},
		{"signature cut", parts[0] + "." + parts[1] + "." + enc([]byte("short")), validator.ErrSignature},
		{"signature of zeros", parts[0] + "." + parts[1] + "." + enc(make([]byte, 256)), validator.ErrSignature},
	}
	for _, name := range []string{"crit", "b64", "zip", "enc", "cty", "jku", "jwk", "x5u", "x5c", "epk"} {
		tests = append(tests, struct {
			name  string
			token string
			want  validator.Reason
		}{"header with " + name, header(`{"alg":"RS256","kid":"` + kid + `","` + name + `":null}`), validator.ErrMalformed})
	}
	v := newValidator(t, config(t, p))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			claims, err := v.Validate(t.Context(), test.token)
			if reasonOf(t, err) != test.want {
				t.Errorf("error is %v, want reason %q", err, test.want)
			}
			if (claims == nil) != (err != nil) {
				t.Errorf("claims are %v with error %v, want one of them", claims, err)
			}
		})
	}
}

// nextBits changes the bits of the last letter that encode nothing: 256 bytes of signature leave four of them.
func nextBits(last byte) byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return alphabet[strings.IndexByte(alphabet, last)+1]
}

func utf16(text []byte) []byte {
	out := []byte{0xfe, 0xff}
	for _, b := range text {
		out = append(out, 0, b)
	}
	return out
}

// Each case changes one setting, for a token that the settings before accepted.
func TestSettings(t *testing.T) {
	p := newPool(t)
	tests := []struct {
		name  string
		edit  func(*validator.Config)
		token string
		want  validator.Reason
	}{
		{"another client, any allowed", func(c *validator.Config) { c.ClientIDs, c.AllowAnyClient = nil, true }, p.Token(cognitotest.DemoReaderID), ""},
		{"another client, both listed", func(c *validator.Config) { c.ClientIDs = append(c.ClientIDs, cognitotest.DemoReaderID) }, p.Token(cognitotest.DemoReaderID), ""},
		{"audience wanted and absent", func(c *validator.Config) { c.Audience = []string{"api"} }, p.Token(client), validator.ErrAudience},
		{"audience wanted and there", func(c *validator.Config) { c.Audience = []string{"x", "api"} }, p.Sign(nil, with(p.Claims(client), "aud", "api")), ""},
		{"audience wanted and in a list", func(c *validator.Config) { c.Audience = []string{"api"} }, p.Sign(nil, with(p.Claims(client), "aud", []any{"a", "api"})), ""},
		{"audience wanted and another", func(c *validator.Config) { c.Audience = []string{"api"} }, p.Sign(nil, with(p.Claims(client), "aud", "api2")), validator.ErrAudience},
		{"all scopes there", func(c *validator.Config) { c.RequiredScopes = []string{"orders/read", "orders/write"} }, p.Token(client), ""},
		{"one of all scopes missing", func(c *validator.Config) { c.RequiredScopes = []string{"orders/read", "orders/admin"} }, p.Token(client), validator.ErrInsufficientScope},
		{"any scope there", func(c *validator.Config) {
			c.RequiredScopes, c.ScopeMatch = []string{"orders/admin", "orders/read"}, validator.MatchAny
		}, p.Token(client), ""},
		{"any scope missing", func(c *validator.Config) {
			c.RequiredScopes, c.ScopeMatch = []string{"orders/admin", "orders"}, validator.MatchAny
		}, p.Token(client), validator.ErrInsufficientScope},
		{"any of none", func(c *validator.Config) { c.ScopeMatch = validator.MatchAny }, p.Token(client), ""},
		{"a machine", func(c *validator.Config) { c.MachinesOnly = true }, p.Token(client), ""},
		{"a person, and machines only", func(c *validator.Config) { c.MachinesOnly = true }, p.UserToken(client, "ada"), validator.ErrNotAMachine},
		{"a person, and no such setting", func(*validator.Config) {}, p.UserToken(client, "ada"), ""},
		{"a machine with a username", func(c *validator.Config) { c.MachinesOnly = true }, p.Sign(nil, with(p.Claims(client), "username", "x")), validator.ErrNotAMachine},
		{"no sub, and machines only", func(c *validator.Config) { c.MachinesOnly = true }, p.Sign(nil, with(p.Claims(client), "sub", "")), validator.ErrNotAMachine},
		{"an ID token", func(c *validator.Config) { c.TokenUses = []validator.TokenUse{validator.IDToken} }, p.IDToken(client, "ada"), ""},
		{"an ID token of another client", func(c *validator.Config) { c.TokenUses = []validator.TokenUse{validator.IDToken} }, p.IDToken(cognitotest.DemoWebID, "ada"), validator.ErrClient},
		{"an ID token, and an access token is wanted", func(*validator.Config) {}, p.IDToken(client, "ada"), validator.ErrTokenUse},
		{"an access token, and an ID token is wanted", func(c *validator.Config) { c.TokenUses = []validator.TokenUse{validator.IDToken} }, p.Token(client), validator.ErrTokenUse},
		{"exp within its leeway", func(c *validator.Config) { c.ExpLeeway = time.Minute }, p.Sign(nil, with(p.Claims(client), "exp", now.Add(-59*time.Second).Unix())), ""},
		{"exp at its leeway", func(c *validator.Config) { c.ExpLeeway = time.Minute }, p.Sign(nil, with(p.Claims(client), "exp", now.Add(-time.Minute).Unix())), validator.ErrExpired},
		{"iat ahead and no leeway", func(c *validator.Config) { c.Leeway = -1 }, p.Sign(nil, with(p.Claims(client), "iat", now.Add(time.Second).Unix())), validator.ErrNotYetValid},
		{"second of two issuers", func(c *validator.Config) { c.Issuers = []string{"https://other.example", p.Issuer()} }, p.Token(client), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := config(t, p)
			test.edit(&cfg)
			_, err := newValidator(t, cfg).Validate(t.Context(), test.token)
			if reasonOf(t, err) != test.want {
				t.Errorf("error is %v, want reason %q", err, test.want)
			}
		})
	}
}

func with(claims map[string]any, name string, value any) map[string]any {
	claims[name] = value
	return claims
}

func TestInsufficientScopeTellsBothSides(t *testing.T) {
	p := newPool(t)
	cfg := config(t, p)
	cfg.RequiredScopes = []string{"orders/admin"}
	_, err := newValidator(t, cfg).Validate(t.Context(), p.Token(client))
	var got *validator.InsufficientScopeError
	if !errors.As(err, &got) {
		t.Fatalf("error is %v, want an InsufficientScopeError", err)
	}
	want := &validator.InsufficientScopeError{TokenScopes: []string{"orders/read", "orders/write"}, RequiredScopes: []string{"orders/admin"}}
	if c := validator.VerifiedClaims(err); c == nil || c.ClientID != client {
		t.Errorf("claims are %v, want those of the token", c)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(validator.InsufficientScopeError{}, "Claims")); diff != "" {
		t.Error(diff)
	}
}

// One pool's key must not verify a token that claims another pool as its issuer.
func TestPoolsAreToldApart(t *testing.T) {
	a, b := newPool(t), newPool(t)
	ca, cb := config(t, a), config(t, b)
	cb.Name = "other"
	v := newValidator(t, ca, cb)
	for p, name := range map[*cognitotest.Pool]string{a: "main", b: "other"} {
		got, err := v.Validate(t.Context(), p.Token(client))
		if err != nil || got.Pool != name {
			t.Errorf("pool is %v, error %v, want %s", got, err, name)
		}
	}
	forged := with(a.Claims(client), "iss", b.Issuer())
	if _, err := v.Validate(t.Context(), a.Sign(nil, forged)); err == nil || errors.Is(err, validator.ErrIssuer) {
		t.Errorf("error is %v, want the token refused by the keys of the issuer that it claims", err)
	}
}

// Whatever can refuse a token without its key does so before the key is looked for: looking may fetch.
func TestCheapChecksComeFirst(t *testing.T) {
	p := newPool(t)
	cfg := config(t, p)
	cfg.Keys = noKeys{t}
	v := newValidator(t, cfg)
	for name, value := range map[string]any{
		"iss": "x", "exp": 1, "iat": now.Add(time.Hour).Unix(), "nbf": now.Add(time.Hour).Unix(),
		"token_use": "id", "client_id": "x", "aud": 1, "scope": 1, "sub": 1,
	} {
		if _, err := v.Validate(t.Context(), p.Sign(nil, with(p.Claims(client), name, value))); err == nil {
			t.Errorf("%s is %v, and the token was accepted", name, value)
		}
	}
}

func TestErrorsHoldNoToken(t *testing.T) {
	p := newPool(t)
	const canary = "CANARY0123456789"
	v := newValidator(t, config(t, p))
	claims := with(p.Claims(client), "custom:secret", canary)
	for name, value := range map[string]any{"exp": canary, "aud": []any{canary, 1}, "scope": canary + "\t", "sub": []any{canary}} {
		_, err := v.Validate(t.Context(), p.Sign(map[string]any{"alg": "RS256", "kid": canary}, with(claims, name, value)))
		if err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: error is %v, want one that does not hold the canary", name, err)
		}
		claims = with(p.Claims(client), "custom:secret", canary)
	}
}

func TestNewRefuses(t *testing.T) {
	p := newPool(t)
	tests := []struct {
		name string
		edit func(*validator.Config)
		want string // part of the error
	}{
		{"no issuer", func(c *validator.Config) { c.Issuers = nil }, "Issuers"},
		{"an empty issuer", func(c *validator.Config) { c.Issuers = []string{""} }, "Issuers"},
		{"an issuer twice", func(c *validator.Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) }, "twice"},
		{"no clients", func(c *validator.Config) { c.ClientIDs = nil }, "AllowAnyClient"},
		{"an empty client", func(c *validator.Config) { c.ClientIDs = []string{""} }, "empty item"},
		{"an empty audience", func(c *validator.Config) { c.Audience = []string{""} }, "empty item"},
		{"no keys", func(c *validator.Config) { c.Keys = nil }, "Keys"},
		{"an empty key set", func(c *validator.Config) { c.Keys = validator.StaticKeys{} }, "no keys"},
		{"a nil key", func(c *validator.Config) { c.Keys = validator.StaticKeys{"k": nil} }, "no key"},
		{"leeway over five minutes", func(c *validator.Config) { c.Leeway = 6 * time.Minute }, "5m"},
		{"expiry leeway over five minutes", func(c *validator.Config) { c.ExpLeeway = 6 * time.Minute }, "5m"},
		{"negative expiry leeway", func(c *validator.Config) { c.ExpLeeway = -1 }, "negative"},
		{"a scope with a space", func(c *validator.Config) { c.RequiredScopes = []string{"a b"} }, "scope-token"},
		{"another token use", func(c *validator.Config) { c.TokenUses = []validator.TokenUse{"refresh"} }, "TokenUses"},
		{"another scope match", func(c *validator.Config) { c.ScopeMatch = 2 }, "ScopeMatch"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := config(t, p)
			test.edit(&cfg)
			_, err := validator.New(cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
	if _, err := validator.New(); err == nil {
		t.Error("New without a pool gave no error")
	}
	other := config(t, newPool(t))
	if _, err := validator.New(config(t, p), other); err == nil {
		t.Error("New with two pools of one name gave no error")
	}
}

func TestIssuers(t *testing.T) {
	const id = "eu-west-1_AbCdEfGhI"
	if got := validator.CognitoIssuer("eu-west-1", id); got != "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI" {
		t.Error(got)
	}
	if got := validator.UpdatedIssuer("eu-west-1", id); got != "https://issuer-cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI" {
		t.Error(got)
	}
	if got := validator.JWKSURL("https://issuer"); got != "https://issuer/.well-known/jwks.json" {
		t.Error(got)
	}
}

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		err  error
		want time.Duration
	}{
		{nil, 0},
		{validator.ErrExpired, 0},
		{validator.ErrKeysUnavailable, time.Second},
		{&validator.KeysUnavailableError{RetryAfter: time.Millisecond}, time.Second},
		{&validator.KeysUnavailableError{RetryAfter: 4001 * time.Millisecond}, 5 * time.Second},
		{&validator.TokenError{Reason: validator.ErrKeysUnavailable, Err: &validator.KeysUnavailableError{RetryAfter: 7 * time.Second}}, 7 * time.Second},
	}
	for _, test := range tests {
		if got := validator.RetryAfter(test.err); got != test.want {
			t.Errorf("RetryAfter(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

// A KeySet that fails says nothing about the token.
func TestKeySetFailure(t *testing.T) {
	p := newPool(t)
	for name, keys := range map[string]validator.KeySet{
		"an error of its own": keysFunc(func() error { return context.DeadlineExceeded }),
		"neither":             keysFunc(func() error { return nil }),
	} {
		cfg := config(t, p)
		cfg.Keys = keys
		_, err := newValidator(t, cfg).Validate(t.Context(), p.Token(client))
		if reasonOf(t, err) != validator.ErrKeysUnavailable {
			t.Errorf("%s: error is %v, want keys_unavailable", name, err)
		}
	}
}
