package authz

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHeaderText(t *testing.T) {
	tests := []struct {
		value any
		want  string
	}{
		{nil, ""},
		{"", ""},
		{"orders-batch", "orders-batch"},
		{"a b", "a%20b"},
		{"100%", "100%25"},
		{"a\r\nx-admin: 1", "a%0D%0Ax-admin:%201"},
		{"ü\x00\x7f", "%C3%BC%00%7F"},
		{[]string{"orders/read", "orders/write"}, "orders/read orders/write"},
		{[]string{"a b", "c"}, "a%20b c"},
		{[]string{}, ""},
	}
	for _, test := range tests {
		if got := headerText(test.value); got != test.want {
			t.Errorf("headerText(%q) = %q, want %q", test.value, got, test.want)
		}
	}
}

func TestClaimValue(t *testing.T) {
	tests := []struct{ claim, want any }{
		{"x", "x"},
		{json.Number("1.50"), "1.50"},
		{true, "true"},
		{false, "false"},
		{[]any{"a", json.Number("1")}, []string{"a", "1"}},
		{nil, nil},
		{map[string]any{"a": 1}, nil},
		{[]any{"a", map[string]any{}}, nil},
		{[]any{[]any{"a"}}, nil},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, claimValue(test.claim)); diff != "" {
			t.Errorf("%v: %s", test.claim, diff)
		}
	}
}

func TestForged(t *testing.T) {
	s := newScrubber(Identity{Prefix: "x-auth-"})
	got := s.forged(map[string]string{
		"x-auth-client-id": "", "X-Auth-Scopes": "", "x_auth_client_id": "", "x-auth_pool": "", "x.auth.subject": "",
		"x-auth-no-longer-configured": "", "x~auth!role": "",
		"x-author": "", "x-authorization": "", "my-x-auth-client-id": "", "authorization": "", ":path": "",
	})
	want := []string{
		"X-Auth-Scopes", "x-auth-client-id", "x-auth-no-longer-configured", "x-auth_pool", "x.auth.subject",
		"x_auth_client_id", "x~auth!role",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzHeaderText(f *testing.F) {
	f.Add("a\r\nb")
	f.Fuzz(func(t *testing.T, s string) {
		for _, b := range []byte(headerText(s)) {
			if b < 0x21 || b > 0x7e {
				t.Fatalf("%q holds byte %#x", headerText(s), b)
			}
		}
	})
}
