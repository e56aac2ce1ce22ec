package validator_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A set of half a million members that are no keys must not become an error text of as many lines.
func TestProblemsAreBounded(t *testing.T) {
	junk := `{"keys":[` + strings.Repeat("0,", 50_000) + `0]}`
	_, problems, err := validator.ParseJWKS([]byte(junk))
	if err == nil || len(err.Error()) > 1000 || len(problems) > 17 || !strings.Contains(problems[len(problems)-1].String(), "49985 more") {
		t.Errorf("%d problems and an error of %d bytes, want at most 17 and 1,000", len(problems), len(fmt.Sprint(err)))
	}
	long := `{"keys":[{"kid":"` + strings.Repeat("x", 1<<19) + `"}]}`
	if _, problems, _ := validator.ParseJWKS([]byte(long)); len(problems) != 1 || len(problems[0].KeyID) > 256 {
		t.Errorf("%d problems, want one with a kid cut short", len(problems))
	}
	if _, _, err := validator.ParseJWKS([]byte(`{"keys":[` + strings.Repeat("0,", 200_000) + `0]}`)); err == nil || !strings.Contains(err.Error(), "too many values") {
		t.Errorf("%v, want too many values", err)
	}
}

// What is not signed must cost less than a signature check, whatever is in it.
func TestWorkBeforeTheSignatureIsBounded(t *testing.T) {
	p := newPool(t)
	v := newValidator(t, config(t, p))
	enc := base64.RawURLEncoding.EncodeToString
	header := enc([]byte(`{"alg":"RS256","kid":"` + p.AccessKey().ID + `"}`))
	for name, token := range map[string]string{
		"a list of numbers":        header + "." + enc([]byte(`{"a":[`+strings.Repeat("0,", 5000)+`0]}`)) + ".AA",
		"a list of lists":          header + "." + enc([]byte(`{"a":[`+strings.Repeat("[0],", 2500)+`0]}`)) + ".AA",
		"a header of many members": enc([]byte(`{"x":[`+strings.Repeat("0,", 1000)+`0]}`)) + "." + enc([]byte(`{}`)) + ".AA",
		"a long header":            enc([]byte(`{"alg":"RS256","kid":"x","x":"`+strings.Repeat("y", 4000)+`"}`)) + "." + enc([]byte(`{}`)) + ".AA",
		"dots":                     strings.Repeat(".", 16000),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := v.Validate(t.Context(), token); reasonOf(t, err) != validator.ErrMalformed {
				t.Errorf("%v, want %v", err, validator.ErrMalformed)
			}
			if allocs := testing.AllocsPerRun(10, func() { _, _ = v.Validate(t.Context(), token) }); allocs > 2100 {
				t.Errorf("%v allocations, want at most about two for each of 1,000 values", allocs)
			}
		})
	}
	groups := make([]string, 300)
	for i := range groups {
		groups[i] = fmt.Sprint("group-", i)
	}
	if _, err := v.Validate(t.Context(), p.Token(client, cognitotest.Claim("cognito:groups", groups), cognitotest.Claim("cognito:roles", groups))); err != nil {
		t.Errorf("a member of 300 groups: %v, want it accepted", err)
	}
}

// A server that fails because of the condition must not fail for ever.
func TestNoConditionAfterAFailure(t *testing.T) {
	body, kid := jwksOf(t)
	for name, etag := range map[string]string{"refuses conditions": `"v1"`, "refuses long headers": `"` + strings.Repeat("x", 1000) + `"`} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				k, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{
					URL: "https://keys.example/",
					Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						requests++
						if r.Header.Get("If-None-Match") != "" {
							return answer(r, http.StatusPreconditionFailed, nil, http.NoBody)
						}
						return answer(r, http.StatusOK, http.Header{"Etag": {etag}}, bytes.NewReader(body))
					}),
				})
				if err != nil {
					t.Fatal(err)
				}
				wantKey(t, k, kid)
				_ = k.Refresh(t.Context())
				if err := k.Refresh(t.Context()); err != nil {
					t.Errorf("%v at request %d, want it without a condition", err, requests)
				}
			})
		})
	}
}

