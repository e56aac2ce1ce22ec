package validator

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The vectors of Project Wycheproof; testdata/README.md says where they are from. Each test accounts for every vector,
// and states how many there are of each outcome, so that a file that changes or is not read cannot pass.

// verified is the outcome of a vector whose signature we accept.
const verified = "verified"

// The vectors are evidence only as long as they are those of the project.
func TestWycheproofFilesAreTheirs(t *testing.T) {
	dir := filepath.Join("testdata", "wycheproof")
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for line := range strings.Lines(string(sums)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		text, err := os.ReadFile(filepath.Join(dir, name))
		if got := fmt.Sprintf("%x", sha256.Sum256(text)); err != nil || got != want {
			t.Errorf("%s: SHA-256 is %s, error %v, want %s", name, got, err, want)
		}
		listed[name] = true
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, error %v, want some", len(files), err)
	}
	for _, file := range files {
		if !listed[filepath.Base(file)] {
			t.Errorf("%s is not in SHA256SUMS", file)
		}
	}
}

type joseGroup struct {
	Comment string
	Public  json.RawMessage // a JWK or a JWK Set; absent for symmetric keys
	Private json.RawMessage
	Tests   []joseVector
}

type joseVector struct {
	ID      int `json:"tcId"`
	Comment string
	JWS     string
	Result  string
}

// readGroups reads the groups of a file, and holds that it has as many vectors as it says.
func readGroups[G any](t *testing.T, name string, count func(G) int) []G {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "wycheproof", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		NumberOfTests int
		TestGroups    []G
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	n := 0
	for _, g := range file.TestGroups {
		n += count(g)
	}
	if n != file.NumberOfTests || n == 0 {
		t.Fatalf("%s has %d vectors, want %d as it says, and some", name, n, file.NumberOfTests)
	}
	return file.TestGroups
}

func readJOSE(t *testing.T, name string) []joseGroup {
	t.Helper()
	return readGroups(t, name, func(g joseGroup) int { return len(g.Tests) })
}

// publicKeys are what ParseJWKS takes from a group: none, if it has no public key that may verify RS256.
func (g joseGroup) publicKeys(t *testing.T) StaticKeys {
	t.Helper()
	text := g.Public
	if text == nil {
		text = g.Private
	}
	keys, problems, err := ParseJWKS(asSet(text))
	if (err == nil) != (len(keys) > 0) || err != nil && len(problems) == 0 {
		t.Errorf("%s: keys %v, problems %v, error %v, want keys or problems", g.Comment, keys, problems, err)
	}
	return keys
}

// asSet makes a JWK Set of a JWK.
func asSet(text json.RawMessage) []byte {
	if bytes.Contains(text, []byte(`"keys"`)) {
		return text
	}
	return fmt.Appendf(nil, `{"keys":[%s]}`, text)
}

// outcome says what becomes of a compact JWS whose payload may be anything: verified, or the Reason for which it is
// refused. Wycheproof signs texts such as "foo", which are no claims, so that parse refuses all of its vectors. Whatever
// is wrong with a signature would stay hidden behind that.
func outcome(compact string, keys StaticKeys) string {
	t, err := parse(compact, nil)
	if payloadIsNoJSON(err) {
		parts := strings.Split(compact, ".")
		if t, err = parse(parts[0]+".e30."+parts[2], nil); err == nil {
			t.signed = parts[0] + "." + parts[1]
		}
	}
	if err != nil {
		return reasonText(err)
	}
	key := keys[t.kid]
	if key == nil {
		return string(ErrUnknownKey)
	}
	if verifyRS256([]byte(t.signed), t.signature, key) != nil {
		return string(ErrSignature)
	}
	return verified
}

func payloadIsNoJSON(err error) bool {
	refused := (*TokenError)(nil)
	return errors.As(err, &refused) && strings.HasPrefix(refused.Detail, "payload is ") && !strings.Contains(refused.Detail, "base64url")
}

func reasonText(err error) string {
	refused := (*TokenError)(nil)
	if !errors.As(err, &refused) {
		return fmt.Sprintf("no TokenError: %v", err)
	}
	return string(refused.Reason)
}

// algOf reads alg with encoding/json, which shares no code with parse.
func algOf(compact string) string {
	parts := strings.Split(compact, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[0])
	header := struct{ Alg string }{}
	if err != nil || len(parts) != 3 || json.Unmarshal(text, &header) != nil {
		return "no form"
	}
	return header.Alg
}

// refusedThoughValid are vectors that Wycheproof calls valid and that we refuse for another reason than their algorithm,
// by tcId of json_web_signature_test.json.
var refusedThoughValid = map[int]Reason{
	372: ErrMalformed, // the header has a question mark, which some base64 decoders skip: RFC 7515 section 2 has none
}

