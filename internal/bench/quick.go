package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	mathrand "math/rand/v2"
	"strings"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A quickSigner makes tokens that verify like any other, at a fraction of what signing one costs: its key has 2048 bits and
// the usual exponent, but is the product of 32 primes of 64 bits, so that the private operation is 32 small ones (RFC 8017
// section 5.1.2, with u = 32). Anybody can factor it. Who verifies sees no difference: the same code does the same work, and
// what it leaves in memory is the same. So a cache can be filled with a million verified tokens within two minutes.
type quickSigner struct {
	kid       string
	n         *big.Int
	primes    [quickPrimes]quickPrime
	header    string // encoded
	payload   []byte // of a token of the mint's
	client    string // in payload, to be replaced
	tokenID   string
	validator *validator.Validator // of its tokens
}

// A quickPrime is a prime of the key, with what the private operation needs of it.
type quickPrime struct {
	p, d uint64   // d is the private exponent modulo p-1
	rest *big.Int // n/p
	inv  uint64   // of rest, modulo p
}

const (
	quickPrimes   = 32
	quickExponent = 65537
)

// newQuickSigner returns the one of a seed. Its tokens look like those of the mint.
func newQuickSigner(m *mint, seed uint64) (*quickSigner, error) {
	s := &quickSigner{n: big.NewInt(1)}
	s.findPrimes(mathrand.New(mathrand.NewPCG(seed, 0))) // #nosec G404 -- keeps no secret
	id := sha256.Sum256(s.n.Bytes())
	s.kid = base64.StdEncoding.EncodeToString(id[:])
	if err := s.takeForm(m.token()); err != nil {
		return nil, err
	}
	keys := validator.StaticKeys{s.kid: {N: s.n, E: quickExponent}}
	v, err := validator.New(validator.Config{Name: "main", Issuers: []string{issuer}, AllowAnyClient: true, Keys: keys})
	if err != nil {
		return nil, err
	}
	s.validator = v
	return s, nil
}

func (s *quickSigner) findPrimes(random *mathrand.Rand) {
	const least = ^uint64(0) / 50 * 49 // so that the product of 32 has 2048 bits
	seen := make(map[uint64]bool)
	for i := 0; i < quickPrimes; {
		p := least + random.Uint64N(^uint64(0)-least) | 1
		prime := new(big.Int).SetUint64(p)
		order := new(big.Int).SetUint64(p - 1)
		d := new(big.Int).ModInverse(big.NewInt(quickExponent), order)
		if seen[p] || d == nil || !prime.ProbablyPrime(20) {
			continue
		}
		seen[p] = true
		s.primes[i] = quickPrime{p: p, d: d.Uint64()}
		s.n.Mul(s.n, prime)
		i++
	}
	for i := range s.primes {
		q := &s.primes[i]
		prime := new(big.Int).SetUint64(q.p)
		q.rest = new(big.Int).Div(s.n, prime)
		q.inv = new(big.Int).ModInverse(q.rest, prime).Uint64()
	}
}

// takeForm takes header and payload of a token as the form of its own.
func (s *quickSigner) takeForm(token string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("found no token of three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	header, err := json.Marshal(map[string]string{"kid": s.kid, "alg": "RS256"})
	if err != nil {
		return err
	}
	s.header = base64.RawURLEncoding.EncodeToString(header)
	s.payload, s.client, s.tokenID = payload, cognitotest.DemoReaderID, claims.ID
	if !bytes.Contains(payload, []byte(s.client)) || len(s.tokenID) != 36 {
		return fmt.Errorf("found claims %s, want the client %s and a jti of 36 bytes", payload, s.client)
	}
	return nil
}

// token returns token n, of a client of its own. It is always the same.
func (s *quickSigner) token(n int) string {
	payload := bytes.ReplaceAll(s.payload, []byte(s.client), fmt.Appendf(nil, "%0*d", len(s.client), n))
	payload = bytes.ReplaceAll(payload, []byte(s.tokenID), fmt.Appendf(nil, "%s%012d", s.tokenID[:24], n))
	text := make([]byte, 0, 1024)
	text = append(append(text, s.header...), '.')
	text = base64.RawURLEncoding.AppendEncode(text, payload)
	signature := s.sign(sha256.Sum256(text))
	return string(base64.RawURLEncoding.AppendEncode(append(text, '.'), signature))
}

// digestInfo stands before a SHA-256 digest that is signed (RFC 8017 section 9.2, note 1).
const digestInfo = "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"

// sign makes the signature of RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2.1).
func (s *quickSigner) sign(digest [sha256.Size]byte) []byte {
	var em [256]byte
	tail := append([]byte("\x00"+digestInfo), digest[:]...)
	for i := range em {
		em[i] = 0xff
	}
	em[0], em[1] = 0, 1
	copy(em[len(em)-len(tail):], tail)

	var words [len(em) / 8]uint64
	for i := range words {
		words[i] = binary.BigEndian.Uint64(em[8*i:])
	}
	sum, term, part := new(big.Int), new(big.Int), new(big.Int)
	for i := range s.primes {
		q := &s.primes[i]
		var m uint64
		for _, w := range words {
			m = bits.Rem64(m, w, q.p)
		}
		part.SetUint64(mulMod(powMod(m, q.d, q.p), q.inv, q.p))
		sum.Add(sum, term.Mul(q.rest, part))
	}
	return sum.Mod(sum, s.n).FillBytes(em[:])
}

func mulMod(a, b, p uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return bits.Rem64(hi, lo, p)
}

// powMod raises base to the exponent modulo p, which is odd. It multiplies as P. L. Montgomery does ("Modular multiplication
// without trial division", 1985): numbers are times 2^64, so that a division by p becomes one by 2^64.
func powMod(base, exponent, p uint64) uint64 {
	inverse := p // of p modulo 2^64: Newton's method, from 3 right bits to 96
	for range 5 {
		inverse *= 2 - p*inverse
	}
	times := func(a, b uint64) uint64 {
		hi, lo := bits.Mul64(a, b)
		reduce, _ := bits.Mul64(lo*inverse, p)
		if hi < reduce {
			return hi - reduce + p
		}
		return hi - reduce
	}
	one := -p % p // 2^64
	result := one
	base = mulMod(base, one, p)
	for ; exponent > 0; exponent >>= 1 {
		if exponent&1 == 1 {
			result = times(result, base)
		}
		base = times(base, base)
	}
	return times(result, 1)
}
