package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// The tests of this file run with failure_mode_allow: true, under which every check that Envoy takes for failed lets its
// request through. Nothing that a client, a token, a policy or a key server does may count as that.

func TestNoBadTokenPassesFailOpen(t *testing.T) {
	t.Parallel()
	g := newGateway(t, mainService(t), lab.FailOpen(), patience())
	for _, tt := range badTokens(t) {
		for name, a := range map[string]answer{
			"HTTP/1.1": g.get(t, tt.path, "Authorization: Bearer "+tt.token),
			"HTTP/2":   g.sendH2(t, h2("GET", tt.path, field{"authorization", "Bearer " + tt.token})),
		} {
			if diff := cmp.Diff(tt.want, a.outcome()); diff != "" {
				t.Errorf("%s over %s: -want +got:\n%s", tt.name, name, diff)
			}
		}
	}
	checkNoneArrived(t, g)
}

func checkNoneArrived(t *testing.T, g *gateway) {
	t.Helper()
	if n := g.echo.Requests(); n != 0 {
		t.Errorf("%d requests reached the upstream, want none", n)
	}
}

func TestNoPolicyFaultPassesFailOpen(t *testing.T) {
	t.Parallel()
	g := newGateway(t, ownPolicy(t), lab.FailOpen(), lab.PlainHeaders(), patience())
	token := bearer(t, reportsID)
	var wg sync.WaitGroup
	for _, tt := range policyFaults {
		for _, path := range []string{"/case/", "/open/"} {
			wg.Go(func() {
				if diff := cmp.Diff(failed(tt.reason), g.get(t, path+tt.name, token).outcome()); diff != "" {
					t.Errorf("%s%s: -want +got:\n%s", path, tt.name, diff)
				}
			})
		}
	}
	wg.Wait()
	checkNoneArrived(t, g)
}

// What takes too long is ended before Envoy's own deadline, so that Envoy gets an answer: with its shipped timeout of
// half a second, a policy that may take ten, and keys that never come.
func TestNoSlowCheckPassesFailOpen(t *testing.T) {
	t.Parallel()
	x := newService(t, "own.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()}, "EXTAUTHZ__POLICY__TIMEOUT=10s")
	slowPolicy := newGateway(t, x, lab.FailOpen())
	noKeys := newGateway(t, mainService(t), lab.FailOpen())
	tests := []struct {
		name    string
		gateway *gateway
		target  string
		token   string
		reason  string
	}{
		{"a slow policy", slowPolicy, "/case/slow", pool(t, mainPool).Token(reportsID), "policy_timeout"},
		{"a slow policy on a public route", slowPolicy, "/open/slow", "", "policy_timeout"},
		{"a key server that hangs", noKeys, "/hanging", pool(t, hangingPool).Token(reportsID), "keys_unavailable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 3 {
				if diff := cmp.Diff(failed(tt.reason), tt.gateway.get(t, tt.target, "Authorization: Bearer "+tt.token).outcome()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			}
			checkNoneArrived(t, tt.gateway)
		})
	}
}

