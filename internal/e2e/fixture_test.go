package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// What all tests share. Each part starts when the first test asks for it and ends with the last one.
var (
	mainService  = lazyService("main.yaml")
	ownPolicy    = lazyService("own.yaml")
	extendPolicy = lazyService("extends.yaml")

	// shipped is deploy/envoy/envoy.yaml, but for its patience.
	shipped = lazyGateway(mainService, patience())
	// open is the worst Envoy that extauthz can meet: it hands paths, hosts and headers on as the client wrote them, takes
	// extauthz's answers as they are, and lets requests pass when the check fails.
	open = lazyGateway(mainService, lab.PlainHeaders(), lab.PlainPaths(), lab.FailOpen(), patience())
	// ownShipped and extendShipped are the shipped configuration, changed as its comments ask for with a policy that sets
	// headers: their names are in the mutation rules.
	ownShipped    = lazyGateway(ownPolicy, policyHeaders("auth"), patience())
	ownOpen       = lazyGateway(ownPolicy, lab.PlainHeaders(), lab.PlainPaths(), lab.FailOpen(), patience())
	extendShipped = lazyGateway(extendPolicy, otherPrefix("caller"), innerRoute(), patience())
)

// The user pools of the stand-in, by their names in the configurations.
const (
	mainPool    = "eu-west-1_Main00001"
	strictPool  = "eu-west-1_Strict001" // asks for an audience, a scope and a machine
	darkPool    = "eu-west-1_Dark00001" // whose keys nobody ever gets
	hangingPool = "eu-west-1_Hanging01" // whose key server takes connections and says nothing
)

// The app clients of all pools.
const (
	batchID    = "1ordersbatch0e2e0client000" // may read and write orders
	reportsID  = "2reports0e2e0client0000000" // may read orders
	outsiderID = "3outsider0e2e0client000000" // a client of the pool that extauthz is not told of
	adminID    = "4admin0e2e0client000000000" // may do everything
)

func poolConfig(id string) cognitotest.PoolConfig {
	secret := []string{"e2e_only_secret"}
	return cognitotest.PoolConfig{
		ID:              id,
		ResourceServers: []cognitotest.ResourceServer{{Identifier: "orders", Scopes: []string{"read", "write", "admin"}}},
		Clients: []cognitotest.Client{
			{ID: batchID, Name: "orders-batch", Secrets: secret, Scopes: []string{"orders/read", "orders/write"}},
			{ID: reportsID, Name: "reports", Secrets: secret, Scopes: []string{"orders/read"}},
			{ID: outsiderID, Name: "outsider", Secrets: secret, Scopes: []string{"orders/read"}},
			{ID: adminID, Name: "admin", Secrets: secret, Scopes: []string{"orders/read", "orders/write", "orders/admin"}},
		},
	}
}

// standIn is the stand-in for Cognito of all tests that do not change keys.
var standIn = sync.OnceValues(func() (*cognitotest.Server, error) {
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{
		poolConfig(mainPool), poolConfig(strictPool), poolConfig(darkPool), poolConfig(hangingPool),
	}})
	if err != nil {
		return nil, err
	}
	atEnd(func() error { s.Close(); return nil })
	s.Pool(darkPool).Fail(cognitotest.JWKS, cognitotest.Fault{Status: 503})
	s.Pool(hangingPool).Fail(cognitotest.JWKS, cognitotest.Fault{Hang: true})
	return s, nil
})

func pool(t *testing.T, id string) *cognitotest.Pool {
	t.Helper()
	s, err := standIn()
	if err != nil {
		t.Fatal(err)
	}
	return s.Pool(id)
}

// bearer is the Authorization header of a good token of the main pool.
func bearer(t *testing.T, clientID string, opts ...cognitotest.TokenOption) string {
	t.Helper()
	return "Authorization: Bearer " + pool(t, mainPool).Token(clientID, opts...)
}

// A service is an extauthz, running.
type service struct {
	*lab.Extauthz
	grpcPort int
	admin    string
	file     string
	dir      string
}

