package cognitotest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DefaultTTL is the lifetime of an access or ID token if the app client says nothing else, as in Cognito
// (amazon-cognito-user-pools-using-the-access-token).
const DefaultTTL = time.Hour

// PoolConfig describes a user pool.
type PoolConfig struct {
	// ID is the user pool ID, such as eu-west-1_Demo12345. Required.
	ID string
	// Issuer is the iss claim and the issuer of the discovery document. Empty means [Server.URL] + "/" + ID, so that
	// issuer and key set have one address, as with Cognito. A test that needs an issuer in Cognito's own form sets it.
	Issuer string
	// ResourceServers define the pool's custom scopes.
	ResourceServers []ResourceServer
	// Clients are the app clients. An ID may occur once in a pool; the same ID in two pools is two clients.
	Clients []Client
	// Now is the clock that tokens are issued by. Nil means [time.Now].
	Now func() time.Time
	// SignInAs is who the authorization endpoint signs in at once. Empty means that it shows a page. See [Pool.SignInAs].
	SignInAs string
}

// ResourceServer defines scopes that are called Identifier + "/" + scope name.
type ResourceServer struct {
	// Identifier is a name such as orders or a URL such as https://orders.example.com. Required.
	Identifier string
	// Scopes are scope names, without the identifier.
	Scopes []string
}

// The OAuth flows of an app client, by their names in Cognito's API (OAuthFlowType).
const (
	FlowClientCredentials = "client_credentials"
	FlowCode              = "code"
)

// Client describes an app client.
type Client struct {
	// ID is the client_id. Cognito makes IDs of 26 lower-case letters and digits. Required.
	ID string
	// Name is for people; no token carries it.
	Name string
	// Secrets are the client secrets that are accepted, at most two, as Cognito allows for changing one without an
	// interruption (AddUserPoolClientSecret). None makes a public client, which cannot use the client credentials grant.
	Secrets []string
	// Scopes are the allowed scopes, in the order in which tokens carry them. For the client credentials grant they must
	// be custom scopes, those of a resource server of the pool.
	Scopes []string
	// TokenTTL is the lifetime of access and ID tokens in whole seconds. Zero means [DefaultTTL]. Cognito allows five
	// minutes to one day; the stand-in allows any, so that a demo need not wait for an expiry.
	TokenTTL time.Duration
	// RedirectURLs are the callback URLs that the authorization endpoint sends a browser to. Nil means
	// [DefaultRedirectURL]. Port 0 of a loopback address means any port, which Cognito does not have.
	RedirectURLs []string
	// LogoutURLs are the sign-out URLs.
	LogoutURLs []string
	// RotateRefreshTokens gives out a new refresh token with each refresh, and RefreshGrace is for how long the old one goes on
	// working (RefreshTokenRotationType: at most 60 seconds).
	RotateRefreshTokens bool
	RefreshGrace        time.Duration
	// Flows are the allowed OAuth flows. Nil means client credentials for a client with a secret, code for one without.
	Flows []string
	// Claims are added to every access token of the client, as a pre token generation trigger of version 3 may do
	// (user-pool-lambda-pre-token-generation). They come last, sorted by name.
	Claims map[string]any
}

// The pool and the clients of [DemoPool].
const (
	DemoPoolID = "eu-west-1_Demo12345"

	DemoClientID     = "1ordersbatch0demo0client00" // orders-batch: may read and write orders
	DemoClientSecret = "demo_only_secret_of_orders_batch"

	DemoReaderID     = "2reports0demo0client000000" // reports: may read orders
	DemoReaderSecret = "demo_only_secret_of_reports"

	DemoWebID = "3web0demo0public0client000" // web: a public client for people
)

// DemoPool returns a pool with a resource server "orders" (read, write, admin), two clients for machines and a public
// one for people. The caller may change it before [Start].
func DemoPool() PoolConfig {
	return PoolConfig{
		ID:              DemoPoolID,
		ResourceServers: []ResourceServer{{Identifier: "orders", Scopes: []string{"read", "write", "admin"}}},
		Clients: []Client{
			{ID: DemoClientID, Name: "orders-batch", Secrets: []string{DemoClientSecret}, Scopes: []string{"orders/read", "orders/write"}},
			{ID: DemoReaderID, Name: "reports", Secrets: []string{DemoReaderSecret}, Scopes: []string{"orders/read"}},
			{ID: DemoWebID, Name: "web", Scopes: []string{"openid", "email", "orders/read"}},
		},
	}
}

// Patterns of the Amazon Cognito User Pools API Reference: UserPoolIdType (at most 55 characters), ClientIdType (at most
// 128), ResourceServerIdentifierType and ResourceServerScopeNameType (at most 256).
var (
	poolIDPattern     = regexp.MustCompile(`^[\w-]+_[0-9a-zA-Z]+$`)
	clientIDPattern   = regexp.MustCompile(`^[\w+]+$`)
	identifierPattern = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)
	scopeNamePattern  = regexp.MustCompile(`^[\x21\x23-\x2E\x30-\x5B\x5D-\x7E]+$`)
)

