// Package login signs a person in at an Amazon Cognito user pool, for programs on the person's own machine, and keeps the
// tokens fresh: the authorization code grant (RFC 6749 section 4.1) with PKCE (RFC 7636) in the system's browser, whose
// answer comes to a loopback address (RFC 8252).
//
// Most users need a [Session], which signs in when it has to, refreshes early, and keeps the tokens in a file:
//
//	auth, err := login.New(login.Config{
//		Domain:   "my-app.auth.eu-west-1.amazoncognito.com",
//		ClientID: "7a8b9c0d1e2f3g4h5i6j7k8",
//		Region:   "eu-west-1", UserPoolID: "eu-west-1_AbCdEfGhI",
//	})
//	// ...
//	store, err := login.NewFileStore(path)
//	session, err := login.NewSession(login.SessionConfig{Authenticator: auth, Store: store})
//	// ...
//	token, err := session.AccessToken(ctx)
//	if errors.Is(err, login.ErrLoginRequired) {
//		_, err = session.Login(ctx)
//	}
//
// Those who keep tokens themselves call [Authenticator.Login], [Authenticator.Refresh] and [Authenticator.Revoke].
//
// No token is returned before pkg/validator has verified it: the signature, issuer, client, times and kind of the ID token
// and of the access token, and of the ID token its nonce. Nothing that this package prints, returns in an error or shows in
// the browser holds a token, a secret, a code or a verifier; the authorization URL holds state, nonce and challenge.
//
// Other users of the same machine can see the arguments of programs, and so the authorization URL that the browser is
// started with. They can then answer in the place of the browser, with a sign-in of their own: whoever gets tokens on such a
// machine looks at [Tokens.IDClaims] to see who has signed in. They cannot get at the person's tokens, since the verifier
// never leaves the process.
//
// Tokens are kept in files ([FileStore]) and not in the keyring of the operating system: Windows bounds a secret there to
// 2,560 bytes, and the three tokens of a Cognito user are longer than that. A [Store] of one's own keeps them elsewhere.
package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// Defaults of [Config] and [SessionConfig].
const (
	// DefaultRedirectURL is one that Cognito lets an app client have without TLS.
	DefaultRedirectURL = "http://localhost:3000"
	// DefaultTimeout is how long a person has to sign in.
	DefaultTimeout = 5 * time.Minute
	// DefaultEarlyExpiry is how long before its expiry a token is refreshed.
	DefaultEarlyExpiry = 5 * time.Minute
)

// A Config describes an app client of a user pool, and how a person signs in through it. The zero value of an optional field
// means the default named in its comment.
type Config struct {
	// Domain is the host of the user pool's domain, such as my-app.auth.eu-west-1.amazoncognito.com, or a custom one, such
	// as auth.example.com. The endpoints are Cognito's paths there. Required, unless AuthorizeURL and TokenURL are set.
	Domain string
	// AuthorizeURL, TokenURL, RevokeURL and LogoutURL replace what Domain yields, each on its own. They are https, or http on
	// a loopback address.
	AuthorizeURL, TokenURL, RevokeURL, LogoutURL string

	// ClientID is the ID of an app client with the authorization code grant. Required.
	ClientID string
	// Secret yields the app client's secrets, which are sent as [cognito.AuthBasic] has it. Default none: the client is a
	// public one, as programs on people's machines should be (RFC 8252 section 8.5).
	Secret cognito.Secret
	// RedirectURL is where the browser brings the answer. It is one of the app client's callback URLs, to the letter. The
	// scheme is http and the host localhost, 127.0.0.1 or [::1]. Port 0 takes a free port, for authorization servers that let
	// the port of a loopback address vary (RFC 8252 section 7.3); Cognito wants the port that is registered. Default
	// [DefaultRedirectURL].
	RedirectURL string
	// Scopes to ask for, spelled in full: "resource-server-identifier/scope-name". openid is needed for an ID token, and added
	// if it is missing. Default only openid.
	Scopes []string
	// AuthorizeParams are added to the authorization URL, such as identity_provider, login_hint, lang or prompt. Those that
	// tie the answer to the request are this package's own, and an error here.
	AuthorizeParams map[string]string

	// Region and UserPoolID say whose tokens are accepted: the pool's, with its original issuer or its updated one. Required,
	// unless Issuers is set.
	Region, UserPoolID string
	// Issuers are the values of iss to accept instead.
	Issuers []string
	// JWKSURL is where the signing keys are. Default: where [validator.JWKSURL] has those of the first issuer.
	JWKSURL string
	// Keys finds the signing keys instead, without JWKSURL.
	Keys validator.KeySet
	// Leeway is the clock skew forgiven on an iat in the future, as in [validator.Config].
	Leeway time.Duration

	// OpenBrowser opens the URL in the person's browser. It is called in a goroutine of its own and may take as long as the
	// browser runs, even longer than the login. Default [OpenBrowser]; [NoBrowser] leaves it to the person. An error of it is
	// printed, and the login goes on.
	OpenBrowser func(ctx context.Context, url string) error
	// Output gets what the person should read: the URL, and what is waited for. Default [os.Stderr]; [io.Discard] says
	// nothing.
	Output io.Writer
	// Timeout is how long the person has to sign in. Default [DefaultTimeout].
	Timeout time.Duration
	// HTTPClient makes the requests to the token endpoint and the revocation endpoint, and its Transport those for keys. Its
	// Timeout, if it has one, bounds each of them instead of their defaults. Redirects are not followed. Default: that of
	// [cognito.Config], and that of [validator.RemoteKeysConfig].
	HTTPClient *http.Client
	// Now is the clock. Default [time.Now].
	Now func() time.Time
}

