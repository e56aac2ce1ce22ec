package validator

// This file is the only one that knows jwx. What it takes from there is the RS256 signature check; tokens and keys are
// parsed by hand (token.go, jwks.go), since jwx's parsers are more lenient than we may be.

import (
	"crypto/rsa"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
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