// lazyService returns a function that starts extauthz with a configuration of testdata, once.
func lazyService(config string) func(*testing.T) *service {
	start := sync.OnceValues(func() (*service, error) {
		s, err := standIn()
		if err != nil {
			return nil, err
		}
		dir, err := os.MkdirTemp(workspace, "extauthz")
		if err != nil {
			return nil, err
		}
		x, err := startService(dir, config, map[string]string{
			"MAIN":    s.Pool(mainPool).Issuer(),
			"STRICT":  s.Pool(strictPool).Issuer(),
			"DARK":    s.Pool(darkPool).Issuer(),
			"HANGING": s.Pool(hangingPool).Issuer(),
		})
		if err != nil {
			return nil, err
		}
		atEnd(x.end)
		return x, nil
	})
	return func(t *testing.T) *service {
		t.Helper()
		lab.NeedEnvoy(t)
		x, err := start()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
}

// newService starts an extauthz for one test.
func newService(t *testing.T, config string, values map[string]string, env ...string) *service {
	t.Helper()
	lab.NeedEnvoy(t)
	x, err := startService(t.TempDir(), config, values, env...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.end(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// startTimeout bounds the start of one program on a machine that is busy with everything else.
const startTimeout = 30 * time.Second

// startService runs extauthz with a configuration of testdata, whose ${NAMES} get their values.
func startService(dir, config string, values map[string]string, env ...string) (*service, error) {
	text, err := os.ReadFile(filepath.Join("testdata", config))
	if err != nil {
		return nil, err
	}
	here, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	values = maps.Clone(values)
	maps.Copy(values, map[string]string{
		"TESTDATA": filepath.Join(here, "testdata"), "BATCH": batchID, "REPORTS": reportsID, "OPERATOR": adminID,
	})
	ports, err := lab.FreePorts(3)
	if err != nil {
		return nil, err
	}
	x := &service{grpcPort: ports[0], admin: lab.Loopback(ports[2]), dir: dir, file: filepath.Join(dir, "extauthz.yaml")}
	values["GRPC"], values["METRICS"], values["ADMIN"] = lab.Loopback(ports[0]), lab.Loopback(ports[1]), x.admin
	filled := os.Expand(string(text), func(name string) string { return values[name] })
	if err := os.WriteFile(x.file, []byte(filled), 0o600); err != nil {
		return nil, err
	}
	return x, x.start(values["METRICS"], env...)
}

// start runs the program, again if it has ended.
func (x *service) start(metrics string, env ...string) error {
	binary, err := program()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	x.Extauthz, err = lab.StartExtauthz(ctx, lab.ExtauthzConfig{
		Binary: binary, ConfigFile: x.file, Metrics: metrics, Dir: x.dir,
		Env: append([]string{"GORACE=halt_on_error=0"}, env...),
	})
	return err
}

// end drains the program and says what was wrong with how it ran: a data race, a panic, a token in its log.
func (x *service) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stopped := x.Stop(ctx)
	log := x.Stderr()
	problems := []error{stopped}
	for _, word := range []string{"DATA RACE", "panic", "goroutine ", "eyJ"} { // each JWT begins with eyJ
		if i := strings.Index(log, word); i >= 0 {
			problems = append(problems, fmt.Errorf("found %q in the log of extauthz, want none: …%s…", word, log[max(0, i-200):min(len(log), i+2000)]))
		}
	}
	if out := x.Stdout(); out != "" {
		problems = append(problems, fmt.Errorf("found %q on the standard output of extauthz, want nothing", out))
	}
	return errors.Join(problems...)
}

// program builds extauthz, once, with the race detector if the tests have it.
var program = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return lab.BuildExtauthz(ctx, workspace, raceDetector)
})

// A gateway is an Envoy that asks one service, with an upstream of its own.
type gateway struct {
	*lab.Envoy
	echo *lab.Echo
}

// lazyGateway returns a function that starts an Envoy, once.
func lazyGateway(x func(*testing.T) *service, edits ...[]lab.Edit) func(*testing.T) *gateway {
	var start func() (*gateway, error)
	var once sync.Once
	return func(t *testing.T) *gateway {
		t.Helper()
		behind := x(t)
		once.Do(func() {
			start = sync.OnceValues(func() (*gateway, error) {
				dir, err := os.MkdirTemp(workspace, "envoy")
				if err != nil {
					return nil, err
				}
				g, err := startGateway(dir, behind.grpcPort, slices.Concat(edits...))
				if err == nil {
					atEnd(g.end)
				}
				return g, err
			})
		})
		g, err := start()
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
}

// newGateway starts an Envoy for one test.
func newGateway(t *testing.T, x *service, edits ...[]lab.Edit) *gateway {
	t.Helper()
	g, err := startGateway(t.TempDir(), x.grpcPort, slices.Concat(edits...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.end(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func startGateway(dir string, grpcPort int, edits []lab.Edit) (*gateway, error) {
	ports, err := lab.FreePorts(3)
	if err != nil {
		return nil, err
	}
	g := &gateway{}
	if g.echo, err = lab.StartEcho(lab.Loopback(ports[2])); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if g.Envoy, err = lab.StartEnvoy(ctx, lab.EnvoyConfig{
		Ports:   lab.EnvoyPorts{Listener: ports[0], Admin: ports[1], Extauthz: grpcPort, Upstream: ports[2]},
		Edits:   edits,
		Dir:     dir,
		Healthy: []string{"extauthz"},
	}); err != nil {
		return nil, errors.Join(err, g.echo.Close())
	}
	return g, nil
}

func (g *gateway) end() error {
	g.Kill() // it has nothing to finish
	var problem error
	if said := g.Stderr(); strings.Contains(said, "[critical]") || strings.Contains(said, "[error]") {
		problem = fmt.Errorf("Envoy says:\n%s", said)
	}
	return errors.Join(problem, g.echo.Close())
}

// policyHeaders adds the headers of policy.requestHeaders to what Envoy lets an allow change.
func policyHeaders(prefix string) []lab.Edit {
	return []lab.Edit{lab.Set(lab.ExtAuthzPath+"/decoder_header_mutation_rules/allow_expression/regex",
		"x[^a-z0-9]"+prefix+"[^a-z0-9].*|authorization|x-tenant|x-debug|accept-language")}
}

// innerRoute gives Envoy a route of its own for /seen/inner/, which its answers tell.
func innerRoute() []lab.Edit {
	type object = map[string]any
	to := object{"cluster": "upstream"}
	return []lab.Edit{lab.Set(lab.HCMPath+"/route_config/virtual_hosts/upstream/routes", []object{
		{
			"match": object{"prefix": "/seen/inner/"}, "route": to,
			"response_headers_to_add": []object{{"header": object{"key": "x-envoy-route", "value": "inner"}}},
		},
		{"match": object{"prefix": "/"}, "route": to},
	})}
}

// patience lets Envoy wait for answers as long as a machine may take that has too much to do. Tests of what happens when
// extauthz is slow, or goes away, do without.
func patience() []lab.Edit {
	return []lab.Edit{
		lab.Set(lab.ExtAuthzPath+"/grpc_service/timeout", "10s"),
		lab.Set(lab.ExtAuthzPath+"/grpc_service/retry_policy/retry_back_off/max_interval", "10s"),
	}
}

// otherPrefix makes Envoy's configuration agree with another identityHeaders.prefix, in its three places.
func otherPrefix(prefix string) []lab.Edit {
	const matcher = "/remove_on_match/key_matcher/safe_regex/regex"
	regex := "x[^a-z0-9]" + prefix + "[^a-z0-9].*"
	return append(policyHeaders(prefix),
		lab.Set(lab.HCMPath+"/early_header_mutation_extensions/0/typed_config/mutations/0"+matcher, regex),
		lab.Set(lab.HCMPath+"/http_filters/envoy.filters.http.header_mutation/typed_config/mutations/request_trailers_mutations/0"+matcher, regex),
	)
}

// workspace holds the program and the directories of the shared parts.
var workspace string

// ends are the ends of the shared parts, in the order of their starts.
var ends struct {
	sync.Mutex
	list []func() error
}

func atEnd(f func() error) {
	ends.Lock()
	defer ends.Unlock()
	ends.list = append(ends.list, f)
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	var err error
	if workspace, err = os.MkdirTemp("", "extauthz-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	flag.Parse()
	// The tests wait for other programs most of the time, and for time-outs some of it.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code = m.Run()
	var problems []error
	for i := len(ends.list) - 1; i >= 0; i-- { // callers before those they call
		problems = append(problems, ends.list[i]())
	}
	problems = append(problems, goleak.Find(), os.RemoveAll(workspace))
	if err := errors.Join(problems...); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: after the last test:", err)
		return 1
	}
	return code
}
