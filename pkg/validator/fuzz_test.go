package validator_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// FuzzToken changes a token in any way. Only the token itself may be accepted.
func FuzzToken(f *testing.F) {
	p := newPool(f)
	good := p.Token(client)
	v := newValidator(f, config(f, p))
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := v.Validate(t.Context(), token)
		if err == nil && token != good {
			t.Fatalf("accepted: %s", token)
		}
		if (claims == nil) != (err != nil) {
			t.Fatalf("claims %v with error %v", claims, err)
		}
		if err != nil {
			reasonOf(t, err)
		}
	})
}

// FuzzClaims signs any payload with the right key, so that nothing but the claims decides. What is accepted must
// read the same to encoding/json, which shares no code with the parser here.
func FuzzClaims(f *testing.F) {
	p := newPool(f)
	v := newValidator(f, config(f, p))
	header := []byte(`{"alg":"RS256","kid":"` + p.AccessKey().ID + `"}`)
	f.Add(mustJSON(f, p.Claims(client)))
	f.Add([]byte(`{"iss":1e999}`))
	f.Add([]byte(`{"exp":1.5e9,"iat":-0}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		claims, err := validateSigned(t, v, p, header, payload)
		if err != nil {
			return
		}
		var other map[string]any
		if err := json.Unmarshal(payload, &other); err != nil {
			t.Fatalf("accepted, and encoding/json says %v: %s", err, payload)
		}
		if other["client_id"] != client || other["iss"] != p.Issuer() || other["token_use"] != "access" {
			t.Fatalf("accepted: %s", payload)
		}
		if exp, ok := other["exp"].(float64); !ok || exp <= float64(now.Unix()) {
			t.Fatalf("accepted with exp %v", other["exp"])
		}
		if list, _ := other["scope"].(string); strings.Join(claims.Scopes, " ") != strings.Join(strings.FieldsFunc(list, func(r rune) bool { return r == ' ' }), " ") {
			t.Fatalf("scopes are %q of %q", claims.Scopes, list)
		}
	})
}

// validateSigned signs and validates. As a signature costs more than all else, it is made only for what fails for want of
// one.
func validateSigned(t *testing.T, v *validator.Validator, p *cognitotest.Pool, header, payload []byte) (*validator.Claims, error) {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	_, err := v.Validate(t.Context(), enc(header)+"."+enc(payload)+"."+enc(make([]byte, 256)))
	if reason := reasonOf(t, err); reason != validator.ErrSignature {
		return nil, err
	}
	claims, err := v.Validate(t.Context(), p.SignBytes(header, payload))
	reasonOf(t, err)
	return claims, err
}

// FuzzHeader signs any header with the right key.
func FuzzHeader(f *testing.F) {
	p := newPool(f)
	v := newValidator(f, config(f, p))
	payload := mustJSON(f, p.Claims(client))
	f.Add([]byte(`{"alg":"RS256","kid":"` + p.AccessKey().ID + `"}`))
	f.Add([]byte(`{"alg":"none"}`))
	f.Fuzz(func(t *testing.T, header []byte) {
		_, err := validateSigned(t, v, p, header, payload)
		if err != nil {
			return
		}
		var h map[string]any
		if err := json.Unmarshal(header, &h); err != nil || h["alg"] != "RS256" || h["kid"] != p.AccessKey().ID {
			t.Fatalf("accepted (%v): %s", err, header)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	p := newPool(b)
	v := newValidator(b, config(b, p))
	good := p.Token(client)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"accepted":     good,
		"bad alg":      base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2],
		"wrong issuer": p.Sign(nil, with(p.Claims(client), "iss", "https://other.example")),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = v.Validate(b.Context(), token)
			}
		})
	}
}
