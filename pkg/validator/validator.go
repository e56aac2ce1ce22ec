// Package validator authenticates OAuth 2.0 bearer tokens issued by Amazon Cognito user pools.
//
// It answers one question, "who is calling, with which scopes?". What a caller may do with a given request is
// the business of an authorization policy; only scopes that every request of a pool needs can be required here.
//
// Most users need two calls: [New] with a [Config] for each user pool, and [Validator.Validate] with the token
// of a request, without the "Bearer " prefix. Keys come from [NewRemoteKeys], which fetches the pool's JWK Set
// and keeps it fresh while its Run method runs, or from [ParseJWKS], which reads a JWK Set that is at hand.
//
//	issuer := validator.CognitoIssuer("eu-west-1", "eu-west-1_AbCdEfGhI")
//	keys, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: validator.JWKSURL(issuer)})
//	// ...
//	go keys.Run(ctx)
//	v, err := validator.New(validator.Config{
//		Issuers:   []string{issuer},
//		ClientIDs: []string{"7a8b9c0d1e2f3g4h5i6j7k8"},
//		Keys:      keys,
//	})
//	// ...
//	claims, err := v.Validate(ctx, token)
//
// An error of Validate is one of three things, which callers answer differently:
//
//   - the token is refused: the error matches a [Reason] such as [ErrExpired]. Answer 401.
//   - the token is good and is not enough: the error matches [ErrClient] (its app client is not among those
//     allowed) or is an [*InsufficientScopeError]. Answer 403.
//   - nothing is known about the token, because the keys could not be had: the error matches
//     [ErrKeysUnavailable]. Answer 503; [RetryAfter] says when to come back.
//
// Errors never hold the token. Their text may hold its iss and its client_id, cut short and quoted: it is for logs, not
// for callers.
//
// Four more things are there for those who need them:
//
//   - One Validator takes the tokens of several user pools: give [New] a [Config] for each. The iss of a token selects
//     its pool, and [Claims.Pool] says which it was.
//   - [NewCached] wraps a Validator so that a token that is sent again costs no signature check. Its answers are the same.
//   - [Validator.SetDenylist] refuses tokens that nothing is wrong with, such as those of a client whose secret has
//     leaked, at once and in the cache too.
//   - A [KeySet] of your own finds keys elsewhere. [ReplaceableKeys] is one for keys in a file that changes.
//
// docs/tokens.md in this project's repository lists every check with its reason and its source.
package validator

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cognito-extauthz/extauthz/pkg/validator/internal/testonly"
)

// A TokenUse is a value of Cognito's token_use claim.
type TokenUse string

const (
	// AccessToken is the default, and the only kind that the client credentials grant yields.
	AccessToken TokenUse = "access"
	// IDToken tells a client about a person. An API should accept access tokens.
	IDToken TokenUse = "id"
)

// A ScopeMatch says how many of the required scopes a token must have.
type ScopeMatch int

const (
	// MatchAll is the default: every required scope.
	MatchAll ScopeMatch = iota
	// MatchAny is satisfied by one of them.
	MatchAny
)

// MaxTokenBytes is the longest compact JWS that [Validator.Validate] looks at.
const MaxTokenBytes = 16 << 10

// DefaultLeeway is what [Config.Leeway] means if it is zero. The clocks of a fleet differ by less, and a token
// must not be refused because it is fresh.
const DefaultLeeway = 30 * time.Second

// MaxLeeway bounds [Config.Leeway] and [Config.ExpLeeway]: the shortest life that Cognito gives a token.
const MaxLeeway = 5 * time.Minute

