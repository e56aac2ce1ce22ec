package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// checker answers with the code that it was given, when it may.
type checker struct {
	entered, release chan struct{} // nil: does not wait
}

func (c checker) CheckMessage(_ context.Context, dst, msg []byte) []byte {
	if c.entered != nil {
		c.entered <- struct{}{}
		<-c.release
	}
	code := codes.PermissionDenied
	if proto.Unmarshal(msg, new(authv3.CheckRequest)) != nil {
		code = codes.InvalidArgument
	}
	answer, err := proto.MarshalOptions{}.MarshalAppend(dst, &authv3.CheckResponse{Status: &status.Status{Code: int32(code)}})
	if err != nil {
		panic(err)
	}
	return answer
}

type running struct {
	*Server
	grpc, metrics, admin string
	stop                 func() error // ends it, and returns what Serve did
}

func start(t *testing.T, edit func(*Config)) running {
	t.Helper()
	cfg := Config{
		GRPC: "127.0.0.1:0", Metrics: "127.0.0.1:0", Admin: "127.0.0.1:0",
		Checker:        checker{},
		MetricsHandler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") }),
		Effective:      func() []byte { return []byte("realm: test\n") },
		Status:         func() any { return map[string]string{"version": "test"} },
		Grace:          5 * time.Second,
		Logger:         slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg)
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	r := running{Server: s}
	r.grpc, r.metrics, r.admin = s.Addrs()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	if strings.HasPrefix(addr, "/") {
		addr = "unix://" + addr
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func fetch(t *testing.T, url string, edit ...func(*http.Request)) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range edit {
		e(req)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestCheck(t *testing.T) {
	r := start(t, nil)
	resp, err := authv3.NewAuthorizationClient(dial(t, r.grpc)).Check(t.Context(), &authv3.CheckRequest{})
	if err != nil || codes.Code(resp.GetStatus().GetCode()) != codes.PermissionDenied {
		t.Errorf("%v and gRPC error %v, want %v and none", resp, err, codes.PermissionDenied)
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string                       { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }

// Bytes that are no CheckRequest get an answer, as a gRPC error may be an allow to Envoy. So do long messages.
func TestUndecodableBytes(t *testing.T) {
	conn := dial(t, start(t, nil).grpc)
	for name, msg := range map[string][]byte{
		"junk":             []byte("\xff\xff\xff\xff"),
		"a cut field":      {0x0a, 0x7f},
		"an invalid field": {0x07},
		"6 MiB of junk":    []byte(strings.Repeat("\xff", 6<<20)),
	} {
		var reply []byte
		err := conn.Invoke(t.Context(), "/envoy.service.auth.v3.Authorization/Check", msg, &reply, grpc.ForceCodec(rawCodec{}))
		if err != nil || len(reply) == 0 {
			t.Errorf("%s: reply %q and gRPC error %v, want an answer", name, reply, err)
		}
	}
}

// A message that is longer than Config.MessageBytes does not reach the checker, and is answered.
func TestMessageBytes(t *testing.T) {
	lengths := make(chan int, 2)
	conn := dial(t, start(t, func(c *Config) { c.MessageBytes, c.Checker = 1000, measurer(lengths) }).grpc)
	for _, size := range []int{1000, 1001} {
		var reply []byte
		err := conn.Invoke(t.Context(), "/envoy.service.auth.v3.Authorization/Check", make([]byte, size), &reply, grpc.ForceCodec(rawCodec{}))
		if got := <-lengths; err != nil || got != size%1001 {
			t.Errorf("a message of %d bytes is one of %d to the checker, gRPC error %v, want %d and none", size, got, err, size%1001)
		}
	}
}

// The transport takes more streams than the checker takes checks, so that too many are answered and not refused.
func TestStreams(t *testing.T) {
	for checks, want := range map[int]uint32{0: 10_000, 1000: 10_000, 100_000: 200_000} {
		conn, err := net.Dial("tcp", start(t, func(c *Config) { c.Checks = checks }).grpc)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:gocritic // three
		framer := http2.NewFramer(conn, conn)
		if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
			t.Fatal(err)
		}
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		frame, err := framer.ReadFrame()
		settings, ok := frame.(*http2.SettingsFrame)
		if err != nil || !ok {
			t.Fatalf("%v and error %v, want SETTINGS", frame, err)
		}
		if got, _ := settings.Value(http2.SettingMaxConcurrentStreams); got != want {
			t.Errorf("%d checks: %d streams, want %d", checks, got, want)
		}
	}
}

// A measurer tells how long its messages are.
type measurer chan int

func (m measurer) CheckMessage(_ context.Context, dst, msg []byte) []byte { m <- len(msg); return dst }

// A compressed message is not decompressed, and answered all the same.
func TestCompressedBytes(t *testing.T) {
	conn := dial(t, start(t, nil).grpc)
	var reply []byte
	err := conn.Invoke(t.Context(), "/envoy.service.auth.v3.Authorization/Check", []byte(strings.Repeat("\xff", 1000)), &reply,
		grpc.ForceCodec(rawCodec{}), grpc.UseCompressor(gzip.Name))
	if err != nil || len(reply) == 0 {
		t.Errorf("reply %q and gRPC error %v, want an answer", reply, err)
	}
	if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "x"}, grpc.UseCompressor(gzip.Name)); grpcstatus.Code(err) != codes.Unimplemented {
		t.Errorf("health: %v, want Unimplemented", err)
	}
}

func TestHealthAndReadiness(t *testing.T) {
	r := start(t, nil)
	health := healthv1.NewHealthClient(dial(t, r.grpc))
	want := func(serving healthv1.HealthCheckResponse_ServingStatus, code int, text string) {
		t.Helper()
		for _, service := range []string{"", "envoy.service.auth.v3.Authorization"} {
			resp, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || resp.GetStatus() != serving {
				t.Errorf("health of %q is %v, error %v, want %v", service, resp, err, serving)
			}
		}
		if got, body := fetch(t, "http://"+r.metrics+"/readyz"); got != code || body != text+"\n" {
			t.Errorf("/readyz is %d %q, want %d %q", got, body, code, text)
		}
		if got, body := fetch(t, "http://"+r.metrics+"/livez"); got != 200 || body != "ok\n" {
			t.Errorf("/livez is %d %q, want 200 ok", got, body)
		}
	}
	want(healthv1.HealthCheckResponse_NOT_SERVING, 503, "starting")
	r.Ready()
	want(healthv1.HealthCheckResponse_SERVING, 200, "ok")
	if _, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "other"}); grpcstatus.Code(err) != codes.NotFound {
		t.Errorf("health of another service: %v, want NotFound", err)
	}
	watch, err := health.Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if grpcstatus.Code(err) != codes.Unimplemented {
		t.Errorf("Watch: %v, want Unimplemented, as its streams would hold up a drain", err)
	}
	r.readiness.close()
	r.Ready()
	if got, body := fetch(t, "http://"+r.metrics+"/readyz"); got != 503 || body != "draining\n" {
		t.Errorf("/readyz is %d %q, want draining, from which there is no way back", got, body)
	}
}

