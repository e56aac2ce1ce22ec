package validator

// This file is the only one that knows jwx. What it takes from there is the decoding of an RSA key and the RS256
// signature check; the token itself is parsed by hand (token.go), since jwx's parser is more lenient than we may be.

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

var rs256 = func() jws.Verifier {
	v, err := jws.NewVerifier(jwa.RS256)
	if err != nil {
		panic(fmt.Sprintf("jwx has no RS256: %v", err)) // only another version of jwx can cause this
	}
	return v
}()

// verifyRS256 checks a signature as RFC 7518 section 3.3 says.
func verifyRS256(signed, signature []byte, key *rsa.PublicKey) error {
	return rs256.Verify(signed, signature, key)
}

// decodeRSA decodes the public key of a JWK whose kty is RSA (RFC 7518 section 6.3.1).
func decodeRSA(j object) (*rsa.PublicKey, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	k, err := jwk.ParseKey(text)
	if err != nil {
		return nil, err
	}
	var pub rsa.PublicKey
	if err := k.Raw(&pub); err != nil {
		return nil, err
	}
	return &pub, nil
}
