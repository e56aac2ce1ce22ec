package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

const nothingRevoked = "revocations: []\n"

var revokedOutcome = refused("revoked", "The access token has been revoked.")

// A volume is a folder as Kubernetes mounts a ConfigMap: denylist.yaml links to ..data/denylist.yaml, and ..data to a folder
// of its own for each revision.
type volume struct {
	dir       string
	revisions int
}

// put swaps ..data, in one step, for a link to a folder with the new text, and removes the old folder.
func (v *volume) put(t *testing.T, path, text string) {
	t.Helper()
	v.revisions++
	revision := fmt.Sprintf("..2026_11_21_%d", v.revisions)
	data, next := filepath.Join(v.dir, "..data"), filepath.Join(v.dir, "..data_tmp")
	if err := os.Mkdir(filepath.Join(v.dir, revision), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(v.dir, revision, filepath.Base(path)), text)
	old, _ := os.Readlink(data) // none the first time
	if err := errors.Join(os.Symlink(revision, next), os.Rename(next, data)); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(v.dir, old)); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.Symlink(filepath.Join("..data", filepath.Base(path)), path); err != nil {
		t.Fatal(err)
	}
}

// newDenylist starts extauthz with a denylist that revokes nothing yet.
func newDenylist(t *testing.T, put func(t *testing.T, path, text string), dir string) (p *cognitotest.Pool, x *service, g *gateway, path string) {
	t.Helper()
	path = filepath.Join(dir, "denylist.yaml")
	put(t, path, nothingRevoked)
	p = newPool(t)
	x, g = newTokens(t, p, "jwks: {}", "EXTAUTHZ__DENYLIST__FILE="+path)
	return p, x, g, path
}

// A token that has been let in, and is in the cache, is refused within seconds of its entry in the denylist, in whatever
// way the file is changed, and let in again when the entry is gone.
func TestDenylistRevokesWithinSeconds(t *testing.T) {
	t.Parallel()
	mounted := t.TempDir()
	for name, way := range map[string]struct {
		dir string
		put func(t *testing.T, path, text string)
	}{
		"in place": {t.TempDir(), write}, "by rename": {t.TempDir(), replace}, "by ConfigMap": {mounted, (&volume{dir: mounted}).put},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, x, g, path := newDenylist(t, way.put, way.dir)
			longest := time.Duration(0)
			for _, r := range revocations(p) {
				longest = max(longest, revoke(t, g, r, func(text string) { way.put(t, path, text) }))
			}
			t.Logf("the longest time from a change to its effect was %s", longest.Round(time.Millisecond))
			if most := 3 * time.Second; longest > most {
				t.Errorf("a change took %s, want at most %s", longest, most)
			}
			if got := x.awaitFile(t, "denylist.file", 1); got.Failures != 0 || got.Path != path {
				t.Errorf("/status says %+v, want no failure and the path %s", got, path)
			}
		})
	}
}

// A revocation is an entry of the denylist, with tokens that it revokes and tokens that it spares.
type revocation struct {
	entry   string
	revoked []string
	spared  []string
	fresh   func() string // another token, which the service has not seen, that is revoked; nil if there is none
}

func revocations(p *cognitotest.Pool) []revocation {
	early := cognitotest.IssuedAt(time.Now().Add(-5 * time.Minute))
	batch := func() string { return p.Token(batchID) }
	since := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	reports := p.Token(reportsID)
	return []revocation{
		{"client: orders-batch, note: its secret has leaked", []string{batch(), p.Token(batchID, early)}, []string{reports}, batch},
		{"clientId: " + batchID, []string{batch(), p.Token(batchID, early)}, []string{reports}, batch},
		{"client: orders-batch, pool: main", []string{batch()}, []string{reports}, batch},
		{
			"client: orders-batch, issuedBefore: " + since,
			[]string{p.Token(batchID, early)},
			[]string{batch(), p.Token(reportsID, early)},
			func() string { return p.Token(batchID, early) },
		},
		{"jti: 11111111-2222-4333-8444-555555555555", []string{p.Token(batchID, cognitotest.Claim("jti", "11111111-2222-4333-8444-555555555555"))}, []string{batch(), reports}, nil},
		{
			"sub: 01234567-ann, issuedBefore: " + since,
			[]string{p.Token(batchID, early, cognitotest.Claim("sub", "01234567-ann"))},
			[]string{p.Token(batchID, cognitotest.Claim("sub", "01234567-ann")), batch(), reports},
			nil,
		},
	}
}

