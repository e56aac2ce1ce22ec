package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// An issued token is one that somebody else's issuer has made, with all that verifies it.
type issued struct {
	issuer, jwksURL string
	client          string
	access, id      string // id is empty for the client credentials grant
	stop            func() // ends the issuer
}

// start runs an issuer that ends when its input does, and returns what it prints once it listens.
func start(t *testing.T, cmd *exec.Cmd) (line string, stop func()) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var failure bytes.Buffer
	cmd.Stderr = &failure
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		t.Fatalf("%v said nothing, want its issuer: %s", cmd.Args, failure.String())
	}
	return line, stop
}

// serve runs an issuer on a port that is given to it, and returns when it listens there.
func serve(t *testing.T, addr string, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	stop = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	t.Cleanup(stop)
	deadline := time.After(time.Minute)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			tick.Stop()
			return stop
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatalf("%v ended, want it to listen on %s:\n%s", cmd.Args, addr, said.String())
		case <-deadline:
			t.Fatalf("%v does not listen on %s after a minute", cmd.Args, addr)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// post sends a request and decodes its answer.
func post(t *testing.T, req *http.Request, into any) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 300 {
		t.Fatalf("%s: status is %d, want 200: %s", req.URL.Path, resp.StatusCode, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v in %s", req.URL.Path, err, text)
	}
}

// clientCredentials starts one of our scripts, which prints its issuer, and asks for a token.
func clientCredentials(t *testing.T, script, tokenPath, jwksPath string) issued {
	line, stop := start(t, program(t, installed(t), "node", script))
	var said struct{ Issuer string }
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		t.Fatalf("%s printed %q: %v", script, line, err)
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"orders-batch"}, "client_secret": {"secret"}, "scope": {"orders/read orders/write"},
	}
	// The client comes in the body: that is what the hook of one reads, and the other was told so.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, said.Issuer+tokenPath, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	post(t, req, &answer)
	return issued{said.Issuer, said.Issuer + jwksPath, "orders-batch", answer.AccessToken, "", stop}
}

// cognitoAPI calls the user pools API as the AWS SDKs do; neither stand-in checks the signature.
func cognitoAPI(t *testing.T, addr, action string, input, into any) {
	t.Helper()
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AWSCognitoIdentityProviderService."+action)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/cognito-idp/aws4_request, SignedHeaders=host, Signature=0")
	post(t, req, into)
}

type obj = map[string]any

// signIn makes a pool, an app client and a person, who signs in by InitiateAuth.
func signIn(t *testing.T, addr string) (pool, client, access, id string) {
	t.Helper()
	const person, password = "jane@example.com", "Interop-Only-1!"
	var none obj
	var made struct {
		UserPool       struct{ Id string }       //nolint:revive // Amazon's name
		UserPoolClient struct{ ClientId string } //nolint:revive // Amazon's name
	}
	cognitoAPI(t, addr, "CreateUserPool", obj{"PoolName": "interop"}, &made)
	pool = made.UserPool.Id
	flows := []string{"ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"}
	cognitoAPI(t, addr, "CreateUserPoolClient", obj{"UserPoolId": pool, "ClientName": "interop", "ExplicitAuthFlows": flows}, &made)
	client = made.UserPoolClient.ClientId
	cognitoAPI(t, addr, "AdminCreateUser", obj{
		"UserPoolId": pool, "Username": person, "TemporaryPassword": password, "MessageAction": "SUPPRESS",
		"UserAttributes": []obj{{"Name": "email", "Value": person}, {"Name": "email_verified", "Value": "true"}},
	}, &none)
	cognitoAPI(t, addr, "AdminSetUserPassword", obj{"UserPoolId": pool, "Username": person, "Password": password, "Permanent": true}, &none)
	var answer struct {
		AuthenticationResult struct{ AccessToken, IdToken string } //nolint:revive // Amazon's name
	}
	cognitoAPI(t, addr, "InitiateAuth", obj{
		"ClientId": client, "AuthFlow": "USER_PASSWORD_AUTH", "AuthParameters": obj{"USERNAME": person, "PASSWORD": password},
	}, &answer)
	return pool, client, answer.AuthenticationResult.AccessToken, answer.AuthenticationResult.IdToken
}

func fromMoto(t *testing.T) issued {
	folder, addr := installed(t), freeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	stop := serve(t, addr, program(t, folder, "python3", "-m", "moto.server", "-H", host, "-p", port))
	pool, client, access, id := signIn(t, addr)
	// Its issuer has Cognito's own form, while its key set is here.
	return issued{validator.CognitoIssuer("eu-west-1", pool), "http://" + addr + "/" + pool + "/.well-known/jwks.json", client, access, id, stop}
}