// A missing key is looked for without a condition: a server whose ETag stays the same may have others by now.
func TestUnknownKidAsksWithoutACondition(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		f.set(func(f *fakeJWKS) { f.etag = `"always"` })
		wantKey(t, k, kid)
		time.Sleep(time.Minute)
		f.set(func(f *fakeJWKS) { f.body = f.rotated })
		wantKey(t, k, f.rotatedKid)
	})
}

// A copy from a cache in between says nothing of what has come since it was made.
func TestAgeOfACopy(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		f.set(func(f *fakeJWKS) { f.header = http.Header{"Age": {"600"}} })
		wantKey(t, k, kid)
		wantErr(t, k, "new", time.Now().Add(-2*time.Minute), validator.ErrKeysUnavailable)
		wantErr(t, k, "new", time.Now().Add(-11*time.Minute), validator.ErrUnknownKey)
	})
}

func TestScopesHaveNoRoom(t *testing.T) {
	p := newPool(t)
	v := newCached(t, newValidator(t, config(t, p)), validator.CacheConfig{})
	token := p.Token(client, cognitotest.Scopes("a/1", "a/2", "a/3"), cognitotest.Claim("aud", []string{"a", "b", "c"}))
	one, err := v.Validate(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	two, _ := v.Validate(t.Context(), token)
	if cap(one.Scopes) != 3 || cap(one.Audience) != 3 || cap(two.Scopes) != 3 {
		t.Errorf("room for %d scopes and %d audiences, want none: what one caller appends, another would see", cap(one.Scopes), cap(one.Audience))
	}
}

// panics is a log handler that does.
type panics struct{ slog.Handler }

func (panics) Enabled(context.Context, slog.Level) bool  { return true }
func (panics) Handle(context.Context, slog.Record) error { panic("log") }
func (p panics) WithAttrs([]slog.Attr) slog.Handler      { return p }

func TestPanicOfALogEndsNothing(t *testing.T) {
	bubble(t, func(c *validator.RemoteKeysConfig) { c.Logger = slog.New(panics{}) }, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		wantKey(t, k, kid)
		synctest.Wait()
		wantKey(t, k, kid)
	})
}

// A key whose private half is published is nobody's, whatever other member has its public half.
func TestPublishedPrivateKey(t *testing.T) {
	p := newPool(t)
	leaked, other := jwkOf(p.AccessKey()), jwkOf(p.IDKey())
	twin := jwkOf(p.AccessKey())
	twin["kid"], twin["d"] = "twin", "AQAB"
	for name, set := range map[string][]any{"before": {twin, leaked, other}, "behind": {leaked, other, twin}} {
		keys, problems, err := validator.ParseJWKS(mustJSON(t, map[string]any{"keys": set}))
		if err != nil || len(keys) != 1 || keys[p.IDKey().ID] == nil || len(problems) != 2 {
			t.Errorf("%s: keys %v, problems %v, error %v, want only the other key", name, keys, problems, err)
		}
	}
}

// What the caller does with its slices and maps after New changes nothing.
func TestNewCopies(t *testing.T) {
	p := newPool(t)
	keys := staticKeys(t, p)
	cfg := config(t, p)
	cfg.Keys, cfg.RequiredScopes, cfg.Audience = keys, []string{"orders/admin"}, []string{"api"}
	v := newValidator(t, cfg)
	cfg.RequiredScopes[0], cfg.Audience[0] = "orders/read", "other"
	forged := p.ForgedKey()
	keys[forged.ID] = &forged.Private.PublicKey
	if _, err := v.Validate(t.Context(), p.Token(client, cognitotest.Claim("aud", "api"))); reasonOf(t, err) != validator.ErrInsufficientScope {
		t.Errorf("%v, want %v", err, validator.ErrInsufficientScope)
	}
	clear(keys)
	if _, err := v.Validate(t.Context(), p.Token(client, cognitotest.Claim("aud", "api"))); reasonOf(t, err) != validator.ErrInsufficientScope {
		t.Errorf("%v, want %v", err, validator.ErrInsufficientScope)
	}
}

