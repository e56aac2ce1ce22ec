package validator_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

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

// One Validator takes the tokens of several user pools. Which pool a token is of, its iss says; only that pool's keys,
// clients and settings count for it.
func ExampleNew_severalPools() {
	first, firstToken, end := standIn()
	defer end()
	second, secondToken, end := standIn()
	defer end()

	v, err := validator.New(
		validator.Config{Name: "own", Issuers: []string{first.Issuer()}, ClientIDs: []string{cognitotest.DemoClientID}, Keys: keysOf(first)},
		validator.Config{Name: "partners", Issuers: []string{second.Issuer()}, AllowAnyClient: true, MachinesOnly: true, Keys: keysOf(second)},
	)
	if err != nil {
		panic(err)
	}
	for _, token := range []string{firstToken, secondToken} {
		claims, err := v.Validate(context.Background(), token)
		fmt.Println(claims.Pool, err)
	}
	// Output:
	// own <nil>
	// partners <nil>
}

// MatchAll, the default, asks for every required scope, MatchAny for one of them. Lacking scopes are told apart from all
// that is wrong with a token.
func ExampleInsufficientScopeError() {
	pool, token, end := standIn() // has orders/read and orders/write
	defer end()
	for _, match := range []validator.ScopeMatch{validator.MatchAll, validator.MatchAny} {
		v, err := validator.New(validator.Config{
			Issuers:        []string{pool.Issuer()},
			ClientIDs:      []string{cognitotest.DemoClientID},
			RequiredScopes: []string{"orders/read", "orders/admin"},
			ScopeMatch:     match,
			Keys:           keysOf(pool),
		})
		if err != nil {
			panic(err)
		}
		_, err = v.Validate(context.Background(), token)
		var lacking *validator.InsufficientScopeError
		if errors.As(err, &lacking) {
			fmt.Println("the token has", lacking.TokenScopes, "and needs", lacking.RequiredScopes)
			continue
		}
		fmt.Println("enough:", err)
	}
	// Output:
	// the token has [orders/read orders/write] and needs [orders/read orders/admin]
	// enough: <nil>
}

// A Cached answers as its Validator does, and checks a token's signature once.
func ExampleCached() {
	pool, token, end := standIn()
	defer end()
	cached, err := validator.NewCached(newExample(pool), validator.CacheConfig{Bytes: 8 << 20})
	if err != nil {
		panic(err)
	}
	for range 3 {
		if _, err := cached.Validate(context.Background(), token); err != nil {
			panic(err)
		}
	}
	s := cached.Status()
	fmt.Println(s.Verified, "token,", s.Misses, "miss,", s.Hits, "hits")
	// Output:
	// 1 token, 1 miss, 2 hits
}

// The secret of a client has leaked: its tokens are refused at once, but for those that it gets with the new secret.
func ExampleValidator_SetDenylist() {
	pool, old, end := standIn()
	defer end()
	v := newExample(pool)
	changed := time.Now().Add(10 * time.Second)
	err := v.SetDenylist([]validator.Revocation{
		{ClientID: cognitotest.DemoClientID, IssuedBefore: changed, Note: "INC-1234"},
	})
	if err != nil {
		panic(err)
	}

	_, err = v.Validate(context.Background(), old)
	fmt.Println(errors.Is(err, validator.ErrRevoked))
	_, err = v.Validate(context.Background(), pool.Token(cognitotest.DemoClientID, cognitotest.IssuedAt(changed.Add(time.Second))))
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// Keys from a file are for hosts without a way out. ReplaceableKeys takes them, and the next ones when they rotate.
func ExampleParseJWKS() {
	pool, token, end := standIn()
	defer end()
	text := pool.JWKS() // in production: os.ReadFile("jwks.json")

	set, problems, err := validator.ParseJWKS(text)
	if err != nil {
		panic(err)
	}
	keys, err := validator.NewReplaceableKeys(set)
	if err != nil {
		panic(err)
	}
	v, err := validator.New(validator.Config{Issuers: []string{pool.Issuer()}, ClientIDs: []string{cognitotest.DemoClientID}, Keys: keys})
	if err != nil {
		panic(err)
	}
	claims, err := v.Validate(context.Background(), token)
	fmt.Println(len(set), "keys, left out:", problems, "-", claims.ClientID, err)
	fmt.Println(keys.Replace(nil))
	// Output:
	// 2 keys, left out: [] - 1ordersbatch0demo0client00 <nil>
	// validator: no keys, want at least one
}

// The three kinds of error get three kinds of answer. Error texts are for the log: callers learn the reason and no more.
func ExampleRetryAfter() {
	pool, token, end := standIn()
	defer end()
	v := newExample(pool)

	pool.Fail(cognitotest.JWKS, cognitotest.Fault{Status: http.StatusServiceUnavailable})
	keys, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: pool.JWKSURL(), MinInterval: time.Second})
	if err != nil {
		panic(err)
	}
	withoutKeys, err := validator.New(validator.Config{Issuers: []string{pool.Issuer()}, AllowAnyClient: true, Keys: keys})
	if err != nil {
		panic(err)
	}

	serve(v, token)
	serve(v, "garbage")
	serve(v, pool.Token(cognitotest.DemoReaderID)) // not among the ClientIDs
	serve(v, pool.Token(cognitotest.DemoClientID, cognitotest.Scopes("orders/admin")))
	serve(withoutKeys, token)
	// Output:
	// 204 map[]
	// 401 map[Www-Authenticate:[Bearer error="invalid_token"]]
	// 403 map[]
	// 403 map[Www-Authenticate:[Bearer error="insufficient_scope", scope="orders/read"]]
	// 503 map[Retry-After:[1]]
}

// serve prints what a request with this token is answered.
func serve(v *validator.Validator, token string) {
	w := httptest.NewRecorder()
	_, err := v.Validate(context.Background(), token)
	var lacking *validator.InsufficientScopeError
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, validator.ErrKeysUnavailable):
		w.Header().Set("Retry-After", strconv.Itoa(int(validator.RetryAfter(err).Seconds())))
		w.WriteHeader(http.StatusServiceUnavailable)
	case errors.As(err, &lacking):
		challenge := `Bearer error="insufficient_scope", scope="` + strings.Join(lacking.RequiredScopes, " ") + `"`
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusForbidden)
	case errors.Is(err, validator.ErrClient):
		w.WriteHeader(http.StatusForbidden)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	fmt.Println(w.Code, w.Header())
}

func standIn() (pool *cognitotest.Pool, token string, end func()) {
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		panic(err)
	}
	pool = s.Pools()[0]
	return pool, pool.Token(cognitotest.DemoClientID), s.Close
}

func keysOf(pool *cognitotest.Pool) validator.KeySet {
	keys, _, err := validator.ParseJWKS(pool.JWKS())
	if err != nil {
		panic(err)
	}
	return keys
}

func newExample(pool *cognitotest.Pool) *validator.Validator {
	v, err := validator.New(validator.Config{
		Issuers:        []string{pool.Issuer()},
		ClientIDs:      []string{cognitotest.DemoClientID},
		RequiredScopes: []string{"orders/read"},
		Keys:           keysOf(pool),
	})
	if err != nil {
		panic(err)
	}
	return v
}
