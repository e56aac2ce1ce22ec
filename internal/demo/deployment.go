package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// A deployment is everything that the demo runs.
type deployment struct {
	dir     string
	ports   ports
	cognito *cognitotest.Server
	echo    *lab.Echo
	service *lab.Extauthz
	envoy   *lab.Envoy
}

// start starts all parts, each when those that it needs are up.
func start(ctx context.Context, dir, binary string, p ports) (d *deployment, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d = &deployment{dir: dir, ports: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
			d = nil
		}
	}()
	d.cognito, err = cognitotest.Start(cognitotest.Config{
		Addr:    lab.Loopback(p.cognito),
		Pools:   []cognitotest.PoolConfig{cognitotest.DemoPool()},
		Control: true,
	})
	if err != nil {
		return d, err
	}
	if d.echo, err = lab.StartEcho(lab.Loopback(p.upstream)); err != nil {
		return d, err
	}

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	file := filepath.Join(dir, "extauthz.yaml")
	if err = os.WriteFile(file, []byte(d.configuration()), 0o600); err != nil {
		return d, err
	}
	if d.service, err = lab.StartExtauthz(ctx, lab.ExtauthzConfig{
		Binary: binary, ConfigFile: file, Metrics: lab.Loopback(p.metrics), Dir: dir,
	}); err != nil {
		return d, err
	}
	d.envoy, err = lab.StartEnvoy(ctx, lab.EnvoyConfig{
		Ports:   lab.EnvoyPorts{Listener: p.envoy, Admin: p.envoyAdmin, Extauthz: p.grpc, Upstream: p.upstream},
		Dir:     dir,
		Healthy: []string{"extauthz"},
	})
	return d, err
}

// stopTimeout is how long extauthz and Envoy may take to end by themselves.
const stopTimeout = 10 * time.Second

// stop ends what runs, callers before those they call.
func (d *deployment) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var problems []error
	if d.envoy != nil {
		problems = append(problems, d.envoy.Stop(ctx))
	}
	if d.service != nil {
		problems = append(problems, d.service.Stop(ctx))
	}
	if d.echo != nil {
		problems = append(problems, d.echo.Close())
	}
	if d.cognito != nil {
		d.cognito.Close()
	}
	return errors.Join(problems...)
}

// stay waits for an interrupt, and for a program that ends before it.
func (d *deployment) stay(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.envoy.Done():
		return fmt.Errorf("envoy has ended by itself; its last words are in %s", d.dir)
	case <-d.service.Done():
		return fmt.Errorf("extauthz has ended by itself; its last words are in %s", d.dir)
	}
}

func (d *deployment) pool() *cognitotest.Pool { return d.cognito.Pools()[0] }

// configuration is what a user's own would look like, but for the issuer: a real pool has region and userPoolId.
func (d *deployment) configuration() string {
	return strings.NewReplacer(
		"GRPC", lab.Loopback(d.ports.grpc),
		"METRICS", lab.Loopback(d.ports.metrics),
		"ADMIN", lab.Loopback(d.ports.admin),
		"ISSUER", d.pool().Issuer(),
		"ORDERS_BATCH", cognitotest.DemoClientID,
		"REPORTS", cognitotest.DemoReaderID,
	).Replace(`# What extauthz runs with in the demo. docs/config.md explains every key.
listen: {grpc: "GRPC", metrics: "METRICS", admin: "ADMIN"}

clients:
  orders-batch: {id: ORDERS_BATCH}
  reports: {id: REPORTS}

pools:
  demo:
    issuer: ISSUER # the stand-in; for a pool of Cognito: region and userPoolId
    clients: [orders-batch, reports]

routes:
- {path: "/orders/{id}", methods: [GET], scopes: {any: [orders/read, orders/admin]}}
- {path: /orders, methods: [POST], scopes: {all: [orders/write]}}
- {path: /healthz, methods: [GET], public: true}

decisionLog: {allowed: all}
shutdown: {delay: 0s}
`)
}

// describe says what runs where.
func (d *deployment) describe(out io.Writer, dir string) {
	rows := table{
		{"user pool", d.pool().Issuer() + " (a stand-in for Amazon Cognito)"},
		{"extauthz", lab.Loopback(d.ports.grpc) + " (" + dir + "/extauthz.yaml)"},
		{"envoy", d.envoy.URL() + " (deploy/envoy/envoy.yaml)"},
		{"upstream", "http://" + d.echo.Address + " (echoes what reaches it)"},
	}
	rows.print(out)
	fmt.Fprintln(out)
}

// authorizationFile holds a header line with a good token, for curl's -H @file, which keeps it out of the process list.
const authorizationFile = "authorization"

func (d *deployment) writeAuthorization() error {
	line := "Authorization: Bearer " + d.pool().Token(cognitotest.DemoReaderID) + "\n"
	return os.WriteFile(filepath.Join(d.dir, authorizationFile), []byte(line), 0o600)
}

// A suggestion is a command to copy, with what it shows.
type suggestion struct {
	shows, command string
}

// suggestions are shell commands for the directory in which dir is.
func (d *deployment) suggestions(dir string) []suggestion {
	fresh := fmt.Sprintf(`curl -s -u %s:%s -d grant_type=client_credentials %s`,
		cognitotest.DemoReaderID, cognitotest.DemoReaderSecret, d.cognito.URL+"/oauth2/token")
	file := dir + "/" + authorizationFile
	return []suggestion{
		{"a request with a token", fmt.Sprintf(`curl -i -H @%s %s/orders/42`, file, d.envoy.URL())},
		{"one that lacks a scope", fmt.Sprintf(`curl -i -H @%s -X POST %s/orders`, file, d.envoy.URL())},
		{"a token as Cognito issues it", fresh},
		{"the same, for the file", fresh + ` | sed -E 's/.*"access_token":"([^"]+)".*/Authorization: Bearer \1/' > ` + file},
		{"an expired one, for the file", fmt.Sprintf(`curl -s -d client=%s -d ttl=-5m %s/_control/token`, cognitotest.DemoReaderID, d.cognito.URL) +
			` | sed -E 's/.*"token":"([^"]+)".*/Authorization: Bearer \1/' > ` + file},
		{"a new signing key", fmt.Sprintf(`curl -s -X POST %s/_control/rotate`, d.cognito.URL)},
		{"decisions, as extauthz logs them", fmt.Sprintf(`tail -n 3 %s/extauthz.err`, dir)},
		{"requests, as Envoy logs them", fmt.Sprintf(`tail -n 3 %s/envoy.out`, dir)},
		{"decisions, counted", fmt.Sprintf(`curl -s http://%s/metrics | grep ^extauthz_checks`, lab.Loopback(d.ports.metrics))},
	}
}

func (d *deployment) suggest(out io.Writer, dir string) {
	fmt.Fprint(out, "\nLeft running until Ctrl-C. To try, from this directory:\n")
	for _, s := range d.suggestions(dir) {
		fmt.Fprintf(out, "\n  # %s\n  %s\n", s.shows, s.command)
	}
}
