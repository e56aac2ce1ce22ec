package validator

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is read is what encoding/json reads, whatever stands between the tokens and however strings are written.
func TestParseObject(t *testing.T) {
	for _, text := range []string{
		`{}`,
		`{"a":"b"}`,
		"{\n\t\"a\" : \"b\" ,\r\n \"c\":[ 1 ,-2.5e+3, \"x\" , null,true ]\n}  ",
		`{"iss":"https:\/\/cognito-idp.eu-west-1.amazonaws.com\/eu-west-1_a","scope":"orders\/read"}`,
		`{"a":"\\/","b":"\\\/","c":"\/\\","d":"\\\\//","e":"\/\u002f"}`,
		`{"a\/b":1,"\u0061c":2,"":3,"\"":4}`,
		`{"a":",:","b":" ,\" ","c":"{[]}","d":"\\"}`,
		`{"a":"\u00e9é\ud83d\ude00😀\n\t\b\f\r"}`,
		`{"a":{"b":{"c":["d",{"e":"f\/g"}]}},"h":[[],{},[{}]]}`,
	} {
		var want map[string]any
		dec := json.NewDecoder(bytes.NewReader([]byte(text)))
		dec.UseNumber()
		if err := dec.Decode(&want); err != nil {
			t.Fatal(err)
		}
		got, err := parseObject([]byte(text), maxClaims)
		if diff := cmp.Diff(want, map[string]any(got)); err != nil || diff != "" {
			t.Errorf("%s: error %v (-want +got)\n%s", text, err, diff)
		}
	}
}
