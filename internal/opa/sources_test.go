package opa

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/storage"
)

// wantLoad waits until a policy comes into use.
func (f *fixture) wantLoad(t *testing.T, label string) {
	t.Helper()
	select {
	case got := <-f.loads:
		if got != label {
			t.Errorf("%s came into use, want %s", got, label)
		}
	case <-t.Context().Done():
		t.Fatalf("%s did not come into use\n%s", label, f.log)
	}
}

// A bundle in a file is read again when it has changed. OPA reads it once.
func TestBundleFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle.tar.gz")
	config := section("http://127.0.0.1:1")
	main := inside(t, config, "bundles", "main")
	delete(main, "service")
	delete(main, "trigger")
	main["resource"] = "file://" + path
	put := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put(simple("1").build(t))
	f := start(t, config, "")
	f.wantLoad(t, "main=1")
	<-f.Loaded()

	put(tampered(t, simple("2").build(t)))
	for f.Bundles()[0].Failures == 0 && t.Context().Err() == nil {
	}
	f.want(t, "r_1", "1", "digest")

	put(simple("3").build(t))
	f.wantLoad(t, "main=3")
}

// long sends each bundle that comes on a channel as the answer to one request that waits for it.
func long(next <-chan []byte, asked chan<- string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Prefer")
		select {
		case body := <-next:
			w.Header().Set("Content-Type", "application/vnd.openpolicyagent.bundles")
			w.Header().Set("ETag", fmt.Sprintf("\"%d\"", crc(body)))
			_, _ = w.Write(body)
		case <-r.Context().Done():
		}
	}
}

func TestLongPolling(t *testing.T) {
	s := newServer(t)
	next, asked := make(chan []byte, 1), make(chan string, 16)
	s.handle(long(next, asked))
	config := section(s.URL)
	main := inside(t, config, "bundles", "main")
	delete(main, "trigger")
	main["polling"] = map[string]any{"long_polling_timeout_seconds": json.Number("30")}
	f := start(t, config, "")
	for _, revision := range []string{"1", "2", "3"} {
		if prefer := <-asked; !strings.Contains(prefer, "wait=30") {
			t.Errorf("Prefer is %q, want a wait of 30 seconds", prefer)
		}
		next <- simple(revision).build(t)
		f.wantLoad(t, "main="+revision)
	}
	f.stop() // with a request under way
}

// While a bundle trickles in, the last good one decides.
func TestSlowServer(t *testing.T) {
	s := newServer(t)
	s.serve("bundle.tar.gz", simple("1").build(t))
	f := start(t, section(s.URL), "")
	f.fetch(t)
	half, rest := make(chan struct{}), make(chan struct{})
	body := simple("2").build(t)
	s.handle(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-rest
		_, _ = w.Write(body[len(body)/2:])
	})
	var wg sync.WaitGroup
	wg.Go(func() { f.fetch(t) })
	<-half
	f.want(t, "r_1", "1", "")
	close(rest)
	wg.Wait()
	f.want(t, "r_2", "2", "")
}

// push puts a bundle into a registry as "oras push" does, with the media types that OPA's documentation names.
func push(t *testing.T, base, repository, tag string, bundle []byte) {
	t.Helper()
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	blob := func(mediaType string, content []byte) descriptor {
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
		send(t, http.MethodPost, base+"/v2/"+repository+"/blobs/uploads/?digest="+digest, "application/octet-stream", content)
		return descriptor{MediaType: mediaType, Digest: digest, Size: len(content)}
	}
	layer := blob("application/vnd.oci.image.layer.v1.tar+gzip", bundle)
	layer.Annotations = map[string]string{"org.opencontainers.image.title": "bundle.tar.gz"}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": blob("application/vnd.oci.image.config.v1+json", []byte("{}")), "layers": []descriptor{layer},
	})
	if err != nil {
		t.Fatal(err)
	}
	send(t, http.MethodPut, base+"/v2/"+repository+"/manifests/"+tag, manifestType, manifest)
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

func send(t *testing.T, method, url, contentType string, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusCreated {
		t.Fatalf("%s %s: %s, want 201", method, url, answer.Status)
	}
}

