// Package cognito gets access tokens from Amazon Cognito user pools with the OAuth 2.0 client credentials grant (RFC 6749
// section 4.4), and keeps them fresh: for callers of services that take such tokens.
//
// Most users need three calls: [TokenURL] for the address of the token endpoint, [NewTokenSource], and
// [TokenSource.Transport], which adds the token to the requests of an [http.Client].
//
//	tokenURL, err := cognito.TokenURL("eu-west-1", "my-app")
//	// ...
//	source, err := cognito.NewTokenSource(cognito.Config{
//		TokenURL: tokenURL,
//		ClientID: "7a8b9c0d1e2f3g4h5i6j7k8",
//		Secret:   cognito.SecretEnv("COGNITO_CLIENT_SECRET"),
//		Scopes:   []string{"orders/read"},
//	})
//	// ...
//	client := &http.Client{Transport: source.Transport(nil)}
//
// Cognito bills these tokens by request and limits how many a user pool gives out in a second, and it is not always there.
// So a [TokenSource] asks once for however many goroutines, gets the next token in the background before the one at hand
// expires, serves that one while the endpoint fails, repeats what is worth repeating and nothing else, and remembers a
// failure for a moment, so that callers in a loop do not reach the endpoint with every turn. It has no goroutine but that
// of a fetch under way, which always ends; there is nothing to close.
//
// Programs that live shortly, or many beside each other, share tokens by [Config.Cache]: see package tokenfile. Package
// cognitogrpc adds tokens to gRPC calls. People log in with package login.
//
// Errors of requests are a [*TokenRequestError]. No secret and no token is in an error or a log line of this package, nor
// in what its types print.
package cognito

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// An AuthStyle says how a request authenticates the app client.
type AuthStyle int

const (
	// AuthBasic sends client ID and secret as HTTP Basic credentials, each form-encoded first, as RFC 6749 section 2.3.1
	// has it (client_secret_basic). The default.
	AuthBasic AuthStyle = iota
	// AuthPost sends them as parameters of the form (client_secret_post). It is the choice for a secret of one's own that
	// has other characters than letters, digits and "_": whether Cognito undoes the form encoding of AuthBasic is not
	// documented.
	AuthPost
)

// A Config says which tokens a [TokenSource] gets. The zero value of an optional field means the default named in its
// comment.
type Config struct {
	// TokenURL is the token endpoint of the user pool's domain. Required. See [TokenURL] and [DomainTokenURL]. https, or
	// http on a loopback address; redirects are not followed, as the secret would go along.
	TokenURL string
	// ClientID is the ID of an app client with the client credentials grant. Required.
	ClientID string
	// Secret yields the app client's secrets. Required. See [StaticSecret], [SecretFile] and [SecretEnv].
	Secret Secret
	// AuthStyle is [AuthBasic] by default.
	AuthStyle AuthStyle
	// Scopes are asked for, spelled in full: "resource-server-identifier/scope-name". Default: all that the client may have.
	// Cognito ignores scopes that the client may not have, and does not say so.
	Scopes []string
	// ClientMetadata goes to the pool's pre token generation trigger, as aws_client_metadata. Default none.
	//
	// Source: Amazon Cognito Developer Guide, "The token issuer endpoint".
	ClientMetadata map[string]string

	// EarlyExpiry is how long before its expiry a token is replaced at the latest: those who keep asking for tokens do not see
	// an outage of the token endpoint that is more than 10 seconds shorter than that. The replacement begins at a random
	// moment in the half of EarlyExpiry before, so that a fleet that started together does not ask together, and never before
	// half of the token's life has passed. Default a tenth of the token's life, at most 5 minutes. More costs more tokens.
	EarlyExpiry time.Duration
	// Timeout bounds one request. Default 10s.
	Timeout time.Duration
	// Retry says how requests that failed are repeated.
	Retry Retry

	// Cache shares tokens with other processes. Default: none; tokens are kept in memory only. See package tokenfile.
	Cache Cache
	// HTTPClient sends the requests; a copy of it, which follows no redirects. Default: a client with the proxy of the
	// environment and TLS 1.2 or later, which keeps no connections.
	HTTPClient *http.Client
	// Logger gets a line when a token was got (debug), when getting one failed (warn) and when it works again (info).
	// Default: discard.
	Logger *slog.Logger
	// Now is the clock. Default [time.Now].
	Now func() time.Time
}

