package cognito

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const jsonType = "application/json;charset=UTF-8"

var sentAt = time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)

// wrong lists answers of status 200 that are none, with what is said of them. Tokens in them are called canary.
var wrong = map[string]struct{ contentType, body, want string }{
	"no body":                 {jsonType, ``, "the answer is empty, want a JSON object"},
	"white space":             {jsonType, " \n", "the answer is empty, want a JSON object"},
	"HTML":                    {"text/html", `<html>Sign in to the guest network</html>`, `content type is "text/html", want application/json`},
	"HTML that says JSON":     {jsonType, `<html>Sign in to the guest network</html>`, "the answer is no JSON object"},
	"JSON that says text":     {"text/plain", `{"access_token":"canary","expires_in":3600,"token_type":"Bearer"}`, `content type is "text/plain", want application/json`},
	"no content type":         {"", `{"access_token":"canary","expires_in":3600,"token_type":"Bearer"}`, `content type is "", want application/json`},
	"a form":                  {"application/x-www-form-urlencoded", `access_token=canary&expires_in=3600&token_type=Bearer`, `content type is "application/x-www-form-urlencoded", want application/json`},
	"null":                    {jsonType, `null`, "the answer is no JSON object"},
	"an array":                {jsonType, `["canary"]`, "the answer is no JSON object"},
	"a string":                {jsonType, `"canary"`, "the answer is no JSON object"},
	"cut":                     {jsonType, `{"access_token":"canary`, "the answer is no JSON object"},
	"two objects":             {jsonType, `{"access_token":"canary","expires_in":3600,"token_type":"Bearer"}{}`, "the answer is no JSON object"},
	"a brace too many":        {jsonType, `{"access_token":"canary","expires_in":3600,"token_type":"Bearer"}}`, "the answer is no JSON object"},
	"an empty object":         {jsonType, `{}`, "access_token is missing, want a string"},
	"token missing":           {jsonType, `{"expires_in":3600,"token_type":"Bearer"}`, "access_token is missing, want a string"},
	"token in capitals":       {jsonType, `{"Access_Token":"canary","expires_in":3600,"token_type":"Bearer"}`, "access_token is missing, want a string"},
	"token null":              {jsonType, `{"access_token":null,"expires_in":3600,"token_type":"Bearer"}`, "access_token is null, want a string"},
	"token empty":             {jsonType, `{"access_token":"","expires_in":3600,"token_type":"Bearer"}`, "access_token is empty, want a string"},
	"token a number":          {jsonType, `{"access_token":5,"expires_in":3600,"token_type":"Bearer"}`, "access_token is a number, want a string"},
	"token an object":         {jsonType, `{"access_token":{"value":"canary"},"expires_in":3600,"token_type":"Bearer"}`, "access_token is an object, want a string"},
	"token with a line end":   {jsonType, `{"access_token":"canary\r\nX-Admin: 1","expires_in":3600,"token_type":"Bearer"}`, "access_token has 18 bytes, want at most 16384, of the form of a bearer token (RFC 6750 section 2.1)"},
	"token with a space":      {jsonType, `{"access_token":"canary canary","expires_in":3600,"token_type":"Bearer"}`, "access_token has 13 bytes, want at most 16384, of the form of a bearer token (RFC 6750 section 2.1)"},
	"token too long":          {jsonType, `{"access_token":"` + strings.Repeat("c", 16<<10+1) + `","expires_in":3600,"token_type":"Bearer"}`, "access_token has 16385 bytes, want at most 16384, of the form of a bearer token (RFC 6750 section 2.1)"},
	"type missing":            {jsonType, `{"access_token":"canary","expires_in":3600}`, "token_type is missing, want Bearer"},
	"type MAC":                {jsonType, `{"access_token":"canary","expires_in":3600,"token_type":"mac"}`, `token_type is "mac", want Bearer`},
	"type DPoP":               {jsonType, `{"access_token":"canary","expires_in":3600,"token_type":"DPoP"}`, `token_type is "DPoP", want Bearer`},
	"type a token":            {jsonType, `{"access_token":"canary","expires_in":3600,"token_type":"canarycanarycanarycanary"}`, "token_type is a string, want Bearer"},
	"expires_in missing":      {jsonType, `{"access_token":"canary","token_type":"Bearer"}`, "expires_in is missing, want a number of seconds"},
	"expires_in a string":     {jsonType, `{"access_token":"canary","expires_in":"3600","token_type":"Bearer"}`, "expires_in is a string, want a number of seconds"},
	"expires_in true":         {jsonType, `{"access_token":"canary","expires_in":true,"token_type":"Bearer"}`, "expires_in is a boolean, want a number of seconds"},
	"expires_in an array":     {jsonType, `{"access_token":"canary","expires_in":[3600],"token_type":"Bearer"}`, "expires_in is an array, want a number of seconds"},
	"expires_in zero":         {jsonType, `{"access_token":"canary","expires_in":0,"token_type":"Bearer"}`, "expires_in is 0, want whole seconds from 1 to 31622400"},
	"expires_in negative":     {jsonType, `{"access_token":"canary","expires_in":-1,"token_type":"Bearer"}`, "expires_in is -1, want whole seconds from 1 to 31622400"},
	"expires_in a fraction":   {jsonType, `{"access_token":"canary","expires_in":3600.5,"token_type":"Bearer"}`, "expires_in is 3600.5, want whole seconds from 1 to 31622400"},
	"expires_in absurd":       {jsonType, `{"access_token":"canary","expires_in":1893456000,"token_type":"Bearer"}`, "expires_in is 1893456000, want whole seconds from 1 to 31622400"},
	"expires_in an overflow":  {jsonType, `{"access_token":"canary","expires_in":99999999999999999999999999,"token_type":"Bearer"}`, "expires_in is 99999999999999999999, want whole seconds from 1 to 31622400"},
	"expires_in 1e400":        {jsonType, `{"access_token":"canary","expires_in":1e400,"token_type":"Bearer"}`, "expires_in is 1e400, want whole seconds from 1 to 31622400"},
	"scope no string":         {jsonType, `{"access_token":"canary","expires_in":3600,"token_type":"Bearer","scope":["a"]}`, "scope is an array, want a string"},
	"an error with a token":   {jsonType, `{"access_token":"canary","expires_in":3600,"token_type":"Bearer","error":7}`, "the answer has status 200 and an error"},
	"a type that is no type":  {"application/", `{"access_token":"canary","expires_in":3600,"token_type":"Bearer"}`, `content type is "application/", want application/json`},
	"JSON of another charset": {jsonType, "\xff\xfe{\x00}\x00", "the answer is no JSON object"},
}

