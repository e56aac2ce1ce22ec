package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// /config shows what is in force: the file, the defaults, and what the environment says.
func TestAdminShowsTheEffectiveConfiguration(t *testing.T) {
	t.Parallel()
	x := newService(t, "observe.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()}, "EXTAUTHZ__REALM=from-the-environment")
	status, header, body := fetch(t, "http://"+x.admin+"/config")
	if status != 200 || header.Get("Content-Type") != "application/yaml" {
		t.Fatalf("got %d %s, want 200 and YAML", status, header.Get("Content-Type"))
	}
	var effective struct {
		Listen struct{ Metrics, Admin string }
		Realm  string
		Pools  map[string]struct {
			Issuer string
			Leeway string
		}
		Limits struct {
			ConcurrentChecks int `yaml:"concurrentChecks"`
		}
	}
	if err := yaml.Unmarshal([]byte(body), &effective); err != nil {
		t.Fatal(err)
	}
	got := []any{
		effective.Listen.Metrics, effective.Listen.Admin, effective.Realm,
		effective.Pools["main"].Issuer, effective.Pools["main"].Leeway, effective.Limits.ConcurrentChecks,
	}
	want := []any{x.Metrics, x.admin, "from-the-environment", pool(t, mainPool).Issuer(), "30s", 1024}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("found %v, want %v", got[i], want[i])
		}
	}
	if !strings.Contains(body, "realm: from-the-environment # from EXTAUTHZ__REALM") {
		t.Error("the realm does not say that the environment set it")
	}
}

// A page in a browser on the same machine cannot reach the listener under a name of its own (DNS rebinding), nor change
// anything.
func TestAdminIsForTheOperatorOfThisMachine(t *testing.T) {
	t.Parallel()
	x := mainService(t)
	url := "http://" + x.admin + "/config"
	as := func(host string) func(*http.Request) { return func(r *http.Request) { r.Host = host } }
	for host, want := range map[string]int{
		"127.0.0.1": 200, "127.0.0.1:9193": 200, "localhost": 200, "localhost:9193": 200, "[::1]:9193": 200, "127.9.9.9": 200,
		"evil.example": 403, "evil.example:9193": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example": 403, "10.0.0.1": 403, "0.0.0.0": 403, "[::]": 403,
	} {
		if status, _, _ := fetch(t, url, as(host)); status != want {
			t.Errorf("Host %s: got %d, want %d", host, status, want)
		}
	}
	if status, _, _ := fetch(t, "http://"+x.admin+"/debug/pprof/", as("evil.example")); status != 403 {
		t.Errorf("profiles for evil.example: got %d, want 403", status)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		if status, _, _ := fetch(t, url, func(r *http.Request) { r.Method = method }); status != 405 {
			t.Errorf("%s /config: got %d, want 405", method, status)
		}
	}
	if status, _, _ := fetch(t, "http://"+x.admin+"/metrics"); status != 404 {
		t.Errorf("/metrics: got %d, want 404: it is on the other listener", status)
	}
}
