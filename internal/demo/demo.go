// Command demo shows extauthz at work on one machine: a stand-in for Amazon Cognito, the extauthz program, a real Envoy
// with deploy/envoy/envoy.yaml, and an upstream that echoes what reaches it. It sends a request of each kind through Envoy,
// prints what came of it, and stays until interrupted, with commands to try. `make demo` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// startTimeout bounds the start of each program. All of them together take about a second.
const startTimeout = 30 * time.Second

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	once := flags.Bool("once", false, "end after the requests, and do not stay")
	free := flags.Bool("free-ports", false, "listen on ports that are free now, and not on the usual ones")
	binary := flags.String("extauthz", "bin/extauthz", "the extauthz program, which `make build` brings")
	dir := flags.String("dir", ".demo", "directory for the configuration and the logs")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ports, err := choosePorts(*free)
	if err != nil {
		return err
	}
	paths, err := absolute(*dir, *binary)
	if err != nil {
		return err
	}
	d, err := start(ctx, paths[0], paths[1], ports)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	d.describe(out, *dir)
	unexpected := d.play(ctx, out)
	if err := d.writeAuthorization(); err != nil {
		return err
	}
	if unexpected > 0 {
		return fmt.Errorf("%d answers are not what they should be; the logs are in %s", unexpected, *dir)
	}
	if *once {
		return nil
	}
	d.suggest(out, *dir)
	return d.stay(ctx)
}

// ports are the TCP ports of 127.0.0.1 that the demo listens on.
type ports struct {
	envoy, envoyAdmin, upstream, cognito, grpc, metrics, admin int
}

var usual = ports{envoy: 8080, envoyAdmin: 9901, upstream: 8081, cognito: 9000, grpc: 9191, metrics: 9192, admin: 9193}

// choosePorts returns the usual ports, and an error that names those of them that are taken; or ports that are free.
func choosePorts(free bool) (ports, error) {
	if free {
		p, err := lab.FreePorts(7)
		if err != nil {
			return ports{}, err
		}
		return ports{p[0], p[1], p[2], p[3], p[4], p[5], p[6]}, nil
	}
	var taken []error
	for _, p := range []struct {
		port int
		use  string
	}{
		{usual.envoy, "Envoy"},
		{usual.envoyAdmin, "Envoy's admin interface"},
		{usual.upstream, "the upstream"},
		{usual.cognito, "the stand-in for Cognito"},
		{usual.grpc, "extauthz"},
		{usual.metrics, "extauthz's metrics"},
		{usual.admin, "extauthz's admin interface"},
	} {
		if lab.Taken(p.port) {
			taken = append(taken, fmt.Errorf("port %d, for %s, is in use", p.port, p.use))
		}
	}
	if len(taken) > 0 {
		hint := errors.New("hint: end what listens there, or let the demo choose: make demo DEMO_ARGS=--free-ports")
		return ports{}, errors.Join(append(taken, hint)...)
	}
	return usual, nil
}

func absolute(paths ...string) ([]string, error) {
	for i, path := range paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		paths[i] = abs
	}
	return paths, nil
}
