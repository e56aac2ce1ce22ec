package cognitotest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// Key is an RSA key pair and its kid.
type Key struct {
	// ID is the kid (RFC 7515 section 4.1.4). Cognito's are 32 bytes in padded standard base64, so they may hold + and /
	// (observed in published key sets).
	ID string
	// Private is the key pair, 2048 bits as Cognito's.
	Private *rsa.PrivateKey
}

// Sign returns a compact JWS (RFC 7515 section 7.1) of exactly these bytes, signed with RS256 whatever the header says.
func (k Key) Sign(header, payload []byte) string {
	input := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, k.Private, crypto.SHA256, digest[:])
	if err != nil {
		panic(fmt.Sprintf("cognitotest: sign with key %s: %v", k.ID, err)) // a Key that the caller has broken
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// jwks returns the JWK Set of keys with the members, the order and the spacing of Cognito's (observed in published key
// sets; the members also in amazon-cognito-user-pools-using-tokens-verifying-a-jwt).
func jwks(keys []Key) []byte {
	list := make([]any, len(keys))
	for i, k := range keys {
		list[i] = object{
			{"alg", "RS256"},
			{"e", base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.Private.E)).Bytes())},
			{"kid", k.ID},
			{"kty", "RSA"},
			{"n", base64.RawURLEncoding.EncodeToString(k.Private.N.Bytes())},
			{"use", "sig"},
		}
	}
	return mustMarshal(object{{"keys", list}})
}

func newKeyID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// ringSize is the number of key pairs that a process makes before it uses one again, for another server. A pair takes
// about 50 ms to make under the race detector.
const ringSize = 16

// ring holds the key pairs of the process. Servers share them, keys of one server never do.
var ring keyRing

type keyRing struct {
	mu    sync.Mutex
	pairs []*rsa.PrivateKey
	next  int
}

// take returns a pair that is not in used. Consecutive servers get different ones as long as there are enough.
func (r *keyRing) take(used map[*rsa.PrivateKey]bool) *rsa.PrivateKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pairs) >= ringSize {
		for range r.pairs {
			pair := r.pairs[r.next%len(r.pairs)]
			r.next++
			if !used[pair] {
				return pair
			}
		}
	}
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic("cognitotest: make an RSA key: " + err.Error()) // only without randomness, where crypto/rand ends the process itself
	}
	r.pairs = append(r.pairs, pair)
	return pair
}

// selfSigned makes a certificate that is its own authority, for the loopback addresses.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "cognitotest, for development only"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(30 * 24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		DNSNames:              []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
