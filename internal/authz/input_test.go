package authz

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
)

// Policies written for OPA-Envoy read input.attributes. What they see here is what that plugin showed them, but for
// the Authorization header (testdata/opa-envoy/inputs.json, recorded from a real one).
func TestAttributesAreThoseOfOPAEnvoy(t *testing.T) {
	text, err := os.ReadFile("testdata/opa-envoy/inputs.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name    string          `json:"name"`
		Request json.RawMessage `json:"request"`
		Input   *struct {
			Attributes map[string]any `json:"attributes"`
		} `json:"input"`
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, c := range cases {
		if c.Input == nil {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			var req authv3.CheckRequest
			if err := protojson.Unmarshal(c.Request, &req); err != nil {
				t.Fatal(err)
			}
			got := roundTrip(t, attributes(req.GetAttributes()))
			if diff := cmp.Diff(dropAuthorization(c.Input.Attributes), got); diff != "" {
				t.Errorf("(-recorded +ours)\n%s", diff)
			}
			compared++
		})
	}
	if compared < 200 {
		t.Errorf("%d cases were compared, want at least 200", compared)
	}
}

func roundTrip(t testing.TB, v any) (out map[string]any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func dropAuthorization(doc map[string]any) map[string]any {
	request, _ := doc["request"].(map[string]any)
	http, _ := request["http"].(map[string]any)
	headers, _ := http["headers"].(map[string]any)
	for name := range headers {
		if strings.EqualFold(name, "authorization") {
			delete(headers, name)
		}
	}
	raw, _ := http["headerMap"].(map[string]any)
	list, _ := raw["headers"].([]any)
	var kept []any
	for _, item := range list {
		if name, _ := item.(map[string]any)["key"].(string); !strings.EqualFold(name, "authorization") {
			kept = append(kept, item)
		}
	}
	if raw != nil {
		raw["headers"] = kept
	}
	return doc
}
