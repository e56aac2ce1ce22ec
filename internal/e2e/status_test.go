package e2e_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// /status tells an operator what the answers depend on: keys, files and the cache.
func TestStatusShowsWhatAnswersDependOn(t *testing.T) {
	t.Parallel()
	start := time.Now()
	p, x, g, path := newDenylist(t, replace, t.TempDir())
	token := p.Token(batchID)
	for range 3 {
		g.expect(t, "a good token", token, reaches(ordered))
	}
	g.expect(t, "a bad signature", p.Token(batchID, cognitotest.SignedBy(p.ForgedKey())), refused("signature", notAccepted))

	now, s := time.Now(), x.status(t)
	hash := regexp.MustCompile(`^sha256:[0-9a-f]{12}$`)
	if s.Version == "" || !hash.MatchString(s.ConfigRevision) || !hash.MatchString(s.PolicyRevision) {
		t.Errorf("version and revisions are %q, %q and %q, want a version and two hashes", s.Version, s.ConfigRevision, s.PolicyRevision)
	}
	k, ok := s.Pools["main"]
	if !ok || len(s.Pools) != 1 || !k.Usable || k.Keys != len(p.Keys()) || k.Fetches != 1 || k.Failures != 0 || k.LastError != "" {
		t.Errorf("pools are %+v, want main with %d usable keys of one fetch", s.Pools, len(p.Keys()))
	}
	if k.FetchedAt.Before(start) || k.FetchedAt.After(now) || k.AgeSeconds <= 0 || k.AgeSeconds > time.Since(start).Seconds() {
		t.Errorf("fetched at %s, %.1f seconds ago, want a time since %s", k.FetchedAt, k.AgeSeconds, start)
	}
	// The defaults are 1h, give or take a tenth, and 10s.
	if in := k.NextFetch.Sub(k.FetchedAt); in < 54*time.Minute || in > 67*time.Minute {
		t.Errorf("the next fetch is %s after the last, want an hour or so", in)
	}
	if in := k.UnknownKeyFetchFrom.Sub(k.FetchedAt); in != 10*time.Second {
		t.Errorf("an unknown kid may cause one %s after the last, want 10s", in)
	}
	if f := x.awaitFile(t, "denylist.file", 1); f.Path != path || !hash.MatchString(f.Revision) || f.Loads != 1 || f.Failures != 0 || f.LoadedAt.Before(start) {
		t.Errorf("the denylist is %+v, want it loaded once from %s", f, path)
	}
	if c := s.TokenCache; c == nil || c.Verified != 1 || c.Refused != 1 || c.Hits != 2 || c.Misses != 2 || c.Bytes < 1000 {
		t.Errorf("the cache is %+v, want 1 verified token, a refused one, 2 hits, and 2 misses", c)
	}
}

// Nothing of a token, nor of what the key server says, is on the page, and only the operator of the machine sees it.
func TestStatusTellsNoSecretAndNobodyElse(t *testing.T) {
	t.Parallel()
	const canary = "canary7secret"
	p := newPool(t)
	x, g := newTokens(t, p, "jwks: {minInterval: 100ms, timeout: 500ms}")
	for name, fault := range map[string]cognitotest.Fault{
		"a body":        {Status: 500, Body: []byte(canary), Header: http.Header{"X-Secret": {canary}}},
		"no key set":    {Body: []byte(`{"` + canary + `":"` + canary + `"}`)},
		"no usable key": {Body: []byte(`{"keys":[{"kty":"oct","kid":"a","k":"` + canary + `"}]}`)},
		"a redirect":    {Redirect: "https://user:" + canary + "@elsewhere.example/?key=" + canary},
	} {
		p.Fail(cognitotest.JWKS, fault)
		key := p.ForgedKey()
		key.ID = "a key of which nobody knows " + name
		token := p.Token(batchID, cognitotest.SignedBy(key), cognitotest.Claim("custom:x", canary))
		before := x.status(t).Pools["main"].Failures
		eventually(t, func() error {
			if err := differ(failed("keys_unavailable"), g.order(t, token)); err != nil {
				return err
			}
			if s := x.status(t).Pools["main"]; s.Failures <= before || s.LastError == "" {
				return fmt.Errorf("%s: %+v, want a failed fetch and its error", name, s)
			}
			return nil
		})
		_, _, body := fetch(t, "http://"+x.admin+"/status")
		for where, text := range map[string]string{"/status": body, "the log": x.Stderr()} {
			for _, secret := range []string{canary, "eyJ", "e2e_only_secret"} {
				if i := strings.Index(text, secret); i >= 0 {
					t.Errorf("%s: %s has %q: …%s…", name, where, secret, text[max(0, i-200):min(len(text), i+50)])
				}
			}
		}
	}
	if status, _, _ := fetch(t, "http://"+x.Metrics+"/status"); status != 404 {
		t.Errorf("on the metrics listener: %d, want 404", status)
	}
	url := "http://" + x.admin + "/status"
	if status, _, _ := fetch(t, url, func(r *http.Request) { r.Host = "evil.example" }); status != 403 {
		t.Errorf("for evil.example: %d, want 403", status)
	}
	if status, _, _ := fetch(t, url, func(r *http.Request) { r.Method = http.MethodPost }); status != 405 {
		t.Errorf("POST: %d, want 405", status)
	}
	if a := g.get(t, "/status"); a.status == 200 {
		t.Errorf("through Envoy: %d, want no page", a.status)
	}
}
