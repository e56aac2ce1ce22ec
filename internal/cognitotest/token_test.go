package cognitotest_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

const (
	uuid = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`
	kid  = `[A-Za-z0-9+\\/]{43,}=` // 43 characters, and a backslash before each slash
)

// pattern makes a regular expression of text, in which «name» stands for the pattern of that name.
func pattern(text string, names map[string]string) *regexp.Regexp {
	text = regexp.QuoteMeta(text)
	for name, p := range names {
		text = strings.ReplaceAll(text, "«"+name+"»", p)
	}
	return regexp.MustCompile("^" + text + "$")
}

// decode returns the bytes of header and payload.
func decode(t *testing.T, token string) (header, payload string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts, want 3: %s", len(parts), token)
	}
	var texts [3]string
	for i, part := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil {
			t.Fatalf("part %d is not strict base64url without padding: %v", i, err)
		}
		texts[i] = string(b)
	}
	return texts[0], texts[1]
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	_, payload := decode(t, token)
	var claims map[string]any
	if err := json.Unmarshal([]byte(payload), &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// verify checks the signature by hand: it finds the key of the token's kid in the JWK Set and does RFC 8017 section
// 8.2.2 with the standard library, sharing no code with what signs.
func verify(jwks []byte, token string) error {
	parts := strings.Split(token, ".")
	headerBytes, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil {
		return err
	}
	var header struct{ Kid, Alg string }
	if err := json.Unmarshal(headerBytes, &header); err != nil {
		return err
	}
	var set struct {
		Keys []struct{ Alg, E, Kid, Kty, N, Use string }
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		return err
	}
	for _, k := range set.Keys {
		if k.Kid != header.Kid {
			continue
		}
		if k.Kty != "RSA" || k.Alg != "RS256" || k.Use != "sig" || header.Alg != "RS256" {
			return fmt.Errorf("key %+v, header %+v", k, header)
		}
		n, err := base64.RawURLEncoding.Strict().DecodeString(k.N)
		if err != nil {
			return err
		}
		e, err := base64.RawURLEncoding.Strict().DecodeString(k.E)
		if err != nil {
			return err
		}
		public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		if public.N.BitLen() != 2048 || public.E != 65537 {
			return fmt.Errorf("key of %d bits with exponent %d", public.N.BitLen(), public.E)
		}
		signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
		if err != nil {
			return err
		}
		digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature)
	}
	return errNoKey
}

var errNoKey = errors.New("no key of this kid")

// TestShape compares the bytes of the tokens with what Cognito's look like. The texts are published tokens of Cognito,
// with the identifiers and times replaced.
func TestShape(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	names := map[string]string{
		"uuid": uuid, "kid": kid,
		"iss": regexp.QuoteMeta(strings.ReplaceAll(s.URL, "/", `\/`)) + `\\/` + cognitotest.DemoPoolID,
	}
	const header = `{"kid":"«kid»","alg":"RS256"}`
	tests := []struct {
		name, token, payload string
	}{
		{
			"client credentials access token",
			pool.Token(cognitotest.DemoClientID),
			`{"sub":"1ordersbatch0demo0client00","token_use":"access","scope":"orders\/read orders\/write","auth_time":1772600767,"iss":"«iss»","exp":1772604367,"iat":1772600767,"version":2,"jti":"«uuid»","client_id":"1ordersbatch0demo0client00"}`,
		},
		{
			"access token of a person",
			pool.UserToken(cognitotest.DemoWebID, "jane"),
			`{"sub":"«uuid»","iss":"«iss»","version":2,"client_id":"3web0demo0public0client000","origin_jti":"«uuid»","event_id":"«uuid»","token_use":"access","scope":"openid email orders\/read","auth_time":1772600767,"exp":1772604367,"iat":1772600767,"jti":"«uuid»","username":"jane"}`,
		},
		{
			"ID token",
			pool.IDToken(cognitotest.DemoWebID, "jane"),
			`{"sub":"«uuid»","email_verified":true,"iss":"«iss»","cognito:username":"jane","origin_jti":"«uuid»","aud":"3web0demo0public0client000","event_id":"«uuid»","token_use":"id","auth_time":1772600767,"exp":1772604367,"iat":1772600767,"jti":"«uuid»","email":"jane@example.com"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, p := decode(t, tt.token)
			if want := pattern(header, names); !want.MatchString(h) {
				t.Errorf("header\n got %s\nwant %s", h, header)
			}
			if want := pattern(tt.payload, names); !want.MatchString(p) {
				t.Errorf("payload\n got %s\nwant %s", p, tt.payload)
			}
		})
	}
}

