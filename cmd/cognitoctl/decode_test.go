package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59*time.Second + 400*time.Millisecond: "59s", time.Minute: "1m 0s", 61 * time.Minute: "1h 1m",
		25 * time.Hour: "1d 1h", 400 * 24 * time.Hour: "400d 0h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: found %q, want %q", d, got, want)
		}
	}
}

func TestTakeToken(t *testing.T) {
	for text, want := range map[string]string{
		"a.b.c":                       "a.b.c",
		"Bearer a.b.c":                "a.b.c",
		"bearer  a.b.c":               "a.b.c",
		"Authorization: Bearer a.b.c": "a.b.c",
		"authorization:a.b.c":         "a.b.c",
		`{"access_token":"a.b.c","expires_in":3600}`:  "a.b.c",
		`{"id_token":"i.d.t"}`:                        "i.d.t",
		`{"id_token":"i.d.t","access_token":"a.b.c"}`: "a.b.c",
		`{"token":"a.b.c"}`:                           "a.b.c",
		`{"error":"invalid_client"}`:                  "",
		"Basic abc":                                   "Basic abc",
	} {
		if got := takeToken(text); got != want {
			t.Errorf("%s: found %q, want %q", text, got, want)
		}
	}
}

// FuzzDecode holds that what anybody may have written is shown without a panic, and without control characters that would
// steer the terminal.
func FuzzDecode(f *testing.F) {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for _, payload := range []string{
		`{"sub":"x","exp":1,"iat":1e99,"nbf":"x","scope":"a b","aud":["x",1],"n":null,"o":{"a":[]}}`, `{"a":"\u001b[31m"}`, `{"a":1,"a":2}`, `{"exp":1e308}`, `{`, `[]`, ` {}`,
	} {
		f.Add(part(`{"alg":"RS256"}`) + "." + part(payload) + ".x")
	}
	f.Add("Bearer a.b.c")
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		d, err := decode(takeToken(strings.TrimSpace(text)))
		if err != nil {
			return
		}
		if !json.Valid(d.Header) || !json.Valid(d.Claims) {
			t.Errorf("found %s and %s, want JSON", d.Header, d.Claims)
		}
		for _, line := range d.claims(now, "") {
			if strings.ContainsFunc(line.name+line.value, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
				t.Errorf("found %q: %q, want no control characters", line.name, line.value)
			}
		}
	})
}
