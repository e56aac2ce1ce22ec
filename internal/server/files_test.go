package server

import (
	"math"
	"testing"
)

func TestConnections(t *testing.T) {
	for name, tt := range map[string]struct {
		memory int64
		files  uint64
		want   int
	}{
		"a large machine":            {math.MaxInt64, math.MaxUint64, 10_000},
		"the deployment of deploy":   {230 << 20, 1 << 20, 1635},
		"the files of a login shell": {math.MaxInt64, 1024, 768},
		"next to nothing":            {1, 1, 1},
	} {
		if got := connections(tt.memory, tt.files); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
	if n := maxFiles(); n < 64 {
		t.Errorf("%d files may be open, want some", n)
	}
}
