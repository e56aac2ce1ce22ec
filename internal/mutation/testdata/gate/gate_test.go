package gate

import (
	"testing"
	"time"
)

func TestOpen(t *testing.T) {
	closes := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		age  int
		at   time.Time
		want bool
	}{
		{"ada", 18, closes, true},
		{"ada", 17, closes, false},
		{"ada", 18, closes.Add(1), false},
		{"bob", 18, closes.Add(1), true},
		{"eve", 18, closes, false},
		{"adalovela", 18, closes, false},
		{"", 18, closes, false},
		{"?", 18, closes, false},
	}
	for _, test := range tests {
		if err := Open(test.name, test.age, test.at, closes); (err == nil) != test.want {
			t.Errorf("%v: error is %v, want open: %t", test, err, test.want)
		}
	}
	if !isHigh(high) || isHigh(high-1) {
		t.Error("isHigh tells nothing")
	}
}