func TestWycheproofJWS(t *testing.T) {
	got := make(map[string]int)
	for _, g := range readJOSE(t, "json_web_signature_test.json") {
		keys := g.publicKeys(t)
		for _, v := range g.Tests {
			is := outcome(v.JWS, keys)
			checkJOSE(t, g, v, is, string(refusedThoughValid[v.ID]))
			got[fmt.Sprintf("%s %s: %s", algOf(v.JWS), v.Result, is)]++
		}
	}
	want := map[string]int{
		"RS256 valid: verified":      8,
		"RS256 invalid: signature":   216,
		"RS256 invalid: unknown_key": 4, // a changed kid, and keys for PS512 or for encryption
		"RS256 invalid: malformed":   1, // no signature

		"none invalid: algorithm":  4,
		"NONE invalid: algorithm":  1,
		"HS256 valid: algorithm":   9,
		"HS256 invalid: algorithm": 18,
		"ES256 valid: algorithm":   2,
		"ES256 invalid: algorithm": 31,
		"ES512 valid: algorithm":   2,
		"PS256 valid: algorithm":   6,
		"PS256 invalid: algorithm": 43,
		"PS384 valid: algorithm":   6,
		"PS384 invalid: algorithm": 2,
		"PS512 valid: algorithm":   4,
		"PS512 invalid: algorithm": 7,
		"RS384 valid: algorithm":   4,
		"RS384 invalid: algorithm": 1,
		"RS512 valid: algorithm":   4,
		"RS512 invalid: algorithm": 1,

		"no form valid: malformed":   1, // see refusedThoughValid
		"no form invalid: malformed": 26,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("how many have which algorithm, result and outcome (-want +got):\n%s", diff)
	}
}

// checkJOSE holds what must be so of every vector, whatever the totals. An excuse is the outcome of a vector on which we
// differ from Wycheproof.
func checkJOSE(t *testing.T, g joseGroup, v joseVector, is, excuse string) {
	t.Helper()
	name := fmt.Sprintf("%s, tcId %d, %s", g.Comment, v.ID, v.Comment)
	if _, err := parse(v.JWS, nil); err == nil {
		t.Errorf("%s: parse accepts it, want it refused for its payload at least", name)
	}
	alg := algOf(v.JWS)
	switch {
	case excuse != "":
		if is != excuse {
			t.Errorf("%s: outcome is %s, want %s, or no excuse for it", name, is, excuse)
		}
	case v.Result == "invalid" && is == verified:
		t.Errorf("%s: it verifies, want it refused", name)
	case alg != "RS256" && alg != "no form" && is != string(ErrAlgorithm):
		t.Errorf("%s: outcome is %s with alg %q, want %s", name, is, alg, ErrAlgorithm)
	case v.Result == "valid" && alg == "RS256" && is != verified:
		t.Errorf("%s: outcome is %s, want %s", name, is, verified)
	}
}

