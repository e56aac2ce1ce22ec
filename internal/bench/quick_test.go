package main

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func testSigner(tb testing.TB) *quickSigner {
	tb.Helper()
	m, err := newMint(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.close)
	s, err := newQuickSigner(m, 1)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// What is signed quickly verifies by the standard library, and is as long as what the mint signs.
func TestQuickSigner(t *testing.T) {
	s := testSigner(t)
	if n := s.n.BitLen(); n != 2048 {
		t.Errorf("the key has %d bits, want 2048", n)
	}
	for i := range 20 {
		token := s.token(i)
		signed, tail, _ := strings.Cut(token[strings.Index(token, ".")+1:], ".")
		signature, err := base64.RawURLEncoding.DecodeString(tail)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte(s.header + "." + signed))
		if err := rsa.VerifyPKCS1v15(&rsa.PublicKey{N: s.n, E: quickExponent}, crypto.SHA256, digest[:], signature); err != nil {
			t.Fatalf("token %d: %v", i, err)
		}
		if again := s.token(i); again != token {
			t.Errorf("token %d is another the second time", i)
		}
		if other := s.token(i + 1000); len(other) != len(token) || other == token {
			t.Errorf("token %d is not another of the same length than token %d", i+1000, i)
		}
	}
	claims, err := s.validator.Validate(t.Context(), s.token(7))
	if err != nil || !strings.HasSuffix(claims.ClientID, "0007") || !strings.HasSuffix(claims.TokenID, "000000000007") {
		t.Errorf("claims %+v, error %v", claims, err)
	}
	if _, err := s.validator.Validate(t.Context(), forged(s.token(7), 1)); validator.RetryAfter(err) != 0 || err == nil {
		t.Errorf("a forged one has error %v", err)
	}
}

func BenchmarkQuickToken(b *testing.B) {
	s := testSigner(b)
	i := 0
	for b.Loop() {
		_ = s.token(i)
		i++
	}
}
