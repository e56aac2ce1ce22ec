// Package identity exchanges the ID token of a signed-in user for temporary AWS credentials, by an Amazon Cognito identity
// pool (GetId and GetCredentialsForIdentity, the enhanced flow).
//
// Most users need two calls: [New] with a [Config], and then the Provider in an [aws.Config], where it fetches credentials
// when they are needed and again five minutes before they end:
//
//	provider, err := identity.New(identity.Config{
//		IdentityPoolID: "eu-west-1:00000000-1111-2222-3333-444444444444",
//		UserPoolID:     "eu-west-1_AbCdEfGhI",
//		IDToken:        session.IDToken, // of pkg/cognito/login, or any func(context.Context) (string, error)
//		RoleSuffix:     "/Analyst",      // one of the user's roles; else Cognito chooses
//	})
//	// ...
//	client := s3.NewFromConfig(aws.Config{Region: "eu-west-1", Credentials: provider})
//
// config.LoadDefaultConfig takes it by config.WithCredentialsProvider. [Provider.Credentials] returns the credentials by
// themselves, and [WriteProcess] writes them as the credential_process of the AWS CLI and SDKs has to.
//
// The two calls need no AWS credentials, and nothing of this machine's AWS configuration is read: no files, no AWS_*
// variables that hold credentials, Regions, profiles or endpoints, no instance metadata.
//
// Errors, logs and the printed form of all types of this package hold no token, no secret access key and no session token.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentity"
)

// DefaultEarlyExpiry is what [Config.EarlyExpiry] means if it is zero.
const DefaultEarlyExpiry = 5 * time.Minute

// DefaultTimeout is what [Config.Timeout] means if it is zero. The AWS SDKs give a credential_process a minute.
const DefaultTimeout = 30 * time.Second

// ProviderName is the Source of the credentials that [Provider.Retrieve] returns.
const ProviderName = "CognitoIdentityPool"

// A Config says whose credentials are wanted, and from where. The zero value of an optional field means the default named
// in its comment.
type Config struct {
	// IdentityPoolID is the identity pool, "REGION:GUID". Required.
	IdentityPoolID string
	// Region is the AWS Region of the identity pool. Default: the one in IdentityPoolID.
	Region string
	// UserPoolID is the user pool that issues the ID tokens, "REGION_ID". It may be of another Region than the identity
	// pool. Required unless LoginProvider is set.
	UserPoolID string
	// LoginProvider is the name under which the identity pool knows the user pool, the key in the Logins of both calls.
	// Default: [LoginProvider] of UserPoolID, for the partitions where that is known.
	LoginProvider string
	// IDToken returns an ID token of the user, fresh enough to be accepted. It is asked once for each refresh, so it
	// should keep the token and refresh it by itself, as the IDToken method of a session of pkg/cognito/login does. Its
	// context is that of no caller, and ends with Timeout. Required.
	//
	// All credentials are those of the user whose token it returns: if that is another user one day, nothing that was
	// kept for the one before is used any more from the next refresh on.
	IDToken func(context.Context) (string, error)
	// RoleSuffix selects the IAM role: the one role of the token's cognito:roles that ends in it; see [SelectRole].
	// Default: Cognito chooses, see RoleARN.
	RoleSuffix string
	// RoleARN names the IAM role (the CustomRoleArn of GetCredentialsForIdentity), in place of RoleSuffix. Cognito
	// accepts only roles of the token's cognito:roles. Default, with RoleSuffix empty too: Cognito chooses by the
	// settings of the identity pool, which are its rules, or the token's cognito:preferred_role, or the role of all
	// authenticated users.
	RoleARN string
	// AccountID is the AWS account of the identity pool, 12 digits, which is sent with GetId. Optional.
	AccountID string
	// EarlyExpiry is how long before their end credentials are replaced, but not before half of their life. Default
	// [DefaultEarlyExpiry]; negative means at the last moment.
	EarlyExpiry time.Duration
	// Timeout bounds one refresh: IDToken, GetId, GetCredentialsForIdentity and their repetitions. Default
	// [DefaultTimeout].
	Timeout time.Duration
	// CacheDir is a folder in which credentials are kept for other processes, in files that only this user can read.
	// Processes that need the same ones at the same time wait for one of them to fetch. It is made if need be. Default:
	// they are kept in memory only.
	CacheDir string
	// Endpoint is the URL of the Cognito Identity API, for stand-ins, FIPS and VPC endpoints. It must be https unless its host
	// is a loopback address. Default: that of the Region.
	Endpoint string
	// HTTPClient sends the requests. Default: one that gives each request ten seconds. Redirects are not followed,
	// unless it says how (CheckRedirect): a request has the ID token in it.
	HTTPClient *http.Client
	// Logger gets a warning when credentials could not be refreshed and those at hand still serve, and when the cache
	// cannot be used. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default [time.Now].
	Now func() time.Time
}

