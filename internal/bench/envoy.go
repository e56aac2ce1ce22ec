package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// httpConns is the number of connections of the load through Envoy, each with one request at a time.
const httpConns = 16

// clientHeaders are what the measured requests carry besides their token: those of an ordinary service or browser.
const clientHeaders = "Host: api.example.com\r\n" +
	"User-Agent: orders-batch/1.4 (linux; amd64)\r\n" +
	"Accept: application/json\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: en-GB,en;q=0.8\r\n" +
	"Cache-Control: no-cache\r\n" +
	"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
	"X-Tenant: north\r\n"

// An envoyVariant is one way to protect a service with Envoy.
type envoyVariant struct {
	name   string
	server string // that ext_authz asks; empty: none
	checks bool   // refuses bad tokens
	edits  func(jwks []byte) []lab.Edit
}

func envoyVariants() []envoyVariant {
	none := func([]byte) []lab.Edit {
		return []lab.Edit{lab.Remove(lab.ExtAuthzPath[:strings.LastIndex(lab.ExtAuthzPath, "/")])}
	}
	asked := func([]byte) []lab.Edit { return nil }
	return []envoyVariant{
		{name: "no auth", edits: none},
		{name: "jwt_authn + rbac", checks: true, edits: func(jwks []byte) []lab.Edit { return jwtAuthn(jwks, 0) }},
		{name: "jwt_authn with its cache + rbac", checks: true, edits: func(jwks []byte) []lab.Edit { return jwtAuthn(jwks, 1000) }},
		{name: "ext_authz, no-op", server: noop, edits: asked},
		{name: "ext_authz, extauthz", server: extauthz, checks: true, edits: asked},
	}
}

type object = map[string]any

const filterTypes = "type.googleapis.com/envoy.extensions.filters.http."

// jwtAuthn makes Envoy do the job by itself: token, app client, scope, method and path.
func jwtAuthn(jwks []byte, cache int) []lab.Edit {
	provider := object{"issuer": issuer, "local_jwks": object{"inline_string": string(jwks)}, "payload_in_metadata": "jwt", "forward": true}
	if cache > 0 {
		provider["jwt_cache_config"] = object{"jwt_cache_size": cache}
	}
	jwt := object{
		"@type":     filterTypes + "jwt_authn.v3.JwtAuthentication",
		"providers": object{"cognito": provider},
		"rules":     []any{object{"match": object{"prefix": "/"}, "requires": object{"provider_name": "cognito"}}},
	}
	claim := func(name string, match object) object {
		return object{"sourced_metadata": object{"metadata_matcher": object{
			"filter": "envoy.filters.http.jwt_authn",
			"path":   []any{object{"key": "jwt"}, object{"key": name}},
			"value":  object{"string_match": match},
		}}}
	}
	policy := func(method string, path object, scope string) object {
		return object{
			"permissions": []any{object{"and_rules": object{"rules": []any{
				object{"header": object{"name": ":method", "string_match": object{"exact": method}}},
				object{"url_path": object{"path": path}},
			}}}},
			"principals": []any{object{"and_ids": object{"ids": []any{
				object{"or_ids": object{"ids": []any{
					claim("client_id", object{"exact": cognitotest.DemoClientID}),
					claim("client_id", object{"exact": cognitotest.DemoReaderID}),
				}}},
				claim("scope", object{"contains": scope}),
				claim("token_use", object{"exact": "access"}),
			}}}},
		}
	}
	rbac := object{"@type": filterTypes + "rbac.v3.RBAC", "rules": object{"action": "ALLOW", "policies": object{
		"read":  policy("GET", object{"prefix": "/orders/"}, "orders/read"),
		"write": policy("POST", object{"exact": "/orders"}, "orders/write"),
	}}}
	return []lab.Edit{lab.Set(lab.HCMPath+"/http_filters", []any{
		object{"name": "envoy.filters.http.jwt_authn", "typed_config": jwt},
		object{"name": "envoy.filters.http.rbac", "typed_config": rbac},
		object{"name": "envoy.filters.http.router", "typed_config": object{"@type": filterTypes + "router.v3.Router", "suppress_envoy_headers": true}},
	})}
}

// throughEnvoy are the jobs that go through Envoy.
func (r *runner) throughEnvoy(warm scenario) []job {
	var jobs []job
	for _, v := range envoyVariants() {
		jobs = append(jobs, job{"Envoy, " + v.name, func(ctx context.Context) (cell, error) { return r.envoy(ctx, v, warm) }})
	}
	return jobs
}

