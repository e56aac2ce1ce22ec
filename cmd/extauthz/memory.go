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

// limitMemory bounds the heap by the memory that the container may use, unless GOMEMLIMIT does.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		log.Warn("GOMEMLIMIT is not set from the container's memory limit", "error", err)
	}
	log.Debug("memory", "gomemlimit", limit)
}

// followHeap keeps the collector's setting at what suits the heap, until ctx ends, unless GOGC says what it is. It begins when
// everything is loaded: what loading leaves behind, such as a large configuration as text, is given back.
func followHeap(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.FreeOSMemory()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for set := 0; ; {
		if p := collectorPercent(liveHeap()); p != set {
			debug.SetGCPercent(p)
			set = p
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
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
