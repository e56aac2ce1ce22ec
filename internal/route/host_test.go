package route

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// A hostCase is an entry of testdata/hosts.json, which docs/paths.md shows too.
type hostCase struct {
	Host      string `json:"host"`
	Show      string `json:"show"` // what the page shows instead
	Canonical string `json:"canonical"`
	Refused   string `json:"refused"` // the reason, instead of canonical
	Why       string `json:"why"`
}

func TestCanonicalHost(t *testing.T) {
	t.Parallel()
	for _, c := range readJSON[[]hostCase](t, "hosts.json") {
		host, err := CanonicalHost(c.Host)
		if host != c.Canonical || hostReason(err) != c.Refused {
			t.Errorf("CanonicalHost(%q) = %q, %q, want %q, %q", c.Host, host, hostReason(err), c.Canonical, c.Refused)
		}
	}
}

func TestHostErrorHoldsNoHost(t *testing.T) {
	t.Parallel()
	for _, c := range readJSON[[]hostCase](t, "hosts.json") {
		if _, err := CanonicalHost("canary" + c.Host); err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the error for %q holds the host: %v", c.Host, err)
		}
	}
}

func hostReason(err error) string {
	var e *HostError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Reason
	}
	return "not a *HostError: " + err.Error()
}

func FuzzCanonicalHost(f *testing.F) {
	for _, c := range readJSON[[]hostCase](f, "hosts.json") {
		f.Add(c.Host)
	}
	name := regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)
	f.Fuzz(func(t *testing.T, raw string) {
		host, err := CanonicalHost(raw)
		if err != nil {
			if host != "" || hostReason(err) == "" {
				t.Fatalf("%q: %q with error %v", raw, host, err)
			}
			return
		}
		if address, ok := strings.CutPrefix(host, "["); ok {
			ip, err := netip.ParseAddr(strings.TrimSuffix(address, "]"))
			if err != nil || !ip.Is6() || "["+ip.String()+"]" != host {
				t.Fatalf("%q is canonically %q", raw, host)
			}
		} else if len(host) > maxHostBytes || !name.MatchString(host) || !strings.HasPrefix(strings.ToLower(raw), host) {
			t.Fatalf("%q is canonically %q", raw, host)
		}
		for _, same := range []string{host, host + ":1", strings.ToUpper(host)} {
			if again, err := CanonicalHost(same); again != host {
				t.Fatalf("%q is canonically %q, and %q is %q, %v", raw, host, same, again, err)
			}
		}
	})
}
