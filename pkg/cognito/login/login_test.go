package login

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	secret := func(_ *cognitotest.PoolConfig, c *cognitotest.Client) {
		c.Secrets, c.Flows = []string{testSecret}, []string{cognitotest.FlowCode}
	}
	public := func(*cognitotest.PoolConfig, *cognitotest.Client) {}
	for _, tt := range []struct {
		name   string
		client func(*cognitotest.PoolConfig, *cognitotest.Client)
		edit   func(*Config)
		host   string // of the redirect URL
	}{
		{"a public client", public, func(*Config) {}, "localhost"},
		{"a client with a secret", secret, func(c *Config) { c.Secret = cognito.StaticSecret(testSecret) }, "localhost"},
		{"the address in place of the name", public, func(c *Config) { c.RedirectURL = "http://127.0.0.1:0/done" }, "127.0.0.1"},
		{"the other address", public, func(c *Config) { c.RedirectURL = "http://[::1]:0/" }, "::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.host == "::1" {
				needIPv6(t)
			}
			f := start(t, tt.client)
			before := f.clock.now()
			tokens, err := f.authenticator(t, tt.edit).Login(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			v := <-f.visits
			if v.err != nil || v.status != http.StatusOK || v.url.Hostname() != tt.host || !strings.Contains(v.body, "You are signed in") {
				t.Errorf("the browser was shown %+v, want the page of success", v)
			}
			claims, err := tokens.IDClaims()
			if err != nil {
				t.Fatal(err)
			}
			if claims.Username != "jane" || claims.Email != "jane@example.com" || !claims.EmailVerified || claims.Audience != f.client.ID ||
				claims.Issuer != f.pool.Issuer() || claims.TokenUse != "id" || claims.Subject == "" || claims.AuthTime.IsZero() {
				t.Errorf("claims are %+v, want jane's", claims)
			}
			if want := before.Add(time.Hour).Truncate(time.Second); !tokens.Expiry().Equal(want) || !tokens.IDTokenExpiry.Equal(want) || !tokens.ObtainedAt.Equal(before) {
				t.Errorf("obtained %v, expiry %v, want %v and %v", tokens.ObtainedAt, tokens.Expiry(), before, want)
			}
			access, err := DecodeIDClaims(tokens.AccessToken)
			if err != nil {
				t.Fatal(err)
			}
			if access.TokenUse != "access" || access.Map()["scope"] != "openid email orders/read" || tokens.RefreshToken == "" {
				t.Errorf("the access token has %v, want the scopes that were asked for", access.Map())
			}
		})
	}
}

