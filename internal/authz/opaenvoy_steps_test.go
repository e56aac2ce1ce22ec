package authz

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// Each case is a request to a policy of OPA-Envoy that allows everything, behind the routes of the harness.
func TestOPAEnvoyWhoIsAsked(t *testing.T) {
	t.Parallel()
	engine, err := newOPAEnvoyEngine(t, policy.Config{FS: module("package envoy.authz\nallow := true")})
	if err != nil {
		t.Fatal(err)
	}
	optional := func(c *Config) { c.AuthenticationOptional = true }
	anonymous := withoutHeader("authorization")
	tests := []struct {
		name   string
		edit   func(*Config)
		req    *authv3.CheckRequest
		status int
		reason Reason
	}{
		{"a good token", nil, get("/orders"), 0, OK},
		{"a good token, no route", nil, get("/elsewhere"), 0, OK},
		{"no token", nil, get("/orders", anonymous), 401, MissingToken},
		{"no token, no route", nil, get("/elsewhere", anonymous), 401, MissingToken},
		{"no token, a public route", nil, get("/healthz", anonymous), 0, OK},
		{"no token, where that is optional", optional, get("/elsewhere", anonymous), 0, OK},
		{"another scheme, where a token is optional", optional, get("/orders", withHeader("authorization", "Basic dTpw")), 0, OK},
		{"a bad token, where it is optional", optional, get("/orders", withHeader("authorization", "Bearer forged")), 401, Signature},
		{"a malformed header, where a token is optional", optional, get("/orders", withHeader("authorization", "Bearer a b")), 400, InvalidRequest},
		{"an encoded slash, no route", optional, get("/elsewhere/a%2Fb", anonymous), 400, InvalidPath},
		{"an encoded slash that the route does not admit", nil, get("/orders/a%2Fb"), 400, InvalidPath},
		{"an encoded slash that the route admits", nil, get("/files/a%2Fb"), 0, OK},
		{"a query that nobody reads", nil, get("/orders?a=%zz"), 0, OK},
		{"no route in our own dialect", func(c *Config) { c.OPAEnvoy = false }, get("/elsewhere"), 403, NoRoute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, func(c *Config) {
				c.Authorizer, c.OPAEnvoy = engine, true
				if tt.edit != nil {
					tt.edit(c)
				}
			})
			got := answerOf(send(t, h.Service, tt.req))
			if got.Status != tt.status || got.Reason != tt.reason {
				t.Errorf("got %d %s, want %d %s", got.Status, got.Reason, tt.status, tt.reason)
			}
		})
	}
}

// The policy gets the Authorization header, and nothing else does: neither the log, whatever becomes of the check, nor an
// answer, nor the service unless it may.
func TestOPAEnvoyAuthorizationStaysInside(t *testing.T) {
	t.Parallel()
	const canary = "CANARY0123456789abcdef"
	const saw = "package envoy.authz\nimport input.attributes.request.http.headers\ntoken := trim_prefix(headers.authorization, \"Bearer \")\n"
	for name, rule := range map[string]string{
		"allow":            `allow if token == "` + canary + `"`,
		"deny":             `allow := {"allowed": token != "` + canary + `", "reason": token, "status": token}`,
		"undefined":        `allow if token != "` + canary + `"`,
		"a wrong type":     `allow := {"allowed": token}`,
		"a key of it":      `allow := {"allowed": true, concat("", ["` + "\\n" + `", token]): 1}`,
		"a conflict":       "allow := token if token\nallow := 7 if token",
		"a header of it":   `allow := {"allowed": true, "headers": {concat(" ", ["a", token]): token}}`,
		"a function fails": `allow := {"allowed": to_number(token) == 1}`,
		"a print":          "allow if {\n\tprint(token)\n}",
		"metadata too big": `allow := {"allowed": true, "dynamic_metadata": {token: 1e400}}`,
		"a status of it":   `allow := {"allowed": false, "http_status": token}`,
	} {
		t.Run(name, func(t *testing.T) {
			engine, err := newOPAEnvoyEngine(t, policy.Config{FS: module(saw + rule)})
			if err != nil {
				t.Fatal(err)
			}
			h := newHarness(t, func(c *Config) { c.Authorizer, c.OPAEnvoy, c.Authenticator = engine, true, believer{} })
			resp := send(t, h.Service, get("/orders", withHeader("authorization", "Bearer "+canary)))
			if strings.Contains(h.log.String(), canary) || strings.Contains(resp.String(), canary) {
				t.Errorf("found the token in the log or the answer:\n%s\n%s", h.log, resp)
			}
			if ok := resp.GetOkResponse(); ok != nil && !strings.Contains(strings.Join(ok.GetHeadersToRemove(), " "), "authorization") {
				t.Errorf("removed %v, want authorization among them", ok.GetHeadersToRemove())
			}
		})
	}
}

