package conventions

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A callersWorld is what the commands and programs for callers talk to: a stand-in for Cognito, and an API that wants a
// token of it.
type callersWorld struct {
	pool *cognitotest.Pool
	url  string           // of the stand-in
	api  *httptest.Server // over HTTP
	v    *validator.Validator
}

func newCallersWorld(t *testing.T) *callersWorld {
	t.Helper()
	demo := cognitotest.DemoPool()
	demo.SignInAs = "joe"
	demo.Clients[0].Secrets = append(demo.Clients[0].Secrets, "demo_only_second_secret_of_orders")
	demo.Clients[2].RedirectURLs = []string{"http://localhost:0"}
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{demo}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w := &callersWorld{pool: s.Pools()[0], url: s.URL}
	keys, _, err := validator.ParseJWKS(w.pool.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	if w.v, err = validator.New(validator.Config{Issuers: []string{w.pool.Issuer()}, AllowAnyClient: true, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	w.api = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !w.accepts(r.Context(), r.Header.Get("Authorization")) {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintln(rw, `{"id":"42"}`)
	}))
	t.Cleanup(w.api.Close)
	return w
}

// accepts reports whether a header has a good token.
func (w *callersWorld) accepts(ctx context.Context, header string) bool {
	token, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return false
	}
	_, err := w.v.Validate(ctx, token)
	return err == nil
}

// replacer makes the addresses of the pages those of this world.
func (w *callersWorld) replacer() *strings.Replacer {
	return strings.NewReplacer(
		"http://127.0.0.1:9199", w.url,
		"https://my-team.auth.eu-west-1.amazoncognito.com", w.url,
		"https://api.example.com", w.api.URL,
		"7a8b9c0d1e2f3g4h5i6j7k8", cognitotest.DemoClientID,
	)
}

