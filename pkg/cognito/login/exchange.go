package login

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// Exchange gets the tokens for an authorization code (RFC 6749 section 4.1.3, RFC 7636 section 4.5) and verifies them. The
// caller has compared the state. A code works once, so the request is not repeated.
func (a *Authenticator) Exchange(ctx context.Context, code string, r *AuthorizationRequest) (*Tokens, error) {
	if err := a.prepareKeys(ctx); err != nil {
		return nil, err
	}
	answer, err := a.token.Token(ctx, url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {r.RedirectURL},
		"code_verifier": {r.PKCE.Verifier},
	})
	if err != nil {
		return nil, fmt.Errorf("login: exchange the code: %w", err)
	}
	tokens, id, err := a.verify(ctx, answer)
	if err != nil {
		return nil, err
	}
	// OpenID Connect Core section 3.1.3.7 step 11: the ID token is the answer to this very request. Cognito makes up a nonce of
	// its own for people of other identity providers if the request has none (observed, nextauthjs/next-auth#3544).
	if nonce := text(id.Map()["nonce"]); subtle.ConstantTimeCompare([]byte(nonce), []byte(r.Nonce)) != 1 || r.Nonce == "" {
		return nil, &TokenRefusedError{"ID token", errors.New("its nonce is not that of the authorization request")}
	}
	return tokens, nil
}

// Refresh gets new tokens for the refresh token of old (RFC 6749 section 6) and verifies them: they must be the same person's
// (OpenID Connect Core section 12.2). The refresh token is the new one if the answer has one, as with rotation, else the old
// one. A refresh token that is rotated works once; two refreshes with it may end the sign-in. A [Session] sees to that.
//
// An error matches [ErrLoginRequired] if the refresh token is missing, expired or revoked.
func (a *Authenticator) Refresh(ctx context.Context, old *Tokens) (*Tokens, error) {
	tokens, err := a.refresh(ctx, old)
	if err != nil {
		return nil, err
	}
	return tokens, nil
}

// refresh may return tokens with an error: the old ones with a new refresh token. That happens if the new ID and access token
// cannot be verified for want of keys, or if the clock is wrong; without the refresh token that came with them, the sign-in
// would be lost.
func (a *Authenticator) refresh(ctx context.Context, old *Tokens) (*Tokens, error) {
	if old.RefreshToken == "" {
		return nil, fmt.Errorf("%w: there is no refresh token", ErrLoginRequired)
	}
	if err := a.prepareKeys(ctx); err != nil {
		return nil, err
	}
	answer, err := a.token.Token(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {old.RefreshToken}})
	if err != nil {
		return nil, refreshError(err)
	}
	tokens, id, err := a.verify(ctx, answer)
	if errors.Is(err, validator.ErrKeysUnavailable) || errors.Is(err, validator.ErrExpired) || errors.Is(err, validator.ErrNotYetValid) {
		kept := *old
		kept.RefreshToken = refreshTokenOf(answer, old.RefreshToken)
		return &kept, err
	}
	if err != nil {
		return nil, err
	}
	if err := samePerson(old, id); err != nil {
		return nil, &TokenRefusedError{"ID token", err}
	}
	tokens.RefreshToken = refreshTokenOf(answer, old.RefreshToken)
	return tokens, nil
}

// refreshError tells a refresh token that is good for nothing any more from all that may pass, or that is not its fault.
func refreshError(err error) error {
	var request *cognito.TokenRequestError
	if errors.As(err, &request) && request.ErrorCode == cognito.InvalidGrant {
		return fmt.Errorf("%w: the refresh token is expired or revoked: %w", ErrLoginRequired, err)
	}
	return fmt.Errorf("login: refresh the tokens: %w", err)
}

// refreshTokenOf returns the refresh token of the answer, or else the old one.
func refreshTokenOf(answer *cognito.Token, old string) string {
	if rotated := text(answer.Extra("refresh_token")); rotated != "" {
		return rotated
	}
	return old
}

// samePerson compares what must stay the same (OpenID Connect Core section 12.2): iss, sub, and the nonce if there is one;
// aud is the client in any case. auth_time is left alone: nothing here depends on it.
func samePerson(old *Tokens, id *validator.Claims) error {
	before, err := decodePayload(old.IDToken)
	switch {
	case err != nil:
		return errors.New("the ID token before it cannot be read")
	case text(before["iss"]) != id.Issuer:
		return errors.New("its iss is another than that of the ID token before")
	case text(before["sub"]) != id.Subject:
		return errors.New("its sub is another than that of the ID token before")
	}
	if nonce, ok := id.Map()["nonce"]; ok && nonce != before["nonce"] {
		return errors.New("its nonce is another than that of the ID token before")
	}
	return nil
}

