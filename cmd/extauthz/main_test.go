package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"extauthz": main})
}

// Each script in testdata/script is a session with the program.
func TestScripts(t *testing.T) {
	pool, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("POOL", pool.Pools()[0].Issuer())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"expand": expand, "wait-for-file": waitForFile,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// The manual names the identity headers that the service sets.
func TestIdentityHeadersAreThoseOfTheManual(t *testing.T) {
	cfg := &config.Config{IdentityHeaders: config.IdentityHeaders{Prefix: "x-auth-", Claims: map[string]string{"tier": "custom:tier"}}}
	want := slices.Sorted(slices.Values(cfg.IdentityHeaders.Names()))
	if diff := cmp.Diff(want, identity(cfg).IdentityHeaders()); diff != "" {
		t.Errorf("(-config +authz)\n%s", diff)
	}
}

// expand puts environment variables into files, which testscript itself leaves alone.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! expand")
	}
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// waitForFile returns when a file is there.
func waitForFile(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := os.Stat(ts.MkAbs(args[0]))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s is not there after 20s", args[0])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// internal/config knows Cognito's issuers by itself, so that it need not link the verifier; they are the verifier's.
func TestIssuersAreThoseOfTheVerifier(t *testing.T) {
	pool := config.Pool{Region: "eu-west-1", UserPoolID: "eu-west-1_AbCdEfGhI", IssuerType: config.IssuerBoth}
	want := []string{
		validator.CognitoIssuer(pool.Region, pool.UserPoolID),
		validator.UpdatedIssuer(pool.Region, pool.UserPoolID),
	}
	if diff := cmp.Diff(want, pool.Issuers()); diff != "" {
		t.Errorf("(-validator +config)\n%s", diff)
	}
	if got, want := pool.KeysURL(), validator.JWKSURL(want[0]); got != want {
		t.Errorf("keys are at %s, want %s", got, want)
	}
}