// Requests that are large, or not what they should be made of, are answered; none makes the check fail.
func TestNoOddRequestPassesFailOpen(t *testing.T) {
	t.Parallel()
	wide := []lab.Edit{lab.Set(lab.HCMPath+"/max_request_headers_kb", 8192)} // the most that Envoy takes
	worst := slices.Concat(lab.FailOpen(), lab.PlainHeaders(), lab.PlainPaths(), patience(), wide)
	everything := []lab.Edit{lab.Remove(lab.ExtAuthzPath + "/disallowed_headers")}
	gateways := map[string]*gateway{
		"plain":            newGateway(t, mainService(t), worst, everything),
		"with raw headers": newGateway(t, mainService(t), worst, everything, []lab.Edit{lab.Add(lab.ExtAuthzPath+"/encode_raw_headers", true)}),
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	good := "Authorization: Bearer " + pool(t, mainPool).Token(reportsID) // which is not enough for what is asked for
	tests := []struct {
		name   string
		target string
		lines  []string
		want   []outcome // one of these
	}{
		{"a header of 60 KiB", "/admin/a", []string{"X-Long: " + x(60<<10)}, []outcome{missing()}},
		{"a header of 70 KiB", "/admin/a", []string{"X-Long: " + x(70<<10)}, []outcome{invalid("invalid_request")}},
		{"a header of 5 MiB", "/admin/a", []string{"X-Long: " + x(5<<20)}, []outcome{invalid("invalid_request")}},
		{"a header of 5 MiB and a token", "/admin/a", []string{good, "X-Long: " + x(5<<20)}, []outcome{invalid("invalid_request")}},
		{"ninety headers of 700 bytes", "/admin/a", slices.Repeat([]string{"X-Many: " + x(700)}, 90), []outcome{missing()}},
		{"more headers than Envoy takes", "/admin/a", slices.Repeat([]string{"X-Many: 1"}, 101), []outcome{byEnvoy(431)}},
		{"cookies of 50 KiB", "/admin/a", slices.Repeat([]string{"Cookie: a=" + x(1<<10)}, 50), []outcome{missing()}},
		{"a token of 60 KiB", "/admin/a", []string{"Authorization: Bearer " + x(60<<10)}, []outcome{invalid("invalid_request")}},
		{"a query of 100 KB", "/admin/a?q=" + x(100_000), []string{good}, []outcome{invalid("invalid_path")}},
		{"a query of 6 KB", "/admin/a?q=" + x(6_000), []string{good}, []outcome{scopeMissing("orders/admin")}},
		{"a path of 100 KB", "/admin/" + x(100_000), []string{good}, []outcome{invalid("invalid_path")}},
		{"a public path of 100 KB", "/public/" + x(100_000), nil, []outcome{invalid("invalid_path")}},
		{"a thousand parameters", "/admin/a?" + strings.Repeat("a=1&", 1000), []string{good}, []outcome{scopeMissing("orders/admin")}},
		{"a host of 5 KB", "/admin/a", []string{"Host: " + x(5_000), good}, []outcome{invalid("invalid_path"), byEnvoy(400)}},
		{"every byte above ASCII", "/admin/a", []string{"X-Junk: " + junk()}, []outcome{missing()}},
		{"every byte above ASCII and a token", "/admin/a", []string{good, "X-Junk: " + junk()}, []outcome{scopeMissing("orders/admin")}},
		{"bytes in the token", "/admin/a", []string{good + "\xff"}, []outcome{invalid("invalid_request")}},
		{"bytes in the scheme", "/admin/a", []string{"Authorization: Bear\xc3r a"}, []outcome{missing()}},
		{"bytes in the cookie", "/admin/a", []string{"Cookie: " + junk()}, []outcome{missing()}},
		{"bytes in the host", "/admin/a", []string{"Host: a\xff.example.com"}, []outcome{byEnvoy(400), invalid("invalid_path")}},
		{"bytes in the content type", "/admin/a", []string{"Content-Type: application/grpc\xff"}, []outcome{missing()}},
		{"bytes in the request id", "/admin/a", []string{"X-Request-Id: " + junk()}, []outcome{missing()}},
		{"bytes in the trace", "/admin/a", []string{"Traceparent: " + junk(), "Tracestate: " + junk(), "Baggage: " + junk()}, []outcome{missing()}},
		{"controls in a header", "/admin/a", []string{"X-Junk: a\x01\x02\x7fb"}, []outcome{byEnvoy(400), missing()}},
		{"NUL in a header", "/admin/a", []string{"X-Junk: a\x00b"}, []outcome{byEnvoy(400)}},
		{"a partial body that says it is whole", "/admin/a", []string{good, "X-Envoy-Auth-Partial-Body: false"}, []outcome{scopeMissing("orders/admin")}},
	}
	for name, g := range gateways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tt := range tests {
				lines := append([]string{"GET " + tt.target + " HTTP/1.1"}, tt.lines...)
				if !strings.HasPrefix(strings.Join(tt.lines, ""), "Host:") {
					lines = append(lines, host)
				}
				if got := g.send(t, lines...).outcome(); !slices.Contains(tt.want, got) {
					t.Errorf("%s: got %+v, want one of %+v", tt.name, got, tt.want)
				}
			}
			checkNoneArrived(t, g)
			if n, err := g.Stat(t.Context(), "http.ingress.ext_authz.extauthz.error"); err != nil || n != 0 {
				t.Errorf("Envoy counts %d failed checks, %v, want none", n, err)
			}
		})
	}
}

