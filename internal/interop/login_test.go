package interop

import (
	"context"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
)

// oidcProvider starts an issuer for people that others have written, and returns the settings for it.
func oidcProvider(t *testing.T) login.Config {
	t.Helper()
	line, _ := start(t, program(t, installed(t), "node", "oidc-provider-login.mjs"))
	var said struct{ Issuer string }
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		t.Fatalf("it printed %q: %v", line, err)
	}
	return login.Config{
		AuthorizeURL: said.Issuer + "/auth", TokenURL: said.Issuer + "/token", RevokeURL: said.Issuer + "/token/revocation",
		Issuers: []string{said.Issuer}, JWKSURL: said.Issuer + "/jwks",
		ClientID: "cli", RedirectURL: "http://127.0.0.1:0/done", Scopes: []string{"email", "orders/read"},
		Output: io.Discard,
	}
}

// A signer fills in the forms that it is shown, until there are none.
type signer struct {
	t      *testing.T
	client *http.Client
	fields map[string]string // by name
	pages  []string          // the bodies it was shown
}

func newSigner(t *testing.T, fields map[string]string) *signer {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t: t, client: &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}, fields: fields}
}

var (
	formPattern  = regexp.MustCompile(`(?is)<form[^>]*\baction="([^"]*)"[^>]*>(.*?)</form>`)
	inputPattern = regexp.MustCompile(`(?is)<input\b[^>]*\bname="([^"]*)"[^>]*>`)
	valuePattern = regexp.MustCompile(`(?is)\bvalue="([^"]*)"`)
)

func (s *signer) open(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	for range 5 {
		if err != nil {
			return err
		}
		var resp *http.Response
		if resp, err = s.client.Do(req); err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		s.pages = append(s.pages, string(body))
		form := formPattern.FindStringSubmatch(string(body))
		if form == nil {
			return nil
		}
		if req, err = s.submit(ctx, resp.Request.URL, form[1], form[2]); err != nil {
			return err
		}
	}
	return errors.New("there is a form after five forms")
}

