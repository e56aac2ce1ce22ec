package policy

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/types/known/structpb"
)

func testDecoder(t testing.TB) decoder {
	t.Helper()
	d, err := newDecoder(
		[]string{"X-Tenant", "x-roles"},
		[]string{"x-auth-client-id", "X-Auth-Scopes"},
		[]string{"quota_exceeded"},
	)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func body(s string) *string { return &s }

func TestDecode(t *testing.T) {
	t.Parallel()
	denied := Decision{Reason: PolicyDenied, HTTPStatus: 403}
	with := func(d Decision, edit func(*Decision)) Decision { edit(&d); return d }
	tests := []struct {
		name string
		rego string
		want Decision
	}{
		{"true", `true`, Decision{Allowed: true}},
		{"false", `false`, denied},
		{"allowed", `{"allowed": true}`, Decision{Allowed: true}},
		{"denied", `{"allowed": false}`, denied},

		{"headers, one", `{"allowed": true, "headers": {"x-tenant": "a"}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-tenant", []string{"a"}}}}},
		{"headers, names in lower case", `{"allowed": true, "headers": {"X-Tenant": "A"}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-tenant", []string{"A"}}}}},
		{"headers, sorted", `{"allowed": true, "headers": {"x-tenant": "a", "x-roles": "b"}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-roles", []string{"b"}}, {"x-tenant", []string{"a"}}}}},
		{"headers, list of values", `{"allowed": true, "headers": {"x-roles": ["b", "a"]}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-roles", []string{"b", "a"}}}}},
		{"headers, set of values", `{"allowed": true, "headers": {"x-roles": {"b", "a"}}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-roles", []string{"a", "b"}}}}},
		{"headers, empty list of values", `{"allowed": true, "headers": {"x-roles": []}}`, Decision{Allowed: true}},
		{"headers, empty value", `{"allowed": true, "headers": {"x-roles": ""}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-roles", []string{""}}}}},
		{"headers, unicode", `{"allowed": true, "headers": {"x-tenant": "Zoë"}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-tenant", []string{"Zoë"}}}}},
		{"headers, empty object", `{"allowed": true, "headers": {}}`, Decision{Allowed: true}},
		{"headers, empty list", `{"allowed": true, "headers": []}`, Decision{Allowed: true}},
		{
			"headers, list of objects in order", `{"allowed": true, "headers": [{"x-tenant": "a"}, {"x-roles": "b"}]}`,
			Decision{Allowed: true, RequestHeaders: []Header{{"x-tenant", []string{"a"}}, {"x-roles", []string{"b"}}}},
		},
		{
			"headers, a name again in a list adds a value", `{"allowed": true, "headers": [{"x-roles": ["a", "b"]}, {"X-Roles": "c"}]}`,
			Decision{Allowed: true, RequestHeaders: []Header{{"x-roles", []string{"a", "b", "c"}}}},
		},
		{"headers, set of objects", `{"allowed": true, "headers": {{"x-tenant": "a"}, {"x-roles": "b"}}}`, Decision{Allowed: true, RequestHeaders: []Header{{"x-roles", []string{"b"}}, {"x-tenant", []string{"a"}}}}},
		{"headers of a denial go to the client", `{"allowed": false, "headers": {"Location": "https://example.com/"}}`, with(denied, func(d *Decision) {
			d.ResponseHeaders = []Header{{"location", []string{"https://example.com/"}}}
		})},
		{"headers of a denial, several values", `{"allowed": false, "headers": {"set-cookie": ["a=1", "b=2"]}}`, with(denied, func(d *Decision) {
			d.ResponseHeaders = []Header{{"set-cookie", []string{"a=1", "b=2"}}}
		})},
		{"response headers", `{"allowed": true, "response_headers_to_add": {"x-any": "a"}}`, Decision{Allowed: true, ResponseHeaders: []Header{{"x-any", []string{"a"}}}}},
		{"response headers of a denial are ignored", `{"allowed": false, "response_headers_to_add": {"x-auth-client-id": "a"}}`, denied},

		{"remove", `{"allowed": true, "request_headers_to_remove": ["X-Roles", "x-tenant", "x-roles"]}`, Decision{Allowed: true, RemoveRequestHeaders: []string{"x-roles", "x-tenant"}}},
		{"remove, set", `{"allowed": true, "request_headers_to_remove": {"x-tenant", "x-roles"}}`, Decision{Allowed: true, RemoveRequestHeaders: []string{"x-roles", "x-tenant"}}},
		{"remove authorization", `{"allowed": true, "request_headers_to_remove": ["Authorization"]}`, Decision{Allowed: true, RemoveRequestHeaders: []string{"authorization"}}},
		{"remove on a denial is ignored", `{"allowed": false, "request_headers_to_remove": ["host"]}`, denied},

		{"query, set", `{"allowed": true, "query_parameters_to_set": {"page": "1", "Tag": ["a=b", "%C3%BC"]}}`, Decision{Allowed: true, SetQueryParameters: []Parameter{{"Tag", []string{"a=b", "%C3%BC"}}, {"page", []string{"1"}}}}},
		{"query, remove", `{"allowed": true, "query_parameters_to_remove": ["b", "a", "b"]}`, Decision{Allowed: true, RemoveQueryParameters: []string{"b", "a"}}},
		{"query on a denial is ignored", `{"allowed": false, "query_parameters_to_set": {"a&b": "c"}, "query_parameters_to_remove": [""]}`, denied},

		{"status", `{"allowed": false, "http_status": 404}`, with(denied, func(d *Decision) { d.HTTPStatus = 404 })},
		{"status on an allow is ignored", `{"allowed": true, "http_status": 200}`, Decision{Allowed: true}},
		{"body", `{"allowed": false, "body": "no\n"}`, with(denied, func(d *Decision) { d.Body = body("no\n") })},
		{"empty body", `{"allowed": false, "body": ""}`, with(denied, func(d *Decision) { d.Body = body("") })},
		{"body on an allow is ignored", `{"allowed": true, "body": "yes"}`, Decision{Allowed: true}},

		{"built-in reason", `{"allowed": false, "reason": "client_not_allowed"}`, with(denied, func(d *Decision) { d.Reason, d.Detail = ClientNotAllowed, "client_not_allowed" })},
		{"listed reason", `{"allowed": false, "reason": "quota_exceeded"}`, with(denied, func(d *Decision) { d.Reason, d.Detail = "quota_exceeded", "quota_exceeded" })},
		{"another reason stays inside", `{"allowed": false, "reason": "tenant_mismatch"}`, with(denied, func(d *Decision) { d.Detail = "tenant_mismatch" })},
		{"reason of an allow is a detail", `{"allowed": true, "reason": "break_glass"}`, Decision{Allowed: true, Detail: "break_glass"}},
		{"scope alone", `{"allowed": false, "scope": "orders/write"}`, with(denied, func(d *Decision) { d.Reason, d.Scope = InsufficientScope, "orders/write" })},
		{"scope and reason", `{"allowed": false, "scope": "a/b c/d", "reason": "insufficient_scope"}`, with(denied, func(d *Decision) {
			d.Reason, d.Detail, d.Scope = InsufficientScope, "insufficient_scope", "a/b c/d"
		})},
		{"scope and another reason", `{"allowed": false, "scope": "a/b", "reason": "quota_exceeded"}`, with(denied, func(d *Decision) {
			d.Reason, d.Detail, d.Scope = "quota_exceeded", "quota_exceeded", "a/b"
		})},
		{"empty scope", `{"allowed": false, "scope": ""}`, denied},
		{"scope on an allow is ignored", `{"allowed": true, "scope": "a b"}`, Decision{Allowed: true}},

		{
			"metadata", `{"allowed": true, "dynamic_metadata": {"s": "a", "n": 1.50, "b": true, "z": null, "l": [1, "x"], "o": {"k": {"v"}}, "e": 1e3}}`,
			Decision{Allowed: true, Metadata: map[string]any{
				"s": "a", "n": 1.5, "b": true, "z": nil, "l": []any{1.0, "x"}, "o": map[string]any{"k": []any{"v"}}, "e": 1000.0,
			}},
		},
		{"metadata of a denial", `{"allowed": false, "dynamic_metadata": {"a": "b"}}`, with(denied, func(d *Decision) { d.Metadata = map[string]any{"a": "b"} })},
		{"metadata, empty", `{"allowed": true, "dynamic_metadata": {}}`, Decision{Allowed: true, Metadata: map[string]any{}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := testDecoder(t)
			got, err := d.decode(ast.MustParseTerm(tt.rego).Value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecodeRefuses starts from {"allowed": …} and adds one key that is not right.
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", maxDecisionBytes)
	many := strings.Repeat(`"a",`, maxDecisionValues+1)
	const either, allow, deny = "either", "true", "false"
	tests := []struct {
		outcome string
		rego    string // what is added
		want    string // the error
	}{
		// Keys and types: the same for both outcomes.
		{either, `"allow": true`, "allow of the decision is a key that means nothing, want one of the keys of a decision (see docs/policy.md)"},
		{either, `"Allowed": true`, "Allowed of the decision is a key that means nothing"},
		{either, `"header": {}`, "header of the decision is a key that means nothing"},
		{either, `"status": 401`, "status of the decision is a key that means nothing"},
		{either, `"request_headers_to_add": {}`, "request_headers_to_add of the decision is a key that means nothing"},
		{either, `"a secret value": 1`, "(14 bytes that are no name) of the decision is a key that means nothing"},
		{either, `7: 1`, "the decision is an object with a number as a key"},
		{either, `["x"]: 1`, "the decision is an object with a list as a key"},

		{either, `"headers": "x-tenant: a"`, "headers of the decision is a string, want an object or a list of objects"},
		{either, `"headers": null`, "headers of the decision is null"},
		{either, `"headers": true`, "headers of the decision is a boolean"},
		{either, `"headers": {"x-tenant": 1}`, "headers.x-tenant of the decision is a number, want a string or a list of strings"},
		{either, `"headers": {"x-tenant": null}`, "headers.x-tenant of the decision is null"},
		{either, `"headers": {"x-tenant": {"append": false}}`, "headers.x-tenant of the decision is an object"},
		{either, `"headers": {"x-tenant": ["a", 1]}`, "headers.x-tenant of the decision is a number, want a string"},
		{either, `"headers": {"x-tenant": [["a"]]}`, "headers.x-tenant of the decision is a list, want a string"},
		{either, `"headers": ["x-tenant"]`, "headers of the decision is a string, want an object of strings"},
		{either, `"headers": [["x-tenant", "a"]]`, "headers of the decision is a list, want an object"},
		{either, `"headers": [{"header": {"key": "x-tenant", "value": "a"}}]`, "headers.header of the decision is an object"},
		{either, `"headers": {7: "a"}`, "headers of the decision is an object with a number as a key"},
		{either, `"headers": {"x-tenant": "a", "X-Tenant": "b"}`, "headers.x-tenant of the decision is given twice, in two spellings"},
		{either, `"headers": {"x-tenant": [` + many + `]}`, "headers.x-tenant of the decision is one of too many values, want at most 1000"},
		{either, `"response_headers_to_add": 7`, "response_headers_to_add of the decision is a number"},
		{either, `"response_headers_to_add": {"x-a": 7}`, "response_headers_to_add.x-a of the decision is a number"},
		{either, `"request_headers_to_remove": "x-tenant"`, "request_headers_to_remove of the decision is a string, want a list of strings"},
		{either, `"request_headers_to_remove": {"x-tenant": ""}`, "request_headers_to_remove of the decision is an object"},
		{either, `"request_headers_to_remove": null`, "request_headers_to_remove of the decision is null"},
		{either, `"request_headers_to_remove": ["x-tenant", 7]`, "request_headers_to_remove of the decision is a number, want a string"},
		{either, `"request_headers_to_remove": [` + many + `]`, "request_headers_to_remove of the decision is one of too many values"},
		{either, `"query_parameters_to_set": [{"page": "1"}]`, "query_parameters_to_set of the decision is a list, want an object"},
		{either, `"query_parameters_to_set": {"page": 1}`, "query_parameters_to_set.page of the decision is a number"},
		{either, `"query_parameters_to_set": {"page": [1]}`, "query_parameters_to_set.page of the decision is a number"},
		{either, `"query_parameters_to_remove": "page"`, "query_parameters_to_remove of the decision is a string"},
		{either, `"query_parameters_to_remove": [null]`, "query_parameters_to_remove of the decision is null"},
		{either, `"body": 7`, "body of the decision is a number, want a string"},
		{either, `"body": null`, "body of the decision is null"},
		{either, `"body": {"error": "denied"}`, "body of the decision is an object"},
		{either, `"http_status": "401"`, "http_status of the decision is a string, want a number"},
		{either, `"http_status": null`, "http_status of the decision is null"},
		{either, `"http_status": true`, "http_status of the decision is a boolean"},
		{either, `"http_status": [401]`, "http_status of the decision is a list"},
		{either, `"dynamic_metadata": ["a"]`, "dynamic_metadata of the decision is a list, want an object"},
		{either, `"dynamic_metadata": null`, "dynamic_metadata of the decision is null"},
		{either, `"dynamic_metadata": "a"`, "dynamic_metadata of the decision is a string"},
		{either, `"reason": 7`, "reason of the decision is a number, want a string"},
		{either, `"reason": null`, "reason of the decision is null"},
		{either, `"scope": ["a/b"]`, "scope of the decision is a list, want a string"},
		{either, `"scope": null`, "scope of the decision is null"},

		// Reasons and metadata count for both outcomes.
		{either, `"reason": ""`, "reason of the decision is another string, want one that matches ^[a-z0-9_]{1,64}$"},
		{either, `"reason": "Too Late"`, "reason of the decision is another string"},
		{either, `"reason": "late\n"`, "reason of the decision is another string"},
		{either, `"reason": "` + strings.Repeat("a", 65) + `"`, "reason of the decision is another string"},
		{either, `"dynamic_metadata": {"n": 1e400}`, "dynamic_metadata of the decision is a number that is out of range"},
		{either, `"dynamic_metadata": {7: 1}`, "dynamic_metadata of the decision is an object with a number as a key"},
		{either, `"dynamic_metadata": {"a": {["x"]: 1}}`, "dynamic_metadata of the decision is an object with a list as a key"},
		{either, `"dynamic_metadata": {"a": ` + strings.Repeat("[", maxMetadataDepth) + strings.Repeat("]", maxMetadataDepth) + `}`, "dynamic_metadata of the decision is deeper, want at most 16 levels"},
		{either, `"dynamic_metadata": {"a": "` + long + `"}`, "bytes of text, want at most 32768"},
		{either, `"dynamic_metadata": {"a": [` + strings.Repeat("0,", maxDecisionBytes/8) + `]}`, "bytes of text, want at most 32768"},

		// Headers of an allow.
		{allow, `"headers": {"x-other": "a"}`, "headers.x-other of the decision is a request header that is not listed, want one of policy.requestHeaders"},
		{allow, `"headers": {"x_tenant": "a"}`, "headers.x_tenant of the decision is a request header that is not listed"},
		{allow, `"headers": {"authorization": "Bearer x"}`, "headers.authorization of the decision is a request header that is not listed"},
		{allow, `"headers": {"x-auth-client-id": "a"}`, "headers.x-auth-client-id of the decision is an identity header, want a header that a policy may set"},
		{allow, `"headers": {"X_Auth_Client-ID": "a"}`, "headers.x_auth_client-id of the decision is an identity header"},
		{allow, `"headers": {"x.auth.scopes": "a"}`, "headers.x.auth.scopes of the decision is an identity header"},
		{allow, `"headers": {":path": "/admin"}`, "headers.(5 bytes that are no name) of the decision is a pseudo header"},
		{allow, `"headers": {"host": "a"}`, "headers.host of the decision is a header of the connection or the message's framing"},
		{allow, `"headers": {"": "a"}`, "headers.(0 bytes that are no name) of the decision is no header name"},
		{allow, `"headers": {"x tenant": "a"}`, "headers.(8 bytes that are no name) of the decision is no header name"},
		{allow, `"headers": {"x-tenant": "a\r\nx-auth-client-id: b"}`, "headers.x-tenant of the decision is a string with control characters, want one without"},
		{allow, `"headers": {"x-tenant": "a\u0000"}`, "headers.x-tenant of the decision is a string with control characters"},
		{allow, `"headers": {"x-tenant": "a\tb"}`, "headers.x-tenant of the decision is a string with control characters"},
		{allow, `"headers": {"x-tenant": "a\u007f"}`, "headers.x-tenant of the decision is a string with control characters"},
		{allow, `"headers": {"x-tenant": "a\u0085"}`, "headers.x-tenant of the decision is a string with control characters"},
		{allow, `"headers": {"x-tenant": ["a", "b\n"]}`, "headers.x-tenant of the decision is a string with control characters"},
		{allow, `"headers": {"x-tenant": "` + long + `"}`, "bytes of text, want at most 32768"},
		{allow, `"request_headers_to_remove": ["x-other"]`, "request_headers_to_remove.x-other of the decision is a request header that is not listed"},
		{allow, `"request_headers_to_remove": ["X-Auth-Client-Id"]`, "request_headers_to_remove.x-auth-client-id of the decision is an identity header"},
		{allow, `"request_headers_to_remove": ["host"]`, "request_headers_to_remove.host of the decision is a header of the connection"},
		{allow, `"request_headers_to_remove": [""]`, "request_headers_to_remove.(0 bytes that are no name) of the decision is no header name"},
		{allow, `"headers": {"x-tenant": "a"}, "request_headers_to_remove": ["X-Tenant"]`, "request_headers_to_remove of the decision is a name that headers holds as well"},
		{allow, `"response_headers_to_add": {"x-auth-client-id": "a"}`, "response_headers_to_add.x-auth-client-id of the decision is an identity header"},
		{allow, `"response_headers_to_add": {"x-any": "a\n"}`, "response_headers_to_add.x-any of the decision is a string with control characters"},

		// Query parameters.
		{allow, `"query_parameters_to_set": {"page": "1&admin=true"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold, want it percent-encoded"},
		{allow, `"query_parameters_to_set": {"page": "1#x"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"page": "1;x=2"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"page": "a b"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"page": "a\r\nx"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"page": "ü"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"page": "%=41"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"page": "%4"}`, "query_parameters_to_set.page of the decision is a value that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"a=b": "1"}`, "query_parameters_to_set.(3 bytes that are no name) of the decision is a name that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"": "1"}`, "query_parameters_to_set.(0 bytes that are no name) of the decision is a name that a query cannot hold"},
		{allow, `"query_parameters_to_remove": ["a&b"]`, "query_parameters_to_remove.a&b of the decision is a name that a query cannot hold"},
		{allow, `"query_parameters_to_set": {"a": "1"}, "query_parameters_to_remove": ["b", "a"]`, "query_parameters_to_remove of the decision is a name that query_parameters_to_set holds as well"},

		// What a denial says.
		{deny, `"headers": {"x-auth-client-id": "a"}`, "headers.x-auth-client-id of the decision is an identity header"},
		{deny, `"headers": {"content-length": "0"}`, "headers.content-length of the decision is a header of the connection or the message's framing"},
		{deny, `"headers": {"Transfer_Encoding": "chunked"}`, "headers.transfer_encoding of the decision is a header of the connection"},
		{deny, `"headers": {":status": "200"}`, "is a pseudo header"},
		{deny, `"headers": {"location": "/\r\n"}`, "headers.location of the decision is a string with control characters"},
		{deny, `"http_status": 200`, "http_status of the decision is another number, want a status from 300 to 599 that Envoy knows, and not 304"},
		{deny, `"http_status": 204`, "http_status of the decision is another number"},
		{deny, `"http_status": 100`, "http_status of the decision is another number"},
		{deny, `"http_status": 299`, "http_status of the decision is another number"},
		{deny, `"http_status": 304`, "http_status of the decision is another number"},
		{deny, `"http_status": 306`, "http_status of the decision is another number"},
		{deny, `"http_status": 418`, "http_status of the decision is another number"},
		{deny, `"http_status": 600`, "http_status of the decision is another number"},
		{deny, `"http_status": 0`, "http_status of the decision is another number"},
		{deny, `"http_status": -403`, "http_status of the decision is another number"},
		{deny, `"http_status": 403.5`, "http_status of the decision is another number"},
		{deny, `"http_status": 4294967699`, "http_status of the decision is another number"},
		{deny, `"http_status": 18446744073709552019`, "http_status of the decision is another number"},
		{deny, `"scope": "a  b"`, "scope of the decision is another string, want scope tokens with single spaces between them"},
		{deny, `"scope": " a"`, "scope of the decision is another string"},
		{deny, `"scope": "a\"b"`, "scope of the decision is another string"},
		{deny, `"scope": "a\\b"`, "scope of the decision is another string"},
		{deny, `"scope": "ü"`, "scope of the decision is another string"},
		{deny, `"scope": "a\n"`, "scope of the decision is another string"},
		{deny, `"body": "` + long + `x"`, "bytes of text, want at most 32768"},
	}
	for _, tt := range tests {
		for _, outcome := range []string{allow, deny} {
			if tt.outcome != either && tt.outcome != outcome {
				continue
			}
			name := outcome + " " + tt.rego
			t.Run(name[:min(len(name), 80)], func(t *testing.T) {
				d := testDecoder(t)
				got, err := d.decode(ast.MustParseTerm(`{"allowed": ` + outcome + `, ` + tt.rego + `}`).Value)
				var e *DecisionError
				if !errors.As(err, &e) || !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error is %v, want %q", err, tt.want)
				}
				if diff := cmp.Diff(Decision{}, got); diff != "" {
					t.Errorf("with an error the decision is not zero:\n%s", diff)
				}
			})
		}
	}
}

func TestDecodeRefusesAllowed(t *testing.T) {
	for rego, want := range map[string]string{
		`{}`:                          "allowed of the decision is missing, want true or false",
		`{"http_status": 401}`:        "allowed of the decision is missing",
		`{"allowed": "true"}`:         "allowed of the decision is a string, want a boolean",
		`{"allowed": 1}`:              "allowed of the decision is a number",
		`{"allowed": null}`:           "allowed of the decision is null",
		`{"allowed": {}}`:             "allowed of the decision is an object",
		`{"allowed": [true]}`:         "allowed of the decision is a list",
		`{"allow": true, "a": true}`:  "a of the decision is a key that means nothing", // the first in order
		`"true"`:                      "the decision is a string, want a boolean or an object",
		`1`:                           "the decision is a number",
		`null`:                        "the decision is null",
		`[true]`:                      "the decision is a list",
		`{true}`:                      "the decision is a set",
		`{"allowed"}`:                 "the decision is a set",
		`[{"allowed": true}]`:         "the decision is a list",
		`{"allowed": true, true: {}}`: "the decision is an object with a boolean as a key",
	} {
		d := testDecoder(t)
		got, err := d.decode(ast.MustParseTerm(rego).Value)
		if err == nil || !strings.Contains(err.Error(), want) || got.Allowed {
			t.Errorf("%s: %+v, %v, want %q", rego, got, err, want)
		}
	}
}

// TestDecodeRefusesWhatIsNotUTF8 has its own test since Rego's source cannot spell it.
func TestDecodeRefusesWhatIsNotUTF8(t *testing.T) {
	bad := ast.StringTerm("a\xff")
	for field, value := range map[string]*ast.Term{
		"headers":                 ast.ObjectTerm(ast.Item(ast.StringTerm("x-tenant"), bad)),
		"response_headers_to_add": ast.ObjectTerm(ast.Item(ast.StringTerm("x-tenant"), bad)),
		"query_parameters_to_set": ast.ObjectTerm(ast.Item(ast.StringTerm("a"), bad)),
		"dynamic_metadata":        ast.ObjectTerm(ast.Item(ast.StringTerm("a"), bad)),
		"dynamic_metadata ":       ast.ObjectTerm(ast.Item(bad, ast.StringTerm("a"))),
		"body":                    bad,
		"scope":                   bad,
		"reason":                  bad,
	} {
		field = strings.TrimSpace(field)
		allowed := !slices.Contains([]string{"body", "scope"}, field)
		d := testDecoder(t)
		_, err := d.decode(ast.NewObject(ast.Item(ast.StringTerm("allowed"), ast.BooleanTerm(allowed)), ast.Item(ast.StringTerm(field), value)))
		if !errors.Is(err, ErrPolicy) || !utf8.ValidString(err.Error()) {
			t.Errorf("%s: error is %q, want ErrPolicy", field, err)
		}
	}
}

func TestTransportHeadersAreRefused(t *testing.T) {
	for _, name := range []string{
		":path", ":authority", "host", "content-length", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
	} {
		for _, spelled := range []string{name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_")} {
			for _, outcome := range []string{"true", "false"} {
				d := testDecoder(t)
				_, err := d.decode(ast.MustParseTerm(`{"allowed": ` + outcome + `, "headers": {"` + spelled + `": "x"}}`).Value)
				if !errors.Is(err, ErrPolicy) || strings.Contains(err.Error(), "not listed") {
					t.Errorf("%s with allowed %s: error is %v, want that no policy may set it", spelled, outcome, err)
				}
			}
		}
	}
}

func TestStatuses(t *testing.T) {
	if !slices.IsSorted(statuses) {
		t.Error("the statuses are not sorted")
	}
	for _, status := range statuses {
		if http.StatusText(status) == "" || status < 300 || status > 599 || status == 304 {
			t.Errorf("status %d is not one that a denial may have", status)
		}
	}
}

// FuzzDecode decodes any JSON and holds what every decision promises.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`true`, `false`, `null`, `{}`, `[]`, `"x"`, `{"allowed": true}`, `{"allowed": "true"}`,
		`{"allowed": true, "headers": {"x-tenant": "a"}, "request_headers_to_remove": ["x-roles"], "response_headers_to_add": [{"a": ["b", "c"]}]}`,
		`{"allowed": true, "query_parameters_to_set": {"a": ["b%20"]}, "query_parameters_to_remove": ["c"], "dynamic_metadata": {"a": [1, {"b": null}]}}`,
		`{"allowed": false, "headers": {"location": "/"}, "http_status": 302, "body": "x", "reason": "late", "scope": "a/b"}`,
		`{"allowed": true, "headers": {"X_AUTH_CLIENT_ID": "a"}}`, `{"allowed": true, "allowed": false}`, `{"allowed": false, "http_status": 4.03e2}`,
	} {
		f.Add([]byte(seed))
	}
	d := testDecoder(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		var x any
		if json.Unmarshal(text, &x) != nil {
			return
		}
		value, err := ast.ValueFromReader(strings.NewReader(string(text)))
		if err != nil {
			return
		}
		got, err := d.decode(value)
		again, errAgain := d.decode(value)
		if diff := cmp.Diff(got, again); diff != "" || (err == nil) != (errAgain == nil) || err != nil && err.Error() != errAgain.Error() {
			t.Fatalf("two decodings differ: %v, %v\n%s", err, errAgain, diff)
		}
		if err != nil {
			if !reflect.DeepEqual(got, Decision{}) || !errors.Is(err, ErrPolicy) {
				t.Fatalf("%+v with %v, want the zero decision and ErrPolicy", got, err)
			}
			return
		}
		checkDecision(t, x, got)
	})
}

// checkDecision holds what every decision promises, whatever the policy said.
func checkDecision(t *testing.T, said any, got Decision) {
	t.Helper()
	object, _ := said.(map[string]any)
	if got.Allowed != (said == true || object["allowed"] == true) {
		t.Fatalf("allowed is %v for %v", got.Allowed, said)
	}
	if got.Allowed == (got.Reason != "") || got.Allowed == (got.HTTPStatus != 0) {
		t.Fatalf("allowed %v with reason %q and status %d", got.Allowed, got.Reason, got.HTTPStatus)
	}
	if !got.Allowed && (got.HTTPStatus < 300 || len(got.RequestHeaders)+len(got.RemoveRequestHeaders)+len(got.SetQueryParameters)+len(got.RemoveQueryParameters) > 0) {
		t.Fatalf("a denial that lets pass: %+v", got)
	}
	texts := []string{string(got.Reason), got.Detail, got.Scope}
	for _, h := range slices.Concat(got.RequestHeaders, got.ResponseHeaders) {
		texts = append(texts, h.Values...)
		if h.Name != strings.ToLower(h.Name) || !isToken(h.Name) || len(h.Values) == 0 || strings.HasPrefix(strings.ReplaceAll(h.Name, "_", "-"), "x-auth-client-id") {
			t.Fatalf("header %q with %d values", h.Name, len(h.Values))
		}
	}
	for _, h := range got.RequestHeaders {
		if h.Name != "x-tenant" && h.Name != "x-roles" || slices.Contains(got.RemoveRequestHeaders, h.Name) {
			t.Fatalf("request header %q", h.Name)
		}
	}
	for _, p := range got.SetQueryParameters {
		if strings.ContainsAny(p.Name+strings.Join(p.Values, ""), "&#; \"<>\\^`{|}") || slices.Contains(got.RemoveQueryParameters, p.Name) {
			t.Fatalf("parameter %q = %q", p.Name, p.Values)
		}
	}
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			t.Fatalf("text %q", s)
		}
	}
	if _, err := structpb.NewStruct(got.Metadata); err != nil {
		t.Fatalf("metadata is no Struct: %v", err)
	}
}