// Bodies, where Envoy is told to send them and the policy reads them.
func TestNoOddBodyPassesFailOpen(t *testing.T) {
	t.Parallel()
	type object = map[string]any
	withBodies := func(asBytes bool) []lab.Edit {
		return []lab.Edit{
			lab.Set(lab.ListenerPath+"/per_connection_buffer_limit_bytes", 1<<20),
			lab.Add(lab.ExtAuthzPath+"/with_request_body", object{"max_request_bytes": 65536, "allow_partial_message": true, "pack_as_bytes": asBytes}),
		}
	}
	gateways := map[string]*gateway{
		"as text":  newGateway(t, ownPolicy(t), lab.FailOpen(), lab.PlainHeaders(), patience(), withBodies(false)),
		"as bytes": newGateway(t, ownPolicy(t), lab.FailOpen(), lab.PlainHeaders(), patience(), withBodies(true)),
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	bodies := []struct {
		name, contentType, body string
		readable                bool // or nothing that is to be read
	}{
		{"JSON", "application/json", `{"a":1}`, true},
		{"broken JSON", "application/json", `{"a":`, false},
		{"two JSON values", "application/json", `{} {}`, false},
		{"deep JSON", "application/json", strings.Repeat("[", 30000), false},
		{"deep and whole JSON", "application/json", strings.Repeat("[", 20000) + strings.Repeat("]", 20000), false},
		{"a huge number", "application/json", "1" + strings.Repeat("0", 60000), false},
		{"a number out of range", "application/json", "1e999999999", false},
		{"JSON that is not UTF-8", "application/json", "\"\xff\xfe\"", false},
		{"JSON with a lone surrogate", "application/json", `"\ud800"`, false},
		{"bytes", "application/octet-stream", junk(), true},
		{"a form that is not one", "application/x-www-form-urlencoded", "a=%zz;b", false},
		{"a form of bytes", "application/x-www-form-urlencoded", "a=" + junk(), false},
		{"longer than Envoy sends", "application/json", `"` + x(100_000) + `"`, true},
		{"a strange content type", ";;;\xff", "abc", true},
		{"a boundary without end", "multipart/form-data; boundary=", "--", true},
	}
	read := denied("policy_denied")
	read.Status = 409
	token := bearer(t, reportsID)
	for name, g := range gateways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tt := range bodies {
				a := g.send(t, "POST /case/reads HTTP/1.1", host, token, "Content-Type: "+tt.contentType, fmt.Sprint("Content-Length: ", len(tt.body)), "", tt.body)
				want := read
				if !tt.readable && (name == "as bytes" || utf8.ValidString(tt.body)) { // in text, Envoy replaces what is no UTF-8
					want = invalid("invalid_request")
				}
				if diff := cmp.Diff(want, a.outcome()); diff != "" {
					t.Errorf("%s: -want +got:\n%s", tt.name, diff)
				}
			}
			checkNoneArrived(t, g)
		})
	}
}

