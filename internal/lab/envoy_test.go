package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// deployment is Envoy with an echo upstream behind it. Whether there is an ext_authz server is the test's business.
type deployment struct {
	*lab.Envoy
	echo     *lab.Echo
	extauthz string // host and port where Envoy looks for it
	ctx      context.Context
}

// startEnvoy runs the shipped configuration with the edits, and with a stub that answers by check unless that is nil.
func startEnvoy(t *testing.T, check checkFunc, edits ...lab.Edit) (*deployment, *stub) {
	t.Helper()
	binary := lab.NeedEnvoy(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	ports, err := lab.FreePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	cfg := lab.EnvoyConfig{
		Binary: binary,
		Ports:  lab.EnvoyPorts{Listener: ports[0], Admin: ports[1], Extauthz: ports[2], Upstream: ports[3]},
		Edits:  edits,
		Dir:    t.TempDir(),
	}
	d := &deployment{extauthz: lab.Loopback(ports[2]), ctx: ctx}
	if d.echo, err = lab.StartEcho(lab.Loopback(ports[3])); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.echo.Close(); err != nil {
			t.Error(err)
		}
	})
	var s *stub
	if check != nil {
		s, _ = startStub(t, d.extauthz, check)
		cfg.Healthy = []string{"extauthz"}
	}
	if d.Envoy, err = lab.StartEnvoy(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Kill()
		if complaints := d.Stderr(); strings.Contains(complaints, "[critical]") || strings.Contains(complaints, "[error]") {
			t.Errorf("Envoy says:\n%s", complaints)
		}
	})
	return d, s
}

// answer is what the client got; seen is what the upstream did, if the request came that far.
type answer struct {
	status int
	header http.Header
	body   string
	seen   *lab.Echoed
}

// send writes one HTTP/1.1 request byte for byte, since a Go client would tidy it up. Lines are separated by "\n".
func (d *deployment) send(t *testing.T, head ...string) answer {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(d.ctx, "tcp", d.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := d.echo.Requests()
	fmt.Fprint(conn, strings.Join(head, "\r\n")+"\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(body)}
	if d.echo.Requests() > before {
		seen := decodeEcho(t, strings.NewReader(a.body))
		a.seen = &seen
	}
	return a
}

func get(path string, headers ...string) []string {
	return append([]string{"GET " + path + " HTTP/1.1", "Host: api.example.com", "Authorization: Bearer good"}, headers...)
}

func TestEnvoyAllowsWithIdentityAndWithoutTheToken(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, byToken)
	a := d.send(t, get("/orders/1?page=2")...)
	if a.status != http.StatusOK || a.seen == nil {
		t.Fatalf("got %d, want 200 from the upstream", a.status)
	}
	if diff := cmp.Diff([]string{"7a8b9c"}, a.seen.Headers["x-auth-client-id"]); diff != "" {
		t.Errorf("x-auth-client-id: -want +got:\n%s", diff)
	}
	if got, ok := a.seen.Headers["authorization"]; ok {
		t.Errorf("the upstream saw authorization: %q, want none", got)
	}
	if a.seen.Path != "/orders/1?page=2" {
		t.Errorf("the upstream saw path %s, want /orders/1?page=2", a.seen.Path)
	}
	if a.header.Get("X-Request-Id") == "" {
		t.Error("the answer has no x-request-id")
	}
	if got := a.header.Get("X-Envoy-Upstream-Service-Time"); got != "" {
		t.Errorf("x-envoy-upstream-service-time: got %q, want no such detail for a client", got)
	}
}

func TestEnvoyDeniesWithTheServicesAnswer(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, byToken)
	a := d.send(t, "GET /orders HTTP/1.1", "Host: api.example.com")
	if a.status != http.StatusUnauthorized || a.seen != nil {
		t.Errorf("got %d, upstream %+v, want 401 and none", a.status, a.seen)
	}
	if got, want := a.header.Get("Www-Authenticate"), `Bearer realm="extauthz"`; got != want {
		t.Errorf("www-authenticate: got %q, want %q", got, want)
	}
	if got, want := a.header.Get("Content-Type"), "application/problem+json"; got != want {
		t.Errorf("content-type: got %q, want %q", got, want)
	}
	if got, want := a.body, `{"reason":"missing_token"}`; got != want {
		t.Errorf("body: got %q, want %q", got, want)
	}
}

