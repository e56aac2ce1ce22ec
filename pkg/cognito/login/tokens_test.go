package login

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
)

// The fields are those of the seeds' JwtPayload.
func TestDecodeIDClaims(t *testing.T) {
	t.Parallel()
	got, err := DecodeIDClaims(jwt(`{"sub":"s","aud":"a","iss":"i","token_use":"id","auth_time":1,"iat":2,"exp":3.5e0,"email":"e","email_verified":true,` +
		`"cognito:username":"u","cognito:groups":["g1","g2"],"cognito:roles":["r"],"cognito:preferred_role":"p","custom:x":"y"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &IDClaims{
		Subject: "s", Audience: "a", Issuer: "i", TokenUse: "id",
		AuthTime: time.Unix(1, 0).UTC(), IssuedAt: time.Unix(2, 0).UTC(), ExpiresAt: time.Unix(3, 5e8).UTC(),
		Email: "e", EmailVerified: true, Username: "u", Groups: []string{"g1", "g2"}, Roles: []string{"r"}, PreferredRole: "p",
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(IDClaims{})); diff != "" {
		t.Error(diff)
	}
	if got.Map()["custom:x"] != "y" || got.Map()["iat"] != json.Number("2") {
		t.Errorf("the map is %v", got.Map())
	}
	empty, err := DecodeIDClaims(jwt(`{"sub":1,"aud":["a"],"iat":"2","exp":1e300,"auth_time":-1,"email_verified":1,"cognito:groups":"g","cognito:roles":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&IDClaims{}, empty, cmpopts.IgnoreUnexported(IDClaims{})); diff != "" {
		t.Errorf("claims of other types: %s", diff)
	}
	if c, err := DecodeIDClaims(jwt(`{"email_verified":"true"}`)); err != nil || !c.EmailVerified {
		t.Errorf("got %v, %v, want what some identity providers say", c, err)
	}
}

func TestDate(t *testing.T) {
	t.Parallel()
	for number, want := range map[json.Number]time.Time{
		"0": time.Unix(0, 0), "1.5": time.Unix(1, 5e8), "253402300799": time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		"253402300800": {}, "-1": {}, "1e400": {}, "": {},
	} {
		if got := date(number); !got.Equal(want) {
			t.Errorf("%s is %v, want %v", number, got, want)
		}
	}
}

func TestDecodeIDClaimsErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, token, want string }{
		{"nothing", "", "login: the token has 1 parts and 0 bytes, want the 3 parts of a compact JWS and at most 16384 bytes"},
		{"a JWE", "a.b.c.d.e", "login: the token has 5 parts"},
		{"too much", "a." + strings.Repeat("A", 16<<10) + ".c", "at most 16384 bytes"},
		{"padding", "a.e30=.c", "no unpadded base64url"},
		{"no JSON", "a.bm9wZQ.c", "no JSON object"},
		{"null", jwt("null"), "no JSON object"},
		{"a list", jwt("[]"), "no JSON object"},
		{"two objects", jwt("{}{}"), "something behind"},
	} {
		if c, err := DecodeIDClaims(tt.token); c != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and %v, want %q", tt.name, c, err, tt.want)
		}
	}
}

func FuzzDecodeIDClaims(f *testing.F) {
	f.Add(jwt(`{"sub":"s","exp":1}`))
	f.Add("a.e30.c")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := DecodeIDClaims(token)
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v and %v", c, err)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("the error has %d bytes, and may hold the token: %v", len(err.Error()), err)
		}
	})
}