func (r *runner) envoy(ctx context.Context, v envoyVariant, warm scenario) (cell, error) {
	result := cell{Group: groupEnvoy, Server: v.name, Scenario: "warm"}
	var behind *server
	port := 0
	if v.server != "" {
		var err error
		if behind, err = r.programs.start(ctx, v.server, setup{}); err != nil {
			return result, err
		}
		defer behind.stop()
		port = behind.port
	}
	dir, err := os.MkdirTemp(r.programs.dir, "envoy-")
	if err != nil {
		return result, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	e, err := startEnvoy(ctx, dir, port, v.edits(r.programs.mint.jwkSet))
	if err != nil {
		return result, err
	}
	defer e.Kill()

	requests := httpRequests(warm.messages)
	if err := verify(ctx, e.Address, v, warm.messages[0].token); err != nil {
		return result, err
	}
	if _, _, err := httpLoad(ctx, e.Address, requests, r.settle()); err != nil {
		return result, err
	}
	pids := []int{e.PID()}
	if behind != nil {
		pids = append(pids, behind.pid)
	}
	before, err := cpus(pids)
	if err != nil {
		return result, err
	}
	answered, took, err := httpLoad(ctx, e.Address, requests, r.window)
	if err != nil {
		return result, err
	}
	after, err := cpus(pids)
	if err != nil {
		return result, err
	}
	result.Answered, result.Seconds = answered, took.Seconds()
	result.EnvoyCPU = micros(after[0]-before[0]) / float64(answered)
	if behind != nil {
		result.CPU = micros(after[1]-before[1]) / float64(answered)
	}
	return result, nil
}

// startEnvoy runs Envoy with the shipped configuration, but for what would only measure the machine: Envoy answers in the
// upstream's place, and writes no access log. The health check is left out, as the no-op server does not answer it, and a check
// may take as long as a busy machine makes it.
func startEnvoy(ctx context.Context, dir string, behind int, edits []lab.Edit) (*lab.Envoy, error) {
	ports, err := lab.FreePorts(2)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return lab.StartEnvoy(ctx, lab.EnvoyConfig{
		Dir:   dir,
		Ports: lab.EnvoyPorts{Listener: ports[0], Admin: ports[1], Extauthz: behind},
		Edits: append([]lab.Edit{
			lab.Remove(lab.HCMPath + "/access_log"),
			lab.Set(lab.ExtAuthzPath+"/grpc_service/timeout", checkTimeout.String()),
			lab.Set(lab.ExtAuthzPath+"/grpc_service/retry_policy/retry_back_off/max_interval", checkTimeout.String()),
			lab.Remove(lab.ClustersPath + "/extauthz/health_checks"),
			lab.Set(lab.HCMPath+"/route_config/virtual_hosts/upstream/routes/0", object{
				"match": object{"prefix": "/"}, "direct_response": object{"status": 200, "body": object{"inline_string": "ok"}},
			}),
		}, edits...),
	})
}

func cpus(pids []int) ([]time.Duration, error) {
	all := make([]time.Duration, len(pids))
	for i, pid := range pids {
		var err error
		if all[i], err = cpu(pid); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func httpRequest(target, token string) []byte {
	return []byte(target + " HTTP/1.1\r\n" + clientHeaders + "Authorization: Bearer " + token + "\r\n\r\n")
}

func httpRequests(messages []message) [][]byte {
	all := make([][]byte, len(messages))
	for i, m := range messages {
		all[i] = httpRequest("GET /orders/42", m.token)
	}
	return all
}

// verify holds that a variant does the job that it is measured for.
func verify(ctx context.Context, address string, v envoyVariant, token string) error {
	want := func(status int) int {
		if v.checks {
			return status
		}
		return http.StatusOK
	}
	for _, c := range []struct {
		target, token string
		want          int
	}{
		{"GET /orders/42", token, http.StatusOK},
		{"GET /orders/42", forged(token, 1), want(http.StatusUnauthorized)},
		{"GET /elsewhere", token, want(http.StatusForbidden)},
		{"PUT /orders/42", token, want(http.StatusForbidden)},
	} {
		conn, err := dialHTTP(ctx, address)
		if err != nil {
			return err
		}
		status, err := conn.do(httpRequest(c.target, c.token))
		_ = conn.Close()
		if err != nil {
			return err
		}
		if status != c.want {
			return fmt.Errorf("%s is answered with %d, want %d", c.target, status, c.want)
		}
	}
	return nil
}

// httpLoad sends requests over all connections for as long as window says. Every answer must be 200.
func httpLoad(ctx context.Context, address string, requests [][]byte, window time.Duration) (int64, time.Duration, error) {
	var list []*httpConn
	defer func() {
		for _, c := range list {
			_ = c.Close()
		}
	}()
	for range httpConns {
		c, err := dialHTTP(ctx, address)
		if err != nil {
			return 0, 0, err
		}
		list = append(list, c)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var answered atomic.Int64
	var workers sync.WaitGroup
	began := time.Now()
	for w, c := range list {
		workers.Go(func() {
			for i := w; time.Since(began) < window && ctx.Err() == nil; i++ {
				status, err := c.do(requests[i%len(requests)])
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("the answer is %d, want 200", status)
				}
				if err != nil {
					cancel(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	workers.Wait()
	return answered.Load(), time.Since(began), context.Cause(ctx)
}

// An httpConn is a connection of HTTP/1.1. It reads of answers what it must to find their ends, and so costs less than
// net/http would.
type httpConn struct {
	net.Conn
	in *bufio.Reader
}

func dialHTTP(ctx context.Context, address string) (*httpConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &httpConn{Conn: conn, in: bufio.NewReader(conn)}, nil
}

var errNoLength = errors.New("the answer has no content-length, want one")

// do sends a request and returns the answer's status.
func (c *httpConn) do(request []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(checkTimeout)); err != nil {
		return 0, err
	}
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("the answer begins with %q, want a status line", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, err
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(textproto.TrimString(string(value))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errNoLength
	}
	_, err = io.CopyN(io.Discard, c.in, int64(length))
	return status, err
}