// The vectors of the group base64 have HS256, for which they are refused whatever their encoding. So their parts are
// decoded one by one.
func TestWycheproofBase64(t *testing.T) {
	want := map[int]string{
		360: "signature", 361: "signature", 362: "signature", 363: "signature", 364: "signature",
		365: "header", 366: "header", 372: "header",
		368: "payload", 369: "payload", 371: "payload", 373: "payload",
		374: "payload", 375: "payload", // bits that mean nothing are set
		// 367 and 370 lack the padding that they are about: they are 357, which is valid, byte for byte.
	}
	got, vectors := make(map[int]string), 0
	for _, g := range readJOSE(t, "json_web_signature_test.json") {
		if g.Comment != "base64" {
			continue
		}
		for _, v := range g.Tests {
			vectors++
			if part := badlyEncoded(v.JWS); part != "" {
				got[v.ID] = part
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || vectors != 21 {
		t.Errorf("%d vectors, want 21; which part of which is badly encoded (-want +got):\n%s", vectors, diff)
	}
}

// badlyEncoded names the first part that is no base64url for us.
func badlyEncoded(compact string) string {
	parts := strings.Split(compact, ".")
	for i, name := range []string{"header", "payload"} {
		if _, err := decodePart(name, parts[i], maxClaims); err != nil && strings.Contains(err.Error(), "base64url") {
			return name
		}
	}
	if _, err := strictBase64.DecodeString(parts[2]); err != nil {
		return "signature"
	}
	return ""
}

func TestWycheproofJWK(t *testing.T) {
	got := make(map[string]int)
	for _, g := range readJOSE(t, "json_web_key_test.json") {
		keys := g.publicKeys(t)
		for _, v := range g.Tests {
			is := outcome(v.JWS, keys)
			checkJOSE(t, g, v, is, "")
			got[fmt.Sprintf("%s %s: %s", algOf(v.JWS), v.Result, is)]++
		}
	}
	want := map[string]int{
		"RS256 valid: verified":      1,
		"RS256 invalid: unknown_key": 4, // a key for encryption, one of 1024 bits, one with the exponent 1, a ROCA key

		"HS256 valid: algorithm":   2,
		"HS256 invalid: algorithm": 7,
		"HS384 valid: algorithm":   1,
		"HS384 invalid: algorithm": 2,
		"HS512 valid: algorithm":   1,
		"HS512 invalid: algorithm": 2,
		"ES256 invalid: algorithm": 6,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("how many have which algorithm, result and outcome (-want +got):\n%s", diff)
	}
}

// Every key of the JOSE vectors, with its private members and without: what is left out is left out for the reason that
// the group is there for.
func TestWycheproofKeys(t *testing.T) {
	public, private := make(map[string]int), make(map[string]int)
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json"} {
		for _, g := range readJOSE(t, file) {
			countKeys(private, g.Private)
			if g.Public != nil {
				countKeys(public, g.Public)
			}
		}
	}
	wantPublic := map[string]int{
		"usable":                       5,
		"kty is not RSA":               11,
		"alg is not RS256":             8,
		"use is not sig":               2,
		"key_ops does not have verify": 1,
		"modulus has the ROCA fingerprint (CVE-2017-15361): its factors can be found": 1,
		"modulus has 1024 bits, want 2048 to 8192":                                    1,
		"exponent is 1, want an odd one from 3 to 2^31-1":                             1,
	}
	if diff := cmp.Diff(wantPublic, public); diff != "" {
		t.Errorf("what becomes of how many public keys (-want +got):\n%s", diff)
	}
	wantPrivate := map[string]int{
		"usable": 0,
		"has d, so it is no public key: a secret was published": 30,
		"has k, so it is no public key: a secret was published": 20,
		"kty is not RSA": 1, // a public EC key beside a symmetric one
	}
	if diff := cmp.Diff(wantPrivate, private); diff != "" {
		t.Errorf("what becomes of how many private and symmetric keys (-want +got):\n%s", diff)
	}
}

func countKeys(count map[string]int, text json.RawMessage) {
	keys, problems, _ := ParseJWKS(asSet(text))
	count["usable"] += len(keys)
	for _, p := range problems {
		count[p.Problem]++
	}
}

type rsaGroup struct {
	Comment   string
	KeyJWK    json.RawMessage `json:"keyJwk"`
	PublicKey struct{ Modulus, PublicExponent string }
	Tests     []rsaVector
}

type rsaVector struct {
	ID       int `json:"tcId"`
	Comment  string
	Msg, Sig string
	Result   string
}

func TestWycheproofRSA(t *testing.T) {
	tests := []struct {
		file string
		want map[string]int
	}{
		{"rsa_signature_2048_sha256_test.json", map[string]int{"valid: verified": 9, "acceptable: signature": 1, "invalid: signature": 249}},
		{"rsa_signature_3072_sha256_test.json", map[string]int{"valid: verified": 8, "acceptable: signature": 1, "invalid: signature": 250}},
		{"rsa_signature_4096_sha256_test.json", map[string]int{"valid: verified": 7, "acceptable: signature": 1, "invalid: signature": 250}},
		{"rsa_signature_8192_sha256_test.json", map[string]int{"valid: verified": 7, "acceptable: signature": 1, "invalid: signature": 250}},
	}
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			got := make(map[string]int)
			for _, g := range readGroups(t, test.file, func(g rsaGroup) int { return len(g.Tests) }) {
				verifyGroup(t, g, got)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("how many have which result and outcome (-want +got):\n%s", diff)
			}
		})
	}
}

func verifyGroup(t *testing.T, g rsaGroup, got map[string]int) {
	t.Helper()
	keys, problems, err := ParseJWKS(asSet(g.KeyJWK))
	key := keys["none"]
	if err != nil || len(problems) > 0 || key == nil {
		t.Fatalf("ParseJWKS: keys %v, problems %v, error %v, want the one with kid none", keys, problems, err)
	}
	n, e := hexNumber(t, g.PublicKey.Modulus), hexNumber(t, g.PublicKey.PublicExponent)
	if key.N.Cmp(n) != 0 || big.NewInt(int64(key.E)).Cmp(e) != 0 {
		t.Fatalf("the JWK is decoded as n %x, e %d, want %x, %d", key.N, key.E, n, e)
	}
	for _, v := range g.Tests {
		is := verified
		if verifyRS256(hexBytes(t, v.Msg), hexBytes(t, v.Sig), key) != nil {
			is = string(ErrSignature)
		}
		// What is acceptable lacks the NULL of the AlgorithmIdentifier, which RFC 8017 section 9.2 has in each encoding.
		if (is == verified) != (v.Result == "valid") {
			t.Errorf("tcId %d, %s: outcome is %s, and the vector is %s", v.ID, v.Comment, is, v.Result)
		}
		got[v.Result+": "+is]++
	}
}

func hexBytes(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hexNumber(t *testing.T, s string) *big.Int {
	t.Helper()
	return new(big.Int).SetBytes(hexBytes(t, s))
}
