package validator

import (
	"encoding/base64"
	"strings"
)

// maxKeyIDBytes bounds the kid. Cognito's have 44 bytes, thumbprints (RFC 7638) fewer than 100.
const maxKeyIDBytes = 256

// maxHeaderBytes bounds the encoded header. Cognito's has about 110 bytes.
const maxHeaderBytes = 4 << 10

// A token is a compact JWS taken apart. Nothing of it is verified.
type token struct {
	header    string // encoded
	kid       string
	claims    object
	signed    string // the JWS Signing Input (RFC 7515 section 2)
	signature []byte
}

// strictBase64 decodes base64url without padding (RFC 7515 section 2) and refuses trailing bits that are not zero,
// so that no two texts mean the same token. It skips line breaks, as all of Go's decoders do: parse forbids them.
var strictBase64 = base64.RawURLEncoding.Strict()

// parse takes a compact JWS apart and checks its header, unless it is among those known already by the kid that they have.
func parse(compact string, known map[string]string) (*token, error) {
	if len(compact) > MaxTokenBytes {
		return nil, refuse(ErrMalformed, "token has %d bytes, want at most %d", len(compact), MaxTokenBytes)
	}
	if n := strings.Count(compact, "."); n != 2 {
		return nil, refuse(ErrMalformed, "token has %d parts, want the 3 of a compact JWS", n+1)
	}
	if strings.Contains(compact, "\r") || strings.Contains(compact, "\n") {
		return nil, refuse(ErrMalformed, "token has a line break")
	}
	end := strings.LastIndexByte(compact, '.')
	signed, signature := compact[:end], compact[end+1:]
	encodedHeader, payload, _ := strings.Cut(signed, ".")
	if len(encodedHeader) > maxHeaderBytes {
		return nil, refuse(ErrMalformed, "header has %d bytes, want at most %d", len(encodedHeader), maxHeaderBytes)
	}
	t := &token{header: encodedHeader, kid: known[encodedHeader], signed: signed}
	var err error
	if t.kid == "" {
		header, err := decodePart("header", encodedHeader, maxHeaderValues)
		if err != nil {
			return nil, err
		}
		if t.kid, err = checkHeader(header); err != nil {
			return nil, err
		}
	}
	if t.claims, err = decodePart("payload", payload, maxClaims); err != nil {
		return nil, err
	}
	if t.signature, err = strictBase64.DecodeString(signature); err != nil || len(t.signature) == 0 {
		return nil, refuse(ErrMalformed, "signature is empty or no unpadded base64url")
	}
	return t, nil
}

// decodePart decodes a part that is a JSON object of at most so many values.
func decodePart(name, part string, most int) (object, error) {
	text, err := strictBase64.DecodeString(part)
	if err != nil {
		return nil, refuse(ErrMalformed, "%s is no unpadded base64url", name)
	}
	o, err := parseObject(text, most)
	if err != nil {
		return nil, refuse(ErrMalformed, "%s is %v", name, err)
	}
	return o, nil
}

// forbidden are the header parameters that change what the signature covers, bring a key of the token's own, or
// make it another kind of token. Cognito sets none of them, and taking no notice of them is how tokens get forged
// (RFC 8725 sections 2.10 and 3.10; RFC 7515 sections 4.1.2 to 4.1.11; RFC 7797; RFC 7516).
var forbidden = []string{"crit", "b64", "zip", "enc", "cty", "jku", "jwk", "x5u", "x5c", "epk"}

// checkHeader checks the JOSE header and returns its kid.
func checkHeader(h object) (kid string, err error) {
	alg, ok := h["alg"].(string)
	if !ok {
		return "", refuse(ErrAlgorithm, "header has no alg that is a string, want RS256")
	}
	if alg != "RS256" {
		return "", refuse(ErrAlgorithm, "alg is another than RS256")
	}
	for _, name := range forbidden {
		if _, ok := h[name]; ok {
			return "", refuse(ErrMalformed, "header has %s, which is not accepted", name)
		}
	}
	if typ, ok := h["typ"]; ok && !acceptedType(typ) {
		return "", refuse(ErrMalformed, "typ is not JWT or at+jwt")
	}
	kid, ok = h["kid"].(string)
	if !ok || kid == "" || len(kid) > maxKeyIDBytes {
		return "", refuse(ErrMalformed, "header has no kid that is a string of 1 to %d bytes", maxKeyIDBytes)
	}
	return kid, nil
}

// acceptedType reports whether typ names a JWT. Cognito sends none; other typed tokens that the same keys might
// sign one day, such as logout tokens, are something else (RFC 8725 section 3.11, RFC 9068 section 4).
func acceptedType(typ any) bool {
	s, ok := typ.(string)
	if len(s) > len("application/at+jwt") {
		return false
	}
	s = strings.ToLower(s)
	s = strings.TrimPrefix(s, "application/") // RFC 7515 section 4.1.9: it may be left out
	return ok && (s == "jwt" || s == "at+jwt")
}
