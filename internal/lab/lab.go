// Package lab runs a whole deployment on loopback: a real Envoy with the project's own configuration, an upstream that
// echoes what reached it, and the extauthz program. The demo and the end-to-end tests share it; the service never links it.
//
// Most users start four things, in this order:
//
//	ports, err := lab.FreePorts(5)
//	echo, err := lab.StartEcho(lab.Loopback(ports[0]))
//	service, err := lab.StartExtauthz(ctx, lab.ExtauthzConfig{...})
//	envoy, err := lab.StartEnvoy(ctx, lab.EnvoyConfig{...})
//
// Everything listens on 127.0.0.1 and nowhere else. Programs are ended by process id, each by the value that started it.
package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// module is the first line of the project's go.mod, by which Root knows it.
const module = "module github.com/cognito-extauthz/extauthz\n"

// Root returns the project's directory: the nearest one at or above the working directory that holds its go.mod.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("lab: working directory: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(content), module) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("lab: no go.mod of this project in or above %s", start)
		}
	}
}

// Loopback returns "127.0.0.1:port".
func Loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Ports that FreePorts hands out lie below the range that Linux (32768) and macOS (49152) take the local ports of outgoing
// connections from. A port of that range may be free now and be some connection's own end a moment later.
const (
	firstPort = 20000
	lastPort  = 31999
)

// handedOut keeps FreePorts from giving one port to two callers of this process before either listens.
var handedOut = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// FreePorts returns n different TCP ports of 127.0.0.1 on which nobody listens. It never returns a port twice in one
// process. Another process can still take one before the caller does; the caller then sees a failure to listen.
func FreePorts(n int) ([]int, error) {
	handedOut.Lock()
	defer handedOut.Unlock()
	free := make([]int, 0, n)
	for range 100 * (n + 1) {
		if len(free) == n {
			return free, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1) // #nosec G404 -- spreads test ports; nothing secret
		if handedOut.ports[port] || Taken(port) {
			continue
		}
		handedOut.ports[port] = true
		free = append(free, port)
	}
	return nil, fmt.Errorf("lab: found %d free ports between %d and %d, want %d", len(free), firstPort, lastPort, n)
}

// Taken reports whether something listens on the port of 127.0.0.1 already, or may not be listened on.
func Taken(port int) bool {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", Loopback(port))
	if err != nil {
		return true
	}
	_ = l.Close() // nobody has connected; there is nothing to lose
	return false
}

// pollInterval is the pause between two looks at a program that is starting: short beside the tenth of a second that
// Envoy needs, long enough to leave the processor to it.
const pollInterval = 10 * time.Millisecond

// poll calls ready until it returns nil, the process ends or ctx does, and then returns ready's last complaint.
func poll(ctx context.Context, p *Process, ready func(context.Context) error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var complaint error
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // else it complains of ctx and nothing else
			complaint = err
		}
		select {
		case <-p.Done():
			return fmt.Errorf("lab: %s ended before it was ready (%w): %s", p.name, p.exit(), p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("lab: %s not ready: %w: %s", p.name, errors.Join(complaint, context.Cause(ctx)), p.lastWords())
		case <-tick.C:
		}
	}
}