// Retry says how requests are repeated that failed with 429, 5xx, or without an answer. Errors that say what is wrong with
// the request, such as invalid_client, are never repeated. The pauses are at least what the answer's Retry-After says; if
// that does not fit into MaxElapsed, the request is not repeated. The zero value means the defaults.
type Retry struct {
	// MaxAttempts is how many requests there may be, the first included. Default 4; 1 repeats nothing. The request with
	// the second of two secrets is not counted.
	MaxAttempts int
	// MinBackoff is the pause after the first, give or take half. It doubles each time, up to MaxBackoff. Defaults 500ms
	// and 8s.
	MinBackoff, MaxBackoff time.Duration
	// MaxElapsed bounds all of it: secrets, requests and pauses, and for a [TokenSource] the wait for a shared cache.
	// Default 30s.
	MaxElapsed time.Duration
}

func (r Retry) withDefaults() Retry {
	return Retry{
		MaxAttempts: cmp.Or(r.MaxAttempts, 4),
		MinBackoff:  cmp.Or(r.MinBackoff, 500*time.Millisecond),
		MaxBackoff:  cmp.Or(r.MaxBackoff, 8*time.Second),
		MaxElapsed:  cmp.Or(r.MaxElapsed, 30*time.Second),
	}
}

// Patterns of the Amazon Cognito User Pools API Reference (DomainType, for a prefix) and of Region codes.
var (
	prefixPattern = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)
	regionPattern = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
)

// TokenURL returns the token endpoint of a user pool with a prefix domain, such as
// https://my-app.auth.eu-west-1.amazoncognito.com/oauth2/token. It holds for the aws and GovCloud partitions; elsewhere,
// set the URL itself.
//
// Source: Amazon Cognito Developer Guide, "Using the Amazon Cognito prefix domain for managed login"; AWS GovCloud (US)
// User Guide, "Amazon Cognito".
func TokenURL(region, domainPrefix string) (string, error) {
	switch {
	case !regionPattern.MatchString(region):
		return "", fmt.Errorf("cognito: region is %q, want one such as eu-west-1", region)
	case !prefixPattern.MatchString(domainPrefix):
		return "", fmt.Errorf("cognito: domain prefix is %q, want 1 to 63 lower-case letters, digits and hyphens, such as my-app; see DomainTokenURL for a domain in full", domainPrefix)
	case strings.HasPrefix(region, "cn-"):
		return "", fmt.Errorf("cognito: region is %q, whose prefix domains are not documented; set the token URL itself", region)
	}
	auth := "auth"
	if strings.HasPrefix(region, "us-gov-") {
		auth = "auth-fips"
	}
	return "https://" + domainPrefix + "." + auth + "." + region + ".amazoncognito.com/oauth2/token", nil
}

// DomainTokenURL returns the token endpoint of a user pool with a custom domain, such as
// https://auth.example.com/oauth2/token, or of any domain in full.
//
// Source: Amazon Cognito Developer Guide, "Using your own domain for managed login".
func DomainTokenURL(domain string) (string, error) {
	u, err := url.Parse("https://" + domain + "/oauth2/token")
	if err != nil || u.Host != domain || u.Hostname() == "" {
		return "", fmt.Errorf("cognito: domain is %q, want a host name such as auth.example.com, without https:// and path", withoutUser(domain))
	}
	return u.String(), nil
}

