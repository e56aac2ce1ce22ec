package policy

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"go.yaml.in/yaml/v3"
)

const policiesDir = "../../policies"

// A caseFile is one of policies/cases/*.yaml; README.md there describes it.
type caseFile struct {
	Policy string
	Data   map[string]any
	Config struct {
		RequestHeaders []string `yaml:"request_headers"`
		Reasons        []string
		AllowBuiltins  []string `yaml:"allow_builtins"`
		Extauthz       map[string]any
	}
	Input any
	Cases []struct {
		Name     string
		Input    any
		Decision map[string]any
		Error    string
	}
}

func TestCases(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(policiesDir, "cases", "*.yaml"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range names {
		subject := strings.TrimSuffix(filepath.Base(name), ".yaml")
		t.Run(subject, func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file := decodeCases(t, text, subject)
			var files map[string]string
			if file.Policy != "" {
				files = map[string]string{"policy.rego": file.Policy}
			}
			runCases(t, file, files)
		})
	}
}

// decodeCases decodes a document whose only key is subject.
func decodeCases(t *testing.T, text []byte, subject string) caseFile {
	t.Helper()
	var files map[string]caseFile
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&files); err != nil {
		t.Fatal(err)
	}
	file, ok := files[subject]
	if !ok || len(files) != 1 || len(file.Cases) == 0 {
		t.Fatalf("the keys are %v, want %s with some cases", slices.Collect(maps.Keys(files)), subject)
	}
	return file
}

// runCases decides every case with the policy in files, or the built-in one without files.
func runCases(t *testing.T, file caseFile, files map[string]string) {
	t.Helper()
	if file.Data != nil {
		files["data.json"] = string(mustJSON(t, file.Data))
	}
	config := func(c *Config) {
		c.RequestHeaders, c.Reasons, c.AllowBuiltins = file.Config.RequestHeaders, file.Config.Reasons, file.Config.AllowBuiltins
		c.ReservedHeaders = []string{"x-auth-client-id"}
		c.Data = file.Config.Extauthz
		c.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	}
	e := newEngine(t, files, config)
	remembers := newEngine(t, files, config, cached)
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			in := inputOf(t, mergePatch(file.Input, c.Input))
			got, err := e.Decide(t.Context(), in)
			sameDecision(t, remembers, in, got, err)
			if c.Error != "" {
				if err == nil || !strings.Contains(err.Error(), c.Error) || got.Allowed {
					t.Errorf("got %+v, %v, want an error with %q", got, err, c.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(indent(t, mustJSON(t, c.Decision)), indent(t, mustJSON(t, written(got)))); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

// inputOf decodes an input document, and refuses keys that an Input does not have.
func inputOf(t *testing.T, doc any) *Input {
	t.Helper()
	var in Input
	decoder := json.NewDecoder(bytes.NewReader(mustJSON(t, doc)))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil {
		t.Fatalf("input: %v", err)
	}
	return &in
}

// mergePatch is RFC 7396.
func mergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		if patch == nil {
			return target // a case that changes nothing
		}
		return patch
	}
	object, _ := target.(map[string]any)
	out := maps.Clone(object)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range changes {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = mergePatch(out[k], v)
		}
	}
	return out
}

// written is a decision as the cases write it.
func written(d Decision) map[string]any {
	out := map[string]any{"allowed": d.Allowed}
	set := func(key string, value any, there bool) {
		if there {
			out[key] = value
		}
	}
	values := func(list []Header) map[string][]string {
		m := map[string][]string{}
		for _, h := range list {
			m[h.Name] = h.Values
		}
		return m
	}
	var parameters []Header
	for _, p := range d.SetQueryParameters {
		parameters = append(parameters, Header(p))
	}
	set("reason", d.Reason, d.Reason != "")
	set("scope", d.Scope, d.Scope != "")
	set("http_status", d.HTTPStatus, d.HTTPStatus != 0 && d.HTTPStatus != 403)
	set("body", d.Body, d.Body != nil)
	set("request_headers", values(d.RequestHeaders), d.RequestHeaders != nil)
	set("request_headers_to_remove", d.RemoveRequestHeaders, d.RemoveRequestHeaders != nil)
	set("response_headers", values(d.ResponseHeaders), d.ResponseHeaders != nil)
	set("query_parameters_to_set", values(parameters), parameters != nil)
	set("query_parameters_to_remove", d.RemoveQueryParameters, d.RemoveQueryParameters != nil)
	set("dynamic_metadata", d.Metadata, d.Metadata != nil)
	return out
}

func mustJSON(t *testing.T, x any) []byte {
	t.Helper()
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestRegoTests runs the *_test.rego files of the shipped policies and wants them to reach every line.
func TestRegoTests(t *testing.T) {
	modules := map[string]string{}
	err := filepath.WalkDir(filepath.Join(policiesDir, "extauthz"), func(name string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Ext(name) == ".rego" {
			var text []byte
			text, err = os.ReadFile(name)
			modules[name] = string(text)
		}
		return err
	})
	if err != nil || len(modules) != 4 {
		t.Fatalf("%d modules, %v, want 4", len(modules), err)
	}
	report := runRegoTests(t, modules)
	for name, file := range report.Files {
		if len(file.NotCovered) > 0 {
			t.Errorf("%s: the tests do not reach %v", name, file.NotCovered)
		}
	}
	if len(report.Files) != 4 {
		t.Errorf("%d files were run, want 4", len(report.Files))
	}
}

// runRegoTests is "opa test --coverage".
func runRegoTests(t *testing.T, sources map[string]string) cover.Report {
	t.Helper()
	modules := map[string]*ast.Module{}
	for name, text := range sources {
		m, err := ast.ParseModule(name, text)
		if err != nil {
			t.Fatal(err)
		}
		modules[name] = m
	}
	tracer := cover.New()
	results, err := tester.NewRunner().
		SetStore(inmem.New()).
		SetModules(modules).
		SetCoverageQueryTracer(tracer).
		SetTimeout(time.Minute).
		RunTests(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for result := range results {
		ran++
		if !result.Pass() {
			t.Errorf("%v", result)
		}
	}
	if ran == 0 {
		t.Error("no test was run")
	}
	return tracer.Report(modules)
}
