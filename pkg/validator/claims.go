package validator

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Claims are the verified claims of a token. They are shared by all who send it: whoever gets them must not change them,
// nor what their slices and [Claims.Map] hold.
type Claims struct {
	Pool      string    // [Config.Name] of the pool that accepted it
	Issuer    string    // iss
	Subject   string    // sub; equals ClientID for the client credentials grant; empty if the token has none
	ClientID  string    // client_id; the aud of an ID token
	Audience  []string  // aud; nil unless the token has it
	TokenUse  TokenUse  // token_use
	Scopes    []string  // scope, split at spaces, in token order; nil if the token has none
	TokenID   string    // jti; empty if the token has none
	IssuedAt  time.Time // iat, UTC
	NotBefore time.Time // nbf, UTC; zero if the token has none
	ExpiresAt time.Time // exp, UTC
	all       object
}

// HasScope reports whether the token carries scope, spelled in full: "resource-server-identifier/scope-name".
func (c *Claims) HasScope(scope string) bool { return slices.Contains(c.Scopes, scope) }

// Map returns every claim as decoded JSON; numbers are [json.Number]. It is only to be read.
func (c *Claims) Map() map[string]any { return c.all }

// claims checks all that can be checked without a key. The claims are not verified yet, so nothing here may do
// more than refuse.
func (p *pool) claims(issuer string, all object) (*Claims, error) {
	c := &Claims{Pool: p.Name, Issuer: issuer, all: all}
	steps := []func(*Claims) error{dates, p.inTime, p.tokenUse, p.client, p.audience, p.machine, scopeClaim}
	for _, step := range steps {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// dates reads exp, iat and nbf (RFC 7519 section 4.1). Cognito always sets the first two.
func dates(c *Claims) (err error) {
	if c.ExpiresAt, err = c.all.date("exp"); err != nil {
		return err
	}
	if c.IssuedAt, err = c.all.date("iat"); err != nil {
		return err
	}
	if _, ok := c.all["nbf"]; ok {
		c.NotBefore, err = c.all.date("nbf")
	}
	return err
}

// inTime checks the dates against the clock. Of all checks of the claims, it is the only one whose result time changes.
func (p *pool) inTime(c *Claims) error {
	now := p.Now()
	if !now.Before(c.ExpiresAt.Add(p.ExpLeeway)) && !p.IgnoreExpiry.Granted() {
		return refuse(ErrExpired, "exp was %v ago", now.Sub(c.ExpiresAt).Round(time.Second))
	}
	latest := now.Add(p.Leeway)
	if c.IssuedAt.After(latest) {
		return &TokenError{Reason: ErrNotYetValid, Detail: "iat is ahead of the clock", Err: &SkewError{c.IssuedAt.Sub(now)}}
	}
	if c.NotBefore.After(latest) {
		return &TokenError{Reason: ErrNotYetValid, Detail: "nbf is ahead of the clock", Err: &SkewError{c.NotBefore.Sub(now)}}
	}
	return nil
}

// A SkewError is the cause of [ErrNotYetValid]: how far the token's time lies ahead of our clock.
type SkewError struct{ Ahead time.Duration }

func (e *SkewError) Error() string { return "by " + e.Ahead.Round(time.Second).String() }

func (p *pool) tokenUse(c *Claims) error {
	use, err := c.all.text("token_use")
	if err != nil {
		return err
	}
	c.TokenUse = TokenUse(use)
	if !slices.Contains(p.TokenUses, c.TokenUse) {
		return refuse(ErrTokenUse, "token_use is another than %q", p.TokenUses)
	}
	return nil
}

// client finds the app client: client_id in an access token (RFC 9068 section 2.2), aud in an ID token
// (OpenID Connect Core section 2).
func (p *pool) client(c *Claims) (err error) {
	name := "client_id"
	if c.TokenUse == IDToken {
		name = "aud"
	}
	if c.ClientID, err = c.all.text(name); err != nil {
		return err
	}
	if !p.AllowAnyClient && !p.clients[c.ClientID] {
		return refuse(ErrClient, "%s is %s, want one of the pool's clients", name, quote(c.ClientID))
	}
	return nil
}

// audience checks aud, a string or a list of them (RFC 7519 section 4.1.3). In an ID token it is the client.
func (p *pool) audience(c *Claims) error {
	switch aud := c.all["aud"].(type) {
	case string:
		c.Audience = []string{aud}
	case []any:
		for _, a := range aud {
			s, ok := a.(string)
			if !ok {
				return refuse(ErrClaims, "aud has an item that is no string")
			}
			c.Audience = append(c.Audience, s)
		}
		c.Audience = slices.Clip(c.Audience)
	default:
		if _, ok := c.all["aud"]; ok {
			return refuse(ErrClaims, "aud is neither a string nor a list")
		}
	}
	if len(p.Audience) == 0 || c.TokenUse == IDToken {
		return nil
	}
	if !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(p.Audience, a) }) {
		return refuse(ErrAudience, "aud has none of %q", p.Audience)
	}
	return nil
}

