package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // for a signature that nobody may take
	"crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// signText signs any signing input with RS256.
func (c *corpus) signText(b base, input string) string {
	return input + "." + encode(c.pkcs1(b.key.Private, crypto.SHA256, input))
}

func (c *corpus) pkcs1(key *rsa.PrivateKey, hash crypto.Hash, input string) []byte {
	h := hash.New()
	h.Write([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, key, hash, h.Sum(nil))
	if err != nil {
		c.t.Fatal(err)
	}
	return signature
}

func (c *corpus) pss(key *rsa.PrivateKey, input string) []byte {
	digest := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	if err != nil {
		c.t.Fatal(err)
	}
	return signature
}

// input returns the signing input of a token with another alg, which is JSON text; empty leaves it out.
func input(b base, alg string) string {
	header := b.header.without("alg")
	if alg != "" {
		header = b.header.set("alg", alg)
	}
	return encode(header.text()) + "." + encode(b.claims.text())
}

// algorithms names an algorithm other than RS256, with the signature that it makes and with that of RS256.
func (c *corpus) algorithms(b base) {
	c.add(b, "alg/missing", c.signText(b, input(b, "")))
	for _, v := range []member{
		{"null", "null"},
		{"empty", `""`},
		{"number", "256"},
		{"list", `["RS256"]`},
		{"object", "{}"},
		{"lower", `"rs256"`},
		{"title", `"Rs256"`},
		{"space", `"RS256 "`},
		{"nul", `"RS256\u0000"`},
		{"none", `"none"`},
		{"None", `"None"`},
		{"NONE", `"NONE"`},
		{"HS256", `"HS256"`},
		{"RS384", `"RS384"`},
		{"RS512", `"RS512"`},
		{"PS256", `"PS256"`},
		{"ES256", `"ES256"`},
		{"EdDSA", `"EdDSA"`},
		{"RSA", `"RSA"`},
		{"RS1", `"RS1"`},
		{"RSA-OAEP", `"RSA-OAEP"`},
		{"dir", `"dir"`},
		{"unknown", `"XS256"`},
	} {
		c.add(b, "alg/"+v.name+"-with-rs256", c.signText(b, input(b, v.value)))
		c.add(b, "alg/"+v.name+"-unsigned", input(b, v.value)+".")
	}
	c.add(b, "alg/escaped", c.signText(b, input(b, escaped(`"RS256"`))))
	c.add(b, "alg/RS384-signed", input(b, `"RS384"`)+"."+encode(c.pkcs1(b.key.Private, crypto.SHA384, input(b, `"RS384"`))))
	c.add(b, "alg/RS512-signed", input(b, `"RS512"`)+"."+encode(c.pkcs1(b.key.Private, crypto.SHA512, input(b, `"RS512"`))))
	c.add(b, "alg/RS1-signed", input(b, `"RS1"`)+"."+encode(c.pkcs1(b.key.Private, crypto.SHA1, input(b, `"RS1"`))))
	c.add(b, "alg/PS256-signed", input(b, `"PS256"`)+"."+encode(c.pss(b.key.Private, input(b, `"PS256"`))))
	c.hmacs(b)
}

// hmacs sign with the public key as if it were a secret (RFC 8725 section 2.1).
func (c *corpus) hmacs(b base) {
	pub := &b.key.Private.PublicKey
	pkix, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		c.t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(pub)
	pemOf := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for name, secret := range map[string][]byte{
		"pkix-pem":         pemOf("PUBLIC KEY", pkix),
		"pkix-pem-trimmed": []byte(strings.TrimSpace(string(pemOf("PUBLIC KEY", pkix)))),
		"pkcs1-pem":        pemOf("RSA PUBLIC KEY", pkcs1),
		"pkix-der":         pkix,
		"modulus":          pub.N.Bytes(),
		"modulus-text":     []byte(encode(pub.N.Bytes())),
		"jwks":             c.pool.JWKS(),
		"kid":              []byte(b.key.ID),
		"empty":            {},
	} {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input(b, `"HS256"`)))
		c.add(b, "alg/HS256-with-"+name, input(b, `"HS256"`)+"."+encode(mac.Sum(nil)))
	}
}

