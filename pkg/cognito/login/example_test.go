package login_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
)

// A program that signs its user in when it has to, and keeps the tokens for the next time.
func Example() {
	ctx := context.Background()
	pool, folder, end := example()
	defer end()

	// In production: Domain: "my-app.auth.eu-west-1.amazoncognito.com", Region and UserPoolID.
	auth, err := login.New(exampleConfig(pool))
	if err != nil {
		panic(err)
	}
	store, err := login.NewFileStore(filepath.Join(folder, "tokens.json"))
	if err != nil {
		panic(err)
	}
	session, err := login.NewSession(login.SessionConfig{Authenticator: auth, Store: store})
	if err != nil {
		panic(err)
	}
	defer session.Wait()

	tokens, err := session.Tokens(ctx)
	if errors.Is(err, login.ErrLoginRequired) {
		fmt.Println(err)
		tokens, err = session.Login(ctx)
	}
	if err != nil {
		panic(err)
	}
	person, err := tokens.IDClaims()
	if err != nil {
		panic(err)
	}
	fmt.Println("signed in:", person.Email)

	if err := session.Logout(ctx); err != nil {
		panic(err)
	}
	_, err = session.AccessToken(ctx)
	fmt.Println(err)
	// Output:
	// login: a new login is needed: nobody is signed in
	// signed in: jane@example.com
	// login: a new login is needed: nobody is signed in
}

// Who keeps tokens elsewhere calls the Authenticator.
func ExampleAuthenticator() {
	ctx := context.Background()
	pool, _, end := example()
	defer end()
	auth, err := login.New(exampleConfig(pool))
	if err != nil {
		panic(err)
	}
	tokens, err := auth.Login(ctx)
	if err != nil {
		panic(err)
	}
	fresh, err := auth.Refresh(ctx, tokens)
	if err != nil {
		panic(err)
	}
	fmt.Println("the same person:", fresh.RefreshToken == tokens.RefreshToken)
	if err := auth.Revoke(ctx, fresh); err != nil {
		panic(err)
	}
	_, err = auth.Refresh(ctx, fresh)
	fmt.Println("signed out:", errors.Is(err, login.ErrLoginRequired))
	// Output:
	// the same person: true
	// signed out: true
}

// example starts a stand-in for Cognito, where jane signs in at once, and makes a folder.
func example() (_ *cognitotest.Pool, folder string, end func()) {
	demo := cognitotest.DemoPool()
	demo.SignInAs = "jane"
	demo.Clients[2].RedirectURLs = []string{"http://localhost:0"}
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{demo}})
	if err != nil {
		panic(err)
	}
	folder, err = os.MkdirTemp("", "login")
	if err != nil {
		panic(err)
	}
	return s.Pools()[0], folder, func() {
		s.Close()
		_ = os.RemoveAll(folder)
	}
}

// exampleConfig is that for a stand-in, and for a browser that nobody sees.
func exampleConfig(pool *cognitotest.Pool) login.Config {
	return login.Config{
		AuthorizeURL: pool.AuthorizeURL(),
		TokenURL:     pool.TokenURL(),
		RevokeURL:    pool.RevokeURL(),
		ClientID:     cognitotest.DemoWebID,
		RedirectURL:  "http://localhost:0",
		Issuers:      []string{pool.Issuer()},
		Output:       io.Discard,
		OpenBrowser: func(ctx context.Context, address string) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
			if err != nil {
				return err
			}
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		},
	}
}
