package tokenfile_test

import (
	"log"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/tokenfile"
)

func Example() {
	cfg := cognito.Config{
		TokenURL: "https://my-app.auth.eu-west-1.amazoncognito.com/oauth2/token",
		ClientID: "7a8b9c0d1e2f3g4h5i6j7k8",
		Secret:   cognito.SecretEnv("COGNITO_CLIENT_SECRET"),
	}
	cache, err := tokenfile.New(tokenfile.Config{Problem: func(err error) { log.Print(err) }})
	if err != nil {
		log.Print(err) // it goes on without: a token for each process
	} else {
		cfg.Cache = cache
	}
	source, err := cognito.NewTokenSource(cfg)
	if err != nil {
		log.Fatal(err)
	}
	_ = source
}