func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if errors.Is(err, errNoAddress) || errors.Is(err, errNoFamily) {
		t.Skip("this machine has no IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// What a person is shown is enough to go on, and holds no secret.
func TestLoginSays(t *testing.T) {
	t.Parallel()
	f := start(t)
	b := newSurfer(t)
	a := f.authenticator(t, func(c *Config) {
		c.OpenBrowser = func(ctx context.Context, address string) error {
			go func() {
				f.said.wait(ctx, "could not be opened") // as a person would
				f.visits <- b.visit(ctx, address)
			}()
			return errors.New("there is no browser")
		}
	})
	f.login(t, a)
	want := regexp.MustCompile(`^Sign in with your browser\. If it does not open by itself, go to

  (http://127\.0\.0\.1:[0-9]+/eu-west-1_Demo12345/oauth2/authorize\?client_id=3web0demo0public0client000&code_challenge=[\w-]{43}&code_challenge_method=S256&nonce=[\w-]{43}&redirect_uri=http%3A%2F%2Flocalhost%3A[0-9]+&response_type=code&scope=openid\+email\+orders%2Fread&state=[\w-]{43})

Waiting 5m0s for the answer, at http://localhost:[0-9]+\.
The browser could not be opened: there is no browser\. Go to the address above\.
The browser has brought the answer; getting the tokens\.
$`)
	if !want.MatchString(f.said.String()) {
		t.Errorf("it said\n%s\nwant\n%s", f.said, want)
	}
}

// A browser that ends after the login, as one that runs in the foreground does, says nothing any more.
func TestLoginDoesNotWaitForTheBrowser(t *testing.T) {
	t.Parallel()
	f := start(t)
	b := newSurfer(t)
	closed, said := make(chan struct{}), make(chan struct{})
	a := f.authenticator(t, func(c *Config) {
		c.OpenBrowser = func(ctx context.Context, address string) error {
			defer close(said)
			f.visits <- b.visit(ctx, address)
			<-closed
			return errors.New("exit status 1")
		}
	})
	f.login(t, a)
	close(closed)
	<-said
	if strings.Contains(f.said.String(), "exit status") {
		t.Errorf("it said %q after the login", f.said)
	}
}

func TestLoginEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		edit  func(*fixture, *Config)
		check func(*testing.T, error)
		page  string // empty: the browser gets to see nothing of ours
	}{
		{
			"when nobody signs in", t.Context(),
			func(_ *fixture, c *Config) { c.OpenBrowser, c.Timeout = NoBrowser, 10*time.Millisecond },
			func(t *testing.T, err error) {
				var timeout *TimeoutError
				if !errors.As(err, &timeout) || timeout.After != 10*time.Millisecond || err.Error() != "login: nobody has signed in for 10ms" {
					t.Errorf("got %v, want a timeout", err)
				}
			}, "",
		},
		{
			"with the context", ctx,
			func(_ *fixture, c *Config) {
				c.OpenBrowser = func(context.Context, string) error {
					cancel()
					return nil
				}
			},
			func(t *testing.T, err error) {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want the context's error", err)
				}
			}, "",
		},
		{
			"when the person says no", t.Context(),
			func(f *fixture, c *Config) {
				f.answer(t, c, url.Values{"error": {"access_denied"}, "error_description": {"No <b>thanks</b>\x1b[31m"}})
			},
			func(t *testing.T, err error) {
				want := &AuthorizationError{Code: "access_denied", Description: "No <b>thanks</b>[31m"}
				var denied *AuthorizationError
				if !errors.As(err, &denied) || *denied != *want {
					t.Errorf("got %#v, want %#v", err, want)
				}
				if got := err.Error(); got != `login: the authorization endpoint answered "access_denied": "No <b>thanks</b>[31m"` {
					t.Errorf("the error says %s", got)
				}
			}, "access_denied: No &lt;b&gt;thanks&lt;/b&gt;[31m",
		},
		{
			"with a scope that the client may not have", t.Context(),
			func(_ *fixture, c *Config) { c.Scopes = []string{"orders/admin"} },
			func(t *testing.T, err error) {
				var denied *AuthorizationError
				if !errors.As(err, &denied) || denied.Code != "invalid_scope" {
					t.Errorf("got %v, want invalid_scope", err)
				}
			}, "invalid_scope",
		},
		{
			"when the token endpoint says no", t.Context(),
			func(f *fixture, _ *Config) {
				f.pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 400, Body: []byte(`{"error":"invalid_grant"}`)})
			},
			func(t *testing.T, err error) {
				var request *cognito.TokenRequestError
				if !errors.As(err, &request) || request.ErrorCode != cognito.InvalidGrant || errors.Is(err, ErrLoginRequired) {
					t.Errorf("got %v, want invalid_grant", err)
				}
			}, "You are not signed in",
		},
		{
			"when there are no keys, and nobody signs in in vain", t.Context(),
			func(f *fixture, _ *Config) { f.pool.Fail(cognitotest.JWKS, cognitotest.Fault{Status: 503}) },
			func(t *testing.T, err error) {
				if !errors.Is(err, validator.ErrKeysUnavailable) {
					t.Errorf("got %v, want ErrKeysUnavailable", err)
				}
			}, "",
		},
		{
			"when the token endpoint is gone, after one request", t.Context(),
			func(f *fixture, _ *Config) { f.pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 503}) },
			func(t *testing.T, err error) {
				if !cognito.IsTemporary(err) {
					t.Errorf("got %v, want a temporary error", err)
				}
			}, "You are not signed in",
		},
		{
			"when the client's secret cannot be had", t.Context(),
			func(_ *fixture, c *Config) {
				c.Secret = func(context.Context) ([]string, error) { return nil, io.ErrUnexpectedEOF }
			},
			func(t *testing.T, err error) {
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got %v, want the error of Secret", err)
				}
			}, "You are not signed in",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			cfg := f.cfg
			tt.edit(f, &cfg)
			a, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			tokens, err := a.Login(tt.ctx)
			if tokens != nil || err == nil {
				t.Fatalf("got %v, want an error and no tokens", tokens)
			}
			tt.check(t, err)
			if n := f.pool.Requests(cognitotest.Token); n > 1 {
				t.Errorf("the token endpoint got %d requests, want at most 1: a code works once", n)
			}
			if tt.page == "" {
				if n := f.pool.Requests(cognitotest.Authorize); n > 0 {
					t.Errorf("the browser was opened, want nobody to sign in in vain")
				}
				return
			}
			if v := <-f.visits; v.err != nil || !strings.Contains(v.body, tt.page) || strings.Contains(v.body, "You are signed in") {
				t.Errorf("the browser was shown %+v, want %q", v, tt.page)
			}
		})
	}
}

