package interop

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf16"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// payloads have bytes that are not what RFC 8259 and RFC 7493 call JSON, or not an object, or a lot of it.
func (c *corpus) payloads(b base) {
	text := b.claims.text()
	inner := string(text[1 : len(text)-1])
	for _, v := range []member{
		{"bom", "\ufeff" + string(text)},
		{"utf-16-le-bom", utf16Text(text, false, true)},
		{"utf-16-be-bom", utf16Text(text, true, true)},
		{"utf-16-le", utf16Text(text, false, false)},
		{"utf-16-be", utf16Text(text, true, false)},
		{"utf-32-le", utf32Text(text)},
		{"space-before", " \t\r\n" + string(text)},
		{"space-after", string(text) + " \t\r\n"},
		{"nbsp-after", string(text) + "\u00a0"},
		{"form-feed-before", "\f" + string(text)},
		{"nul-after", string(text) + "\x00"},
		{"object-after", string(text) + "{}"},
		{"same-after", string(text) + string(text)},
		{"brace-after", string(text) + "}"},
		{"truncated", string(text[:len(text)-1])},
		{"empty", ""},
		{"list", "[" + string(text) + "]"},
		{"null", "null"},
		{"true", "true"},
		{"number", "1"},
		{"string", quoted(string(text))},
		{"empty-object", "{}"},
		{"trailing-comma", "{" + inner + ",}"},
		{"comment", "{" + inner + "/* c */}"},
		{"line-comment", "{" + inner + "}// c"},
		{"single-quotes", strings.ReplaceAll(string(text), `"`, "'")},
		{"unquoted-name", "{a:1," + inner + "}"},
		{"no-comma", `{"a":1 ` + inner + "}"},
		{"invalid-utf-8", "{" + inner + ",\"tenant\":\"\xff\"}"},
		{"overlong-utf-8", "{" + inner + ",\"tenant\":\"\xc0\xaf\"}"},
		{"utf-8-surrogate", "{" + inner + ",\"tenant\":\"\xed\xa0\x80\"}"},
		{"latin-1", "{" + inner + ",\"tenant\":\"\xe4\"}"},
		{"lone-high-surrogate", "{" + inner + `,"tenant":"\ud800"}`},
		{"lone-low-surrogate", "{" + inner + `,"tenant":"\udc00"}`},
		{"surrogates-swapped", "{" + inner + `,"tenant":"\udc00\ud800"}`},
		{"surrogate-pair", "{" + inner + `,"tenant":"\ud83d\ude00"}`},
		{"lone-surrogate-name", "{" + inner + `,"\ud800":1}`},
		{"control-character", "{" + inner + ",\"tenant\":\"\x01\"}"},
		{"raw-line-feed", "{" + inner + ",\"tenant\":\"a\nb\"}"},
		{"unknown-escape", "{" + inner + `,"tenant":"\x41"}`},
		{"noncharacter", "{" + inner + `,"tenant":"\uffff"}`},
		{"many-digits", "{" + inner + `,"tenant":` + strings.Repeat("9", 400) + "}"},
		{"5000-digits", "{" + inner + `,"tenant":` + strings.Repeat("9", 5000) + "}"},
		{"big-exponent", "{" + inner + `,"tenant":1e999999}`},
		{"nan", "{" + inner + `,"tenant":NaN}`},
		{"infinity", "{" + inner + `,"tenant":-Infinity}`},
		{"leading-zero", "{" + inner + `,"tenant":01}`},
		{"depth-5", "{" + inner + `,"tenant":` + nested(5) + "}"},
		{"depth-15", "{" + inner + `,"tenant":` + nested(15) + "}"},
		{"depth-16", "{" + inner + `,"tenant":` + nested(16) + "}"},
		{"depth-100", "{" + inner + `,"tenant":` + nested(100) + "}"},
		{"depth-3000", "{" + inner + `,"tenant":` + nested(3000) + "}"},
		{"10-kb", "{" + inner + `,"tenant":"` + strings.Repeat("a", 10<<10) + `"}`},
		{"20-kb", "{" + inner + `,"tenant":"` + strings.Repeat("a", 20<<10) + `"}`},
		{"500-claims", "{" + inner + claims(500) + "}"},
	} {
		c.add(b, "payload/"+v.name, b.key.Sign(b.header.text(), []byte(v.value)))
	}
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func claims(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"c` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26) + `":1`)
	}
	return b.String()
}

func utf16Text(text []byte, bigEndian, mark bool) string {
	var b bytes.Buffer
	units := utf16.Encode([]rune(string(text)))
	if mark {
		units = append([]uint16{0xfeff}, units...)
	}
	for _, u := range units {
		high, low := byte(u>>8), byte(u)
		if bigEndian {
			b.Write([]byte{high, low})
		} else {
			b.Write([]byte{low, high})
		}
	}
	return b.String()
}

func utf32Text(text []byte) string {
	var b bytes.Buffer
	for _, r := range text {
		b.Write([]byte{r, 0, 0, 0})
	}
	return b.String()
}

// headers have parameters that Cognito does not set, and others than it sets.
func (c *corpus) headers(b base) {
	kid := b.header.get("kid")
	without := b
	without.header = b.header.without("kid")
	c.add(b, "kid/missing", c.sign(without))
	for _, v := range []member{
		{"null", "null"},
		{"empty", `""`},
		{"number", "1"},
		{"true", "true"},
		{"list", "[" + kid + "]"},
		{"object", "{}"},
		{"unknown", `"unknown"`},
		{"other-key", quoted(c.pool.IDKey().ID)},
		{"longer", kid[:len(kid)-1] + `="`},
		{"no-padding", strings.Replace(kid, `="`, `"`, 1)},
		{"swapped-case", quoted(swapCase(b.key.ID))},
		{"space", kid[:len(kid)-1] + ` "`},
		{"nul", kid[:len(kid)-1] + `\u0000"`},
		{"escaped", escaped(kid)},
		{"long", quoted(strings.Repeat("k", 5000))},
		{"path", `"../../../../dev/null"`},
		{"sql", `"' OR 1=1 --"`},
		{"prototype", `"__proto__"`},
	} {
		c.param(b, "kid/"+v.name, "kid", v.value)
	}
	jwk := `{"kty":"RSA","e":"AQAB","n":` + quoted(encode(b.key.Private.N.Bytes())) + "}"
	for _, v := range []member{
		{"crit-unknown", `["x"],"x":1`},
		{"crit-exp", `["exp"],"exp":1`},
		{"crit-empty", "[]"},
		{"crit-null", "null"},
		{"crit-string", `"x"`},
		{"crit-b64", `["b64"],"b64":true`},
		{"crit-alg", `["alg"]`},
		{"crit-absent", `["x"]`},
	} {
		c.param(b, "header/"+v.name, "crit", v.value)
	}
	for _, v := range []member{
		{"b64", "false"},
		{"b64", "true"},
		{"zip", `"DEF"`},
		{"enc", `"A256GCM"`},
		{"cty", `"JWT"`},
		{"cty", `"json"`},
		{"jku", `"https://evil.example/jwks.json"`},
		{"jwk", jwk},
		{"x5u", `"https://evil.example/cert.pem"`},
		{"x5c", `["MIIB"]`},
		{"x5t", `"dGVzdA"`},
		{"x5t#S256", `"dGVzdA"`},
		{"epk", jwk},
		{"apu", `"YQ"`},
		{"p2c", "1000000000"},
		{"nonce", `"YQ"`},
		{"url", `"https://api.example.com/"`},
		{"iss", quoted(issuer)},
		{"svt", `"a"`},
		{"x", "null"},
		{"typ", `"JWT"`},
		{"typ", `"jwt"`},
		{"typ", `"at+jwt"`},
		{"typ", `"application/at+jwt"`},
		{"typ", `"AT+JWT"`},
		{"typ", `"application/jwt"`},
		{"typ", `"logout+jwt"`},
		{"typ", `"dpop+jwt"`},
		{"typ", `"JOSE"`},
		{"typ", `"JWS"`},
		{"typ", `""`},
		{"typ", "null"},
		{"typ", "1"},
		{"typ", `["JWT"]`},
	} {
		c.param(b, "header/"+v.name+"-"+slug(v.value), v.name, v.value)
	}
	c.headerTexts(b)
}

