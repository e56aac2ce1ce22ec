package opa

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// secrets are texts that go into no log and no error.
type secrets []string

const hidden = "(not shown)"

// query is that of a URL, which may hold a signature that is as good as a password, and user information before a host.
var (
	query = regexp.MustCompile(`(://[^\s"'?#]*)[?#][^\s"']*`)
	user  = regexp.MustCompile(`://[^\s"'/@]*@`)
)

func (s secrets) hide(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, hidden)
	}
	return user.ReplaceAllString(query.ReplaceAllString(text, "$1?"+hidden), "://"+hidden+"@")
}

// variable is how OPA's configuration names an environment variable.
var variable = regexp.MustCompile(`\$\{[^}]*\}`)

// secretKeys are the keys of OPA's configuration below which there are secrets, and files or URLs that may be shown.
var secretKeys = []string{
	"token", "password", "client_secret", "private_key_passphrase", "key", "private_key", "client_assertion", "headers",
	"additional_headers", "additional_parameters", "additional_claims",
}

// expand returns a copy of a section with environment variables in it, and what in it is secret: the values of these
// variables, and those of some keys.
func expand(section map[string]any, getenv func(string) (string, bool)) (map[string]any, secrets, error) {
	e := expansion{getenv: getenv, missing: make(map[string]bool)}
	out, _ := e.value(section, false).(map[string]any)
	if len(e.missing) > 0 {
		names := make([]string, 0, len(e.missing))
		for name := range e.missing {
			names = append(names, name)
		}
		slices.Sort(names)
		return nil, nil, fmt.Errorf("found %s, want environment variables that are set", strings.Join(names, ", "))
	}
	// The longest first, as one may be a part of another.
	slices.SortFunc(e.secrets, func(a, b string) int { return len(b) - len(a) })
	if out == nil {
		out = make(map[string]any)
	}
	return out, slices.Compact(e.secrets), nil
}

type expansion struct {
	getenv  func(string) (string, bool)
	secrets secrets
	missing map[string]bool
}

func (e *expansion) value(v any, secret bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			out[name] = e.value(member, secret || slices.Contains(secretKeys, name))
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = e.value(item, secret)
		}
		return out
	case string:
		text := variable.ReplaceAllStringFunc(v, func(ref string) string {
			value, ok := e.getenv(ref[2 : len(ref)-1])
			if !ok {
				e.missing[ref] = true
			}
			e.note(value)
			return value
		})
		if secret {
			e.note(text)
		}
		return text
	}
	return v
}

// minSecret is the shortest text that is worth hiding: a shorter one is a part of ordinary words.
const minSecret = 6

func (e *expansion) note(text string) {
	if len(text) >= minSecret {
		e.secrets = append(e.secrets, text)
	}
}