// All that this package hands out can be printed, logged and marshalled without giving anything away.
func TestNothingShowsSecrets(t *testing.T) {
	t.Parallel()
	f := start(t, func(_ *cognitotest.PoolConfig, c *cognitotest.Client) {
		c.Secrets, c.Flows = []string{testSecret}, []string{cognitotest.FlowCode}
	})
	a := f.authenticator(t, func(c *Config) { c.Secret = cognito.StaticSecret(testSecret) })
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	s := newSession(t, a, func(c *SessionConfig) { c.Logger = logger })
	tokens, err := s.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shown := <-f.visits
	r := a.NewRequest()
	code := f.code(t, a, r)
	canaries := map[string]string{
		"ID token": tokens.IDToken, "access token": tokens.AccessToken, "refresh token": tokens.RefreshToken,
		"signature": tokens.IDToken[strings.LastIndex(tokens.IDToken, ".")+1:], "secret": testSecret, "verifier": r.PKCE.Verifier,
		"code": code, "code of the login": shown.url.Query().Get("code"),
	}
	own := map[string]string{"state": r.State, "nonce": r.Nonce, "challenge": r.PKCE.Challenge}

	var text strings.Builder
	values := []any{
		tokens, *tokens, r, *r, r.PKCE, a, *a, s, f.cfg,
		[]*Tokens{tokens},
		map[string]*Tokens{"x": tokens},
		struct{ T Tokens }{*tokens},
		struct{ R *AuthorizationRequest }{r},
	}
	for _, v := range values {
		fmt.Fprintf(&text, "%v %+v %#v %s %q %x %d\n", v, v, v, v, v, v, v)
		logger.Info("x", "v", v)
		marshalled, err := json.Marshal(v)
		fmt.Fprintf(&text, "%s %v\n", marshalled, err)
	}
	// Of a field that others do not export, fmt shows what a pointer leads to only for verbs that are wrong.
	hiding := struct{ t *Tokens }{tokens}
	fmt.Fprintf(&text, "%v %+v %#v\n", hiding, hiding, hiding)
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "tokens", tokens, "request", r)

	// Errors of all kinds, from servers that repeat what they were sent.
	echo := cognitotest.Fault{Status: http.StatusBadRequest, Body: []byte(`{"error":"invalid_grant","error_description":"` + tokens.RefreshToken + ` ` + code + ` ` + testSecret + `"}`)}
	f.pool.Fail(cognitotest.Token, echo)
	f.pool.Fail(cognitotest.Revoke, echo)
	_, refreshErr := a.Refresh(t.Context(), tokens)
	_, exchangeErr := a.Exchange(t.Context(), code, r)
	logoutErr := s.Logout(t.Context())
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Drop: true})
	_, dropErr := a.Refresh(t.Context(), tokens)
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Body: []byte(mustJSON(t, map[string]any{
		"access_token": tokens.AccessToken, "id_token": tokens.IDToken + "x", "refresh_token": tokens.RefreshToken, "expires_in": 3600, "token_type": "Bearer",
	}))})
	_, refusedErr := a.Refresh(t.Context(), tokens)
	var unused *TokenRefusedError
	if !errors.As(refusedErr, &unused) {
		t.Errorf("got %v, want a TokenRefusedError", refusedErr)
	}
	for _, err := range []error{refreshErr, exchangeErr, logoutErr, dropErr, refusedErr} {
		if err == nil {
			t.Error("no error, want one")
		}
		fmt.Fprintf(&text, "%v %+v %#v\n", err, err, err)
		for ; err != nil; err = errors.Unwrap(err) {
			fmt.Fprintf(&text, "%#v\n", err)
		}
	}
	text.WriteString(log.String())

	for name, canary := range canaries {
		for where, got := range map[string]string{"output": f.said.String(), "page": shown.body + fmt.Sprint(shown.header), "text": text.String()} {
			if strings.Contains(got, canary) {
				t.Errorf("the %s is in the %s", name, where)
			}
		}
	}
	for name, canary := range own {
		if strings.Contains(text.String(), canary) {
			t.Errorf("the %s is in the text", name)
		}
	}
	if len(text.String()) < 1000 || !strings.Contains(text.String(), "login.Tokens{hidden, expiry ") {
		t.Errorf("the text is %s", text.String())
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	for _, tokens := range []Tokens{{IDTokenExpiry: early, AccessTokenExpiry: late}, {IDTokenExpiry: late, AccessTokenExpiry: early}} {
		if got := tokens.Expiry(); !got.Equal(early) {
			t.Errorf("the expiry is %v, want the earlier one", got)
		}
	}
}
