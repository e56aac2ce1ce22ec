package interop

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the section of docs/compare.md that is made of disagreements.yaml")

const (
	page  = "../../docs/compare.md"
	begin = "<!-- internal/interop/disagreements.yaml begins -->\n"
	end   = "<!-- internal/interop/disagreements.yaml ends -->\n"
)

// The table is whole, whatever the peers are, and docs/compare.md shows it.
func TestTable(t *testing.T) {
	cases, tab := allCases(t), readTable(t)
	explained, problems := tab.explained(cases)
	for _, p := range problems {
		t.Error(p)
	}
	for _, e := range tab.entries() {
		if e.row.What == "" || e.row.Why == "" || e.row.Source == "" {
			t.Errorf("a row is %+v, want what, why and source", e.row)
		}
		if !slices.ContainsFunc(peers, func(p peer) bool { return p.name == e.peer }) {
			t.Errorf("%s: the peer is %q, want one of ours", e.row.What, e.peer)
		}
	}
	want := section(tab, explained, len(cases))
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no section between the two comments, want\n%s%s", page, begin, end)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is behind (run: go test ./internal/interop -run TestTable -update) (-want +got):\n%s", page, diff)
	}
}

func section(tab table, explained map[difference]string, cases int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "`make interop` hands %d tokens to each of these verifiers and to ours. Each token differs in one thing from one that all of\nthem accept. The numbers say for how many of them the answer of that verifier is another than ours.\n", cases)
	for _, part := range []struct {
		kind  kind
		title string
		rows  []row
	}{
		{theyAccept, "Tokens that we refuse and they accept", tab.TheyAccept},
		{weAccept, "Tokens that we accept and they refuse", tab.WeAccept},
		{otherValues, "Tokens in which they read other scopes", tab.OtherValues},
	} {
		fmt.Fprintf(&b, "\n### %s\n\n| a token that …", part.title)
		for _, p := range peers {
			b.WriteString(" | " + p.name)
		}
		b.WriteString(" | why ours is right | source |\n|---" + strings.Repeat("|---:", len(peers)) + "|---|---|\n")
		for _, r := range part.rows {
			b.WriteString("| " + r.What)
			for _, p := range peers {
				b.WriteString(" | " + count(explained, part.kind, p.name, r.What))
			}
			fmt.Fprintf(&b, " | %s | %s |\n", r.Why, r.Source)
		}
	}
	return b.String()
}

func count(explained map[difference]string, k kind, peer, what string) string {
	n := 0
	for d, w := range explained {
		if d.Kind == k && d.Peer == peer && w == what {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
