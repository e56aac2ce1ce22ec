package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/tokenfile"
)

func tokenCommand() *cobra.Command {
	var (
		opts           sourceOptions
		header, asJSON bool
		fresh          bool
	)
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print an access token",
		Long: `token prints an access token that has not expired: one from the cache if there is one, else a new one.
All processes of a user share the cache, and many that ask at once cost one request. Amazon bills
each request.

The token of a machine is that of the client credentials grant, for an app client with a secret. The
secret comes from a file, a variable or a command, never from the command line, which every user
of the machine can read. For the same reason a token belongs on a pipe and not among arguments:

  cognitoctl token --header | curl -H @- https://api.example.com/orders

Without a token, curl sends that request all the same, without one. A script takes cognitoctl exec, which
then runs nothing.

With --user it is the token of the person who has logged in.

Exit codes: 0 a token is printed; 2 the command line or the configuration is wrong; 3 the token
endpoint refuses the app client or the request; 5 it cannot be reached; 6 with --user, nobody
has logged in.`,
		Example: `  COGNITOCTL_CLIENT_SECRET=demo_only_secret_of_orders_batch cognitoctl token \
    --token-url http://127.0.0.1:9199/oauth2/token --client-id 1ordersbatch0demo0client00
  cognitoctl token --profile orders --header | curl -H @- https://api.example.com/orders
  cognitoctl token --profile orders --scope orders/read --json
  cognitoctl token --profile me --user`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exclusive(cmd, "header", "json"); err != nil {
				return err
			}
			s, err := load(cmd, opts.user)
			if err != nil {
				return err
			}
			source, err := s.source(cmd, opts)
			if err != nil {
				return err
			}
			get := source.Token
			if fresh {
				get = source.Renew
			}
			t, err := waitFor(cmd.Context(), "a token from "+source.endpoint, get)
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				return printJSON(describeToken(t, time.Now()))
			case header:
				return printf("Authorization: Bearer %s\n", t.token)
			}
			return printf("%s\n", t.token)
		},
	}
	cmd.Flags().BoolVar(&header, "header", false, "print the header, Authorization: Bearer …, as curl -H @- reads it")
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&fresh, "fresh", false, "get a new token even if there is a good one; it replaces that in the cache")
	addSource(cmd, &opts)
	return cmd
}

// sourceOptions say where tokens come from, beside the settings.
type sourceOptions struct{ user, noCache bool }

func addSource(cmd *cobra.Command, opts *sourceOptions) {
	cmd.Flags().BoolVar(&opts.user, "user", false, "the token of the person who has logged in, instead of the machine's")
	cmd.Flags().BoolVar(&opts.noCache, "no-cache", false, "neither read nor write the cache")
	addSettings(cmd, clientFlags, endpointFlags, poolFlags)
}

// A bearer is an access token.
type bearer struct {
	token            string
	obtained, expiry time.Time
}

// A source yields the tokens of a machine or a person.
type source struct {
	Token, Renew func(context.Context) (bearer, error)
	endpoint     string // for people
}

func (s *settings) source(cmd *cobra.Command, opts sourceOptions) (*source, error) {
	if err := exclusive(cmd, "user", "no-cache"); err != nil {
		return nil, err
	}
	if opts.user {
		return s.userSource(cmd)
	}
	return s.machineSource(cmd, opts.noCache)
}

