package authz

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHeaderText(t *testing.T) {
	tests := []struct {
		value value
		want  string
	}{
		{value{}, ""},
		{textValue(""), ""},
		{textValue("orders-batch"), "orders-batch"},
		{textValue("a b"), "a%20b"},
		{textValue("100%"), "100%25"},
		{textValue("a\r\nx-admin: 1"), "a%0D%0Ax-admin:%201"},
		{textValue("ü\x00\x7f"), "%C3%BC%00%7F"},
		{listValue([]string{"orders/read", "orders/write"}), "orders/read orders/write"},
		{listValue([]string{"a b", "c"}), "a%20b c"},
		{listValue([]string{"a b"}), "a%20b"},
		{listValue([]string{}), ""},
		{listValue(nil), ""},
	}
	for _, test := range tests {
		if got := headerText(&test.value); got != test.want {
			t.Errorf("headerText(%+v) = %q, want %q", test.value, got, test.want)
		}
	}
}

func TestClaimValue(t *testing.T) {
	tests := []struct {
		claim any
		want  value
	}{
		{"x", textValue("x")},
		{json.Number("1.50"), textValue("1.50")},
		{true, textValue("true")},
		{false, textValue("false")},
		{[]any{"a", json.Number("1")}, listValue([]string{"a", "1"})},
		{[]any{}, listValue([]string{})},
		{nil, value{}},
		{map[string]any{"a": 1}, value{}},
		{[]any{"a", map[string]any{}}, value{}},
		{[]any{[]any{"a"}}, value{}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, claimValue(test.claim), cmp.AllowUnexported(value{})); diff != "" {
			t.Errorf("%v: %s", test.claim, diff)
		}
	}
}

// headersOf returns headers with these names and values.
func headersOf(values map[string]string) (list headers) {
	for name, value := range values {
		list = append(list, field{name, value})
	}
	return list
}

func TestForged(t *testing.T) {
	s := newScrubber(Identity{Prefix: "x-auth-"})
	got := s.forged(headersOf(map[string]string{
		"x-auth-client-id": "", "X-Auth-Scopes": "", "x_auth_client_id": "", "x-auth_pool": "", "x.auth.subject": "",
		"x-auth-no-longer-configured": "", "x~auth!role": "",
		"x-author": "", "x-authorization": "", "my-x-auth-client-id": "", "authorization": "", ":path": "",
	}), nil)
	slices.Sort(got)
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
		v := textValue(s)
		text := headerText(&v)
		for _, b := range []byte(text) {
			if b < 0x21 || b > 0x7e {
				t.Fatalf("%q holds byte %#x", text, b)
			}
		}
	})
}
