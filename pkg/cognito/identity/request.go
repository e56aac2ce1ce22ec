package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentity"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentity/types"
	"github.com/aws/smithy-go"
)

const (
	maxAttempts    = 3                // of one call, the SDK's default, so that no setting of the environment changes it
	requestTimeout = 10 * time.Second // of one attempt
	maxLife        = 36 * time.Hour   // of any credentials of STS (GetSessionToken); those of identity pools live an hour
	maxAnswerBytes = 64 << 10         // good ones have about 2 KiB; a session token has no documented limit
)

// newClient returns a client that takes nothing from the environment and signs nothing: both calls are public, and an
// attempt to sign would look for AWS credentials.
func newClient(cfg *Config) *cognitoidentity.Client {
	o := cognitoidentity.Options{
		Region:      cfg.Region,
		Credentials: aws.AnonymousCredentials{},
		HTTPClient:  newHTTPClient(cfg.HTTPClient),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = maxAttempts
		}),
	}
	if cfg.Endpoint != "" {
		o.BaseEndpoint = aws.String(cfg.Endpoint)
	}
	return cognitoidentity.New(o)
}

// newHTTPClient returns a client that follows no redirects and reads no endless answers.
func newHTTPClient(base *http.Client) *http.Client {
	c := http.Client{Timeout: requestTimeout}
	if base != nil {
		c = *base
	}
	if c.CheckRedirect == nil {
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.Transport = bounded{c.Transport}
	return &c
}

// bounded is a transport whose answers end after maxAnswerBytes. The SDK would read them whole.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswerBytes)
	return resp, nil
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// wanted says what an ID token asks for.
type wanted struct {
	token  string
	claims claims
	user   user
	role   string // empty if Cognito is to choose
	logins map[string]string
}

func (p *Provider) wanted(token string) (wanted, error) {
	c, err := readClaims(token)
	if err != nil {
		return wanted{}, err
	}
	role := p.cfg.RoleARN
	if p.cfg.RoleSuffix != "" {
		if role, err = SelectRole(c.roles, p.cfg.RoleSuffix); err != nil {
			return wanted{}, err
		}
	}
	return wanted{token, c, user{c.issuer, c.subject, c.client}, role, map[string]string{p.cfg.LoginProvider: token}}, nil
}

// fetch gets new credentials. The identity, if it is known, saves a call.
func (p *Provider) fetch(ctx context.Context, w wanted, identity string) (*held, error) {
	known := identity
	if identity == "" {
		var err error
		if identity, err = p.getID(ctx, w); err != nil {
			return nil, err
		}
	}
	got, err := p.getCredentials(ctx, w, identity)
	if known != "" && (is[*types.ResourceNotFoundException](err) || is[*types.NotAuthorizedException](err)) {
		// The identity may have been deleted, or merged into another one, since we were told of it.
		identity, idErr := p.getID(ctx, w)
		if idErr != nil || identity == known {
			return nil, err
		}
		got, err = p.getCredentials(ctx, w, identity)
	}
	return got, err
}

func (p *Provider) getID(ctx context.Context, w wanted) (string, error) {
	in := &cognitoidentity.GetIdInput{IdentityPoolId: aws.String(p.cfg.IdentityPoolID), Logins: w.logins}
	if p.cfg.AccountID != "" {
		in.AccountId = aws.String(p.cfg.AccountID)
	}
	out, err := p.client.GetId(ctx, in)
	if err == nil && aws.ToString(out.IdentityId) == "" {
		err = errors.New("answer has no IdentityId, want one")
	}
	if err != nil {
		return "", p.failed("GetId", w, err)
	}
	return *out.IdentityId, nil
}

func (p *Provider) getCredentials(ctx context.Context, w wanted, identity string) (*held, error) {
	in := &cognitoidentity.GetCredentialsForIdentityInput{IdentityId: aws.String(identity), Logins: w.logins}
	if w.role != "" {
		in.CustomRoleArn = aws.String(w.role)
	}
	out, err := p.client.GetCredentialsForIdentity(ctx, in)
	now := p.cfg.Now()
	if err == nil {
		err = incomplete(out.Credentials, now)
	}
	if err != nil {
		return nil, p.failed("GetCredentialsForIdentity", w, err)
	}
	if id := aws.ToString(out.IdentityId); id != "" {
		identity = id // it says so if the one that we know was merged into another
	}
	c := NewCredentials(*out.Credentials.AccessKeyId, *out.Credentials.SecretKey, *out.Credentials.SessionToken, *out.Credentials.Expiration)
	c.IdentityID, c.RoleARN, c.AccountID = identity, w.role, p.account(w.role)
	return &held{c, w.user, now.Round(0)}, nil
}

// account returns the AWS account of a role.
func (p *Provider) account(role string) string {
	if arn := roleForm.FindStringSubmatch(role); arn != nil {
		return arn[1]
	}
	return p.cfg.AccountID
}

// incomplete says what an answer's credentials lack.
func incomplete(c *types.Credentials, now time.Time) error {
	switch {
	case c == nil:
		return errors.New("answer has no Credentials, want them")
	case aws.ToString(c.AccessKeyId) == "" || aws.ToString(c.SecretKey) == "" || aws.ToString(c.SessionToken) == "":
		return errors.New("answer lacks AccessKeyId, SecretKey or SessionToken, want all three")
	case c.Expiration == nil:
		return errors.New("answer has no Expiration, want one")
	case c.Expiration.After(now.Add(maxLife)):
		return fmt.Errorf("answer has credentials until %s, want at most %v", c.Expiration.UTC().Format(time.RFC3339), maxLife)
	case !c.Expiration.After(now):
		return fmt.Errorf("answer has credentials that expired at %s, and it is %s here: is the clock right?", c.Expiration.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// failed makes an error of the SDK's.
func (p *Provider) failed(operation string, w wanted, err error) error {
	e := &RequestError{Operation: operation, Err: err}
	var answer interface {
		HTTPStatusCode() int
		ServiceRequestID() string
	}
	if errors.As(err, &answer) {
		e.StatusCode, e.RequestID = answer.HTTPStatusCode(), clean(answer.ServiceRequestID(), w.token)
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		e.ErrorCode, e.Message = clean(api.ErrorCode(), w.token), clean(api.ErrorMessage(), w.token)
	} else {
		var in *smithy.OperationError
		if errors.As(err, &in) {
			err = in.Err // the operation is named already
		}
		e.Message = clean(err.Error(), w.token)
	}
	e.temporary = api == nil || e.StatusCode/100 != 4 || retry.NewStandard().IsErrorRetryable(err)
	e.Hint = p.hint(e, w)
	e.Err = hidden{e.Message, e.Err}
	return e
}

// A hidden error unwraps to the SDK's and does not print what that says.
type hidden struct {
	text string
	err  error
}

func (h hidden) Error() string { return h.text }
func (h hidden) Unwrap() error { return h.err }

// hint says what is likely to help.
func (p *Provider) hint(e *RequestError, w wanted) string {
	roles := w.claims.roles
	switch {
	case is[*types.InvalidIdentityPoolConfigurationException](e.Err):
		return "does the identity pool have a role for authenticated users, and does that role trust " + p.cfg.IdentityPoolID + "?"
	case is[*types.ResourceNotFoundException](e.Err):
		return "is there an identity pool " + p.cfg.IdentityPoolID + " in " + p.cfg.Region + "?"
	case !is[*types.NotAuthorizedException](e.Err):
		return ""
	case !w.claims.expires.IsZero() && !p.cfg.Now().Before(w.claims.expires):
		return "the ID token expired at " + w.claims.expires.Format(time.RFC3339)
	case w.role != "" && !slices.Contains(roles, w.role):
		return "the role is not among the user's: " + cut(strings.Join(roles, ", "))
	case w.role == "" && len(roles) > 1 && w.claims.preferred == "":
		return "the user has several roles and none is preferred, select one by RoleSuffix or RoleARN: " + cut(strings.Join(roles, ", "))
	}
	return fmt.Sprintf("does the identity pool have %s with app client %q as an identity provider?", p.cfg.LoginProvider, cut(w.claims.client))
}

// is reports whether an error is, or wraps, one of type E.
func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

var tokenForm = regexp.MustCompile(`eyJ[A-Za-z0-9_.-]+`)

// clean makes a service's text fit for errors and terminals: without what could be a token, which a broken service may
// send back, and without control characters.
func clean(text, token string) string {
	for _, part := range append([]string{token}, strings.Split(token, ".")...) {
		if len(part) > 8 {
			text = strings.ReplaceAll(text, part, "[removed]")
		}
	}
	text = tokenForm.ReplaceAllString(text, "[removed]")
	return cut(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text))
}