// junk is every byte above ASCII.
func junk() string {
	var b []byte
	for c := 0x80; c <= 0xff; c++ {
		b = append(b, byte(c))
	}
	return string(b)
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string                       { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = slices.Clone(data); return nil }

// Bytes straight to the gRPC port: each gets an answer that denies, and none a gRPC error.
func TestNothingSentToTheGRPCPortIsAnError(t *testing.T) {
	t.Parallel()
	conn, err := grpc.NewClient(lab.Loopback(mainService(t).grpcPort), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	marshal := func(req *authv3.CheckRequest) []byte {
		text, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	http := func(h *authv3.AttributeContext_HttpRequest) []byte {
		return marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: h}}})
	}
	tests := []struct {
		name    string
		message []byte
		code    codes.Code
		reason  string
	}{
		{"an empty message", nil, codes.InvalidArgument, "invalid_request"},
		{"junk", []byte("\xff\xff\xff\xff"), codes.InvalidArgument, "invalid_request"},
		{"a cut field", []byte{0x0a, 0x7f}, codes.InvalidArgument, "invalid_request"},
		{"text that is not UTF-8", []byte{0x0a, 0x0b, 0x22, 0x09, 0x12, 0x07, 0x12, 0x05, 0x61, 0x62, 0xff, 0x63, 0x64}, codes.InvalidArgument, "invalid_request"},
		{"6 MiB of junk", []byte(strings.Repeat("\xff", 6<<20)), codes.InvalidArgument, "invalid_request"},
		{"empty attributes", marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}), codes.InvalidArgument, "invalid_request"},
		{"an empty request", http(&authv3.AttributeContext_HttpRequest{}), codes.InvalidArgument, "invalid_path"},
		{"a request without a method", http(&authv3.AttributeContext_HttpRequest{Path: "/healthz", Host: "a"}), codes.Unauthenticated, "missing_token"},
		{"a request without a host", http(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/healthz"}), codes.InvalidArgument, "invalid_path"},
		{"a public request", http(&authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/healthz", Host: "a"}), codes.OK, "allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
			defer cancel()
			message := tt.message
			if message == nil {
				message = []byte{}
			}
			var reply []byte
			if err := conn.Invoke(ctx, "/envoy.service.auth.v3.Authorization/Check", message, &reply, grpc.ForceCodec(rawCodec{})); err != nil {
				t.Fatalf("gRPC error %v, want an answer", err)
			}
			var resp authv3.CheckResponse
			if err := proto.Unmarshal(reply, &resp); err != nil {
				t.Fatal(err)
			}
			if got := codes.Code(resp.GetStatus().GetCode()); got != tt.code {
				t.Errorf("status %v, want %v", got, tt.code)
			}
			if (resp.GetDeniedResponse() == nil) != (tt.code == codes.OK) || (resp.GetOkResponse() == nil) != (tt.code != codes.OK) {
				t.Errorf("got %v, want a response that fits status %v", &resp, tt.code)
			}
			if got := resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); got != tt.reason {
				t.Errorf("reason %s, want %s", got, tt.reason)
			}
		})
	}
}

