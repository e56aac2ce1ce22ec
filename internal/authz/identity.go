package authz

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// Identity says which headers tell the upstream who is calling.
type Identity struct {
	Prefix string // of all of them, in lower case, such as "x-auth-"
	// MaxBytes bounds one header's value. A longer one is left out of the headers; the dynamic metadata has it.
	MaxBytes int
	// Claims names further claims to send: the header's name after the prefix, and the claim's.
	Claims map[string]string
}

// The built-in identity headers, after the prefix, with their fields of the dynamic metadata.
var builtin = []struct {
	name, field string
	value       func(c *validator.Claims, client string) value
}{
	{"client-id", "client_id", func(c *validator.Claims, _ string) value { return textValue(c.ClientID) }},
	{"client-name", "client_name", func(_ *validator.Claims, client string) value { return textValue(client) }},
	{"scopes", "scopes", func(c *validator.Claims, _ string) value { return listValue(c.Scopes) }},
	{"pool", "pool", func(c *validator.Claims, _ string) value { return textValue(c.Pool) }},
	{"issuer", "issuer", func(c *validator.Claims, _ string) value { return textValue(c.Issuer) }},
	{"subject", "subject", func(c *validator.Claims, _ string) value { return textValue(c.Subject) }},
	{"token-id", "token_id", func(c *validator.Claims, _ string) value { return textValue(c.TokenID) }},
}

// IdentityHeaders returns the names of all identity headers, in lower case.
func (id Identity) IdentityHeaders() []string {
	var names []string
	for _, b := range builtin {
		names = append(names, id.Prefix+b.name)
	}
	for name := range id.Claims {
		names = append(names, id.Prefix+strings.ToLower(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// An identifier says what claims say about a caller. Its names are made once.
type identifier struct {
	builtin []string // the headers of the package's builtin, in order
	claims  []identifiedClaim
}

type identifiedClaim struct{ header, field, claim string }

func newIdentifier(id Identity) identifier {
	var i identifier
	for _, b := range builtin {
		i.builtin = append(i.builtin, id.Prefix+b.name)
	}
	for _, name := range slices.Sorted(maps.Keys(id.Claims)) {
		i.claims = append(i.claims, identifiedClaim{id.Prefix + strings.ToLower(name), "claim_" + name, id.Claims[name]})
	}
	return i
}

// of appends the facts about a caller to room.
func (i identifier) of(c *validator.Claims, client string, room []fact) []fact {
	for n, b := range builtin {
		room = append(room, fact{i.builtin[n], b.field, b.value(c, client)})
	}
	for _, more := range i.claims {
		room = append(room, fact{more.header, more.field, claimValue(c.Map()[more.claim])})
	}
	return room
}

// claimValue returns a claim as a text or a list of texts, and no value if it is neither nor can be written as one.
func claimValue(claim any) value {
	if text, ok := claimText(claim); ok {
		return textValue(text)
	}
	items, ok := claim.([]any)
	if !ok {
		return value{}
	}
	list := make([]string, len(items))
	for n, item := range items {
		if list[n], ok = claimText(item); !ok {
			return value{}
		}
	}
	return listValue(list)
}

func claimText(claim any) (string, bool) {
	switch v := claim.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// headerText writes an identity as a header value: what is outside %x21-7E, and "%", percent-encoded, so that no
// claim can break out of the header; the items of a list separated by a space. It returns an empty string if there
// is nothing to say.
func headerText(v *value) string {
	switch {
	case v.kind == isText:
		return escape(v.text)
	case v.kind == isList && len(v.list) == 1:
		return escape(v.list[0])
	case v.kind == isList:
		items := make([]string, len(v.list))
		for i, item := range v.list {
			items[i] = escape(item)
		}
		return strings.Join(items, " ")
	}
	return ""
}

func escape(s string) string {
	const hex = "0123456789ABCDEF"
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if !isPlainByte(c) {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isPlain(s string) bool {
	for i := range len(s) {
		if !isPlainByte(s[i]) {
			return false
		}
	}
	return true
}

func isPlainByte(c byte) bool { return 0x21 <= c && c <= 0x7e && c != '%' }

// A scrubber finds forged identity headers.
type scrubber struct {
	prefix string // folded
	names  []string
}

func newScrubber(id Identity) scrubber {
	return scrubber{prefix: fold(id.Prefix), names: id.IdentityHeaders()}
}

// hasFoldedPrefix reports whether fold(name) begins with a folded prefix.
func hasFoldedPrefix(name, prefix string) bool {
	i := 0
	for _, r := range name {
		if i == len(prefix) {
			return true
		}
		if foldRune(r) != rune(prefix[i]) {
			return false
		}
		i++
	}
	return i == len(prefix)
}

// fold maps the spellings of a header name to one: servers that hand headers on as variables (CGI, WSGI, Rack) fold
// "-" and "_", and some fold everything that is neither letter nor digit.
func fold(name string) string { return strings.Map(foldRune, name) }

func foldRune(r rune) rune {
	switch {
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
		return r
	}
	return '-'
}

// forged appends to names those of the request's headers that could be taken for identity headers: all that have the prefix
// in any spelling, whether a header of this name is configured or not, as an upstream may still look for one that no longer
// is.
func (s scrubber) forged(request headers, names []string) []string {
	for i := range request {
		if hasFoldedPrefix(request[i].name, s.prefix) {
			names = append(names, request[i].name)
		}
	}
	return names
}