// What the check sees is what the upstream sees, in one spelling, or the answer is 400 and neither sees anything.
func TestEnvoyHasOneSpellingOfPathsAndHosts(t *testing.T) {
	t.Parallel()
	d, s := startEnvoy(t, byToken)
	tests := []struct {
		name, target, host string
		wantPath, wantHost string // empty: 400
	}{
		{"plain", "/orders/1", "api.example.com", "/orders/1", "api.example.com"},
		{"double slash", "//orders///1", "api.example.com", "/orders/1", "api.example.com"},
		{"dot segments", "/public/../orders/./1", "api.example.com", "/orders/1", "api.example.com"},
		{"encoded dot segments", "/public/%2e%2E/orders", "api.example.com", "/orders", "api.example.com"},
		{"parent of the root", "/../orders", "api.example.com", "/orders", "api.example.com"},
		{"dot segment with a parameter", "/public/..;x/orders", "api.example.com", "/orders", "api.example.com"},
		{"encoded dot segment with a parameter, left to extauthz", "/a/%2e%2e;x/b", "api.example.com", "/a/..;x/b", "api.example.com"},
		{"twice encoded dot segment, left to extauthz", "/a/%252e%252e/b", "api.example.com", "/a/%252e%252e/b", "api.example.com"},
		{"encoded letter", "/%6frders", "api.example.com", "/orders", "api.example.com"},
		{"backslash", `/public\..\orders`, "api.example.com", "/orders", "api.example.com"},
		{"port", "/orders", "api.example.com:8443", "/orders", "api.example.com"},
		{"trailing dot", "/orders", "api.example.com.", "/orders", "api.example.com"},
		{"trailing dot and port", "/orders", "api.example.com.:80", "/orders", "api.example.com"},
		{"encoded slash", "/orders%2f1", "api.example.com", "", ""},
		{"encoded backslash", "/orders%5C1", "api.example.com", "", ""},
		{"encoded NUL", "/orders%001", "api.example.com", "", ""},
		{"fragment", "/orders#x", "api.example.com", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(s.checks())
			a := d.send(t, "GET "+tt.target+" HTTP/1.1", "Host: "+tt.host, "Authorization: Bearer good")
			checks := s.checks()[before:]
			if tt.wantPath == "" {
				if a.status != http.StatusBadRequest || a.seen != nil || len(checks) != 0 {
					t.Errorf("got %d, %d checks, upstream %+v, want 400 and neither", a.status, len(checks), a.seen)
				}
				return
			}
			if a.seen == nil || len(checks) != 1 {
				t.Fatalf("got %d, %d checks, want one and then the upstream", a.status, len(checks))
			}
			got := []string{checks[0].GetPath(), checks[0].GetHost(), a.seen.Path, a.seen.Host}
			want := []string{tt.wantPath, tt.wantHost, tt.wantPath, tt.wantHost}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestEnvoyTakesForgedHeadersOut(t *testing.T) {
	t.Parallel()
	d, s := startEnvoy(t, byToken)
	a := d.send(t, get("/orders",
		"X-Auth-Client-Id: forged", "X-Auth-Pool: forged", "x-auth-anything: forged", "X.Auth.Client.Id: forged", "x-auth-: forged",
		"X-Http-Method-Override: DELETE", "X-Http-Method: DELETE", "X-Method-Override: DELETE",
		"X-Original-Url: /admin", "X-Rewrite-Url: /admin",
		"Cookie: session=1", "Proxy-Authorization: Basic eDp5", "X-Tenant: t1")...)
	if a.seen == nil {
		t.Fatalf("got %d, want the upstream's answer", a.status)
	}
	for _, side := range []struct {
		name    string
		headers string
		cookie  bool
	}{
		{"check", fmt.Sprint(s.checks()[0].GetHeaders()), false},
		{"upstream", fmt.Sprint(a.seen.Headers), true},
	} {
		for _, word := range []string{"forged", "DELETE", "/admin"} {
			if strings.Contains(side.headers, word) {
				t.Errorf("the %s saw %s, want no %s", side.name, side.headers, word)
			}
		}
		if !strings.Contains(side.headers, "x-tenant") {
			t.Errorf("the %s saw %s, want x-tenant", side.name, side.headers)
		}
		if got := strings.Contains(side.headers, "cookie"); got != side.cookie {
			t.Errorf("the %s saw %s, want a cookie: %t", side.name, side.headers, side.cookie)
		}
	}
	if a := d.send(t, get("/orders", "X_Auth_Client_Id: forged")...); a.status != http.StatusBadRequest || a.seen != nil {
		t.Errorf("underscores: got %d, upstream %+v, want 400 and none", a.status, a.seen)
	}
}

func TestEnvoyTakesForgedTrailersOut(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, byToken)
	client := h2cClient(t)
	post := func(trailer http.Header) (*http.Response, error) {
		body := io.NopCloser(strings.NewReader("body")) // of unknown length, as a body before trailers is
		req, err := http.NewRequestWithContext(d.ctx, http.MethodPost, d.URL()+"/orders", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer good")
		req.Trailer = trailer
		return client.Do(req)
	}
	resp, err := post(http.Header{"X-Auth-Client-Id": {"forged"}, "X.auth.pool": {"forged"}, "Authorization": {"forged"}, "Checksum": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("got %s, want 200", resp.Status)
	}
	want := map[string][]string{"checksum": {"1"}}
	if diff := cmp.Diff(want, decodeEcho(t, resp.Body).Trailers); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// With an underscore the trailer ends the stream, as such a header would.
	if resp, err := post(http.Header{"X_auth_client_id": {"forged"}}); err == nil {
		defer resp.Body.Close()
		t.Errorf("underscores: got %s with %+v, want the stream to be reset", resp.Status, decodeEcho(t, resp.Body))
	}
}

func TestEnvoyPassesGRPCOn(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, byToken)
	got := callGRPC(t, d.Address, "Bearer good")
	if got.Proto != "HTTP/2.0" || got.Headers["x-auth-client-id"][0] != "7a8b9c" {
		t.Errorf("got %+v, want HTTP/2.0 and the client's id", got)
	}
}

// An ext_authz server that was tricked can set the headers that extauthz owns and nothing else.
func TestEnvoyHoldsAnswersToTheRules(t *testing.T) {
	t.Parallel()
	var answer *authv3.CheckResponse
	d, _ := startEnvoy(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) { return answer, nil })
	tests := []struct {
		name   string
		answer *authv3.CheckResponse
		want   int
	}{
		{"identity headers set", allowed(map[string]string{"x-auth-scopes": "a/b c/d"}, nil), 200},
		{"identity headers removed in all spellings", allowed(nil, []string{"x-auth-pool", "x_auth_pool", "x.auth.pool", "x-auth-"}), 200},
		{"empty value", allowed(map[string]string{"x-auth-scopes": ""}, nil), 200},
		{"authorization set", allowed(map[string]string{"authorization": "Basic eDp5"}, nil), 200},
		{"another header set", allowed(map[string]string{"x-tenant": "t1"}, nil), 500},
		{"header that only begins like an allowed one", allowed(map[string]string{"authorization-x": "t1"}, nil), 500},
		{"header that only ends like an allowed one", allowed(map[string]string{"my-x-auth-pool": "t1"}, nil), 500},
		{"another header removed", allowed(nil, []string{"x-tenant"}), 500},
		{"path set", allowed(map[string]string{":path": "/admin"}, nil), 500},
		{"method set", allowed(map[string]string{":method": "DELETE"}, nil), 500},
		{"host set", allowed(map[string]string{"host": "admin.example.com"}, nil), 500},
		{"envoy's own header set", allowed(map[string]string{"x-envoy-original-path": "/"}, nil), 500},
		{"value with a line break", allowed(map[string]string{"x-auth-scopes": "a\r\nb: c"}, nil), 500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer = tt.answer
			a := d.send(t, get("/orders", "X-Tenant: t0")...)
			if a.status != tt.want || (a.seen != nil) != (tt.want == http.StatusOK) {
				t.Errorf("got %d, upstream %+v, want %d", a.status, a.seen, tt.want)
			}
		})
	}
}

func TestEnvoyFailsClosed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		check checkFunc // nil: nobody listens
	}{
		{"nobody listens", nil},
		{"an internal error", func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.Internal, "broken")
		}},
		{"an answer that is too late", func(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			<-ctx.Done()
			return allowed(nil, nil), nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, _ := startEnvoy(t, tt.check)
			start := time.Now()
			a := d.send(t, get("/orders")...)
			if a.status != http.StatusServiceUnavailable || a.seen != nil {
				t.Errorf("got %d, upstream %+v, want 503 and none", a.status, a.seen)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %s, want about the half second of the timeout", took)
			}
		})
	}
	t.Run("open when told so", func(t *testing.T) { // shows that the edit of e2e tests does what it says
		t.Parallel()
		d, _ := startEnvoy(t, nil, lab.FailOpen()...)
		if a := d.send(t, get("/orders")...); a.seen == nil {
			t.Errorf("got %d, want the upstream's answer", a.status)
		}
	})
}