func TestTokensVerifyByHand(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	jwks := []byte(get(t, pool.JWKSURL()).Body)
	tokens := map[string]string{
		"machine":   pool.Token(cognitotest.DemoClientID),
		"user":      pool.UserToken(cognitotest.DemoWebID, "jane"),
		"id":        pool.IDToken(cognitotest.DemoWebID, "jane"),
		"sign":      pool.Sign(nil, pool.Claims(cognitotest.DemoClientID)),
		"signbytes": pool.SignBytes(nil, []byte(`{"iss": 1, "iss": 2}`)),
	}
	for name, token := range tokens {
		if err := verify(jwks, token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		// The check itself is worth something: any other payload fails it.
		parts := strings.Split(token, ".")
		parts[1] = base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"somebody else"}`))
		if err := verify(jwks, strings.Join(parts, ".")); !errors.Is(err, rsa.ErrVerification) {
			t.Errorf("%s with another payload: %v, want %v", name, err, rsa.ErrVerification)
		}
	}
}

func TestTokensVerifyWithJWX(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	set, err := jwk.Parse(pool.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := jwt.Parse([]byte(pool.Token(cognitotest.DemoClientID)),
		jwt.WithKeySet(set, jws.WithRequireKid(true)), jwt.WithValidate(true), jwt.WithClock(jwt.ClockFunc(func() time.Time { return now })),
		jwt.WithIssuer(pool.Issuer()), jwt.WithSubject(cognitotest.DemoClientID), jwt.WithClaimValue("token_use", "access"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Expiration().Sub(tok.IssuedAt()), time.Hour; got != want {
		t.Errorf("exp - iat is %s, want %s", got, want)
	}

	// One key, without the help of the set: of the two, only that of the kid may verify.
	for _, k := range pool.Keys() {
		_, err := jws.Verify([]byte(pool.IDToken(cognitotest.DemoWebID, "jane")), jws.WithKey(jwa.RS256, &k.Private.PublicKey))
		if is := k.ID == pool.IDKey().ID; is != (err == nil) {
			t.Errorf("key %s, that of ID tokens: %v, verifies: %v", k.ID, is, err)
		}
	}
}

func TestTokensDiffer(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	a, b := claimsOf(t, pool.Token(cognitotest.DemoClientID)), claimsOf(t, pool.Token(cognitotest.DemoClientID))
	if a["jti"] == b["jti"] {
		t.Errorf("two tokens have the jti %v", a["jti"])
	}
	jane, again, joe := pool.UserToken(cognitotest.DemoWebID, "jane"), pool.IDToken(cognitotest.DemoWebID, "jane"), pool.UserToken(cognitotest.DemoWebID, "joe")
	if got, want := claimsOf(t, again)["sub"], claimsOf(t, jane)["sub"]; got != want {
		t.Errorf("jane's sub is %v in an ID token and %v in an access token", got, want)
	}
	if claimsOf(t, joe)["sub"] == claimsOf(t, jane)["sub"] {
		t.Error("jane and joe have one sub")
	}
}

// TestOptions starts from the token without options, and names what each option changes.
func TestOptions(t *testing.T) {
	t.Parallel()
	_, pool := start(t, func(cfg *cognitotest.Config) {
		c := &cfg.Pools[0].Clients[1]
		c.TokenTTL = 5 * time.Minute
		c.Claims = map[string]any{"tier": "gold", "scope": "orders/read extra"}
	})
	const removed = "(removed)"
	tests := []struct {
		name   string
		client string
		opts   []cognitotest.TokenOption
		want   map[string]any
	}{
		{"none", cognitotest.DemoClientID, nil, map[string]any{}},
		{"fewer scopes", cognitotest.DemoClientID, []cognitotest.TokenOption{cognitotest.Scopes("orders/read")}, map[string]any{"scope": "orders/read"}},
		{"no scopes", cognitotest.DemoClientID, []cognitotest.TokenOption{cognitotest.Scopes()}, map[string]any{"scope": removed}},
		{"expired lifetime", cognitotest.DemoClientID, []cognitotest.TokenOption{cognitotest.TTL(-time.Second)}, map[string]any{"exp": 1772600766.0}},
		{"issued earlier", cognitotest.DemoClientID, []cognitotest.TokenOption{cognitotest.IssuedAt(now.Add(-2 * time.Hour))}, map[string]any{"iat": 1772593567.0, "auth_time": 1772593567.0, "exp": 1772597167.0}},
		{"a claim more", cognitotest.DemoClientID, []cognitotest.TokenOption{cognitotest.Claim("aud", "x")}, map[string]any{"aud": "x"}},
		{"another value", cognitotest.DemoClientID, []cognitotest.TokenOption{cognitotest.Claim("iss", 7)}, map[string]any{"iss": 7.0}},
		{"a claim less", cognitotest.DemoClientID, []cognitotest.TokenOption{cognitotest.WithoutClaim("exp")}, map[string]any{"exp": removed}},
		{"the client's own settings", cognitotest.DemoReaderID, nil, map[string]any{
			"sub": cognitotest.DemoReaderID, "client_id": cognitotest.DemoReaderID, "scope": "orders/read extra", "exp": 1772601067.0, "tier": "gold",
		}},
		{"a client that is not there", "nobody", nil, map[string]any{"sub": "nobody", "client_id": "nobody", "scope": removed}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := claimsOf(t, pool.Token(cognitotest.DemoClientID))
			for name, value := range tt.want {
				want[name] = value
				if value == removed {
					delete(want, name)
				}
			}
			got := claimsOf(t, pool.Token(tt.client, tt.opts...))
			delete(want, "jti")
			delete(got, "jti")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUserTokenWithoutClientScopes(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	if got, want := claimsOf(t, pool.UserToken("nobody", "jane@example.org"))["scope"], "aws.cognito.signin.user.admin"; got != want {
		t.Errorf("scope is %v, want %s", got, want)
	}
	if got, want := claimsOf(t, pool.IDToken("nobody", "jane@example.org"))["email"], "jane@example.org"; got != want {
		t.Errorf("email is %v, want %s", got, want)
	}
}

func TestHeaderAndKeyOptions(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	header, _ := decode(t, pool.Token(cognitotest.DemoClientID, cognitotest.HeaderParam("jku", "https://evil.example"), cognitotest.HeaderParam("alg", "none")))
	if want := `","alg":"none","jku":"https:\/\/evil.example"}`; !strings.HasSuffix(header, want) {
		t.Errorf("header is %s, want it to end in %s", header, want)
	}

	forged := pool.ForgedKey()
	token := pool.Token(cognitotest.DemoClientID, cognitotest.SignedBy(forged))
	if err := verify(pool.JWKS(), token); !errors.Is(err, rsa.ErrVerification) {
		t.Errorf("token signed by a forged key: %v, want %v", err, rsa.ErrVerification)
	}
	header, _ = decode(t, token)
	if want := strings.ReplaceAll(pool.AccessKey().ID, "/", `\/`); !strings.Contains(header, want) {
		t.Errorf("header is %s, want the kid %s", header, want)
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	claims := pool.Claims(cognitotest.DemoClientID, cognitotest.Claim("n", 1))
	if claims["exp"] != now.Unix()+3600 || claims["client_id"] != cognitotest.DemoClientID {
		t.Errorf("claims are %v", claims)
	}
	claims["a/b"] = "<&>"
	header, payload := decode(t, pool.Sign(map[string]any{"alg": "RS256"}, claims))
	if want := `{"alg":"RS256"}`; header != want {
		t.Errorf("header is %s, want %s", header, want)
	}
	if want := `{"a\/b":"<&>",`; !strings.HasPrefix(payload, want) {
		t.Errorf("payload is %s, want it to start with %s", payload, want)
	}
	header, payload = decode(t, pool.SignBytes([]byte("{}"), []byte{0xff, 0x00}))
	if header != "{}" || payload != "\xff\x00" {
		t.Errorf("header is %q and payload %q, want the bytes as they were given", header, payload)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	oldToken, idToken, oldKey := pool.Token(cognitotest.DemoClientID), pool.IDToken(cognitotest.DemoWebID, "jane"), pool.AccessKey()

	spare := pool.AddKey()
	if pool.AccessKey().ID != oldKey.ID || len(pool.Keys()) != 3 {
		t.Errorf("after AddKey the access key is %s and there are %d keys, want %s and 3", pool.AccessKey().ID, len(pool.Keys()), oldKey.ID)
	}
	fresh := pool.Rotate()
	newToken := pool.Token(cognitotest.DemoClientID)
	if pool.AccessKey() != fresh || fresh.ID == oldKey.ID {
		t.Errorf("after Rotate the access key is %s, want the new one, %s", pool.AccessKey().ID, fresh.ID)
	}
	for _, token := range []string{oldToken, newToken, idToken, pool.IDToken(cognitotest.DemoWebID, "jane"), pool.Token(cognitotest.DemoClientID, cognitotest.SignedBy(spare))} {
		if err := verify(pool.JWKS(), token); err != nil {
			t.Errorf("after Rotate: %v", err)
		}
	}

	if !pool.RemoveKey(oldKey.ID) {
		t.Error("RemoveKey of a published key is false")
	}
	if pool.RemoveKey(oldKey.ID) {
		t.Error("RemoveKey of a removed key is true")
	}
	if err := verify(pool.JWKS(), oldToken); !errors.Is(err, errNoKey) {
		t.Errorf("after RemoveKey: %v, want %v", err, errNoKey)
	}
	if err := verify(pool.JWKS(), newToken); err != nil {
		t.Errorf("after RemoveKey of another key: %v", err)
	}
}

// TestKeysAreDistinct: a token of one pool must not verify with a key of another, else the tests that tell pools apart
// would prove nothing.
func TestKeysAreDistinct(t *testing.T) {
	t.Parallel()
	s, _ := start(t, func(cfg *cognitotest.Config) {
		for i := range 3 {
			p := cognitotest.DemoPool()
			p.ID = fmt.Sprintf("us-east-1_Other%d", i)
			cfg.Pools = append(cfg.Pools, p)
		}
	})
	seen := make(map[string]string)
	for _, p := range s.Pools() {
		for range 3 {
			p.Rotate()
		}
		for _, k := range append(p.Keys(), p.ForgedKey()) {
			n := k.Private.N.String()
			if other, ok := seen[n]; ok {
				t.Errorf("keys %s and %s are the same pair", other, k.ID)
			}
			seen[n] = k.ID
		}
	}
	// More pairs than the process keeps for reuse were needed, so it went on making them.
	if len(seen) != 4*6 {
		t.Errorf("%d keys, want %d", len(seen), 4*6)
	}
}

func TestMethodsWorkAfterClose(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	s.Close()
	s.Close()
	if err := verify(pool.JWKS(), pool.Token(cognitotest.DemoClientID)); err != nil {
		t.Error(err)
	}
	pool.Rotate()
}

func TestTokenPanicsOnWhatIsNotJSON(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(r.(string), "cognitotest: ") {
			t.Errorf("recovered %v, want a panic that names the package", r)
		}
	}()
	pool.Token(cognitotest.DemoClientID, cognitotest.Claim("f", func() {}))
}

func BenchmarkToken(b *testing.B) {
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var size int
	for b.Loop() {
		size = len(s.Pools()[0].Token(cognitotest.DemoClientID))
	}
	b.ReportMetric(float64(size), "token-bytes")
}

// TestJWKSBytes holds the form of the JWK Set: members, order, no spaces, slashes not escaped.
func TestJWKSBytes(t *testing.T) {
	t.Parallel()
	_, pool := start(t)
	key := `{"alg":"RS256","e":"AQAB","kid":"«kid»","kty":"RSA","n":"«n»","use":"sig"}`
	want := pattern(`{"keys":[`+key+`,`+key+`]}`, map[string]string{"kid": `[A-Za-z0-9+/]{43}=`, "n": `[A-Za-z0-9_-]{342}`})
	if got := pool.JWKS(); !want.Match(got) {
		t.Errorf("JWK Set\n got %s\nwant %s", got, want)
	}
	if served := get(t, pool.JWKSURL()); served.Body != string(bytes.TrimSpace(pool.JWKS())) {
		t.Errorf("served %s\nwant %s", served.Body, pool.JWKS())
	}
}
