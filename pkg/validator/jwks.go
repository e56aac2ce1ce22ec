package validator

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync/atomic"
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

// ReplaceableKeys is a [KeySet] whose content can be replaced at once, such as by who watches a file. What it does not
// have does not exist, so a key must be put there before it signs. It is made by [NewReplaceableKeys] and is safe for
// concurrent use.
type ReplaceableKeys struct{ current atomic.Pointer[StaticKeys] }

// NewReplaceableKeys returns a ReplaceableKeys that holds keys, at least one.
func NewReplaceableKeys(keys StaticKeys) (*ReplaceableKeys, error) {
	k := new(ReplaceableKeys)
	if err := k.Replace(keys); err != nil {
		return nil, err
	}
	return k, nil
}

// Replace replaces all keys. If there are none among the new ones, or one that is not usable, it returns an error and
// the old ones stay.
func (k *ReplaceableKeys) Replace(keys StaticKeys) error {
	if err := keys.check(); err != nil {
		return fmt.Errorf("validator: %w", err)
	}
	keys = maps.Clone(keys)
	k.current.Store(&keys)
	return nil
}

// PublicKey returns the key with this kid, or [ErrUnknownKey]. It never waits.
func (k *ReplaceableKeys) PublicKey(ctx context.Context, kid string, asOf time.Time) (*rsa.PublicKey, error) {
	return k.current.Load().PublicKey(ctx, kid, asOf)
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

func (p KeyProblem) String() string {
	if p.KeyID == "" {
		return p.Problem
	}
	return fmt.Sprintf("key %s: %s", quote(p.KeyID), p.Problem)
}

// maxProblems bounds what is reported of one JWK Set: a report goes into logs, and a set of a MiB can have half a million
// members that are no keys.
const maxProblems = 16

// MaxJWKSBytes is the longest JWK Set that is read. Cognito's have about 1 KiB.
const MaxJWKSBytes = 1 << 20

// ParseJWKS reads the usable keys of a JWK Set (RFC 7517 section 5): public RSA keys of 2048 to 8192 bits with a
// kid, whose use is sig or absent and whose alg is RS256 or absent. What it leaves out, it reports; as the RFC
// asks, that is no error as long as one key is usable. It reports the first 16 and how many more there are. A kid that two
// different keys claim is none's, and a key whose private half stands in the same set is nobody's.
func ParseJWKS(text []byte) (StaticKeys, []KeyProblem, error) {
	if len(text) > MaxJWKSBytes {
		return nil, nil, fmt.Errorf("validator: JWK Set has %d bytes, want at most %d", len(text), MaxJWKSBytes)
	}
	set, err := parseObject(text, maxJWKSValues)
	if err != nil {
		return nil, nil, fmt.Errorf("validator: JWK Set is %w", err)
	}
	list, ok := set["keys"].([]any)
	if !ok {
		return nil, nil, errors.New("validator: JWK Set has no list of keys")
	}
	keys, problems := collect(list)
	if len(keys) == 0 {
		return nil, problems, fmt.Errorf("validator: JWK Set has no usable key among its %d: %v", len(list), problems[:min(len(problems), 3)])
	}
	return keys, problems, nil
}

func collect(list []any) (keys StaticKeys, problems []KeyProblem) {
	keys = make(StaticKeys)
	ambiguous, published := make(map[string]bool), publishedModuli(list)
	left := 0
	for _, item := range list {
		j, _ := item.(map[string]any)
		kid, _ := j["kid"].(string)
		key, err := usable(j, kid)
		if err == nil && published[key.N.String()] {
			err = errors.New("its private key stands in another member: a secret was published")
		}
		if err == nil && keys[kid] != nil && !keys[kid].Equal(key) {
			ambiguous[kid] = true
			err = errors.New("another key has this kid: neither is used")
		}
		if err != nil {
			if left++; left <= maxProblems {
				problems = append(problems, KeyProblem{kid[:min(len(kid), maxKeyIDBytes)], err.Error()})
			}
			continue
		}
		keys[kid] = key
	}
	for kid := range ambiguous {
		delete(keys, kid)
	}
	if left > maxProblems {
		problems = append(problems, KeyProblem{Problem: fmt.Sprintf("%d more are left out", left-maxProblems)})
	}
	return keys, problems
}

// publishedModuli returns the moduli of which the set has a private member, in decimal.
func publishedModuli(list []any) map[string]bool {
	published := make(map[string]bool)
	for _, item := range list {
		j, _ := item.(map[string]any)
		if n, ok := number(j["n"]); ok && privateMember(j) != "" {
			published[n.String()] = true
		}
	}
	return published
}

// privateMember returns the name of a member that no public key has, or "".
func privateMember(j object) string {
	for _, m := range privateMembers {
		if _, ok := j[m]; ok {
			return m
		}
	}
	return ""
}

// privateMembers are those of RSA private keys and of symmetric keys (RFC 7518 sections 6.3.2 and 6.4.1).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

func usable(j object, kid string) (*rsa.PublicKey, error) {
	if j == nil {
		return nil, errors.New("no JSON object")
	}
	if m := privateMember(j); m != "" {
		return nil, fmt.Errorf("has %s, so it is no public key: a secret was published", m)
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
		return nil, err
	}
	return key, checkRSA(key)
}

// decodeRSA decodes the public key of a JWK whose kty is RSA (RFC 7518 section 6.3.1).
func decodeRSA(j object) (*rsa.PublicKey, error) {
	n, okN := number(j["n"])
	e, okE := number(j["e"])
	switch {
	case !okN || !okE:
		return nil, errors.New("n or e is no Base64urlUInt")
	case e.BitLen() > 31:
		return nil, fmt.Errorf("exponent has %d bits, want at most 31", e.BitLen())
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// number decodes a Base64urlUInt (RFC 7518 section 2): unpadded base64url. An octet of zero before the number is let pass,
// as section 6.3.1.1 knows of libraries that write one.
func number(v any) (*big.Int, bool) {
	text, ok := v.(string)
	if !ok || strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	octets, err := strictBase64.DecodeString(text)
	if err != nil || len(octets) == 0 {
		return nil, false
	}
	return new(big.Int).SetBytes(octets), true
}

// checkRSA checks the modulus, whose lower bound is RFC 7518's (section 3.3) and whose upper bound keeps a
// verification under a millisecond or two, and the exponent, which crypto/rsa needs to be odd and to fit 31 bits.
func checkRSA(key *rsa.PublicKey) error {
	switch {
	case key == nil || key.N == nil:
		return errors.New("no key")
	case key.N.BitLen() < 2048 || key.N.BitLen() > 8192:
		return fmt.Errorf("modulus has %d bits, want 2048 to 8192", key.N.BitLen())
	case key.N.Bit(0) == 0:
		return errors.New("modulus is even, so it is no product of two large primes")
	case key.E < 3 || key.E&1 == 0 || key.E > 1<<31-1:
		return fmt.Errorf("exponent is %d, want an odd one from 3 to 2^31-1", key.E)
	case hasROCA(key.N):
		return errors.New("modulus has the ROCA fingerprint (CVE-2017-15361): its factors can be found")
	}
	return nil
}

// rocaPrimes are the primes by which the fingerprint of ROCA keys shows: 126 bits of their primes are a power of 65537
// modulo the product of these and more. Of other moduli, about one in 2^28 looks like it by chance.
//
// Source: Nemec et al., "The Return of Coppersmith's Attack", ACM CCS 2017, section 3.1.
var rocaPrimes = []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157}

// hasROCA reports whether, modulo each of these primes, n is a power of 65537.
func hasROCA(n *big.Int) bool {
	for _, p := range rocaPrimes {
		if rest := new(big.Int).Mod(n, big.NewInt(p)); !isPower(rest.Int64(), p) {
			return false
		}
	}
	return true
}

// isPower reports whether x is a power of 65537 modulo p.
func isPower(x, p int64) bool {
	power := int64(1)
	for range p {
		if power == x {
			return true
		}
		power = power * 65537 % p
	}
	return false
}
