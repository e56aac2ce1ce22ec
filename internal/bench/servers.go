package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// The servers that are compared.
const (
	extauthz = "extauthz"
	noop     = "no-op"
	stockOPA = "stock OPA"
)

// startTimeout is how long a program may take to be ready.
const startTimeout = 30 * time.Second

// A server is a program that answers checks, a process of its own.
type server struct {
	address string // of gRPC
	port    int
	admin   string // of extauthz, and so the next two
	metrics string
	dir     string
	pid     int
	stop    func()
}

// programs starts servers. Each has a directory of its own below dir, for its configuration and what it writes.
type programs struct {
	dir     string
	folders map[string]string // where each server's program is
	mint    *mint
	started int
}

// A setup is what differs in how extauthz is run.
type setup struct {
	edit func(config string) string // nil: as it is
	env  []string                   // "NAME=value"
}

func (p *programs) start(ctx context.Context, name string, set setup) (*server, error) {
	p.started++
	dir := filepath.Join(p.dir, fmt.Sprintf("server-%d", p.started))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var s *server
	var err error
	switch name {
	case extauthz:
		s, err = p.startExtauthz(ctx, dir, set)
	case stockOPA:
		s, err = p.startStockOPA(ctx, dir)
	default:
		s, err = p.run(ctx, dir, name)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	stop := s.stop
	s.stop = func() {
		stop()
		_ = os.RemoveAll(dir) // its log of denials is long
	}
	return s, nil
}

// startExtauthz runs the program as it is shipped, with nothing but what must be said in its configuration, and a long policy.timeout.
func (p *programs) startExtauthz(ctx context.Context, dir string, set setup) (*server, error) {
	ports, err := lab.FreePorts(3)
	if err != nil {
		return nil, err
	}
	config := p.config(ports)
	if set.edit != nil {
		config = set.edit(config)
	}
	file := filepath.Join(dir, "extauthz.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	x, err := lab.StartExtauthz(ctx, lab.ExtauthzConfig{
		Binary: p.folders[extauthz], ConfigFile: file, Metrics: lab.Loopback(ports[1]), Env: set.env, Dir: dir,
	})
	if err != nil {
		return nil, err
	}
	return &server{
		address: lab.Loopback(ports[0]), port: ports[0], admin: lab.Loopback(ports[2]), metrics: x.Metrics, dir: dir, pid: x.PID(), stop: x.Kill,
	}, nil
}

// The places of a configuration where the scale curves put more.
const (
	moreClients = "# more clients"
	moreNames   = "# more names"
	morePools   = "# more pools"
	moreRoutes  = "# more routes"
	moreKeys    = "# more keys"
)

func (p *programs) config(ports []int) string {
	return strings.NewReplacer(
		"GRPC", lab.Loopback(ports[0]), "METRICS", lab.Loopback(ports[1]), "ADMIN", lab.Loopback(ports[2]),
		"ISSUER", issuer, "JWKS", p.mint.jwksURL,
		"BATCH", cognitotest.DemoClientID, "REPORTS", cognitotest.DemoReaderID,
	).Replace(`listen: {grpc: "GRPC", metrics: "METRICS", admin: "ADMIN"}
clients:
  orders-batch: {id: BATCH}
  reports: {id: REPORTS}
` + moreClients + `
pools:
  main:
    issuer: ISSUER
    jwksUrl: JWKS
    clients:
    - orders-batch
    - reports
` + moreNames + `
` + morePools + `
routes:
- {path: "/orders/{id}", methods: [GET], scopes: {any: [orders/read, orders/admin]}, pools: [main]}
- {path: /orders, methods: [POST], scopes: {all: [orders/write]}, pools: [main]}
` + moreRoutes + `
` + moreKeys + `
policy: {timeout: 2s} # not 50ms: a busy machine stalls a process for longer, and a failed check would end the run
`)
}

func (p *programs) startStockOPA(ctx context.Context, dir string) (*server, error) {
	data, err := json.Marshal(map[string]any{
		"jwks": string(p.mint.jwkSet), "issuer": issuer,
		"clients": map[string]string{cognitotest.DemoReaderID: "reports", cognitotest.DemoClientID: "orders-batch"},
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "data.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	return p.run(ctx, dir, stockOPA, "-data", file)
}

// run starts one of this project's own baselines.
func (p *programs) run(ctx context.Context, dir, name string, args ...string) (*server, error) {
	ports, err := lab.FreePorts(1)
	if err != nil {
		return nil, err
	}
	s := &server{address: lab.Loopback(ports[0]), port: ports[0]}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the program has its own descriptor
	args = append([]string{"-listen", s.address}, args...)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.folders[name], args...) // #nosec G204 -- built for this
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, attributes()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it ends by Kill, or its log says why it did not start
		close(ended)
	}()
	s.pid = cmd.Process.Pid
	s.stop = func() {
		_ = cmd.Process.Kill() // fails only if it has ended already
		<-ended
	}
	if err := awaitListener(ctx, s.address, ended); err != nil {
		s.stop()
		said, _ := os.ReadFile(log.Name()) // the error says enough without it
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return s, nil
}

func awaitListener(ctx context.Context, address string, ended <-chan struct{}) error {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("it ended before it listened on %s", address)
		case <-ctx.Done():
			return fmt.Errorf("it does not listen on %s: %w", address, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