// A few hundred requests that are each put together by chance, of good and bad parts: none reaches the upstream but on a
// public route, or with the token of reports on a route where it suffices, and none with anything forged.
func TestNoRandomRequestPassesFailOpen(t *testing.T) {
	t.Parallel()
	const seed, rounds, clients = 20261121, 100, 4
	g := newGateway(t, mainService(t), lab.FailOpen(), lab.PlainHeaders(), lab.PlainPaths(), patience())
	good := pool(t, mainPool).Token(reportsID)
	var badOnes []string
	for _, b := range badTokens(t) {
		if b.path == "/orders/7" { // for which reports' scope is enough
			badOnes = append(badOnes, b.token)
		}
	}
	badOnes = append(badOnes, pool(t, strictPool).Token(batchID), pool(t, mainPool).Token(reportsID, cognitotest.Scopes()))
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed, public := 0, 0
	for i := range clients {
		wg.Go(func() {
			dice := dice{rand.New(rand.NewPCG(seed, uint64(i)))}
			for range rounds {
				r := dice.request(good, badOnes)
				a := g.send(t, r.lines...)
				if problem := r.check(a); problem != "" {
					t.Errorf("%s:\n%q\n%+v", problem, r.lines, a.seen)
				}
				if a.seen != nil || r.head && a.status == 200 {
					mu.Lock()
					passed++
					if !r.good {
						public++
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if seen := g.echo.Requests(); seen != int64(passed) {
		t.Errorf("%d requests reached the upstream, want the %d that were answered by it", seen, passed)
	}
	if n, err := g.Stat(t.Context(), "http.ingress.ext_authz.extauthz.error"); err != nil || n != 0 {
		t.Errorf("Envoy counts %d failed checks, %v, want none", n, err)
	}
	t.Logf("seed %d: of %d requests %d passed, %d of them without a good token", seed, rounds*clients, passed, public)
	if public == 0 || passed == public || passed > rounds*clients/2 {
		t.Error("the dice are loaded: want some requests of each kind to pass, and most not to")
	}
}

type dice struct{ *rand.Rand }

func (d dice) pick(list ...string) string { return list[d.IntN(len(list))] }

// A randomRequest is what was sent, and whether its token is the good one, in one proper header.
type randomRequest struct {
	lines      []string
	good, head bool
}

func (d dice) request(good string, bad []string) randomRequest {
	method := d.pick("GET", "GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS")
	r := randomRequest{
		lines: []string{method + " " + d.path() + " HTTP/1.1", d.pick(host, host, host, "Host: API.example.com.:81", "Host: partner.example.com", "Host: a,b", "Host: [::1]")},
		head:  method == "HEAD",
	}
	switch token := d.pick(bad...); d.IntN(8) {
	case 0, 1, 2:
		r.lines = append(r.lines, d.pick("Authorization", "authorization", "AUTHORIZATION")+": "+d.pick("Bearer ", "bearer ")+good)
		r.good = true
	case 3:
		r.lines = append(r.lines, "Authorization: Bearer "+token)
	case 4:
		r.lines = append(r.lines, "Authorization: Bearer "+good, "Authorization: Bearer "+token)
	case 5:
		r.lines = append(r.lines, "Authorization: Bearer "+d.flip(good))
	case 6:
		r.lines = append(r.lines, d.pick("Authorization: Basic ", "X-Authorization: Bearer ", "Authorization: Bearer ,", "Cookie: token=", "Authorization: Bearer\t")+good)
	}
	for range d.IntN(4) {
		r.lines = append(r.lines, d.pick(append(forgeries,
			"X-HTTP-Method-Override: GET", "X-Original-URL: /public/a", "X-Forwarded-Host: partner.example.com", "X-Junk: "+junk(), "X-Envoy-Original-Path: /public/a",
			"Connection: authorization-x", "X-Long: "+strings.Repeat("x", 20000), "Forwarded: host=partner.example.com;proto=https", "Upgrade: h2c", "Expect: 200-ok")...))
	}
	return r
}

// path returns a path of a known route, or beside one, with a few changes.
func (d dice) path() string {
	path := d.pick("/orders/7", "/orders/7", "/orders", "/orders/export", "/admin", "/admin/users", "/strict", "/dark", "/files/a", "/tickets/1", "/healthz",
		"/public/a", "/public/admin/users", "/who", "/nowhere")
	for range d.IntN(3) {
		at := d.IntN(len(path) + 1)
		switch d.IntN(6) {
		case 0:
			path = path[:at] + d.pick("/../admin/users", "/./", "//", "/..", "/..;/", "%2e%2e/", "/%2e%2e;x/", "%252e%252e%252f") + path[at:]
		case 1:
			path = path[:at] + d.pick("%2F", "%5C", `\`, "%00", "%0a", ";x=1", "%3B", "%ff", "%c0%af", "%", "!", "~", "%20", "?", "?a=/admin") + path[at:]
		case 2:
			path += d.pick("/", "/x", "?q=1", "?access_token=x", ";", "%2F", ".json")
		case 3:
			if at < len(path) {
				path = path[:at] + fmt.Sprintf("%%%02X", path[at]) + path[at+1:]
			}
		case 4:
			path = strings.ToUpper(path[:at]) + path[at:]
		case 5:
			path = d.pick("/public", "/admin", "http://api.example.com", "/", "") + path
		}
	}
	return strings.ReplaceAll(path, " ", "%20")
}

// flip changes one character of a token's signature or claims for another.
func (d dice) flip(token string) string {
	at := strings.IndexByte(token, '.') + 1 + d.IntN(len(token)-100)
	if at >= len(token)-1 { // the last character holds bits that do not count
		at = len(token) - 2
	}
	with := "A"
	if token[at] == 'A' {
		with = "B"
	}
	return token[:at] + with + token[at+1:]
}

// check says what is wrong with an answer; "" if nothing is.
func (r randomRequest) check(a answer) string {
	if a.seen == nil {
		return ""
	}
	for name, values := range a.seen.Headers {
		if strings.HasPrefix(fold(name), "x-auth-") && (!r.good || strings.Contains(fmt.Sprint(values), "forged")) {
			return "the upstream saw an identity header of the client's"
		}
	}
	sent, _, _ := strings.Cut(a.seen.Path, "?")
	path, err := url.PathUnescape(sent)
	if err != nil || readsAsAdmin(sent) {
		return "the upstream saw a path with two readings"
	}
	isPublic := path == "/healthz" || path == "/public" || strings.HasPrefix(path, "/public/") || path == "/who" && a.seen.Method == "GET"
	ofReports := strings.HasPrefix(path, "/orders/") && path != "/orders/export" || strings.HasPrefix(path, "/files/") || strings.HasPrefix(path, "/tickets/")
	switch {
	case isPublic:
		return ""
	case !r.good:
		return "the upstream saw a request without a good token on a route that is not public"
	case !ofReports || a.seen.Method != "GET":
		return "the upstream saw a request that reports may not make"
	}
	return ""
}
