package authz

import (
	"context"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

func TestBearer(t *testing.T) {
	tests := []struct {
		name  string
		given []string
		token string
		bad   bool
	}{
		{"none", nil, "", false},
		{"one", []string{"Bearer abc.def_ghi-jkl~+/=="}, "abc.def_ghi-jkl~+/==", false},
		{"scheme in lower case", []string{"bearer abc"}, "abc", false},
		{"scheme in upper case", []string{"BEARER abc"}, "abc", false},
		{"several spaces", []string{"Bearer   abc"}, "abc", false},
		{"another scheme", []string{"Basic dXNlcjpwYXNz"}, "", false},
		{"another scheme with commas", []string{`Digest username="a", realm="b"`}, "", false},
		{"a scheme that begins alike", []string{"BearerX abc"}, "", false},
		{"empty header", []string{""}, "", false},
		{"scheme alone", []string{"Bearer"}, "", true},
		{"scheme and space", []string{"Bearer "}, "", true},
		{"two headers", []string{"Bearer a", "Bearer b"}, "", true},
		{"two headers, one of them Basic", []string{"Basic a", "Bearer b"}, "", true},
		{"two headers joined", []string{"Bearer a,Bearer b"}, "", true},
		{"two tokens", []string{"Bearer a b"}, "", true},
		{"comma and space", []string{"Bearer a, Bearer b"}, "", true},
		{"tab", []string{"Bearer\tabc"}, "", false}, // no scheme of this name
		{"tab in the token", []string{"Bearer a\tb"}, "", true},
		{"trailing space", []string{"Bearer a "}, "", true},
		{"quotes", []string{`Bearer "a"`}, "", true},
		{"padding in the middle", []string{"Bearer a=b"}, "", true},
		{"only padding", []string{"Bearer =="}, "", true},
		{"not ASCII", []string{"Bearer ä"}, "", true},
		{"line feed", []string{"Bearer a\n"}, "", true},
		{"too long", []string{"Bearer " + strings.Repeat("a", 65)}, "", true},
		{"as long as allowed", []string{"Bearer " + strings.Repeat("a", 64)}, strings.Repeat("a", 64), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			token, err := bearer(test.given, 64)
			if token != test.token || (err != nil) != test.bad {
				t.Errorf("token is %q and error %v, want %q and an error: %v", token, err, test.token, test.bad)
			}
		})
	}
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer abc")
	f.Add("Bearer a,Bearer b")
	f.Add("bEaReR  x==")
	f.Fuzz(func(t *testing.T, header string) {
		token, err := bearer([]string{header}, 1024)
		if err != nil || token == "" {
			if err != nil && token != "" {
				t.Fatalf("token %q with error %v", token, err)
			}
			return
		}
		scheme, rest, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "bearer") || strings.TrimLeft(rest, " ") != token || strings.ContainsAny(token, " ,\t\r\n\"\\") {
			t.Fatalf("token %q of %q", token, header)
		}
	})
}

// The same request, with encode_raw_headers off and on, is the same to us.
func TestRawHeaders(t *testing.T) {
	raw := func(h *authv3.AttributeContext_HttpRequest) {
		h.HeaderMap = new(corev3.HeaderMap)
		for name, value := range h.Headers {
			h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
		h.Headers = nil
	}
	again := func(h *authv3.AttributeContext_HttpRequest) {
		h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: "Authorization", RawValue: []byte("Bearer good")})
	}
	tests := []struct {
		name string
		req  *authv3.CheckRequest
		want Reason
	}{
		{"headers", get("/orders"), OK},
		{"header_map", get("/orders", raw), OK},
		{"header_map without a token", get("/orders", withoutHeader("authorization"), raw), MissingToken},
		{"header_map with two", get("/orders", raw, again), InvalidRequest},
		{"one in each", get("/orders", raw, func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"authorization": "Bearer good"}
		}), InvalidRequest},
		{"a name in upper case", get("/orders", withoutHeader("authorization"), withHeader("AUTHORIZATION", "Bearer good")), OK},
		{"two spellings", get("/orders", withHeader("Authorization", "Bearer good")), InvalidRequest},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := reasonIn(t, send(t, newHarness(t, nil).Service, test.req)); got != test.want {
				t.Errorf("reason is %s, want %s", got, test.want)
			}
		})
	}
}

func reasonIn(t testing.TB, resp *authv3.CheckResponse) Reason {
	t.Helper()
	return Reason(resp.GetDynamicMetadata().GetFields()["reason"].GetStringValue())
}