// slug makes a value fit for a name, without the globs' own characters and slashes.
func slug(value string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r == '[':
			return '('
		case r == ']':
			return ')'
		case strings.ContainsRune(`"{}:,/ `, r):
			return '_'
		}
		return r
	}, value[:min(len(value), 24)]), "_")
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r ^ 0x20
		}
		return r
	}, s)
}

func (c *corpus) headerTexts(b base) {
	text := string(b.header.text())
	for _, v := range []member{
		{"bom", "\ufeff" + text},
		{"utf-16", utf16Text([]byte(text), false, true)},
		{"space-around", " " + text + "\n"},
		{"object-after", text + "{}"},
		{"empty", ""},
		{"empty-object", "{}"},
		{"list", "[" + text + "]"},
		{"null", "null"},
		{"string", quoted(text)},
		{"trailing-comma", text[:len(text)-1] + ",}"},
		{"invalid-utf-8", text[:len(text)-1] + ",\"x\":\"\xff\"}"},
		{"upper-names", strings.NewReplacer(`"alg"`, `"ALG"`, `"kid"`, `"KID"`).Replace(text)},
		{"upper-kid-too", text[:len(text)-1] + `,"KID":"wrong"}`},
		{"upper-alg-too", text[:len(text)-1] + `,"Alg":"none"}`},
		{"nested-depth", text[:len(text)-1] + `,"x":` + nested(100) + "}"},
		{"nested-deep", text[:len(text)-1] + `,"x":` + nested(3000) + "}"},
		{"lone-surrogate", text[:len(text)-1] + `,"x":"\ud800"}`},
		{"nan", text[:len(text)-1] + `,"x":NaN}`},
	} {
		c.add(b, "header-text/"+v.name, b.key.Sign([]byte(v.value), b.claims.text()))
	}
}