func TestMetricsListenerServesNothingElse(t *testing.T) {
	r := start(t, nil)
	if code, body := fetch(t, "http://"+r.metrics+"/metrics"); code != 200 || body != "metrics" {
		t.Errorf("/metrics is %d %q", code, body)
	}
	for _, path := range []string{"/", "/config", "/status", "/debug/pprof/", "/metrics/x"} {
		if code, _ := fetch(t, "http://"+r.metrics+path); code != 404 {
			t.Errorf("%s is %d, want 404", path, code)
		}
	}
}

func TestAdmin(t *testing.T) {
	r := start(t, nil)
	if code, body := fetch(t, "http://"+r.admin+"/config"); code != 200 || body != "realm: test\n" {
		t.Errorf("/config is %d %q", code, body)
	}
	if code, body := fetch(t, "http://"+r.admin+"/status"); code != 200 || body != "{\n  \"version\": \"test\"\n}\n" {
		t.Errorf("/status is %d %q, want 200 and JSON", code, body)
	}
	if code, _ := fetch(t, "http://"+r.admin+"/status", func(req *http.Request) { req.Method = http.MethodPost }); code != 405 {
		t.Errorf("POST /status is %d, want 405", code)
	}
	if code, _ := fetch(t, "http://"+r.admin+"/status", func(req *http.Request) { req.Host = "evil.example" }); code != 403 {
		t.Errorf("/status for evil.example is %d, want 403", code)
	}
	if code, _ := fetch(t, "http://"+r.admin+"/debug/pprof/"); code != 200 {
		t.Errorf("/debug/pprof/ is %d", code)
	}
	// What a browser sends that a page of evil.example has led here.
	for _, host := range []string{"evil.example", "evil.example:9193", "127.0.0.1.evil.example", "10.0.0.1", ""} {
		code, _ := fetch(t, "http://"+r.admin+"/config", func(req *http.Request) { req.Host = host })
		if host != "" && code != 403 {
			t.Errorf("with Host %q: %d, want 403", host, code)
		}
	}
	for _, host := range []string{"localhost", "localhost:1", "[::1]:9193", "127.0.0.1"} {
		if code, _ := fetch(t, "http://"+r.admin+"/config", func(req *http.Request) { req.Host = host }); code != 200 {
			t.Errorf("with Host %q: %d, want 200", host, code)
		}
	}
}