func TestEnvoyAsksTwice(t *testing.T) {
	t.Parallel()
	calls := 0
	d, s := startEnvoy(t, func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		if calls++; calls == 1 {
			return nil, status.Error(codes.Unavailable, "restarting")
		}
		return allowed(nil, nil), nil
	})
	if a := d.send(t, get("/orders")...); a.seen == nil {
		t.Errorf("got %d, want the upstream's answer", a.status)
	}
	if n := len(s.checks()); n != 2 {
		t.Errorf("%d checks, want 2", n)
	}
}

func TestEnvoyFindsAServiceThatComesBack(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, nil)
	if a := d.send(t, get("/orders")...); a.status != http.StatusServiceUnavailable {
		t.Fatalf("got %d, want 503 as long as nobody listens", a.status)
	}
	startStub(t, d.extauthz, byToken)
	for start := time.Now(); ; {
		if a := d.send(t, get("/orders")...); a.seen != nil {
			t.Logf("found after %s", time.Since(start).Round(10*time.Millisecond))
			return
		}
		if d.ctx.Err() != nil {
			t.Fatal("not found before the test's deadline")
		}
	}
}

func TestEnvoyLogsTheDecision(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, byToken)
	d.send(t, get("/orders/1?secret=canary")...)
	d.send(t, "GET /orders HTTP/1.1", "Host: api.example.com")
	var entries []map[string]any
	for len(entries) < 2 {
		var err error
		if entries, err = d.AccessLog(); err != nil {
			t.Fatal(err)
		}
		if d.ctx.Err() != nil {
			t.Fatalf("got %d lines of the access log, want 2", len(entries))
		}
	}
	pick := func(e map[string]any) map[string]any {
		return map[string]any{
			"path": e["path"], "status": e["status"], "details": e["details"],
			"reason": e["reason"], "client_id": e["client_id"], "decision_id": e["decision_id"],
		}
	}
	want := []map[string]any{
		{
			"path": "/orders/1", "status": 200.0, "details": "via_upstream",
			"reason": "allowed", "client_id": "7a8b9c", "decision_id": "decision-1",
		},
		{
			"path": "/orders", "status": 401.0, "details": "ext_authz_denied",
			"reason": "missing_token", "client_id": nil, "decision_id": "decision-1",
		},
	}
	if diff := cmp.Diff(want, []map[string]any{pick(entries[0]), pick(entries[1])}); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	text, _ := entries[0]["check_us"].(string)
	if took, err := strconv.Atoi(text); err != nil || took <= 0 {
		t.Errorf("check_us: got %v, want the time of the check", entries[0]["check_us"])
	}
	if strings.Contains(d.Stdout(), "canary") {
		t.Errorf("the access log holds a query:\n%s", d.Stdout())
	}
}

