//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"cognitoctl": main,
		"child":      child,
		"browser":    browser,
	})
}

// canary is a secret of the stand-in's client: no output may hold it.
const canary = "canary1secret2of3orders4batch5canary6secret7of8orders"

// TestScripts runs testdata/script. Each script has a stand-in for Cognito with the demo pool, whose client for orders has
// the secret $SECRET. $URL is the stand-in's, $TOKEN_URL its token endpoint, $ISSUER the pool, $CLIENT the client, $WEB_CLIENT
// that for people; $IDENTITY_URL is a stand-in for an identity pool. Home is empty. Beside testscript's own commands there are:
//
//	ctl CODE ARGUMENT...      runs cognitoctl and wants that exit code; no secret may be in what it prints, and no token in
//	                          what it prints to standard error
//	pool fail ENDPOINT [status=N] [body=TEXT] [hang] [delay=DURATION] [times=N]
//	pool heal ENDPOINT
//	pool secrets SECRET...    changes the client's secrets
//	pool revoke               ends all logins
//	pool requests ENDPOINT N  wants that many requests since the script began
//	mint FILE [client=ID] [user=NAME] [use=id] [ttl=DURATION] [scope=SCOPE,...] [forged]
//	                          writes a token
//	jwks FILE                 writes the pool's JWK Set
//	expand FILE...            puts environment variables into files
//	wait-for-file FILE        returns when the file is there
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ctl": cmdCtl, "pool": cmdPool, "mint": cmdMint, "jwks": cmdJWKS, "expand": cmdExpand, "wait-for-file": cmdWaitForFile,
		},
		Setup: setup,
		Condition: func(name string) (bool, error) {
			if name == "root" { // to whom no permission is denied
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %s", name)
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

type poolKey struct{}

func setup(env *testscript.Env) error {
	demo := cognitotest.DemoPool()
	demo.Clients[0].Secrets = []string{canary}
	demo.Clients[2].RedirectURLs = []string{"http://127.0.0.1:0"}
	demo.Clients[2].LogoutURLs = []string{"http://127.0.0.1:0", "http://127.0.0.1:1/bye"}
	demo.SignInAs = "joe"
	demo.Clients = append(demo.Clients, cognitotest.Client{ID: shortID, Secrets: []string{shortSecret}, Scopes: []string{"orders/read"}, TokenTTL: 2 * time.Second})
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{demo}})
	if err != nil {
		return err
	}
	env.Defer(s.Close)
	pool := s.Pools()[0]
	env.Values[poolKey{}] = pool
	identityPool := httptest.NewServer(&identityPool{})
	env.Defer(identityPool.Close)
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"URL": s.URL, "TOKEN_URL": s.URL + "/oauth2/token", "ISSUER": pool.Issuer(), "CLIENT": cognitotest.DemoClientID, "SECRET": canary,
		"IDENTITY_URL": identityPool.URL, "WEB_CLIENT": cognitotest.DemoWebID,
		"SHORT_CLIENT": shortID, "SHORT_SECRET": shortSecret,
		"HOME": home, "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "XDG_RUNTIME_DIR": "", "TZ": "UTC",
		"GORACE": "atexit_sleep_ms=0", // with the race detector, each process would end a second late
	} {
		env.Setenv(name, value)
	}
	return nil
}

func poolOf(ts *testscript.TestScript) *cognitotest.Pool {
	return ts.Value(poolKey{}).(*cognitotest.Pool)
}

func cmdCtl(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: ctl CODE ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("cognitoctl", args[1:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code is %d, want %d", got, want)
	}
	if strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), canary[:20]) {
		ts.Fatalf("the secret is shown")
	}
	if strings.Contains(ts.ReadFile("stderr"), "eyJ") {
		ts.Fatalf("a token is shown on standard error")
	}
}

func cmdPool(ts *testscript.TestScript, neg bool, args []string) {
	pool := poolOf(ts)
	switch args[0] {
	case "fail":
		f := cognitotest.Fault{}
		for _, arg := range args[2:] {
			name, value, _ := strings.Cut(arg, "=")
			switch name {
			case "status":
				f.Status, _ = strconv.Atoi(value)
			case "body":
				f.Body = []byte(value)
			case "hang":
				f.Hang = true
			case "delay":
				f.Delay, _ = time.ParseDuration(value)
			case "times":
				f.Times, _ = strconv.Atoi(value)
			case "retry-after":
				f.Header = http.Header{"Retry-After": {value}}
			default:
				ts.Fatalf("no fault %q", name)
			}
		}
		pool.Fail(cognitotest.Endpoint(args[1]), f)
	case "heal":
		pool.Heal(cognitotest.Endpoint(args[1]))
	case "secrets":
		ts.Check(pool.SetSecrets(cognitotest.DemoClientID, args[1:]...))
	case "revoke":
		pool.RevokeSignIns()
	case "requests":
		want, err := strconv.Atoi(args[2])
		ts.Check(err)
		if got := pool.Requests(cognitotest.Endpoint(args[1])); got != want {
			ts.Fatalf("there were %d requests, want %d", got, want)
		}
	default:
		ts.Fatalf("no command pool %s", args[0])
	}
}

func cmdMint(ts *testscript.TestScript, neg bool, args []string) {
	pool, client, user, use := poolOf(ts), cognitotest.DemoClientID, "", ""
	var opts []cognitotest.TokenOption
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "client":
			client = value
		case "user":
			user = value
		case "use":
			use = value
		case "ttl":
			ttl, err := time.ParseDuration(value)
			ts.Check(err)
			opts = append(opts, cognitotest.TTL(ttl))
		case "scope":
			opts = append(opts, cognitotest.Scopes(strings.Split(value, ",")...))
		case "forged":
			opts = append(opts, cognitotest.SignedBy(pool.ForgedKey()))
		default:
			ts.Fatalf("no option %q", name)
		}
	}
	token := pool.Token(client, opts...)
	switch {
	case use == "id":
		token = pool.IDToken(client, user, opts...)
	case user != "":
		token = pool.UserToken(client, user, opts...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(token+"\n"), 0o600))
}