// endDuringCheck sends a check and, when it is under way, ends the server. The channels yield what came of either.
func endDuringCheck(t *testing.T, r running, entered <-chan struct{}) (result, ended chan error) {
	t.Helper()
	conn := dial(t, r.grpc)
	result, ended = make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := authv3.NewAuthorizationClient(conn).Check(context.WithoutCancel(t.Context()), &authv3.CheckRequest{})
		result <- err
	}()
	<-entered
	go func() { ended <- r.stop() }()
	return result, ended
}

// A check that is under way when the end comes is answered.
func TestDrainFinishesChecks(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, func(c *Config) { c.Checker = checker{entered: entered, release: release} })
	r.Ready()
	result, ended := endDuringCheck(t, r, entered)
	for { // until the listener is gone, which is when GOAWAY is out
		c, err := net.DialTimeout("tcp", r.grpc, time.Second)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the check under way got %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

func TestDrainIsBounded(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, func(c *Config) {
		c.Checker = checker{entered: entered, release: release}
		c.Grace = 10 * time.Millisecond
	})
	result, ended := endDuringCheck(t, r, entered)
	if err := <-result; err == nil {
		t.Error("the check was answered, want it cut off")
	}
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "grpc.sock")
	onSocket := func(c *Config) { c.GRPC, c.Metrics, c.Admin = "unix://"+path, "", "" }
	r := start(t, onSocket)
	if _, err := authv3.NewAuthorizationClient(dial(t, path)).Check(t.Context(), &authv3.CheckRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := Listen(Config{GRPC: "unix://" + path, Checker: checker{}}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("error is %v, want one that says that another process listens there", err)
	}
	_ = r.stop()
	// A socket that a killed process left is no obstacle.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	start(t, onSocket)
}

func TestAddressInUse(t *testing.T) {
	r := start(t, nil)
	for key, cfg := range map[string]Config{
		"listen.grpc":    {GRPC: r.grpc},
		"listen.metrics": {GRPC: "127.0.0.1:0", Metrics: r.metrics},
		"listen.admin":   {GRPC: "127.0.0.1:0", Admin: r.admin},
	} {
		if _, err := Listen(cfg); err == nil || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("error is %v, want one that names %s", err, key)
		}
	}
}

// A signal that comes while the service starts is no failure.
func TestEndBeforeTheBeginning(t *testing.T) {
	for range 20 {
		r := start(t, nil)
		if err := r.stop(); err != nil {
			t.Fatalf("Serve returned %v", err)
		}
	}
}
