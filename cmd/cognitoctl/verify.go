package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func verifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Tell whether a token is good, and if not, why",
		Long: `verify does with a token what a service does: it checks form, algorithm, issuer, times, kind, app client,
scopes and signature, with the keys that the user pool publishes or those of a file. It says what the
token is good for, or the reason why it is refused, which is one of docs/reasons.md.

It reads FILE or standard input, and takes a token, an Authorization header or the JSON answer that a
token came in. Which app clients are accepted is always said: by --client, by the profile, or --any-client.

Exit codes: 0 the token is good; 3 it is refused; 4 not enough scopes, or a client that is not accepted
(then the signature was not looked at); 5 the keys could not be had, so nothing is known.`,
		Example: `  cognitoctl token | cognitoctl verify
  cognitoctl verify --user-pool-id eu-west-1_AbCdEfGhI --any-client < token.txt
  cognitoctl verify --issuer https://issuer.example/pool --jwks-file jwks.json --client 7a8b9c0d1e2f3g4h5i6j7k8 token.txt
  cognitoctl token | cognitoctl verify --required-scope orders/read --required-scope orders/write`,
		Args: arguments(0, 1, "at most one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := load(cmd, false)
			if err != nil {
				return err
			}
			v, err := s.validator(validatorOptions(s))
			if err != nil {
				return err
			}
			token, err := readToken(cmd, args)
			if err != nil {
				return err
			}
			claims, err := waitFor(cmd.Context(), "the keys of the user pool", func(ctx context.Context) (*validator.Claims, error) {
				return v.Validate(ctx, token)
			})
			if err != nil && cmd.Context().Err() != nil {
				return err
			}
			return report(asJSON, token, claims, err)
		},
	}
	jsonFlag(cmd, &asJSON)
	addSettings(cmd, verifyFlags, poolFlags, fetchFlags)
	return cmd
}

// validatorOptions are what a profile wants of a token.
func validatorOptions(s *settings) validator.Config {
	c := validator.Config{
		ClientIDs: s.Clients, AllowAnyClient: s.AnyClient, Audience: s.Audience, RequiredScopes: s.RequiredScopes,
		MachinesOnly: s.MachinesOnly, Leeway: s.Leeway, ExpLeeway: s.ExpLeeway,
	}
	if c.Leeway == 0 {
		c.Leeway = -1 // none, where zero would mean the default
	}
	if len(c.ClientIDs) == 0 && !c.AllowAnyClient && s.ClientID != "" {
		c.ClientIDs = []string{s.ClientID}
	}
	if s.ScopeMatch == config.MatchAny {
		c.ScopeMatch = validator.MatchAny
	}
	for _, use := range s.TokenUse {
		c.TokenUses = append(c.TokenUses, validator.TokenUse(use))
	}
	return c
}

// validator returns one for the settings' user pool.
func (s *settings) validator(c validator.Config) (*validator.Validator, error) {
	if c.Issuers = s.issuers(); c.Issuers == nil {
		return nil, s.missing("userPoolId", "issuer")
	}
	if len(c.ClientIDs) == 0 && !c.AllowAnyClient {
		return nil, s.missing("clients", "anyClient")
	}
	var err error
	if c.Keys, err = s.keys(); err != nil {
		return nil, err
	}
	v, err := validator.New(c)
	if err != nil {
		return nil, &codedError{exitUsage, err, ""}
	}
	return v, nil
}

// issuers returns the iss values of the pool's tokens, nil if no pool is named. A pool has its original or its updated one
// (Amazon Cognito API Reference, IssuerConfigurationType), and both name the same pool.
func (s *settings) issuers() []string {
	switch {
	case s.Issuer != "":
		return []string{s.Issuer}
	case s.UserPoolID != "":
		return []string{validator.CognitoIssuer(s.Region, s.UserPoolID), validator.UpdatedIssuer(s.Region, s.UserPoolID)}
	}
	return nil
}

