package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const goodDenylist = `# Who may not call any more.
revocations:
  - {client: orders-batch, issuedBefore: 2026-11-21T10:00:00Z, note: "INC-1234"}
  - {clientId: 3n4b5urk1ft4fl3mg5e62d9ado, pool: partners}
  - {jti: 0d9c2f4e-7a1b-4c3d-8e5f-123456789012}
  - {sub: somebody, issuedBefore: "2026-11-21T10:00:00+01:00"}
`

func TestParseDenylist(t *testing.T) {
	t.Parallel()
	c := parse(t, readFile(t, "testdata/good.yaml"))
	got, err := c.ParseDenylist("denylist.yaml", []byte(goodDenylist))
	if err != nil {
		t.Fatal(err)
	}
	want := []Revocation{
		{ClientID: "7a8b9c0d1e2f3g4h5i6j7k8", IssuedBefore: "2026-11-21T10:00:00Z", Note: "INC-1234"},
		{ClientID: "3n4b5urk1ft4fl3mg5e62d9ado", Pool: "partners"},
		{TokenID: "0d9c2f4e-7a1b-4c3d-8e5f-123456789012"},
		{Subject: "somebody", IssuedBefore: "2026-11-21T10:00:00+01:00"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("- want, + found:\n%s", diff)
	}
	if at := got[3].IssuedBeforeTime(); !at.Equal(time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)) {
		t.Errorf("issuedBefore is %v, want nine o'clock UTC", at)
	}
	if got, err := c.ParseDenylist("denylist.yaml", []byte("revocations: []\n")); err != nil || len(got) != 0 {
		t.Errorf("an empty list: %v and error %v, want nothing revoked", got, err)
	}
}

func TestDenylistMistakes(t *testing.T) {
	t.Parallel()
	c := parse(t, readFile(t, "testdata/good.yaml"))
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", "d.yaml:1:1: found nothing in the file, want at least revocations\n  hint: for a denylist that revokes nothing, write revocations: []"},
		{"only a comment", "# soon\n", "found nothing in the file"},
		{"no list", "revocations:\n", "d.yaml:1:13: revocations: found no value, want a list of revocations"},
		{"a list at the top", "- {jti: a}\n", "found a list, want a section with the key revocations"},
		{"an entry that names nothing", "revocations:\n  - {note: x}\n", "d.yaml:2:5: revocations[0]: found 0 of client, clientId, jti and sub, want exactly one"},
		{"an entry that names two things", "revocations:\n  - {jti: a, sub: b}\n", "revocations[0]: found 2 of client, clientId, jti and sub, want exactly one"},
		{"an empty identifier", "revocations:\n  - {jti: \"\"}\n", "d.yaml:2:11: revocations[0].jti: found empty text, want what is revoked"},
		{"an unknown client", "revocations:\n  - {client: orders-bach}\n", `revocations[0].client: found "orders-bach", want a name defined in clients` + "\n  hint: did you mean orders-batch?"},
		{"an id as a name", "revocations:\n  - {client: 7a8b9c0d1e2f3g4h5i6j7k8}\n", "hint: that is the id of orders-batch; write orders-batch"},
		{"an unknown pool", "revocations:\n  - {jti: a, pool: mian}\n", `revocations[0].pool: found "mian", want a name defined in pools` + "\n  hint: did you mean main?"},
		{"a misspelt key", "revocations:\n  - {jit: a}\n", "revocations[0].jit: unknown key"},
		{"a number", "revocations:\n  - {jti: 12}\n", "revocations[0].jti: found the number 12, want text"},
		{"no time", "revocations:\n  - {sub: a, issuedBefore: soon}\n", `revocations[0].issuedBefore: found "soon", want a date and time of RFC 3339`},
		{"a date alone", "revocations:\n  - {sub: a, issuedBefore: 2026-11-21}\n", `want a date and time of RFC 3339`},
		{"no such day", "revocations:\n  - {sub: a, issuedBefore: 2026-02-30T10:00:00Z}\n", "which is no date"},
		{"an empty time", "revocations:\n  - {sub: a, issuedBefore: \"\"}\n", "to revoke all tokens, delete issuedBefore"},
		{"a time before all tokens", "revocations:\n  - {sub: a, issuedBefore: 0001-01-01T00:00:00Z}\n", "want a time since 1970"},
		{"a time beside a token", "revocations:\n  - {jti: a, issuedBefore: 2026-11-21T10:00:00Z}\n", "found issuedBefore beside jti"},
		{"the same twice", "revocations:\n  - {jti: a}\n  - {jti: a}\n", "a second time, the first is on line 2"},
		{"cut in a word", "revocations:\n  - {jti: a, no", "d.yaml:2:"},
		{"no UTF-8", "revocations:\n  - {jti: \xff}\n", "no UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := c.ParseDenylist("d.yaml", []byte(test.text))
			if err == nil || got != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v and error %v, want none and %q", got, err, test.want)
			}
		})
	}
}

func FuzzDenylist(f *testing.F) {
	c, err := Parse("f.yaml", []byte("clients: {a: {id: b}}\npools: {main: {issuer: https://a.example, clients: [a]}}\nroutes: [{methods: [GET], path: /, anyClient: true}]\n"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("revocations:\n  - {client: a, pool: main, issuedBefore: 2026-11-21T10:00:00Z}\n"))
	f.Add([]byte("revocations:\n  - {jti: \"\"}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := c.ParseDenylist("d.yaml", data)
		if err != nil && list != nil {
			t.Fatalf("%v with error %v", list, err)
		}
		for _, r := range list {
			if (r.ClientID != "") == (r.TokenID != "" || r.Subject != "") || r.Client != "" {
				t.Fatalf("%+v was accepted", r)
			}
		}
	})
}
