package cognitotest

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
)

// TokenOption changes a token before it is signed.
type TokenOption func(*draft)

// draft is a token that is not signed yet.
type draft struct {
	scopes  []string
	issued  time.Time
	ttl     time.Duration
	key     Key
	changes []func(header, claims object) (object, object)
}

// Scopes makes these the token's scopes, in this order, whether or not the client may have them. None leaves the scope
// claim out.
func Scopes(scopes ...string) TokenOption { return func(d *draft) { d.scopes = scopes } }

// IssuedAt issues the token at t instead of the pool's now: iat, auth_time and, a lifetime later, exp.
func IssuedAt(t time.Time) TokenOption { return func(d *draft) { d.issued = t } }

// TTL makes exp be iat + ttl. It may be negative.
func TTL(ttl time.Duration) TokenOption { return func(d *draft) { d.ttl = ttl } }

// SignedBy signs the token with k, and names it in the header, instead of the pool's own key.
func SignedBy(k Key) TokenOption { return func(d *draft) { d.key = k } }

// Claim sets a claim, in its place if the token has it, else at the end. The value must be one that encoding/json can
// marshal: minting panics otherwise, as [Pool.Token] says.
func Claim(name string, value any) TokenOption {
	return func(d *draft) {
		d.changes = append(d.changes, func(header, claims object) (object, object) { return header, claims.set(name, value) })
	}
}

// WithoutClaim removes a claim.
func WithoutClaim(name string) TokenOption {
	return func(d *draft) {
		d.changes = append(d.changes, func(header, claims object) (object, object) { return header, claims.without(name) })
	}
}

// HeaderParam sets a parameter of the JOSE header, in its place if it is there, else at the end. The signature is RS256
// whatever alg says.
func HeaderParam(name string, value any) TokenOption {
	return func(d *draft) {
		d.changes = append(d.changes, func(header, claims object) (object, object) { return header.set(name, value), claims })
	}
}

// Token returns an access token as the client credentials grant issues it, with all scopes of the client. A client that
// the pool does not have gets one too, without scopes: some tests need a token of another client.
//
// Like net/http/httptest.NewRequest it panics instead of returning an error, which only a claim that cannot be
// marshalled can cause: it is for tests.
func (p *Pool) Token(clientID string, opts ...TokenOption) string {
	return p.mint(p.machineToken(clientID), p.draftFor(clientID, p.AccessKey(), p.clientScopes(clientID)), opts)
}

// Claims returns the claims of [Pool.Token] as a map, for a test that starts from what is accepted, changes one thing,
// and calls [Pool.Sign]. Times are int64 seconds.
func (p *Pool) Claims(clientID string, opts ...TokenOption) map[string]any {
	_, claims := p.complete(p.machineToken(clientID), p.draftFor(clientID, p.AccessKey(), p.clientScopes(clientID)), opts)
	return claims.toMap()
}

// UserToken returns an access token of a person who signed in through the client: it has a username, and sub is the
// person's UUID, always the same one for the same username. Its scopes are the client's, or
// aws.cognito.signin.user.admin, which signing in by the API gives, if the client has none.
func (p *Pool) UserToken(clientID, username string, opts ...TokenOption) string {
	scopes := p.clientScopes(clientID)
	if len(scopes) == 0 {
		scopes = []string{"aws.cognito.signin.user.admin"}
	}
	return p.mint(p.userToken(clientID, username), p.draftFor(clientID, p.AccessKey(), scopes), opts)
}

// IDToken returns the ID token of the same sign-in as [Pool.UserToken]. It is signed by the pool's other key.
func (p *Pool) IDToken(clientID, username string, opts ...TokenOption) string {
	return p.mint(p.idToken(clientID, username), p.draftFor(clientID, p.IDKey(), nil), opts)
}

// Sign returns a token with these claims, signed RS256 by the access key. A nil header means Cognito's, kid and alg;
// any other is used as it is.
func (p *Pool) Sign(header, claims map[string]any) string {
	key := p.AccessKey()
	h := tokenJSON(headerOf(key))
	if header != nil {
		h = tokenJSON(header)
	}
	return key.Sign(h, tokenJSON(claims))
}

// SignBytes returns a token of exactly these bytes, signed RS256 by the access key. A nil header means Cognito's. It is
// for what a map cannot hold: duplicate members, other encodings, things that are not JSON.
func (p *Pool) SignBytes(header, payload []byte) string {
	key := p.AccessKey()
	if header == nil {
		header = tokenJSON(headerOf(key))
	}
	return key.Sign(header, payload)
}

