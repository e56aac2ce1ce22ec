package validator

import (
	"errors"
	"fmt"
	"time"
)

// A Revocation is an entry of a denylist: tokens that are refused although nothing is wrong with them, such as those of
// a client whose secret has leaked. Cognito has no way to take back an access token that a resource server verifies by
// itself (Amazon Cognito Developer Guide, "Ending user sessions with token revocation").
//
// Exactly one of ClientID, TokenID and Subject is set.
type Revocation struct {
	// Pool is the [Config.Name] of the pool whose tokens are meant. Empty means every pool's.
	Pool string
	// ClientID is the app client whose tokens are refused.
	ClientID string
	// TokenID is the jti of the token that is refused.
	TokenID string
	// Subject is the sub whose tokens are refused.
	Subject string
	// IssuedBefore, if not zero, spares tokens whose iat is at or after it: those that a client has got with its new
	// secret. With TokenID it must be zero.
	IssuedBefore time.Time
	// Note says why, for the log. Callers do not see it.
	Note string
}

// denylist finds revocations by what they name. Its zero value revokes nothing.
type denylist struct {
	clients, tokens, subjects map[revoked]Revocation
}

// revoked is a pool's name, or nothing for all pools, and an identifier.
type revoked struct{ pool, id string }

// SetDenylist replaces the denylist, at once and for all tokens, those in a cache included. If an entry is no valid
// [Revocation], it returns an error that tells all such entries, and the denylist stays what it was. It is safe for
// concurrent use.
func (v *Validator) SetDenylist(list []Revocation) error {
	d := &denylist{
		clients:  make(map[revoked]Revocation),
		tokens:   make(map[revoked]Revocation),
		subjects: make(map[revoked]Revocation),
	}
	pools := make(map[string]bool)
	for _, p := range v.pools {
		pools[p.Name] = true
	}
	var errs []error
	for i, r := range list {
		err := d.add(r)
		if r.Pool != "" && !pools[r.Pool] {
			err = errors.Join(err, fmt.Errorf("Pool is %q, want that of a Config or none", r.Pool))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("validator: revocation %d: %w", i, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	v.denylist.Store(d)
	return nil
}

func (d *denylist) add(r Revocation) error {
	into, id := d.clients, r.ClientID
	switch {
	case r.ClientID != "" && r.TokenID == "" && r.Subject == "":
	case r.ClientID == "" && r.TokenID == "" && r.Subject != "":
		into, id = d.subjects, r.Subject
	case r.ClientID == "" && r.TokenID != "" && r.Subject == "" && r.IssuedBefore.IsZero():
		into, id = d.tokens, r.TokenID
	case r.TokenID != "" && !r.IssuedBefore.IsZero():
		return errors.New("IssuedBefore stands beside TokenID, want it only with ClientID or Subject")
	default:
		return errors.New("want exactly one of ClientID, TokenID and Subject")
	}
	key := revoked{r.Pool, id}
	if before, ok := into[key]; !ok || r.covers(before) {
		into[key] = r
	}
	return nil
}

// covers reports whether r revokes all that another entry for the same does.
func (r Revocation) covers(other Revocation) bool {
	return r.IssuedBefore.IsZero() || !other.IssuedBefore.IsZero() && r.IssuedBefore.After(other.IssuedBefore)
}

// check refuses a token that is on the denylist.
func (d *denylist) check(c *Claims) error {
	if r, ok := find(d.clients, c, c.ClientID); ok {
		return r.refusal(c, "client_id "+quote(c.ClientID))
	}
	if r, ok := find(d.subjects, c, c.Subject); ok {
		return r.refusal(c, "sub "+quote(c.Subject))
	}
	if r, ok := find(d.tokens, c, c.TokenID); ok {
		return r.refusal(c, "jti "+quote(c.TokenID))
	}
	return nil
}

func find(in map[revoked]Revocation, c *Claims, id string) (Revocation, bool) {
	if len(in) == 0 {
		return Revocation{}, false
	}
	for _, pool := range [...]string{c.Pool, ""} {
		r, ok := in[revoked{pool, id}]
		if ok && (r.IssuedBefore.IsZero() || c.IssuedAt.Before(r.IssuedBefore)) {
			return r, true
		}
	}
	return Revocation{}, false
}

func (r Revocation) refusal(c *Claims, what string) error {
	detail := what + " is on the denylist"
	if !r.IssuedBefore.IsZero() {
		detail += " for tokens issued before " + r.IssuedBefore.UTC().Format(time.RFC3339)
	}
	if r.Note != "" {
		detail += ": " + quote(r.Note)
	}
	return &TokenError{Reason: ErrRevoked, Detail: detail, Claims: c}
}
