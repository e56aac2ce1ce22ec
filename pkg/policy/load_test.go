package policy

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestLoadErrors holds what the person sees who made the mistake: file, row, column, and what would be valid.
func TestLoadErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files map[string]string
		want  []Problem // Message is a part of the message
	}{
		{"syntax", rule("decision :: true"), []Problem{{File: "policy.rego", Row: 3, Col: 10, Message: "rego_parse_error: unexpected : token"}}},
		{"Rego v0", rule("allow { true }"), []Problem{{File: "policy.rego", Row: 3, Col: 1, Message: "`if` keyword is required before rule body"}}},
		{"empty file", map[string]string{"a.rego": "", "b.rego": "package extauthz\ndecision := true"}, []Problem{{File: "a.rego", Message: "rego_parse_error: empty module"}}},
		{
			"several files at once",
			map[string]string{"a.rego": "package extauthz\ndecision ::", "sub/b.rego": "package extauthz\ndecision if"},
			[]Problem{{File: "a.rego", Row: 2, Col: 10}, {File: "sub/b.rego", Row: 2, Col: 11}},
		},
		{"unsafe variable", rule("decision if x == 1"), []Problem{{File: "policy.rego", Row: 3, Col: 13, Message: "var x is unsafe"}}},
		{"unused variable", rule("decision if { x := 1 }"), []Problem{{File: "policy.rego", Row: 3, Col: 15, Message: "assigned var x unused"}}},
		{"unused import", rule("import data.x\n\ndecision := true"), []Problem{{File: "policy.rego", Row: 3, Col: 1, Message: "import data.x unused"}}},
		{"recursion", rule("decision if decision"), []Problem{{File: "policy.rego", Row: 3, Col: 1, Message: "recursive"}}},
		{"a function that does not exist", rule("decision if allow(1)"), []Problem{{File: "policy.rego", Row: 3, Col: 13, Message: "undefined function allow"}}},
		{
			"a function that is left out", rule("decision if {\n\thttp.send({\"method\": \"GET\", \"url\": \"http://x\"}).status_code == 200\n}"),
			[]Problem{{File: "policy.rego", Row: 4, Col: 2, Message: "undefined function http.send", Hint: "http.send is left out unless it is allowed by name: talks to the network"}},
		},
		{
			"a token function", rule("decision if io.jwt.decode(input.token.issuer)[1].sub == \"x\""),
			[]Problem{{File: "policy.rego", Row: 3, Col: 13, Message: "undefined function io.jwt.decode", Hint: "use input.token"}},
		},
		{"wrong type", rule("decision if input.parsed_path[0] == 7"), []Problem{{File: "policy.rego", Row: 3, Col: 13, Message: "match error"}}},
		{"misspelt input", rule("decision if input.tokn.client_id == \"x\""), []Problem{{File: "policy.rego", Row: 3, Col: 13, Message: `want (one of): ["attributes"`}}},
		{"misspelt claim of ours", rule("decision if not input.token.client_ids"), []Problem{{File: "policy.rego", Row: 3, Col: 17, Message: "undefined ref: input.token.client_ids"}}},
		{"misspelt attribute", rule("decision if input.attributes.request.http.header[\"x-a\"] == \"b\""), []Problem{{File: "policy.rego", Row: 3, Col: 13, Message: "undefined ref: input.attributes.request.http.header"}}},
		{"null token", rule("decision if input.token == null"), []Problem{{File: "policy.rego", Row: 3, Col: 13, Message: "match error"}}},
		{"the built-in package", map[string]string{"x.rego": "package extauthz.base\n\nallow := true"}, []Problem{{File: "x.rego", Row: 1, Col: 1, Message: "package extauthz.base is built in", Hint: "data.extauthz.base.decision"}}},
		{"below the built-in package", map[string]string{"x.rego": "package extauthz.base.more\n\nallow := true"}, []Problem{{File: "x.rego", Row: 1, Col: 1, Message: "package extauthz.base.more is built in"}}},
		{"the built-in file, in the built-in place", map[string]string{"built in: extauthz/base.rego": "package extauthz.base\n\ndecision := true", "extauthz/base.rego": "package extauthz.base\n\ndecision := true"}, []Problem{{File: "built in: extauthz/base.rego", Row: 1, Col: 1, Message: "is built in"}, {File: "extauthz/base.rego", Row: 1, Col: 1, Message: "is built in"}}},
		{"no decision", rule("allow := true"), []Problem{{Message: "no rule data.extauthz.decision; found the packages extauthz, extauthz.base", Hint: `the deciding rule is "decision" in package extauthz`}}},
		{"a decision in another package", map[string]string{"x.rego": "package orders\n\ndecision := true"}, []Problem{{Message: "no rule data.extauthz.decision; found the packages extauthz.base, orders"}}},
		{"a package in place of the decision", map[string]string{"x.rego": "package extauthz.decision\n\nallowed := true"}, []Problem{{Message: "no rule data.extauthz.decision"}}},
		{"a function in place of the decision", rule("decision(x) := x"), []Problem{{Message: "no rule data.extauthz.decision"}}},
		{
			"data in place of the decision",
			map[string]string{"x.rego": "package orders\n\nx := 1", "data.json": `{"extauthz": {"decision": true}}`},
			[]Problem{{Message: "data files hold data.extauthz.decision, which is for rules"}},
		},
		{
			"data that completes the decision",
			map[string]string{"policy.rego": "package extauthz\n\ndecision.reason := \"x\"", "extauthz/decision/data.json": `{"allowed": true}`},
			[]Problem{{Message: "data files hold data.extauthz.decision, which is for rules"}},
		},
		{
			"data in place of the packages", withData("data.json", `{"extauthz": true}`),
			[]Problem{{Message: "data files hold data.extauthz.base, which"}, {Message: "data files hold data.extauthz.decision, which"}},
		},
		{
			"data beside another rule",
			map[string]string{"policy.rego": "package extauthz\n\ndecision := false\n\nadmins := []", "extauthz/data.json": `{"admins": ["x"]}`},
			[]Problem{{File: "policy.rego", Row: 5, Col: 1, Message: "conflicting rule for data path extauthz/admins found"}},
		},
		{
			"data for the built-in policy",
			map[string]string{"policy.rego": "package extauthz\n\ndecision := false", "extauthz/base/data.yaml": "clients: [a]"},
			[]Problem{{Message: "data files hold data.extauthz.base, which is for rules"}},
		},
		{
			"data twice",
			map[string]string{"policy.rego": "package extauthz\n\ndecision := false", "a/data.json": `{"b": {"c": 1}}`, "a/b/data.yaml": "c: 2"},
			[]Problem{{File: "a/data.json", Message: "data.a.b.c is in another data file as well"}},
		},
		{"data that is no object", withData("data.json", `["a"]`), []Problem{{File: "data.json", Message: "the file holds no object"}}},
		{"data that is no JSON", withData("data.json", `{"a": `), []Problem{{File: "data.json", Message: "EOF"}}},
		{"data with more behind it", withData("data.json", `{} {}`), []Problem{{File: "data.json", Message: "goes on after its value"}}},
		{"a JSON key twice", withData("data.json", `{"a": {"b": 1, "b": 2}}`), []Problem{{File: "data.json", Message: `key "b" is given twice`}}},
		{"a YAML key twice", withData("data.yaml", "a:\n  b: 1\n  b: 2"), []Problem{{File: "data.yaml", Message: `mapping key "b" already defined at line 2`}}},
		{"several YAML documents", withData("data.yml", "a: 1\n---\nb: 2"), []Problem{{File: "data.yml", Message: "several documents"}}},
		{"YAML that JSON has no form for", withData("data.yaml", "a: .inf"), []Problem{{File: "data.yaml", Message: "unsupported value: +Inf"}}},
		{"an empty YAML file", withData("data.yaml", ""), []Problem{{File: "data.yaml", Message: "EOF"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tryEngine(t, tt.files)
			var e *LoadError
			if !errors.As(err, &e) {
				t.Fatalf("error is %v, want a *LoadError", err)
			}
			if len(e.Problems) != len(tt.want) {
				t.Fatalf("%d problems, want %d:\n%v", len(e.Problems), len(tt.want), e)
			}
			for i, want := range tt.want {
				got := e.Problems[i]
				if !strings.Contains(got.Message, want.Message) || !strings.Contains(got.Hint, want.Hint) {
					t.Errorf("problem %d is %v\nwant %v", i, got, want)
				}
				want.Message, want.Hint = got.Message, got.Hint
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("problem %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

func withData(name, content string) map[string]string {
	return map[string]string{"policy.rego": "package extauthz\n\ndecision := true", name: content}
}

func TestLoadErrorText(t *testing.T) {
	_, err := tryEngine(t, map[string]string{"orders/authz.rego": "package extauthz\n\ndecision if graph.reachable_paths({}, {\"a\"})"})
	const want = `policy: load: orders/authz.rego:3:13: rego_type_error: undefined function graph.reachable_paths
hint: graph.reachable_paths is left out unless it is allowed by name: takes exponential time and cannot be cancelled`
	if err == nil || err.Error() != want {
		t.Errorf("error is\n%v\nwant\n%s", err, want)
	}
}

// TestFiles holds which files make a policy, on a directory as Kubernetes mounts a ConfigMap.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	version := "..2026_01_02_03_04_05.123456789"
	write(version+"/policy.rego", `package extauthz

decision := {"allowed": true, "dynamic_metadata": {
	"tenants": data.tenants, "limit": data.limits.orders, "yml": data.yml.list, "other": other,
	"helper": data.helper.x,
}}

default other := false

other if data.other`)
	write(version+"/data.json", `{"tenants": {"acme": 9007199254740993}}`)
	write(version+"/limits/data.yaml", "orders: 5\n")
	write(version+"/lib/helper.rego", "package helper\n\nx := 1")
	write(version+"/policy_test.rego", "package x\n\nthis is not Rego")
	write(version+"/other.json", `{"other": 1}`)
	write(version+"/cases.yaml", "[]")
	write(version+"/README.md", "not a policy")
	write(version+"/.hidden.rego", "not Rego")
	link(version, "..data")
	for _, name := range []string{"policy.rego", "data.json", "limits", "lib", "policy_test.rego", "other.json", "cases.yaml", "README.md"} {
		link(filepath.Join("..data", name), name)
	}
	write("yml/data.yml", "list: [1, no, false, ~, 2026-01-02, 0x10, {7: x}]")

	var log strings.Builder
	e := newEngine(t, nil, func(c *Config) { c.Dir = dir }, logTo(&log))
	got, err := e.Decide(t.Context(), accepted())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"tenants": map[string]any{"acme": 9007199254740992.0}, "limit": 5.0, "yml": []any{1.0, "no", false, nil, "2026-01-02", 16.0, map[string]any{"7": "x"}}, "other": false, "helper": 1.0,
	}
	if diff := cmp.Diff(want, got.Metadata); diff != "" {
		t.Errorf("data (-want +got):\n%s", diff)
	}
	if want := `files="[cases.yaml other.json]"`; strings.Count(log.String(), want) != 1 {
		t.Errorf("log is %q, want one line with %s", log.String(), want)
	}

	link(dir, "loop")
	if err := e.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "a symbolic link that goes round?") {
		t.Errorf("a circle of links: %v", err)
	}
}

// TestNamesOfBuiltInFiles holds that a file of the user's does not take the place of a built-in one by its path.
func TestNamesOfBuiltInFiles(t *testing.T) {
	e := newEngine(t, map[string]string{
		"extauthz/base.rego":           "package extauthz\n\ndecision := data.extauthz.base.decision",
		"built in: extauthz/base.rego": "package more",
	})
	in := accepted()
	in.Token.Scopes = nil
	if d, err := e.Decide(t.Context(), in); err != nil || d.Reason != InsufficientScope {
		t.Errorf("got %+v, %v, want the built-in policy's denial", d, err)
	}
}

func TestPipeIsNotRead(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "p.rego"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "p.rego is no regular file") {
		t.Errorf("error is %v, want that p.rego is no regular file", err)
	}
}

// changingFS is a directory that is switched from one version to the next while it is read.
type changingFS struct {
	fs.FS
	reads func(name string)
}

func (c changingFS) Open(name string) (fs.File, error) {
	c.reads(name)
	return c.FS.Open(name)
}

func TestPolicyIsOneVersion(t *testing.T) {
	files := fstest.MapFS{"a.rego": {}, "b.rego": {}}
	use := func(version string) {
		files["a.rego"] = &fstest.MapFile{Data: []byte("package extauthz\n\ndecision := {\"allowed\": true, \"dynamic_metadata\": {\"a\": \"" + version + "\", \"b\": b}}")}
		files["b.rego"] = &fstest.MapFile{Data: []byte("package extauthz\n\nb := \"" + version + "\"")}
	}
	use("1")
	switched := false
	fsys := changingFS{files, func(name string) {
		if name == "b.rego" && !switched { // a.rego was read
			switched = true
			use("2")
		}
	}}
	got, err := newEngine(t, nil, func(c *Config) { c.FS = fsys }).Decide(t.Context(), accepted())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"a": "2", "b": "2"}, got.Metadata); diff != "" {
		t.Errorf("the policy is made of two versions:\n%s", diff)
	}

	n := 0
	fsys.reads = func(string) { n++; use(string(rune('a' + n%26))) }
	if _, err := New(t.Context(), Config{FS: fsys}); err == nil || !strings.Contains(err.Error(), "changes while it is read") {
		t.Errorf("error is %v, want that the policy changes while it is read", err)
	}
}

func TestUnreadableFile(t *testing.T) {
	fsys := changingFS{mapFS(map[string]string{"a.rego": "package extauthz\n\ndecision := true"}), func(string) {}}
	e := newEngine(t, nil, func(c *Config) { c.FS = brokenFS{fsys} })
	if d, err := e.Decide(t.Context(), accepted()); err != nil || !d.Allowed {
		t.Errorf("got %+v, %v, want an allow: only data.json is broken, and not there", d, err)
	}
	_, err := tryEngine(t, nil, func(c *Config) {
		c.FS = brokenFS{mapFS(map[string]string{"a.rego": "package extauthz\n\ndecision := true", "data.json": "{}"})}
	})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error is %v, want fs.ErrPermission", err)
	}
}

// brokenFS cannot read data.json.
type brokenFS struct{ fs.FS }

func (b brokenFS) Open(name string) (fs.File, error) {
	if name == "data.json" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return b.FS.Open(name)
}

// TestDirInErrors holds that file names in errors are paths below Dir.
func TestDirInErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte("package extauthz\ndecision ::"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Config{Dir: dir})
	if want := filepath.Join(dir, "p.rego") + ":2:10: "; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want %s", err, want)
	}
}