func TestParseToken(t *testing.T) {
	const good = `{"access_token":"abc.def-_~+/==","expires_in":3600,"token_type":"Bearer"}`
	for name, tc := range map[string]struct{ contentType, body string }{
		"as Cognito writes it":   {jsonType, good},
		"as RFC 6749 writes it":  {"application/json", " \n" + good + "\n"},
		"with a type in capital": {"Application/JSON; charset=utf-8", good},
		"with type in lower":     {jsonType, strings.Replace(good, "Bearer", "bearer", 1)},
		"with no scope":          {jsonType, strings.Replace(good, `{`, `{"scope":null,`, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseToken(tc.contentType, []byte(tc.body), sentAt)
			if err != nil {
				t.Fatal(err)
			}
			want := NewToken("abc.def-_~+/==", sentAt, sentAt.Add(time.Hour))
			want.hidden().members = map[string]any{"expires_in": json.Number("3600"), "token_type": got.Extra("token_type")}
			if name == "with no scope" {
				want.hidden().members["scope"] = nil
			}
			reveal := cmp.Comparer(func(a, b func() *hidden) bool { return cmp.Equal(*a(), *b(), cmp.AllowUnexported(hidden{})) })
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Token{}), reveal); diff != "" {
				t.Errorf("token (-want +got):\n%s", diff)
			}
		})
	}
	longest := strings.Repeat("a", 16<<10)
	if got, err := parseToken(jsonType, []byte(strings.Replace(good, "abc", longest[11:], 1)), sentAt); err != nil || len(got.AccessToken()) != 16<<10 {
		t.Errorf("got %v, %v, want the longest token accepted", got, err)
	}
	for name, tc := range wrong {
		t.Run(name, func(t *testing.T) {
			got, err := parseToken(tc.contentType, []byte(tc.body), sentAt)
			if got != nil || err == nil || err.Error() != tc.want {
				t.Errorf("got %v, %v, want %s", got, err, tc.want)
			}
		})
	}
}

