package interop

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A table explains all differences.
type table struct {
	TheyAccept  []row `yaml:"theyAccept"`
	WeAccept    []row `yaml:"weAccept"`
	OtherValues []row `yaml:"otherValues"`
}

// A row has one reason for many cases.
type row struct {
	What   string              `yaml:"what"`   // the thing about the token, as the end of "a token …"
	Why    string              `yaml:"why"`    // why our answer is right
	Source string              `yaml:"source"` // RFC and section, or page of AWS
	Cases  map[string][]string `yaml:"cases"`  // by peers, patterns of path.Match; every case that one matches has to differ
}

func readTable(t *testing.T) table {
	t.Helper()
	text, err := os.ReadFile("disagreements.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var tab table
	if err := dec.Decode(&tab); err != nil {
		t.Fatal(err)
	}
	return tab
}

func (tab table) rows() map[kind][]row {
	return map[kind][]row{theyAccept: tab.TheyAccept, weAccept: tab.WeAccept, otherValues: tab.OtherValues}
}

// An entry is one pattern of a row, for one peer.
type entry struct {
	kind    kind
	row     row
	peer    string
	pattern string
}

func (tab table) entries() (all []entry) {
	for k, rows := range tab.rows() {
		for _, r := range rows {
			for names, patterns := range r.Cases {
				for name := range strings.SplitSeq(names, ", ") {
					for _, pattern := range patterns {
						all = append(all, entry{k, r, name, pattern})
					}
				}
			}
		}
	}
	return all
}

// explained returns the differences that the table expects, with what it says of each, and what is wrong with the table.
func (tab table) explained(cases []testCase) (by map[difference]string, problems []string) {
	by = make(map[difference]string)
	for _, e := range tab.entries() {
		names := matching(e.pattern, cases)
		if len(names) == 0 {
			problems = append(problems, fmt.Sprintf("%s, %s: the table has %q, which no case matches", e.row.What, e.peer, e.pattern))
		}
		for _, name := range names {
			d := difference{Case: name, Peer: e.peer, Kind: e.kind}
			if other := by[d]; other != "" && other != e.row.What {
				problems = append(problems, fmt.Sprintf("%s: %s is explained by %q and by %q, want one row", name, e.peer, other, e.row.What))
			}
			by[d] = e.row.What
		}
	}
	return by, problems
}

// unexplained compares differences with the table, in both directions.
func unexplained(tab table, found []difference, cases []testCase) (problems []string) {
	explained, problems := tab.explained(cases)
	open := make(map[difference]bool)
	for _, d := range found {
		open[key(d)] = true
		if explained[key(d)] == "" {
			problems = append(problems, fmt.Sprintf("%s: %s differs and the table does not say why (%s)\n\tours: %s\n\ttheirs: %s", d.Case, d.Peer, d.Kind, d.Ours, d.Theirs))
		}
	}
	for d, what := range explained {
		if !open[d] {
			problems = append(problems, fmt.Sprintf("%s: %s differs no longer as %q says (%s), want it out of the table", d.Case, d.Peer, what, d.Kind))
		}
	}
	slices.Sort(problems)
	return problems
}

func key(d difference) difference { return difference{Case: d.Case, Peer: d.Peer, Kind: d.Kind} }

func matching(pattern string, cases []testCase) (names []string) {
	for _, c := range cases {
		if ok, _ := path.Match(pattern, c.Name); ok {
			names = append(names, c.Name)
		}
	}
	return names
}