// keys returns those of the settings' user pool.
func (s *settings) keys() (validator.KeySet, error) {
	if s.JWKSFile != "" {
		text, err := os.ReadFile(s.JWKSFile)
		if err != nil {
			return nil, &codedError{exitUsage, err, ""}
		}
		keys, problems, err := validator.ParseJWKS(text)
		if err != nil {
			return nil, &codedError{exitUsage, fmt.Errorf("%s: %w", s.JWKSFile, err), ""}
		}
		for _, p := range problems {
			note("%s: a key is left out: %v", s.JWKSFile, p)
		}
		return keys, nil
	}
	url := s.JWKSURL
	if url == "" {
		url = validator.JWKSURL(s.issuers()[0])
	}
	client, err := s.httpClient()
	if err != nil {
		return nil, err
	}
	keys, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: url, Timeout: s.Timeout, Transport: client.Transport, Logger: s.log})
	if err != nil {
		return nil, &codedError{exitUsage, err, ""}
	}
	return keys, nil
}

// tlsConfig trusts the settings' certificate authorities.
func (s *settings) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, &codedError{exitUsage, err, ""}
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, &codedError{exitUsage, fmt.Errorf("%s holds no certificate, want certificate authorities as PEM", s.CAFile), ""}
	}
	return c, nil
}

// httpClient makes the requests of all commands.
func (s *settings) httpClient() (*http.Client, error) {
	tlsConfig, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig, t.DisableKeepAlives = tlsConfig, true
	return &http.Client{
		Transport:     loggedTransport{t, s.log},
		Timeout:       s.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// A verdict is the result of verify as JSON.
type verdict struct {
	Valid          bool           `json:"valid"`
	Reason         string         `json:"reason,omitempty"` // as in docs/reasons.md
	Detail         string         `json:"detail,omitempty"`
	TokenScopes    []string       `json:"token_scopes,omitempty"`    // with insufficient_scope
	RequiredScopes []string       `json:"required_scopes,omitempty"` // with insufficient_scope
	Claims         map[string]any `json:"claims,omitempty"`          // those of a verified token only
}

// errSaid is for a command that has said all by its output and only lacks the exit code.
var errSaid = errors.New("")

// report prints what became of a token, and returns the error that makes the exit code.
func report(asJSON bool, token string, claims *validator.Claims, err error) error {
	if err == nil {
		if asJSON {
			return printJSON(verdict{Valid: true, Claims: claims.Map()})
		}
		if err := printf("%s\n", paint(green, "valid")); err != nil {
			return err
		}
		return printClaims(token, "  ")
	}
	reason := reasonOf(err)
	if reason == "" || reason == validator.ErrKeysUnavailable {
		return err
	}
	code, word := exitRefused, "refused"
	if reason == validator.ErrInsufficientScope || reason == validator.ErrClient {
		code, word = exitNotEnough, "denied"
	}
	detail := strings.TrimPrefix(strings.TrimPrefix(err.Error(), reason.Error()), ": ")
	if asJSON {
		v := verdict{Reason: string(reason), Detail: detail}
		if scopes := (*validator.InsufficientScopeError)(nil); errors.As(err, &scopes) {
			v.TokenScopes, v.RequiredScopes = scopes.TokenScopes, scopes.RequiredScopes
		}
		if err := printJSON(v); err != nil {
			return err
		}
	} else if err := printf("%s: %s\n  %s\n", paint(red, word), string(reason), visible(detail)); err != nil {
		return err
	}
	return &codedError{code, errSaid, ""}
}

// reasonOf returns why a token was not accepted, "" for another error.
func reasonOf(err error) (reason validator.Reason) {
	var token *validator.TokenError
	switch {
	case errors.As(err, new(*validator.InsufficientScopeError)):
		return validator.ErrInsufficientScope
	case errors.As(err, &token):
		return token.Reason
	}
	return ""
}

// printClaims prints the claims of a token that has been verified.
func printClaims(token, indent string) error {
	d, err := decode(token)
	if err != nil {
		return err
	}
	return d.claims(time.Now(), indent).print()
}