// signatures has wrong ones.
func (c *corpus) signatures(b base) {
	h, p, s := split(c.sign(b))
	text := h + "." + p
	good := c.pkcs1(b.key.Private, crypto.SHA256, text)
	flipped := func(i int) []byte {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		return bad
	}
	plusN := new(big.Int).Add(new(big.Int).SetBytes(good), b.key.Private.N).Bytes()
	for name, signature := range map[string][]byte{
		"first-bit": flipped(0), "last-bit": flipped(len(good) - 1), "truncated": good[:len(good)-1], "half": good[:len(good)/2],
		"extended": append(append([]byte(nil), good...), 0), "zero-before": append([]byte{0}, good...), "zeros": make([]byte, len(good)), "one-byte": {1},
		"one": append(make([]byte, len(good)-1), 1), "modulus": b.key.Private.N.Bytes(), "plus-modulus": plusN,
		"twice": append(append([]byte(nil), good...), good...), "sha1": c.pkcs1(b.key.Private, crypto.SHA1, text),
		"sha384": c.pkcs1(b.key.Private, crypto.SHA384, text), "sha512": c.pkcs1(b.key.Private, crypto.SHA512, text), "pss": c.pss(b.key.Private, text),
		"id-key": c.pkcs1(c.pool.IDKey().Private, crypto.SHA256, text), "forged-key": c.pkcs1(c.pool.ForgedKey().Private, crypto.SHA256, text),
		"payload-only": c.pkcs1(b.key.Private, crypto.SHA256, p), "raw-digest": c.rawDigest(b, text),
	} {
		c.add(b, "signature/"+name, text+"."+encode(signature))
	}
	changed := b
	changed.claims = b.claims.set("scope", `"orders/admin"`)
	c.add(b, "signature/payload-changed", h+"."+encode(changed.claims.text())+"."+s)
	changed = b
	changed.header = b.header.set("typ", `"JWT"`)
	c.add(b, "signature/header-changed", encode(changed.header.text())+"."+p+"."+s)
	forged := b
	forged.key = c.pool.ForgedKey()
	c.add(b, "signature/forged-key-known-kid", c.sign(forged))
	other := c.pool.IDKey()
	b.key = cognitotest.Key{ID: b.key.ID, Private: other.Private}
	c.add(b, "signature/id-key-access-kid", c.sign(b))
}

// rawDigest signs a digest without naming its hash, which is not EMSA-PKCS1-v1_5 (RFC 8017 section 9.2).
func (c *corpus) rawDigest(b base, text string) []byte {
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, b.key.Private, 0, digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	return signature
}

// rsaJWK is a public key as Cognito publishes it.
func rsaJWK(kid string, key *rsa.PublicKey) object {
	return object{
		{"alg", `"RS256"`},
		{"e", quoted(encode(big.NewInt(int64(key.E)).Bytes()))},
		{"kid", quoted(kid)},
		{"kty", `"RSA"`},
		{"n", quoted(encode(key.N.Bytes()))},
		{"use", `"sig"`},
	}
}

// privateMembers are what makes a public key a private one (RFC 7518 section 6.3.2).
func privateMembers(key *rsa.PrivateKey) object {
	number := func(n *big.Int) string { return quoted(encode(n.Bytes())) }
	pre := key.Precomputed
	return object{
		{"d", number(key.D)},
		{"p", number(key.Primes[0])},
		{"q", number(key.Primes[1])},
		{"dp", number(pre.Dp)},
		{"dq", number(pre.Dq)},
		{"qi", number(pre.Qinv)},
	}
}

func setOf(keys ...object) string {
	var texts []string
	for _, k := range keys {
		texts = append(texts, string(k.text()))
	}
	return `{"keys":[` + strings.Join(texts, ",") + "]}"
}

