package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/identity"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func loginCommand() *cobra.Command {
	var noBrowser, asJSON bool
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in with the browser",
		Long: `login opens the browser at the user pool's login page and waits for it to come back, with the
authorization code grant and PKCE. The tokens are verified and kept in a file that only the user can
read; other commands use and refresh them (cognitoctl token --user, exec --user, whoami, credentials).

The app client needs the authorization code grant and http://localhost:3000 among its callback URLs,
or what --redirect-url says. It needs no secret.

The browser is that of the system, or the program that the variable BROWSER names. If none can be
opened, the address to open by hand is printed anyway.`,
		Example: `  cognitoctl login --profile me
  cognitoctl login --domain my-team --user-pool-id eu-west-1_AbCdEfGhI --client-id 3n4b5urk1ft4fl3mg5e62d9ado
  cognitoctl login --profile me --no-browser`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := load(cmd, true)
			if err != nil {
				return err
			}
			session, _, err := s.session(cmd, noBrowser)
			if err != nil {
				return err
			}
			tokens, err := session.Login(cmd.Context())
			if tokens == nil {
				if errors.As(err, new(*fs.PathError)) {
					err = &codedError{exitFailed, err, "name a folder for logins with --" + stateDirFlag}
				}
				return err
			}
			if err != nil {
				note("the login cannot be kept, so nothing can use it: %v", err)
			}
			return printLogin(tokens, asJSON, err)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&noBrowser, "no-browser", false, "only print the address to open")
	addSettings(cmd, personFlags, loginFlags, poolFlags, endpointFlags)
	return cmd
}

// A loggedIn is the result of login as JSON.
type loggedIn struct {
	Username    string    `json:"username"`
	Subject     string    `json:"sub"`
	Email       string    `json:"email,omitempty"`
	ExpiresAt   time.Time `json:"expires_at"`
	Refreshable bool      `json:"refreshable"` // whether the tokens are refreshed after that
}

func printLogin(tokens *login.Tokens, asJSON bool, failed error) error {
	claims, err := tokens.IDClaims()
	if err != nil {
		return err
	}
	l := loggedIn{claims.Username, claims.Subject, claims.Email, tokens.Expiry().UTC(), tokens.RefreshToken != ""}
	if asJSON {
		err = printJSON(l)
	} else {
		until := "tokens are refreshed by themselves"
		if !l.Refreshable {
			until = "until " + when(l.ExpiresAt, time.Now())
		}
		err = printf("logged in as %s (sub %s), %s\n", visible(nameOf(claims)), visible(l.Subject), until)
	}
	if failed != nil && err == nil {
		err = &codedError{exitFailed, errSaid, ""}
	}
	return err
}

// nameOf returns what a person is called.
func nameOf(c *login.IDClaims) string {
	switch {
	case c.Email != "":
		return c.Email
	case c.Username != "":
		return c.Username
	}
	return c.Subject
}

func logoutCommand() *cobra.Command {
	var browser bool
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Log out: revoke the login and delete its tokens",
		Long: `logout revokes the refresh token at the user pool, so that nobody can use it any more, and deletes the
tokens here, with all AWS credentials in the cache. If it cannot be revoked, the tokens are deleted all
the same, and the exit code says so.

Services that verify tokens offline accept the access token until it expires, and AWS accepts credentials
that somebody has already. The browser has a session of its own at the login page; --browser ends that
too.`,
		Example: "  cognitoctl logout --profile me",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := load(cmd, true)
			if err != nil {
				return err
			}
			session, auth, err := s.session(cmd, true)
			if err != nil {
				return err
			}
			if _, err := waitFor(cmd.Context(), "the revocation endpoint", func(ctx context.Context) (struct{}, error) {
				return struct{}{}, session.Logout(ctx)
			}); err != nil {
				return errors.Join(s.explainLogout(cmd, err), clearCredentials(cmd))
			}
			if err := clearCredentials(cmd); err != nil {
				return err
			}
			if browser {
				if err := s.endBrowserSession(cmd.Context(), auth); err != nil {
					return err
				}
			}
			return printf("logged out\n")
		},
	}
	cmd.Flags().BoolVar(&browser, "browser", false, "also open the page that ends the browser's own session")
	addSettings(cmd, personFlags, logoutFlags, poolFlags, endpointFlags)
	return cmd
}