// An Authenticator signs people in through one app client. It is safe for concurrent use.
type Authenticator struct {
	cfg    Config
	token  *cognito.Endpoint
	revoke *cognito.Endpoint     // nil if there is none
	keys   *validator.RemoteKeys // nil if the keys are Config.Keys
	ids    *validator.Validator
	access *validator.Validator
	pause  func(context.Context, time.Duration) bool // as the function, but in tests
}

// ownParams are the parameters of the authorization request that tie the answer to it, or say how it comes (RFC 6749 section
// 4.1.1, RFC 7636 section 4.3, OpenID Connect Core sections 3.1.2.1 and 6).
var ownParams = []string{
	"response_type", "response_mode", "client_id", "redirect_uri", "scope", "state", "nonce",
	"code_challenge", "code_challenge_method", "request", "request_uri",
}

// New checks cfg and does no I/O. Its error names every field at fault. What the caller does with the slices and maps of cfg
// later changes nothing.
func New(cfg Config) (*Authenticator, error) {
	var errs []error
	errs = append(errs, cfg.endpoints()...)
	errs = append(errs, cfg.request()...)
	if cfg.OpenBrowser == nil {
		cfg.OpenBrowser = OpenBrowser
	}
	if cfg.Output == nil {
		cfg.Output = os.Stderr
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	if cfg.Timeout < 0 {
		errs = append(errs, fmt.Errorf("Timeout is %v, want one that is not negative", cfg.Timeout))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Authenticator{cfg: cfg, pause: pause}
	if cfg.ClientID == "" {
		errs = append(errs, errors.New("ClientID is empty, want the ID of an app client, such as 7a8b9c0d1e2f3g4h5i6j7k8"))
	} else {
		errs = append(errs, a.newValidators()...)
	}
	a.token = a.endpoint(cfg.TokenURL)
	if cfg.RevokeURL != "" {
		a.revoke = a.endpoint(cfg.RevokeURL)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	if err := a.token.Check(); err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	return a, nil
}

// endpoint is one that takes a single request: the server may have taken note of a code, or of a refresh token that it
// rotates, although no answer came. RFC 6749 section 4.1.2 has it revoke everything if a code comes twice.
func (a *Authenticator) endpoint(address string) *cognito.Endpoint {
	e := &cognito.Endpoint{
		URL: address, ClientID: a.cfg.ClientID, Secret: a.cfg.Secret, HTTPClient: a.cfg.HTTPClient, Now: a.cfg.Now,
		Retry: cognito.Retry{MaxAttempts: 1},
	}
	if a.cfg.HTTPClient != nil && a.cfg.HTTPClient.Timeout > 0 {
		// MaxElapsed is half a minute by default, secrets included, and would cut a longer request short.
		e.Timeout, e.Retry.MaxElapsed = a.cfg.HTTPClient.Timeout, max(30*time.Second, a.cfg.HTTPClient.Timeout)
	}
	return e
}

// endpoints fills in the addresses of the endpoints and checks them.
func (c *Config) endpoints() (errs []error) {
	if c.Domain != "" {
		tokenURL, err := cognito.DomainTokenURL(c.Domain)
		if err != nil {
			return []error{fmt.Errorf("Domain is %q, want a host name such as my-app.auth.eu-west-1.amazoncognito.com, without https:// and path", c.Domain)}
		}
		// Source: Amazon Cognito Developer Guide, "User pool endpoints and managed login reference".
		base := strings.TrimSuffix(tokenURL, "/oauth2/token")
		c.TokenURL = cmp.Or(c.TokenURL, tokenURL)
		c.AuthorizeURL = cmp.Or(c.AuthorizeURL, base+"/oauth2/authorize")
		c.RevokeURL = cmp.Or(c.RevokeURL, base+"/oauth2/revoke")
		c.LogoutURL = cmp.Or(c.LogoutURL, base+"/logout")
	}
	if c.AuthorizeURL == "" || c.TokenURL == "" {
		return []error{errors.New("Domain is empty, want a host name such as my-app.auth.eu-west-1.amazoncognito.com, or AuthorizeURL and TokenURL")}
	}
	for _, u := range []struct{ name, address string }{
		{"AuthorizeURL", c.AuthorizeURL}, {"TokenURL", c.TokenURL}, {"RevokeURL", c.RevokeURL}, {"LogoutURL", c.LogoutURL},
	} {
		if u.address == "" {
			continue
		}
		if err := cognito.CheckURL(u.name, u.address); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// request fills in what the authorization request says, and checks it.
func (c *Config) request() (errs []error) {
	c.RedirectURL = cmp.Or(c.RedirectURL, DefaultRedirectURL)
	if err := checkRedirectURL(c.RedirectURL); err != nil {
		errs = append(errs, err)
	}
	var scopes []string
	for _, scope := range append([]string{"openid"}, c.Scopes...) {
		if !isScope(scope) {
			errs = append(errs, fmt.Errorf("Scopes has %q, want items such as orders/read (RFC 6749 section 3.3)", scope))
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	c.Scopes = scopes
	c.AuthorizeParams = maps.Clone(c.AuthorizeParams)
	for _, name := range slices.Sorted(maps.Keys(c.AuthorizeParams)) {
		if name == "" || slices.Contains(ownParams, name) {
			errs = append(errs, fmt.Errorf("AuthorizeParams has %q, want none of %v", name, ownParams))
		}
	}
	return errs
}

// checkRedirectURL checks that an answer can come there, and to this machine only.
func checkRedirectURL(address string) error {
	u, err := url.Parse(address)
	if err == nil && u.Scheme == "http" && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname()) &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && !strings.HasSuffix(address, "#") && isPort(u) {
		return nil
	}
	return fmt.Errorf("RedirectURL is %q, want http:// with the host localhost, 127.0.0.1 or [::1], perhaps a port and a path, such as %s", address, DefaultRedirectURL)
}

func isPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && u.Port() == strconv.FormatUint(n, 10)
}

// isScope reports whether s is a scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' })
}

// newValidators makes what verifies the tokens.
func (a *Authenticator) newValidators() []error {
	issuers := slices.Clone(a.cfg.Issuers)
	if len(issuers) == 0 {
		if a.cfg.Region == "" || a.cfg.UserPoolID == "" {
			return []error{errors.New("Region or UserPoolID is empty, want both, such as eu-west-1 and eu-west-1_AbCdEfGhI, or Issuers")}
		}
		issuers = []string{
			validator.CognitoIssuer(a.cfg.Region, a.cfg.UserPoolID),
			validator.UpdatedIssuer(a.cfg.Region, a.cfg.UserPoolID),
		}
	}
	a.cfg.Issuers = issuers
	keys := a.cfg.Keys
	if keys == nil {
		var err error
		if a.keys, err = validator.NewRemoteKeys(a.remoteKeys(issuers[0])); err != nil {
			return []error{err}
		}
		keys = a.keys
	}
	var errs []error
	newValidator := func(use validator.TokenUse) *validator.Validator {
		v, err := validator.New(validator.Config{
			Issuers: issuers, ClientIDs: []string{a.cfg.ClientID}, TokenUses: []validator.TokenUse{use},
			Leeway: a.cfg.Leeway, Keys: keys, Now: a.cfg.Now,
		})
		if err != nil && len(errs) == 0 { // the other says the same
			errs = append(errs, err)
		}
		return v
	}
	a.ids, a.access = newValidator(validator.IDToken), newValidator(validator.AccessToken)
	return errs
}

func (a *Authenticator) remoteKeys(issuer string) validator.RemoteKeysConfig {
	cfg := validator.RemoteKeysConfig{URL: cmp.Or(a.cfg.JWKSURL, validator.JWKSURL(issuer)), Now: a.cfg.Now}
	if a.cfg.HTTPClient != nil {
		cfg.Transport, cfg.Timeout = a.cfg.HTTPClient.Transport, a.cfg.HTTPClient.Timeout
	}
	return cfg
}

// Format prints what tells one configuration from another, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "login.Config{ClientID: %q, RedirectURL: %q, Scopes: %q}", c.ClientID, c.RedirectURL, c.Scopes)
}

// Format prints what [Config.Format] does.
func (a *Authenticator) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "login.Authenticator{%v}", a.cfg) }

// Login signs a person in: it opens the browser at the authorization URL, waits on the loopback address for the answer,
// exchanges the code, and verifies the tokens. Its error is, among others,
//
//   - a [*PortError] if the port of the redirect URL is taken,
//   - an [*AuthorizationError] if the person or the user pool said no, such as access_denied,
//   - a [*TimeoutError] if nothing came in time, and the context's if that ends first,
//   - a [*cognito.TokenRequestError] of the token endpoint,
//   - one that matches [validator.ErrKeysUnavailable] if the signing keys cannot be had,
//   - a [*TokenRefusedError] if a token does not hold.
//
// An answer that does not belong to this login, by its state, is shown an error page and does not end the login.
func (a *Authenticator) Login(ctx context.Context) (*Tokens, error) {
	if err := a.prepareKeys(ctx); err != nil {
		return nil, err // before a person signs in in vain
	}
	out := &speaker{w: a.cfg.Output}
	defer out.end()
	r := a.NewRequest()
	c, err := listen(ctx, r, a.cfg.Issuers, out.strange)
	if err != nil {
		return nil, err
	}
	last := pageFailed
	defer func() { c.finish(last) }()
	a.invite(ctx, out, a.AuthorizationURL(r), c)

	code, err := a.await(ctx, c)
	if err != nil {
		return nil, err
	}
	out.say("The browser has brought the answer; getting the tokens.\n")
	tokens, err := a.Exchange(ctx, code, r)
	if err != nil {
		return nil, err
	}
	last = pageDone
	return tokens, nil
}

// invite asks the person to sign in, and opens the browser.
func (a *Authenticator) invite(ctx context.Context, out *speaker, address string, c *callback) {
	out.say("Sign in with your browser. If it does not open by itself, go to\n\n  %s\n\nWaiting %v for the answer, at %s.\n", address, a.cfg.Timeout, c.address())
	go func() {
		if err := a.cfg.OpenBrowser(ctx, address); err != nil {
			out.say("The browser could not be opened: %v. Go to the address above.\n", err)
		}
	}()
}

// await returns the code that the browser brings.
func (a *Authenticator) await(ctx context.Context, c *callback) (code string, err error) {
	inTime, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	got, err := c.wait(inTime)
	switch {
	case err == nil && got.err != nil:
		return "", got.err
	case err == nil:
		return got.code, nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("login: wait for the answer of the browser: %w", ctx.Err())
	}
	return "", &TimeoutError{After: a.cfg.Timeout, Ignored: c.count()}
}

// A speaker tells a person what happens, until its end. That it cannot, is no reason to end a login.
type speaker struct {
	mu    sync.Mutex
	w     io.Writer
	ended bool
}

func (s *speaker) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		fmt.Fprintf(s.w, format, args...)
	}
}

// strange says that an answer came which is not to this login, and the error that it claims.
func (s *speaker) strange(problem string) {
	if problem != "" {
		problem = " (it says " + problem + ")"
	}
	s.say("An answer came that does not belong to this login%s; still waiting.\n", problem)
}

// end keeps a browser that ends late from writing when the login is over.
func (s *speaker) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}
