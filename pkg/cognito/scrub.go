package cognito

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// concealed stands for a secret.
const concealed = "[…]"

// A scrubber takes secrets and tokens out of what a server says: those that were sent, which a server may echo, and what
// looks like one.
type scrubber struct {
	exact []string // the longest first
}

// secretParams are parameters of requests whose values are secret (RFC 6749, RFC 7009, RFC 7636, and Cognito's own, which
// may carry anything).
var secretParams = []string{"client_secret", "code", "code_verifier", "refresh_token", "token", "password", "client_assertion", "assertion", "aws_client_metadata"}

// minSecretBytes is the length from which what was sent is taken for a secret: less would blank out common words. Cognito's
// own have more (AddUserPoolClientSecret: at least 24).
const minSecretBytes = 6

func newScrubber(req *http.Request, form url.Values, clientID string, secrets []string) *scrubber {
	var values []string
	add := func(value string) {
		if len(value) >= minSecretBytes {
			values = append(values, value, url.QueryEscape(value), url.PathEscape(value), html.EscapeString(value), strings.ReplaceAll(value, "/", `\/`))
		}
	}
	for _, secret := range secrets {
		add(secret)
		for _, pair := range []string{clientID + ":" + secret, url.QueryEscape(clientID) + ":" + url.QueryEscape(secret)} {
			if secret != "" {
				add(base64.StdEncoding.EncodeToString([]byte(pair)))
			}
		}
	}
	for _, name := range secretParams {
		for _, value := range form[name] {
			add(value)
		}
	}
	for _, value := range req.Header["Authorization"] {
		_, credentials, _ := strings.Cut(value, " ")
		add(credentials)
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	return &scrubber{exact: slices.Compact(values)}
}

var (
	// secretMember is a member or parameter, in whatever notation, whose value is secret.
	secretMember = regexp.MustCompile(`(?i)((?:access|id|refresh|session)[_-]?token|client[_-]?secret|secret[_-]?hash|code[_-]?verifier|assertion|password|passwd|authorization)(["'\\]*\s*(?::|=>?)\s*["'\\]*(?:(?:bearer|basic)\s+)?)([^\s"'\\&,;<>{}]+)`)
	// secretName is the name of a JSON member whose value is secret, whatever it is.
	secretName = regexp.MustCompile(`(?i)(?:^|_|-)(token|access_?token|id_?token|refresh_?token|secret|client_?secret|secret_?hash|code_?verifier|assertion|password|authorization)$`)
	// looksSecret is a compact JWS or JWE, whole or cut, and any other run of letters and digits that is too long for a word.
	looksSecret = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*|[A-Za-z0-9_+=-]{32,}`)
)

// text returns s with each secret replaced.
func (h *scrubber) text(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "�")
	}
	for _, secret := range h.exact {
		s = strings.ReplaceAll(s, secret, concealed)
	}
	s = secretMember.ReplaceAllString(s, "${1}${2}"+concealed)
	return looksSecret.ReplaceAllStringFunc(s, func(run string) string {
		if strings.Trim(run, "abcdefghijklmnopqrstuvwxyz_-=+") == "" {
			return run // words, and rules in plain text
		}
		return concealed
	})
}

// cause returns why a request failed, without its URL. If its text has a secret in it, only the rest of the text is left. The
// errors of the network itself have none: they name hosts, which may be long.
func (h *scrubber) cause(err error) error {
	if withURL := (*url.Error)(nil); errors.As(err, &withURL) {
		err = withURL.Err
	}
	text, network := err.Error(), (*net.OpError)(nil)
	if errors.As(err, &network) && !h.echoes(text) || !h.changes(text) {
		return err
	}
	return errors.New(h.text(text))
}

// echoes reports whether s has a secret in it that was sent.
func (h *scrubber) echoes(s string) bool {
	return slices.ContainsFunc(h.exact, func(secret string) bool { return strings.Contains(s, secret) })
}

// changes reports whether s has a secret in it, or what looks like one.
func (h *scrubber) changes(s string) bool { return h.text(s) != s }

// body returns the text of a body. It looks at it decoded, as JSON if it is that and else as HTML, so that no escape hides a
// secret.
func (h *scrubber) body(body []byte) string {
	var value any
	if !decodeJSON(body, &value) {
		return h.text(html.UnescapeString(string(body)))
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(h.value(value)); err != nil {
		return ""
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// header returns what is of use of an answer's header.
func (h *scrubber) header(from http.Header) http.Header {
	shown := make(http.Header)
	for _, name := range []string{"Content-Type", "Date", "Retry-After"} {
		if v := from.Get(name); v != "" && len(v) <= 100 && !h.changes(v) {
			shown.Set(name, v)
		}
	}
	return shown
}

func (h *scrubber) value(value any) any {
	switch value := value.(type) {
	case string:
		return h.text(value)
	case []any:
		for i := range value {
			value[i] = h.value(value[i])
		}
		return value
	case map[string]any:
		shown := make(map[string]any, len(value))
		for name, v := range value {
			if secretName.MatchString(name) {
				v = concealed
			}
			shown[h.text(name)] = h.value(v)
		}
		return shown
	case json.Number:
		if h.changes(value.String()) {
			return concealed
		}
	}
	return value
}