// clearCredentials removes the cached AWS credentials, those of other logins too, which get new ones when they need them.
func clearCredentials(cmd *cobra.Command) error {
	if dir := cacheDir(cmd, credentialsCache); dir != "" {
		return identity.ClearCache(dir)
	}
	return nil
}

// explainLogout adds to an error of a logout what is left of the login.
func (s *settings) explainLogout(cmd *cobra.Command, err error) error {
	if s.hasLogin(cmd) {
		return err
	}
	code, _ := classify(err)
	return &codedError{code, err, "the tokens are deleted here; who has a copy of the refresh token can still use it"}
}

func (s *settings) endBrowserSession(ctx context.Context, auth *login.Authenticator) error {
	address := auth.LogoutURL(cmp.Or(s.SignOutURL, s.RedirectURL))
	if address == "" {
		return s.missing("logoutUrl", "domain")
	}
	if err := openBrowser(ctx, address); err != nil {
		note("the browser could not be opened: %v; go to\n\n  %s\n", err, address)
	}
	return nil
}

func whoamiCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show who has logged in",
		Long: `whoami shows the claims of the ID token, after it has verified them with the keys of the user pool. It
refreshes the tokens if they have expired. Exit code 6 means that nobody has logged in, or that the
login has ended.`,
		Example: `  cognitoctl whoami --profile me
  cognitoctl whoami --profile me --json | jq -r .email`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := load(cmd, true)
			if err != nil {
				return err
			}
			session, _, err := s.session(cmd, true)
			if err != nil {
				return err
			}
			defer session.Wait()
			v, err := s.validator(validator.Config{ClientIDs: []string{s.ClientID}, TokenUses: []validator.TokenUse{validator.IDToken}})
			if err != nil {
				return err
			}
			return s.needsLogin(waitAndShow(cmd.Context(), session, v, asJSON))
		},
	}
	jsonFlag(cmd, &asJSON)
	addSettings(cmd, personFlags, poolFlags, endpointFlags)
	return cmd
}

func waitAndShow(ctx context.Context, session *login.Session, v *validator.Validator, asJSON bool) error {
	token := ""
	claims, err := waitFor(ctx, "the user pool", func(ctx context.Context) (_ *validator.Claims, err error) {
		if token, err = session.IDToken(ctx); err != nil {
			return nil, err
		}
		return v.Validate(ctx, token)
	})
	switch {
	case err != nil:
		return err
	case asJSON:
		return printJSON(claims.Map())
	}
	return printClaims(token, "")
}