// keySets verify a good token with other key sets.
func (c *corpus) keySets(b base) {
	good := rsaJWK(b.key.ID, &b.key.Private.PublicKey)
	other := rsaJWK(c.pool.IDKey().ID, &c.pool.IDKey().Private.PublicKey)
	token := c.sign(b)
	with := func(name, jwks string) { c.addWithKeys(b, "jwks/"+name, token, jwks) }
	with("only-this", setOf(good))
	with("only-other", setOf(other))
	with("empty", `{"keys":[]}`)
	with("empty-object", "{}")
	with("keys-null", `{"keys":null}`)
	with("bare-list", "["+string(good.text())+"]")
	with("bare-key", string(good.text()))
	with("with-other-members", `{"keys":[`+string(good.text())+`],"next":1}`)
	with("keys-upper", `{"KEYS":[`+string(good.text())+"]}")
	with("keys-twice", `{"keys":[],"keys":[`+string(good.text())+"]}")
	with("bom", "\ufeff"+setOf(good))
	with("something-after", setOf(good)+"{}")
	for _, name := range []string{"alg", "use"} {
		with(name+"-missing", setOf(good.without(name)))
	}
	for _, v := range []struct{ name, member, value string }{
		{"alg-rs384", "alg", `"RS384"`},
		{"alg-ps256", "alg", `"PS256"`},
		{"alg-hs256", "alg", `"HS256"`},
		{"alg-es256", "alg", `"ES256"`},
		{"alg-none", "alg", `"none"`},
		{"alg-oaep", "alg", `"RSA-OAEP"`},
		{"alg-lower", "alg", `"rs256"`},
		{"alg-null", "alg", "null"},
		{"alg-empty", "alg", `""`},
		{"use-enc", "use", `"enc"`},
		{"use-null", "use", "null"},
		{"use-upper", "use", `"SIG"`},
		{"use-empty", "use", `""`},
		{"key_ops-verify", "key_ops", `["verify"]`},
		{"key_ops-encrypt", "key_ops", `["encrypt"]`},
		{"key_ops-sign", "key_ops", `["sign"]`},
		{"key_ops-empty", "key_ops", "[]"},
		{"kty-ec", "kty", `"EC"`},
		{"kty-oct", "kty", `"oct"`},
		{"kty-lower", "kty", `"rsa"`},
		{"kty-null", "kty", "null"},
		{"kid-null", "kid", "null"},
		{"kid-number", "kid", "1"},
		{"unknown-member", "x", `"y"`},
		{"x5c-garbage", "x5c", `["MIIB"]`},
		{"n-padded", "n", quoted(encode(b.key.Private.N.Bytes()) + "==")},
		{"n-zero-before", "n", quoted(encode(append([]byte{0}, b.key.Private.N.Bytes()...)))},
		{"n-garbage", "n", `"!"`},
		{"n-empty", "n", `""`},
		{"n-number", "n", "65537"},
		{"e-garbage", "e", `"!"`},
		{"e-one", "e", `"AQ"`},
		{"e-even", "e", `"Ag"`},
		{"e-number", "e", "65537"},
		{"e-zero-before", "e", `"AAEAAQ"`},

		{"private-k", "k", `"c2VjcmV0"`},
	} {
		with(v.name, setOf(good.set(v.member, v.value)))
	}
	for _, name := range []string{"kty", "n", "e", "kid"} {
		with(name+"-missing", setOf(good.without(name)))
	}
	with("private-rsa", setOf(append(slices.Clone(good), privateMembers(b.key.Private)...)))
	c.otherKeys(b, good, other)
	c.ambiguousKeys(b, good, other)
}

