package authz

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// The tests of this file run what the OPA-Envoy plugin was recorded with (testdata/opa-envoy): its requests and its
// policies, through Check and the real engine. What differs is in the table of opaenvoy_differences_test.go, by name, and
// nothing else does.

const recorded = "testdata/opa-envoy"

// believer accepts every token. Which tokens are good is not what was recorded.
type believer struct{}

func (believer) Validate(context.Context, string) (*validator.Claims, error) {
	return goodClaims(), nil
}

// opaEnvoy returns a service that runs a policy of OPA-Envoy as docs/from-opa-envoy.md says.
func opaEnvoy(t *testing.T, cfg policy.Config) *Service {
	t.Helper()
	engine, err := newOPAEnvoyEngine(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return newHarness(t, func(c *Config) {
		table, err := route.NewTable(nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Authenticator, c.Authorizer, c.Routes = believer{}, engine, table
		c.OPAEnvoy, c.AuthenticationOptional, c.RemoveAuthorization = true, true, false
		c.Identity.Prefix = recordedPrefix
		c.Limits = Limits{PathBytes: 1 << 20, HeaderBytes: 1 << 20, BodyBytes: 1 << 20, TokenBytes: 16384, ConcurrentChecks: 8}
	}).Service
}

// recordedPrefix is one that no recorded policy sets a header of; two of them set x-auth-….
const recordedPrefix = "x-caller-"

func newOPAEnvoyEngine(t *testing.T, cfg policy.Config) (*policy.Engine, error) {
	t.Helper()
	cfg.Dialect, cfg.Timeout = policy.DialectOPAEnvoy, 10*time.Second
	cfg.ReservedHeaders = Identity{Prefix: recordedPrefix}.IdentityHeaders()
	cfg.AllowBuiltins = []string{"glob.match"}
	return policy.New(t.Context(), cfg)
}

func readRecorded[T any](t *testing.T, name string) (cases []T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recorded, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func checkRequest(t *testing.T, text json.RawMessage) *authv3.CheckRequest {
	t.Helper()
	var req authv3.CheckRequest
	if err := protojson.Unmarshal(text, &req); err != nil {
		t.Fatal(err)
	}
	return &req
}

func module(text string) fstest.MapFS {
	return fstest.MapFS{"policy.rego": {Data: []byte(text)}}
}

// Each input is the one that the plugin showed to its policy, key by key.
func TestOPAEnvoyInputs(t *testing.T) {
	t.Parallel()
	type input struct {
		Name, Note string
		Config     map[string]any
		Request    json.RawMessage
		Input      json.RawMessage
		Response   json.RawMessage
	}
	whole := opaEnvoy(t, policy.Config{FS: module(`package envoy.authz
allow := {"allowed": false, "dynamic_metadata": {"input": json.marshal(input)}}`)})
	// A policy behind skip-request-body-parse reads nothing of the body, and what nobody reads is not parsed.
	bodiless := opaEnvoy(t, policy.Config{FS: module(`package envoy.authz
allow := {"allowed": false, "dynamic_metadata": {"input": json.marshal({
	"attributes": input.attributes, "parsed_path": input.parsed_path, "parsed_query": input.parsed_query, "version": input.version,
})}}`)})
	cases := readRecorded[input](t, "inputs.json")
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			s := whole
			if c.Config["skip-request-body-parse"] == true {
				s = bodiless
			}
			req, want, got := checkRequest(t, c.Request), decodeJSON(t, c.Input), any(nil)
			if http := req.GetAttributes().GetRequest().GetHttp(); http.GetPath() != "" && http.GetHost() == "" && c.Name != "host missing" {
				// Envoy always tells the host. Some cases that are about other fields leave it out.
				http.Host = "api.example.com"
				member(want, "attributes", "request", "http")["host"] = http.Host
			}
			resp := send(t, s, req)
			status := int(resp.GetDeniedResponse().GetStatus().GetCode())
			if status == 403 {
				got = decodeJSON(t, []byte(resp.GetDynamicMetadata().GetFields()["input"].GetStringValue()))
			}
			if c.Response != nil { // its 400
				want, got = 400, status
			}
			settle(t, "inputs: "+c.Name, status, gocmp.Diff(want, got, sameNumbers))
		})
	}
	if len(cases) != 240 {
		t.Errorf("%d inputs, want 240", len(cases))
	}
}

func member(v any, names ...string) map[string]any {
	object, _ := v.(map[string]any)
	for _, name := range names {
		object, _ = object[name].(map[string]any)
	}
	return object
}