// A Provider gets AWS credentials, keeps them and replaces them before they end. It is an [aws.CredentialsProvider], and safe
// for concurrent use. Its methods' contexts bound the caller's wait and not the refresh, which others share.
type Provider struct {
	cfg    Config
	client *cognitoidentity.Client
	cache  *cache // nil without CacheDir

	mu      sync.Mutex
	held    *held     // the last ones, nil at first
	flight  *flight   // the refresh under way; nil if none
	next    *flight   // the one to follow it; nil if none
	retryAt time.Time // not before, while held still serves
}

var (
	regionForm       = regexp.MustCompile(`^[a-z]{2,8}(-[a-z]{1,16})+-[0-9]{1,2}$`)
	identityPoolForm = regexp.MustCompile(`^([a-z0-9-]+):[0-9a-f-]{1,40}$`)                // API_GetId: [\w-]+:[0-9a-f-]+, at most 55
	userPoolForm     = regexp.MustCompile(`^([a-z0-9-]+)_[0-9a-zA-Z]{1,40}$`)              // API_UserPoolType: [\w-]+_[0-9a-zA-Z]+, at most 55
	roleForm         = regexp.MustCompile(`^arn:[a-z0-9-]+:iam::([0-9]{12}):role/[!-~]+$`) // IAM User Guide, IAM ARNs
	accountForm      = regexp.MustCompile(`^[0-9]{12}$`)                                   // API_GetId: AccountId
	providerForm     = regexp.MustCompile(`^[!-.0-~]{1,100}(/[!-.0-~]{1,100})?$`)          // a host, and the id of a pool
)

// New checks cfg and does no I/O. An error names the field that is wrong.
func New(cfg Config) (*Provider, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	p := &Provider{cfg: cfg, client: newClient(&cfg)}
	if cfg.CacheDir != "" {
		p.cache = &cache{dir: cfg.CacheDir}
	}
	return p, nil
}

