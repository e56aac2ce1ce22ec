package route

import (
	"net/netip"
	"strconv"
	"strings"
)

// Reasons of a [HostError].
const (
	reasonNoHost    = "empty"
	reasonLong      = "longer than 253 bytes"
	reasonComma     = "comma"
	reasonHostSpace = "white space"
	reasonUserinfo  = "userinfo"
	reasonHostSlash = "slash"
	reasonASCII     = "not ASCII"
	reasonCharacter = "invalid character"
	reasonPort      = "bad port"
	reasonIPv6      = "bad IPv6 address"
	reasonLabel     = "empty label"
)

// maxHostBytes is the longest name that DNS can hold, written without its trailing dot (RFC 1035 section 2.3.4).
const maxHostBytes = 253

// A HostError says why a host is refused. It never holds any part of the host, so it may be logged.
type HostError struct {
	Reason string // from a fixed list, such as "userinfo"
}

// Error returns the reason.
func (e *HostError) Error() string { return "route: invalid host: " + e.Reason }

// CanonicalHost returns the host of a Host header or an :authority (RFC 9110 section 7.2) in canonical form: in lower
// case, without port and without one trailing dot; an IPv6 address in brackets and in the form of RFC 5952.
//
// The error is a [*HostError], to be answered with 400, for anything that is not one host name or address of letters,
// digits, "-", "_" and ".", with or without a port.
func CanonicalHost(raw string) (string, error) {
	host, reason := canonicalHost(raw)
	if reason != "" {
		return "", &HostError{Reason: reason}
	}
	return host, nil
}

func canonicalHost(raw string) (host, reason string) {
	if strings.HasPrefix(raw, "[") {
		return canonicalIPv6(raw)
	}
	for i := range len(raw) {
		if reason := checkHostByte(raw[i]); reason != "" {
			return "", reason
		}
	}
	host, port, _ := strings.Cut(raw, ":")
	host = strings.TrimSuffix(host, ".")
	switch {
	case !validPort(port):
		return "", reasonPort
	case host == "":
		return "", reasonNoHost
	case len(host) > maxHostBytes:
		return "", reasonLong
	case host[0] == '.', strings.HasSuffix(host, "."), strings.Contains(host, ".."):
		return "", reasonLabel
	}
	return strings.ToLower(host), ""
}

func checkHostByte(c byte) (reason string) {
	switch {
	case unreserved(c) && c != '~', c == ':':
		return ""
	case c == ',':
		return reasonComma
	case c == ' ', '\t' <= c && c <= '\r':
		return reasonHostSpace
	case c == '@':
		return reasonUserinfo
	case c == '/':
		return reasonHostSlash
	case c >= 0x80:
		return reasonASCII
	}
	return reasonCharacter
}

// validPort accepts no port at all: RFC 3986 section 3.2.3 allows "host:".
func validPort(port string) bool {
	if port == "" {
		return true
	}
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil
}

// canonicalIPv6 writes the address in one way only: [::1] and [0:0:0:0:0:0:0:1] must not pick different rules.
func canonicalIPv6(raw string) (host, reason string) {
	address, port, ok := strings.Cut(raw[1:], "]")
	if !ok {
		return "", reasonIPv6
	}
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.Is6() || ip.Zone() != "" {
		return "", reasonIPv6
	}
	if port != "" && (port[0] != ':' || !validPort(port[1:])) {
		return "", reasonPort
	}
	return "[" + ip.String() + "]", ""
}
