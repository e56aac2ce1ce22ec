package validator

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A KeySet finds public signing keys by the kid of a JOSE header (RFC 7515 section 4.1.4). It is safe for
// concurrent use.
type KeySet interface {
	// PublicKey returns the key with this kid. If there is none, it returns an error matching [ErrUnknownKey],
	// but only if it can say so of a moment after asOf, which is when the token was issued; if it cannot, it
	// returns one matching [ErrKeysUnavailable]. The kid was chosen by whoever sent the token.
	PublicKey(ctx context.Context, kid string, asOf time.Time) (*rsa.PublicKey, error)
}

// StaticKeys is a [KeySet] with a fixed content, by kid.
type StaticKeys map[string]*rsa.PublicKey

// PublicKey returns the key with this kid, or [ErrUnknownKey]. It never waits.
func (k StaticKeys) PublicKey(_ context.Context, kid string, _ time.Time) (*rsa.PublicKey, error) {
	if key := k[kid]; key != nil {
		return key, nil
	}
	return nil, ErrUnknownKey
}

func (k StaticKeys) check() error {
	if len(k) == 0 {
		return errors.New("no keys, want at least one")
	}
	for kid, key := range k {
		if err := checkRSA(key); err != nil {
			return fmt.Errorf("key %s: %w", quote(kid), err)
		}
	}
	return nil
}

// A KeyProblem says why a member of a JWK Set was left out.
type KeyProblem struct {
	KeyID   string // kid; empty if it has none
	Problem string
}

func (p KeyProblem) String() string { return fmt.Sprintf("key %s: %s", quote(p.KeyID), p.Problem) }

// MaxJWKSBytes is the longest JWK Set that is read. Cognito's have about 1 KiB.
const MaxJWKSBytes = 1 << 20

// ParseJWKS reads the usable keys of a JWK Set (RFC 7517 section 5): public RSA keys of 2048 to 8192 bits with a
// kid, whose use is sig or absent and whose alg is RS256 or absent. What it leaves out, it reports; as the RFC
// asks, that is no error as long as one key is usable. A kid that two different keys claim is none's.
func ParseJWKS(text []byte) (StaticKeys, []KeyProblem, error) {
	if len(text) > MaxJWKSBytes {
		return nil, nil, fmt.Errorf("validator: JWK Set has %d bytes, want at most %d", len(text), MaxJWKSBytes)
	}
	set, err := parseObject(text)
	if err != nil {
		return nil, nil, fmt.Errorf("validator: JWK Set is %w", err)
	}
	list, ok := set["keys"].([]any)
	if !ok {
		return nil, nil, errors.New("validator: JWK Set has no list of keys")
	}
	keys, problems := collect(list)
	if len(keys) == 0 {
		return nil, problems, fmt.Errorf("validator: JWK Set has no usable key among its %d: %v", len(list), problems)
	}
	return keys, problems, nil
}

func collect(list []any) (keys StaticKeys, problems []KeyProblem) {
	keys = make(StaticKeys)
	ambiguous := make(map[string]bool)
	for _, item := range list {
		j, _ := item.(map[string]any)
		kid, _ := j["kid"].(string)
		key, err := usable(j, kid)
		if err == nil && keys[kid] != nil && !keys[kid].Equal(key) {
			ambiguous[kid] = true
			err = errors.New("another key has this kid: neither is used")
		}
		if err != nil {
			problems = append(problems, KeyProblem{kid, err.Error()})
			continue
		}
		keys[kid] = key
	}
	for kid := range ambiguous {
		delete(keys, kid)
	}
	return keys, problems
}

// privateMembers are those of RSA private keys and of symmetric keys (RFC 7518 sections 6.3.2 and 6.4.1).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

func usable(j object, kid string) (*rsa.PublicKey, error) {
	if j == nil {
		return nil, errors.New("no JSON object")
	}
	for _, m := range privateMembers {
		if _, ok := j[m]; ok {
			return nil, fmt.Errorf("has %s, so it is no public key: a secret was published", m)
		}
	}
	if j["kty"] != "RSA" {
		return nil, errors.New("kty is not RSA")
	}
	if use, ok := j["use"]; ok && use != "sig" {
		return nil, errors.New("use is not sig")
	}
	if alg, ok := j["alg"]; ok && alg != "RS256" {
		return nil, errors.New("alg is not RS256")
	}
	if ops, ok := j["key_ops"]; ok {
		if list, ok := ops.([]any); !ok || !slices.Contains(list, any("verify")) {
			return nil, errors.New("key_ops does not have verify")
		}
	}
	if kid == "" || len(kid) > maxKeyIDBytes {
		return nil, fmt.Errorf("kid is no string of 1 to %d bytes", maxKeyIDBytes)
	}
	key, err := decodeRSA(j)
	if err != nil {
		return nil, errors.New("n or e is no base64url number")
	}
	return key, checkRSA(key)
}

// checkRSA checks the modulus, whose lower bound is RFC 7518's (section 3.3) and whose upper bound keeps a
// verification under a millisecond or two, and the exponent, which crypto/rsa needs to be odd and to fit 31 bits.
func checkRSA(key *rsa.PublicKey) error {
	switch {
	case key == nil || key.N == nil:
		return errors.New("no key")
	case key.N.BitLen() < 2048 || key.N.BitLen() > 8192:
		return fmt.Errorf("modulus has %d bits, want 2048 to 8192", key.N.BitLen())
	case key.E < 3 || key.E&1 == 0 || key.E > 1<<31-1:
		return fmt.Errorf("exponent is %d, want an odd one from 3 to 2^31-1", key.E)
	}
	return nil
}
