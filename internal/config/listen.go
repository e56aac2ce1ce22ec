package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

const unixScheme = "unix://"

func (d *decoder) listen(c *Config) {
	type listener struct {
		key, address, host, port string
	}
	var open []listener
	for _, l := range []listener{
		{key: "listen.grpc", address: c.Listen.GRPC},
		{key: "listen.metrics", address: c.Listen.Metrics},
		{key: "listen.admin", address: c.Listen.Admin},
	} {
		if l.address == "" || d.bad[l.key] {
			continue
		}
		if strings.HasPrefix(l.address, "unix:") && l.key == "listen.grpc" {
			d.socket(l.key, l.address)
			continue
		}
		host, port, problem := splitAddress(l.address)
		if problem != "" {
			want := "want host:port"
			if l.key == "listen.grpc" {
				want += " or unix:///absolute/path"
			}
			d.problem(l.key, fmt.Sprintf("found %s, which %s; %s", quote(l.address), problem, want), hintAddress(l.address, l.key))
			continue
		}
		l.host, l.port = host, port
		if l.key == "listen.admin" && !loopback(host) {
			d.problem(l.key, fmt.Sprintf("found %s, want a loopback address such as 127.0.0.1:%s, or \"\" to switch it off", quote(l.address), port),
				"the admin listener asks nobody for a password; reach it with kubectl port-forward or ssh")
			continue
		}
		for _, other := range open {
			if l.port == other.port && l.port != "0" && overlap(l.host, other.host) {
				d.problem(l.key, fmt.Sprintf("found %s, want another port than that of %s (%s)", quote(l.address), other.key, other.address), "")
			}
		}
		open = append(open, l)
	}
	d.tls(c.Listen.TLS)
}

// maxSocketPath is what fits into sockaddr_un with its closing zero byte (Linux man page unix(7)).
const maxSocketPath = 107

func (d *decoder) socket(key, address string) {
	path, ok := UnixSocket(address)
	switch {
	case !ok || !strings.HasPrefix(path, "/"):
		hint := ""
		if rest := strings.TrimPrefix(address, "unix:"); strings.HasPrefix(rest, "/") {
			hint = "write unix:///" + strings.TrimLeft(rest, "/")
		}
		d.problem(key, fmt.Sprintf("found %s, want unix:///absolute/path, with three slashes", quote(address)), hint)
	case strings.HasSuffix(path, "/"):
		d.problem(key, fmt.Sprintf("found %s, want the path of a socket and not of a directory", quote(address)), "")
	case len(path) > maxSocketPath:
		d.problem(key, fmt.Sprintf("found a socket path of %d bytes, want at most %d", len(path), maxSocketPath), "")
	}
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

var digitsAndDots = regexp.MustCompile(`^[0-9.]+$`)

// splitAddress returns host and port of an address, or what is wrong with it.
func splitAddress(address string) (host, port, problem string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", "is no address with a port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return "", "", "has no port from 0 to 65535 after its last colon"
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return host, port, ""
	}
	if len(host) > 253 || !hostName.MatchString(host) || digitsAndDots.MatchString(host) {
		return "", "", "has neither an IP address nor a host name before its port"
	}
	return host, port, ""
}

func hintAddress(address, key string) string {
	port := map[string]string{"listen.grpc": "9191", "listen.metrics": "9192", "listen.admin": "9193"}[key]
	fixed := address
	if _, after, ok := strings.Cut(address, "://"); ok {
		fixed, _, _ = strings.Cut(after, "/")
	}
	if hint := hintOff(address); hint != "" && key != "listen.grpc" {
		return hint
	}
	if strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "/") && key != "listen.grpc" {
		return "only listen.grpc can be a Unix socket"
	}
	bare := strings.Trim(fixed, "[]")
	switch ip, err := netip.ParseAddr(bare); {
	case strings.HasPrefix(address, "/") && key == "listen.grpc":
		return "write unix://" + address
	case decimal.MatchString(fixed):
		fixed = "127.0.0.1:" + fixed
	case err == nil && ip.Is6():
		fixed = "[" + bare + "]:" + port
	case fixed == "localhost" || err == nil:
		fixed += ":" + port
	}
	if _, _, problem := splitAddress(fixed); problem == "" && fixed != address {
		return "write " + fixed
	}
	return hintSubstitution(address)
}

// loopback reports whether a host is one that only this machine reaches, as pkg/validator sees it.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// overlap reports whether two listeners on the same port would be in each other's way.
func overlap(a, b string) bool {
	all := func(host string) bool {
		ip := net.ParseIP(host)
		return host == "" || ip != nil && ip.IsUnspecified()
	}
	return a == b || all(a) || all(b) || loopback(a) && loopback(b) && (a == "localhost" || b == "localhost")
}

func (d *decoder) tls(t TLS) {
	switch {
	case t.CertFile == "" && t.KeyFile != "":
		d.problem("listen.tls.certFile", "missing, want the certificate of the key in keyFile", "")
	case t.CertFile != "" && t.KeyFile == "":
		d.problem("listen.tls.keyFile", "missing, want the private key of the certificate in certFile", "")
	case t.ClientCAFile != "" && t.CertFile == "":
		d.problem("listen.tls.certFile", "missing, want a certificate, as clientCAFile asks for TLS", "")
	}
}
