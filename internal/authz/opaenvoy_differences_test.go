package authz

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A difference is one thing that a policy written for OPA-Envoy finds otherwise here: a row of docs/from-opa-envoy.md.
type difference struct {
	what, theirs, ours string
	// cases are the recorded ones that show it, as "file: name", by the status of our answer: 0 for an allow, 403 and the
	// like for a denial, and for another input. None: it holds for all of them, or for none that was recorded.
	cases map[int][]string
}

// doesNotStart is the status of a configuration that is an error.
const doesNotStart = -1

var differences = []difference{
	{
		"paths that can be read in two ways: dot segments, empty segments, `%2F`, `%5C`, `%00`, `\\`, `;`, `#`, a second decoding, bytes that are not UTF-8",
		"decoded before the split, leading slashes dropped: `/tenants/t1%2F..%2Ft2` shows tenant `t1`, `//admin` shows `admin`",
		"400 `invalid_path`: the service may see another path than the policy. A route may allow `%2F` and `;`; a `/` from `%2F` then stays inside one segment of `parsed_path`",
		map[int][]string{400: {
			"inputs: path leading double slash", "inputs: path leading triple slash", "inputs: path inner double slash", "inputs: path only slashes",
			"inputs: path dot segments", "inputs: path encoded dots", "inputs: path encoded slash upper", "inputs: path encoded slash lower",
			"inputs: path encoded slash leading", "inputs: path encoded slash trailing", "inputs: path double encoded slash", "inputs: path not utf-8 encoded",
			"inputs: path encoded NUL", "inputs: path encoded CR LF", "inputs: path encoded backslash", "inputs: path backslash", "inputs: path fragment",
			"inputs: path matrix parameter", "inputs: envoy: odd path that parses",
			"policies: methods: catalog internal, double slash", "policies: tenant: encoded slash in the tenant",
		}},
	},
	{
		"requests whose path does not begin with `/` (CONNECT, `OPTIONS *`), or that have no plain host",
		"the policy is asked, with what there is",
		"400 `invalid_path` or `invalid_request`",
		map[int][]string{400: {
			"inputs: method CONNECT without path", "inputs: path empty", "inputs: path no leading slash", "inputs: path asterisk", "inputs: path absolute form",
			"inputs: query on empty path", "inputs: host user@api.example.com", "inputs: host missing", "inputs: nothing", "inputs: attributes empty",
			"inputs: request empty", "inputs: http empty", "inputs: source only",
		}},
	},
	{
		"a bearer token",
		"never looked at; the policy may",
		"verified before the policy is asked. A bad one is refused with 401, whatever the policy would say",
		nil,
	},
	{
		"two Authorization headers, or two tokens in one",
		"the policy sees both, joined by a comma",
		"400 `invalid_request`",
		map[int][]string{400: {"inputs: headers repeated joined", "inputs: envoy: odd headers", "policies: scopes: two tokens"}},
	},
	{
		"a query or body that cannot be parsed",
		"400, always, with the parser's text",
		"400 `invalid_request` if the policy reads `parsed_query` or the body; the text is a problem document",
		nil,
	},
	{
		"a query that is not UTF-8, and a form",
		"the policy gets the bytes",
		"400 `invalid_request` if the policy reads it",
		map[int][]string{400: {"inputs: query not utf-8"}},
	},
	{
		"JSON with a name given twice, half of a surrogate pair, or bytes that are not UTF-8",
		"the last value wins; U+FFFD in place of the bytes",
		"400 `invalid_request` if the policy reads the body: the service may take the other value",
		map[int][]string{400: {
			"inputs: json duplicate keys", "inputs: json escaped slash", "inputs: raw body json, not utf-8", "policies: body: amount twice",
		}},
	},
	{
		"the case of a content type, or of a header's name",
		"`Application/JSON` is not parsed, and `not input.parsed_body.x` holds",
		"means nothing: parsed",
		map[int][]string{403: {"inputs: json type upper case", "inputs: json header name upper case"}},
	},
	{
		"raw headers (`encode_raw_headers`)",
		"no content type is found: a body is not parsed, and a cut one is not seen",
		"read as other headers are",
		map[int][]string{403: {"inputs: header_map with a JSON body", "inputs: header_map cut body", "inputs: envoy: raw headers and raw body"}},
	},
	{
		"a body with a content-encoding, such as gzip",
		"parsed as if it had none",
		"400 `invalid_request` if the policy reads it and its type would be parsed",
		nil,
	},
	{
		"gRPC bodies (`proto-descriptor`)",
		"decoded with the descriptors",
		"`parsed_body` is null and `truncated_body` false, as there without descriptors. A policy that looks into them cannot move yet",
		map[int][]string{403: {
			"inputs: grpc message", "inputs: grpc message, empty", "inputs: grpc two messages", "inputs: grpc truncated", "inputs: grpc header only",
			"inputs: grpc under 5 bytes", "inputs: grpc bad message", "inputs: grpc three segments", "inputs: grpc-web type",
		}},
	},
	{
		"numbers of more than 1000 digits, or with a greater exponent",
		"kept",
		"a failed check, or 400 `invalid_request` in a body: comparing them takes a CPU for seconds",
		nil,
	},
	{
		"faults: no value, two values, a wrong type, a status that does not exist",
		"a gRPC error, which Envoy lets pass under `failure_mode_allow`",
		"a failed check, 503, which nothing lets pass: `policy_undefined` or `policy_error`",
		nil,
	},
	{
		"how long and how much",
		"no bound",
		"`policy.timeout` (50 ms) for a decision; 32 KiB of text and 1000 values in it; metadata of 16 levels. Beyond it, a failed check",
		nil,
	},
	{
		"keys that mean nothing, `reason` and `scope` among them",
		"ignored",
		"ignored, logged once each, and counted (`extauthz_policy_unknown_keys_total`)",
		nil,
	},
	{
		"identity headers, in any spelling",
		"like any other",
		"only extauthz sets and removes them; a policy that does is a failed check. If yours sets `x-auth-…`, choose another `identityHeaders.prefix`",
		nil,
	},
	{
		"request headers that a policy sets or removes",
		"any",
		"those in `policy.requestHeaders`; another one is a failed check. Removing `authorization` needs no entry",
		nil,
	},
	{
		"several values of one header",
		"sent as several options, of which Envoy keeps the last of a request header",
		"one header, joined by commas; `set-cookie` stays several",
		nil,
	},
	{
		"names of headers, and their order",
		"as written, in random order",
		"in lower case, sorted",
		nil,
	},
	{
		"headers that no policy should set: `:path`, `host`, hop-by-hop ones, names that are none, values with control characters",
		"sent as they are",
		"a failed check",
		map[int][]string{503: {
			"decisions: headers allowed, empty name", "decisions: headers allowed, pseudo header", "decisions: headers allowed, control characters",
			"decisions: headers denied, control characters", "decisions: request_headers_to_remove allowed, repeats and case",
		}},
	},
	{
		"one header in two spellings, or set and removed; a query parameter set and removed",
		"sent as written: which one wins is up to chance, or to Envoy",
		"a failed check",
		map[int][]string{503: {
			"decisions: headers allowed, names kept as written", "decisions: same name set and removed", "decisions: query parameters, same name set and removed",
		}},
	},
	{
		"query parameters without a name, or not percent-encoded",
		"written into the query as they are: an `&` begins another parameter",
		"a failed check; use `urlquery.encode`",
		map[int][]string{503: {
			"decisions: query_parameters_to_set allowed, special characters", "decisions: query_parameters_to_set allowed, empty key and value",
			"decisions: query_parameters_to_remove allowed, repeats and case",
		}},
	},
	{
		"the status of a denial",
		"any that Go and Envoy know, 100, 200 and 304 too; `401.0` is a fault",
		"300 to 599 as far as Envoy knows it, and not 304; any other is a failed check; `401.0` is 401",
		map[int][]string{
			401: {"decisions: http_status denied, 401.0"},
			503: {
				"decisions: http_status denied, 100", "decisions: http_status denied, 200", "decisions: http_status denied, 201", "decisions: http_status denied, 204",
				"decisions: http_status denied, 226", "decisions: http_status denied, 304",
			},
		},
	},
	{
		"a denial without a body; with 401, without a challenge; to a gRPC caller",
		"an empty body; no challenge; the body as it is",
		"a problem document (RFC 9457); `WWW-Authenticate: Bearer`; one line, as it becomes the grpc-message",
		nil,
	},
	{
		"`dynamic_metadata`",
		"`decision_id` is overwritten",
		"so are `outcome`, `reason` and `route`, and with a token `client_id`, `client_name`, `scopes`, `pool`, `issuer`, `subject`, `token_id`",
		nil,
	},
	{
		"`dry-run`",
		"denials become allows",
		"there is no such switch: denied",
		map[int][]string{401: {"quirks: dry-run, denied"}, 403: {"quirks: dry-run, false"}},
	},
	{
		"a decision log that fails",
		"overwrites the status of the answer: a fault, whatever was decided",
		"the answer is fixed before anything is logged",
		map[int][]string{
			0: {"quirks: decision logger fails, allowed"}, 401: {"quirks: decision logger fails, denied"}, 400: {"quirks: decision logger fails, 400"},
		},
	},
	{
		"a `path` at which there is nothing, a `query` that is no rule",
		"a fault, at each request",
		"extauthz does not start, and says why",
		map[int][]string{doesNotStart: {"quirks: path at nothing", "quirks: query with two results"}},
	},
	{
		"a message that protobuf cannot decode",
		"a gRPC error",
		"400 `invalid_request`",
		map[int][]string{400: {"quirks: path not utf-8 on the wire"}},
	},
	{
		"builtin functions",
		"all",
		"those that reach out of the process, or that cannot be interrupted, only if `policy.allowBuiltins` names them: `http.send`, `glob.match` and the others in [policy.md](policy.md#functions-that-are-left-out). `io.jwt.decode` and its kin need no entry; signing tokens does",
		nil,
	},
	{
		"Rego of before OPA 1.0 (`v0-compatible`)",
		"read on request",
		"not read: `opa fmt --write --v0-v1`",
		nil,
	},
	{
		"data",
		"bundles, and files of any name",
		"bundles in the section `opa`; in `policy.dir`, files named `data.json`, `data.yaml` or `data.yml`",
		nil,
	},
}

