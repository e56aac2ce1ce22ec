package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// collide makes n names of 16 printable bytes that have one hash in OPA, which is xxHash64 without a seed: the second half
// of each undoes what the first has done.
func collide(n int) []string {
	const (
		p1, p2, p4, p5 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
		target         = 0x1234567890abcdef
		letters        = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	)
	inverse := func(a uint64) uint64 { // modulo 2^64, by Newton
		x := a
		for range 6 {
			x *= 2 - a*x
		}
		return x
	}
	i1, i2 := inverse(p1), inverse(p2)
	t := uint64(target)
	wanted := bits.RotateLeft64((t-p4)*i1, -27)
	var names []string
	for c := uint64(0); len(names) < n; c++ {
		var name [16]byte
		for b, v := 0, c; b < 8; b, v = b+1, v>>6 {
			name[b] = letters[v&63]
		}
		h := uint64(p5) + 16
		h ^= bits.RotateLeft64(binary.LittleEndian.Uint64(name[:8])*p2, 31) * p1
		h = bits.RotateLeft64(h, 27)*p1 + p4
		binary.LittleEndian.PutUint64(name[8:], bits.RotateLeft64((h^wanted)*i1, -31)*i2)
		if printable(name[8:]) {
			names = append(names, string(name[:]))
		}
	}
	return names
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// Names that were made to collide make OPA's objects as slow as lists, where no builtin notices its cancellation.
func TestCollidingNamesAreRefused(t *testing.T) {
	e := newEngine(t, map[string]string{"a.rego": "package extauthz\ndefault decision := false\ndecision if count(object.keys(input.parsed_body)) > 0"})
	names := collide(fewNames + 50)
	if a, b := ast.String(names[0]).Hash(), ast.String(names[1]).Hash(); a != b {
		t.Fatalf("%x and %x, want one hash: OPA has another hash now", a, b)
	}
	for _, test := range []struct {
		name    string
		names   []string
		refused bool
	}{
		{"colliding names", names, true},
		{"a few of them", names[:fewNames], false},
		{"ordinary names", ordinary(50_000), false},
	} {
		body := make(map[string]any)
		for _, name := range test.names {
			body[name] = true
		}
		_, err := e.Decide(t.Context(), &Input{ParsedBody: body})
		var input *InputError
		if errors.As(err, &input) != test.refused || input != nil && input.Field != "parsed_body" {
			t.Errorf("%s: %v, want it refused: %v", test.name, err, test.refused)
		}
	}
}

func ordinary(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("name-", i)
	}
	return names
}
