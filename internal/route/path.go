package route

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Reasons of a [PathError]. They are for logs, and head the table in docs/paths.md.
const (
	reasonRelative   = "does not start with a slash"
	reasonFragment   = "fragment"
	reasonSpace      = "white space"
	reasonControl    = "control character"
	reasonBackslash  = "backslash"
	reasonUTF8       = "invalid UTF-8"
	reasonEscape     = "bad escape"
	reasonEmpty      = "empty segment"
	reasonDot        = "dot segment"
	reasonTwice      = "encoded twice"
	reasonSlash      = "encoded slash"
	reasonParameter  = "path parameter"
	reasonOtherRoute = "reads as another route"
)

// A PathError says why a path is refused. It never holds any part of the path, so it may be logged.
type PathError struct {
	Reason string // from a fixed list, such as "dot segment"
}

// Error returns the reason.
func (e *PathError) Error() string { return "route: invalid path: " + e.Reason }

// A Path is the path of a request in canonical form. [ParsePath] makes it; the zero Path matches no route.
type Path struct {
	// Raw is the path as it was sent, without the query.
	Raw string
	// Canonical is Raw with percent-encoded unreserved characters (RFC 3986 section 2.3) decoded once and the
	// remaining escapes in upper case (section 6.2.2). Two paths of one canonical form are the same path.
	Canonical string
	// EncodedSlash is set if the path holds %2F, which only some rules allow: see [Match.Admits].
	EncodedSlash bool
	// Parameters is set if the path holds ";" or %3B, which only some rules allow: see [Match.Admits].
	Parameters bool
}

// ParsePath brings a request's path into canonical form. raw is the request target in origin form (RFC 9112
// section 3.2.1) and may have a query, which is cut off at the first "?".
//
// The error is a [*PathError], to be answered with 400, for a path that servers are known to read in different
// ways: dot segments, also encoded or with parameters (/..;x/), empty segments but for one trailing slash,
// backslashes, control characters, white space, "#", escapes that are incomplete, invalid UTF-8, and a second decoding
// that would bring any of these about, or a "/", ";", "?" or "#". An encoded slash and path parameters are only noted.
func ParsePath(raw string) (Path, error) {
	p, reason := parsePath(raw)
	if reason != "" {
		return Path{}, &PathError{Reason: reason}
	}
	return p, nil
}

func parsePath(raw string) (p Path, reason string) {
	raw, _, _ = strings.Cut(raw, "?")
	if !strings.HasPrefix(raw, "/") {
		return Path{}, reasonRelative
	}
	if plain(raw) {
		return Path{Raw: raw, Canonical: raw}, checkSegments(raw)
	}
	canonical, reason := canonicalPath(raw)
	return Path{
		Raw:          raw,
		Canonical:    canonical,
		EncodedSlash: strings.Contains(canonical, "%2F"),
		Parameters:   strings.Contains(canonical, ";") || strings.Contains(canonical, "%3B"),
	}, reason
}

// Segments returns what stands between the slashes, each segment decoded once. "/" has one empty segment, and so
// has a trailing slash. A segment may hold "/", where the path had %2F.
func (p Path) Segments() []string { return p.appendSegments(nil) }

func (p Path) appendSegments(segments []string) []string {
	segments = slices.Grow(segments, strings.Count(p.Canonical, "/"))
	rest, ok := strings.CutPrefix(p.Canonical, "/")
	for ok {
		var segment string
		segment, rest, ok = strings.Cut(rest, "/")
		segment, _ = unescape(segment)
		segments = append(segments, segment)
	}
	return segments
}

// canonicalPath does the work of [ParsePath] for a path with anything unusual in it.
func canonicalPath(raw string) (canonical, reason string) {
	if reason := checkDelimiters(raw); reason != "" {
		return "", reason
	}
	if reason := checkText(raw); reason != "" {
		return "", reason
	}
	canonical, ok := canonicalEscapes(raw)
	if !ok {
		return "", reasonEscape
	}
	if reason := checkSegments(canonical); reason != "" {
		return "", reason
	}
	if reason := checkDecoded(canonical); reason != "" {
		return "", reason
	}
	if skipped := withoutInvalid(canonical); skipped != canonical {
		return canonical, checkDecoded(skipped)
	}
	return canonical, ""
}

// checkDecoded looks for what decoding brings about.
func checkDecoded(canonical string) (reason string) {
	text, _ := unescape(canonical)
	switch reason := checkText(text); {
	case reason != "":
		return reason
	case hasDotSegment(text):
		return reasonDot
	case hidesMore(text):
		return reasonTwice
	}
	return ""
}

// withoutInvalid returns a path as servers see it that skip bytes which are not UTF-8. Envoy 1.40 shows each such byte as
// "!" in a CheckRequest, and, unless normalize_path is set, sends it on as it is: sent over HTTP/2, "/.\xff./" arrives
// here as /.!./ and may be /../ to the service.
func withoutInvalid(path string) string { return strings.ReplaceAll(path, "!", "") }

// plainBytes are the bytes that mean the same to every server: all that RFC 3986 allows in a path, but for "%", ";" and
// "!" (see withoutInvalid).
var plainBytes = func() (set [256]bool) {
	for c := range set {
		set[c] = unreserved(byte(c)) || strings.IndexByte("/:@$&'()*+,=", byte(c)) >= 0
	}
	return set
}()