// machineSource yields the tokens of the client credentials grant.
func (s *settings) machineSource(cmd *cobra.Command, noCache bool) (*source, error) {
	tokenURL, err := s.tokenURL()
	if err != nil {
		return nil, err
	}
	if s.ClientID == "" {
		return nil, s.missing("clientId")
	}
	cfg := cognito.Config{
		TokenURL: tokenURL, ClientID: s.ClientID, Scopes: s.Scopes, ClientMetadata: s.ClientMetadata, Timeout: s.Timeout, AuthStyle: s.authStyle(),
		Retry: s.retry(), Logger: s.log,
	}
	if cfg.Secret, err = s.secret(); err != nil {
		return nil, err
	}
	if cfg.Secret == nil {
		hint := "put it into the variable " + secretVariable + ", or name its file: --client-secret-file FILE"
		if s.isPersons(cmd) {
			hint = hintUser
		}
		return nil, &codedError{
			exitUsage, fmt.Errorf("nothing says where the secret of the app client %s is, want --client-secret-file, --client-secret-env or --client-secret-command", s.ClientID),
			hint,
		}
	}
	if cfg.HTTPClient, err = s.httpClient(); err != nil {
		return nil, err
	}
	if !noCache {
		cfg.Cache = openCache(cmd)
	}
	tokens, err := cognito.NewTokenSource(cfg)
	if err != nil {
		return nil, &codedError{exitUsage, err, ""}
	}
	get := func(token func(context.Context) (*cognito.Token, error)) func(context.Context) (bearer, error) {
		return func(ctx context.Context) (bearer, error) {
			t, err := token(ctx)
			if err != nil {
				return bearer{}, s.explainRefusal(cmd, err)
			}
			return bearer{t.AccessToken(), t.ObtainedAt, t.Expiry}, nil
		}
	}
	return &source{Token: get(tokens.Token), Renew: get(tokens.Renew), endpoint: tokenURL}, nil
}

// hintUser is for who asks for a machine's token with what a person logs in with.
const hintUser = "people log in with this app client: --user is for the token of the person who has logged in"

// isPersons reports whether an app client looks like one that people log in with.
func (s *settings) isPersons(cmd *cobra.Command) bool {
	return slices.Contains(s.Scopes, "openid") || s.hasLogin(cmd) // no machine can have that scope
}

// explainRefusal adds to a refusal of the app client or its secret where the secret is from, or that a person's token may be
// meant.
func (s *settings) explainRefusal(cmd *cobra.Command, err error) error {
	var request *cognito.TokenRequestError
	if !errors.As(err, &request) {
		return err
	}
	refused := []string{cognito.InvalidClient, cognito.UnauthorizedClient, cognito.InvalidScope}
	if slices.Contains(refused, request.ErrorCode) && s.isPersons(cmd) {
		return &codedError{exitRefused, err, hintUser}
	}
	if request.ErrorCode != cognito.InvalidClient {
		return err
	}
	for _, key := range []string{"clientSecretFile", "clientSecretEnv", "clientSecretCommand"} {
		if from := s.Source(key); from != "" {
			return &codedError{exitRefused, err, fmt.Sprintf("the secret is from %s; is it that of the app client %s, and is this the token endpoint of its user pool?", from, s.ClientID)}
		}
	}
	return err
}

// openCache returns the cache that the processes of this user share, nil if it cannot be used: a caller is better off
// with a token that costs something than with none.
func openCache(cmd *cobra.Command) cognito.Cache {
	problem := func(err error) {
		note("the token cache cannot be used, so a token is fetched, which Amazon bills: %v", err)
	}
	cache, err := tokenfile.New(tokenfile.Config{Dir: cacheDir(cmd, "tokens"), Problem: problem})
	if err != nil {
		problem(err)
		return nil
	}
	return cache
}

// tokenURL returns the token endpoint.
func (s *settings) tokenURL() (string, error) {
	var text string
	var err error
	switch {
	case s.TokenURL != "":
		return s.TokenURL, nil
	case s.Domain == "":
		return "", s.missing("tokenUrl", "domain")
	case strings.Contains(s.Domain, "."):
		text, err = cognito.DomainTokenURL(s.Domain)
	default:
		text, err = cognito.TokenURL(s.Region, s.Domain)
	}
	if err != nil {
		return "", &codedError{exitUsage, err, ""}
	}
	return text, nil
}

// retry lets a request take as long as it may, where that is more than all requests have by default.
func (s *settings) retry() (r cognito.Retry) {
	if s.Timeout > 30*time.Second {
		r.MaxElapsed = s.Timeout
	}
	return r
}

func (s *settings) authStyle() cognito.AuthStyle {
	if s.AuthStyle == "post" {
		return cognito.AuthPost
	}
	return cognito.AuthBasic
}