func TestLimits(t *testing.T) {
	body := func(kind, text string) func(*authv3.AttributeContext_HttpRequest) {
		return func(h *authv3.AttributeContext_HttpRequest) { h.Body = text; h.Headers["content-type"] = kind }
	}
	tests := []struct {
		name string
		req  *authv3.CheckRequest
		want Reason
	}{
		{"a long query", get("/orders?q=" + strings.Repeat("a", 900)), OK},
		{"a longer query", get("/orders?q=" + strings.Repeat("a", 1024)), InvalidPath},
		{"a large header", get("/orders", withHeader("x", strings.Repeat("a", 7000))), OK},
		{"a larger header", get("/orders", withHeader("x", strings.Repeat("a", 60<<10))), InvalidRequest},
		{"a JSON body", get("/orders", body("application/json; charset=utf-8", `{"a":1}`)), OK},
		{"a broken JSON body", get("/orders", body("application/json", `{"a":`)), InvalidRequest},
		{"two JSON values", get("/orders", body("application/json", `{} {}`)), InvalidRequest},
		{"a broken JSON body that was cut", get("/orders", body("application/json", `{"a":`), withHeader("x-envoy-auth-partial-body", "true")), OK},
		{"a broken form", get("/orders", body("application/x-www-form-urlencoded", `a=%zz`)), InvalidRequest},
		{"a large body", get("/orders", body("application/octet-stream", strings.Repeat("a", 1025))), InvalidRequest},
		{"a long token", get("/orders", withHeader("authorization", "Bearer "+strings.Repeat("a", 1025))), InvalidRequest},
		{"no HTTP attributes", &authv3.CheckRequest{}, InvalidRequest},
		{"nothing at all", nil, InvalidRequest},
		{"a query with a bad escape", get("/orders?a=%zz"), InvalidRequest},
		{"a query that is not UTF-8", get("/orders?a=%ff"), InvalidRequest},
		{"a form with a name that is not UTF-8", get("/orders", body("application/x-www-form-urlencoded", "%ff=a")), InvalidRequest},
		{"a query with a semicolon", get("/orders?a=1;b=2"), InvalidRequest},
		{"a JSON body with a name twice", get("/orders", body("application/json", `{"role":"user","role":"admin"}`)), InvalidRequest},
		{"a broken JSON body under a broken parameter", get("/orders", body("application/json; a=1; a", `{"a":`)), InvalidRequest},
		{"a compressed JSON body", get("/orders", body("application/json", "\x1f\x8b"), withHeader("content-encoding", "gzip")), OK},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := reasonIn(t, send(t, newHarness(t, nil).Service, test.req)); got != test.want {
				t.Errorf("reason is %s, want %s", got, test.want)
			}
		})
	}
}

func TestIsGRPC(t *testing.T) {
	for kind, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc; x=y": true, "Application/GRPC": true,
		"application/grpc-web": true, "application/grpcfoo": false, "application/json": false, "": false,
	} {
		if isGRPC(kind) != want {
			t.Errorf("isGRPC(%q) is not %v", kind, want)
		}
	}
}

// What no policy reads is not parsed, and cannot be wrong.
func TestUnreadPartsAreNotParsed(t *testing.T) {
	for name, req := range map[string]*authv3.CheckRequest{
		"a percent sign in the query": get("/orders?q=100%"),
		"a semicolon in the query":    get("/orders?a=1;b=2"),
		"a body that is no JSON": get("/orders", withHeader("content-type", "application/json"), func(h *authv3.AttributeContext_HttpRequest) {
			h.Body = "{"
		}),
	} {
		h := newHarness(t, func(c *Config) { c.Authorizer = readsNothing{} })
		if got := reasonIn(t, send(t, h.Service, req)); got != OK {
			t.Errorf("%s: reason is %s, want allowed", name, got)
		}
	}
}

type readsNothing struct{ authorizer }

func (readsNothing) Decide(_ context.Context, in *policy.Input) (policy.Decision, error) {
	return policy.Decision{Allowed: true}, in.Complete(in, func(string) bool { return false })
}

func TestTruncatedBody(t *testing.T) {
	for name, edit := range map[string]func(*authv3.AttributeContext_HttpRequest){
		"Envoy says so":          withHeader("x-envoy-auth-partial-body", "true"),
		"it is shorter":          withHeader("content-length", "100"),
		"it is compressed":       withHeader("content-encoding", "gzip"),
		"nobody says so":         nil,
		"identity means nothing": withHeader("content-encoding", "identity"),
	} {
		var got policy.Input
		h := newHarness(t, func(c *Config) {
			c.Authorizer = authorizer(func(_ context.Context, in *policy.Input) (policy.Decision, error) {
				got = keep(in)
				return policy.Decision{Allowed: true}, nil
			})
		})
		edits := []func(*authv3.AttributeContext_HttpRequest){withHeader("content-type", "Application/JSON ; x"), func(h *authv3.AttributeContext_HttpRequest) { h.Body = "[1]" }}
		if edit != nil {
			edits = append(edits, edit)
		}
		send(t, h.Service, get("/orders", edits...))
		whole := name == "nobody says so" || name == "identity means nothing"
		if got.TruncatedBody == whole || (got.ParsedBody != nil) != whole {
			t.Errorf("%s: truncated is %v and the body %v", name, got.TruncatedBody, got.ParsedBody)
		}
	}
}
