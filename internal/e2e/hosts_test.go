package e2e_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// /who has routes for a whole host, for all hosts below a suffix and for an address, and a public one for every other
// host: a host that is read in two ways would be let in by the last.
func TestHosts(t *testing.T) {
	t.Parallel()
	who := reaches("/who")
	partner, internal, address := scopeMissing("orders/admin"), scopeMissing("orders/write"), denied("client_not_allowed")
	tests := []struct {
		name    string
		target  string // "/who" if empty
		host    string
		shipped outcome
		open    outcome
	}{
		{"plain", "", "partner.example.com", partner, partner},
		{"case", "", "Partner.EXAMPLE.com", partner, partner},
		{"port", "", "partner.example.com:9999", partner, partner},
		{"default port", "", "partner.example.com:80", partner, partner},
		{"trailing dot", "", "partner.example.com.", partner, partner},
		{"case, trailing dot, port", "", "PARTNER.Example.com.:9999", partner, partner},
		{"empty port", "", "partner.example.com:", partner, partner},
		{"below a suffix", "", "a.internal.example.com", internal, internal},
		{"far below a suffix", "", "a.b.INTERNAL.example.com.:1", internal, internal},
		{"the suffix itself", "", "internal.example.com", who, who},
		{"a label that ends like the suffix", "", "xinternal.example.com", who, who},
		{"the suffix within another", "", "a.internal.example.com.evil.example", who, who},
		{"another host", "", "other.example.com", who, who},
		{"IPv6", "", "[2001:db8::1]", address, address},
		{"IPv6 with a port", "", "[2001:db8::1]:8080", address, address},
		{"IPv6 in another spelling", "", "[2001:0DB8:0:0::0001]", address, address},
		{"another IPv6 address", "", "[2001:db8::2]:80", who, who},
		{"IPv4", "", "192.0.2.1:80", who, who},
		{"absolute form", "http://partner.example.com/who", "other.example.com", partner, partner},
		{"absolute form with a port", "http://Partner.example.com:81/who", "other.example.com", partner, partner},
		{"absolute form of another host", "http://other.example.com/who", "partner.example.com", who, who},
		{"userinfo", "", "other.example.com@partner.example.com", bad, bad},
		{"userinfo in absolute form", "http://other@partner.example.com/who", "partner.example.com", partner, partner}, // Envoy takes it out
		{"comma", "", "partner.example.com,other.example.com", bad, bad},
		{"comma and space", "", "partner.example.com, other.example.com", byProxy, byProxy},
		{"slash", "", "partner.example.com/x", byProxy, byProxy},
		{"backslash", "", `other.example.com\partner`, byProxy, byProxy},
		{"percent", "", "partner%2Eexample.com", bad, bad},
		{"two dots at the end", "", "partner.example.com..", partner, bad}, // the shipped Envoy takes one dot, or one port, away,
		{"two dots within", "", "partner..example.com", bad, bad},
		{"dot in front", "", ".partner.example.com", bad, bad},
		{"port that is none", "", "partner.example.com:http", bad, bad},
		{"port out of range", "", "partner.example.com:99999", partner, bad},
		{"two ports", "", "partner.example.com:80:81", partner, bad},
		{"port and dot", "", "partner.example.com:80.", partner, bad},
		{"wildcard", "", "*.internal.example.com", bad, bad},
		{"empty", "", "", bad, bad},
		{"port alone", "", ":80", bad, bad},
		{"dot alone", "", ".", bad, bad},
		{"IPv6 without brackets", "", "2001:db8::1", bad, bad},
		{"IPv6 with a zone", "", "[fe80::1%25eth0]", bad, bad},
		{"not ASCII", "", "pärtner.example.com", byProxy, byProxy},
		{"tab", "", "partner.example.com\tx", byProxy, byProxy},
	}
	token := bearer(t, reportsID)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target := tt.target
			if target == "" {
				target = "/who"
			}
			for _, try := range []struct {
				name    string
				gateway *gateway
				want    outcome
			}{{"shipped", shipped(t), tt.shipped}, {"open", open(t), tt.open}} {
				a := try.gateway.send(t, "GET "+target+" HTTP/1.1", "Host: "+tt.host, token)
				if diff := cmp.Diff(try.want, a.outcome()); diff != "" {
					t.Errorf("%s: -want +got:\n%s", try.name, diff)
				}
			}
		})
	}
}

