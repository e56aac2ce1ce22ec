// Golang-jwt verifies the tokens of the corpus with github.com/golang-jwt/jwt, as its documentation advises, and with the
// JWK Set reader that its documentation names. It reads a JSON line for each token and answers with one.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/MicahParks/keyfunc/v2"
	"github.com/golang-jwt/jwt/v5"
)

type question struct {
	Name      string   `json:"name"`
	Token     string   `json:"token"`
	JWKS      string   `json:"jwks"`
	Region    string   `json:"region"`
	PoolID    string   `json:"userPoolId"`
	ClientIDs []string `json:"clientIds"`
	TokenUse  string   `json:"tokenUse"`
}

type answer struct {
	Name     string   `json:"name"`
	Accepted bool     `json:"accepted"`
	Error    string   `json:"error,omitempty"`
	ClientID string   `json:"clientId"`
	Scopes   []string `json:"scopes"`
}

// claims are what a careful user of the library would declare.
type claims struct {
	jwt.RegisteredClaims
	TokenUse string `json:"token_use"`
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var q question
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, "golang-jwt:", err)
			os.Exit(1)
		}
		a := answer{Name: q.Name}
		client, scopes, err := verify(q)
		if err != nil {
			a.Error = err.Error()
		} else {
			a.Accepted, a.ClientID, a.Scopes = true, client, scopes
		}
		_ = out.Encode(a)
	}
}

func verify(q question) (client string, scopes []string, err error) {
	defer func() {
		if p := recover(); p != nil { // keyfunc cannot read every JWK Set
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	keys, err := keyfunc.NewJSON(json.RawMessage(q.JWKS))
	if err != nil {
		return "", nil, err
	}
	var c claims
	_, err = jwt.ParseWithClaims(q.Token, &c, keys.Keyfunc,
		jwt.WithValidMethods([]string{"RS256"}),
		jwt.WithIssuer("https://cognito-idp."+q.Region+".amazonaws.com/"+q.PoolID),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
	)
	if err != nil {
		return "", nil, err
	}
	if c.TokenUse != q.TokenUse {
		return "", nil, errors.New("token_use")
	}
	client = c.ClientID
	if q.TokenUse == "id" {
		if len(c.Audience) != 1 {
			return "", nil, errors.New("aud")
		}
		client = c.Audience[0]
	}
	if !slices.Contains(q.ClientIDs, client) {
		return "", nil, errors.New("client")
	}
	return client, strings.Split(c.Scope, " "), nil
}
