package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite generated files and expectations")

func readFile(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// A mistake is one block of testdata/mistakes.txt: a change to good.yaml and what is said about it.
type mistake struct {
	name    string
	edits   []edit
	environ []string // lines "$ "
	want    []string // lines "> "
}

// An edit takes some lines out and puts others in their place.
type edit struct{ old, new []string } // lines "- " and "+ "

// TestMistakes makes one mistake at a time. The expectations are the messages that users read, so a change to one
// is reviewed as prose: run with -update and read the difference.
func TestMistakes(t *testing.T) {
	const file = "testdata/mistakes.txt"
	good := readFile(t, "testdata/good.yaml")
	head, mistakes := parseMistakes(t, readFile(t, file))
	for i := range mistakes {
		m := &mistakes[i]
		t.Run(m.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(m.change(t, good)), m.environ)
			got := []string{"accepted"}
			if err != nil {
				var e *Error
				if !errors.As(err, &e) {
					t.Fatalf("found %T, want *Error", err)
				}
				got = strings.Split(err.Error(), "\n")
			}
			if err == nil {
				t.Error("accepted")
			}
			if *update {
				m.want = got
			}
			if g, w := strings.Join(got, "\n"), strings.Join(m.want, "\n"); g != w {
				t.Errorf("found\n%s\nwant\n%s", g, w)
			}
		})
	}
	if len(mistakes) < 60 {
		t.Errorf("found %d mistakes, want at least 60", len(mistakes))
	}
	if *update {
		if err := os.WriteFile(file, []byte(head+formatMistakes(mistakes)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// change makes the mistake.
func (m *mistake) change(tb testing.TB, good string) string {
	tb.Helper()
	for _, e := range m.edits {
		added := ""
		for _, line := range e.new {
			added += line + "\n"
		}
		old := strings.Join(e.old, "\n") + "\n"
		switch {
		case old == "everything\n":
			good = added
		case old == "\n":
			good += added
		case strings.Count(good, old) != 1:
			tb.Fatalf("good.yaml has %d times, want once: %s", strings.Count(good, old), old)
		default:
			good = strings.Replace(good, old, added, 1)
		}
	}
	return good
}

func parseMistakes(tb testing.TB, text string) (head string, mistakes []mistake) {
	tb.Helper()
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		mark, rest, _ := strings.Cut(line, " ")
		if mark == "#" && len(mistakes) == 0 || line == "" {
			if len(mistakes) == 0 {
				head += line + "\n"
			}
			continue
		}
		if mark == "==" {
			mistakes = append(mistakes, mistake{name: rest})
			continue
		}
		m := &mistakes[len(mistakes)-1]
		if n := len(m.edits); (mark == "-" || mark == "+") && (n == 0 || mark == "-" && len(m.edits[n-1].new) > 0) {
			m.edits = append(m.edits, edit{})
		}
		switch mark {
		case "-":
			e := &m.edits[len(m.edits)-1]
			e.old = append(e.old, rest)
		case "+":
			e := &m.edits[len(m.edits)-1]
			e.new = append(e.new, rest)
		case "$":
			m.environ = append(m.environ, rest)
		case ">":
			m.want = append(m.want, rest)
		default:
			tb.Fatalf("mistakes.txt has a line %q", line)
		}
	}
	return head, mistakes
}

func formatMistakes(mistakes []mistake) string {
	var b strings.Builder
	for i, m := range mistakes {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString("== " + m.name + "\n")
		section := func(mark string, lines []string) {
			for _, line := range lines {
				b.WriteString(strings.TrimRight(mark+" "+line, " ") + "\n")
			}
		}
		for _, e := range m.edits {
			section("-", e.old)
			section("+", e.new)
		}
		section("$", m.environ)
		section(">", m.want)
	}
	return b.String()
}

// minimal is the shortest useful configuration.
const minimal = `
pools:
  main: {region: eu-west-1, userPoolId: eu-west-1_AbCdEfGhI, anyClient: true}
routes:
  - {path: "/orders/{id}", methods: [GET], scopes: {any: [orders/read]}}
`

func parse(tb testing.TB, text string, environ ...string) *Config {
	tb.Helper()
	c, err := Parse("f.yaml", []byte(text), environ)
	if err != nil {
		tb.Fatalf("refused:\n%v", err)
	}
	return c
}

var exported = cmpopts.IgnoreUnexported(Config{})

func TestEveryKey(t *testing.T) {
	t.Parallel()
	want := &Config{
		Listen: Listen{
			GRPC: "0.0.0.0:9191", Metrics: "0.0.0.0:9192", Admin: "127.0.0.1:9193",
			TLS: TLS{CertFile: "tls/tls.crt", KeyFile: "tls/tls.key", ClientCAFile: "tls/ca.crt"},
		},
		Clients: map[string]Client{
			"orders-batch":   {ID: "7a8b9c0d1e2f3g4h5i6j7k8"},
			"billing":        {ID: "1h57kf5cpq17m0eml12EXAMPLE"},
			"partner-portal": {ID: "3n4b5urk1ft4fl3mg5e62d9ado"},
		},
		Pools: map[string]Pool{
			"main": {
				Region: "eu-west-1", UserPoolID: "eu-west-1_AbCdEfGhI", IssuerType: IssuerBoth,
				Clients: []string{"orders-batch", "billing"}, TokenUse: []string{TokenUseAccess},
				Audience: []string{"https://api.example.com"}, RequiredScopes: []string{"api/use", "api/trial"}, ScopeMatch: MatchAny,
				MachinesOnly: true, Leeway: time.Minute, ExpLeeway: 5 * time.Second,
				JWKS: JWKS{MinInterval: 5 * time.Second, MaxAge: 30 * time.Minute, MaxStale: 12 * time.Hour, Timeout: 3 * time.Second, CAFile: "ca.pem", SeedFile: "seed.json"},
			},
			"partners": {
				Issuer: "https://idp.example.com/partners", JWKSURL: "https://keys.example.com/partners.json", IssuerType: IssuerOriginal,
				Clients: []string{"partner-portal"}, AnyClient: true, TokenUse: []string{TokenUseAccess}, ScopeMatch: MatchAll,
				Leeway: 30 * time.Second,
				JWKS:   JWKS{MinInterval: 10 * time.Second, MaxAge: time.Hour, MaxStale: 24 * time.Hour, Timeout: 5 * time.Second},
			},
			"people": {
				Issuer: "http://localhost:9000/local_people", JWKSFile: "jwks.json", IssuerType: IssuerOriginal,
				AnyClient: true, TokenUse: []string{TokenUseAccess, TokenUseID}, ScopeMatch: MatchAll,
				Leeway: 30 * time.Second,
				JWKS:   JWKS{MinInterval: 10 * time.Second, MaxAge: time.Hour, MaxStale: 24 * time.Hour, Timeout: 5 * time.Second},
			},
		},
		Routes: []Route{
			{
				Name: "read an order", Hosts: []string{"api.example.com", "*.internal.example.com"}, Methods: []string{"GET", "HEAD"},
				Path: "/orders/{id}", Pools: []string{"main", "people"}, Scopes: Scopes{Any: []string{"orders/read", "orders/admin"}},
				Clients: []string{"orders-batch"}, EncodedSlash: Allow, PathParameters: Allow,
			},
			{
				Name: "POST /orders", Methods: []string{"POST"}, Path: "/orders", Pools: []string{"main"},
				Scopes:       Scopes{All: []string{"orders/write", "orders/audit"}, Any: []string{"eu/use", "us/use"}},
				EncodedSlash: Deny, PathParameters: Deny,
			},
			{
				Name: "* /files/**", Methods: []string{"*"}, Path: "/files/**", Pools: []string{"partners"}, AnyClient: true,
				EncodedSlash: Deny, PathParameters: Deny,
			},
			{Name: "GET /healthz", Methods: []string{"GET"}, Path: "/healthz", Public: true, EncodedSlash: Deny, PathParameters: Deny},
		},
		Authentication: Required,
		Policy: Policy{
			Dir: "policies", Dialect: DialectExtauthz, Decision: "data.acme.authz.decision", Timeout: 20 * time.Millisecond,
			RequestHeaders: []string{"x-tenant", "x-quota"}, Reasons: []string{"quota_exceeded", "office_hours"},
			AllowBuiltins: []string{"io.jwt.decode"},
		},
		OPA: Opaque{
			"services": map[string]any{"reports": map[string]any{
				"url": "https://reports.example.com", "credentials": map[string]any{"bearer": map[string]any{"token": "${REPORTS_TOKEN}"}},
			}},
			"decision_logs": map[string]any{"service": "reports", "reporting": map[string]any{
				"max_delay_seconds": json.Number("30"), "min_delay_seconds": json.Number("1.5"), "upload_size_limit_bytes": json.Number("32768"),
			}},
			"labels": map[string]any{"cluster": "blue", "off": false, "nothing": nil, "list": []any{json.Number("1"), "two"}},
		},
		Denylist:        Denylist{File: "denylist.yaml"},
		TokenCache:      TokenCache{MaxBytes: 1 << 20, MaxEntries: 500, MaxRefusals: 50},
		DecisionCache:   DecisionCache{MaxBytes: 1 << 17},
		IdentityHeaders: IdentityHeaders{Prefix: "x-id-", MaxBytes: 2048, Claims: map[string]string{"tier": "custom:tier", "team": "team"}},
		Upstream:        Upstream{Authorization: Forward},
		Limits:          Limits{ConcurrentChecks: 512, PathBytes: 4096, HeaderBytes: 32768, BodyBytes: 65536, TokenBytes: 8192},
		DecisionLog: DecisionLog{
			To: LogToFile, File: LogFile{Path: "decisions.log", MaxBytes: 1048576, Keep: 2},
			Allowed: LogSampled, Refused: LogSampled, Denied: LogSampled, Failed: LogSampled,
			SampleRatio: 0.5, SampleRatios: SampleRatios{Allowed: 0.25, Refused: 0.125, Denied: 0.75, Failed: 1},
			Include: []string{"headers.x-tenant", "query.page", "claims.tier"},
		},
		Realm:     "orders api",
		Startup:   Startup{KeysTimeout: 10 * time.Second},
		Shutdown:  Shutdown{Delay: 10 * time.Second, Timeout: 30 * time.Second},
		Log:       Log{Level: "debug"},
		Telemetry: Telemetry{TraceRate: 2.5, TraceRatio: 0.001},
	}
	c := parse(t, readFile(t, "testdata/good.yaml"))
	if diff := cmp.Diff(want, c, exported); diff != "" {
		t.Errorf("good.yaml (- want, + found):\n%s", diff)
	}
	if !c.Listen.TLS.Enabled() || parse(t, minimal).Listen.TLS.Enabled() {
		t.Error("TLS is enabled without certificate, or not with one")
	}
}

// TestRendered shows the effective configurations, and that they are configurations which mean the same.
func TestRendered(t *testing.T) {
	minimalVars := []string{"EXTAUTHZ__LISTEN__GRPC=unix:///run/extauthz.sock", "EXTAUTHZ__LISTEN__ADMIN=", "EXTAUTHZ__TELEMETRY__TRACE_RATIO=0.25"}
	for _, test := range []struct {
		golden, text string
		environ      []string
	}{
		{"testdata/minimal.effective.yaml", minimal, minimalVars},
		{"testdata/good.effective.yaml", readFile(t, "testdata/good.yaml"), nil},
	} {
		c := parse(t, test.text, test.environ...)
		got := c.YAML()
		if *update {
			if err := os.WriteFile(test.golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(readFile(t, test.golden), string(got)); diff != "" {
			t.Errorf("%s (- want, + found):\n%s", test.golden, diff)
		}
		again := parse(t, string(got))
		if diff := cmp.Diff(c, again, exported); diff != "" {
			t.Errorf("%s means something else (- want, + found):\n%s", test.golden, diff)
		}
		if c.Revision() != again.Revision() {
			t.Errorf("%s has revision %s, want %s", test.golden, again.Revision(), c.Revision())
		}
		if c.String() != string(got) || c.LogValue().String() != string(got) {
			t.Errorf("%s: String and LogValue are not what YAML is", test.golden)
		}
	}
}

func TestRevision(t *testing.T) {
	t.Parallel()
	base := parse(t, minimal).Revision()
	if !regexp.MustCompile(`^sha256:[0-9a-f]{12}$`).MatchString(base) {
		t.Errorf("found revision %q, want sha256: and 12 hex digits", base)
	}
	for _, test := range []struct {
		name string
		text string
		env  string
		same bool
	}{
		{"a comment", "# hello" + minimal, "", true},
		{"a default written out", minimal + "realm: extauthz\n", "", true},
		{"a default by variable", minimal, "EXTAUTHZ__REALM=extauthz", true},
		{"another order and style", `
routes: [{scopes: {any: ["orders/read"]}, methods: ["GET"], path: "/orders/{id}"}]
pools: {main: {anyClient: true, userPoolId: eu-west-1_AbCdEfGhI, region: eu-west-1}}
`, "", true},
		{"a duration in other units", minimal + "shutdown: {delay: 5000ms}\n", "", true},
		{"another value", minimal + "realm: orders\n", "", false},
		{"another value by variable", minimal, "EXTAUTHZ__REALM=orders", false},
		{"another scope", strings.Replace(minimal, "orders/read", "orders/write", 1), "", false},
	} {
		c, err := Parse("/elsewhere/g.yaml", []byte(test.text), []string{test.env})
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if same := c.Revision() == base; same != test.same {
			t.Errorf("%s: the same revision %v, want %v", test.name, same, test.same)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	c := parse(t, minimal+"realm: file\n",
		"PATH=/bin", "EXTAUTHZ_PORT=tcp://10.0.0.1:9191", "EXTAUTHZ_SERVICE_HOST=10.0.0.1", "extauthz__realm=lower",
		"EXTAUTHZ__REALM=variable", "EXTAUTHZ__REALM=second",
		"EXTAUTHZ__LISTEN__TLS__CERT_FILE=a=b.pem", "EXTAUTHZ__LISTEN__TLS__KEY_FILE=k.pem", "EXTAUTHZ__LISTEN__TLS__CLIENT_CA_FILE=ca.pem",
		"EXTAUTHZ__LIMITS__CONCURRENT_CHECKS=7", "EXTAUTHZ__STARTUP__KEYS_TIMEOUT=1m30s", "EXTAUTHZ__DECISION_LOG__SAMPLE_RATIO=1e-3",
		"EXTAUTHZ__POLICY__DIR=",
	)
	want := parse(t, minimal)
	want.Realm = "variable"
	want.Listen.TLS = TLS{CertFile: "a=b.pem", KeyFile: "k.pem", ClientCAFile: "ca.pem"}
	want.Limits.ConcurrentChecks = 7
	want.Startup.KeysTimeout = 90 * time.Second
	want.DecisionLog.SampleRatio = 0.001
	if diff := cmp.Diff(want, c, exported); diff != "" {
		t.Errorf("- want, + found:\n%s", diff)
	}
}

// TestEveryVariable sets each variable to the value of its key in good.yaml.
func TestEveryVariable(t *testing.T) {
	t.Parallel()
	good := parse(t, readFile(t, "testdata/good.yaml"))
	vars := make(map[string]variable)
	addVariables(vars, reflect.ValueOf(good).Elem(), "", "EXTAUTHZ")
	count := 0
	for name, v := range vars {
		if v.whole != "" || v.key == "policy.minRevision" { // which does not go with good.yaml's policy.dir
			continue
		}
		count++
		text := scalarNode(v.value, v.field).Value
		c, err := Parse("f.yaml", []byte(readFile(t, "testdata/good.yaml")), []string{name + "=" + text})
		if err != nil {
			t.Errorf("%s=%s: %v", name, text, err)
			continue
		}
		if !strings.Contains(string(c.YAML()), "# from "+name+"\n") {
			t.Errorf("%s is not named in the effective configuration", name)
		}
	}
	if count < 25 {
		t.Errorf("found %d variables, want all", count)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "extauthz.yaml")
	if err := os.WriteFile(file, []byte(minimal+"policy: {dir: rego}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Path(c.Policy.Dir), filepath.Join(dir, "rego"); got != want {
		t.Errorf("found the path %s, want %s", got, want)
	}
	if got := c.Path("/abs"); got != "/abs" {
		t.Errorf("found the path %s, want /abs", got)
	}
	if got := c.Path(""); got != "" {
		t.Errorf("found the path %q, want none", got)
	}
	_, err = Load(filepath.Join(dir, "missing.yaml"), nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found %v, want fs.ErrNotExist", err)
	}
	_, err = Load(dir, nil)
	if err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("found %v, want that it is a directory", err)
	}
}

func TestPool(t *testing.T) {
	t.Parallel()
	const (
		original = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_A"
		updated  = "https://issuer-cognito-idp.eu-west-1.amazonaws.com/eu-west-1_A"
	)
	for _, test := range []struct {
		pool    string
		issuers []string
		keys    string
	}{
		{"region: eu-west-1, userPoolId: eu-west-1_A", []string{original}, original + "/.well-known/jwks.json"},
		{"region: eu-west-1, userPoolId: eu-west-1_A, issuerType: updated", []string{updated}, updated + "/.well-known/jwks.json"},
		{"region: eu-west-1, userPoolId: eu-west-1_A, issuerType: both", []string{original, updated}, original + "/.well-known/jwks.json"},
		{"region: eu-west-1, userPoolId: eu-west-1_A, jwksUrl: https://m.example/k", []string{original}, "https://m.example/k"},
		{"issuer: https://idp.example/x", []string{"https://idp.example/x"}, "https://idp.example/x/.well-known/jwks.json"},
		{"issuer: https://idp.example/x, jwksFile: k.json", []string{"https://idp.example/x"}, ""},
	} {
		p := parse(t, "pools: {main: {"+test.pool+", anyClient: true}}\nroutes: [{path: /, methods: [GET], anyClient: true}]\n").Pools["main"]
		if diff := cmp.Diff(test.issuers, p.Issuers()); diff != "" {
			t.Errorf("%s: issuers (- want, + found):\n%s", test.pool, diff)
		}
		if p.KeysURL() != test.keys {
			t.Errorf("%s: found keys at %q, want %q", test.pool, p.KeysURL(), test.keys)
		}
	}
}

func TestIdentityHeaderNames(t *testing.T) {
	t.Parallel()
	h := parse(t, minimal+"identityHeaders: {claims: {tier: t, app: a}}\n").IdentityHeaders
	want := []string{
		"x-auth-client-id", "x-auth-client-name", "x-auth-scopes", "x-auth-pool", "x-auth-issuer", "x-auth-subject", "x-auth-token-id",
		"x-auth-app", "x-auth-tier",
	}
	if diff := cmp.Diff(want, h.Names()); diff != "" {
		t.Errorf("- want, + found:\n%s", diff)
	}
}

func TestSlogLevel(t *testing.T) {
	t.Parallel()
	for level, want := range map[string]slog.Level{
		"": slog.LevelInfo, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	} {
		if got := (Log{Level: level}).SlogLevel(); got != want {
			t.Errorf("%q: found %v, want %v", level, got, want)
		}
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	_, err := Parse("dir/f.yaml", []byte(minimal+"realm: 7\n"), []string{"EXTAUTHZ__LOG__LEVEL=INFO"})
	want := &Error{Problems: []Problem{
		{
			File: "dir/f.yaml", Line: 6, Column: 8, Key: "realm",
			Message: `found the number 7, want 1 to 128 printable ASCII characters without '"' and '\'`,
			Hint:    `quote it: "7"`,
		},
		{
			Variable: "EXTAUTHZ__LOG__LEVEL", Key: "log.level",
			Message: `found "INFO", want debug, info, warn or error`,
			Hint:    "did you mean info?",
		},
	}}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("- want, + found:\n%s", diff)
	}
}

// TestAccepted has values at the edge of what is valid.
func TestAccepted(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"Windows line ends":           strings.ReplaceAll(minimal, "\n", "\r\n"),
		"a byte order mark":           "\ufeff" + minimal,
		"a document start":            "---" + minimal,
		"a document end":              minimal + "...\n",
		"JSON":                        `{"pools": {"main": {"issuer": "https://idp.example", "anyClient": true}}, "routes": [{"path": "/", "methods": ["GET"], "public": true}]}`,
		"listeners off":               minimal + "listen: {metrics: '', admin: \"\"}\n",
		"ports that the system picks": minimal + "listen: {grpc: '127.0.0.1:0', metrics: '127.0.0.1:0', admin: '127.0.0.1:0'}\n",
		"IPv6":                        minimal + "listen: {grpc: '[::]:9191', admin: '[::1]:9193'}\n",
		"all interfaces":              minimal + "listen: {grpc: ':9191'}\n",
		"a host name":                 minimal + "listen: {grpc: 'extauthz.internal:9191', admin: 'localhost:9193'}\n",
		"one port on two addresses":   minimal + "listen: {grpc: '127.0.0.1:9191', metrics: '127.0.0.2:9191'}\n",
		"the edges of durations":      minimal + "shutdown: {delay: 0s, timeout: 10m}\n",
		"unusual durations":           minimal + "shutdown: {delay: 1m30s, timeout: 1.5m}\npolicy: {timeout: 1500us}\n",
		"the built-in base rule":      minimal + "policy: {decision: data.extauthz.base.decision}\n",
		"a number with exponent":      minimal + "telemetry: {traceRate: 1e3}\n",
		"text that holds a template":  minimal + "realm: \"{{x}} ${y}\"\n",
		"an empty optional text":      minimal + "policy: {dir: \"\"}\n",
		"an empty list":               minimal + "policy: {reasons: []}\n",
		"empty mappings":              minimal + "clients: {}\nlog: {}\n",
		"GovCloud":                    strings.ReplaceAll(minimal, "eu-west-1", "us-gov-west-1"),
		"one id in two pools": `
clients: {a: {id: same}, b: {id: same}}
pools:
  one: {region: eu-west-1, userPoolId: eu-west-1_A, clients: [a]}
  two: {region: eu-west-1, userPoolId: eu-west-1_B, clients: [b]}
routes: [{path: /, methods: [GET], pools: [one], clients: [a]}]
`,
		"a client that no pool lists": minimal + "clients: {leaked: {id: abc}}\n",
	} {
		if _, err := Parse("f.yaml", []byte(text), nil); err != nil {
			t.Errorf("%s: refused:\n%v", name, err)
		}
	}
}

// TestUnreadable has files that are no text, or that would cost too much to read.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	utf16 := []byte("\xff\xfep\x00o\x00o\x00l\x00s\x00")
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	for _, test := range []struct {
		name string
		data []byte
		want string // the beginning of the first problem
	}{
		{"too large", bytes.Repeat([]byte("#"), MaxFileBytes+1), "f.yaml:1:1: found more than 4194304 bytes, want a smaller file"},
		{"UTF-16", utf16, "f.yaml:1:1: found the byte 0xFF, which is no UTF-8"},
		{"Latin-1", []byte("realm: ok\nlog:  caf\xe9\n"), "f.yaml:2:10: found the byte 0xE9, which is no UTF-8"},
		{"a binary", []byte("\x7fELF\x02\x01\x01\x00"), "f.yaml:1:1: found the control character U+007F"},
		{"a gzip file", []byte("\x1f\x8b\x08\x00"), "f.yaml:1:1: found the control character U+001F"},
		{"a NUL", []byte("realm: é\x00\n"), "f.yaml:1:9: found the control character U+0000"},
		{"old Macintosh line ends", []byte("realm: a\rlog: {}\r"), "f.yaml:1:9: found a carriage return without a line feed"},
		{"a line separator", []byte("realm: a\u2028b\n"), "f.yaml:1:9: found the invisible character U+2028"},
		{"a byte order mark inside", []byte("realm: a\ufeffb\n"), "f.yaml:1:9: found the invisible character U+FEFF"},
		{"deep nesting", bytes.Repeat([]byte("["), 100_000), "f.yaml:1:1: found lists or mappings nested too deeply"},
		{"deep blocks", []byte(strings.Repeat("- ", 100_000)), "f.yaml:1:1: found lists or mappings nested too deeply"},
		{"a billion laughs", []byte(bomb), "f.yaml:1:1: a: unknown key"},
	} {
		_, err := Parse("f.yaml", test.data, nil)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: found %.200v, want %s…", test.name, err, test.want)
		}
	}
}

// TestManyProblems holds that a file with nothing right in it is answered in reasonable time.
func TestManyProblems(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("clients:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "  client%d: {id: %d}\n", i, i)
	}
	b.WriteString("pools: {main: {issuer: 'https://idp.example', clients: [nobody]}}\nroutes:\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "  - {path: r%d, methods: [get], clients: [clinet%d], pulic: true}\n", i, i)
	}
	began := time.Now()
	_, err := Parse("f.yaml", []byte(b.String()), nil)
	if err == nil {
		t.Fatal("accepted")
	}
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) < 8000 {
		t.Errorf("found %T, want an *Error with at least 8000 problems", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestSecret holds that a field with the tag never shows its value, not even in a problem.
func TestSecret(t *testing.T) {
	t.Parallel()
	type settings struct {
		Token  string            `yaml:"token" format:"region" secret:"true"`
		Tokens []string          `yaml:"tokens" format:"region" secret:"true"`
		Named  map[string]string `yaml:"named" keys:"name" format:"region" secret:"true"`
	}
	read := func(text string) (settings, []Problem) {
		var s settings
		d := newDecoder("f.yaml")
		d.value(d.syntax([]byte(text)), reflect.ValueOf(&s).Elem(), field{}, "")
		return s, d.problems
	}
	s, problems := read("{token: eu-canary-1, tokens: [eu-canary-2], named: {a: eu-canary-3}}")
	if problems != nil || s.Token != "eu-canary-1" {
		t.Fatalf("found %v and %v, want the secret", s, problems)
	}
	out := string(render(reflect.ValueOf(s), nil))
	if want := "token: REDACTED\ntokens: [REDACTED]\nnamed:\n  a: REDACTED\n"; out != want {
		t.Errorf("found %q, want %q", out, want)
	}
	for _, text := range []string{
		"token: CANARY 1", "token: 5550111", "token: 2001-01-01", "tokens: [CANARY]", "tokens: CANARY, 5550111", "named: {a: CANARY}",
		"tokens: [eu-canary-1, eu-canary-1]", "token: !CANARY 1", "named: CANARY", "token: 'CANARY\u00a0'", "token: ${CANARY}", "token: \"CANARY\\n\"",
		"token: true", "tokens: [[CANARY]]", "token: [CANARY]", "token: {CANARY: 1}",
	} {
		_, problems := read(text)
		if len(problems) == 0 {
			t.Errorf("%s: accepted", text)
		}
		for _, p := range problems {
			if regexp.MustCompile(`(?i)canary|5550111|2001|true`).MatchString(p.String()) {
				t.Errorf("%s: the problem shows the value: %s", text, p)
			}
		}
	}
}

// TestExample holds that the example is accepted, and that the settings that are commented out in it are the defaults.
func TestExample(t *testing.T) {
	t.Parallel()
	text := readFile(t, "../../docs/extauthz.example.yaml")
	c := parse(t, text)
	whole := regexp.MustCompile(`(?m)^#((  )?[a-z])`).ReplaceAllString(text, "$1")
	if diff := cmp.Diff(c, parse(t, whole), exported); diff != "" {
		t.Errorf("the example's settings are not the defaults (- default, + example):\n%s", diff)
	}
	for _, f := range fieldsOf(reflect.TypeFor[Config]()) {
		if !regexp.MustCompile(`(?m)^` + f.key + `:`).MatchString(whole) {
			t.Errorf("the example has no %s", f.key)
		}
	}
}

// TestOPAEnvoyDialect holds what only that dialect does without, and what only it has.
func TestOPAEnvoyDialect(t *testing.T) {
	t.Parallel()
	const pools = "pools: {main: {region: eu-west-1, userPoolId: eu-west-1_AbCdEfGhI, anyClient: true}}\n"
	const text = pools + "authentication: optional\npolicy: {dir: policies, dialect: opa-envoy, extauthzInput: true}\n"
	c := parse(t, text)
	if problem := schemaProblem(t, text); problem != "" {
		t.Errorf("the schema refuses it: %s", problem)
	}
	if c.Authentication != Optional || c.Policy.Decision != DefaultDecisionOPAEnvoy || !c.Policy.ExtauthzInput || len(c.Routes) != 0 || len(c.Rules()) != 0 {
		t.Errorf("found %+v", c)
	}
	if again := parse(t, string(c.YAML())); again.Revision() != c.Revision() {
		t.Errorf("the effective configuration has another revision:\n%s", c.YAML())
	}
	if named := parse(t, strings.Replace(text, "dialect:", "decision: data.a.b, dialect:", 1)); named.Policy.Decision != "data.a.b" {
		t.Errorf("decision is %q, want the one that was given", named.Policy.Decision)
	}
	_, page, _ := strings.Cut(readFile(t, "../../docs/from-opa-envoy.md"), "```yaml\n")
	page, _, _ = strings.Cut(page, "```")
	if documented := parse(t, page); documented.Authentication != Optional || schemaProblem(t, page) != "" {
		t.Errorf("docs/from-opa-envoy.md: found %+v, %s", documented, schemaProblem(t, page))
	}
	for _, without := range []string{pools, pools + "policy: {dir: policies, dialect: extauthz}\n", pools + "policy: {dir: policies}\n"} {
		if schemaProblem(t, without) == "" {
			t.Errorf("the schema accepts a file without routes:\n%s", without)
		}
	}
	byVariable, err := Parse("f.yaml", []byte(pools+"policy: {dir: policies}\n"), []string{"EXTAUTHZ__POLICY__DIALECT=opa-envoy"})
	if err != nil || byVariable.Policy.Decision != DefaultDecisionOPAEnvoy {
		t.Errorf("with the dialect from the environment: %v", err)
	}
}