// CheckURL returns an error unless rawURL is one that secrets and tokens may be sent to: https, or http on a loopback
// address, with a host and without user, query and fragment. It is for addresses of one's own settings: name is what the
// setting is called.
func CheckURL(name, rawURL string) error {
	_, err := parseURL(name, rawURL)
	return err
}

func parseURL(name, rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	switch {
	case rawURL == "":
		return nil, fmt.Errorf("%s is empty, want https://…", name)
	case err != nil || u.Hostname() == "":
		return nil, fmt.Errorf("%s is no URL with a host, want https://…", name) // not shown: it may hold a secret
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%s has a user, a query or a fragment, want only https://host/path", name)
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return nil, fmt.Errorf("%s is %s, want https://…, or http://… on a loopback address", name, u)
	}
	return u, nil
}

// withoutUser cuts what may be a password off a domain that is none.
func withoutUser(domain string) string {
	if i := strings.LastIndex(domain, "@"); i >= 0 {
		return "…" + domain[i:]
	}
	return domain
}

// check returns the parsed token URL, or an error that names all that is wrong.
func (c *Config) check() (*url.URL, error) {
	var errs []error
	u, err := parseURL("TokenURL", c.TokenURL)
	errs = append(errs, err)
	if c.Secret == nil {
		errs = append(errs, errors.New("Secret is nil, want one such as SecretEnv(\"COGNITO_CLIENT_SECRET\")"))
	}
	errs = append(errs, checkClientID(c.ClientID), c.AuthStyle.check(), c.Retry.check())
	for _, scope := range c.Scopes {
		if !isScope(scope) {
			errs = append(errs, fmt.Errorf("Scopes has %q, want items such as orders/read (RFC 6749 section 3.3)", scope))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.ClientMetadata)) {
		switch {
		case name == "":
			errs = append(errs, errors.New("ClientMetadata has an empty name"))
		case !utf8.ValidString(name) || !utf8.ValidString(c.ClientMetadata[name]):
			errs = append(errs, fmt.Errorf("ClientMetadata[%q] is not valid UTF-8", name))
		}
	}
	if c.EarlyExpiry < 0 || c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("EarlyExpiry is %v and Timeout %v, want neither negative", c.EarlyExpiry, c.Timeout))
	}
	return u, errors.Join(errs...)
}

func checkClientID(id string) error {
	// The pattern of the Amazon Cognito User Pools API Reference, ClientIdType, is [\w+]+; other issuers have more.
	if id == "" || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("ClientID is %q, want the ID of an app client, such as 7a8b9c0d1e2f3g4h5i6j7k8", id)
	}
	return nil
}

func (s AuthStyle) check() error {
	if s != AuthBasic && s != AuthPost {
		return fmt.Errorf("AuthStyle is %d, want AuthBasic or AuthPost", s)
	}
	return nil
}

func (r Retry) check() error {
	d := r.withDefaults()
	if d.MaxAttempts < 0 || d.MinBackoff < 0 || d.MaxElapsed < 0 || d.MaxBackoff < d.MinBackoff {
		return fmt.Errorf("Retry has MaxAttempts %d, MinBackoff %v, MaxBackoff %v and MaxElapsed %v, want none negative and MinBackoff at most MaxBackoff",
			d.MaxAttempts, d.MinBackoff, d.MaxBackoff, d.MaxElapsed)
	}
	return nil
}

// isScope reports whether s is a scope-token (RFC 6749 section 3.3).
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' })
}

// sortedScopes returns the scopes as a set, in one order: it is what they mean, and what a cache is keyed by.
func sortedScopes(scopes []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(scopes)))
}

// Format prints the configuration without the values of ClientMetadata, which may be secret, whatever the verb.
func (c Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "cognito.Config{TokenURL: %q, ClientID: %q, Scopes: %q, ClientMetadata: %q}",
		shownURL(c.TokenURL), c.ClientID, c.Scopes, slices.Sorted(maps.Keys(c.ClientMetadata)))
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// shownURL writes a URL without what may be secret in a wrong one.
func shownURL(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "…"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