func TestErrorsOfURLsHoldNoSecret(t *testing.T) {
	for _, url := range []string{"https://user:hunter2@keys.example/x", "http://keys.example/x?sig=hunter2", "ftp://keys.example/?hunter2", "://hunter2"} {
		if _, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: url}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want an error without the secret", err)
		}
	}
}

// A KeySet of somebody else's may return anything.
func TestOddKeySetErrors(t *testing.T) {
	p := newPool(t)
	for name, test := range map[string]struct {
		err   error
		retry time.Duration
	}{
		"a refusal and a failure": {errors.Join(errors.New("x"), &validator.InsufficientScopeError{}), time.Second},
		"a token error":           {&validator.TokenError{Reason: validator.ErrExpired}, time.Second},
		"a pause":                 {&validator.KeysUnavailableError{RetryAfter: time.Minute, Err: validator.ErrExpired}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, p)
			cfg.Keys = keysFunc(func() error { return test.err })
			_, err := newValidator(t, cfg).Validate(t.Context(), p.Token(client))
			if reasonOf(t, err) != validator.ErrKeysUnavailable || validator.RetryAfter(err) != test.retry {
				t.Errorf("%v with Retry-After %v, want %v and %v", err, validator.RetryAfter(err), validator.ErrKeysUnavailable, test.retry)
			}
		})
	}
}

func TestConstructorsRefuseNothing(t *testing.T) {
	if c, err := validator.NewCached(nil, validator.CacheConfig{}); err == nil || c != nil {
		t.Error("NewCached takes a nil Validator")
	}
	if k, err := validator.NewReplaceableKeys(map[string]*rsa.PublicKey{}); err == nil || k != nil {
		t.Error("NewReplaceableKeys takes no keys")
	}
	p := newPool(t)
	cfg := config(t, p)
	cfg.TokenUses, cfg.Audience = []validator.TokenUse{validator.IDToken}, []string{"api"}
	if _, err := validator.New(cfg); err == nil || !strings.Contains(err.Error(), "Audience") {
		t.Errorf("%v, want an error about Audience, which is not checked of ID tokens", err)
	}
}

// What is at a bound passes, what is beyond does not.
func TestBordersOfBounds(t *testing.T) {
	p := newPool(t)
	v := newValidator(t, config(t, p))
	items := func(n int) []int { return make([]int, n) }
	usual := len(p.Claims(client)) + 1 // and the object itself
	for _, test := range []struct {
		name   string
		token  string
		accept bool
	}{
		{"1,000 values", p.Token(client, cognitotest.Claim("x", items(1000-usual-1))), true},
		{"1,001 values", p.Token(client, cognitotest.Claim("x", items(1000-usual))), false},
		{"a header of 64 values", p.Token(client, cognitotest.HeaderParam("x", items(60))), true},
		{"a header of 65 values", p.Token(client, cognitotest.HeaderParam("x", items(61))), false},
		{"a header of 4096 bytes", p.Token(client, cognitotest.HeaderParam("x", padding(t, p, 4096))), true},
		{"a header of 4099 bytes", p.Token(client, cognitotest.HeaderParam("x", padding(t, p, 4096)+"xx")), false},
	} {
		if _, err := v.Validate(t.Context(), test.token); (err == nil) != test.accept {
			t.Errorf("%s: %v, want it accepted: %v", test.name, err, test.accept)
		}
	}
}