// A Config says which tokens of one user pool are accepted. The zero value of an optional field means the default
// named in its comment. No default accepts more tokens than a deliberate setting would.
type Config struct {
	// Name is what [Claims.Pool] says. Optional with one pool; with several, they must differ.
	Name string
	// Issuers are compared byte for byte with the iss claim (RFC 7519 section 4.1.1); the token must have one of
	// them. Required. See [CognitoIssuer] and [UpdatedIssuer].
	Issuers []string
	// ClientIDs are the app clients whose tokens are accepted: the client_id claim of an access token (RFC 9068
	// section 2.2), the aud claim of an ID token. Empty is an error unless AllowAnyClient is set.
	ClientIDs []string
	// AllowAnyClient accepts a token of any app client of the pool, listed or not.
	AllowAnyClient bool
	// Audience, if set, must share a value with the aud claim of an access token. Cognito puts aud into access
	// tokens only with resource binding, so by default it is not looked for; if the token has it, only its type
	// is checked.
	Audience []string
	// RequiredScopes must be in the token, as ScopeMatch says. Default none.
	RequiredScopes []string
	// ScopeMatch is [MatchAll] by default.
	ScopeMatch ScopeMatch
	// TokenUses are the accepted values of token_use. Default only [AccessToken].
	TokenUses []TokenUse
	// MachinesOnly refuses tokens that were issued for a person: those whose sub is not their client_id, or that
	// have a username.
	MachinesOnly bool
	// Leeway is the clock skew forgiven on nbf and on an iat in the future. Default [DefaultLeeway], at most
	// [MaxLeeway]; negative means none.
	Leeway time.Duration
	// ExpLeeway is the clock skew forgiven on exp. Default none, at most [MaxLeeway].
	ExpLeeway time.Duration
	// Keys finds the pool's signing keys. Required. See [NewRemoteKeys] and [ParseJWKS].
	Keys KeySet
	// Now is the clock. Default [time.Now].
	Now func() time.Time
	// Slow is called with the context of a Validate that is about to take long: before a signature is checked, which takes some
	// 50 µs of CPU, and keys are perhaps waited for. Default: nothing is.
	Slow func(context.Context)
	// IgnoreExpiry accepts expired tokens. Only tests can set it, by the package validatortest.
	IgnoreExpiry testonly.Permit
}

// A Validator accepts the tokens of one or more user pools. It is safe for concurrent use.
type Validator struct {
	pools    map[string]*pool // by issuer
	denylist atomic.Pointer[denylist]
	headers  atomic.Pointer[map[string]string] // kids of the headers of verified tokens; see learn
}

type pool struct {
	Config
	clients map[string]bool
}

// CognitoIssuer returns the original iss value of a user pool, such as
// https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI. It holds for the aws and GovCloud partitions;
// elsewhere, say the issuer that the pool's /.well-known/openid-configuration names.
//
// Source: Amazon Cognito API Reference, IssuerConfigurationType, ORIGINAL.
func CognitoIssuer(region, userPoolID string) string {
	return "https://cognito-idp." + region + ".amazonaws.com/" + userPoolID
}

// UpdatedIssuer returns the iss value of a user pool whose issuer configuration is UPDATED, as multi-Region
// replication needs it. The region is the pool's primary one.
//
// Source: Amazon Cognito API Reference, IssuerConfigurationType, UPDATED.
func UpdatedIssuer(region, userPoolID string) string {
	return "https://issuer-cognito-idp." + region + ".amazonaws.com/" + userPoolID
}

// JWKSURL returns the address of an issuer's JWK Set.
//
// Source: Amazon Cognito Developer Guide, "Verifying JSON web tokens".
func JWKSURL(issuer string) string {
	return issuer + "/.well-known/jwks.json"
}

// New checks the configurations, one for each user pool, and does no I/O. An issuer may occur only once. What the caller
// does with their slices and maps later changes nothing.
func New(pools ...Config) (*Validator, error) {
	if len(pools) == 0 {
		return nil, errors.New("validator: no user pool, want at least one")
	}
	v := &Validator{pools: make(map[string]*pool)}
	v.denylist.Store(new(denylist))
	v.headers.Store(&map[string]string{})
	names := make(map[string]bool)
	for i := range pools {
		p, err := newPool(pools[i])
		if err == nil && names[p.Name] {
			err = errors.New("Name is that of another pool")
		}
		if err != nil {
			return nil, fmt.Errorf("validator: pool %q: %w", pools[i].Name, err)
		}
		names[p.Name] = true
		for _, iss := range p.Issuers {
			if v.pools[iss] != nil {
				return nil, fmt.Errorf("validator: pool %q: issuer %s stands twice", p.Name, iss)
			}
			v.pools[iss] = p
		}
	}
	return v, nil
}

