package lab

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const document = `# kept
admin:
    port: 1 # also kept
filters:
    - name: a.b.c
      on: false
    - name: d
`

func TestEditYAML(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit Edit
		old  string // replaced in document ...
		new  string // ... by this
	}{
		{"sets a scalar", Set("admin/port", 2), "1 # also kept", "2"},
		{"sets below an element found by name", Set("filters/a.b.c/on", true), "false", "true"},
		{"sets below an element found by index", Set("filters/0/on", true), "false", "true"},
		{"sets a mapping", Set("filters/1", map[string]int{"x": 1}), "name: d", "x: 1"},
		{"adds a key", Add("filters/d/on", "yes please"), "name: d", "name: d\n      on: yes please"},
		{"adds an element", Add("filters/+", map[string]string{"name": "e"}), "name: d", "name: d\n    - name: e"},
		{"removes a key", Remove("filters/0/on"), "\n      on: false", ""},
		{"removes an element", Remove("filters/d"), "\n    - name: d", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := editYAML([]byte(document), []Edit{tt.edit})
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Replace(document, tt.old, tt.new, 1)
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestEditYAMLRefusesWhatWouldChangeNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit Edit
		want string
	}{
		{"set of a key that is not there", Set("admin/prot", 2), `path admin/prot: found no "prot" on line 3`},
		{"set below what is not there", Set("amin/port", 2), `path amin/port: found no "amin" on line 2`},
		{"set of an element that is not there", Set("filters/2", 2), `path filters/2: found no "2" on line 5`},
		{"set below a scalar", Set("admin/port/x", 2), `path admin/port/x: found no "x" on line 3`},
		{"add of what is there", Add("admin/port", 2), `path admin/port: "port" is there already, want none`},
		{"add to a scalar", Add("admin/port/x", 2), `path admin/port/x: found neither a mapping nor, for "+", a sequence`},
		{"removal of what is not there", Remove("filters/x"), `path filters/x: found no "x" on line 5`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := editYAML([]byte(document), []Edit{tt.edit})
			if err == nil {
				t.Fatalf("got\n%s\nwant an error", got)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
