package cognito

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// maxExpiresIn is the longest life of a token that is believed, in seconds. Cognito's live for a day at most (Amazon Cognito
// User Pools API Reference, AccessTokenValidity); more than a year is a mistake.
const maxExpiresIn = 366 * 24 * 60 * 60

const maxLife = maxExpiresIn * time.Second

// maxTokenBytes bounds an access token: package validator looks at none that is longer, and HTTP servers take no such
// header.
const maxTokenBytes = 16 << 10

// parseToken reads an answer of status 200 (RFC 6749 section 5.1). sentAt is when the request was sent. The errors hold
// nothing of a token.
func parseToken(contentType string, body []byte, sentAt time.Time) (*Token, error) {
	members, err := parseMembers(contentType, body)
	if err != nil {
		return nil, err
	}
	if _, ok := members["error"]; ok {
		return nil, errors.New("the answer has status 200 and an error")
	}
	access, ok := members["access_token"].(string)
	if !ok || access == "" {
		return nil, fmt.Errorf("access_token is %s, want a string", kind(members, "access_token"))
	}
	if !isBearerToken(access) {
		return nil, fmt.Errorf("access_token has %d bytes, want at most %d, of the form of a bearer token (RFC 6750 section 2.1)", len(access), maxTokenBytes)
	}
	if tokenType, ok := members["token_type"].(string); !ok || !strings.EqualFold(tokenType, "Bearer") {
		return nil, fmt.Errorf("token_type is %s, want Bearer", kind(members, "token_type"))
	}
	life, err := lifeOf(members)
	if err != nil {
		return nil, err
	}
	scopes, err := scopesOf(members)
	if err != nil {
		return nil, err
	}
	delete(members, "access_token")
	obtained := sentAt.Round(0)
	token := NewToken(access, obtained, obtained.Add(life))
	token.Scopes, token.hidden().members = scopes, members
	return token, nil
}

// b64token is the form of a bearer token (RFC 6750 section 2.1). Nothing else can be sent in a header.
var b64token = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

func isBearerToken(s string) bool { return len(s) <= maxTokenBytes && b64token.MatchString(s) }

// lifeOf reads expires_in. RFC 6749 lets an issuer leave it out, and say elsewhere how long its tokens live; Cognito never
// does. Without it nothing is known of the token's end, and a guess would either buy too many tokens or send expired ones.
func lifeOf(members map[string]any) (time.Duration, error) {
	number, ok := members["expires_in"].(json.Number)
	if !ok {
		return 0, fmt.Errorf("expires_in is %s, want a number of seconds", kind(members, "expires_in"))
	}
	seconds, err := number.Int64()
	if err != nil || seconds <= 0 || seconds > maxExpiresIn {
		return 0, fmt.Errorf("expires_in is %.20s, want whole seconds from 1 to %d", number, maxExpiresIn)
	}
	return time.Duration(seconds) * time.Second, nil
}

func scopesOf(members map[string]any) ([]string, error) {
	value, ok := members["scope"]
	if !ok || value == nil {
		return nil, nil
	}
	text, ok := value.(string)
	if !ok {
		return nil, fmt.Errorf("scope is %s, want a string", kind(members, "scope"))
	}
	var scopes []string
	for scope := range strings.SplitSeq(text, " ") {
		if scope != "" {
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

// parseMembers reads a JSON object.
func parseMembers(contentType string, body []byte) (map[string]any, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" {
		return nil, fmt.Errorf("content type is %.60q, want application/json", contentType)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, errors.New("the answer is empty, want a JSON object")
	}
	var members map[string]any
	if !decodeJSON(body, &members) || members == nil {
		return nil, errors.New("the answer is no JSON object") // the decoder's error may quote it
	}
	return members, nil
}

// decodeJSON reports whether the text is one JSON value of v's type. Numbers become json.Number.
func decodeJSON(text []byte, v any) bool {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(v); err != nil {
		return false
	}
	_, err := dec.Token()
	return err == io.EOF
}

// kind says what a member is, for an error that must not show it.
func kind(members map[string]any, name string) string {
	value, ok := members[name]
	switch value := value.(type) {
	case nil:
		if ok {
			return "null"
		}
		return "missing"
	case string:
		if value == "" {
			return "empty"
		}
		if name == "token_type" && len(value) < 20 && !looksSecret.MatchString(value) {
			return fmt.Sprintf("%q", value)
		}
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "a boolean"
	case []any:
		return "an array"
	}
	return "an object"
}

// Bounds of what an error shows of an answer.
const (
	maxBodyShown        = 4 << 10
	maxDescriptionShown = 256
)

// errorCode is the form of an error code (RFC 6749 section 5.2), and short.
var errorCode = regexp.MustCompile(`^[\x20\x21\x23-\x5B\x5D-\x7E]{1,64}$`)

var requestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// failure makes an error of the answer: err says what is wrong with it, unless it says so itself.
func (a *answer) failure(err error, hide *scrubber, now time.Time) *TokenRequestError {
	e := &TokenRequestError{
		StatusCode:   a.status,
		ResponseBody: cut(hide.body(a.body), maxBodyShown),
		RetryAfter:   retryAfter(a.header, now),
		Err:          err,
	}
	if id := a.header.Get("X-Amz-Cognito-Request-Id"); requestID.MatchString(id) && !hide.echoes(id) {
		e.RequestID = id
	}
	if members, jsonErr := parseMembers(a.contentType, a.body); jsonErr == nil {
		if code, ok := members["error"].(string); ok && errorCode.MatchString(code) && !hide.changes(code) {
			e.ErrorCode = code
			description, _ := members["error_description"].(string)
			e.ErrorDescription = cut(hide.text(description), maxDescriptionShown)
			if a.status == http.StatusOK {
				e.Err = nil // the answer says what is wrong
			}
		}
	}
	switch {
	case e.ErrorCode != "" || err != nil:
	case a.status >= 300 && a.status < 400:
		e.Err = fmt.Errorf("redirected to %s, which is not followed", redirectTarget(a.header))
	default:
		e.Err = errors.New("want status 200 or an error code")
	}
	if e.Err != nil {
		e.Err = hide.cause(e.Err) // a content type may hold anything
	}
	e.retrieve = &oauth2.RetrieveError{
		// Not the response itself: its Request has the secret.
		Response:         &http.Response{Status: hide.text(a.statusText), StatusCode: a.status, Header: hide.header(a.header), Body: http.NoBody},
		Body:             []byte(e.ResponseBody),
		ErrorCode:        e.ErrorCode,
		ErrorDescription: e.ErrorDescription,
	}
	return e
}

// redirectTarget returns scheme and host of a redirect; the rest may be anything.
func redirectTarget(h http.Header) string {
	u, err := url.Parse(h.Get("Location"))
	if err != nil || u.Host == "" {
		return "elsewhere"
	}
	return fmt.Sprintf("%.100q", u.Scheme+"://"+u.Host)
}

// cut shortens a text, at a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