// environ is that of a caller with a home of its own, who has the profiles of the pages.
func (w *callersWorld) environ(t *testing.T, dir, bin string) []string {
	t.Helper()
	profiles := fmt.Sprintf(`default: orders
profiles:
  orders: {tokenUrl: %q, issuer: %q, clientId: %s}
  me: {tokenUrl: %q, issuer: %q, clientId: %s, redirectUrl: "http://localhost:0", scopes: [openid, email, orders/read]}
`, w.url+"/oauth2/token", w.pool.Issuer(), cognitotest.DemoClientID, w.url+"/oauth2/token", w.pool.Issuer(), cognitotest.DemoWebID)
	for name, text := range map[string]string{
		"home/.config/cognitoctl/config.yaml": profiles,
		"old.secret":                          "a_secret_that_has_been_deleted",
		"new.secret":                          "demo_only_second_secret_of_orders",
		"token.txt":                           w.pool.Token(cognitotest.DemoClientID),
		// The person's browser: the stand-in signs in at once, and sends it to where the program waits.
		"bin/xdg-open": "#!/bin/sh\nexec curl -s -L -o /dev/null \"$1\"\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return append(os.Environ(),
		"PATH="+bin+string(os.PathListSeparator)+filepath.Join(dir, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"),
		"HOME="+filepath.Join(dir, "home"), "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=", "BROWSER=", "TZ=UTC",
		"COGNITOCTL_CLIENT_SECRET="+cognitotest.DemoClientSecret, "ORDERS_CLIENT_SECRET="+cognitotest.DemoClientSecret,
	)
}

// run runs a command of a page for callers. Those of one page run in one home, so that a login is there for what
// follows it.
func (p *callersPage) run(t *testing.T, c command) {
	if strings.Contains(c.text, "curl") {
		lab.NeedCurl(t)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "cognitoctl.yaml"), []byte(c.yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	replace := p.world.replacer()
	if strings.Contains(c.text, "cognitoctl.yaml") {
		replace = strings.NewReplacer() // the page's own file
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", replace.Replace(strings.Replace(c.text, "COGNITOCTL_CACHE_DIR=/var/cache/orders", "COGNITOCTL_CACHE_DIR=cache", 1)))
	cmd.Dir, cmd.Env = p.dir, p.environ
	out, err := cmd.CombinedOutput()
	denied := strings.HasPrefix(c.want, "denied: ") || strings.HasPrefix(c.want, "refused: ")
	if (err != nil) != denied {
		t.Errorf("%s: %v\n%s", c.text, err, out)
	}
	matches(t, c, string(out))
}

// A callersPage is a page with commands for callers, which share a home.
type callersPage struct {
	world   *callersWorld
	dir     string
	environ []string
}

func newCallersPage(t *testing.T) *callersPage {
	t.Helper()
	p := &callersPage{world: newCallersWorld(t), dir: t.TempDir()}
	p.environ = p.world.environ(t, p.dir, build(t, "./cmd/cognitoctl"))
	return p
}

// The Go of docs/callers.md is whole programs, which are built and run.
func TestGoForCallers(t *testing.T) {
	programs := make(map[string]string)
	for _, f := range fences(t, filepath.Join(root(t), "docs", "callers.md")) {
		if name, ok := strings.CutPrefix(f.info, "go "); ok {
			programs[name] = strings.Join(f.body, "\n") + "\n"
		} else if f.info == "go" {
			t.Errorf("docs/callers.md:%d: Go without the name of a program, want one such as go call-http.go", f.line)
		}
	}
	for _, test := range []struct{ name, want string }{
		{"call-http.go", "200 OK\n"},
		{"call-grpc.go", "SERVING\n"},
		{"login.go", "tokens until "},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newCallersWorld(t)
			replace, caFile := w.goReplacer(t)
			program := buildGo(t, test.name, replace.Replace(programs[test.name]))
			dir := t.TempDir()
			for range 2 { // the second time, the login is in its file
				cmd := exec.CommandContext(t.Context(), program)
				cmd.Dir, cmd.Env = dir, append(w.environ(t, dir, ""), "SSL_CERT_FILE="+caFile)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil || !strings.HasPrefix(string(out), test.want) {
					t.Errorf("found %q, %v\n%s\nwant %q", out, err, stderr.String(), test.want)
				}
			}
			if got := w.pool.Requests(cognitotest.Authorize); test.name == "login.go" && got != 1 {
				t.Errorf("the person has logged in %d times, want once", got)
			}
		})
		delete(programs, test.name)
	}
	t.Run("aws.go", func(t *testing.T) { // pkg/cognito/identity runs one against a stand-in for AWS
		buildGo(t, "aws.go", programs["aws.go"]+"\nfunc main() { whoInAWS(context.Background(), nil) }\n")
	})
	delete(programs, "aws.go")
	if len(programs) != 0 {
		t.Errorf("docs/callers.md has programs that no test runs: %v", programs)
	}
}

// goReplacer is replacer for programs, which talk to an API over TLS too. It returns the file of the certificate.
func (w *callersWorld) goReplacer(t *testing.T) (*strings.Replacer, string) {
	t.Helper()
	cert := httptest.NewTLSServer(nil) // for its certificate, which is for 127.0.0.1
	t.Cleanup(cert.Close)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate().Raw})
	if err := os.WriteFile(caFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	auth := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if headers := md.Get("authorization"); len(headers) != 1 || !w.accepts(ctx, headers[0]) {
			return nil, status.Error(codes.Unauthenticated, "no token")
		}
		return next(ctx, req)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(auth), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: cert.TLS.Certificates})))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return strings.NewReplacer(
		`"https://my-team.auth.eu-west-1.amazoncognito.com/oauth2/token"`, fmt.Sprintf("%q", w.url+"/oauth2/token"),
		`Domain:      "my-team.auth.eu-west-1.amazoncognito.com",`, fmt.Sprintf("AuthorizeURL: %q, TokenURL: %q,", w.pool.AuthorizeURL(), w.pool.TokenURL()),
		`UserPoolID:  "eu-west-1_AbCdEfGhI",`, fmt.Sprintf("Issuers: []string{%q},", w.pool.Issuer()),
		`		Region:      "eu-west-1",`, "",
		`"http://localhost:3000"`, `"http://localhost:0"`,
		"https://api.example.com", w.api.URL,
		"api.example.com:443", l.Addr().String(),
		"7a8b9c0d1e2f3g4h5i6j7k8", cognitotest.DemoClientID,
		"3n4b5urk1ft4fl3mg5e62d9ado", cognitotest.DemoWebID,
	), caFile
}

// buildGo builds a program as if it stood in this module, and returns its path.
func buildGo(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, name)
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// A folder of the module that is only there for this build.
	folder := filepath.Join(root(t), "internal", "conventions", strings.TrimSuffix(name, ".go"))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(folder, "main.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, strings.TrimSuffix(name, ".go"))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlayFile, "-o", program, "./internal/conventions/"+strings.TrimSuffix(name, ".go"))
	cmd.Dir = root(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s does not build: %v\n%s", name, err, out)
	}
	return program
}