// What the plugin does not have is under input.extauthz, and only on request.
func TestOPAEnvoyExtauthzInput(t *testing.T) {
	t.Parallel()
	const text = `package envoy.authz
default allow := false
allow if {
	input.extauthz.token.client_name == "orders-batch"
	input.extauthz.route.params.id == "7"
	input.extauthz.canonical == {"host": "api.example.com", "path": "/orders/7"}
	not input.token
}`
	for given, want := range map[bool]int{true: 0, false: 403} {
		engine, err := newOPAEnvoyEngine(t, policy.Config{FS: module(text), ExtauthzInput: given})
		if err != nil {
			t.Fatal(err)
		}
		h := newHarness(t, func(c *Config) { c.Authorizer, c.OPAEnvoy = engine, true })
		if got := answerOf(send(t, h.Service, get("/orders/%37"))); got.Status != want {
			t.Errorf("with extauthzInput %t: got %d %s, want %d", given, got.Status, got.Reason, want)
		}
	}
}

// The policy of docs/from-opa-envoy.md: by the verified scopes, or by the route table.
func TestOPAEnvoyDocumentedPolicy(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/from-opa-envoy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "```rego\n")
	text, _, ok := strings.Cut(text, "```")
	if !ok {
		t.Fatal("found no policy on the page")
	}
	engine, err := newOPAEnvoyEngine(t, policy.Config{FS: module(text), ExtauthzInput: true})
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, func(c *Config) { c.Authorizer, c.OPAEnvoy, c.AuthenticationOptional = engine, true, true })
	post := func(r *authv3.AttributeContext_HttpRequest) { r.Method = "POST" }
	anonymous := withoutHeader("authorization")
	for name, tt := range map[string]struct {
		req    *authv3.CheckRequest
		status int
	}{
		"the scope":              {get("/elsewhere"), 0},
		"another method":         {get("/elsewhere", post), 403},
		"no token":               {get("/orders", anonymous), 403},
		"no token, public route": {get("/healthz", anonymous), 0},
	} {
		if got := answerOf(send(t, h.Service, tt.req)); got.Status != tt.status {
			t.Errorf("%s: got %d %s, want %d", name, got.Status, got.Reason, tt.status)
		}
	}
}

