package e2e_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What comes of a request of orders-batch, which may not do what /admin/** asks for.
var (
	bad     = invalid("invalid_path") // 400 by extauthz
	byProxy = byEnvoy(400)            // 400 by Envoy, without a check
	admin   = scopeMissing("orders/admin")
	nowhere = denied("no_route")
)

// withoutToken is what comes of the same request without a token.
func withoutToken(target string, o outcome) outcome {
	switch {
	case o == admin || o == nowhere:
		return missing()
	case o.Upstream != "" && (strings.HasPrefix(target, "/files/") || strings.HasPrefix(target, "/tickets/")):
		return missing() // not public
	case o == bad && (target == "/admin%2Fusers" || target == "/admin;x/users"):
		return missing() // another route would admit such a path: which one does is told to who has a token
	}
	return o
}

// A path that can be read in more than one way never reaches the upstream under another rule than that of its reading:
// the shipped Envoy brings it into one form before the check, or answers 400; without Envoy's help extauthz answers 400.
func TestAmbiguousPaths(t *testing.T) {
	t.Parallel()
	tests := []struct {
		target  string
		shipped outcome
		open    outcome
	}{
		// Dot segments.
		{"/public/../admin/users", admin, bad},
		{"/public/./a", reaches("/public/a"), bad},
		{"/public/..", nowhere, bad},
		{"/..", nowhere, bad},
		{"/../admin/users", admin, bad},
		{"/public/../../../admin/users", admin, bad},
		{"/public/%2e%2e/admin/users", admin, bad},
		{"/public/.%2E/admin/users", admin, bad},
		{"/public/%2e", reaches("/public/"), bad},
		{"/public/.../admin", reaches("/public/.../admin"), reaches("/public/.../admin")}, // three dots are a name
		{"/public/..%20/admin", bad, bad},
		{"/public/.!./admin", bad, bad},
		// Encoded twice and more.
		{"/public/%252e%252e/admin/users", bad, bad},
		{"/public/%25252e%25252e/admin", bad, bad},
		{"/public/a%252Fb", bad, bad},
		{"/public/a%255Cb", bad, bad},
		{"/public/a%2500", bad, bad},
		{"/public/a%25b", reaches("/public/a%25b"), reaches("/public/a%25b")}, // a percent sign
		// Empty segments.
		{"//admin/users", admin, bad},
		{"///admin/users", admin, bad},
		{"/public//admin/users", reaches("/public/admin/users"), bad},
		{"/public/..//admin", admin, bad},
		{"/admin//", admin, bad},
		// Encoded slashes and backslashes.
		{"/admin%2Fusers", byProxy, bad},
		{"/public/..%2Fadmin/users", byProxy, bad},
		{"/public%2F..%2fadmin", byProxy, bad},
		{"/public/..%5Cadmin/users", byProxy, bad},
		{`/public/..\admin/users`, admin, bad},
		{`\public\..\admin\users`, byProxy, byProxy},
		{"/files/a%2Fb", byProxy, reaches("/files/a%2Fb")}, // a route that says so
		{"/files/..%2Fadmin", byProxy, bad},                // never allowed
		{"/files/a%2F..%2Fb", byProxy, bad},
		// NUL, controls, spaces.
		{"/public/%00/a", byProxy, bad},
		{"/admin/users%00.png", byProxy, bad},
		{"/public/a%0d%0aX-Auth-Client-Id:%20forged", bad, bad},
		{"/public/a%7F", bad, bad},
		{"/public/a\tb", byProxy, byProxy},
		{"/public/a b", byProxy, byProxy},
		{"/public/a%20b", reaches("/public/a%20b"), reaches("/public/a%20b")},
		// Parameters of segments.
		{"/public/a;x=1", bad, bad},
		{"/public/..;/admin/users", admin, bad}, // Envoy takes this for a dot segment, as Tomcat does
		{"/public/..;x=1/admin", admin, bad},
		{"/public/%2e%2e;/admin/users", bad, bad}, // but not this
		{"/public/%2e%2e%3Bx/admin", bad, bad},
		{"/public/..%3B/admin", bad, bad},
		{"/admin;x/users", bad, bad},
		{"/tickets/7;a=b", reaches("/tickets/7;a=b"), reaches("/tickets/7;a=b")}, // a route that says so
		{"/tickets/..;a=b", nowhere, bad},                                        // never allowed
		// Fragments and queries.
		{"/public/a#/../admin", byProxy, byProxy},
		{"/public/a?b#c", byProxy, byProxy},
		{"/public/a%23b", reaches("/public/a%23b"), reaches("/public/a%23b")},
		{"/public/..%3F/admin", bad, bad},
		{"/public/a?x=/../admin", reaches("/public/a?x=/../admin"), reaches("/public/a?x=/../admin")},
		{"/?/../public/a", nowhere, nowhere},
		// Whole URLs and no paths.
		{"http://api.example.com/admin/users", admin, admin},
		{"http://api.example.com/public/a", reaches("/public/a"), reaches("/public/a")},
		{"http://other.example.com/public/../admin", admin, bad},
		{"http://api.example.com", nowhere, nowhere},
		{"https://api.example.com//admin", byEnvoy(403), byEnvoy(403)},
		{"*", byProxy, byProxy},
		{"admin/users", byProxy, byProxy},
		{"", byProxy, byProxy},
		// Not UTF-8, overlong UTF-8, other notations.
		{"/public/%ff", bad, bad},
		{"/public/\xff", byProxy, byProxy},
		{"/public/%c0%ae%c0%ae/admin", bad, bad},
		{"/public/%c0%af..%c0%afadmin", bad, bad},
		{"/public/%e0%80%af..", bad, bad},
		{"/public/%u002e%u002e/admin", bad, bad},
		{"/public/%", bad, bad},
		{"/public/%zz", bad, bad},
		{"/public/caf%C3%A9", reaches("/public/caf%C3%A9"), reaches("/public/caf%C3%A9")},
		// The same path in another spelling is the same route.
		{"/%61dmin/users", admin, admin},
		{"/%70ublic/a", reaches("/public/a"), reaches("/%70ublic/a")},
		{"/ADMIN/users", nowhere, nowhere}, // but case counts
		// Trailing slashes.
		{"/admin", admin, admin},
		{"/admin/", admin, admin},
		{"/public/", reaches("/public/"), reaches("/public/")},
		{"/orders/7/", nowhere, nowhere},
		{"/healthz/", nowhere, nowhere},
		{"/healthz", reaches("/healthz"), reaches("/healthz")},
	}
	token := bearer(t, batchID)
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			t.Parallel()
			for _, try := range []struct {
				name string
				got  answer
				want outcome
			}{
				{"shipped", shipped(t).get(t, tt.target, token), tt.shipped},
				{"open", open(t).get(t, tt.target, token), tt.open},
				{"shipped without a token", shipped(t).get(t, tt.target), withoutToken(tt.target, tt.shipped)},
				{"open without a token", open(t).get(t, tt.target), withoutToken(tt.target, tt.open)},
			} {
				if diff := cmp.Diff(try.want, try.got.outcome()); diff != "" {
					t.Errorf("%s: -want +got:\n%s", try.name, diff)
				}
				if try.got.seen != nil && readsAsAdmin(try.got.seen.Path) {
					t.Errorf("%s: the upstream saw %q, which some servers take for something below /admin", try.name, try.got.seen.Path)
				}
			}
		})
	}
}

// readsAsAdmin reports whether the most careless of servers would take a path for one below /admin: one that decodes as
// often as it can, takes backslashes for slashes, drops parameters, merges slashes, and then resolves dots.
func readsAsAdmin(target string) bool {
	text, _, _ := strings.Cut(target, "?")
	for range 10 {
		decoded, err := url.PathUnescape(text)
		if err != nil {
			break
		}
		text = decoded
	}
	segments := strings.Split(strings.ReplaceAll(text, `\`, "/"), "/")
	for i, segment := range segments {
		segment, _, _ = strings.Cut(segment, ";")
		segments[i] = strings.TrimSpace(segment)
	}
	read := path.Clean("/" + strings.Join(segments, "/"))
	return read == "/admin" || strings.HasPrefix(read, "/admin/")
}

// In HTTP/2 the path is a field of its own, which may hold what no HTTP/1.1 request line can.
func TestAmbiguousPathsOverHTTP2(t *testing.T) {
	t.Parallel()
	token := toFields([]string{bearer(t, batchID)})
	closed := byEnvoy(0)
	request := func(path string) []field { return h2("GET", path, token...) }
	tests := []struct {
		name    string
		fields  []field
		shipped outcome
		open    outcome
	}{
		{"plain", request("/public/a"), reaches("/public/a"), reaches("/public/a")},
		{"dot segments", request("/public/../admin/users"), admin, bad},
		{"empty", request(""), closed, closed},
		{"no slash", request("admin/users"), closed, closed},
		{"a whole URL", request("http://api.example.com/admin/users"), closed, closed},
		{"a fragment", request("/public/a#b"), byProxy, byProxy},
		{"a space", request("/public/a HTTP/1.1"), closed, closed},
		{"a line break", request("/public/a\r\nx: y"), closed, closed},
		{"NUL", request("/public/a\x00"), closed, closed},
		{"missing", append([]field{{":method", "GET"}, {":scheme", "http"}, {":authority", "api.example.com"}}, token...), closed, closed},
		{"twice", append(request("/public/a"), field{":path", "/admin/users"}), closed, closed},
		{"CONNECT", append([]field{{":method", "CONNECT"}, {":authority", "api.example.com:443"}}, token...), byEnvoy(404), byEnvoy(404)},
		{"OPTIONS *", h2("OPTIONS", "*", token...), byEnvoy(404), byEnvoy(404)},
		// A byte that is no UTF-8 is "!" in what Envoy sends to be checked (docs/paths.md): the shipped Envoy encodes it first.
		{"not UTF-8", request("/public/\xff"), bad, reaches("/public/\xff")},
		{"not UTF-8 within dots", request("/public/.\xff./admin"), bad, bad},
		{"not UTF-8 within a name", request("/adm\xffin/users"), bad, nowhere},
		{"UTF-8", request("/public/café"), reaches("/public/caf%C3%A9"), reaches("/public/café")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // Envoy takes a second to close a connection on which it met what it does not understand
			for _, gw := range []struct {
				name    string
				gateway *gateway
				want    outcome
			}{{"shipped", shipped(t), tt.shipped}, {"open", open(t), tt.open}} {
				a := gw.gateway.sendH2(t, tt.fields)
				got := a.outcome()
				got.Upstream = strings.ReplaceAll(got.Upstream, "\ufffd", "\xff") // as JSON has it
				if diff := cmp.Diff(gw.want, got); diff != "" {
					t.Errorf("%s: -want +got:\n%s", gw.name, diff)
				}
			}
		})
	}
}

// The policy sees the path by which Envoy has chosen its route, and which the upstream gets.
func TestPolicySeesThePathThatIsRouted(t *testing.T) {
	t.Parallel()
	g := extendShipped(t)
	token := bearer(t, batchID)
	tests := []struct {
		target string
		route  string // of Envoy
		path   string // for the policy
		routed string // what Envoy sends on, if it is spelled in another way
	}{
		{"/seen/inner/a", "inner", "/seen/inner/a", ""},
		{"/seen/outer/../inner/a", "inner", "/seen/inner/a", ""},
		{"/seen//inner/a", "inner", "/seen/inner/a", ""},
		{"/seen/inner/../outer", "", "/seen/outer", ""},
		{"/seen/%69nner/a", "inner", "/seen/inner/a", ""},
		{`/seen\inner\a`, "inner", "/seen/inner/a", ""},
		{"/seen/inner/..;/outer", "", "/seen/outer", ""},
		{"/seen/inner;x/a", "", "/seen/inner;x/a", ""},
		{"/seen/Inner/a", "", "/seen/Inner/a", ""},
		{"/seen/inner", "", "/seen/inner", ""},
		{"/seen/%7Einner/%2a", "", "/seen/~inner/%2A", "/seen/~inner/%2a"},
		{"/seen/caf%c3%a9", "", "/seen/caf%C3%A9", "/seen/caf%c3%a9"},
		{"/seen/a%20b", "", "/seen/a%20b", ""},
		{"http://api.example.com/seen/outer/../inner/a", "inner", "/seen/inner/a", ""},
	}
	for _, tt := range tests {
		t.Run(tt.target, func(t *testing.T) {
			a := g.get(t, tt.target+"?q=%2e%2e", token)
			routed := tt.routed
			if routed == "" {
				routed = tt.path
			}
			if diff := cmp.Diff(reaches(routed+"?q=%2e%2e"), a.outcome()); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
			got := map[string]string{
				"route": a.header.Get("X-Envoy-Route"), "policy": a.header.Get("X-Seen-Path"), "target": a.header.Get("X-Seen-Target"),
			}
			want := map[string]string{"route": tt.route, "policy": tt.path, "target": routed + "?q=%2e%2e"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Other protocols than HTTP/1.1 and HTTP/2 never get to the check, nor does what asks for a tunnel. An offer to change the
// protocol is not taken.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	token := bearer(t, batchID)
	for name, g := range map[string]*gateway{"shipped": shipped(t), "open": open(t)} {
		tests := []struct {
			name string
			got  answer
			want outcome
		}{
			{"HTTP/1.0", g.send(t, "GET /public/a HTTP/1.0", host, token), byEnvoy(426)},
			{"HTTP/0.9", g.send(t, "GET /public/a", host, token), byEnvoy(426)},
			{"CONNECT", g.send(t, "CONNECT api.example.com:443 HTTP/1.1", host, token), byEnvoy(404)},
			{"an upgrade to HTTP/2", g.send(t, "GET /orders/7 HTTP/1.1", host, token,
				"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"), reaches("/orders/7")},
			{"an upgrade to WebSocket", g.send(t, "GET /orders/7 HTTP/1.1", host, token,
				"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), byEnvoy(403)},
		}
		for _, tt := range tests {
			if diff := cmp.Diff(tt.want, tt.got.outcome()); diff != "" {
				t.Errorf("%s: %s: -want +got:\n%s", name, tt.name, diff)
			}
		}
	}
}