func cmdJWKS(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), poolOf(ts).JWKS(), 0o600))
}

func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

func cmdWaitForFile(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("%s is not there after 20s", args[0])
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// shortID is an app client whose tokens live for two seconds, and shortSecret its secret.
const (
	shortID     = "4short0lived0client0000000"
	shortSecret = canary + "short"
)

// browser is a program for BROWSER to name. It does what a person does with the login page, whose address is the last
// argument.
func browser() {
	address := os.Args[len(os.Args)-1]
	u, err := url.Parse(address)
	if err == nil {
		redirect, state := u.Query().Get("redirect_uri"), u.Query().Get("state")
		switch os.Args[1] {
		case "login": // follows the redirects to the end; the stand-in signs in at once
		case "deny":
			address = redirect + "?error=access_denied&error_description=No&state=" + url.QueryEscape(state)
		case "forge":
			address = redirect + "?code=x&state=another"
		case "never":
			return
		default:
			err = errors.New("there is no display")
		}
	}
	if err == nil {
		var res *http.Response
		if res, err = http.Get(address); err == nil {
			err = res.Write(os.Stdout)
			res.Body.Close()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// identityPool is a stand-in for Amazon Cognito Federated Identities. It counts in the access key how often it was asked.
type identityPool struct{ asked atomic.Int64 }

func (p *identityPool) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		CustomRoleArn string
		Logins        map[string]string
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Logins) != 1 {
		w.Header().Set("X-Amzn-ErrorType", "InvalidParameterException")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"InvalidParameterException","message":"no login"}`)
		return
	}
	switch r.Header.Get("X-Amz-Target") {
	case "AWSCognitoIdentityService.GetId":
		fmt.Fprint(w, `{"IdentityId":"eu-west-1:99999999-1111-2222-3333-444444444444"}`)
	case "AWSCognitoIdentityService.GetCredentialsForIdentity":
		if strings.HasSuffix(in.CustomRoleArn, "/Forbidden") {
			w.Header().Set("X-Amzn-ErrorType", "NotAuthorizedException")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"NotAuthorizedException","message":"Access to Role is forbidden"}`)
			return
		}
		fmt.Fprintf(w, `{"IdentityId":"eu-west-1:99999999-1111-2222-3333-444444444444","Credentials":{"AccessKeyId":"ASIA%016d","SecretKey":"aws'secret","SessionToken":"aws-session","Expiration":%d}}`,
			p.asked.Add(1), time.Now().Add(time.Hour).Unix())
	}
}

// child is a program for exec to run. It tells what it has been given.
func child() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(99)
		}
	}
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		fail(err)
		return n
	}
	switch args := os.Args[2:]; os.Args[1] {
	case "env": // env NAME...
		for _, name := range args {
			fmt.Printf("%s=%s\n", name, os.Getenv(name))
		}
	case "exit": // exit CODE
		os.Exit(number(args[0]))
	case "die": // die SIGNAL
		fail(syscall.Kill(os.Getpid(), syscall.Signal(number(args[0]))))
		select {}
	case "signals": // signals READY N: says when it is ready and prints N signals
		signals := make(chan os.Signal, 16)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
		fail(os.WriteFile(args[0], []byte(strconv.Itoa(os.Getppid())), 0o600))
		for range number(args[1]) {
			fmt.Println(<-signals)
		}
	case "interrupts": // interrupts: does to its process group what a terminal does at Ctrl-C, and counts what comes
		signals := make(chan os.Signal, 16)
		signal.Notify(signals, syscall.SIGINT)
		fail(syscall.Kill(0, syscall.SIGINT))
		n := 0
		for done := time.After(500 * time.Millisecond); ; n++ {
			select {
			case <-signals:
				continue
			case <-done:
			}
			break
		}
		fmt.Println("interrupts:", n)
	case "watch": // watch N: prints the token's file until it has seen N tokens
		seen, deadline := "", time.Now().Add(30*time.Second)
		for n := number(args[0]); n > 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			token, err := os.ReadFile(os.Getenv("COGNITO_ACCESS_TOKEN_FILE"))
			fail(err)
			header, err := os.ReadFile(os.Getenv("COGNITO_ACCESS_TOKEN_HEADER_FILE"))
			fail(err)
			if strings.Count(string(token), ".") != 2 || !strings.HasPrefix(string(header), "Authorization: Bearer eyJ") || !strings.HasSuffix(string(header), "\n") {
				fail(fmt.Errorf("found the token %q and the header %q, want whole ones", token, header))
			}
			if string(token) != seen {
				seen = string(token)
				n--
				fmt.Println("token", n)
			}
		}
	case "modes": // modes: prints who may read the files
		for _, name := range []string{filepath.Dir(os.Getenv("COGNITO_ACCESS_TOKEN_FILE")), os.Getenv("COGNITO_ACCESS_TOKEN_FILE"), os.Getenv("COGNITO_ACCESS_TOKEN_HEADER_FILE")} {
			info, err := os.Stat(name)
			fail(err)
			fmt.Println(info.Mode())
		}
	case "cmdlines": // cmdlines: prints its own command line and that of its parent, as every user can read them
		for _, pid := range []int{os.Getpid(), os.Getppid()} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			fail(err)
			fmt.Println(strings.ReplaceAll(string(text), "\x00", " "))
		}
	default:
		fail(fmt.Errorf("no mode %q", os.Args[1]))
	}
}
