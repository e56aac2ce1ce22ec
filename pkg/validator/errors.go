package validator

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Reason says why a token was not accepted. It is itself an error, so that errors.Is(err, validator.ErrExpired)
// works on every error of [Validator.Validate], and it is a short stable string, fit for a metric label.
type Reason string

func (r Reason) Error() string { return "validator: " + strings.ReplaceAll(string(r), "_", " ") }

// The token is refused. RFC 6750 section 3.1 calls all of these invalid_token.
const (
	ErrMalformed   Reason = "malformed"     // no compact JWS, or a header that is not accepted (RFC 7515)
	ErrAlgorithm   Reason = "algorithm"     // alg is not RS256 (RFC 8725 section 3.1)
	ErrIssuer      Reason = "issuer"        // iss is no configured pool's
	ErrClaims      Reason = "claims"        // a required claim is missing, or one has the wrong type
	ErrExpired     Reason = "expired"       // exp has come
	ErrNotYetValid Reason = "not_yet_valid" // nbf or iat lies in the future
	ErrTokenUse    Reason = "token_use"     // an ID token where an access token is wanted, or the reverse
	ErrAudience    Reason = "audience"      // aud has none of the wanted values
	ErrScopeClaim  Reason = "scope_claim"   // scope is no list of scope-tokens (RFC 6749 section 3.3)
	ErrNotAMachine Reason = "not_a_machine" // issued for a person, where only machines are wanted
	ErrUnknownKey  Reason = "unknown_key"   // the pool has no such key
	ErrSignature   Reason = "signature"     // the key does not verify the token
	ErrRevoked     Reason = "revoked"       // the token is on the denylist
)

// The token is good, as far as was looked, and its bearer is not admitted.
const (
	ErrClient            Reason = "client_not_allowed"
	ErrInsufficientScope Reason = "insufficient_scope" // always as an [*InsufficientScopeError]
)

// ErrKeysUnavailable is not a refusal: the keys could not be had, so nothing is known about the token. Answer
// 503, not 401.
const ErrKeysUnavailable Reason = "keys_unavailable"

// A TokenError is a Reason with its particulars. Its text may hold claim values: for logs, not for responses.
type TokenError struct {
	Reason Reason
	Detail string // what was found and what was wanted; may be empty
	Err    error  // cause; may be nil
	// Claims are the verified claims of a token that is refused nevertheless: only with [ErrRevoked], else nil.
	Claims *Claims
}

func (e *TokenError) Error() string {
	s := e.Reason.Error()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is the error's Reason.
func (e *TokenError) Is(target error) bool { return target == e.Reason }

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error {
	var reason Reason
	var token *TokenError
	var scopes *InsufficientScopeError
	if errors.As(e.Err, &reason) || errors.As(e.Err, &token) || errors.As(e.Err, &scopes) {
		return nil // a cause that has a Reason too must not make the error match two
	}
	return e.Err
}

func refuse(r Reason, format string, args ...any) error {
	return &TokenError{Reason: r, Detail: fmt.Sprintf(format, args...)}
}

// An InsufficientScopeError means that the token is good and lacks scopes that its pool requires.
// It matches [ErrInsufficientScope].
type InsufficientScopeError struct {
	TokenScopes    []string // the token's scopes, in its order
	RequiredScopes []string
	ScopeMatch     ScopeMatch // whether all of RequiredScopes are needed, or any
	Claims         *Claims    // the verified claims of the token
}

func (e *InsufficientScopeError) Error() string {
	want := "all"
	if e.ScopeMatch == MatchAny {
		want = "any"
	}
	return fmt.Sprintf("%v: token has %q, want %s of %q", ErrInsufficientScope, e.TokenScopes, want, e.RequiredScopes)
}

// Is reports whether target is [ErrInsufficientScope].
func (e *InsufficientScopeError) Is(target error) bool { return target == ErrInsufficientScope }

// VerifiedClaims returns the claims of a token that was verified and not accepted all the same: one that is revoked, or
// that lacks scopes which its pool requires. For any other error it returns nil. They are for the record, not for access.
func VerifiedClaims(err error) *Claims {
	var refusal *TokenError
	var scopes *InsufficientScopeError
	switch {
	case errors.As(err, &refusal):
		return refusal.Claims
	case errors.As(err, &scopes):
		return scopes.Claims
	}
	return nil
}

// A KeysUnavailableError means that a [KeySet] cannot tell whether it has a key. It matches [ErrKeysUnavailable].
type KeysUnavailableError struct {
	// RetryAfter is when asking again may help; never zero.
	RetryAfter time.Duration
	// Err is the cause, such as that of the last failed fetch; may be nil.
	Err error
}

func (e *KeysUnavailableError) Error() string {
	if e.Err == nil {
		return ErrKeysUnavailable.Error()
	}
	return ErrKeysUnavailable.Error() + ": " + e.Err.Error()
}

// Is reports whether target is [ErrKeysUnavailable].
func (e *KeysUnavailableError) Is(target error) bool { return target == ErrKeysUnavailable }

// Unwrap returns the cause.
func (e *KeysUnavailableError) Unwrap() error { return e.Err }

// RetryAfter returns when asking again may help, if err matches [ErrKeysUnavailable], rounded up to whole seconds
// as the Retry-After header has them (RFC 9110 section 10.2.3), and at least one second. Otherwise it returns 0.
func RetryAfter(err error) time.Duration {
	if !errors.Is(err, ErrKeysUnavailable) {
		return 0
	}
	var k *KeysUnavailableError
	if t := (*TokenError)(nil); errors.As(err, &t) {
		err = t.Err // which Unwrap may hide
	}
	if !errors.As(err, &k) {
		return time.Second
	}
	return max(time.Second, (k.RetryAfter + time.Second - 1).Truncate(time.Second))
}
