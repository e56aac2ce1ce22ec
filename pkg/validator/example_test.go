package validator_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// In production: issuer := validator.CognitoIssuer("eu-west-1", "eu-west-1_AbCdEfGhI")
	pool, token, end := standIn()
	defer end()
	issuer := pool.Issuer()

	keys, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: validator.JWKSURL(issuer)})
	if err != nil {
		panic(err)
	}
	go func() { _ = keys.Run(ctx) }() // keeps them fresh until ctx ends

	v, err := validator.New(validator.Config{
		Issuers:   []string{issuer},
		ClientIDs: []string{cognitotest.DemoClientID},
		Keys:      keys,
	})
	if err != nil {
		panic(err)
	}

	claims, err := v.Validate(ctx, token)
	fmt.Println(claims.ClientID, claims.Scopes, err)

	_, err = v.Validate(ctx, token+"x")
	fmt.Println(errors.Is(err, validator.ErrMalformed) || errors.Is(err, validator.ErrSignature))
	// Output:
	// 1ordersbatch0demo0client00 [orders/read orders/write] <nil>
	// true
}

func standIn() (pool *cognitotest.Pool, token string, end func()) {
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		panic(err)
	}
	pool = s.Pools()[0]
	return pool, pool.Token(cognitotest.DemoClientID), s.Close
}