// answer has the authorization endpoint answer so, with the state of the request.
func (f *fixture) answer(t *testing.T, c *Config, answer url.Values) {
	b := newSurfer(t)
	c.OpenBrowser = func(ctx context.Context, address string) error {
		u, err := url.Parse(address)
		if err != nil {
			return err
		}
		answer.Set("state", u.Query().Get("state"))
		f.visits <- b.visit(ctx, u.Query().Get("redirect_uri")+"?"+answer.Encode())
		return nil
	}
}

// The tokens of each row differ in one thing from those of a login that succeeds.
func TestLoginRefusesTokens(t *testing.T) {
	t.Parallel()
	other := func(use string) []cognitotest.TokenOption {
		return []cognitotest.TokenOption{cognitotest.Claim(use, "other")}
	}
	for _, tt := range []struct {
		name       string
		id, access func(*fixture) []cognitotest.TokenOption
		token      string
		want       error  // matched by errors.Is; nil if there is none
		text       string // in the error
	}{
		{"another nonce", idOption(other("nonce")...), nil, "ID token", nil, "its nonce is not that of the authorization request"},
		{"no nonce", idOption(cognitotest.WithoutClaim("nonce")), nil, "ID token", nil, "its nonce"},
		{"a nonce of another type", idOption(cognitotest.Claim("nonce", []string{"x"})), nil, "ID token", nil, "its nonce"},
		{"an ID token of another client", idOption(other("aud")...), nil, "ID token", validator.ErrClient, ""},
		{"an ID token of another issuer", idOption(other("iss")...), nil, "ID token", validator.ErrIssuer, ""},
		{"an ID token that has expired", idOption(cognitotest.TTL(-time.Second)), nil, "ID token", validator.ErrExpired, ""},
		{"an ID token that is an access token", idOption(cognitotest.Claim("token_use", "access")), nil, "ID token", validator.ErrTokenUse, ""},
		{"an ID token with another's key", func(f *fixture) []cognitotest.TokenOption {
			return []cognitotest.TokenOption{cognitotest.SignedBy(f.pool.ForgedKey())}
		}, nil, "ID token", validator.ErrSignature, ""},
		{"an ID token without signature", idOption(cognitotest.HeaderParam("alg", "none")), nil, "ID token", validator.ErrAlgorithm, ""},
		{"an ID token from the future", idOption(cognitotest.Claim("iat", time.Now().Add(time.Hour).Unix())), nil, "ID token", validator.ErrNotYetValid, ""},
		{"tokens of nobody", idOption(cognitotest.WithoutClaim("sub")), idOption(cognitotest.WithoutClaim("sub")), "access token", nil, "or missing"},
		{"an ID token without sub", idOption(cognitotest.WithoutClaim("sub")), nil, "access token", nil, "its sub is another"},
		{"an access token of another person", nil, idOption(cognitotest.Claim("sub", "other")), "access token", nil, "its sub is another"},
		{"an access token of another person, without at_hash", idOption(cognitotest.WithoutClaim("at_hash")), idOption(cognitotest.Claim("sub", "other")), "access token", nil, "its sub is another"},
		{"an access token that is not the ID token's", idOption(cognitotest.Claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")), nil, "access token", nil, "at_hash"},
		{"an at_hash of another type", idOption(cognitotest.Claim("at_hash", 1)), nil, "access token", nil, "at_hash"},
		{"an access token of another client", nil, idOption(cognitotest.Claim("client_id", "other")), "access token", validator.ErrClient, ""},
		{"an access token of another issuer", nil, idOption(cognitotest.Claim("iss", "other")), "access token", validator.ErrIssuer, ""},
		{"an access token that has expired", nil, idOption(cognitotest.TTL(-time.Second)), "access token", validator.ErrExpired, ""},
		{"an access token that is an ID token", nil, idOption(cognitotest.Claim("token_use", "id")), "access token", validator.ErrTokenUse, ""},
		{"an access token with another's key", nil, func(f *fixture) []cognitotest.TokenOption {
			return []cognitotest.TokenOption{cognitotest.SignedBy(f.pool.ForgedKey())}
		}, "access token", validator.ErrSignature, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			var id, access []cognitotest.TokenOption
			if tt.id != nil {
				id = tt.id(f)
			}
			if tt.access != nil {
				access = tt.access(f)
			}
			f.pool.AlterUserTokens(id, access)
			tokens, err := f.authenticator(t).Login(t.Context())
			var refused *TokenRefusedError
			switch {
			case tokens != nil || !errors.As(err, &refused):
				t.Fatalf("got %v and %v, want a TokenRefusedError and no tokens", tokens, err)
			case refused.Token != tt.token || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text):
				t.Errorf("got %v, want %v for the %s, with %q", err, tt.want, tt.token, tt.text)
			}
			if v := <-f.visits; v.status != http.StatusBadGateway || !strings.Contains(v.body, "You are not signed in") {
				t.Errorf("the browser was shown %+v, want the page of failure", v)
			}
		})
	}
}

