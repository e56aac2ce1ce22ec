package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
)

// policySource starts an extauthz whose policy comes from elsewhere, and an Envoy in front of it.
func policySource(t *testing.T, policy, opa string, env ...string) (*service, *gateway) {
	t.Helper()
	x := newService(t, "source.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer(), "POLICY": policy, "OPA": opa}, env...)
	return x, newGateway(t, x, patience())
}

// from is a policy that denies with a reason which tells where it comes from.
func from(n int) string {
	return fmt.Sprintf("package extauthz\n\ndecision := {\"allowed\": false, \"reason\": \"from_%d\"}\n", n)
}

// decides waits until a policy decides, and holds that none but the one before does meanwhile.
func (g *gateway) decides(t *testing.T, n, before int) {
	t.Helper()
	eventually(t, func() error {
		got := g.get(t, "/open/1").outcome()
		switch {
		case got == denied(fmt.Sprintf("from_%d", n)):
			return nil
		case got != denied(fmt.Sprintf("from_%d", before)):
			t.Fatalf("found %+v, want from_%d or from_%d", got, before, n)
		}
		return fmt.Errorf("found %+v, want from_%d", got, n)
	})
}

// sourceStatus is what /status says of policies.
type sourceStatus struct {
	PolicyRevision string `json:"policy_revision"`
	Files          []struct{ Name, Revision, Error string }
	Bundles        []struct{ Name, Revision, Error string }
}

func (x *service) sources(t *testing.T) (s sourceStatus) {
	t.Helper()
	_, _, body := fetch(t, "http://"+x.admin+"/status")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Kubernetes puts a new version of a ConfigMap in place by a link; a bad one changes nothing.
func TestPolicyDirectoryIsReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(name, text string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "policy.rego"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", from(1))
	if err := os.Symlink("..data/policy.rego", filepath.Join(dir, "policy.rego")); err != nil {
		t.Fatal(err)
	}
	x, g := policySource(t, "dir: "+dir, "")
	g.decides(t, 1, 1)
	version("..2", from(2))
	g.decides(t, 2, 1)

	good := x.sources(t)
	version("..3", "package extauthz\n\ndecision := http.send({}).ok\n")
	place := filepath.Join(dir, "policy.rego") + ":3:13: "
	eventually(t, func() error {
		if f := x.sources(t).Files[0]; f.Name != "policy.dir" || !strings.Contains(f.Error, place) || f.Revision != good.PolicyRevision {
			return fmt.Errorf("found %+v, want an error at %s and the revision %s", f, place, good.PolicyRevision)
		}
		return nil
	})
	g.decides(t, 2, 2)
	if log := x.Stderr(); !strings.Contains(log, place) {
		t.Errorf("found no %s in the log", place)
	}
	version("..4", from(3))
	g.decides(t, 3, 2)
	if f := x.sources(t).Files[0]; f.Error != "" || f.Revision == good.PolicyRevision {
		t.Errorf("found %+v, want it mended", f)
	}
}

const (
	bundleKey   = "a-key-that-only-tests-have-0123456789"
	bundleToken = "a-token-that-only-tests-have-0123456789"
)

// signedBundle is made by OPA's own writer and signer.
func signedBundle(t *testing.T, revision, text, key string) []byte {
	t.Helper()
	parsed, err := ast.ParseModule("/policy.rego", text)
	if err != nil {
		t.Fatal(err)
	}
	b := opabundle.Bundle{
		Manifest: opabundle.Manifest{Revision: revision}, Data: map[string]any{},
		Modules: []opabundle.ModuleFile{{URL: "policy.rego", Path: "/policy.rego", Raw: []byte(text), Parsed: parsed}},
	}
	if err := b.GenerateSignature(opabundle.NewSigningConfig(key, "HS256", ""), "main", true); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := opabundle.NewWriter(&out).UseModulePath(true).DisableFormat(true).Write(b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Bundles of OPA: signed ones decide, others change nothing, a rollback shows, and the last good one decides after a
// restart without its server.
func TestPolicyFromBundles(t *testing.T) {
	t.Parallel()
	var body atomic.Pointer[[]byte]
	serve := func(content []byte) { body.Store(&content) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+bundleToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		content := *body.Load()
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(content)))) // else each poll is an activation
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	section, err := json.Marshal(map[string]any{
		"services": map[string]any{"main": map[string]any{"url": server.URL, "credentials": map[string]any{"bearer": map[string]any{"token": "${BUNDLE_TOKEN}"}}}},
		"keys":     map[string]any{"main": map[string]any{"algorithm": "HS256", "key": "${BUNDLE_KEY}"}},
		"bundles": map[string]any{"main": map[string]any{
			"service": "main", "resource": "bundle.tar.gz", "persist": true, "signing": map[string]any{"keyid": "main"},
			"polling": map[string]any{"min_delay_seconds": 1, "max_delay_seconds": 1},
		}},
		"persistence_directory": t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	opa := "opa: " + string(section)
	env := []string{"BUNDLE_TOKEN=" + bundleToken, "BUNDLE_KEY=" + bundleKey}
	serve(signedBundle(t, "v1", from(1), bundleKey))
	x, g := policySource(t, "minRevision: v1", opa, env...)
	g.decides(t, 1, 1)
	if s := x.sources(t); !strings.HasPrefix(s.PolicyRevision, "main=v1@sha256:") || s.Bundles[0].Revision != "v1" {
		t.Errorf("found %+v, want the revision of the bundle", s)
	}

	serve(signedBundle(t, "v2", from(2), bundleKey))
	g.decides(t, 2, 1)
	for what, bad := range map[string]struct {
		body []byte
		want string
	}{
		"another key":         {signedBundle(t, "v3", from(3), "another-key-0123456789-0123456789"), "verif"},
		"half":                {signedBundle(t, "v3", from(3), bundleKey)[:200], "EOF"},
		"a forbidden builtin": {signedBundle(t, "v3", "package extauthz\n\ndecision := http.send({\"method\": \"get\", \"url\": \"x\"}).ok\n", bundleKey), "http.send"},
		"too old":             {signedBundle(t, "v0", from(3), bundleKey), "policy.minRevision"},
	} {
		serve(bad.body)
		eventually(t, func() error {
			if b := x.sources(t).Bundles[0]; !strings.Contains(b.Error, bad.want) || b.Revision != "v2" {
				return fmt.Errorf("%s: found %+v, want an error with %q and the revision v2", what, b, bad.want)
			}
			return nil
		})
		g.decides(t, 2, 2)
	}
	_, _, metrics := fetch(t, "http://"+x.Metrics+"/metrics")
	for _, want := range []string{`extauthz_bundle_current{bundle="main"} 0`, `extauthz_bundle_activations_total{bundle="main",result="ok"} 2`} {
		if !strings.Contains(strings.ReplaceAll(metrics, `,otel_scope_name="extauthz"`, ""), want) {
			t.Errorf("found no %s in the metrics:\n%s", want, linesWith(metrics, "bundle"))
		}
	}

	serve(signedBundle(t, "v1", from(1), bundleKey))
	g.decides(t, 1, 2)
	eventually(t, func() error { // the policy decides before the fetch is over and says so
		if s := x.sources(t); s.Bundles[0].Revision != "v1" || s.Bundles[0].Error != "" {
			return fmt.Errorf("found %+v, want the rollback", s)
		}
		return nil
	})

	server.Close()
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{bundleKey, bundleToken} {
		if strings.Contains(x.Stderr(), secret) {
			t.Error("a secret is in the log")
		}
	}
	if err := x.start(x.Metrics, env...); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if got := g.get(t, "/open/1").outcome(); got != denied("from_1") {
			return fmt.Errorf("found %+v after the restart, want from_1", got)
		}
		return nil
	})
}

func linesWith(text, word string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