func (s *signer) submit(ctx context.Context, page *url.URL, action, inputs string) (*http.Request, error) {
	to, err := page.Parse(html.UnescapeString(action))
	if err != nil {
		return nil, err
	}
	values := make(url.Values)
	for _, input := range inputPattern.FindAllStringSubmatch(inputs, -1) {
		value := s.fields[input[1]]
		if v := valuePattern.FindStringSubmatch(input[0]); v != nil && value == "" {
			value = html.UnescapeString(v[1])
		}
		values.Set(input[1], value)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req, nil
}

func (s *signer) lastPage() string {
	if len(s.pages) == 0 {
		return ""
	}
	return s.pages[len(s.pages)-1]
}

func newAuthenticator(t *testing.T, cfg login.Config) *login.Authenticator {
	t.Helper()
	a, err := login.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A provider that others have written checks the challenge, the redirect URL and the client, and sends iss along (RFC 9207).
func TestLoginAtOIDCProvider(t *testing.T) {
	for _, client := range []string{"cli", "cli-with-secret"} {
		t.Run(client, func(t *testing.T) {
			cfg := oidcProvider(t)
			cfg.ClientID = client
			if client != "cli" {
				cfg.Secret = cognito.StaticSecret("secret")
			}
			jane := newSigner(t, map[string]string{"login": "jane", "password": "x"})
			opened := make(chan error, 1)
			cfg.OpenBrowser = func(ctx context.Context, address string) error {
				err := jane.open(ctx, address)
				opened <- err
				return err
			}
			a := newAuthenticator(t, cfg)
			tokens, err := a.Login(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := <-opened; err != nil || !strings.Contains(jane.lastPage(), "You are signed in") {
				t.Errorf("the browser was shown %q, %v", jane.lastPage(), err)
			}
			claims, err := tokens.IDClaims()
			if err != nil {
				t.Fatal(err)
			}
			if claims.Subject != "jane" || claims.Username != "jane" || claims.Map()["nonce"] == nil {
				t.Errorf("the claims are %v", claims.Map())
			}
			checkRotation(t, a, tokens)

			// Another sign-in, which is revoked.
			if tokens, err = a.Login(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(<-opened, a.Revoke(t.Context(), tokens)); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Refresh(t.Context(), tokens); !errors.Is(err, login.ErrLoginRequired) {
				t.Errorf("after Revoke a refresh gives %v, want ErrLoginRequired", err)
			}
		})
	}
}

// checkRotation refreshes twice, and then with a refresh token that has been rotated out, for which the provider ends the
// sign-in.
func checkRotation(t *testing.T, a *login.Authenticator, first *login.Tokens) {
	t.Helper()
	second, err := a.Refresh(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	third, err := a.Refresh(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains([]string{first.RefreshToken, second.RefreshToken}, third.RefreshToken) || first.AccessToken == third.AccessToken {
		t.Error("a refresh gave what was there before, want new tokens")
	}
	for _, tokens := range []*login.Tokens{first, third} {
		if _, err := a.Refresh(t.Context(), tokens); !errors.Is(err, login.ErrLoginRequired) {
			t.Errorf("a refresh gives %v, want ErrLoginRequired: a refresh token came twice", err)
		}
	}
}

// A Session spends each refresh token once, however many ask.
func TestSessionAtOIDCProvider(t *testing.T) {
	cfg := oidcProvider(t)
	jane := newSigner(t, map[string]string{"login": "jane", "password": "x"})
	cfg.OpenBrowser = jane.open
	// The clock of the program, and not the provider's.
	ahead := time.Duration(0)
	cfg.Now = func() time.Time { return time.Now().Add(ahead) }
	store, err := login.NewFileStore(filepath.Join(t.TempDir(), "tokens", "jane.json"))
	if err != nil {
		t.Fatal(err)
	}
	open := func() *login.Session {
		s, err := login.NewSession(login.SessionConfig{Authenticator: newAuthenticator(t, cfg), Store: store})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	session := open()
	if _, err := session.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := session.AccessToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ahead = 56 * time.Minute
	tokens := make(chan string, 40)
	for range 4 {
		s := open() // as in another process
		for range cap(tokens) / 4 {
			go func() {
				token, err := s.AccessToken(context.Background())
				if err != nil {
					t.Error(err)
				}
				tokens <- token
			}()
		}
	}
	second := <-tokens
	for range cap(tokens) - 1 {
		if token := <-tokens; token != second {
			t.Error("two callers got two tokens")
		}
	}
	if second == first {
		t.Error("nothing was refreshed")
	}
	if _, err := open().Refresh(t.Context()); err != nil {
		t.Errorf("the sign-in has ended: %v", err)
	}
	if err := session.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

// cognito-local exchanges a code with PKCE as Cognito does, and leaves the nonce out of the ID token: what is right about its
// tokens is accepted, and that is not. Its refresh has no nonce to check.
func TestLoginAtCognitoLocal(t *testing.T) {
	addr, _ := cognitoLocal(t)
	redirect := "http://" + strings.Replace(freeAddr(t), "127.0.0.1", "localhost", 1)
	pool, client, _, id := signIn(t, addr)
	var none obj
	cognitoAPI(t, addr, "UpdateUserPoolClient", obj{
		"UserPoolId": pool, "ClientId": client, "CallbackURLs": []string{redirect}, "AllowedOAuthFlows": []string{"code"}, "AllowedOAuthScopes": []string{"openid"},
	}, &none)
	jane := newSigner(t, map[string]string{"username": "jane@example.com", "password": "Interop-Only-1!"})
	issuer := "http://" + addr + "/" + pool
	cfg := login.Config{
		AuthorizeURL: "http://" + addr + "/oauth2/authorize", TokenURL: "http://" + addr + "/oauth2/token",
		Issuers: []string{issuer}, ClientID: client, RedirectURL: redirect, Output: io.Discard, OpenBrowser: jane.open,
	}
	a := newAuthenticator(t, cfg)
	_, err := a.Login(t.Context())
	var refused *login.TokenRefusedError
	if !errors.As(err, &refused) || err.Error() != "login: the ID token of the token endpoint is refused: its nonce is not that of the authorization request" {
		t.Errorf("got %v, want all to be right but the nonce", err)
	}

	var signedIn struct {
		AuthenticationResult struct{ AccessToken, RefreshToken string }
	}
	cognitoAPI(t, addr, "InitiateAuth", obj{
		"ClientId": client, "AuthFlow": "USER_PASSWORD_AUTH", "AuthParameters": obj{"USERNAME": "jane@example.com", "PASSWORD": "Interop-Only-1!"},
	}, &signedIn)
	old := &login.Tokens{IDToken: id, AccessToken: signedIn.AuthenticationResult.AccessToken, RefreshToken: signedIn.AuthenticationResult.RefreshToken}
	got, err := a.Refresh(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	if got.RefreshToken != old.RefreshToken || got.AccessToken == old.AccessToken {
		t.Error("want a new access token and the same refresh token: this server does not rotate")
	}
	old.RefreshToken = "other"
	if _, err := a.Refresh(t.Context(), old); !errors.Is(err, login.ErrLoginRequired) {
		t.Errorf("got %v, want ErrLoginRequired", err)
	}
}