func decodeJSON(t *testing.T, text []byte) (v any) {
	t.Helper()
	if text == nil {
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	return v
}

// sameNumbers compares numbers as numbers: 1.79e+09 is 1790000000.
var sameNumbers = gocmp.Comparer(func(a, b json.Number) bool {
	x, ok1 := new(big.Rat).SetString(string(a))
	y, ok2 := new(big.Rat).SetString(string(b))
	return ok1 && ok2 && x.Cmp(y) == 0
})

// Each decision gives the answer that the plugin gave.
func TestOPAEnvoyDecisions(t *testing.T) {
	t.Parallel()
	type decision struct {
		Name, Rego string
		Response   json.RawMessage
		GRPCError  json.RawMessage `json:"grpc_error"`
	}
	cases := readRecorded[decision](t, "decisions.json")
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			rules := c.Rego
			if !regexp.MustCompile(`(?m)^(default )?decision\b`).MatchString(rules) {
				rules = "decision := " + rules
			}
			want := recordedAnswer(t, c.Response, c.GRPCError)
			s := opaEnvoy(t, policy.Config{
				FS: module("package envoy.authz\n" + rules), Decision: "data.envoy.authz.decision", RequestHeaders: want.setsHeaders(),
			})
			compareAnswers(t, "decisions: "+c.Name, want, send(t, s, get("/orders", withoutHeader("authorization"))))
		})
	}
	if len(cases) != 187 {
		t.Errorf("%d decisions, want 187", len(cases))
	}
}

// Each policy answers each request as it did behind the plugin.
func TestOPAEnvoyPolicies(t *testing.T) {
	t.Parallel()
	type recordedPolicy struct {
		Name, Policy string
		Config       struct{ Path string }
		Data         json.RawMessage
		Requests     []struct {
			Name              string
			Request, Response json.RawMessage
		}
	}
	requests := 0
	for _, p := range readRecorded[recordedPolicy](t, "policies/policies.json") {
		text, err := os.ReadFile(filepath.Join(recorded, "policies", p.Policy))
		if err != nil {
			t.Fatal(err)
		}
		cfg := policy.Config{FS: module(string(text)), Decision: decisionOf(p.Config.Path)}
		if p.Data != nil {
			cfg.FS.(fstest.MapFS)["data.json"] = &fstest.MapFile{Data: p.Data}
		}
		for _, r := range p.Requests {
			cfg.RequestHeaders = append(cfg.RequestHeaders, recordedAnswer(t, r.Response, nil).setsHeaders()...)
		}
		s := opaEnvoy(t, cfg)
		for _, r := range p.Requests {
			requests++
			t.Run(p.Name+"/"+r.Name, func(t *testing.T) {
				compareAnswers(t, "policies: "+p.Name+": "+r.Name, recordedAnswer(t, r.Response, nil), send(t, s, checkRequest(t, r.Request)))
			})
		}
	}
	if requests != 69 {
		t.Errorf("%d requests, want 69", requests)
	}
}

// decisionOf is policy.decision for the plugin's path.
func decisionOf(path string) string {
	if path == "" {
		return ""
	}
	return "data." + strings.ReplaceAll(path, "/", ".")
}

// The plugin's settings and faults: what can be said in our configuration gives the same, and what is a fault there is
// none here.
func TestOPAEnvoyQuirks(t *testing.T) {
	t.Parallel()
	type quirk struct {
		Name      string
		Policy    []string
		Config    struct{ Path, Query string }
		Request   json.RawMessage
		Wire      []byte `json:"request_wire_base64"`
		Response  json.RawMessage
		GRPCError json.RawMessage `json:"grpc_error"`
	}
	for _, q := range readRecorded[quirk](t, "quirks.json") {
		t.Run(q.Name, func(t *testing.T) {
			want := recordedAnswer(t, q.Response, q.GRPCError)
			cfg := policy.Config{FS: fstest.MapFS{}, Decision: cmp.Or(q.Config.Query, decisionOf(q.Config.Path)), RequestHeaders: []string{"x-a"}}
			for i, text := range q.Policy {
				cfg.FS.(fstest.MapFS)[string(rune('a'+i))+".rego"] = &fstest.MapFile{Data: []byte(text)}
			}
			if _, err := newOPAEnvoyEngine(t, cfg); err != nil {
				settle(t, "quirks: "+q.Name, doesNotStart, err.Error())
				return
			}
			s := opaEnvoy(t, cfg)
			if q.Wire != nil {
				if proto.Unmarshal(q.Wire, new(authv3.CheckRequest)) == nil {
					t.Fatalf("%x is a CheckRequest, want bytes that are none", q.Wire)
				}
				compareAnswers(t, "quirks: "+q.Name, want, sendBytes(t, s, q.Wire))
				return
			}
			compareAnswers(t, "quirks: "+q.Name, want, send(t, s, checkRequest(t, q.Request)))
		})
	}
}