// cognitoLocal starts one.
func cognitoLocal(t *testing.T) (addr string, stop func()) {
	t.Helper()
	folder, addr := installed(t), freeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	cmd := program(t, folder, "node", filepath.Join(folder, "node_modules", "cognito-local", "lib", "bin", "start.js"))
	cmd.Dir = t.TempDir() // it keeps its pools in the working directory
	cmd.Env = append(cmd.Env, "HOST="+host, "PORT="+port)
	return addr, serve(t, addr, cmd)
}

func fromCognitoLocal(t *testing.T) issued {
	addr, stop := cognitoLocal(t)
	pool, client, access, id := signIn(t, addr)
	issuer := "http://" + addr + "/" + pool
	return issued{issuer, validator.JWKSURL(issuer), client, access, id, stop}
}

func TestIssuers(t *testing.T) {
	installed(t)
	for name, from := range map[string]func(*testing.T) issued{
		"moto":          fromMoto,
		"cognito-local": fromCognitoLocal,
		"oauth2-mock-server": func(t *testing.T) issued {
			return clientCredentials(t, "oauth2-mock-server.mjs", "/token", "/jwks")
		},
		"oidc-provider": func(t *testing.T) issued {
			return clientCredentials(t, "oidc-provider.mjs", "/token", "/jwks")
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := from(t)
			keys, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: i.jwksURL})
			if err != nil {
				t.Fatal(err)
			}
			i.tokens(t, keys)
			i.stop()
			if err := keys.Refresh(t.Context()); err == nil {
				t.Error("the key set was fetched, want the issuer stopped")
			}
			i.tokens(t, keys)
		})
	}
}

// tokens validates the issuer's tokens, and changes one setting at a time.
func (i issued) tokens(t *testing.T, keys validator.KeySet) {
	t.Helper()
	tests := []struct {
		name      string
		edit      func(*validator.Config)
		access    error
		id        error
		forPeople bool // says something only if the issuer has people
	}{
		{"as configured", func(*validator.Config) {}, nil, validator.ErrTokenUse, false},
		{"other client", func(c *validator.Config) { c.ClientIDs = []string{"other"} }, validator.ErrClient, validator.ErrTokenUse, false},
		{"other issuer", func(c *validator.Config) { c.Issuers[0] += "X" }, validator.ErrIssuer, validator.ErrIssuer, false},
		{"audience", func(c *validator.Config) { c.Audience = []string{"https://other.example.com"} }, validator.ErrAudience, validator.ErrTokenUse, false},
		{"scope", func(c *validator.Config) { c.RequiredScopes = []string{"orders/admin"} }, validator.ErrInsufficientScope, validator.ErrTokenUse, false},
		{"ID tokens", func(c *validator.Config) { c.TokenUses = []validator.TokenUse{validator.IDToken} }, validator.ErrTokenUse, nil, false},
		{"machines only", func(c *validator.Config) { c.MachinesOnly = true }, validator.ErrNotAMachine, validator.ErrTokenUse, true},
		{"after a day", func(c *validator.Config) { c.Now = func() time.Time { return time.Now().Add(25 * time.Hour) } }, validator.ErrExpired, validator.ErrExpired, false},
	}
	for _, tc := range tests {
		cfg := validator.Config{Issuers: []string{i.issuer}, ClientIDs: []string{i.client}, Keys: keys}
		tc.edit(&cfg)
		v, err := validator.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if tc.forPeople && i.id == "" {
			tc.access = nil
		}
		claims, err := v.Validate(t.Context(), i.access)
		if !errors.Is(err, tc.access) {
			t.Errorf("%s: access token: got %v, want %v", tc.name, err, tc.access)
		}
		if err == nil && claims.ClientID != i.client {
			t.Errorf("%s: client is %q, want %q", tc.name, claims.ClientID, i.client)
		}
		if want := []string{"orders/read", "orders/write"}; err == nil && i.id == "" && !slices.Equal(claims.Scopes, want) {
			t.Errorf("%s: scopes are %q, want %q", tc.name, claims.Scopes, want)
		}
		if i.id == "" {
			continue
		}
		if _, err := v.Validate(t.Context(), i.id); !errors.Is(err, tc.id) {
			t.Errorf("%s: ID token: got %v, want %v", tc.name, err, tc.id)
		}
	}
}
