package identity

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxTokenBytes bounds an ID token: that of Cognito is far below, and the Logins of a request may have 50,000 characters
// in all (API_GetId).
const maxTokenBytes = 48 << 10

// claims are those of an ID token that matter here.
type claims struct {
	issuer, subject string
	client          string    // aud, the app client
	roles           []string  // cognito:roles, the IAM roles of the user's groups
	preferred       string    // cognito:preferred_role, that of the group with the highest precedence
	expires         time.Time // exp; zero if the token does not say
}

// readClaims reads an ID token and does not verify it. That is good enough here, and for nothing else: the token is the
// caller's own, all that is taken from it is which role to ask for and under whose name credentials are kept, and AWS
// verifies it before it gives any. An access token is an error, as identity pools take ID tokens only.
func readClaims(idToken string) (claims, error) {
	if len(idToken) > maxTokenBytes {
		return claims{}, fmt.Errorf("identity: ID token has %d bytes, want at most %d", len(idToken), maxTokenBytes)
	}
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return claims{}, fmt.Errorf("identity: ID token has %d parts, want the 3 of a compact JWS", len(parts))
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return claims{}, errors.New("identity: ID token's payload is not base64url")
	}
	var members map[string]json.RawMessage // a struct would take Sub for sub
	if err := json.Unmarshal(payload, &members); err != nil {
		return claims{}, errors.New("identity: ID token's payload is no JSON object") // the error would quote it
	}
	var c claims
	var use string
	var exp float64
	for name, into := range map[string]any{
		"iss": &c.issuer, "sub": &c.subject, "token_use": &use, "cognito:roles": &c.roles, "cognito:preferred_role": &c.preferred,
	} {
		if raw, ok := members[name]; ok && json.Unmarshal(raw, into) != nil {
			return claims{}, fmt.Errorf("identity: ID token's %s has the wrong type", name)
		}
	}
	switch {
	case use != "id":
		return claims{}, fmt.Errorf("identity: token_use is %q, want \"id\": identity pools take ID tokens", cut(use))
	case c.issuer == "" || c.subject == "":
		return claims{}, errors.New("identity: ID token has no iss or no sub, want both")
	}
	_ = json.Unmarshal(members["aud"], &c.client) // an identity pool wants it; we only tell clients apart
	if json.Unmarshal(members["exp"], &exp) == nil {
		c.expires = time.Unix(int64(exp), 0).UTC() // it only makes a hint
	}
	return c, nil
}

// SelectRole returns the one role that ends in suffix; the same role twice counts once. Unless there is exactly one it
// returns a [*RoleError]. Begin the suffix with the slash, as in "/Analyst", to compare the whole name: "Analyst" is also
// the end of "NoAnalyst".
func SelectRole(roles []string, suffix string) (string, error) {
	e := &RoleError{Suffix: suffix}
	for _, role := range roles {
		e.Roles = appendNew(e.Roles, role)
		if strings.HasSuffix(role, suffix) {
			e.Matches = appendNew(e.Matches, role)
		}
	}
	if len(e.Matches) != 1 {
		return "", e
	}
	return e.Matches[0], nil
}
