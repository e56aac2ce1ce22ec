package policy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What a policy of the dialect sees and answers is held against a real OPA-Envoy in internal/authz. These tests are about
// the engine.

func opaEnvoyEngine(t *testing.T, module string, edit ...func(*Config)) *Engine {
	t.Helper()
	dialect := func(c *Config) { c.Dialect = DialectOPAEnvoy }
	return newEngine(t, map[string]string{"p.rego": "package envoy.authz\n" + module}, append([]func(*Config){dialect}, edit...)...)
}

func opaEnvoyInput() *Input {
	return &Input{
		Attributes:  map[string]any{"metadataContext": map[string]any{"exp": 1790000000.0}},
		ParsedPath:  []string{"orders"},
		ParsedQuery: map[string][]string{"page": {"2"}},
		Canonical:   Canonical{Host: "api.example.com", Path: "/orders"},
		Token:       &Token{ClientName: "batch", Scopes: []string{"orders/read"}, Claims: map[string]any{"exp": 1790000000.0}},
		Route:       &Route{Scopes: Scopes{Any: []string{"orders/read"}}},
	}
}

func TestOPAEnvoyInput(t *testing.T) {
	t.Parallel()
	const show = `allow := {"allowed": true, "dynamic_metadata": {"input": json.marshal(input)}}`
	tests := []struct {
		name string
		edit func(*Config)
		want string
	}{
		{
			"the plugin's keys, and numbers as it writes them", func(*Config) {},
			`{"attributes":{"metadataContext":{"exp":1.79e+09}},"parsed_body":null,"parsed_path":["orders"],"parsed_query":{"page":["2"]},` +
				`"truncated_body":false,"version":{"encoding":"protojson","ext_authz":"v3"}}`,
		},
		{
			"ours beside them", func(c *Config) { c.ExtauthzInput = true },
			`{"attributes":{"metadataContext":{"exp":1.79e+09}},"extauthz":{"canonical":{"host":"api.example.com","path":"/orders"},` +
				`"context":{"extensions":{},"metadata":{},"route_metadata":{}},` +
				`"route":{"any_client":false,"clients":[],"hosts":[],"methods":[],"name":"","params":{},"path":"","pools":[],"public":false,` +
				`"scopes":{"all":[],"any":["orders/read"]}},"token":{"claims":{"exp":1790000000},"client_id":"","client_name":"batch","issuer":"",` +
				`"pool":"","scopes":["orders/read"],"subject":"","token_id":"","token_use":""}},` +
				`"parsed_body":null,"parsed_path":["orders"],"parsed_query":{"page":["2"]},"truncated_body":false,"version":{"encoding":"protojson","ext_authz":"v3"}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := opaEnvoyEngine(t, show, tt.edit).Decide(t.Context(), opaEnvoyInput())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, d.Metadata["input"]); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Nobody pays for what no rule reads.
func TestOPAEnvoyInputIsWhatIsRead(t *testing.T) {
	t.Parallel()
	in := opaEnvoyInput()
	in.ParsedBody = struct{}{} // has no form in Rego
	in.Complete = func(_ *Input, reads func(string) bool) error {
		if reads("parsed_body") || reads("extauthz") || !reads("parsed_path") {
			return errors.New("the engine is wrong about what is read")
		}
		return nil
	}
	e := opaEnvoyEngine(t, `default allow := false
allow if input.parsed_path == ["orders"]`)
	if d, err := e.Decide(t.Context(), in); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v, want an allow", d, err)
	}
}

func TestOPAEnvoyDecision(t *testing.T) {
	t.Parallel()
	denied := Decision{Reason: PolicyDenied, HTTPStatus: 403}
	tests := []struct {
		name, decision string
		want           Decision
		unknown        uint64
	}{
		{"a wrong type in a key of a denial", `{"allowed": true, "body": 7, "http_status": "x"}`, Decision{Allowed: true}, 0},
		{"a wrong type in keys of an allow", `{"allowed": false, "response_headers_to_add": 7, "query_parameters_to_set": null}`, denied, 0},
		{"keys that mean nothing", `{"allowed": false, "status": 401, "header": {}}`, denied, 2},
		{"reason and scope are such keys", `{"allowed": false, "reason": "No. Never!", "scope": 7}`, denied, 2},
		{"a key that is no text", `{"allowed": true, 7: 8}`, Decision{Allowed: true}, 1},
		{"a header whose name is a number", `{"allowed": true, "response_headers_to_add": {7: "a"}}`, Decision{Allowed: true, ResponseHeaders: []Header{{"7", []string{"a"}}}}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := opaEnvoyEngine(t, "allow := "+tt.decision)
			d, err := e.Decide(t.Context(), opaEnvoyInput())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, d, cmpopts.IgnoreFields(Decision{}, "Revision")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := e.Stats().UnknownKeys; got != tt.unknown {
				t.Errorf("%d unknown keys, want %d", got, tt.unknown)
			}
		})
	}
}

// What is unsafe, or no decision, is an error in this dialect as well.
func TestOPAEnvoyDecisionErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, decision, want string }{
		{"no allowed", `{"allow": true}`, "allowed of the decision is missing, want true or false"},
		{"allowed is text", `{"allowed": "true"}`, "allowed of the decision is a string, want a boolean"},
		{"a list", `[true]`, "the decision is a list, want a boolean or an object"},
		{"an identity header", `{"allowed": true, "headers": {"X_Auth_Client-Id": "a"}}`, "headers.x_auth_client-id of the decision is an identity header, want a header that a policy may set"},
		{"a request header that is not listed", `{"allowed": true, "headers": {"x-other": "a"}}`, "headers.x-other of the decision is a request header that is not listed, want one of policy.requestHeaders"},
		{"a denial that allows", `{"allowed": false, "http_status": 200}`, "http_status of the decision is another number, want a status from 300 to 599 that Envoy knows, and not 304"},
		{"a wrong type in a key of the outcome", `{"allowed": false, "body": null}`, "body of the decision is null, want a string"},
		{"a wrong type in a key of both", `{"allowed": true, "dynamic_metadata": []}`, "dynamic_metadata of the decision is a list, want an object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := opaEnvoyEngine(t, "allow := "+tt.decision, func(c *Config) { c.ReservedHeaders = []string{"x-auth-client-id"} })
			_, err := e.Decide(t.Context(), opaEnvoyInput())
			var bad *DecisionError
			if !errors.As(err, &bad) || bad.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// A policy that makes keys of what requests say fills neither the log nor memory, and shows nothing.
func TestUnknownKeysAreLoggedOnce(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	e := opaEnvoyEngine(t, `allow := {"allowed": true, "reason": "a", input.parsed_path[0]: true, input.parsed_path[1]: true}`,
		func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	const times = 2 * maxUnknownKeys
	for i := range times {
		in := opaEnvoyInput()
		in.ParsedPath = []string{fmt.Sprintf("key-%d", i), "canary\r\n"}
		if _, err := e.Decide(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.Stats().UnknownKeys; got != 3*times {
		t.Errorf("%d unknown keys, want %d", got, 3*times)
	}
	if got := strings.Count(log.String(), "\n"); got != maxUnknownKeys {
		t.Errorf("%d lines, want %d", got, maxUnknownKeys)
	}
	if strings.Count(log.String(), "key=reason") != 1 || strings.Contains(log.String(), "canary") {
		t.Errorf("the log holds:\n%s", log.String())
	}
}

// What OPA-Envoy loads, loads.
func TestOPAEnvoyLoads(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, module string
		edit         func(*Config)
		allowed      bool
	}{
		{"names that the input does not have", "default allow := true\nallow := false if input.attributes.request.http.header.x", nil, true},
		{"what strict mode refuses", "import data.unused\nallow if {\n\tx := 1\n}", nil, true},
		{"a rule that is assigned key by key", `allow["allowed"] := true`, nil, true},
		{
			"a package that decides", "default allow := false\nallowed := true", func(c *Config) { c.Decision = "data.envoy.authz" }, true,
		},
		{
			"our built-in policy, asked by theirs", "allow := answer if answer := data.extauthz.base.decision with input as input.extauthz",
			func(c *Config) { c.ExtauthzInput = true }, true,
		},
		{"the functions for tokens", `default allow := false
allow if io.jwt.decode("eyJhbGciOiJub25lIn0.eyJhIjoxfQ.")[1].a == 1`, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			edit := tt.edit
			if edit == nil {
				edit = func(*Config) {}
			}
			d, err := opaEnvoyEngine(t, tt.module, edit).Decide(t.Context(), opaEnvoyInput())
			if err != nil || d.Allowed != tt.allowed {
				t.Errorf("got %+v, %v, want allowed %t", d, err, tt.allowed)
			}
		})
	}
}

func TestOPAEnvoyDoesNotLoad(t *testing.T) {
	t.Parallel()
	good := map[string]string{"p.rego": "package envoy.authz\nallow := true"}
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"a dialect that nobody speaks", Config{Dialect: "opa_envoy", FS: mapFS(good)}, `Dialect is "opa_envoy", want "extauthz" or "opa-envoy"`},
		{"our input under our own", Config{ExtauthzInput: true}, `ExtauthzInput is set and Dialect is "extauthz", want "opa-envoy" with it`},
		{"no rule", Config{Dialect: DialectOPAEnvoy, FS: mapFS(good), Decision: "data.envoy.authz.result"}, "no rule data.envoy.authz.result"},
		{"a function that talks to the network", Config{Dialect: DialectOPAEnvoy, FS: mapFS(map[string]string{
			"p.rego": "package envoy.authz\nallow := http.send({})",
		})}, "http.send is left out unless it is allowed by name"},
		{"a function that signs", Config{Dialect: DialectOPAEnvoy, FS: mapFS(map[string]string{
			"p.rego": `package envoy.authz
allow := io.jwt.encode_sign({}, {}, {})`,
		})}, "a policy signs nothing"},
		{"data in the place of a package that decides", Config{Dialect: DialectOPAEnvoy, Decision: "data.envoy.authz", FS: mapFS(map[string]string{
			"p.rego": "package envoy.authz\nallow := false", "envoy/authz/data.json": `{"allowed": true}`,
		})}, "data files hold data.envoy.authz, which is for rules"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(t.Context(), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// The two dialects of one policy are two policies.
func TestRevisionTellsTheDialect(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, edit := range []func(*Config){
		func(*Config) {}, func(c *Config) { c.ExtauthzInput = true }, func(c *Config) { c.Dialect = DialectExtauthz },
	} {
		seen[opaEnvoyEngine(t, "allow := true", func(c *Config) { c.Decision = "data.envoy.authz.allow" }, edit).Revision()] = true
	}
	if len(seen) != 3 {
		t.Errorf("found the revisions %v, want three", seen)
	}
}

// io.jwt.decode_verify panics on a token that is signed well and whose iss is not a string (OPA 1.22). The request is not
// allowed, and the process lives on.
func TestPanicInAFunctionForTokens(t *testing.T) {
	t.Parallel()
	e := opaEnvoyEngine(t, `default allow := false
allow if io.jwt.decode_verify(input.parsed_path[0], {"secret": "s", "alg": "HS256", "iss": "https://issuer.example"})[0]`)
	token := func(claims map[string]any) string {
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
		mac := hmac.New(sha256.New, []byte("s"))
		mac.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	ask := func(claims map[string]any) (Decision, error) {
		in := opaEnvoyInput()
		in.ParsedPath = []string{token(claims)}
		return e.Decide(t.Context(), in)
	}
	if d, err := ask(map[string]any{"iss": "https://issuer.example"}); err != nil || !d.Allowed {
		t.Errorf("with the issuer: got %+v, %v, want an allow", d, err)
	}
	var fault *EvalError
	if d, err := ask(map[string]any{"iss": 7}); !errors.As(err, &fault) || !errors.Is(err, ErrPolicy) || fault.Stack == nil || d.Allowed {
		t.Errorf("with a number as issuer: got %+v, %v, want an *EvalError of a panic", d, err)
	}
	if d, err := ask(map[string]any{"iss": "https://issuer.example"}); err != nil || !d.Allowed {
		t.Errorf("afterwards: got %+v, %v, want an allow", d, err)
	}
}
