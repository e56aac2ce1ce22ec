package interop

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/tokenfile"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// startIssuer runs one of our scripts, which prints its issuer.
func startIssuer(t *testing.T, script string) string {
	t.Helper()
	line, _ := start(t, program(t, installed(t), "node", script))
	var said struct{ Issuer string }
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		t.Fatalf("%s printed %q: %v", script, line, err)
	}
	return said.Issuer
}

// What pkg/cognito sends is understood by token endpoints that others have written, and it understands what they answer.
func TestTokenSource(t *testing.T) {
	installed(t)
	for name, tc := range map[string]struct {
		script string
		edit   func(*cognito.Config)
	}{
		"oauth2-mock-server": {"oauth2-mock-server.mjs", func(*cognito.Config) {}},
		"oidc-provider":      {"oidc-provider.mjs", func(*cognito.Config) {}},
		"oidc-provider, with Basic and a secret that is encoded": {"oidc-provider.mjs", func(c *cognito.Config) {
			c.ClientID, c.Secret, c.AuthStyle = "orders:basic", cognito.StaticSecret("s+c/r=t%e&:y"), cognito.AuthBasic
		}},
		"oidc-provider, with the second of two secrets": {"oidc-provider.mjs", func(c *cognito.Config) {
			c.Secret = cognito.StaticSecret("the-one-of-yesterday", "secret")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := startIssuer(t, tc.script)
			cache, err := tokenfile.New(tokenfile.Config{Dir: t.TempDir() + "/tokens", Problem: func(err error) { t.Error(err) }})
			if err != nil {
				t.Fatal(err)
			}
			cfg := cognito.Config{
				TokenURL: issuer + "/token", ClientID: "orders-batch", Secret: cognito.StaticSecret("secret"), AuthStyle: cognito.AuthPost,
				Scopes: []string{"orders/read", "orders/write"}, Cache: cache,
			}
			tc.edit(&cfg)
			source, err := cognito.NewTokenSource(cfg)
			if err != nil {
				t.Fatal(err)
			}

			var seen []string
			var mu sync.Mutex
			api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			}))
			defer api.Close()
			client := &http.Client{Transport: source.Transport(nil)}
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					resp, err := client.Get(api.URL)
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				})
			}
			all.Wait()
			client.CloseIdleConnections()
			if len(seen) != 20 || len(slices.Compact(slices.Clone(seen))) != 1 {
				t.Fatalf("%d requests had %d tokens, want 20 with the same", len(seen), len(slices.Compact(seen)))
			}

			// It is the token that pkg/validator takes.
			keys, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: issuer + "/jwks"})
			if err != nil {
				t.Fatal(err)
			}
			v, err := validator.New(validator.Config{Issuers: []string{issuer}, ClientIDs: []string{cfg.ClientID}, Keys: keys})
			if err != nil {
				t.Fatal(err)
			}
			claims, err := v.Validate(t.Context(), seen[0])
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{"orders/read", "orders/write"}; !slices.Equal(claims.Scopes, want) {
				t.Errorf("scopes are %q, want %q", claims.Scopes, want)
			}
			token, err := source.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := token.Expiry.Sub(claims.ExpiresAt).Abs(); d > 2*time.Second {
				t.Errorf("it expires at %v, by its exp at %v", token.Expiry, claims.ExpiresAt)
			}

			another, err := cognito.NewTokenSource(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if shared, err := another.Token(t.Context()); err != nil || shared.AccessToken() != token.AccessToken() {
				t.Errorf("got %v, %v, want the token of the shared cache", shared, err)
			}
			if renewed, err := another.Renew(t.Context()); err != nil || !renewed.ObtainedAt.After(token.ObtainedAt) {
				t.Errorf("got %v, %v, want a new token", renewed, err)
			}
			if token.Scopes != nil && !slices.Equal(token.Scopes, claims.Scopes) { // oidc-provider says them
				t.Errorf("the answer has scopes %q, the token %q", token.Scopes, claims.Scopes)
			}
		})
	}
}

// Refusals of oidc-provider, which checks what it is sent.
func TestTokenSourceThatIsRefused(t *testing.T) {
	installed(t)
	issuer := startIssuer(t, "oidc-provider.mjs")
	for name, tc := range map[string]struct {
		edit   func(*cognito.Config)
		status int
		code   string
	}{
		"the wrong secret":  {func(c *cognito.Config) { c.Secret = cognito.StaticSecret("not-the-secret") }, 401, cognito.InvalidClient},
		"two wrong secrets": {func(c *cognito.Config) { c.Secret = cognito.StaticSecret("not-the-secret", "nor-this-one") }, 401, cognito.InvalidClient},
		"another client":    {func(c *cognito.Config) { c.ClientID = "nobody" }, 401, cognito.InvalidClient},
		"a secret that differs where it is encoded": {func(c *cognito.Config) {
			c.ClientID, c.Secret, c.AuthStyle = "orders:basic", cognito.StaticSecret("s%2Bc/r=t%e&:y"), cognito.AuthBasic
		}, 401, cognito.InvalidClient},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cognito.Config{TokenURL: issuer + "/token", ClientID: "orders-batch", Secret: cognito.StaticSecret("secret"), AuthStyle: cognito.AuthPost}
			tc.edit(&cfg)
			source, err := cognito.NewTokenSource(cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, err = source.Token(t.Context())
			var request *cognito.TokenRequestError
			var retrieve *oauth2.RetrieveError
			if !errors.As(err, &request) || !errors.As(err, &retrieve) {
				t.Fatalf("got %v, want a *TokenRequestError and an *oauth2.RetrieveError", err)
			}
			if request.StatusCode != tc.status || request.ErrorCode != tc.code || request.ErrorDescription == "" || retrieve.ErrorCode != tc.code || cognito.IsTemporary(err) {
				t.Errorf("got %v, want status %d, %s with a description, not temporary", err, tc.status, tc.code)
			}
		})
	}
}