// machine reads sub and jti, and tells tokens of the client credentials grant from those of people: Cognito
// makes sub the client_id in the former, and names the user in the latter.
func (p *pool) machine(c *Claims) (err error) {
	if c.Subject, err = c.all.optionalText("sub"); err != nil {
		return err
	}
	if c.TokenID, err = c.all.optionalText("jti"); err != nil {
		return err
	}
	if !p.MachinesOnly {
		return nil
	}
	_, username := c.all["username"]
	_, cognitoUsername := c.all["cognito:username"]
	if username || cognitoUsername || c.Subject != c.ClientID {
		return refuse(ErrNotAMachine, "the token was issued for a person, want sub to equal client_id and no username")
	}
	return nil
}

// scopeClaim splits scope at U+0020 and at nothing else (RFC 6749 section 3.3). Empty items are dropped.
func scopeClaim(c *Claims) error {
	v, ok := c.all["scope"]
	if !ok {
		return nil
	}
	list, ok := v.(string)
	if !ok {
		return refuse(ErrScopeClaim, "scope is no string")
	}
	for s := range strings.SplitSeq(list, " ") {
		if s == "" {
			continue
		}
		if !isScopeToken(s) {
			return refuse(ErrScopeClaim, "scope has a character that RFC 6749 section 3.3 forbids")
		}
		c.Scopes = append(c.Scopes, s)
	}
	c.Scopes = slices.Clip(c.Scopes) // so that what one caller appends is not seen by another
	return nil
}

// isScopeToken reports whether s is a scope-token: 1*( %x21 / %x23-5B / %x5D-7E ) (RFC 6749 section 3.3).
func isScopeToken(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < 0x21 || b > 0x7e || b == '"' || b == '\\' {
			return false
		}
	}
	return s != ""
}

// text returns a required claim that is a string and not empty.
func (o object) text(name string) (string, error) {
	s, ok := o[name].(string)
	if !ok || s == "" {
		return "", refuse(ErrClaims, "%s is missing or no string with content", name)
	}
	return s, nil
}

func (o object) optionalText(name string) (string, error) {
	v, ok := o[name]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", refuse(ErrClaims, "%s is no string", name)
	}
	return s, nil
}

// maxDate is the last second of the year 9999, the last that RFC 3339 can write.
const maxDate = 253402300799

// date returns a required claim that is a NumericDate (RFC 7519 section 2): seconds since 1970, possibly with
// a fraction, and possibly written with an exponent.
func (o object) date(name string) (time.Time, error) {
	n, ok := o[name].(json.Number)
	if !ok {
		return time.Time{}, refuse(ErrClaims, "%s is missing or no number", name)
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || f < 0 || f > maxDate {
		return time.Time{}, refuse(ErrClaims, "%s is out of range, want seconds from 1970 to 9999", name)
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)).UTC(), nil
}