// encodings write an accepted token in other ways. Its signature stays good where the encoding is what was signed.
func (c *corpus) encodings(b base) {
	token := c.sign(b)
	h, p, s := split(token)
	for _, v := range []member{
		{"space-before", " " + token},
		{"space-after", token + " "},
		{"tab-after", token + "\t"},
		{"line-feed-after", token + "\n"},
		{"crlf-after", token + "\r\n"},
		{"line-feed-in-signature", h + "." + p + "." + s[:64] + "\n" + s[64:]},
		{"crlf-in-signature", h + "." + p + "." + s[:64] + "\r\n" + s[64:]},
		{"space-in-signature", h + "." + p + "." + s[:64] + " " + s[64:]},
		{"nul-after", token + "\x00"},
		{"bom-before", "\ufeff" + token},
		{"bearer-before", "Bearer " + token},
		{"quotes", `"` + token + `"`},
		{"comma-after", token + ","},
		{"twice", token + "," + token},
		{"padding-signature", token + "=="},
		{"padding-signature-one", token + "="},
		{"padding-signature-many", token + "===="},
		{"standard-alphabet", h + "." + p + "." + strings.NewReplacer("-", "+", "_", "/").Replace(s)},
		{"percent-encoded", strings.ReplaceAll(token, ".", "%2E")},
		{"wide-point", strings.ReplaceAll(token, ".", "\uff0e")},
		{"trailing-bits-signature", h + "." + p + "." + trailingBits(s)},
		{"signature-one-character-more", token + "A"},
		{"signature-non-base64", token + "!"},
		{"signature-umlaut", token + "ä"},
		{"empty", ""},
		{"point", "."},
		{"points", ".."},
		{"word", "token"},
		{"null", "null"},
		{"no-header", "." + p + "." + s},
		{"no-payload", h + ".." + s},
		{"no-signature", h + "." + p + "."},
		{"two-parts", h + "." + p},
		{"one-part", h},
		{"four-parts", token + "." + s},
		{"four-parts-empty", token + "."},
		{"empty-first", "." + token},
		{"five-parts", token + "." + p + "." + s},
		{"jwe-shaped", encode([]byte(`{"alg":"RSA-OAEP","enc":"A256GCM"}`)) + "." + s + ".YWJj.YWJj.YWJj"},
		{"json-flattened", `{"protected":"` + h + `","payload":"` + p + `","signature":"` + s + `"}`},
		{"json-general", `{"payload":"` + p + `","signatures":[{"protected":"` + h + `","signature":"` + s + `"}]}`},
		{"header-case", strings.ToLower(h) + "." + p + "." + s},
		{"parts-swapped", p + "." + h + "." + s},
		{"17-kb", token + strings.Repeat("A", 17<<10)},
	} {
		c.add(b, "encoding/"+v.name, v.value)
	}
	c.signedEncodings(b)
}

