package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// What the garbage collector may let the heap grow by, in percent of what is alive, and in bytes. What is alive in a small
// service are some 20 MiB, so memory is cheaper there than the CPU that it saves. With large caches it is the other way
// round, down to Go's own default.
const (
	mostPercent  = 400
	leastPercent = 100
	headroom     = 256 << 20
)

// settleEvery is how often the collector's setting follows what is alive.
const settleEvery = 10 * time.Second

// tuneMemory bounds the heap by the memory that the container may use, and sets how hard the collector works below that.
// GOMEMLIMIT and GOGC stay the operator's.
func tuneMemory(log *slog.Logger) {
	limit, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		log.Warn("GOMEMLIMIT is not set from the container's memory limit", "error", err)
	}
	log.Debug("memory", "gomemlimit", limit)
	if tunesCollector() {
		debug.SetGCPercent(mostPercent)
	}
}

func tunesCollector() bool { return os.Getenv("GOGC") == "" }

// followHeap keeps the collector's setting at what suits the heap, until ctx ends.
func followHeap(ctx context.Context) {
	if !tunesCollector() {
		return
	}
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	set := mostPercent
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p := collectorPercent(liveHeap()); p != set {
			debug.SetGCPercent(p)
			set = p
		}
	}
}

// collectorPercent is in steps, as each change stops the world for a moment.
func collectorPercent(live uint64) int {
	const step = 25
	percent := int(min(headroom*100/max(live, 1), mostPercent))
	return max(percent/step*step, leastPercent)
}

// liveHeap returns the bytes that the last collection found alive.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
