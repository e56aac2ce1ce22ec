package cognito

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseChallenges(t *testing.T) {
	type p = map[string]string
	for value, want := range map[string][]challenge{
		``:                             nil,
		` , ,`:                         nil,
		`Bearer`:                       {{"Bearer", nil}},
		`Bearer error="invalid_token"`: {{"Bearer", p{"error": "invalid_token"}}},
		`bearer ERROR=invalid_token`:   {{"bearer", p{"error": "invalid_token"}}},
		`Bearer realm="a, b=\"c\"", error = "invalid_token"`:                            {{"Bearer", p{"realm": `a, b="c"`, "error": "invalid_token"}}},
		`Bearer realm="x",error="invalid_token",error="other"`:                          {{"Bearer", p{"realm": "x", "error": "invalid_token"}}},
		`Bearer ,realm="x" , ,error="invalid_token",`:                                   {{"Bearer", p{"realm": "x", "error": "invalid_token"}}},
		`Basic realm="x", Bearer error="invalid_token"`:                                 {{"Basic", p{"realm": "x"}}, {"Bearer", p{"error": "invalid_token"}}},
		`Bearer, Basic realm="x"`:                                                       {{"Bearer", nil}, {"Basic", p{"realm": "x"}}},
		`Negotiate YWJj/+==, Bearer error="invalid_token"`:                              {{"Negotiate", nil}, {"Bearer", p{"error": "invalid_token"}}},
		`Negotiate abc=, Bearer error="invalid_token"`:                                  {{"Negotiate", nil}, {"Bearer", p{"error": "invalid_token"}}},
		`Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple"`: {{"Newauth", p{"realm": "apps", "type": "1", "title": `Login to "apps"`}}, {"Basic", p{"realm": "simple"}}}, // RFC 9110 section 11.6.1
		// What is no challenge ends it.
		`Bearer error="invalid_token`:             {{"Bearer", nil}},
		`Bearer error="invalid_token\`:            {{"Bearer", nil}},
		`Bearer realm="x" error="invalid_token"`:  {{"Bearer", p{"realm": "x"}}},
		`Bearer realm="x" Basic realm="y"`:        {{"Bearer", p{"realm": "x"}}},
		`Bearer error=`:                           {{"Bearer", nil}},
		`"Bearer" error="invalid_token"`:          nil,
		`Bearer=error`:                            nil,
		`error="invalid_token"`:                   nil,
		"Bearer\terror=\"invalid_token\"":         {{"Bearer", p{"error": "invalid_token"}}},
		`Bearer error="invalid_token"; realm="x"`: {{"Bearer", p{"error": "invalid_token"}}},
	} {
		if diff := cmp.Diff(want, parseChallenges(value), cmp.AllowUnexported(challenge{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", value, diff)
		}
	}
}

func TestInvalidToken(t *testing.T) {
	for name, tc := range map[string]struct {
		values []string
		want   bool
	}{
		"none":                     {nil, false},
		"bearer":                   {[]string{`Bearer realm="x", error="invalid_token", error_description="expired"`}, true},
		"bearer in the second":     {[]string{`Basic realm="x"`, `Bearer error="invalid_token"`}, true},
		"bearer behind another":    {[]string{`Basic realm="x", bEARER error=invalid_token`}, true},
		"another error":            {[]string{`Bearer error="insufficient_scope"`}, false},
		"no error":                 {[]string{`Bearer realm="x"`}, false},
		"another scheme's":         {[]string{`DPoP error="invalid_token", Bearer realm="x"`}, false},
		"in a quoted realm":        {[]string{`Basic realm="Bearer error=\"invalid_token\""`}, false},
		"in a realm with commas":   {[]string{`Basic realm=", Bearer error=invalid_token"`}, false},
		"with the code in capital": {[]string{`Bearer error="INVALID_TOKEN"`}, false},
	} {
		if got := invalidToken(tc.values); got != tc.want {
			t.Errorf("%s: %q: got %v, want %v", name, tc.values, got, tc.want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	for _, seed := range []string{
		``, `Bearer`, `Bearer realm="x", error="invalid_token"`, `Negotiate abc==, Bearer error=invalid_token`, `Basic realm="a\"b", , Bearer`, `a b=c,d e=f`, `Bearer error="`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		all := parseChallenges(value)
		if len(all) > len(value) {
			t.Errorf("%d challenges in %d bytes", len(all), len(value))
		}
		for _, c := range all {
			if c.scheme == "" || strings.Trim(c.scheme, tchar) != "" {
				t.Errorf("scheme is %q, want a token", c.scheme)
			}
			for name := range c.params {
				if name == "" || strings.Trim(name, tchar) != "" || name != strings.ToLower(name) {
					t.Errorf("a parameter is called %q, want a token in lower case", name)
				}
			}
		}
		if invalidToken([]string{value}) && !strings.Contains(strings.ToLower(value), "bearer") {
			t.Error("invalid_token of no bearer challenge")
		}
		// A challenge that stands before others is found whatever follows it.
		if !invalidToken([]string{`Bearer error="invalid_token", ` + value}) {
			t.Error("what follows hides a challenge")
		}
	})
}