// complete checks the configuration and fills in what has a default.
func (c *Config) complete() error {
	pool := identityPoolForm.FindStringSubmatch(c.IdentityPoolID)
	if pool == nil {
		return fmt.Errorf("IdentityPoolID is %q, want REGION:GUID as in eu-west-1:00000000-1111-2222-3333-444444444444", c.IdentityPoolID)
	}
	if c.Region == "" {
		c.Region = pool[1]
	}
	if !regionForm.MatchString(c.Region) {
		return fmt.Errorf("Region is %q, want one as eu-west-1", c.Region)
	}
	if c.LoginProvider == "" {
		var err error
		if c.LoginProvider, err = loginProvider(c.UserPoolID); err != nil {
			return err
		}
	} else if c.UserPoolID != "" && !strings.HasSuffix(c.LoginProvider, "/"+c.UserPoolID) {
		return fmt.Errorf("LoginProvider is %q and UserPoolID is %q, want one of them, or the same user pool in both", c.LoginProvider, c.UserPoolID)
	}
	switch {
	case !providerForm.MatchString(c.LoginProvider):
		return fmt.Errorf("LoginProvider is %q, want the form cognito-idp.REGION.amazonaws.com/USER_POOL_ID, without https://", c.LoginProvider)
	case c.IDToken == nil:
		return errors.New("IDToken is nil, want a function that returns the user's ID token")
	case c.RoleSuffix != "" && c.RoleARN != "":
		return errors.New("RoleSuffix and RoleARN are both set, want at most one of them")
	case c.RoleARN != "" && !roleForm.MatchString(c.RoleARN):
		return fmt.Errorf("RoleARN is %q, want the form arn:aws:iam::123456789012:role/NAME", c.RoleARN)
	case c.AccountID != "" && !accountForm.MatchString(c.AccountID):
		return fmt.Errorf("AccountID is %q, want 12 digits", c.AccountID)
	case c.Timeout < 0:
		return fmt.Errorf("Timeout is %v, want more than zero", c.Timeout)
	case c.CacheDir != "" && !filepath.IsAbs(c.CacheDir):
		return fmt.Errorf("CacheDir is %q, want an absolute path", c.CacheDir)
	}
	if err := c.checkEndpoint(); err != nil {
		return err
	}
	if c.EarlyExpiry == 0 {
		c.EarlyExpiry = DefaultEarlyExpiry
	}
	c.EarlyExpiry = max(c.EarlyExpiry, 0)
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

func (c *Config) checkEndpoint() error {
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("Endpoint is no URL of a server, want the form https://HOST") // its text may hold a password
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return fmt.Errorf("Endpoint is %s, want https, or http to a loopback address", c.Endpoint)
	}
	return nil
}

// LoginProvider returns the name under which an identity pool knows a user pool, such as
// cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI, in the partitions aws, aws-us-gov and aws-cn. For a user pool of
// another one it returns an error, as its name is not documented: say it in [Config.LoginProvider], as the identity pool
// shows it (ProviderName in API_CognitoIdentityProvider).
//
// Source: Amazon Cognito Developer Guide, "Identity pools (federated identities) external identity providers", for aws; the
// DNS suffix of the Region's partition for the others.
func LoginProvider(userPoolID string) (string, error) {
	name, err := loginProvider(userPoolID)
	if err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	return name, nil
}

func loginProvider(userPoolID string) (string, error) {
	pool := userPoolForm.FindStringSubmatch(userPoolID)
	if pool == nil || !regionForm.MatchString(pool[1]) {
		return "", fmt.Errorf("UserPoolID is %q, want REGION_ID as in eu-west-1_AbCdEfGhI", userPoolID)
	}
	region, suffix := pool[1], "amazonaws.com"
	switch {
	case strings.HasPrefix(region, "cn-"):
		suffix = "amazonaws.com.cn"
	case strings.HasPrefix(region, "eusc-"), strings.Contains(region, "-iso"):
		return "", fmt.Errorf("LoginProvider is empty and UserPoolID is %q, of a partition whose login providers are not documented, want LoginProvider", userPoolID)
	}
	return "cognito-idp." + region + "." + suffix + "/" + userPoolID, nil
}

// Retrieve returns credentials for the AWS SDK; it is [Provider.Credentials] as an [aws.CredentialsProvider]. Their Expires is
// when to ask again, which is EarlyExpiry before they end: an [aws.CredentialsCache], which keeps credentials to their last
// second, replaces them in time too. Their CanExpire is true, their Source is [ProviderName].
func (p *Provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, askAgain, err := p.get(ctx)
	if err != nil {
		return aws.Credentials{Source: ProviderName}, err
	}
	return aws.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey(), SessionToken: c.SessionToken(),
		Source: ProviderName, CanExpire: true, Expires: askAgain, AccountID: c.AccountID,
	}, nil
}

