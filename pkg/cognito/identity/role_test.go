package identity

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSelectRole(t *testing.T) {
	const other = "arn:aws:iam::210987654321:role/Analyst"
	tests := []struct {
		name    string
		roles   []string
		suffix  string
		want    string
		matches []string // of the error
		text    string   // of the error
	}{
		{"one of two", []string{analyst, admin}, "Admin", admin, nil, ""},
		{"by its path", []string{analyst, admin}, "/teams/Admin", admin, nil, ""},
		{"by its whole ARN", []string{analyst, admin}, analyst, analyst, nil, ""},
		{"the same role of two groups", []string{analyst, admin, analyst}, "Analyst", analyst, nil, ""},
		{"the only one, by nothing", []string{analyst}, "", analyst, nil, ""},
		{"none of two", []string{analyst, admin}, "Owner", "", nil, `identity: none of the user's roles ends in "Owner", want one of: ` + analyst + ", " + admin},
		{"case counts", []string{analyst}, "analyst", "", nil, `identity: none of the user's roles ends in "analyst", want one of: ` + analyst},
		{"a part that is not the end", []string{admin}, "teams", "", nil, `identity: none of the user's roles ends in "teams", want one of: ` + admin},
		{"none at all", nil, "Admin", "", nil, "identity: the user has no roles, want one that ends in \"Admin\"\nhint: roles come from the user's groups; is the user in one, and does it have a role?"},
		{"the same name in two accounts", []string{analyst, other, admin}, "/Analyst", "", []string{analyst, other}, `identity: 2 of the user's roles end in "/Analyst", want one: ` + analyst + ", " + other},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := SelectRole(tc.roles, tc.suffix)
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if tc.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *RoleError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a *RoleError", err)
			}
			if diff := cmp.Diff(&RoleError{tc.suffix, tc.matches, tc.roles}, e); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if e.Error() != tc.text {
				t.Errorf("text is %q, want %q", e.Error(), tc.text)
			}
		})
	}
}

// A suffix that does not select one role costs no request.
func TestRoleErrorComesBeforeRequests(t *testing.T) {
	p, s := newProvider(t, func(c *Config) { c.RoleSuffix = "Owner" })
	_, err := p.Credentials(t.Context())
	var e *RoleError
	if !errors.As(err, &e) || len(s.requests) != 0 {
		t.Errorf("got %v after %d requests, want a *RoleError and none", err, len(s.requests))
	}
}

func TestReadClaims(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	all := claims{"https://" + logins, "jane", "7a8b9c0d1e2f3g4h5i6j7k8", []string{analyst, admin}, analyst, time.Unix(4102444800, 0).UTC()}
	with := func(edit func(*claims)) claims {
		c := all
		edit(&c)
		return c
	}
	tests := []struct {
		name  string
		token string
		want  claims
		err   string
	}{
		{"Cognito's", token(), all, ""},
		{"of a user without groups", token(without("cognito:roles"), without("cognito:preferred_role")), with(func(c *claims) { c.roles, c.preferred = nil, "" }), ""},
		{"with null for roles", token(claim("cognito:roles", nil)), with(func(c *claims) { c.roles = nil }), ""},
		{"with an end that is no number", token(claim("exp", "tomorrow")), with(func(c *claims) { c.expires = time.Time{} }), ""},
		{"with a list of audiences", token(claim("aud", []string{"a"})), with(func(c *claims) { c.client = "" }), ""},
		{"with a claim in another case", token(claim("SUB", "john")), all, ""},
		{"an access token", token(claim("token_use", "access")), claims{}, `identity: token_use is "access", want "id": identity pools take ID tokens`},
		{"without a use", token(without("token_use")), claims{}, `identity: token_use is "", want "id": identity pools take ID tokens`},
		{"without sub", token(without("sub")), claims{}, "identity: ID token has no iss or no sub, want both"},
		{"without iss", token(without("iss")), claims{}, "identity: ID token has no iss or no sub, want both"},
		{"with sub in another case only", token(without("sub"), claim("Sub", "jane")), claims{}, "identity: ID token has no iss or no sub, want both"},
		{"with a sub that is no string", token(claim("sub", 1)), claims{}, "identity: ID token's sub has the wrong type"},
		{"with one role that is no list", token(claim("cognito:roles", analyst)), claims{}, "identity: ID token's cognito:roles has the wrong type"},
		{"with a preferred role that is a list", token(claim("cognito:preferred_role", []string{analyst})), claims{}, "identity: ID token's cognito:preferred_role has the wrong type"},
		{"empty", "", claims{}, "identity: ID token has 1 parts, want the 3 of a compact JWS"},
		{"encrypted", "a.b.c.d.e", claims{}, "identity: ID token has 5 parts, want the 3 of a compact JWS"},
		{"not in base64url", "e30.+/+/.x", claims{}, "identity: ID token's payload is not base64url"},
		{"not JSON", "e30." + part("CANARY") + ".x", claims{}, "identity: ID token's payload is no JSON object"},
		{"a list", "e30." + part(`["CANARY"]`) + ".x", claims{}, "identity: ID token's payload is no JSON object"},
		{"null", "e30." + part(`null`) + ".x", claims{}, `identity: token_use is "", want "id": identity pools take ID tokens`},
		{"as long as may be", long(0), all, ""},
		{"too long", long(1), claims{}, "identity: ID token has 49153 bytes, want at most 49152"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readClaims(tc.token)
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(claims{})); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			switch {
			case tc.err == "" && err != nil:
				t.Error(err)
			case tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)):
				t.Errorf("got %v, want %q", err, tc.err)
			}
		})
	}
}

// long returns an ID token of 48 KiB and more.
func long(more int) string {
	t := token()
	return t + strings.Repeat("x", 48<<10-len(t)+more)
}

func FuzzReadClaims(f *testing.F) {
	f.Add(token())
	f.Add(token(claim("exp", 1e300), claim("aud", []int{1})))
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := readClaims(text)
		if err == nil && (c.issuer == "" || c.subject == "") {
			t.Errorf("accepted %q without iss or sub", text)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "identity: ") {
			t.Errorf("error is %q, want the package's name first", err)
		}
	})
}