// settle takes what a recorded case came to: the difference to what was recorded, empty if there is none, and the status
// of our answer. Each case that differs is listed, and each that is listed differs, with the status that it is listed with.
func settle(t *testing.T, name string, status int, diff string) {
	t.Helper()
	for _, d := range differences {
		for want, cases := range d.cases {
			if !slices.Contains(cases, name) {
				continue
			}
			if diff == "" {
				t.Errorf("%s is as recorded, and is listed as a difference", name)
			}
			if status != want {
				t.Errorf("%s: answered with %d, want %d", name, status, want)
			}
			return
		}
	}
	if diff != "" {
		t.Errorf("%s is answered with %d and not as recorded (-recorded +ours):\n%s", name, status, diff)
	}
}

// Each case that is listed is one that was recorded, and is listed once.
func TestOPAEnvoyDifferencesAreRecorded(t *testing.T) {
	t.Parallel()
	type named struct{ Name string }
	var have []string
	for _, file := range []string{"inputs", "decisions", "quirks"} {
		for _, c := range readRecorded[named](t, file+".json") {
			have = append(have, file+": "+c.Name)
		}
	}
	for _, p := range readRecorded[struct {
		Name     string
		Requests []named
	}](t, "policies/policies.json") {
		for _, r := range p.Requests {
			have = append(have, "policies: "+p.Name+": "+r.Name)
		}
	}
	seen := map[string]bool{}
	for _, d := range differences {
		for _, cases := range d.cases {
			for _, name := range cases {
				if !slices.Contains(have, name) || seen[name] {
					t.Errorf("%s: listed twice, or not recorded", name)
				}
				seen[name] = true
			}
		}
	}
}

// docs/from-opa-envoy.md has a row for each difference.
func TestOPAEnvoyDocument(t *testing.T) {
	t.Parallel()
	const name = "../../docs/from-opa-envoy.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("\n| what | OPA-Envoy | extauthz |\n|---|---|---|\n")
	for _, d := range differences {
		fmt.Fprintf(&table, "| %s | %s | %s |\n", d.what, d.theirs, d.ours)
	}
	part := regexp.MustCompile(`(?s)(<!-- Generated [^\n]* -->\n).*(\n<!-- End of the generated part -->)`)
	want := part.ReplaceAllStringFunc(string(text), func(old string) string {
		m := part.FindStringSubmatch(old)
		return m[1] + table.String() + m[2]
	})
	if *update {
		if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), want); diff != "" || !strings.Contains(want, table.String()) {
		t.Errorf("%s is not what the table says (run with -update; - file, + table):\n%s", name, diff)
	}
}