func TestBundleFromARegistry(t *testing.T) {
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	ref := strings.TrimPrefix(s.URL, "http://") + "/policies/extauthz:latest"
	config := section(s.URL)
	inside(t, config, "services", "main")["type"] = "oci"
	delete(inside(t, config, "services", "main"), "credentials")
	inside(t, config, "bundles", "main")["resource"] = ref
	config["persistence_directory"] = t.TempDir()

	push(t, s.URL, "policies/extauthz", "latest", simple("1").build(t))
	f := start(t, config, "")
	f.fetch(t)
	f.want(t, "r_1", "1", "")
	push(t, s.URL, "policies/extauthz", "latest", tampered(t, simple("2").build(t)))
	f.fetch(t)
	f.want(t, "r_1", "1", "digest")
	push(t, s.URL, "policies/extauthz", "latest", simple("3").build(t))
	f.fetch(t)
	f.want(t, "r_3", "3", "")
	s.Close()
	f.fetch(t)
	f.want(t, "r_3", "3", "refused")
}

// A delta changes data only, and is one more revision of the policy.
func TestDeltaBundle(t *testing.T) {
	s := newServer(t)
	config := section(s.URL)
	delete(inside(t, config, "bundles", "main"), "signing") // OPA signs no deltas
	first := simple("1")
	first.signed = nil
	first.modules["policy.rego"] = "package extauthz\n\ndecision := {\"allowed\": false, \"reason\": data.word}\n"
	first.data = map[string]any{"word": "r_1"}
	first.roots = []string{"extauthz", "word"}
	s.serve("bundle.tar.gz", first.build(t))
	f := start(t, config, "")
	f.fetch(t)
	f.want(t, "r_1", "1", "")

	roots := first.roots
	delta := opabundle.Bundle{
		Manifest: opabundle.Manifest{Revision: "2", Roots: &roots},
		Patch:    opabundle.Patch{Data: []opabundle.PatchOperation{{Op: "upsert", Path: "/word", Value: "r_2"}}},
	}
	var out bytes.Buffer
	if err := opabundle.NewWriter(&out).Write(delta); err != nil {
		t.Fatal(err)
	}
	s.serve("bundle.tar.gz", out.Bytes())
	f.fetch(t)
	f.want(t, "r_2", "2", "")
}

// A panic of the compiler is a bundle that cannot be used, and the process goes on.
func TestPanicWhileLoading(t *testing.T) {
	s := newServer(t)
	s.serve("bundle.tar.gz", simple("1").build(t))
	f := start(t, section(s.URL), "")
	f.cfg.Load = func(context.Context, map[string][]byte, string) (string, error) { panic("boom") }
	f.fetch(t)
	f.want(t, "fails", "", "boom")
}

// What only reads, or gives up, asks nobody.
func TestOnlyWritesAreLookedAt(t *testing.T) {
	f := start(t, section("http://127.0.0.1:1"), "")
	f.started(t)
	calls := 0
	own := f.manager.Store.(*store)
	own.commit = func(context.Context, storage.Store, storage.Transaction, bool) error {
		calls++
		return errors.New("no")
	}
	read, err := own.NewTransaction(t.Context())
	if err != nil || own.Commit(t.Context(), read) != nil || calls != 0 {
		t.Errorf("a reader is held up: %v, %d calls", err, calls)
	}
	write, err := own.NewTransaction(t.Context(), storage.WriteParams)
	if err != nil {
		t.Fatal(err)
	}
	own.Abort(t.Context(), write)
	if err := storage.Txn(t.Context(), own, storage.WriteParams, func(storage.Transaction) error { return nil }); err == nil || calls != 1 {
		t.Errorf("a writer is not asked about: %v, %d calls", err, calls)
	}
	own.commit = func(context.Context, storage.Store, storage.Transaction, bool) error { return nil }
}

// Files of tests within a bundle are left out, as in a directory.
func TestTestsInABundle(t *testing.T) {
	r := simple("1")
	r.modules["policy_test.rego"] = "package extauthz_test\n\ntest_it if input.nonsense == 1\n"
	s := newServer(t)
	s.serve("bundle.tar.gz", r.build(t))
	f := start(t, section(s.URL), "")
	f.fetch(t)
	f.want(t, "r_1", "1", "")
}
