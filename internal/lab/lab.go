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
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
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

// FreePorts returns n different TCP ports of 127.0.0.1 on which nobody listens. All processes of a user hand out ports in
// turn, so that tests of several packages, which run at once, do not choose the same one before either listens on it.
func FreePorts(n int) ([]int, error) {
	var free []int
	turn := filepath.Join(os.TempDir(), fmt.Sprintf("extauthz-lab-%d.port", os.Getuid()))
	err := lockedfile.Transform(turn, func(last []byte) ([]byte, error) {
		port, _ := strconv.Atoi(string(last)) // 0, if nobody has had one yet
		for range lastPort - firstPort {
			if len(free) == n {
				break
			}
			if port++; port < firstPort || port > lastPort {
				port = firstPort
			}
			if !Taken(port) {
				free = append(free, port)
			}
		}
		return []byte(strconv.Itoa(port)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("lab: ports: %w", err)
	}
	if len(free) < n {
		return nil, fmt.Errorf("lab: found %d free ports between %d and %d, want %d", len(free), firstPort, lastPort, n)
	}
	return free, nil
}

// Taken reports whether something listens on the port of 127.0.0.1. It connects, and does not try to listen: a program
// that is being started at that moment would inherit the listener until it runs, and keep the port after it was closed.
func Taken(port int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", Loopback(port))
	if err != nil {
		return errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) // somebody listens and does not answer
	}
	_ = conn.Close() // nothing was said
	return true
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
		if deadline, ok := ctx.Deadline(); ctx.Err() == nil && (!ok || time.Now().Before(deadline)) {
			complaint = err // else it complains of ctx and nothing else; a dial may do so before ctx does
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
