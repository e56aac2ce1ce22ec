package login

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// Tokens are what a sign-in yields, verified. Their String, and their forms in %v, %#v and slog, hide the tokens, and
// encoding/json refuses to marshal them: a [Store] writes the fields. They are shared: whoever gets them must not change them.
type Tokens struct {
	IDToken      string
	AccessToken  string
	RefreshToken string // empty if there is none

	IDTokenExpiry     time.Time // exp of the ID token
	AccessTokenExpiry time.Time // exp of the access token
	ObtainedAt        time.Time // when they came, by our clock
}

// Expiry is when the first of ID token and access token expires.
func (t *Tokens) Expiry() time.Time {
	if t.AccessTokenExpiry.Before(t.IDTokenExpiry) {
		return t.AccessTokenExpiry
	}
	return t.IDTokenExpiry
}

// String hides the tokens.
func (t Tokens) String() string {
	return fmt.Sprintf("login.Tokens{hidden, expiry %s}", t.Expiry().UTC().Format(time.RFC3339))
}

// Format hides the tokens, whatever the verb.
func (t Tokens) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// LogValue hides the tokens.
func (t Tokens) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON returns an error, so that no log holds tokens.
func (Tokens) MarshalJSON() ([]byte, error) { return nil, errHidden }

var errHidden = errors.New("login: this holds secrets and is not marshalled as a whole, want its fields where they are needed")

// IDClaims returns the claims of the ID token. It does not verify them again.
func (t *Tokens) IDClaims() (*IDClaims, error) { return DecodeIDClaims(t.IDToken) }

// IDClaims are what an ID token of Cognito says of a person. A claim that is not there is the zero value.
//
// Source: Amazon Cognito Developer Guide, "Understanding the identity (ID) token".
type IDClaims struct {
	Subject       string    // sub
	Audience      string    // aud, the app client
	Issuer        string    // iss
	TokenUse      string    // token_use
	AuthTime      time.Time // auth_time, UTC
	IssuedAt      time.Time // iat, UTC
	ExpiresAt     time.Time // exp, UTC
	Email         string    // email
	EmailVerified bool      // email_verified
	Username      string    // cognito:username
	Groups        []string  // cognito:groups
	Roles         []string  // cognito:roles
	PreferredRole string    // cognito:preferred_role
	all           map[string]any
}

// Map returns every claim as decoded JSON; numbers are [json.Number]. It is only to be read.
func (c *IDClaims) Map() map[string]any { return c.all }

// DecodeIDClaims decodes the payload of a JWT and VERIFIES NOTHING: it is for showing what a token says, never for trusting it.
// A claim of another type than Cognito gives it is left out of the fields, and is in Map.
func DecodeIDClaims(token string) (*IDClaims, error) {
	all, err := decodePayload(token)
	if err != nil {
		return nil, err
	}
	return &IDClaims{
		Subject:       text(all["sub"]),
		Audience:      text(all["aud"]),
		Issuer:        text(all["iss"]),
		TokenUse:      text(all["token_use"]),
		AuthTime:      date(all["auth_time"]),
		IssuedAt:      date(all["iat"]),
		ExpiresAt:     date(all["exp"]),
		Email:         text(all["email"]),
		EmailVerified: all["email_verified"] == true || all["email_verified"] == "true", // the latter from some identity providers
		Username:      text(all["cognito:username"]),
		Groups:        texts(all["cognito:groups"]),
		Roles:         texts(all["cognito:roles"]),
		PreferredRole: text(all["cognito:preferred_role"]),
		all:           all,
	}, nil
}

// decodePayload decodes the second part of a compact JWS.
func decodePayload(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > validator.MaxTokenBytes {
		return nil, fmt.Errorf("login: the token has %d parts and %d bytes, want the 3 parts of a compact JWS and at most %d bytes", len(parts), len(token), validator.MaxTokenBytes)
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("login: the token's payload is no unpadded base64url")
	}
	var all map[string]any
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	if err := decoder.Decode(&all); err != nil || all == nil {
		return nil, errors.New("login: the token's payload is no JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("login: the token's payload has something behind its JSON object")
	}
	return all, nil
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func texts(v any) (list []string) {
	items, _ := v.([]any)
	for _, item := range items {
		if s, ok := item.(string); ok {
			list = append(list, s)
		}
	}
	return list
}

// maxDate is the last second of the year 9999, the last that RFC 3339 can write.
const maxDate = 253402300799

// date returns a NumericDate (RFC 7519 section 2), the zero time for anything else.
func date(v any) time.Time {
	n, _ := v.(json.Number)
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || !(f >= 0 && f <= maxDate) {
		return time.Time{}
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)).UTC()
}
