package login

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// Errors to match with errors.Is.
var (
	// ErrLoginRequired means that only a new login can help: nobody is signed in, or the refresh token is expired or revoked.
	// Its method Temporary() bool says no, so that package identity serves no credentials beyond the end of a sign-in.
	ErrLoginRequired error = loginRequired{}
	// ErrNoTokens means that a [Store] has none.
	ErrNoTokens = errors.New("login: there are no tokens")
)

type loginRequired struct{}

func (loginRequired) Error() string   { return "login: a new login is needed" }
func (loginRequired) Temporary() bool { return false }

// An AuthorizationError is the authorization endpoint's answer that there will be no code (RFC 6749 section 4.1.2.1).
type AuthorizationError struct {
	Code        string // error, such as access_denied
	Description string // error_description, without control characters and cut short; may be empty
}

func (e *AuthorizationError) Error() string {
	s := fmt.Sprintf("login: the authorization endpoint answered %q", e.Code)
	if e.Description != "" {
		s += fmt.Sprintf(": %q", e.Description)
	}
	return s
}

// A PortError means that the address of the redirect URL cannot be listened on.
type PortError struct {
	Addr string // host:port
	Err  error  // why
}

func (e *PortError) Error() string {
	s := fmt.Sprintf("login: listen on %s for the answer of the browser: %v", e.Addr, cause(e.Err))
	switch {
	case errors.Is(e.Err, errInUse):
		s += "\nhint: end the program that has the port, or use a redirect URL with another port that the app client has as a callback URL"
	case errors.Is(e.Err, fs.ErrPermission):
		s += "\nhint: use a redirect URL with a port above 1023 that the app client has as a callback URL"
	}
	return s
}

// cause leaves out what net.OpError says and we have said.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Unwrap returns the cause.
func (e *PortError) Unwrap() error { return e.Err }

// A TimeoutError means that the person did not sign in in time.
type TimeoutError struct {
	After   time.Duration
	Ignored int // how many answers came that were not to this login
}

func (e *TimeoutError) Error() string {
	s := fmt.Sprintf("login: nobody has signed in for %v", e.After)
	if e.Ignored > 0 {
		s += fmt.Sprintf("; %d answers came that do not belong to this login", e.Ignored)
	}
	return s
}

// A TokenRefusedError means that a token from the token endpoint does not hold. Err is often an error of pkg/validator.
type TokenRefusedError struct {
	Token string // "ID token", "access token" or "refresh token"
	Err   error
}

func (e *TokenRefusedError) Error() string {
	s := fmt.Sprintf("login: the %s of the token endpoint is refused: %v", e.Token, e.Err)
	if errors.Is(e.Err, validator.ErrNotYetValid) || errors.Is(e.Err, validator.ErrExpired) {
		s += "\nhint: the token is new, so see whether the clock of this machine is right"
	}
	return s
}

// Unwrap returns the cause.
func (e *TokenRefusedError) Unwrap() error { return e.Err }