func plain(path string) bool {
	for i := range len(path) {
		if !plainBytes[path[i]] {
			return false
		}
	}
	return true
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// checkDelimiters looks for bytes that end a path for some servers. Written raw after an HTTP/2 request has become
// HTTP/1, "/admin HTTP/1.1" is /admin to a server that splits the request line at the first space.
func checkDelimiters(raw string) (reason string) {
	switch i := strings.IndexAny(raw, "# "); {
	case i < 0:
		return ""
	case raw[i] == '#':
		return reasonFragment
	default:
		return reasonSpace
	}
}

// checkText looks for what no path may hold, encoded or not.
func checkText(text string) (reason string) {
	if !utf8.ValidString(text) {
		return reasonUTF8
	}
	for _, c := range text {
		switch {
		case c < 0x20, 0x7f <= c && c < 0xa0: // C0, DEL and C1
			return reasonControl
		case c == '\\':
			return reasonBackslash
		}
	}
	return ""
}

// canonicalEscapes decodes the escapes of unreserved characters and writes the others in upper case. It is not ok if an
// escape is incomplete.
func canonicalEscapes(raw string) (canonical string, ok bool) {
	var out strings.Builder
	done := 0 // raw up to here is in out
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			continue
		}
		c, ok := escaped(raw[i:])
		if !ok {
			return "", false
		}
		if unreserved(c) || raw[i+1] != upperHex[c>>4] || raw[i+2] != upperHex[c&15] {
			out.Grow(len(raw) - done) // once: what follows is never longer
			out.WriteString(raw[done:i])
			if !unreserved(c) {
				out.WriteByte('%')
				out.WriteByte(upperHex[c>>4])
				out.WriteByte(upperHex[c&15])
			} else {
				out.WriteByte(c)
			}
			done = i + 3
		}
		i += 2
	}
	if done == 0 {
		return raw, true
	}
	out.WriteString(raw[done:])
	return out.String(), true
}

const upperHex = "0123456789ABCDEF"

// checkSegments looks for empty segments, one at the end excepted, and for dot segments. A segment of nothing but
// parameters is empty: servers that drop them read /a/;x/b as /a//b.
func checkSegments(path string) (reason string) {
	for rest, more := path[1:], true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		if more && (segment == "" || segment[0] == ';' || strings.HasPrefix(segment, "%3B")) {
			return reasonEmpty
		}
		if dots(segment) {
			return reasonDot
		}
	}
	return ""
}

// hasDotSegment looks for dot segments in a decoded path, in which a slash may have been encoded.
func hasDotSegment(text string) bool {
	for piece := range strings.SplitSeq(text, "/") {
		if dots(piece) {
			return true
		}
	}
	return false
}

// dots reports whether some server takes a decoded segment for "." or "..": Tomcat drops path parameters first, others
// end the path at a decoded "?" or "#", and Windows drops spaces at a name's end.
func dots(segment string) bool {
	if segment == "" || segment[0] != '.' && segment[0] != ' ' {
		return false
	}
	if i := strings.IndexAny(segment, ";?#"); i >= 0 {
		segment = segment[:i]
	}
	segment = strings.Trim(segment, " ")
	return segment == "." || segment == ".."
}

// maxDecodings is how often a path may still change when it is decoded again after the first time. A proxy that
// encodes twice accounts for one; the bound is there to bound the work.
const maxDecodings = 3

// hidesMore decodes text, itself decoded once, until nothing is left to decode, and reports whether anything that no
// path may hold comes to light. A percent sign that starts no escape is a percent sign: 100%25 is fine.
func hidesMore(text string) bool {
	for depth := 0; ; depth++ {
		next, special := unescape(text)
		switch {
		case hasUnicodeEscape(text):
			return true
		case len(next) == len(text): // nothing was left to decode
			return false
		case special, depth == maxDecodings, checkText(next) != "", hasDotSegment(next):
			return true
		}
		text = next
	}
}

// hasUnicodeEscape looks for %u002F and its like, which IIS and old ECMAScript decode.
func hasUnicodeEscape(text string) bool {
	for i := strings.IndexByte(text, '%'); i >= 0 && i+6 <= len(text); i++ {
		if text[i] != '%' || text[i+1]|0x20 != 'u' {
			continue
		}
		_, first := hexPair(text[i+2:])
		_, second := hexPair(text[i+4:])
		if first && second {
			return true
		}
	}
	return false
}

// unescape decodes each complete escape once and leaves everything else as it is. special is set if one stood for a
// character that separates parts of a URL.
func unescape(text string) (decoded string, special bool) {
	i := strings.IndexByte(text, '%')
	if i < 0 {
		return text, false
	}
	var out strings.Builder
	out.Grow(len(text))
	out.WriteString(text[:i])
	for i < len(text) {
		c, ok := escaped(text[i:])
		if !ok {
			out.WriteByte(text[i])
			i++
			continue
		}
		special = special || strings.IndexByte("/;?#", c) >= 0
		out.WriteByte(c)
		i += 3
	}
	return out.String(), special
}

// escaped returns the byte that an escape at the start of text stands for.
func escaped(text string) (c byte, ok bool) {
	if len(text) < 3 || text[0] != '%' {
		return 0, false
	}
	return hexPair(text[1:])
}

func hexPair(text string) (c byte, ok bool) {
	high, ok1 := hexDigit(text[0])
	low, ok2 := hexDigit(text[1])
	return high<<4 | low, ok1 && ok2
}

func hexDigit(c byte) (value byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
