package validator

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A header that is known saves the look at it, and nothing else; who knows none is told the same.
func TestKnownHeaders(t *testing.T) {
	const header = "eyJraWQiOiJrIiwiYWxnIjoiUlMyNTYifQ" // {"kid":"k","alg":"RS256"}
	rest := ".eyJpc3MiOiJpIn0.c2ln"
	for _, known := range []map[string]string{nil, {}, {header: "k"}, {"other": "x"}} {
		tok, err := parse(header+rest, known)
		if err != nil || tok.kid != "k" || tok.header != header || tok.claims["iss"] != "i" || string(tok.signature) != "sig" {
			t.Errorf("knowing %v: %+v and error %v", known, tok, err)
		}
		if _, err := parse("eyJhbGciOiJub25lIn0"+rest, known); err == nil { // {"alg":"none"}
			t.Errorf("knowing %v: alg none is accepted", known)
		}
	}
}

// What is known is bounded, and has no part of a token that somebody sent.
func TestLearn(t *testing.T) {
	v := &Validator{}
	v.headers.Store(&map[string]string{})
	for i := range 2 * maxHeaders {
		v.learn(&token{header: fmt.Sprint("header", i), kid: fmt.Sprint("kid", i)})
		v.learn(&token{header: "header0", kid: "another"})
	}
	known := *v.headers.Load()
	if len(known) != maxHeaders || known["header0"] != "kid0" || known["header999"] != "kid999" {
		t.Errorf("%d headers are known, header0 as %q, want %d and the first kids", len(known), known["header0"], maxHeaders)
	}
}

// Only a header whose token has verified is known.
func TestOnlyVerifiedHeadersAreKnown(t *testing.T) {
	v, good := fixed(t)
	forged := good[:len(good)-8] + strings.Repeat("A", 8)
	if _, err := v.Validate(t.Context(), forged); err == nil || len(*v.headers.Load()) != 0 {
		t.Errorf("a forged token: error %v and %d headers are known, want one and none", err, len(*v.headers.Load()))
	}
	for range 2 {
		if _, err := v.Validate(t.Context(), good); err != nil || len(*v.headers.Load()) != 1 {
			t.Errorf("a good token: error %v and %d headers are known, want none and one", err, len(*v.headers.Load()))
		}
	}
	if _, err := v.Validate(t.Context(), forged); err == nil {
		t.Error("with its header known, a forged token is accepted")
	}
}

// fixed returns a Validator and a token that it accepts.
func fixed(t *testing.T) (*Validator, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(Config{Issuers: []string{"i"}, AllowAnyClient: true, Keys: StaticKeys{"k": &key.PublicKey}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"kid":"k","alg":"RS256"}`)) + "." +
		enc(fmt.Appendf(nil, `{"iss":"i","token_use":"access","client_id":"c","iat":%d,"exp":%d}`, now, now+60))
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return v, signed + "." + enc(signature)
}
