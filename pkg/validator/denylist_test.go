package validator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func TestDenylist(t *testing.T) {
	p, q := newPool(t), newPool(t)
	main, other := config(t, p), config(t, q)
	other.Name = "other"
	v := newValidator(t, main, other)
	const sub, jti = "somebody", "a-token"
	opts := []cognitotest.TokenOption{cognitotest.Claim("sub", sub), cognitotest.Claim("jti", jti)}
	ofMain, ofOther := p.Token(client, opts...), q.Token(client, opts...)

	tests := []struct {
		name        string
		list        []validator.Revocation
		main, other validator.Reason
	}{
		{"nothing", nil, "", ""},
		{"another client", []validator.Revocation{{ClientID: "another"}}, "", ""},
		{"client", []validator.Revocation{{ClientID: client}}, "revoked", "revoked"},
		{"client of a pool", []validator.Revocation{{Pool: "main", ClientID: client}}, "revoked", ""},
		{"client, issued before the token", []validator.Revocation{{ClientID: client, IssuedBefore: now}}, "", ""},
		{"client, issued after the token", []validator.Revocation{{ClientID: client, IssuedBefore: now.Add(time.Nanosecond)}}, "revoked", "revoked"},
		{"client, the later of two times", []validator.Revocation{
			{ClientID: client, IssuedBefore: now.Add(-time.Hour)}, {ClientID: client, IssuedBefore: now.Add(time.Hour)},
		}, "revoked", "revoked"},
		{"client, in one pool before a time and in all before another", []validator.Revocation{
			{Pool: "main", ClientID: client, IssuedBefore: now.Add(-time.Hour)}, {ClientID: client, IssuedBefore: now.Add(time.Hour)},
		}, "revoked", "revoked"},
		{"token", []validator.Revocation{{TokenID: jti}}, "revoked", "revoked"},
		{"token of a pool", []validator.Revocation{{Pool: "other", TokenID: jti}}, "", "revoked"},
		{"token named as a client", []validator.Revocation{{ClientID: jti}}, "", ""},
		{"token in another case", []validator.Revocation{{TokenID: strings.ToUpper(jti)}}, "", ""},
		{"subject", []validator.Revocation{{Subject: sub}}, "revoked", "revoked"},
		{"subject, issued after the token", []validator.Revocation{{Pool: "main", Subject: sub, IssuedBefore: now.Add(time.Second)}}, "revoked", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := v.SetDenylist(test.list); err != nil {
				t.Fatal(err)
			}
			_, err := v.Validate(t.Context(), ofMain)
			_, errOther := v.Validate(t.Context(), ofOther)
			if reasonOf(t, err) != test.main || reasonOf(t, errOther) != test.other {
				t.Errorf("%v in main and %v in other, want %q and %q", err, errOther, test.main, test.other)
			}
		})
	}
}

// An entry without an identifier in a pool that has no name must not match tokens without one.
func TestDenylistOfATokenWithoutIdentifiers(t *testing.T) {
	p := newPool(t)
	cfg := config(t, p)
	cfg.Name = ""
	v := newValidator(t, cfg)
	if err := v.SetDenylist([]validator.Revocation{{TokenID: "x"}, {Subject: "x"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Validate(t.Context(), p.Token(client, cognitotest.WithoutClaim("jti"), cognitotest.WithoutClaim("sub"))); err != nil {
		t.Errorf("%v, want it accepted", err)
	}
}

func TestSetDenylistRefuses(t *testing.T) {
	p := newPool(t)
	v := newValidator(t, config(t, p))
	if err := v.SetDenylist([]validator.Revocation{{ClientID: client, Note: "leaked"}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		r    validator.Revocation
		want string
	}{
		{"nothing named", validator.Revocation{Note: "x"}, "exactly one of"},
		{"two named", validator.Revocation{ClientID: "a", Subject: "b"}, "exactly one of"},
		{"client and token", validator.Revocation{ClientID: "a", TokenID: "b"}, "exactly one of"},
		{"token and subject", validator.Revocation{TokenID: "a", Subject: "b"}, "exactly one of"},
		{"nothing but a time", validator.Revocation{IssuedBefore: now}, "exactly one of"},
		{"three named", validator.Revocation{ClientID: "a", Subject: "b", TokenID: "c"}, "exactly one of"},
		{"token before a time", validator.Revocation{TokenID: "a", IssuedBefore: now}, "IssuedBefore stands beside TokenID"},
		{"unknown pool", validator.Revocation{Pool: "mian", ClientID: "a"}, `Pool is "mian"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := v.SetDenylist([]validator.Revocation{{ClientID: "another"}, test.r})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "revocation 1") {
				t.Errorf("%v, want %q of revocation 1", err, test.want)
			}
			// The one before stays.
			_, err = v.Validate(t.Context(), p.Token(client))
			if reasonOf(t, err) != validator.ErrRevoked || !strings.Contains(err.Error(), "leaked") {
				t.Errorf("%v, want it revoked, with the note", err)
			}
		})
	}
}

func TestRevokedSaysWhatAndWhy(t *testing.T) {
	p := newPool(t)
	v := newValidator(t, config(t, p))
	if err := v.SetDenylist([]validator.Revocation{{ClientID: client, IssuedBefore: now.Add(time.Hour), Note: "INC-1"}}); err != nil {
		t.Fatal(err)
	}
	_, err := v.Validate(t.Context(), p.Token(client))
	if c := validator.VerifiedClaims(err); c == nil || c.ClientID != client {
		t.Errorf("%v without the claims, want those of a verified token", err)
	}
	want := `validator: revoked: client_id "` + client + `" is on the denylist for tokens issued before 2026-03-01T13:00:00Z: "INC-1"`
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Forged tokens must not look as if somebody used a revoked client.
func TestDenylistIsAskedAfterTheSignature(t *testing.T) {
	p := newPool(t)
	v := newValidator(t, config(t, p))
	if err := v.SetDenylist([]validator.Revocation{{ClientID: client}}); err != nil {
		t.Fatal(err)
	}
	_, err := v.Validate(t.Context(), p.Token(client, cognitotest.SignedBy(p.ForgedKey())))
	if reasonOf(t, err) != validator.ErrSignature {
		t.Errorf("%v, want %v", err, validator.ErrSignature)
	}
}
