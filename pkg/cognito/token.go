package cognito

import (
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/oauth2"
)

// A Token is an access token with what is known about it. It may be shared: do not change it. Printing, logging or
// marshalling one does not show the token.
type Token struct {
	// TokenType is Bearer.
	TokenType string `json:"token_type"`
	// ObtainedAt is when the request for it was sent, Expiry when it ends: ObtainedAt and the expires_in of the answer
	// (RFC 6749 section 5.1). Both are by the local clock, so that a difference to Cognito's does not matter, in UTC.
	ObtainedAt time.Time `json:"obtained_at"`
	Expiry     time.Time `json:"expiry"`
	// Scopes are the granted scopes if the answer says them (RFC 6749 section 5.1), else nil. Cognito does not: its tokens
	// have them in their scope claim.
	Scopes []string `json:"scopes,omitempty"`

	// hidden is a function as nothing that prints looks into one. Package fmt does not always call Format, as for a field that
	// is not exported, and libraries that dump follow pointers.
	hidden func() *hidden
}

// hidden is what a Token does not show.
type hidden struct {
	access  string
	members map[string]any // the other members of the answer, further tokens among them
}

// NewToken returns a bearer token with the given life: for a [Cache], and for tests.
func NewToken(accessToken string, obtainedAt, expiry time.Time) *Token {
	h := &hidden{access: accessToken}
	return &Token{TokenType: "Bearer", ObtainedAt: obtainedAt.UTC(), Expiry: expiry.UTC(), hidden: func() *hidden { return h }}
}

// AccessToken returns the token itself: to be sent and not to be shown.
func (t *Token) AccessToken() string {
	if t.hidden == nil {
		return ""
	}
	return t.hidden().access
}

// Authorization returns the value of the Authorization header (RFC 6750 section 2.1).
func (t *Token) Authorization() string { return "Bearer " + t.AccessToken() }

// Extra returns a further member of the token endpoint's answer, such as the string id_token or refresh_token of a person's
// login: what package json makes of it, but numbers are a [encoding/json.Number]. It returns nil if there is none, and for a
// token from a [Cache], which keeps none.
func (t *Token) Extra(name string) any {
	if t.hidden == nil {
		return nil
	}
	return t.hidden().members[name]
}

// OAuth2 returns the token as package oauth2 has it. Mind that an [oauth2.Token] shows itself when it is printed.
func (t *Token) OAuth2() *oauth2.Token {
	o := &oauth2.Token{
		AccessToken: t.AccessToken(),
		TokenType:   t.TokenType,
		Expiry:      t.Expiry,
		ExpiresIn:   int64(t.Expiry.Sub(t.ObtainedAt) / time.Second),
	}
	if t.hidden != nil && t.hidden().members != nil {
		return o.WithExtra(t.hidden().members)
	}
	return o
}

// Format prints the token's type and times, whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, t.String()) }

// String returns the token's type and times.
func (t Token) String() string {
	return fmt.Sprintf("cognito.Token{%s, obtained %s, expires %s}", t.TokenType, t.ObtainedAt.Format(time.RFC3339), t.Expiry.Format(time.RFC3339))
}

// LogValue implements [slog.LogValuer].
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("token_type", t.TokenType), slog.Time("obtained_at", t.ObtainedAt), slog.Time("expiry", t.Expiry))
}