// signedEncodings sign a part that is not encoded as RFC 7515 section 2 says.
func (c *corpus) signedEncodings(b base) {
	b.claims = b.claims.set("tenant", `"???>>>~~~"`) // has the two characters in which the alphabets differ
	header, payload := oneOver(b.header.text()), oneOver(b.claims.text())
	h, p := encode(header), encode(payload)
	c.add(b, "encoding/signed-plain", c.signText(b, h+"."+p))
	c.add(b, "encoding/signed-padding", c.signText(b, h+"."+base64.URLEncoding.EncodeToString(payload)))
	c.add(b, "encoding/signed-padding-half", c.signText(b, h+"."+p+"="))
	c.add(b, "encoding/signed-padding-header", c.signText(b, base64.URLEncoding.EncodeToString(header)+"."+p))
	c.add(b, "encoding/signed-standard-alphabet", c.signText(b, h+"."+base64.RawStdEncoding.EncodeToString(payload)))
	c.add(b, "encoding/signed-trailing-bits", c.signText(b, h+"."+trailingBits(p)))
	c.add(b, "encoding/signed-line-feed", c.signText(b, h+"."+p[:40]+"\n"+p[40:]))
	c.add(b, "encoding/signed-space", c.signText(b, h+"."+p[:40]+" "+p[40:]))
	c.add(b, "encoding/signed-non-base64", c.signText(b, h+"."+p[:40]+"!"+p[40:]))
	c.add(b, "encoding/signed-not-encoded", c.signText(b, h+"."+strings.ReplaceAll(string(payload), ".", "")))
	c.add(b, "encoding/signed-hex", c.signText(b, h+"."+strings.Repeat("7b", 10)))
	long := b
	long.claims = b.claims.set("tenant", `"`+strings.Repeat("a", validator.MaxTokenBytes)+`"`)
	c.add(b, "encoding/signed-too-long", c.sign(long))
}

// oneOver adds spaces until base64 leaves one byte over, and so bits and padding.
func oneOver(text []byte) []byte {
	for len(text)%3 != 1 {
		text = append(text, ' ')
	}
	return text
}

// trailingBits sets bits of the last character that no byte needs (RFC 4648 section 3.5).
func trailingBits(part string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, part[len(part)-1])
	return part[:len(part)-1] + string(alphabet[last|1])
}

func split(token string) (header, payload, signature string) {
	parts := strings.Split(token, ".")
	return parts[0], parts[1], parts[2]
}
