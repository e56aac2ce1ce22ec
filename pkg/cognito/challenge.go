package cognito

import "strings"

// A challenge is one of a WWW-Authenticate header (RFC 9110 section 11.6.1).
type challenge struct {
	scheme string            // as it is spelled
	params map[string]string // names in lower case; of a repeated one, the first; nil for a token68
}

// invalidToken reports whether one of the challenges says that the bearer token was refused (RFC 6750 section 3.1).
func invalidToken(values []string) bool {
	for _, value := range values {
		for _, c := range parseChallenges(value) {
			if strings.EqualFold(c.scheme, "Bearer") && c.params["error"] == "invalid_token" {
				return true
			}
		}
	}
	return false
}

// parseChallenges reads a value of WWW-Authenticate, which may have several challenges, up to the first thing that is none.
// A comma separates challenges as well as parameters; what follows one is a parameter if it is followed by "=".
func parseChallenges(value string) (all []challenge) {
	for s := value; ; {
		s = strings.TrimLeft(s, " \t,")
		var c challenge
		if c.scheme, s = token(s); c.scheme == "" {
			return all
		}
		if s != "" && s[0] != ' ' && s[0] != ',' && s[0] != '\t' {
			return all
		}
		var ok bool
		c.params, s, ok = params(s)
		all = append(all, c)
		if !ok {
			return all
		}
	}
}

// params reads what stands behind a scheme, and returns what follows: the next challenge, if ok.
func params(s string) (found map[string]string, rest string, ok bool) {
	rest = strings.TrimLeft(s, " \t")
	if t68 := strings.TrimLeft(rest, token68); len(t68) < len(rest) {
		if end := strings.TrimLeft(strings.TrimLeft(t68, "="), " \t"); end == "" || end[0] == ',' {
			return nil, end, true
		}
	}
	for {
		next := strings.TrimLeft(rest, " \t,")
		name, after := token(next)
		after = strings.TrimLeft(after, " \t")
		if name == "" || !strings.HasPrefix(after, "=") {
			// The next challenge stands behind a comma, or else this is none.
			return found, next, next == "" || strings.Contains(rest[:len(rest)-len(next)], ",")
		}
		value, after, closed := paramValue(strings.TrimLeft(after[1:], " \t"))
		if !closed {
			return found, after, false
		}
		if found == nil {
			found = make(map[string]string)
		}
		if name = strings.ToLower(name); found[name] == "" {
			found[name] = value
		}
		rest = after
		if rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != ',' {
			return found, rest, false
		}
	}
}

// paramValue reads a token or a quoted-string.
func paramValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = token(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

const (
	alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	token68      = alphanumeric + "-._~+/"          // RFC 9110 section 11.2, without the padding
	tchar        = alphanumeric + "!#$%&'*+-.^_`|~" // RFC 9110 section 5.6.2
)

// token cuts a token off s; empty if there is none.
func token(s string) (tok, rest string) {
	rest = strings.TrimLeft(s, tchar)
	return s[:len(s)-len(rest)], rest
}
