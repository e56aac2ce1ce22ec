package main

import (
	"runtime"
	"testing"
)

func TestCollectorPercent(t *testing.T) {
	const mib = 1 << 20
	for live, want := range map[uint64]int{
		0: 400, 20 * mib: 400, 64 * mib: 400, 65 * mib: 375, 128 * mib: 200, 200 * mib: 125, 256 * mib: 100, 10_000 * mib: 100,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d MiB alive: %d percent, want %d", live/mib, got, want)
		}
	}
}

func TestLiveHeap(t *testing.T) {
	runtime.GC()
	before := liveHeap()
	ballast := make([]byte, 8<<20)
	runtime.GC()
	if grown := liveHeap() - before; grown < 7<<20 || grown > 9<<20 {
		t.Errorf("8 MiB more are alive and %d bytes are found", grown)
	}
	runtime.KeepAlive(ballast)
}
