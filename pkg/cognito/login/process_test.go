package login

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// childEnv has the test binary be a program that prints its access token, with this file of tokens.
const childEnv = "EXTAUTHZ_LOGIN_TEST_FILE"

// runChild waits for a line on its input, so that all of them begin at once.
func runChild(path string) int {
	token, err := childToken(path)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("token:", token)
	return 0
}

func childToken(path string) (string, error) {
	a, err := New(Config{
		AuthorizeURL: os.Getenv("AUTHORIZE_URL"), TokenURL: os.Getenv("TOKEN_URL"), ClientID: os.Getenv("CLIENT_ID"),
		Issuers: []string{os.Getenv("ISSUER")},
	})
	if err != nil {
		return "", err
	}
	store, err := NewFileStore(path)
	if err != nil {
		return "", err
	}
	s, err := NewSession(SessionConfig{Authenticator: a, Store: store})
	if err != nil {
		return "", err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return "", err
	}
	return s.AccessToken(context.Background())
}

// However many processes find an expired token, they cost one refresh: with rotation, a second one would end the sign-in.
func TestProcessesJoinRefreshes(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	path := filepath.Join(t.TempDir(), "tokens", "jane.json")
	store := newFileStore(t, path)
	f.signedIn(t, func(c *SessionConfig) { c.Store = store })
	old, err := store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The children have the machine's clock: to them, these have two minutes left.
	f.pool.AlterUserTokens([]cognitotest.TokenOption{cognitotest.TTL(2 * time.Minute)}, []cognitotest.TokenOption{cognitotest.TTL(2 * time.Minute)})
	a := f.authenticator(t, func(c *Config) { c.Now = time.Now })
	due, err := a.Refresh(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	due.ObtainedAt = due.ObtainedAt.Add(-58 * time.Minute)
	if err := store.Save(t.Context(), due); err != nil {
		t.Fatal(err)
	}
	f.pool.AlterUserTokens(nil, nil)
	since := f.requests()
	since()

	const processes = 12
	var wait, begin []func() error
	got := make(map[string]int)
	for range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path, "AUTHORIZE_URL="+f.pool.AuthorizeURL(), "TOKEN_URL="+f.pool.TokenURL(),
			"CLIENT_ID="+f.client.ID, "ISSUER="+f.pool.Issuer())
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out := new(strings.Builder)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begin = append(begin, func() error {
			_, err := in.Write([]byte("\n"))
			return err
		})
		wait = append(wait, func() error {
			err := cmd.Wait()
			got[out.String()]++
			return err
		})
	}
	for _, do := range append(begin, wait...) {
		if err := do(); err != nil {
			t.Error(err)
		}
	}
	if len(got) != 1 || got["token: "+due.AccessToken+"\n"] > 0 {
		t.Errorf("%d processes printed %d different things, want one new token", processes, len(got))
	}
	if n := since(); n != 1 {
		t.Errorf("the token endpoint got %d requests, want 1", n)
	}
}