// session returns the login of the settings' app client, whether there is one or not.
func (s *settings) session(cmd *cobra.Command, noBrowser bool) (*login.Session, *login.Authenticator, error) {
	cfg := login.Config{
		AuthorizeURL: s.AuthorizeURL, RevokeURL: s.RevokeURL, LogoutURL: s.LogoutURL,
		ClientID: s.ClientID, RedirectURL: s.RedirectURL, Scopes: s.Scopes,
		Issuers: s.issuers(), JWKSURL: s.JWKSURL,
		OpenBrowser: openBrowser, Output: os.Stderr, Timeout: s.LoginTimeout,
	}
	if noBrowser {
		cfg.OpenBrowser = login.NoBrowser
	}
	var err error
	if cfg.TokenURL, err = s.tokenURL(); err != nil {
		return nil, nil, err
	}
	switch {
	case s.ClientID == "":
		return nil, nil, s.missing("clientId")
	case cfg.Issuers == nil:
		return nil, nil, s.missing("userPoolId", "issuer")
	}
	if base, ok := strings.CutSuffix(cfg.TokenURL, "/oauth2/token"); ok {
		// Where Cognito has them, beside the token endpoint.
		cfg.AuthorizeURL, cfg.RevokeURL, cfg.LogoutURL = cmp.Or(cfg.AuthorizeURL, base+"/oauth2/authorize"), cmp.Or(cfg.RevokeURL, base+"/oauth2/revoke"), cmp.Or(cfg.LogoutURL, base+"/logout")
	}
	if cfg.AuthorizeURL == "" {
		return nil, nil, s.missing("authorizeUrl", "domain")
	}
	secret, err := s.secret()
	if err != nil {
		return nil, nil, err
	}
	cfg.Secret = secret
	if s.JWKSFile != "" {
		if cfg.Keys, err = s.keys(); err != nil {
			return nil, nil, err
		}
	}
	if cfg.HTTPClient, err = s.httpClient(); err != nil {
		return nil, nil, err
	}
	auth, err := login.New(cfg)
	if err != nil {
		return nil, nil, &codedError{exitUsage, err, ""}
	}
	path, err := loginPath(cmd, cfg.TokenURL, s.ClientID)
	if err != nil {
		return nil, nil, err
	}
	store, err := login.NewFileStore(path)
	if err != nil {
		return nil, nil, err
	}
	session, err := login.NewSession(login.SessionConfig{Authenticator: auth, Store: store, Logger: s.log})
	return session, auth, err
}

// loginPath returns the file of an app client's login. Profiles of the same app client share it.
func loginPath(cmd *cobra.Command, tokenURL, clientID string) (string, error) {
	dir, _ := place(cmd, stateDirFlag)
	if dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return "", &codedError{exitUsage, fmt.Errorf("no folder for logins: %w", err), "set HOME, or name a folder with --state-dir"}
		}
		dir = filepath.Join(base, "cognitoctl", "logins")
	}
	sum := sha256.Sum256([]byte(tokenURL + "\n" + clientID))
	return filepath.Join(dir, fmt.Sprintf("%x.json", sum[:16])), nil
}

// hasLogin reports whether there is a file of a login, whatever is in it.
func (s *settings) hasLogin(cmd *cobra.Command) bool {
	tokenURL, err := s.tokenURL()
	if err != nil {
		return false
	}
	path, err := loginPath(cmd, tokenURL, s.ClientID)
	if err != nil {
		return false
	}
	_, err = os.Lstat(path)
	return err == nil
}

// openBrowser opens the program that BROWSER names, as other programs do, or else that of the system.
func openBrowser(ctx context.Context, address string) error {
	words := strings.Fields(os.Getenv("BROWSER"))
	if len(words) == 0 {
		return login.OpenBrowser(ctx, address)
	}
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("found an address that is none of the web")
	}
	// The person's browser outlives this program.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), words[0], append(words[1:], address)...) // #nosec G204 G702 -- the user's own environment
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("BROWSER: %w", err)
	}
	return nil
}

// userSource yields the tokens of the person who has logged in.
func (s *settings) userSource(cmd *cobra.Command) (*source, error) {
	session, _, err := s.session(cmd, true)
	if err != nil {
		return nil, err
	}
	get := func(tokens func(context.Context) (*login.Tokens, error)) func(context.Context) (bearer, error) {
		return func(ctx context.Context) (bearer, error) {
			defer session.Wait() // so that no refresh token is lost that comes when the program ends
			t, err := tokens(ctx)
			if err != nil {
				return bearer{}, s.needsLogin(err)
			}
			return bearer{t.AccessToken, t.ObtainedAt, t.AccessTokenExpiry}, nil
		}
	}
	return &source{Token: get(session.Tokens), Renew: get(session.Refresh), endpoint: "the user pool"}, nil
}