func newPool(c Config) (*pool, error) {
	if c.Leeway == 0 {
		c.Leeway = DefaultLeeway
	}
	c.Leeway = max(c.Leeway, 0)
	if len(c.TokenUses) == 0 {
		c.TokenUses = []TokenUse{AccessToken}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Slow == nil {
		c.Slow = func(context.Context) {}
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.Issuers, c.Audience, c.RequiredScopes, c.TokenUses = slices.Clone(c.Issuers), slices.Clone(c.Audience), slices.Clone(c.RequiredScopes), slices.Clone(c.TokenUses)
	if keys, ok := c.Keys.(StaticKeys); ok {
		c.Keys = maps.Clone(keys)
	}
	p := &pool{Config: c, clients: make(map[string]bool, len(c.ClientIDs))}
	for _, id := range c.ClientIDs {
		p.clients[id] = true
	}
	return p, nil
}

func (c *Config) check() error {
	switch {
	case len(c.Issuers) == 0 || slices.Contains(c.Issuers, ""):
		return errors.New("Issuers is empty or has an empty item, want the pool's iss values")
	case len(c.ClientIDs) == 0 && !c.AllowAnyClient:
		return errors.New("ClientIDs is empty, want app client ids, or AllowAnyClient to accept every client of the pool")
	case slices.Contains(c.ClientIDs, "") || slices.Contains(c.Audience, ""):
		return errors.New("ClientIDs or Audience has an empty item")
	case c.ScopeMatch != MatchAll && c.ScopeMatch != MatchAny:
		return fmt.Errorf("ScopeMatch is %d, want MatchAll or MatchAny", c.ScopeMatch)
	case c.Leeway > MaxLeeway || c.ExpLeeway > MaxLeeway || c.ExpLeeway < 0:
		return fmt.Errorf("Leeway is %v and ExpLeeway %v, want at most %v and not negative", c.Leeway, c.ExpLeeway, MaxLeeway)
	case c.Keys == nil:
		return errors.New("Keys is nil, want a KeySet")
	}
	if len(c.Audience) > 0 && !slices.Contains(c.TokenUses, AccessToken) {
		return errors.New("Audience is set and only ID tokens are accepted, whose aud is the client: list it in ClientIDs")
	}
	for _, s := range c.RequiredScopes {
		if !isScopeToken(s) {
			return fmt.Errorf("RequiredScopes has %q, want scope-tokens (RFC 6749 section 3.3)", s)
		}
	}
	for _, u := range c.TokenUses {
		if u != AccessToken && u != IDToken {
			return fmt.Errorf("TokenUses has %q, want %q or %q", u, AccessToken, IDToken)
		}
	}
	if keys, ok := c.Keys.(StaticKeys); ok {
		return keys.check()
	}
	return nil
}

// Validate verifies a compact JWS (RFC 7515 section 7.1), signed with RS256, without the "Bearer " prefix, and
// returns its claims. It checks in this order, and stops at the first that does not hold:
//
//  1. form and size, header (alg, kid), claims that are well-formed JSON: [ErrMalformed], [ErrAlgorithm]
//  2. issuer: [ErrIssuer]
//  3. what the unverified claims can only get refused for: [ErrClaims], [ErrExpired], [ErrNotYetValid],
//     [ErrTokenUse], [ErrClient], [ErrAudience], [ErrScopeClaim], [ErrNotAMachine]
//  4. key: [ErrUnknownKey], [ErrKeysUnavailable]; signature: [ErrSignature]
//  5. denylist: [ErrRevoked]
//  6. required scopes: [*InsufficientScopeError]
//
// Only step 4 may wait for a fetch, and only for keys of the configured issuer; ctx bounds that wait. Every error
// matches exactly one [Reason].
func (v *Validator) Validate(ctx context.Context, token string) (*Claims, error) {
	ver, err := v.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return v.admit(ver)
}

// A verification is what the signature check of a token came to, and what that depends on.
type verification struct {
	pool   *pool
	claims *Claims
	kid    string
	key    *rsa.PublicKey
	good   bool // whether key verifies the token
}

// verify takes the steps that need the token itself. It returns an error with a verification only for a signature that
// the key does not verify.
func (v *Validator) verify(ctx context.Context, token string) (*verification, error) {
	t, err := parse(token, *v.headers.Load())
	if err != nil {
		return nil, err
	}
	issuer, err := t.claims.text("iss")
	if err != nil {
		return nil, err
	}
	// The issuer is not verified yet: it only selects whose keys may verify the token.
	p := v.pools[issuer]
	if p == nil {
		return nil, refuse(ErrIssuer, "iss is %s, want that of a configured pool", quote(issuer))
	}
	claims, err := p.claims(issuer, t.claims)
	if err != nil {
		return nil, err
	}
	p.Slow(ctx)
	key, err := p.key(ctx, t.kid, claims.IssuedAt)
	if err != nil {
		return nil, err
	}
	ver := &verification{pool: p, claims: claims, kid: t.kid, key: key}
	// The bytes as they are: they are not copied to be hashed.
	signed := unsafe.Slice(unsafe.StringData(t.signed), len(t.signed)) //nolint:gosec // nobody changes them
	if err := verifyRS256(signed, t.signature, key); err != nil {
		return ver, errSignature
	}
	ver.good = true
	v.learn(t)
	return ver, nil
}

// maxHeaders bounds how many headers are known. A pool signs with two keys, and has one header for each.
const maxHeaders = 1000

// learn notes the header of a verified token. All tokens of a key have the same one, to the byte, and what is made of it depends
// on nothing else; who has no key cannot make us note any.
func (v *Validator) learn(t *token) {
	known := *v.headers.Load()
	if known[t.header] != "" || len(known) >= maxHeaders {
		return
	}
	more := maps.Clone(known)
	more[strings.Clone(t.header)] = t.kid // as a part of the token, it would keep the request
	v.headers.Store(&more)
}

var errSignature = refuse(ErrSignature, "the key with the token's kid does not verify it")

// admit takes the steps that follow the signature: what they look at can change while the token stays the same.
func (v *Validator) admit(ver *verification) (*Claims, error) {
	if err := v.denylist.Load().check(ver.claims); err != nil {
		return nil, err
	}
	if err := ver.pool.scopes(ver.claims); err != nil {
		return nil, err
	}
	return ver.claims, nil
}

func (p *pool) key(ctx context.Context, kid string, issuedAt time.Time) (*rsa.PublicKey, error) {
	// A second more than the leeway, as iat is cut off to whole seconds.
	key, err := p.Keys.PublicKey(ctx, kid, issuedAt.Add(p.Leeway+time.Second))
	switch {
	case err == nil && key != nil:
		return key, nil
	case err == nil:
		err = errors.New("the KeySet returned neither key nor error")
	case errors.Is(err, ErrUnknownKey):
		return nil, &TokenError{Reason: ErrUnknownKey, Detail: "the pool has no key with the token's kid", Err: err}
	}
	return nil, &TokenError{Reason: ErrKeysUnavailable, Err: err}
}

func (p *pool) scopes(c *Claims) error {
	missing := func(s string) bool { return !c.HasScope(s) }
	enough := !slices.ContainsFunc(p.RequiredScopes, missing)
	if p.ScopeMatch == MatchAny && len(p.RequiredScopes) > 0 {
		enough = slices.ContainsFunc(p.RequiredScopes, c.HasScope)
	}
	if enough {
		return nil
	}
	return &InsufficientScopeError{
		TokenScopes:    slices.Clone(c.Scopes),
		RequiredScopes: slices.Clone(p.RequiredScopes),
		ScopeMatch:     p.ScopeMatch,
		Claims:         c,
	}
}

// quote makes a value from a token fit for a log line.
func quote(s string) string {
	const most = 128
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", strings.ToValidUTF8(s, "�"))
}
