package cognito_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
)

func Example() {
	tokenURL, err := cognito.TokenURL("eu-west-1", "my-app")
	if err != nil {
		log.Fatal(err)
	}
	source, err := cognito.NewTokenSource(cognito.Config{
		TokenURL: tokenURL,
		ClientID: "7a8b9c0d1e2f3g4h5i6j7k8",
		Secret:   cognito.SecretEnv("COGNITO_CLIENT_SECRET"),
		Scopes:   []string{"orders/read"},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: source.Transport(nil), Timeout: 10 * time.Second}
	resp, err := client.Get("https://api.example.com/orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Status)
	if err := resp.Body.Close(); err != nil {
		log.Fatal(err)
	}
}

// While one secret is replaced by another, both are at hand: the second is tried when the first is not accepted.
func ExampleSecretFile() {
	_ = cognito.Config{
		Secret: cognito.SecretFile("/var/run/secrets/cognito/current", "/var/run/secrets/cognito/next"),
	}
}

func ExampleTokenRequestError() {
	server, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	source, err := cognito.NewTokenSource(cognito.Config{
		TokenURL: server.Pools()[0].TokenURL(),
		ClientID: cognitotest.DemoClientID,
		Secret:   cognito.StaticSecret("not-the-secret"),
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = source.Token(context.Background())
	var request *cognito.TokenRequestError
	if errors.As(err, &request) {
		fmt.Println(request.StatusCode, request.ErrorCode, request.ErrorDescription, cognito.IsTemporary(err))
	}
	// Output: 400 invalid_client invalid_client_secret false
}