// The edits that take Envoy's care away let everything arrive, which is what end-to-end tests of the service need.
func TestEnvoyPlain(t *testing.T) {
	t.Parallel()
	d, s := startEnvoy(t, byToken, append(lab.PlainPaths(), lab.PlainHeaders()...)...)
	for _, target := range []string{"//orders/../%2e%2e/a%2Fb", `/a\b;x=1`, "/%00"} {
		if a := d.send(t, get(target, "X-Auth-Client-Id: forged", "X_auth_client_id: forged")...); a.seen == nil || a.seen.Path != target {
			t.Errorf("%s: got %d, upstream %+v, want the path as sent", target, a.status, a.seen)
		}
		checks := s.checks()
		last := checks[len(checks)-1]
		if last.GetPath() != target || last.GetHeaders()["x-auth-client-id"] != "forged" || last.GetHeaders()["x_auth_client_id"] != "forged" {
			t.Errorf("%s: the check saw %v, want everything as sent", target, last)
		}
	}
}

func TestEnvoysRunBesideEachOther(t *testing.T) {
	t.Parallel()
	deny := func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return denied(typev3.StatusCode_Forbidden, "policy_denied"), nil
	}
	first, _ := startEnvoy(t, byToken)
	second, _ := startEnvoy(t, deny)
	if a := first.send(t, get("/orders")...); a.status != http.StatusOK {
		t.Errorf("first: got %d, want 200", a.status)
	}
	if a := second.send(t, get("/orders")...); a.status != http.StatusForbidden {
		t.Errorf("second: got %d, want 403", a.status)
	}
	if n, err := first.Stat(first.ctx, "http.ingress.ext_authz.extauthz.ok"); err != nil || n != 1 {
		t.Errorf("first Envoy's count of allows: got %d, %v, want 1", n, err)
	}
	if _, err := first.Stat(first.ctx, "no.such.stat"); err == nil {
		t.Error("a counter that is not there has a value, want an error")
	}
	if _, err := first.Get(first.ctx, "/no-such-page"); err == nil {
		t.Error("an admin page that is not there has a body, want an error")
	}
}

func TestStartEnvoySaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	binary := lab.NeedEnvoy(t)
	tests := []struct {
		name string
		cfg  lab.EnvoyConfig
		want string
	}{
		{
			"an edit of a key that is not there",
			lab.EnvoyConfig{Binary: binary, Edits: []lab.Edit{lab.Set(lab.ExtAuthzPath+"/failure_mode_alow", true)}},
			`found no "failure_mode_alow"`,
		},
		{
			"a setting that Envoy does not know",
			lab.EnvoyConfig{Binary: binary, Edits: []lab.Edit{lab.Add(lab.ExtAuthzPath+"/failure_mode_alow", true)}},
			"failure_mode_alow",
		},
		{"a program that is not there", lab.EnvoyConfig{Binary: "/no/such/envoy"}, "no such file"},
		{"a configuration that is not there", lab.EnvoyConfig{Binary: binary, ConfigFile: "/no/such.yaml"}, "no such file"},
		{"a cluster that is not there", lab.EnvoyConfig{Binary: binary, Healthy: []string{"nobody"}}, "nobody"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			ports, err := lab.FreePorts(2)
			if err != nil {
				t.Fatal(err)
			}
			tt.cfg.Dir = t.TempDir()
			tt.cfg.Ports = lab.EnvoyPorts{Listener: ports[0], Admin: ports[1]}
			envoy, err := lab.StartEnvoy(ctx, tt.cfg)
			if err == nil {
				envoy.Kill()
				t.Fatal("Envoy runs, want an error")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestEnvoyStops(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, byToken)
	if err := d.Stop(d.ctx); err != nil {
		t.Errorf("Stop: %v, want exit code 0", err)
	}
	if err := syscall.Kill(d.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d: %v, want it to be gone", d.PID(), err)
	}
	if err := d.Stop(d.ctx); err != nil {
		t.Errorf("second Stop: %v, want what the first said", err)
	}
}

func TestEnvoyIsKilled(t *testing.T) {
	t.Parallel()
	d, _ := startEnvoy(t, byToken)
	d.Kill()
	var exit *exec.ExitError
	if err := d.Stop(d.ctx); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("Stop after Kill: %v, want the signal that ended it", err)
	}
}