func idOption(opts ...cognitotest.TokenOption) func(*fixture) []cognitotest.TokenOption {
	return func(*fixture) []cognitotest.TokenOption { return opts }
}

// OpenID Connect Core appendix A.3.
func TestAccessTokenHash(t *testing.T) {
	t.Parallel()
	if got, want := accessTokenHash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"), "77QmUPtjPfzWtF2AnpK9RQ"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// at_hash is optional in the code flow.
func TestLoginWithoutAtHash(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.pool.AlterUserTokens([]cognitotest.TokenOption{cognitotest.WithoutClaim("at_hash")}, nil)
	f.login(t, f.authenticator(t))
}

// A clock that is wrong is what people can do something about.
func TestLoginWithAWrongClock(t *testing.T) {
	t.Parallel()
	for by, want := range map[time.Duration]error{-10 * time.Minute: validator.ErrNotYetValid, 2 * time.Hour: validator.ErrExpired} {
		f := start(t)
		_, err := f.authenticator(t, func(c *Config) { c.Now = func() time.Time { return f.clock.now().Add(by) } }).Login(t.Context())
		if !errors.Is(err, want) || !strings.HasSuffix(err.Error(), "\nhint: the token is new, so see whether the clock of this machine is right") {
			t.Errorf("by %v: got %v, want %v and a hint", by, err, want)
		}
		<-f.visits
	}
}

func TestLoginRefusesAnEndlessRefreshToken(t *testing.T) {
	t.Parallel()
	f := start(t)
	for n, want := range map[int]string{
		maxRefreshBytes:     "login: the ID token of the token endpoint is refused",
		maxRefreshBytes + 1: "login: the refresh token of the token endpoint is refused: it has 16385 bytes, want at most 16384",
	} {
		f.pool.Fail(cognitotest.Token, cognitotest.Fault{Body: []byte(mustJSON(t, map[string]any{
			"access_token": "a", "id_token": "b", "refresh_token": strings.Repeat("x", n), "expires_in": 3600, "token_type": "Bearer",
		}))})
		_, err := f.authenticator(t).Login(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%d bytes: got %v, want %s", n, err, want)
		}
		<-f.visits
	}
}

func TestLoginWantsAnIDToken(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Body: []byte(mustJSON(t, map[string]any{
		"access_token": f.pool.UserToken(f.client.ID, "jane"), "expires_in": 3600, "token_type": "Bearer",
	}))})
	_, err := f.authenticator(t).Login(t.Context())
	if want := "login: the ID token of the token endpoint is refused: the answer has none, want one for the scope openid"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	needIPv6(t)
	for _, tt := range []struct{ name, taken, host string }{
		{"of localhost", "127.0.0.1:0", "localhost"},
		// Who has one address of localhost may get what is meant for the other.
		{"of localhost, the other address", "[::1]:0", "localhost"},
		{"of the address", "127.0.0.1:0", "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, port := takePort(t, tt.taken)
			f := start(t)
			tokens, err := f.authenticator(t, func(c *Config) { c.RedirectURL = "http://" + tt.host + ":" + port }).Login(t.Context())
			var taken *PortError
			if tokens != nil || !errors.As(err, &taken) || !errors.Is(err, errInUse) {
				t.Fatalf("got %v, want a PortError", err)
			}
			want := "login: listen on " + l.Addr().String() + " for the answer of the browser: bind: address already in use\n" +
				"hint: end the program that has the port, or use a redirect URL with another port that the app client has as a callback URL"
			if err.Error() != want {
				t.Errorf("got %s\nwant %s", err, want)
			}
			if f.said.String() != "" || len(f.visits) > 0 {
				t.Errorf("it said %q, want nothing before it listens", f.said)
			}
			// What it had listened on already is free again.
			for _, host := range []string{"127.0.0.1", "::1"} {
				if addr := net.JoinHostPort(host, port); addr != l.Addr().String() {
					again, err := net.Listen("tcp", addr)
					if err != nil {
						t.Fatalf("after the login: %v", err)
					}
					again.Close()
				}
			}
		})
	}
}