// padding is a text that makes a header as long as wanted, once it is encoded.
func padding(t *testing.T, p *cognitotest.Pool, length int) string {
	t.Helper()
	header, _, _ := strings.Cut(p.Token(client, cognitotest.HeaderParam("x", "")), ".")
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Repeat("y", base64.RawURLEncoding.DecodedLen(length)-len(text))
}

// Sixteen problems are all reported; of seventeen, the last is counted.
func TestProblemsAtTheBound(t *testing.T) {
	good := string(mustJSON(t, jwkOf(newPool(t).AccessKey())))
	for n, want := range map[int]string{15: "JSON object", 16: "JSON object", 17: "1 more are left out"} {
		_, problems, err := validator.ParseJWKS([]byte(`{"keys":[` + good + strings.Repeat(",0", n) + `]}`))
		if err != nil || len(problems) != n || !strings.Contains(problems[n-1].String(), want) || strings.HasPrefix(problems[0].String(), "key") {
			t.Errorf("%d: %d problems, the last %v, error %v, want %d and %q", n, len(problems), problems[len(problems)-1], err, n, want)
		}
	}
}

// An ETag of 256 bytes is sent back, a longer one is not.
func TestETagAtTheBound(t *testing.T) {
	for length, want := range map[int]bool{256: true, 257: false} {
		bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
			f.set(func(f *fakeJWKS) { f.etag = strings.Repeat("x", length) })
			_ = k.Refresh(t.Context())
			f.set(func(f *fakeJWKS) { f.body = []byte("broken") }) // which a 304 hides
			if err := k.Refresh(t.Context()); (err == nil) != want {
				t.Errorf("%d bytes: %v, want it sent back: %v", length, err, want)
			}
		})
	}
}

// A cause that has no Reason of its own can be found.
func TestCauseIsFound(t *testing.T) {
	p := newPool(t)
	cause := errors.New("cause")
	cfg := config(t, p)
	cfg.Keys = keysFunc(func() error { return cause })
	if _, err := newValidator(t, cfg).Validate(t.Context(), p.Token(client)); !errors.Is(err, cause) {
		t.Errorf("%v, want its cause to be found", err)
	}
}

// A member without a modulus publishes nothing, whatever else it has.
func TestPrivateMemberWithoutModulus(t *testing.T) {
	p := newPool(t)
	for _, odd := range []any{map[string]any{"kty": "RSA", "d": "AQAB"}, map[string]any{"d": "AQAB", "n": 1}} {
		keys, _, err := validator.ParseJWKS(mustJSON(t, map[string]any{"keys": []any{odd, jwkOf(p.AccessKey())}}))
		if err != nil || len(keys) != 1 {
			t.Errorf("keys %v, error %v, want the good one", keys, err)
		}
	}
}

func TestDenylistOfManyEntries(t *testing.T) {
	p := newPool(t)
	v := newValidator(t, config(t, p))
	for name, test := range map[string]struct {
		entries []validator.Revocation
		want    validator.Reason
	}{
		"the later counts":     {[]validator.Revocation{{ClientID: client, IssuedBefore: now.Add(time.Hour)}, {ClientID: client, IssuedBefore: now.Add(-time.Hour)}}, validator.ErrRevoked},
		"no time counts":       {[]validator.Revocation{{ClientID: client}, {ClientID: client, IssuedBefore: now.Add(-time.Hour)}}, validator.ErrRevoked},
		"no time counts, last": {[]validator.Revocation{{ClientID: client, IssuedBefore: now.Add(-time.Hour)}, {ClientID: client}}, validator.ErrRevoked},
		"none is late enough":  {[]validator.Revocation{{ClientID: client, IssuedBefore: now.Add(-time.Hour)}, {ClientID: client, IssuedBefore: now.Add(-time.Minute)}}, ""},
	} {
		if err := v.SetDenylist(test.entries); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Validate(t.Context(), p.Token(client)); reasonOf(t, err) != test.want {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