// maxRefreshBytes bounds a refresh token, so that it fits where the others do. Cognito's have between one and two kilobytes.
const maxRefreshBytes = validator.MaxTokenBytes

// verify verifies the ID token and the access token of an answer. The refresh token is nobody's to verify but the server's.
func (a *Authenticator) verify(ctx context.Context, answer *cognito.Token) (*Tokens, *validator.Claims, error) {
	idToken, refreshToken := text(answer.Extra("id_token")), text(answer.Extra("refresh_token"))
	if len(refreshToken) > maxRefreshBytes {
		return nil, nil, &TokenRefusedError{"refresh token", fmt.Errorf("it has %d bytes, want at most %d", len(refreshToken), maxRefreshBytes)}
	}
	if idToken == "" {
		return nil, nil, &TokenRefusedError{"ID token", errors.New("the answer has none, want one for the scope openid")}
	}
	id, err := a.validate(ctx, a.ids, idToken)
	if err != nil {
		return nil, nil, &TokenRefusedError{"ID token", err}
	}
	access, err := a.validate(ctx, a.access, answer.AccessToken())
	if err != nil {
		return nil, nil, &TokenRefusedError{"access token", err}
	}
	// Without at_hash, which is optional (OpenID Connect Core section 3.1.3.6), sub is what ties one to the other.
	switch hash, ok := id.Map()["at_hash"]; {
	case ok && hash != accessTokenHash(answer.AccessToken()):
		return nil, nil, &TokenRefusedError{"access token", errors.New("it is not the one that the ID token's at_hash is of")}
	case id.Subject == "" || id.Subject != access.Subject:
		return nil, nil, &TokenRefusedError{"access token", errors.New("its sub is another than that of the ID token, or missing")}
	}
	return &Tokens{
		IDToken:           idToken,
		AccessToken:       answer.AccessToken(),
		RefreshToken:      refreshToken,
		IDTokenExpiry:     id.ExpiresAt,
		AccessTokenExpiry: access.ExpiresAt,
		ObtainedAt:        answer.ObtainedAt,
	}, id, nil
}

// accessTokenHash is the at_hash of an access token, for an ID token that is signed with RS256 (OpenID Connect Core section
// 3.1.3.6).
func accessTokenHash(accessToken string) string {
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// validate waits for keys that cannot be had at once: what it verifies cannot be got a second time.
func (a *Authenticator) validate(ctx context.Context, v *validator.Validator, token string) (*validator.Claims, error) {
	const tries = 3
	for i := 1; ; i++ {
		claims, err := v.Validate(ctx, token)
		wait := validator.RetryAfter(err)
		if wait == 0 || i == tries || !a.pause(ctx, wait) {
			return claims, err
		}
	}
}

// pause returns false if the context ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// prepareKeys fetches the signing keys if there are none yet, before a code or a refresh token is spent on tokens that could
// not be verified.
func (a *Authenticator) prepareKeys(ctx context.Context) error {
	if a.keys == nil || a.keys.Status().Usable {
		return nil
	}
	if err := a.keys.Refresh(ctx); err != nil {
		return fmt.Errorf("login: fetch the keys that verify tokens: %w", &validator.KeysUnavailableError{RetryAfter: time.Second, Err: err})
	}
	return nil
}

// Revoke ends the sign-in: the refresh token, and all access tokens that came from it (RFC 7009; Cognito Developer Guide,
// "Revoke endpoint"). Those who verify access tokens by their signature go on accepting them until they expire. Without a
// refresh token it does nothing.
func (a *Authenticator) Revoke(ctx context.Context, t *Tokens) error {
	if t.RefreshToken == "" {
		return nil
	}
	if a.revoke == nil {
		return errors.New("login: revoke the refresh token: RevokeURL is empty, want the revocation endpoint")
	}
	if err := a.revoke.Revoke(ctx, t.RefreshToken); err != nil {
		return fmt.Errorf("login: revoke the refresh token: %w", err)
	}
	return nil
}

// LogoutURL is where a browser ends the session that Cognito has with it, to go on to logoutURI, which is one of the app
// client's sign-out URLs. It is empty if there is no logout endpoint.
//
// Source: Amazon Cognito Developer Guide, "The managed login sign-out endpoint".
func (a *Authenticator) LogoutURL(logoutURI string) string {
	if a.cfg.LogoutURL == "" {
		return ""
	}
	return a.cfg.LogoutURL + "?" + url.Values{"client_id": {a.cfg.ClientID}, "logout_uri": {logoutURI}}.Encode()
}