// takePort listens on a port of the address that is free on all others of localhost.
func takePort(t *testing.T, addr string) (l net.Listener, port string) {
	t.Helper()
	for {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		free := true
		for _, host := range []string{"127.0.0.1", "::1"} {
			if other := net.JoinHostPort(host, port); other != l.Addr().String() {
				o, err := net.Listen("tcp", other)
				if free = free && err == nil; err == nil {
					o.Close()
				}
			}
		}
		if free {
			t.Cleanup(func() { l.Close() })
			return l, port
		}
		l.Close()
	}
}

// Two logins at once do not get in each other's way.
func TestLoginsBesideEachOther(t *testing.T) {
	t.Parallel()
	f := start(t)
	a := f.authenticator(t)
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			_, err := a.Login(t.Context())
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
		<-f.visits
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"no domain", func(c *Config) { c.Domain = "" }, "Domain is empty, want a host name such as my-app.auth.eu-west-1.amazoncognito.com, or AuthorizeURL and TokenURL"},
		{"a URL as domain", func(c *Config) { c.Domain = "https://auth.example.com" }, `Domain is "https://auth.example.com", want a host name`},
		{"a domain with a user", func(c *Config) { c.Domain = "a@auth.example.com" }, "want a host name"},
		{"http", func(c *Config) { c.AuthorizeURL = "http://auth.example.com/oauth2/authorize" }, "AuthorizeURL is http://auth.example.com/oauth2/authorize, want https://…, or http://… on a loopback address"},
		{"no URL", func(c *Config) { c.TokenURL = "auth.example.com" }, "TokenURL is no URL with a host"},
		{"a revocation endpoint without TLS", func(c *Config) { c.RevokeURL = "http://auth.example.com/" }, "RevokeURL is http"},
		{"a logout endpoint without TLS", func(c *Config) { c.LogoutURL = "http://auth.example.com/" }, "LogoutURL is http"},
		{"a client with a space", func(c *Config) { c.ClientID = "a b" }, `ClientID is "a b", want the ID of an app client`},
		{"no client", func(c *Config) { c.ClientID = "" }, "ClientID is empty, want the ID of an app client"},
		{"a redirect URL elsewhere", func(c *Config) { c.RedirectURL = "http://example.com:3000" }, `RedirectURL is "http://example.com:3000", want http:// with the host localhost, 127.0.0.1 or [::1]`},
		{"a redirect URL for all of the network", func(c *Config) { c.RedirectURL = "http://0.0.0.0:3000" }, "RedirectURL is"},
		{"a redirect URL with TLS", func(c *Config) { c.RedirectURL = "https://localhost:3000" }, "RedirectURL is"},
		{"a redirect URL with a query", func(c *Config) { c.RedirectURL = "http://localhost:3000/?a=b" }, "RedirectURL is"},
		{"a redirect URL with an empty query", func(c *Config) { c.RedirectURL = "http://localhost:3000/?" }, "RedirectURL is"},
		{"a redirect URL with a fragment", func(c *Config) { c.RedirectURL = "http://localhost:3000/#a" }, "RedirectURL is"},
		{"a redirect URL with an empty fragment", func(c *Config) { c.RedirectURL = "http://localhost:3000/#" }, "RedirectURL is"},
		{"a redirect URL with a user", func(c *Config) { c.RedirectURL = "http://a@localhost:3000" }, "RedirectURL is"},
		{"a redirect URL with too large a port", func(c *Config) { c.RedirectURL = "http://localhost:65536" }, "RedirectURL is"},
		{"a redirect URL with an empty port", func(c *Config) { c.RedirectURL = "http://localhost:" }, "RedirectURL is"},
		{"a redirect URL with zeros before the port", func(c *Config) { c.RedirectURL = "http://localhost:03000" }, "RedirectURL is"},
		{"no redirect URL at all", func(c *Config) { c.RedirectURL = "localhost:3000" }, "RedirectURL is"},
		{"only half of the endpoints", func(c *Config) { c.Domain, c.AuthorizeURL = "", "https://auth.example.com/oauth2/authorize" }, "Domain is empty"},
		{"the other half of the endpoints", func(c *Config) { c.Domain, c.TokenURL = "", "https://auth.example.com/oauth2/token" }, "Domain is empty"},
		{"a parameter without name", func(c *Config) { c.AuthorizeParams = map[string]string{"": "x"} }, `AuthorizeParams has ""`},
		{"no Region", func(c *Config) { c.Region = "" }, "Region or UserPoolID is empty"},
		{"a quote in a scope", func(c *Config) { c.Scopes = []string{`a"b`} }, `Scopes has "a\"b"`},
		{"a backslash in a scope", func(c *Config) { c.Scopes = []string{`a\b`} }, `Scopes has "a\\b"`},
		{"a letter that is not ASCII in a scope", func(c *Config) { c.Scopes = []string{"aé"} }, `Scopes has "aé"`},
		{"two scopes in one", func(c *Config) { c.Scopes = []string{"email profile"} }, `Scopes has "email profile"`},
		{"an empty scope", func(c *Config) { c.Scopes = []string{""} }, `Scopes has ""`},
		{"a parameter that is ours", func(c *Config) { c.AuthorizeParams = map[string]string{"state": "x"} }, `AuthorizeParams has "state"`},
		{"another way to answer", func(c *Config) { c.AuthorizeParams = map[string]string{"response_mode": "form_post"} }, `AuthorizeParams has "response_mode"`},
		{"no issuer", func(c *Config) { c.UserPoolID = "" }, "Region or UserPoolID is empty, want both"},
		{"keys without TLS", func(c *Config) { c.JWKSURL = "http://example.com/jwks.json" }, `JWKS URL is "http://example.com/jwks.json"`},
		{"a leeway that is too large", func(c *Config) { c.Leeway = time.Hour }, "Leeway is 1h0m0s"},
		{"a negative timeout", func(c *Config) { c.Timeout = -1 }, "Timeout is -1ns, want one that is not negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Domain: "auth.example.com", ClientID: "7a8b9c0d1e2f3g4h5i6j7k8", Region: "eu-west-1", UserPoolID: "eu-west-1_AbCdEfGhI"}
			if _, err := New(cfg); err != nil {
				t.Fatalf("without the edit: %v", err)
			}
			tt.edit(&cfg)
			a, err := New(cfg)
			if a != nil || err == nil || !strings.HasPrefix(err.Error(), "login: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	_, err := New(Config{ClientID: "x", RedirectURL: "x", Scopes: []string{""}, Timeout: -1})
	for _, want := range []string{"Domain is empty", "RedirectURL is", "Scopes has", "Region or UserPoolID is empty", "Timeout is"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want all that is wrong, %q too", err, want)
		}
	}
}

