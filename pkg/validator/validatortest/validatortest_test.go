package validatortest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
	"github.com/cognito-extauthz/extauthz/pkg/validator/validatortest"
)

func TestIgnoreExpiry(t *testing.T) {
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := s.Pools()[0]
	keys, _, err := validator.ParseJWKS(p.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	cfg := validator.Config{Issuers: []string{p.Issuer()}, ClientIDs: []string{cognitotest.DemoClientID}, Keys: keys}
	expired := p.Token(cognitotest.DemoClientID, cognitotest.IssuedAt(time.Now().Add(-48*time.Hour)))
	forged := p.Token(cognitotest.DemoClientID, cognitotest.IssuedAt(time.Now().Add(-48*time.Hour)), cognitotest.SignedBy(p.ForgedKey()))

	for _, test := range []struct {
		name  string
		cfg   validator.Config
		token string
		want  error
	}{
		{"checked", cfg, expired, validator.ErrExpired},
		{"ignored", validatortest.IgnoreExpiry(t, cfg), expired, nil},
		{"ignored, and forged", validatortest.IgnoreExpiry(t, cfg), forged, validator.ErrSignature},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := validator.New(test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Validate(t.Context(), test.token); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}
