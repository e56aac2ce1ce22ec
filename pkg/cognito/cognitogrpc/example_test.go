package cognitogrpc_test

import (
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/cognitogrpc"
)

func Example() {
	source, err := cognito.NewTokenSource(cognito.Config{
		TokenURL: "https://my-app.auth.eu-west-1.amazoncognito.com/oauth2/token",
		ClientID: "7a8b9c0d1e2f3g4h5i6j7k8",
		Secret:   cognito.SecretFile("/var/run/secrets/cognito/client-secret"),
	})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := grpc.NewClient("api.example.com:443",
		grpc.WithTransportCredentials(credentials.NewTLS(nil)),
		grpc.WithPerRPCCredentials(cognitogrpc.New(source)),
		grpc.WithUnaryInterceptor(cognitogrpc.UnaryClientInterceptor))
	if err != nil {
		log.Fatal(err)
	}
	// The clients of services are made of conn.
	if err := conn.Close(); err != nil {
		log.Fatal(err)
	}
}