func TestConfigAccepts(t *testing.T) {
	t.Parallel()
	cfg := Config{Domain: "auth.example.com", ClientID: "7a8b9c0d1e2f3g4h5i6j7k8", Region: "eu-west-1", UserPoolID: "eu-west-1_AbCdEfGhI"}
	for _, address := range []string{
		"http://localhost", "http://localhost/", "http://localhost:0", "http://localhost:65535/a/b", "http://127.0.0.1:3000", "http://[::1]:3000/cb",
	} {
		cfg.RedirectURL = address
		if _, err := New(cfg); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	cfg.Scopes = []string{"https://api.example.com/~read!"}
	if _, err := New(cfg); err != nil {
		t.Error(err)
	}
	for _, name := range []string{
		"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge", "code_challenge_method",
		"request", "request_uri",
	} {
		cfg.AuthorizeParams = map[string]string{name: "x"}
		if _, err := New(cfg); err == nil {
			t.Errorf("the parameter %s can be set, want it to be ours", name)
		}
	}
}

// The endpoints are those of the seeds' CognitoOAuthAuthenticator, for a domain.
func TestEndpointsOfADomain(t *testing.T) {
	t.Parallel()
	a, err := New(Config{
		Domain: "your-app.auth.us-east-1.amazoncognito.com", ClientID: "client", Region: "us-east-1", UserPoolID: "us-east-1_AbCdEfGhI",
		AuthorizeParams: map[string]string{"identity_provider": "Example IdP"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		a.AuthorizationURL(&AuthorizationRequest{State: "s", Nonce: "n", PKCE: PKCE{"v", "c"}, RedirectURL: "http://localhost:3000"}),
		a.token.URL, a.revoke.URL, a.LogoutURL("https://www.example.com/?a=b"),
	}
	want := []string{
		"https://your-app.auth.us-east-1.amazoncognito.com/oauth2/authorize?client_id=client&code_challenge=c&code_challenge_method=S256" +
			"&identity_provider=Example+IdP&nonce=n&redirect_uri=http%3A%2F%2Flocalhost%3A3000&response_type=code&scope=openid&state=s",
		"https://your-app.auth.us-east-1.amazoncognito.com/oauth2/token",
		"https://your-app.auth.us-east-1.amazoncognito.com/oauth2/revoke",
		"https://your-app.auth.us-east-1.amazoncognito.com/logout?client_id=client&logout_uri=https%3A%2F%2Fwww.example.com%2F%3Fa%3Db",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if want := []string{"https://cognito-idp.us-east-1.amazonaws.com/us-east-1_AbCdEfGhI", "https://issuer-cognito-idp.us-east-1.amazonaws.com/us-east-1_AbCdEfGhI"}; !slices.Equal(a.cfg.Issuers, want) {
		t.Errorf("issuers are %q, want %q", a.cfg.Issuers, want)
	}
	if r := a.NewRequest(); r.RedirectURL != "http://localhost:3000" {
		t.Errorf("the redirect URL is %q", r.RedirectURL)
	}
}

// What the caller does with the Config later changes nothing.
func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	f := start(t)
	cfg := f.cfg
	cfg.Scopes, cfg.Issuers, cfg.AuthorizeParams = []string{"email"}, []string{f.pool.Issuer()}, map[string]string{"lang": "en"}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Scopes[0], cfg.Issuers[0] = "orders/admin", "x"
	cfg.AuthorizeParams["lang"] = "x"
	u, err := url.Parse(a.AuthorizationURL(a.NewRequest()))
	if err != nil {
		t.Fatal(err)
	}
	if q := u.Query(); q.Get("scope") != "openid email" || q.Get("lang") != "en" {
		t.Errorf("the query is %v", q)
	}
	f.login(t, a)
}

// All requests but the person's go through the client that is given.
func TestHTTPClient(t *testing.T) {
	t.Parallel()
	f := start(t)
	via := &countingTransport{paths: make(map[string]int)}
	a := f.authenticator(t, func(c *Config) { c.HTTPClient = &http.Client{Transport: via} })
	tokens := f.login(t, a)
	if err := a.Revoke(t.Context(), tokens); err != nil {
		t.Fatal(err)
	}
	base := "/" + f.pool.ID()
	if diff := cmp.Diff(map[string]int{base + "/.well-known/jwks.json": 1, base + "/oauth2/token": 1, base + "/oauth2/revoke": 1}, via.paths); diff != "" {
		t.Error(diff)
	}
}

type countingTransport struct {
	mu    sync.Mutex
	paths map[string]int
}

func (c *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.paths[r.URL.Path]++
	c.mu.Unlock()
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
}

// A code would go along with a redirect.
func TestTokenEndpointThatRedirects(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Redirect: f.pool.RevokeURL()})
	_, err := f.authenticator(t).Login(t.Context())
	if err == nil || !strings.Contains(err.Error(), "redirected") || f.pool.Requests(cognitotest.Revoke) != 0 {
		t.Errorf("got %v, want no redirect to be followed", err)
	}
	<-f.visits
}

// RFC 7636 appendix B, and section 4.1 for the form.
func TestPKCE(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 100 {
		p := NewPKCE()
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(p.Verifier) || p.Challenge != challengeOf(p.Verifier) || seen[p.Verifier] {
			t.Fatalf("verifier %q with challenge %q, want a new one of 256 bits", p.Verifier, p.Challenge)
		}
		seen[p.Verifier] = true
	}
	if got := challengeOf("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"); got != "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" {
		t.Errorf("the challenge is %s, want that of RFC 7636 appendix B", got)
	}
	f := &Authenticator{}
	if a, b := f.NewRequest(), f.NewRequest(); a.State == b.State || a.Nonce == b.Nonce || a.State == a.Nonce || len(a.State) != 43 || len(a.Nonce) != 43 {
		t.Error("state and nonce are not 256 random bits each")
	}
}

// A code of another login does not yield tokens: the verifier is not that of its challenge.
func TestExchangeOfAnInjectedCode(t *testing.T) {
	t.Parallel()
	f := start(t)
	a := f.authenticator(t)
	victim, attacker := a.NewRequest(), a.NewRequest()
	attacker.Nonce = victim.Nonce
	code := f.code(t, a, attacker)
	if tokens, err := a.Exchange(t.Context(), code, victim); err == nil {
		t.Errorf("got %v for a code that was issued for another challenge", tokens)
	}
	code = f.code(t, a, victim)
	if _, err := a.Exchange(t.Context(), code, victim); err != nil {
		t.Errorf("its own code: %v", err)
	}
	if _, err := a.Exchange(t.Context(), code, victim); err == nil {
		t.Error("a code worked twice")
	}
	code = f.code(t, a, victim)
	f.pool.Fail(cognitotest.JWKS, cognitotest.Fault{Status: 503})
	if _, err := f.authenticator(t).Exchange(t.Context(), code, victim); !errors.Is(err, validator.ErrKeysUnavailable) {
		t.Errorf("without keys: %v, want ErrKeysUnavailable", err)
	}
	if _, err := a.Exchange(t.Context(), code, victim); err != nil {
		t.Errorf("the code is spent, although there were no keys: %v", err)
	}
	empty := *victim
	empty.Nonce = ""
	f.pool.AlterUserTokens([]cognitotest.TokenOption{cognitotest.WithoutClaim("nonce")}, nil)
	if _, err := a.Exchange(t.Context(), f.code(t, a, victim), &empty); err == nil {
		t.Error("a request without nonce took a token without nonce")
	}
}

// code signs in and returns the code that the browser would bring.
func (f *fixture) code(t *testing.T, a *Authenticator, r *AuthorizationRequest) string {
	t.Helper()
	c := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	r.RedirectURL = "http://localhost:4711"
	resp, err := c.Get(a.AuthorizationURL(r))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || u.Query().Get("code") == "" {
		t.Fatalf("redirected to %s, want a code", resp.Header.Get("Location"))
	}
	return u.Query().Get("code")
}

func TestLogoutURLWithoutAnEndpoint(t *testing.T) {
	t.Parallel()
	a := start(t).authenticator(t, func(c *Config) { c.LogoutURL, c.RevokeURL = "", "" })
	if got := a.LogoutURL("https://www.example.com/"); got != "" {
		t.Errorf("got %q, want none", got)
	}
	if err := a.Revoke(t.Context(), &Tokens{RefreshToken: "x"}); err == nil || !strings.Contains(err.Error(), "RevokeURL is empty") {
		t.Errorf("got %v, want that there is no endpoint", err)
	}
	if err := a.Revoke(t.Context(), &Tokens{}); err != nil {
		t.Errorf("without a refresh token: %v", err)
	}
}