// Credentials returns credentials that hold for some seconds at least. Fresh ones come from memory, or from CacheDir; else
// they are fetched, by one refresh under way however many callers wait.
//
// Within EarlyExpiry of their end, one caller waits for the new ones, five seconds at most, and all others are served what
// is at hand. If the refresh fails for a reason that may pass (the network, throttling, an answer that cannot be read, an
// error of IDToken), what is at hand serves on to its end, and the next attempt is half a minute later. An answer that says
// no is returned as an error at once, and so is an error of IDToken whose method Temporary() bool says no, as for a sign-in
// that has ended.
//
// Errors: a [*RequestError] for a call that failed, which unwraps to the SDK's, such as
// [github.com/aws/aws-sdk-go-v2/service/cognitoidentity/types.NotAuthorizedException]; a [*RoleError] if RoleSuffix does not
// select one role; that of IDToken; that of ctx.
func (p *Provider) Credentials(ctx context.Context) (Credentials, error) {
	c, _, err := p.get(ctx)
	return c, err
}

// Renew fetches new credentials, whatever is kept, or joins the fetch under way; they replace those that are kept. It is for
// when the user's roles or a policy have changed. If it fails, what is kept serves on.
func (p *Provider) Renew(ctx context.Context) (Credentials, error) { return p.renew(ctx) }

// String returns the identity pool. Credentials are not printed.
func (p *Provider) String() string { return "identity.Provider(" + p.cfg.IdentityPoolID + ")" }

// Format prints String, whatever the verb.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// Credentials are temporary AWS credentials of one identity. Printing, logging or marshalling them does not show their secrets.
type Credentials struct {
	AccessKeyID string
	// Expires is when AWS stops to accept them, UTC.
	Expires time.Time
	// IdentityID is the user's identity in the identity pool, "REGION:GUID": the value of
	// ${cognito-identity.amazonaws.com:sub} in IAM policies.
	IdentityID string
	// RoleARN is the role that was asked for. Empty if Cognito chose.
	RoleARN string
	// AccountID is the AWS account of RoleARN, else that of [Config.AccountID]; may be empty.
	AccountID string

	// secrets is a pointer to a pointer, which package fmt does not look into where it cannot call Format, as in a field
	// that is not exported.
	secrets **secrets
}

type secrets struct{ accessKey, sessionToken string }

// NewCredentials returns credentials with the given parts: for tests of programs that use this package.
func NewCredentials(accessKeyID, secretAccessKey, sessionToken string, expires time.Time) Credentials {
	hidden := &secrets{secretAccessKey, sessionToken}
	return Credentials{AccessKeyID: accessKeyID, Expires: expires.UTC(), secrets: &hidden}
}

// SecretAccessKey returns the key to sign with. Empty in the zero Credentials.
func (c Credentials) SecretAccessKey() string {
	if c.secrets == nil {
		return ""
	}
	return (*c.secrets).accessKey
}

// SessionToken returns what has to go along with each signed request. Empty in the zero Credentials.
func (c Credentials) SessionToken() string {
	if c.secrets == nil {
		return ""
	}
	return (*c.secrets).sessionToken
}

// String shows what is no secret.
func (c Credentials) String() string {
	return fmt.Sprintf("AWS credentials of %q, access key %q, role %q, until %s", c.IdentityID, c.AccessKeyID, c.RoleARN, c.Expires.Format(time.RFC3339))
}

// Format prints String, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue is what [log/slog] records.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("identity_id", c.IdentityID), slog.String("access_key_id", c.AccessKeyID),
		slog.String("role_arn", c.RoleARN), slog.Time("expires", c.Expires),
	)
}

// MarshalJSON returns an error: JSON of a program's state ends up in logs. [WriteProcess] writes the secrets.
func (Credentials) MarshalJSON() ([]byte, error) {
	return nil, errors.New("identity: credentials are not marshalled as a whole, want WriteProcess")
}
