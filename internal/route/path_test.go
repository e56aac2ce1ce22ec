package route

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// A pathCase is an entry of testdata/paths.json, which docs/paths.md shows too.
type pathCase struct {
	Path      string `json:"path"`
	Hex       string `json:"hex"` // instead of path, for what JSON cannot hold
	Canonical string `json:"canonical"`
	Refused   string `json:"refused"` // the reason, instead of canonical
	Only      string `json:"only"`    // the rule's keys that the path needs
	Why       string `json:"why"`
}

func (c *pathCase) raw(t testing.TB) string {
	if c.Hex == "" {
		return c.Path
	}
	raw, err := hex.DecodeString(c.Hex)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// readJSON decodes a file of testdata strictly.
func readJSON[T any](t testing.TB, name string) T {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var v T
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func TestParsePath(t *testing.T) {
	t.Parallel()
	for _, c := range readJSON[[]pathCase](t, "paths.json") {
		raw := c.raw(t)
		p, err := ParsePath(raw)
		if c.Refused != "" {
			if got := pathReason(err); got != c.Refused {
				t.Errorf("ParsePath(%q) = %q, %q, want refused: %q", raw, p.Canonical, got, c.Refused)
			}
			if p != (Path{}) {
				t.Errorf("ParsePath(%q) returned %v with its error", raw, p)
			}
			continue
		}
		if err != nil {
			t.Errorf("ParsePath(%q): %v, want %q", raw, err, c.Canonical)
			continue
		}
		wantRaw, _, _ := strings.Cut(raw, "?")
		want := Path{
			Raw: wantRaw, Canonical: c.Canonical,
			EncodedSlash: strings.Contains(c.Only, "encodedSlash"), Parameters: strings.Contains(c.Only, "pathParameters"),
		}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("ParsePath(%q) (-want +got):\n%s", raw, diff)
		}
	}
}

// TestParsePathQuery holds that nothing in a query changes the path, and that nothing in it is looked at.
func TestParsePathQuery(t *testing.T) {
	t.Parallel()
	for _, c := range readJSON[[]pathCase](t, "paths.json") {
		raw := c.raw(t)
		if strings.Contains(raw, "?") {
			continue
		}
		want, wantErr := ParsePath(raw)
		for _, query := range []string{"?", "??", "?a=b", "?/../", "?%", "?%2F\\\x00\xff#;"} {
			got, err := ParsePath(raw + query)
			if got != want || pathReason(err) != pathReason(wantErr) {
				t.Errorf("ParsePath(%q) = %v, %v, want %v, %v as without query", raw+query, got, err, want, wantErr)
			}
		}
	}
}

func TestSegments(t *testing.T) {
	t.Parallel()
	tests := []struct {
		raw  string
		want []string
	}{
		{"/", []string{""}},
		{"/a", []string{"a"}},
		{"/a/", []string{"a", ""}},
		{"/%61/b%20c/caf%C3%A9", []string{"a", "b c", "café"}},
		{"/a%2Fb/c", []string{"a/b", "c"}},
		{"/100%25/%2541", []string{"100%", "%41"}},
	}
	for _, tt := range tests {
		p, err := ParsePath(tt.raw)
		if err != nil {
			t.Errorf("ParsePath(%q): %v", tt.raw, err)
			continue
		}
		if diff := cmp.Diff(tt.want, p.Segments()); diff != "" {
			t.Errorf("ParsePath(%q).Segments() (-want +got):\n%s", tt.raw, diff)
		}
	}
	if got := (Path{}).Segments(); got != nil {
		t.Errorf("segments of the zero Path are %q, want none", got)
	}
}

// TestPathErrorHoldsNoPath: the error goes to logs, the path must not.
func TestPathErrorHoldsNoPath(t *testing.T) {
	t.Parallel()
	for _, c := range readJSON[[]pathCase](t, "paths.json") {
		if c.Refused == "" {
			continue
		}
		_, err := ParsePath("/canary" + c.raw(t))
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the error for %q holds the path: %v", c.raw(t), err)
		}
	}
}

func pathReason(err error) string {
	var e *PathError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Reason
	}
	return "not a *PathError: " + err.Error()
}

// FuzzParsePath compares ParsePath with what it promises, put differently.
func FuzzParsePath(f *testing.F) {
	for _, c := range readJSON[[]pathCase](f, "paths.json") {
		f.Add(c.raw(f))
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := ParsePath(raw)
		if err != nil {
			if p != (Path{}) || pathReason(err) == "" {
				t.Fatalf("%q: %+v with error %v", raw, p, err)
			}
			return
		}
		again, err := ParsePath(p.Canonical)
		if want := (Path{p.Canonical, p.Canonical, p.EncodedSlash, p.Parameters}); err != nil || again != want {
			t.Fatalf("%q is canonically %q, and that is %+v, %v", raw, p.Canonical, again, err)
		}
		if got, want := decodeFully(p.Raw), decodeFully(p.Canonical); got != want {
			t.Fatalf("%q decodes to %q, its canonical form to %q", raw, got, want)
		}
		for _, sent := range []string{p.Raw, strings.ReplaceAll(p.Raw, "!", "")} { // a server may skip what is not UTF-8
			for _, text := range decodings(sent) {
				checkHarmless(t, raw, text)
			}
		}
		if strings.Join(p.Segments(), "/") != lenientDecode(p.Canonical)[1:] {
			t.Fatalf("%q has the segments %q", raw, p.Segments())
		}
	})
}

// checkHarmless holds that a decoded path means one thing only, but for slashes and parameters noted in the Path.
func checkHarmless(t *testing.T, raw, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Fatalf("%q decodes to %q, invalid UTF-8", raw, text)
	}
	if i := strings.IndexFunc(text, func(c rune) bool { return c < ' ' || c == '\\' || c >= 0x7f && c < 0xa0 }); i >= 0 {
		t.Fatalf("%q decodes to %q, with a bad character", raw, text)
	}
	for _, cut := range []string{"", ";", "?", "#", "?#", ";?#"} {
		var kept []string
		for _, s := range strings.Split(text, "/") {
			if i := strings.IndexAny(s, cut); i >= 0 {
				s = s[:i]
			}
			if s != "" { // an encoded slash may stand beside another
				kept = append(kept, s)
			}
		}
		joined := "/" + strings.Join(kept, "/")
		if clean := path.Clean(joined); clean != joined {
			t.Fatalf("%q decodes to %q, which is %q to servers that clean paths", raw, text, clean)
		}
	}
}

// decodings returns a path decoded once, twice and so on, until it does not change.
func decodings(raw string) []string {
	var all []string
	for {
		decoded := lenientDecode(raw)
		all = append(all, decoded)
		if decoded == raw {
			return all
		}
		raw = decoded
	}
}

func decodeFully(raw string) string {
	all := decodings(raw)
	return all[len(all)-1]
}

// lenientDecode is written unlike unescape, on purpose.
func lenientDecode(s string) string {
	parts := strings.Split(s, "%")
	var b strings.Builder
	b.WriteString(parts[0])
	for _, part := range parts[1:] {
		if len(part) >= 2 {
			if c, err := hex.DecodeString(part[:2]); err == nil {
				b.Write(c)
				b.WriteString(part[2:])
				continue
			}
		}
		b.WriteString("%" + part)
	}
	return b.String()
}
