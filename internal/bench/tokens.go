package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// issuer is of Cognito's form and always the same, so that tokens can be kept from run to run.
const issuer = "https://cognito-idp.eu-west-1.amazonaws.com/" + cognitotest.DemoPoolID

// The lifetime of tokens, which is the longest that Cognito gives them, and what must be left of it for kept ones.
const (
	tokenTTL  = 24 * time.Hour
	tokenLeft = 2 * time.Hour
)

// A mint makes tokens. Signing takes about a millisecond of CPU each, so the good ones are kept in its directory together
// with the key, and made anew once they are about to expire.
type mint struct {
	dir     string
	key     cognitotest.Key
	cognito *cognitotest.Server // for its token format
	jwkSet  []byte
	jwks    *http.Server
	jwksURL string
}

// newMint serves the JWK Set of the key in dir, which is made if it is not there.
func newMint(dir string) (*mint, error) {
	key, err := keptKey(filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	set, err := jwkSet(key)
	if err != nil {
		return nil, err
	}
	demo := cognitotest.DemoPool()
	demo.Issuer = issuer
	cognito, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{demo}})
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		cognito.Close()
		return nil, err
	}
	m := &mint{dir: dir, key: key, cognito: cognito, jwkSet: set, jwksURL: "http://" + listener.Addr().String() + "/jwks.json"}
	m.jwks = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(set) // a client that has gone needs no answer
	})}
	go func() { _ = m.jwks.Serve(listener) }() // always http.ErrServerClosed
	return m, nil
}

func (m *mint) close() {
	_ = m.jwks.Close()
	m.cognito.Close()
}

func keptKey(file string) (cognitotest.Key, error) {
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		text, err = newKey(file)
	}
	if err != nil {
		return cognitotest.Key{}, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return cognitotest.Key{}, fmt.Errorf("%s holds no PEM block, want one; delete the file to have a new key", file)
	}
	private, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return cognitotest.Key{}, err
	}
	id := sha256.Sum256(private.N.Bytes())
	return cognitotest.Key{ID: base64.StdEncoding.EncodeToString(id[:]), Private: private}, nil
}

func newKey(file string) ([]byte, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	return text, os.WriteFile(file, text, 0o600)
}

// jwkSet returns the JWK Set of a key, in Cognito's form.
func jwkSet(key cognitotest.Key) ([]byte, error) {
	public := key.Private.PublicKey
	return json.Marshal(map[string][]map[string]string{"keys": {{
		"alg": "RS256", "kty": "RSA", "use": "sig", "kid": key.ID,
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(public.E)).Bytes()),
		"n": base64.RawURLEncoding.EncodeToString(public.N.Bytes()),
	}}})
}

// token returns a token of the client that may only read orders, with changes.
func (m *mint) token(changes ...cognitotest.TokenOption) string {
	options := append([]cognitotest.TokenOption{cognitotest.SignedBy(m.key), cognitotest.TTL(tokenTTL)}, changes...)
	return m.cognito.Pools()[0].Token(cognitotest.DemoReaderID, options...)
}

// tokens makes n tokens on all processors.
func (m *mint) tokens(n int, changes func(i int) []cognitotest.TokenOption) []string {
	made := make([]string, n)
	var workers sync.WaitGroup
	for w := range runtime.NumCPU() {
		workers.Go(func() {
			for i := w; i < n; i += runtime.NumCPU() {
				made[i] = m.token(changes(i)...)
			}
		})
	}
	workers.Wait()
	return made
}

// good returns n different good tokens, those kept first.
func (m *mint) good(n int) ([]string, error) {
	name := sha256.Sum256([]byte(m.key.ID))
	file := filepath.Join(m.dir, fmt.Sprintf("tokens-%x.txt", name[:6]))
	kept, err := keptTokens(file, time.Now())
	if err != nil {
		return nil, err
	}
	if missing := n - len(kept); missing > 0 {
		fmt.Fprintf(os.Stderr, "bench: signing %d tokens\n", missing)
		kept = append(kept, m.tokens(missing, func(int) []cognitotest.TokenOption { return nil })...)
		if err := os.WriteFile(file, []byte(strings.Join(kept, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	return kept[:n], nil
}

// keptTokens returns the file's tokens, none if the oldest, which is the first, is about to expire.
func keptTokens(file string, now time.Time) ([]string, error) {
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) || err == nil && len(text) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	kept := strings.Split(string(bytes.TrimSpace(text)), "\n")
	parts := strings.Split(kept[0], ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%s holds something else than tokens, want one in each line; delete it", file)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if time.Unix(claims.Exp, 0).Sub(now) < tokenLeft {
		return nil, nil
	}
	return kept, nil
}

// forged returns the token with a signature that is wrong in one of 64^4 ways. It is changed near its end: a signature that
// is as a number not below the key's modulus would be refused before the costly step.
func forged(token string, i int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	text := []byte(token)
	at := len(text) - 6
	for n := i; at < len(text)-2; at++ {
		text[at] = alphabet[n%64]
		n /= 64
	}
	if string(text) == token {
		return forged(token, i+1)
	}
	return string(text)
}