// otherKeys adds a key of another kind beside the good one, which must not matter (RFC 7517 section 5).
func (c *corpus) otherKeys(b base, good, other object) {
	token := c.sign(b)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		c.t.Fatal(err)
	}
	ecJWK := object{{"kty", `"EC"`}, {"crv", `"P-256"`}, {"kid", `"ec"`}, {"use", `"sig"`}, {"x", quoted(encode(point[1:33]))}, {"y", quoted(encode(point[33:]))}}
	ed, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	edJWK := object{{"kty", `"OKP"`}, {"crv", `"Ed25519"`}, {"kid", `"ed"`}, {"use", `"sig"`}, {"x", quoted(encode(ed))}}
	for _, v := range []struct {
		name string
		key  object
	}{
		{"ec", ecJWK},
		{"okp", edJWK},
		{"oct", object{{"kty", `"oct"`}, {"kid", `"oct"`}, {"k", `"c2VjcmV0"`}}},
		{"unknown-kty", object{{"kty", `"XX"`}, {"kid", `"xx"`}}},
		{"broken-rsa", object{{"kty", `"RSA"`}, {"kid", `"broken"`}, {"n", `"!"`}, {"e", `"AQAB"`}}},
		{"empty-object", object{}},
		{"no-kid", other.without("kid")},
		{"encryption", other.set("use", `"enc"`)},
	} {
		c.addWithKeys(b, "jwks/beside-"+v.name, token, setOf(v.key, good))
	}
	c.addWithKeys(b, "jwks/beside-null", token, `{"keys":[null,`+string(good.text())+"]}")
	c.addWithKeys(b, "jwks/beside-string", token, `{"keys":["key",`+string(good.text())+"]}")

	es, eddsa := b, b
	es.header = b.header.set("kid", `"ec"`)
	text := input(es, `"ES256"`)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, ec, digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	c.addWithKeys(b, "alg/ES256-signed", text+"."+encode(signature), setOf(ecJWK, good))
	eddsa.header = b.header.set("kid", `"ed"`)
	text = input(eddsa, `"EdDSA"`)
	c.addWithKeys(b, "alg/EdDSA-signed", text+"."+encode(ed25519.Sign(edPrivate, []byte(text))), setOf(edJWK, good))
	c.sizes(b, good)
}

// sizes signs with keys of sizes that RFC 7518 section 3.3 forbids and allows.
func (c *corpus) sizes(b base, good object) {
	for name, bits := range map[string]int{"1024": 1024, "2047": 2047, "3072": 3072, "4096": 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			c.t.Fatal(err)
		}
		other := b
		other.key = cognitotest.Key{ID: b.key.ID, Private: key}
		c.addWithKeys(b, "jwks/bits-"+name, c.sign(other), setOf(rsaJWK(b.key.ID, &key.PublicKey)))
		other.key.ID = "another"
		other.header = b.header.set("kid", `"another"`)
		c.addWithKeys(b, "jwks/bits-"+name+"-beside", c.sign(other), setOf(good, rsaJWK("another", &key.PublicKey)))
	}
}

// ambiguousKeys has a kid twice.
func (c *corpus) ambiguousKeys(b base, good, other object) {
	token := c.sign(b)
	impostor := other.set("kid", good.get("kid"))
	c.addWithKeys(b, "jwks/kid-twice-good-first", token, setOf(good, impostor))
	c.addWithKeys(b, "jwks/kid-twice-good-last", token, setOf(impostor, good))
	c.addWithKeys(b, "jwks/kid-twice-same", token, setOf(good, good))
	c.addWithKeys(b, "jwks/kid-twice-member", token, setOf(good.with("kid", `"other"`)))
	c.addWithKeys(b, "jwks/kid-twice-other-use", token, setOf(impostor.set("use", `"enc"`), good))
	without := b
	without.header = b.header.without("kid")
	c.addWithKeys(b, "jwks/one-key-and-no-kid-in-token", c.sign(without), setOf(good))
	c.addWithKeys(b, "jwks/one-key-and-no-kid-at-all", c.sign(without), setOf(good.without("kid")))
	empty := b
	empty.header = b.header.set("kid", `""`)
	c.addWithKeys(b, "jwks/empty-kid-in-both", c.sign(empty), setOf(good.set("kid", `""`)))
}