// Bodies that were not recorded.
func TestOPAEnvoyBodies(t *testing.T) {
	t.Parallel()
	const part = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n"
	one := body{parsed: map[string]any{"a": []any{"1"}}}
	tests := []struct {
		name, contentType, text string
		more                    map[string]string
		want                    body
		fails                   bool
	}{
		{name: "a form of parts", contentType: "multipart/form-data; boundary=x", text: part + "--x--\r\n", want: one},
		{name: "a form of parts, in another case", contentType: "Multipart/Form-Data; boundary=x", text: part + "--x--\r\n", want: one},
		{name: "a form of parts that is cut off", contentType: "multipart/form-data; boundary=x", text: part + "--x\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\n2", fails: true},
		{
			name: "a part of JSON with a name given twice", contentType: "multipart/form-data; boundary=x",
			text: "--x\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Type: application/json\r\n\r\n{\"b\":1,\"b\":2}\r\n--x--\r\n", fails: true,
		},
		{name: "a form, in another case", contentType: "APPLICATION/X-WWW-Form-Urlencoded", text: "a=1", want: body{parsed: map[string][]string{"a": {"1"}}}},
		{name: "an encoded body", contentType: "application/json", text: "{}", more: map[string]string{"content-encoding": "gzip"}, fails: true},
		{name: "an encoding that is none", contentType: "application/json", text: "true", more: map[string]string{"content-encoding": "Identity"}, want: body{parsed: true}},
		{name: "an encoded body of another type", contentType: "text/plain", text: "x", more: map[string]string{"content-encoding": "gzip"}},
		{name: "JSON is looked for before gRPC", contentType: "application/grpc; x=application/json", text: "true", want: body{parsed: true}},
		{name: "gRPC is looked for before forms", contentType: "application/grpc; x=multipart/form-data", text: "true"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			headers := map[string]string{"content-type": tt.contentType}
			for name, value := range tt.more {
				headers[name] = value
			}
			got, err := parseBodyOPAEnvoy(&authv3.AttributeContext_HttpRequest{Body: tt.text}, headersOf(headers))
			if (err != nil) != tt.fails {
				t.Fatalf("error %v, want one: %t", err, tt.fails)
			}
			if diff := gocmp.Diff(tt.want, got, gocmp.AllowUnexported(body{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Whatever a body is, there is an answer: a value that Rego has a form for, or an error, and never both.
func FuzzParseBodyOPAEnvoy(f *testing.F) {
	f.Add("application/json", `{"a":[1,"\ud800"]}`, "")
	f.Add("application/x-www-form-urlencoded", "a=1&b;c=%zz", "7")
	f.Add("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=a\r\nContent-Type: application/json\r\n\r\n1\r\n--x--", "")
	f.Add("multipart/form-data; boundary=x", "--x\r\n\r\n--x", "x")
	engine, err := policy.New(f.Context(), policy.Config{
		Dialect: policy.DialectOPAEnvoy, FS: fstest.MapFS{"p.rego": {Data: []byte("package envoy.authz\nallow := true if json.marshal(input)")}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, contentType, text, length string) {
		headers := map[string]string{"content-type": contentType}
		if length != "" {
			headers["content-length"] = length
		}
		got, err := parseBodyOPAEnvoy(&authv3.AttributeContext_HttpRequest{Body: text}, headersOf(headers))
		if err != nil {
			if got.parsed != nil || got.truncated {
				t.Fatalf("%+v with error %v", got, err)
			}
			return
		}
		d, err := engine.Decide(t.Context(), &policy.Input{ParsedBody: got.parsed})
		if !d.Allowed && !unreadable(err) {
			t.Fatalf("%v for a body that was parsed", err)
		}
	})
}

// Where no token was verified, a policy sees none that it could take for one.
func TestOPAEnvoyShowsNoUnverifiedToken(t *testing.T) {
	t.Parallel()
	engine, err := newOPAEnvoyEngine(t, policy.Config{FS: module("package envoy.authz\ndefault allow := false\nallow if input.attributes.request.http.headers.authorization")})
	if err != nil {
		t.Fatal(err)
	}
	const forged = "eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJ2aWN0aW0ifQ."
	raw := func(value string) func(*authv3.AttributeContext_HttpRequest) {
		return func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = nil
			h.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "authorization", RawValue: []byte(value)}}}
		}
	}
	for _, tt := range []struct {
		name     string
		optional bool
		req      *authv3.CheckRequest
		shown    bool
	}{
		{"a verified token", false, get("/orders"), true},
		{"a public route", false, get("/healthz", withHeader("authorization", "Bearer "+forged)), false},
		{"another scheme", true, get("/orders", withHeader("authorization", "X "+forged)), false},
		{"no scheme", true, get("/orders", withHeader("authorization", forged)), false},
		{"raw headers", true, get("/orders", raw("X "+forged)), false},
		{"another scheme without a token", true, get("/orders", withHeader("authorization", "Basic dTpw")), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, func(c *Config) { c.Authorizer, c.OPAEnvoy, c.AuthenticationOptional = engine, true, tt.optional })
			if got := answerOf(send(t, h.Service, tt.req)); (got.Status == 0) != tt.shown {
				t.Errorf("got %d %s, want the header shown: %v", got.Status, got.Reason, tt.shown)
			}
		})
	}
}