func TestMembersOfAnAnswer(t *testing.T) {
	token, err := parseToken(jsonType, []byte(`{"id_token":"i","access_token":"a","refresh_token":"r","expires_in":300,"token_type":"Bearer","scope":"openid  orders/read","more":[1]}`), sentAt.In(time.FixedZone("x", 3600)))
	if err != nil {
		t.Fatal(err)
	}
	if token.Extra("id_token") != "i" || token.Extra("refresh_token") != "r" || token.Extra("expires_in") != json.Number("300") {
		t.Errorf("further members are %v, %v and %v, want i, r and 300", token.Extra("id_token"), token.Extra("refresh_token"), token.Extra("expires_in"))
	}
	if token.Extra("access_token") != nil || token.Extra("none") != nil || new(Token).Extra("id_token") != nil {
		t.Error("the access token, or what is not there, is a further member, want it none")
	}
	if diff := cmp.Diff([]string{"openid", "orders/read"}, token.Scopes); diff != "" {
		t.Errorf("scopes (-want +got):\n%s", diff)
	}
	if token.ObtainedAt.Location() != time.UTC || !token.ObtainedAt.Equal(sentAt) {
		t.Errorf("it was obtained at %v, want %v", token.ObtainedAt, sentAt)
	}
	o := token.OAuth2()
	if o.AccessToken != "a" || o.TokenType != "Bearer" || !o.Expiry.Equal(token.Expiry) || o.ExpiresIn != 300 || o.Extra("id_token") != "i" {
		t.Errorf("package oauth2 has %+v, want the same token", o)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for name, tc := range map[string]struct {
		header, date string
		want         time.Duration
	}{
		"none":                           {"", "", 0},
		"seconds":                        {"7", "", 7 * time.Second},
		"no seconds":                     {"0", "", 0},
		"an hour":                        {"3600", "", time.Minute},
		"more than a number can be":      {"99999999999999999999", "", time.Minute},
		"negative":                       {"-5", "", 0},
		"a fraction":                     {"1.5", "", 0},
		"words":                          {"later", "", 0},
		"a date":                         {date(9 * time.Second), "", 9 * time.Second},
		"a date in the past":             {date(-9 * time.Second), "", 0},
		"a date far away":                {date(9 * time.Hour), "", time.Minute},
		"a date of a clock that is fast": {date(time.Hour + 9*time.Second), date(time.Hour), 9 * time.Second},
		"a date in the form of RFC 850":  {now.Add(9 * time.Second).Format("Monday, 02-Jan-06 15:04:05 GMT"), "", 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{"Retry-After": {tc.header}, "Date": {tc.date}}
			if got := retryAfter(h, now); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(jsonType, []byte(`{"access_token":"abc","expires_in":3600,"token_type":"Bearer","scope":"a b"}`))
	for _, tc := range wrong {
		f.Add(tc.contentType, []byte(tc.body))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		token, err := parseToken(contentType, body, sentAt)
		if (token == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of them", token, err)
		}
		if err != nil {
			return
		}
		if life := token.Expiry.Sub(token.ObtainedAt); life <= 0 || life > maxLife {
			t.Errorf("the token lives for %v", life)
		}
		req, err := http.NewRequest(http.MethodGet, "http://127.0.0.1/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", token.Authorization())
		var sent bytes.Buffer
		if err := req.Write(&sent); err != nil || !bytes.Contains(sent.Bytes(), []byte("\r\nAuthorization: Bearer "+token.AccessToken()+"\r\n")) {
			t.Errorf("the token cannot be sent: %v", err)
		}
		var members map[string]any
		if err := json.Unmarshal(body, &members); err != nil {
			t.Errorf("a token from what is no JSON: %v", err)
		}
	})
}
