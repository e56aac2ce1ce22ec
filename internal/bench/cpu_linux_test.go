package main

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// The clock counts what getrusage(2) counts.
func TestCPU(t *testing.T) {
	used := func() time.Duration {
		t.Helper()
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	clock := func() time.Duration {
		t.Helper()
		d, err := cpu(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	least, before := used(), clock()
	for clock()-before < 20*time.Millisecond {
		continue // clock costs CPU, which is what this is about
	}
	after, most := clock(), used()
	// getrusage rounds each of its two figures down to microseconds.
	if before < least || after > most+2*time.Microsecond {
		t.Errorf("the clock went from %s to %s, getrusage from %s to %s", before, after, least, most)
	}
	if _, err := cpu(1 << 22); err == nil {
		t.Error("a process that cannot be has a clock")
	}
	if bytes, err := rss(os.Getpid()); err != nil || bytes < 1<<20 {
		t.Errorf("resident memory is %d, error %v", bytes, err)
	}
}
