package login

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
)

// A PKCE is a code verifier and its challenge by the method S256 (RFC 7636 section 4). Its String, and its forms in %v, %#v
// and encoding/json, hide both.
type PKCE struct {
	Verifier, Challenge string
}

// NewPKCE makes a verifier of 256 random bits.
func NewPKCE() PKCE {
	verifier := random()
	return PKCE{Verifier: verifier, Challenge: challengeOf(verifier)}
}

// challengeOf transforms a verifier by the method S256 (RFC 7636 section 4.2).
func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// String hides the verifier.
func (PKCE) String() string { return "login.PKCE{hidden}" }

// Format hides the verifier, whatever the verb.
func (p PKCE) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// MarshalJSON returns an error, so that no log holds the verifier.
func (PKCE) MarshalJSON() ([]byte, error) { return nil, errHidden }

// An AuthorizationRequest is what ties the answer of the authorization endpoint, and the exchange of its code, to the one
// request that caused them. Its String, and its forms in %v, %#v and encoding/json, hide it.
type AuthorizationRequest struct {
	State       string // 256 random bits (RFC 6749 section 10.12)
	Nonce       string // 256 random bits (OpenID Connect Core section 15.5.2)
	PKCE        PKCE
	RedirectURL string // as in [Config], with the port that was taken
}

// NewRequest makes an AuthorizationRequest for [Authenticator.AuthorizationURL] and [Authenticator.Exchange], for those who
// receive the answer themselves. Its RedirectURL is the configured one.
func (a *Authenticator) NewRequest() *AuthorizationRequest {
	return &AuthorizationRequest{State: random(), Nonce: random(), PKCE: NewPKCE(), RedirectURL: a.cfg.RedirectURL}
}

// String hides the request.
func (AuthorizationRequest) String() string { return "login.AuthorizationRequest{hidden}" }

// Format hides the request, whatever the verb.
func (r AuthorizationRequest) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.String()) }

// MarshalJSON returns an error, so that no log holds the request.
func (AuthorizationRequest) MarshalJSON() ([]byte, error) { return nil, errHidden }

// AuthorizationURL is where the person signs in (RFC 6749 section 4.1.1). It holds the state, the nonce and the challenge, and
// neither the verifier nor a secret.
func (a *Authenticator) AuthorizationURL(r *AuthorizationRequest) string {
	query := make(url.Values)
	for name, value := range a.cfg.AuthorizeParams {
		query.Set(name, value)
	}
	query.Set("response_type", "code")
	query.Set("client_id", a.cfg.ClientID)
	query.Set("redirect_uri", r.RedirectURL)
	query.Set("scope", strings.Join(a.cfg.Scopes, " "))
	query.Set("state", r.State)
	query.Set("nonce", r.Nonce)
	query.Set("code_challenge", r.PKCE.Challenge)
	query.Set("code_challenge_method", "S256")
	return a.cfg.AuthorizeURL + "?" + query.Encode()
}

// random returns 256 random bits as 43 unreserved characters, which RFC 7636 section 4.1 recommends for a verifier, and
// which Cognito takes as a state: it refuses encoded JSON there (authorization-endpoint).
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
