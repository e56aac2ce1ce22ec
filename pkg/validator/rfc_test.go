package validator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The examples of the JOSE RFCs; testdata/README.md says where they are from.

type rfcExample struct {
	Source     string // the RFC and its section
	About      string
	Token      string // what a client would send
	Signatures []rfcSignature
}

// A rfcSignature is one of an example's, with what it covers: that is not always in the token.
type rfcSignature struct {
	Alg       string
	Key       json.RawMessage // a JWK, without its private members unless it is symmetric
	Input     string          // the JWS Signing Input
	Signature string
}

func readRFC[T any](t *testing.T, name string) (all []T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "rfc", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return all
}

// refusal is why Validate refuses an example.
type refusal struct {
	Reason Reason
	Detail string // a part of it
}

var (
	otherAlgorithm = refusal{ErrAlgorithm, "alg is another than RS256"}
	noKeyID        = refusal{ErrMalformed, "header has no kid"}
	noClaims       = refusal{ErrMalformed, "payload is no JSON object"}
	notCompact     = refusal{ErrMalformed, "want the 3 of a compact JWS"}
)

// refusals are the examples' fates, by source and subject. None is a token of Cognito, so none is accepted.
var refusals = map[string]refusal{
	"RFC 7515 A.1: HS256, typ JWT":                                       otherAlgorithm,
	"RFC 7515 A.2: RS256 without a kid":                                  noKeyID,
	"RFC 7515 A.3: ES256":                                                otherAlgorithm,
	"RFC 7515 A.4: ES512":                                                otherAlgorithm,
	"RFC 7515 A.5: alg none":                                             otherAlgorithm,
	"RFC 7515 A.6: general JSON serialization, RS256 and ES256":          notCompact,
	"RFC 7515 A.7: flattened JSON serialization, ES256":                  notCompact,
	"RFC 7515 E: a critical extension that nobody understands, alg none": otherAlgorithm,
	"RFC 7515 F: A.2 with detached content":                              noKeyID,
	"RFC 7520 4.1: RS256, compact":                                       noClaims,
	"RFC 7520 4.1: RS256, general JSON":                                  notCompact,
	"RFC 7520 4.1: RS256, flattened JSON":                                notCompact,
	"RFC 7520 4.1: RS256, compact, made detached as RFC 7515 F says":     noClaims,
	"RFC 7520 4.2: PS384, compact":                                       otherAlgorithm,
	"RFC 7520 4.2: PS384, general JSON":                                  notCompact,
	"RFC 7520 4.2: PS384, flattened JSON":                                notCompact,
	"RFC 7520 4.3: ES512, compact":                                       otherAlgorithm,
	"RFC 7520 4.3: ES512, general JSON":                                  notCompact,
	"RFC 7520 4.3: ES512, flattened JSON":                                notCompact,
	"RFC 7520 4.4: HS256, compact":                                       otherAlgorithm,
	"RFC 7520 4.4: HS256, general JSON":                                  notCompact,
	"RFC 7520 4.4: HS256, flattened JSON":                                notCompact,
	"RFC 7520 4.5: HS256 with detached content, compact":                 otherAlgorithm,
	"RFC 7520 4.5: HS256 with detached content, general JSON":            notCompact,
	"RFC 7520 4.5: HS256 with detached content, flattened JSON":          notCompact,
	"RFC 7520 4.6: HS256, kid in the unprotected header, general JSON":   notCompact,
	"RFC 7520 4.6: HS256, kid in the unprotected header, flattened JSON": notCompact,
	"RFC 7520 4.7: HS256, no protected header, general JSON":             notCompact,
	"RFC 7520 4.7: HS256, no protected header, flattened JSON":           notCompact,
	"RFC 7520 4.8: RS256, ES512 and HS256, general JSON":                 notCompact,
	"RFC 7797 4.1: HS256, the control":                                   otherAlgorithm,
	"RFC 7797 4.2: HS256 with b64 false, detached":                       otherAlgorithm,
	"RFC 7797 4.2: HS256 with b64 false, flattened JSON":                 notCompact,
}