// secret returns how the app client's secret is had, nil if it has none. It is read when it is needed.
func (s *settings) secret() (cognito.Secret, error) {
	switch {
	case s.ClientSecretFile != nil:
		for _, name := range s.ClientSecretFile {
			if _, err := os.Stat(name); err != nil && (len(s.ClientSecretFile) == 1 || !errors.Is(err, fs.ErrNotExist)) {
				return nil, &codedError{exitUsage, s.SecretFileProblem(name, err), ""}
			}
		}
		return usageSecret(cognito.SecretFile(s.ClientSecretFile...)), nil
	case s.ClientSecretEnv != nil:
		return usageSecret(cognito.SecretEnv(s.ClientSecretEnv...)), nil
	case s.ClientSecretCommand != "":
		return usageSecret(secretCommand(s.ClientSecretCommand)), nil
	}
	return nil, nil //nolint:nilnil // documented above
}

// usageSecret makes the errors of a secret such of the configuration.
func usageSecret(secret cognito.Secret) cognito.Secret {
	return func(ctx context.Context) ([]string, error) {
		list, err := secret(ctx)
		if err != nil && ctx.Err() == nil {
			err = &codedError{exitUsage, err, ""}
		}
		return list, err
	}
}

// maxSecretBytes bounds what a command prints: two secrets, of at most 64 characters each at Cognito.
const maxSecretBytes = 4 << 10

// secretCommand runs a shell command whose output is the secret. It may ask the person on standard error and the
// terminal.
func secretCommand(command string) cognito.Secret {
	return func(ctx context.Context) ([]string, error) {
		shell := []string{"sh", "-c"}
		if runtime.GOOS == "windows" {
			shell = []string{"cmd", "/C"}
		}
		var out limited
		cmd := exec.CommandContext(ctx, shell[0], shell[1], command) // #nosec G204 -- the user's own configuration
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if isTerminal(os.Stdin) { // else it is for the program that exec runs
			cmd.Stdin = os.Stdin
		}
		cmd.WaitDelay = time.Second
		defer hushProgress()()
		switch err := cmd.Run(); {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("clientSecretCommand has not ended: %w", ctx.Err())
		case out.over:
			return nil, fmt.Errorf("clientSecretCommand printed more than %d bytes, want a secret", maxSecretBytes)
		case err != nil:
			return nil, fmt.Errorf("clientSecretCommand failed: %w", err) // the command is not shown: it may hold a password
		}
		var secrets []string
		for line := range strings.Lines(out.text.String()) {
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				secrets = append(secrets, line)
			}
		}
		if len(secrets) == 0 || len(secrets) > 2 {
			return nil, fmt.Errorf("clientSecretCommand printed %d lines, want one secret, or two during a rotation", len(secrets))
		}
		return secrets, nil
	}
}

// limited takes what a secret can have, and no more: the program that writes it finds its pipe closed.
type limited struct {
	text bytes.Buffer // not embedded, as its ReadFrom would go past Write
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.over = l.over || l.text.Len()+len(p) > maxSecretBytes; l.over {
		return 0, io.ErrShortBuffer
	}
	return l.text.Write(p)
}

// A describedToken is a token as JSON. The names are those of RFC 6749 section 5.1, where it has them.
type describedToken struct {
	AccessToken string    `json:"access_token"`
	TokenType   string    `json:"token_type"`
	ExpiresIn   int64     `json:"expires_in"` // seconds from now
	ExpiresAt   time.Time `json:"expires_at"`
	ObtainedAt  time.Time `json:"obtained_at"`
	Scopes      []string  `json:"scopes"` // by the token's own claim, which is not verified here
}

func describeToken(t bearer, now time.Time) describedToken {
	d := describedToken{
		AccessToken: t.token, TokenType: "Bearer", ExpiresIn: int64(t.expiry.Sub(now) / time.Second),
		ExpiresAt: t.expiry.UTC().Truncate(time.Second), ObtainedAt: t.obtained.UTC().Truncate(time.Second), Scopes: []string{},
	}
	var claims struct {
		Scope string `json:"scope"`
	}
	if parts, err := decode(t.token); err == nil && json.Unmarshal(parts.Claims, &claims) == nil {
		d.Scopes = append(d.Scopes, strings.Fields(claims.Scope)...)
	}
	return d
}