// claimsAt returns the claims of a token, once its scopes and times are known.
type claimsAt func(scopes []string, issued, expires int64) object

// machineToken is the client credentials access token: these claims in this order (observed in published tokens of 2021
// and 2024). sub and client_id are both the client's, there is no username and no aud.
func (p *Pool) machineToken(clientID string) claimsAt {
	return func(scopes []string, issued, expires int64) object {
		claims := object{
			{"sub", clientID},
			{"token_use", "access"},
			{"scope", strings.Join(scopes, " ")},
			{"auth_time", issued},
			{"iss", p.issuer},
			{"exp", expires},
			{"iat", issued},
			{"version", 2},
			{"jti", newUUID()},
			{"client_id", clientID},
		}
		if c := p.client(clientID); c != nil {
			for _, name := range sortedKeys(c.Claims) {
				claims = claims.set(name, c.Claims[name])
			}
		}
		return claims
	}
}

// userToken is the access token of a person (amazon-cognito-user-pools-using-the-access-token; the order observed in
// published tokens of 2022 and later).
func (p *Pool) userToken(clientID, username string) claimsAt {
	return func(scopes []string, issued, expires int64) object {
		return object{
			{"sub", p.userSub(username)},
			{"iss", p.issuer},
			{"version", 2},
			{"client_id", clientID},
			{"origin_jti", newUUID()},
			{"event_id", newUUID()},
			{"token_use", "access"},
			{"scope", strings.Join(scopes, " ")},
			{"auth_time", issued},
			{"exp", expires},
			{"iat", issued},
			{"jti", newUUID()},
			{"username", username},
		}
	}
}

// idToken is the ID token of a person (amazon-cognito-user-pools-using-the-id-token; the order observed in published
// tokens of 2024 to 2026). The client is in aud; there is no client_id, no scope and no username, but cognito:username.
func (p *Pool) idToken(clientID, username string) claimsAt {
	email := username
	if !strings.Contains(email, "@") {
		email += "@example.com"
	}
	return func(_ []string, issued, expires int64) object {
		return object{
			{"sub", p.userSub(username)},
			{"email_verified", true},
			{"iss", p.issuer},
			{"cognito:username", username},
			{"origin_jti", newUUID()},
			{"aud", clientID},
			{"event_id", newUUID()},
			{"token_use", "id"},
			{"auth_time", issued},
			{"exp", expires},
			{"iat", issued},
			{"jti", newUUID()},
			{"email", email},
		}
	}
}

func (p *Pool) draftFor(clientID string, key Key, scopes []string) *draft {
	d := &draft{scopes: scopes, issued: p.now(), ttl: DefaultTTL, key: key}
	if c := p.client(clientID); c != nil {
		d.ttl = c.ttl()
	}
	return d
}

func (p *Pool) clientScopes(clientID string) []string {
	if c := p.client(clientID); c != nil {
		return slices.Clone(c.Scopes)
	}
	return nil
}

func (p *Pool) mint(claims claimsAt, d *draft, opts []TokenOption) string {
	header, payload := p.complete(claims, d, opts)
	return d.key.Sign(tokenJSON(header), tokenJSON(payload))
}

func (p *Pool) complete(claims claimsAt, d *draft, opts []TokenOption) (header, payload object) {
	for _, opt := range opts {
		opt(d)
	}
	header = headerOf(d.key)
	payload = claims(d.scopes, d.issued.Unix(), d.issued.Add(d.ttl).Unix())
	if len(d.scopes) == 0 {
		payload = payload.without("scope")
	}
	for _, change := range d.changes {
		header, payload = change(header, payload)
	}
	return header, payload
}

// headerOf is the JOSE header of all of Cognito's tokens: kid, then alg, and no typ (observed;
// amazon-cognito-user-pools-using-the-access-token).
func headerOf(k Key) object { return object{{"kid", k.ID}, {"alg", "RS256"}} }

// userSub makes up the UUID of a person. It depends on the pool, as a real one does.
func (p *Pool) userSub(username string) string {
	sum := sha256.Sum256([]byte(p.id + "/" + username))
	return formatUUID([16]byte(sum[:16]))
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return formatUUID(b)
}

// formatUUID makes b a random (version 4) UUID (RFC 9562 section 5.4).
func formatUUID(b [16]byte) string {
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