// The validator knows the examples' keys, takes their issuer for its pool's, and any client: it is not for want of those
// that an example is refused.
func TestRFCTokensAreRefused(t *testing.T) {
	keys, _, err := ParseJWKS(allRFCKeys(t))
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(Config{Issuers: []string{"joe"}, AllowAnyClient: true, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	left := maps.Clone(refusals)
	for _, e := range readRFC[rfcExample](t, "jws.json") {
		name := e.Source + ": " + e.About
		want, ok := left[name]
		delete(left, name)
		_, err := v.Validate(t.Context(), e.Token)
		refused := (*TokenError)(nil)
		if !ok || !errors.As(err, &refused) || refused.Reason != want.Reason || !strings.Contains(refused.Detail, want.Detail) {
			t.Errorf("%s: error is %v, want %+v", name, err, want)
		}
	}
	if len(left) > 0 {
		t.Errorf("jws.json lacks %q", slices.Sorted(maps.Keys(left)))
	}
}

// allRFCKeys is one JWK Set of all keys of the examples.
func allRFCKeys(t *testing.T) []byte {
	t.Helper()
	var all []json.RawMessage
	for _, s := range readRFC[rfcKeySet](t, "jwks.json") {
		var set struct{ Keys []json.RawMessage }
		if err := json.Unmarshal(s.Set, &set); err != nil {
			t.Fatal(err)
		}
		all = append(all, set.Keys...)
	}
	text, err := json.Marshal(map[string]any{"keys": all})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A refusal of what nobody accepts would show nothing: each signature is one that the standard library verifies. Of
// those, verifyRS256 accepts what RS256 made, and nothing else.
func TestRFCSignatures(t *testing.T) {
	got := make(map[string]int)
	for _, e := range readRFC[rfcExample](t, "jws.json") {
		for _, s := range e.Signatures {
			name := fmt.Sprintf("%s: %s, the signature with %s", e.Source, e.About, s.Alg)
			signature, err := strictBase64.DecodeString(s.Signature)
			if err != nil || !genuine(t, s, signature) {
				t.Errorf("%s: the standard library does not verify it (%v), want an example that is sound", name, err)
			}
			is := "no RSA key"
			if key := rsaKeyOf(t, s.Key); key != nil {
				is = verified
				if verifyRS256([]byte(s.Input), signature, key) != nil {
					is = string(ErrSignature)
				}
			}
			got[s.Alg+": "+is]++
		}
	}
	want := map[string]int{
		"RS256: verified": 8, "PS384: signature": 3,
		"ES256: no RSA key": 3, "ES512: no RSA key": 5, "HS256: no RSA key": 15,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("how many have which algorithm and outcome (-want +got):\n%s", diff)
	}
}

// rsaKeyOf decodes and checks a JWK as ParseJWKS does, except for its kid, use and alg, which some examples lack.
func rsaKeyOf(t *testing.T, text json.RawMessage) *rsa.PublicKey {
	t.Helper()
	j, err := parseObject(text, maxHeaderValues)
	if err != nil {
		t.Fatal(err)
	}
	if j["kty"] != "RSA" {
		return nil
	}
	key, err := decodeRSA(j)
	if err != nil || checkRSA(key) != nil {
		t.Fatalf("decodeRSA: error %v, key %v, want one that is accepted", err, key)
	}
	return key
}

// genuine verifies a signature with nothing but the standard library.
func genuine(t *testing.T, s rfcSignature, signature []byte) bool {
	t.Helper()
	var j struct{ K, N, E, X, Y string }
	if err := json.Unmarshal(s.Key, &j); err != nil {
		t.Fatal(err)
	}
	sum256, sum384, sum512 := sha256.Sum256([]byte(s.Input)), sha512.Sum384([]byte(s.Input)), sha512.Sum512([]byte(s.Input))
	rsaKey := func() *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).SetBytes(unbase64(t, j.N)), E: int(new(big.Int).SetBytes(unbase64(t, j.E)).Int64())}
	}
	switch s.Alg {
	case "RS256":
		return rsa.VerifyPKCS1v15(rsaKey(), crypto.SHA256, sum256[:], signature) == nil
	case "PS384":
		return rsa.VerifyPSS(rsaKey(), crypto.SHA384, sum384[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case "ES256":
		return verifyEC(t, elliptic.P256(), unbase64(t, j.X), unbase64(t, j.Y), sum256[:], signature)
	case "ES512":
		return verifyEC(t, elliptic.P521(), unbase64(t, j.X), unbase64(t, j.Y), sum512[:], signature)
	case "HS256":
		mac := hmac.New(sha256.New, unbase64(t, j.K))
		mac.Write([]byte(s.Input))
		return hmac.Equal(mac.Sum(nil), signature)
	}
	return false
}

// verifyEC verifies a signature of the form R || S (RFC 7518 section 3.4).
func verifyEC(t *testing.T, curve elliptic.Curve, x, y, sum, signature []byte) bool {
	t.Helper()
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		t.Fatal(err)
	}
	half := len(signature) / 2
	return ecdsa.Verify(key, sum, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The examples of critical extensions have other algorithms, for which they are refused before anything else is looked
// at. So their headers are given what a good one has.
func TestRFCExtensionsAreRefused(t *testing.T) {
	tests := []struct {
		source string
		edit   func(header object)
		want   refusal
	}{
		{"RFC 7515 E", func(object) {}, refusal{ErrMalformed, "header has crit"}},
		{"RFC 7797 4.2", func(object) {}, refusal{ErrMalformed, "header has crit"}},
		{"RFC 7797 4.2", func(h object) { delete(h, "crit") }, refusal{ErrMalformed, "header has b64"}},
		{"RFC 7515 A.2", func(object) {}, refusal{}}, // has no extension
	}
	examples := readRFC[rfcExample](t, "jws.json")
	for _, test := range tests {
		i := slices.IndexFunc(examples, func(e rfcExample) bool { return e.Source == test.source })
		part, _, _ := strings.Cut(examples[i].Token, ".")
		header, err := decodePart("header", part, maxHeaderValues)
		if err != nil {
			t.Fatalf("%s: %v", test.source, err)
		}
		header["alg"], header["kid"] = "RS256", "k"
		test.edit(header)
		got := refusal{}
		refused := (*TokenError)(nil)
		if _, err := checkHeader(header); errors.As(err, &refused) {
			got = refusal{refused.Reason, refused.Detail}
		}
		if got.Reason != test.want.Reason || !strings.Contains(got.Detail, test.want.Detail) {
			t.Errorf("%s: refused for %+v, want %+v", test.source, got, test.want)
		}
	}
}

type rfcKeySet struct {
	Source, About string
	Set           json.RawMessage
}

// keyFate is what becomes of a key set: the kids that are used, and the problems of the others.
type keyFate struct {
	Used     []string
	Problems []string
}

const (
	hasD = "has d, so it is no public key: a secret was published"
	hasK = "has k, so it is no public key: a secret was published"
)

func TestRFCKeys(t *testing.T) {
	want := map[string]keyFate{
		"RFC 7515 A.2: a private RSA key without a kid":         {nil, []string{hasD}},
		"RFC 7517 A.1: public keys: EC and RSA":                 {[]string{"2011-04-29"}, []string{"kty is not RSA"}},
		"RFC 7517 A.2: private keys: EC and RSA":                {nil, []string{hasD, hasD}},
		"RFC 7517 A.3: symmetric keys":                          {nil, []string{hasK, hasK}},
		"RFC 7517 B: a public RSA key with a certificate chain": {[]string{"1b94c"}, nil},
		"RFC 7517 C.1: a private RSA key for encryption":        {nil, []string{hasD}},
		"RFC 7520 3.1: a public EC key":                         {nil, []string{"kty is not RSA"}},
		"RFC 7520 3.2: a private EC key":                        {nil, []string{hasD}},
		"RFC 7520 3.3: a public RSA key":                        {[]string{"bilbo.baggins@hobbiton.example"}, nil},
		"RFC 7520 3.4: a private RSA key":                       {nil, []string{hasD}},
		"RFC 7520 3.5: a symmetric key to sign":                 {nil, []string{hasK}},
		"RFC 7520 3.6: a symmetric key to encrypt":              {nil, []string{hasK}},
	}
	got := make(map[string]keyFate)
	for _, s := range readRFC[rfcKeySet](t, "jwks.json") {
		keys, problems, err := ParseJWKS(s.Set)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%s: %d keys with error %v", s.Source, len(keys), err)
		}
		fate := keyFate{Used: slices.Sorted(maps.Keys(keys))}
		for _, p := range problems {
			fate.Problems = append(fate.Problems, p.Problem)
		}
		got[s.Source+": "+s.About] = fate
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what becomes of which keys (-want +got):\n%s", diff)
	}
}