// A plain answer is what Envoy does with a CheckResponse, without what is only ours: identity headers, our own metadata
// and headers, problem bodies.
type plain struct {
	Fault           bool // a gRPC error of the plugin, a failed check of ours
	Status          int  // HTTP, of a denied response
	RequestHeaders  map[string]string
	RemoveHeaders   []string
	ResponseHeaders map[string]string
	SetQuery        map[string][]string
	RemoveQuery     []string
	Body            string
	Metadata        map[string]any
}

func (p plain) setsHeaders() []string {
	return slices.DeleteFunc(slices.Concat(slices.Collect(maps.Keys(p.RequestHeaders)), p.RemoveHeaders), func(name string) bool {
		return name == "host" || name == "authorization" || !regexp.MustCompile(`^[a-z0-9_-]+$`).MatchString(name)
	})
}

func recordedAnswer(t *testing.T, text, fault json.RawMessage) plain {
	t.Helper()
	if fault != nil {
		return plain{Fault: true}
	}
	var resp authv3.CheckResponse
	if err := protojson.Unmarshal(text, &resp); err != nil {
		t.Fatal(err)
	}
	if resp.GetStatus().GetCode() != 0 && resp.GetStatus().GetCode() != 7 { // Envoy goes by the status: a denial
		return plain{Fault: true}
	}
	p := plainOf(&resp)
	if p.Status == 400 && resp.GetStatus().GetMessage() != "" { // its own 400, with an error text
		return plain{Status: 400}
	}
	return p
}

func plainOf(resp *authv3.CheckResponse) plain {
	ok, denied := resp.GetOkResponse(), resp.GetDeniedResponse()
	p := plain{
		RequestHeaders: joined(ok.GetHeaders()), RemoveHeaders: lowered(ok.GetHeadersToRemove()),
		ResponseHeaders: joined(ok.GetResponseHeadersToAdd()),
		RemoveQuery:     slices.Compact(slices.Sorted(slices.Values(ok.GetQueryParametersToRemove()))),
		SetQuery:        map[string][]string{},
		Body:            denied.GetBody(), Metadata: resp.GetDynamicMetadata().AsMap(),
	}
	for _, q := range ok.GetQueryParametersToSet() {
		p.SetQuery[q.GetKey()] = append(p.SetQuery[q.GetKey()], q.GetValue())
	}
	delete(p.Metadata, "decision_id")
	if resp.GetStatus().GetCode() != 0 {
		p.Status = 403 // Envoy's, unless the response says another
		p.ResponseHeaders = joined(denied.GetHeaders())
		if code := int(denied.GetStatus().GetCode()); code != 0 {
			p.Status = code
		}
	}
	return p
}

// joined is what a service gets to see of headers: names in lower case, values of one name as a list.
func joined(options []*corev3.HeaderValueOption) map[string]string {
	all := map[string]string{}
	for _, o := range options {
		name, value := strings.ToLower(o.GetHeader().GetKey()), o.GetHeader().GetValue()
		if before, again := all[name]; again {
			value = before + "," + value
		}
		all[name] = value
	}
	return all
}

func lowered(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, strings.ToLower(name))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// compareAnswers settles whether an answer is the recorded one.
func compareAnswers(t *testing.T, name string, want plain, resp *authv3.CheckResponse) {
	t.Helper()
	got := plainOf(resp)
	if got.Status >= 500 && resp.GetStatus().GetCode() != 7 {
		got = plain{Fault: true, Status: got.Status}
	}
	status := got.Status
	got.withoutOurs(want)
	if want.Fault && got.Fault {
		got.Status = 0
	}
	settle(t, name, status, gocmp.Diff(want, got, cmpopts.EquateEmpty()))
}

// withoutOurs takes away what we add to every answer, as long as the recorded one has nothing in its place.
func (p *plain) withoutOurs(want plain) {
	ours := Identity{Prefix: recordedPrefix}.IdentityHeaders()
	maps.DeleteFunc(p.RequestHeaders, func(name, _ string) bool { return slices.Contains(ours, name) })
	p.RemoveHeaders = slices.DeleteFunc(p.RemoveHeaders, func(name string) bool { return slices.Contains(ours, name) })
	if strings.Contains(p.Body, `"decision_id"`) {
		p.Body = ""
	}
	for _, name := range []string{"cache-control", "content-type", "www-authenticate"} {
		if _, theirs := want.ResponseHeaders[name]; !theirs {
			delete(p.ResponseHeaders, name)
		}
	}
	fields := []string{"outcome", "reason", "route"}
	for _, b := range builtin {
		fields = append(fields, b.field)
	}
	for _, name := range fields {
		delete(p.Metadata, name)
		delete(want.Metadata, name)
	}
	if p.Status == 400 && want.Status == 400 && len(p.ResponseHeaders) == 0 {
		p.Metadata = want.Metadata
	}
}