// revoke puts an entry into the denylist and takes it out again, with tokens that the service has in its cache. It returns
// the longer of the times that this took to have its effect.
func revoke(t *testing.T, g *gateway, r revocation, put func(text string)) time.Duration {
	t.Helper()
	good := reaches(ordered)
	all := append(append([]string(nil), r.revoked...), r.spared...)
	for _, token := range all {
		g.expect(t, r.entry+": before", token, good)
		g.expect(t, r.entry+": before, from the cache", token, good)
	}
	start := time.Now()
	put("revocations:\n- {" + r.entry + "}\n")
	for _, token := range r.revoked {
		g.await(t, r.entry+": revoked", token, revokedOutcome)
	}
	took := time.Since(start)
	for _, token := range r.revoked {
		g.expect(t, r.entry+": still revoked", token, revokedOutcome)
	}
	for _, token := range r.spared {
		g.expect(t, r.entry+": spared", token, good)
	}
	if r.fresh != nil {
		g.expect(t, r.entry+": revoked, never seen before", r.fresh(), revokedOutcome)
	}
	start = time.Now()
	put(nothingRevoked)
	for _, token := range r.revoked {
		g.await(t, r.entry+": taken out again", token, good)
	}
	took = max(took, time.Since(start))
	for _, token := range all {
		g.expect(t, r.entry+": taken out again", token, good)
	}
	return took
}

// The caller learns that the token is revoked, and the log why. The note is the operator's.
func TestNoteOfARevocationIsForTheLog(t *testing.T) {
	t.Parallel()
	p, x, g, path := newDenylist(t, replace, t.TempDir())
	token := p.Token(batchID)
	replace(t, path, "revocations:\n- {client: orders-batch, note: its secret has leaked}\n")
	g.await(t, "revoked", token, revokedOutcome)
	a := g.get(t, ordered, "Authorization: Bearer "+token)
	checkProblem(t, a)
	checkRecords(t, g, x, a)
	if strings.Contains(a.body, "leaked") || strings.Contains(fmt.Sprint(a.header), "leaked") {
		t.Errorf("the caller got %q, %v, want no note", a.body, a.header)
	}
	line := x.decision(t, a.problem().DecisionID)
	if detail, _ := line["detail"].(string); !strings.Contains(detail, "its secret has leaked") || !strings.Contains(detail, batchID) {
		t.Errorf("the log's detail is %q, want the client and the note", detail)
	}
}

// A denylist that cannot be used keeps the last good one in force, and is said to do so in the log, the metrics and the
// status.
func TestBrokenDenylistKeepsTheLastGoodOne(t *testing.T) {
	t.Parallel()
	p, x, g, path := newDenylist(t, replace, t.TempDir())
	revoked, spared := p.Token(batchID), p.Token(reportsID)
	const entry = "- {client: orders-batch, note: its secret has leaked}\n"
	replace(t, path, "revocations:\n"+entry)
	g.await(t, "revoked", revoked, revokedOutcome)

	loads := x.awaitFile(t, "denylist.file", 1).Loads
	tests := []struct {
		name string
		edit func()
		want string // in the error of /status and of the log
	}{
		{"half written", func() { write(t, path, "revocations:\n- {client: reports}\n- {clie") }, path + ":3:1: "},
		{"a misspelt key", func() { replace(t, path, "revocations:\n- {clinet: reports}\n") }, path + ":2:4: revocations[0].clinet: "},
		{"an unknown client", func() { replace(t, path, "revocations:\n- {client: reports}\n- {client: nobody}\n") }, path + ":3:12: revocations[1].client: "},
		{"an unknown pool", func() { replace(t, path, "revocations:\n- {client: reports, pool: other}\n") }, path + ":2:27: revocations[0].pool: "},
		{"no file", func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		{"an empty file", func() { write(t, path, "") }, path + ":1:1: "},
	}
	for i, tt := range tests {
		tt.edit()
		f := x.awaitFile(t, "denylist.file", 0)
		if !strings.Contains(f.Error, tt.want) {
			t.Errorf("%s: /status says %q, want it to say %q", tt.name, f.Error, tt.want)
		}
		g.expect(t, tt.name, revoked, revokedOutcome)
		g.expect(t, tt.name, p.Token(batchID), revokedOutcome)
		g.expect(t, tt.name, spared, reaches(ordered))
		if n := x.logged("file not loaded, the last good one stays in use", "error", f.Error); n == 0 {
			t.Errorf("%s: found no line with the error %q in the log", tt.name, f.Error)
		}
		if got, want := x.metric(t, `extauthz_file_loads_total{file="denylist.file",result="failed"`), int64(f.Failures); got != want || want < int64(i+1) {
			t.Errorf("%s: %d failed loads by the metrics and %d by /status, want the same and at least %d", tt.name, got, want, i+1)
		}

		// Mended: a note that differs each time, so that it is another content.
		replace(t, path, fmt.Sprintf("revocations:\n- {client: orders-batch, note: mended %d}\n", i))
		eventually(t, func() error {
			if got := x.awaitFile(t, "denylist.file", 1).Loads; got != loads+1 {
				return fmt.Errorf("%s: %d loads after it was mended, want %d", tt.name, got, loads+1)
			}
			return nil
		})
		loads++
		g.expect(t, tt.name+": mended", revoked, revokedOutcome)
	}
	replace(t, path, nothingRevoked)
	g.await(t, "revoked no more", revoked, reaches(ordered))
	if status, _, word := fetch(t, "http://"+x.Metrics+"/readyz"); status != 200 || word != "ok\n" {
		t.Errorf("/readyz is %d %q, want 200 ok", status, word)
	}
}
