package interop

import (
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A difference is a case in which a peer answers otherwise than we do.
type difference struct {
	Case, Peer string
	Kind       kind
	Ours       string // why we refuse it
	Theirs     string // why they do
}

// A kind says who accepts.
type kind string

const (
	theyAccept  kind = "theyAccept"
	weAccept    kind = "weAccept"
	otherValues kind = "otherValues" // both accept, and read another client or other scopes
)

func TestVerifiersAgree(t *testing.T) {
	folder := installed(t)
	all := allCases(t)
	mine := ours(t, all)
	var found []difference
	for _, p := range peers {
		cases := p.cases(all)
		found = append(found, differences(p, cases, mine, p.ask(t, folder, cases))...)
	}
	accepted := 0
	for _, a := range mine {
		if a.Accepted {
			accepted++
		}
	}
	t.Logf("%d cases, of which we accept %d; %d differences", len(all), accepted, len(found))
	if name := os.Getenv("EXTAUTHZ_INTEROP_REPORT"); name != "" {
		report(t, name, found)
	}
	for _, p := range unexplained(readTable(t), found, all) {
		t.Error(p)
	}
}

func differences(p peer, cases []testCase, ours, theirs map[string]answer) (found []difference) {
	for _, c := range cases {
		we, they := ours[c.Name], theirs[c.Name]
		d := difference{Case: c.Name, Peer: p.name, Ours: we.Error, Theirs: they.Error}
		switch {
		case we.Accepted && !they.Accepted:
			d.Kind = weAccept
		case they.Accepted && !we.Accepted:
			d.Kind = theyAccept
		case we.Accepted && (we.ClientID != they.ClientID || !slices.Equal(we.Scopes, they.Scopes)):
			d.Kind = otherValues
			d.Ours = cmp.Diff(we, they)
		default:
			continue
		}
		found = append(found, d)
	}
	return found
}

// report writes all differences, for whoever has to explain new ones.
func report(t *testing.T, name string, found []difference) {
	t.Helper()
	text, err := json.MarshalIndent(found, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever base a case starts from, we accept the token in which nothing was changed.
func TestCorpus(t *testing.T) {
	all := allCases(t)
	for _, b := range []string{"machine", "person", "id"} {
		i := slices.IndexFunc(all, func(tc testCase) bool { return tc.Name == b+"/accepted" })
		if _, err := validate(t, all[i]); err != nil {
			t.Errorf("%s: refused: %v", b, err)
		}
	}
	if len(all) < 500 {
		t.Errorf("the corpus has %d cases, want at least 500", len(all))
	}
}