// userScopes are the scopes that only a user can grant. Cognito refuses them for a client with the client credentials
// flow (observed: "InvalidOAuthFlowException: profile is not supported with client_credentials flow").
var userScopes = []string{"phone", "email", "openid", "profile", "aws.cognito.signin.user.admin"}

// maxSecrets is the number of active secrets that an app client can have (AddUserPoolClientSecret).
const maxSecrets = 2

func checkPools(pools []PoolConfig) error {
	if len(pools) == 0 {
		return errors.New("there is no pool, want at least one; DemoPool returns one that is ready to use")
	}
	var errs []error
	seen := make(map[string]bool)
	for _, p := range pools {
		if seen[p.ID] {
			errs = append(errs, fmt.Errorf("pool %q: there are two of this ID, want one", p.ID))
		}
		seen[p.ID] = true
		for _, err := range checkPool(p) {
			errs = append(errs, fmt.Errorf("pool %q: %w", p.ID, err))
		}
	}
	return errors.Join(errs...)
}

func checkPool(p PoolConfig) (errs []error) {
	if !poolIDPattern.MatchString(p.ID) || len(p.ID) > 55 {
		errs = append(errs, fmt.Errorf("the ID is %q, want a region, _ and letters and digits, such as %s", p.ID, DemoPoolID))
	}
	custom := make(map[string]bool)
	for _, rs := range p.ResourceServers {
		if !identifierPattern.MatchString(rs.Identifier) || len(rs.Identifier) > 256 {
			errs = append(errs, fmt.Errorf("resource server: the identifier is %q, want 1 to 256 printable ASCII characters other than space, \" and \\", rs.Identifier))
		}
		for _, name := range rs.Scopes {
			if !scopeNamePattern.MatchString(name) || len(name) > 256 {
				errs = append(errs, fmt.Errorf("resource server %q: a scope is %q, want 1 to 256 printable ASCII characters other than space, \", / and \\", rs.Identifier, name))
			}
			custom[rs.Identifier+"/"+name] = true
		}
	}
	seen := make(map[string]bool)
	for _, c := range p.Clients {
		if seen[c.ID] {
			errs = append(errs, fmt.Errorf("client %q: there are two of this ID, want one", c.ID))
		}
		seen[c.ID] = true
		for _, err := range checkClient(c, custom) {
			errs = append(errs, fmt.Errorf("client %q: %w", c.ID, err))
		}
	}
	return errs
}

func checkClient(c Client, custom map[string]bool) (errs []error) {
	if !clientIDPattern.MatchString(c.ID) || len(c.ID) > 128 {
		errs = append(errs, fmt.Errorf("the ID is %q, want 1 to 128 letters, digits, _ and +", c.ID))
	}
	errs = append(errs, checkSecrets(&c)...)
	for _, flow := range c.Flows {
		if flow != FlowClientCredentials && flow != FlowCode {
			errs = append(errs, fmt.Errorf("a flow is %q, want %s or %s", flow, FlowClientCredentials, FlowCode))
		}
	}
	machine := slices.Contains(c.flows(), FlowClientCredentials)
	for _, scope := range c.Scopes {
		switch {
		case custom[scope]:
		case !slices.Contains(userScopes, scope):
			errs = append(errs, fmt.Errorf("scope %q is none of the pool's resource servers; they have [%s]", scope, strings.Join(sortedKeys(custom), " ")))
		case machine:
			errs = append(errs, fmt.Errorf("scope %q is one that only a user can grant, want custom scopes with the flow client_credentials", scope))
		}
	}
	if c.TokenTTL < 0 || c.TokenTTL%time.Second != 0 {
		errs = append(errs, fmt.Errorf("the token lifetime is %s, want whole seconds, zero for %s", c.TokenTTL, DefaultTTL))
	}
	return errs
}

func checkSecrets(c *Client) (errs []error) {
	if len(c.Secrets) > maxSecrets {
		errs = append(errs, fmt.Errorf("there are %d secrets, want at most %d", len(c.Secrets), maxSecrets))
	}
	if slices.Contains(c.Secrets, "") {
		errs = append(errs, errors.New("a secret is empty, want none at all for a public client"))
	}
	if len(c.Secrets) == 0 && slices.Contains(c.flows(), FlowClientCredentials) {
		errs = append(errs, errors.New("there is no secret, want one for the flow client_credentials"))
	}
	return errs
}

func (c *Client) flows() []string {
	if c.Flows != nil {
		return c.Flows
	}
	if len(c.Secrets) == 0 {
		return []string{FlowCode}
	}
	return []string{FlowClientCredentials}
}

func (c *Client) ttl() time.Duration {
	if c.TokenTTL == 0 {
		return DefaultTTL
	}
	return c.TokenTTL
}