// More than one host, or none.
func TestHostsMoreOrLessThanOne(t *testing.T) {
	t.Parallel()
	token := bearer(t, reportsID)
	auth := toFields([]string{token})
	partner := scopeMissing("orders/admin")
	for name, g := range map[string]*gateway{"shipped": shipped(t), "open": open(t)} {
		tests := []struct {
			name string
			got  answer
			want outcome
		}{
			{"two Host headers", g.send(t, "GET /who HTTP/1.1", "Host: partner.example.com", "Host: other.example.com", token), bad},
			{"two Host headers, the same", g.send(t, "GET /who HTTP/1.1", "Host: partner.example.com", "Host: partner.example.com", token), bad},
			{"no Host header", g.send(t, "GET /who HTTP/1.1", token), byProxy},
			{"absolute form and no Host header", g.send(t, "GET http://partner.example.com/who HTTP/1.1", token), partner},
			{"forwarded hosts", g.send(t, "GET /who HTTP/1.1", "Host: partner.example.com", "X-Forwarded-Host: other.example.com", "Forwarded: host=other.example.com", token), partner},
			{"HTTP/2: authority", g.sendH2(t, append([]field{{":method", "GET"}, {":scheme", "http"}, {":authority", "Partner.example.com:1"}, {":path", "/who"}}, auth...)), partner},
			{"HTTP/2: Host and no authority", g.sendH2(t, append([]field{{":method", "GET"}, {":scheme", "http"}, {":path", "/who"}, {"host", "partner.example.com"}}, auth...)), partner},
			{"HTTP/2: another Host than authority", g.sendH2(t, append([]field{{":method", "GET"}, {":scheme", "http"}, {":authority", "partner.example.com"}, {":path", "/who"}, {"host", "other.example.com"}}, auth...)), partner},
			{"HTTP/2: neither", g.sendH2(t, append([]field{{":method", "GET"}, {":scheme", "http"}, {":path", "/who"}}, auth...)), byEnvoy(0)},
		}
		for _, tt := range tests {
			if diff := cmp.Diff(tt.want, tt.got.outcome()); diff != "" {
				t.Errorf("%s: %s: -want +got:\n%s", name, tt.name, diff)
			}
		}
	}
}

// The policy sees the canonical host, and the upstream the one by which the request was routed.
func TestPolicySeesTheCanonicalHost(t *testing.T) {
	t.Parallel()
	g := extendShipped(t)
	for sent, want := range map[string][2]string{ // canonical, upstream
		"api.example.com":        {"api.example.com", "api.example.com"},
		"API.Example.com.:9999":  {"api.example.com", "API.Example.com"},
		"[2001:DB8::0001]:8080":  {"[2001:db8::1]", "[2001:DB8::0001]"},
		"api.example.com.:80":    {"api.example.com", "api.example.com"},
		"xn--bcher-kva.example.": {"xn--bcher-kva.example", "xn--bcher-kva.example"},
	} {
		a := g.send(t, "GET /seen/a HTTP/1.1", "Host: "+sent, bearer(t, batchID))
		if a.seen == nil {
			t.Errorf("%s: got %+v, want it allowed", sent, a.outcome())
			continue
		}
		if got := [2]string{a.header.Get("X-Seen-Host"), a.seen.Host}; got != want {
			t.Errorf("%s: canonical and upstream's host are %q, want %q", sent, got, want)
		}
	}
}
