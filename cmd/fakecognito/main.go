// Command fakecognito is a stand-in for Amazon Cognito user pools, FOR DEVELOPMENT ONLY: it gives any token to anybody
// who reaches it, and therefore listens on loopback addresses and nowhere else. It serves the JWK Set, the discovery
// document, the token endpoint and the sign-in of its pools as Cognito does, and control endpoints that rotate keys, make endpoints
// fail and mint tokens. fakecognito --help tells how to use it, docs/fakecognito.md what is faithful and what is not.
//
// Exit status: 0 after SIGINT or SIGTERM and for --help, 1 if it cannot listen or write, 2 for a wrong command line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// warning is what nobody who starts the program may miss.
const warning = `########################################################################
##  fakecognito is for DEVELOPMENT ONLY.                              ##
##  It gives any token to anybody who reaches it. Nothing that        ##
##  matters may ever trust what it signs.                             ##
########################################################################
`

func run(args []string, stdout, stderr io.Writer) int {
	opts, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, help)
		return exitOK
	case err != nil:
		return fail(stderr, exitUsage, err, "run fakecognito --help")
	}
	if !opts.quiet {
		opts.config.Logger = slog.New(slog.NewTextHandler(stderr, nil))
	}
	fmt.Fprint(stderr, warning)

	// Before Start, so that a signal never finds the program without a handler once it is ready.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	s, err := cognitotest.Start(opts.config)
	if err != nil {
		return fail(stderr, exitFailed, err, "")
	}
	defer s.Close()
	if opts.certFile != "" {
		if err := os.WriteFile(opts.certFile, s.CertPEM(), 0o644); err != nil { // #nosec G306 -- a certificate is public
			return fail(stderr, exitFailed, err, "")
		}
	}
	if err := introduce(stdout, s, opts); err != nil {
		return fail(stderr, exitFailed, fmt.Errorf("write to standard output: %w", err), "")
	}

	<-ctx.Done()
	stop() // a second signal ends the program the hard way
	fmt.Fprintln(stderr, "fakecognito: ended")
	return exitOK
}

// fail prints err, a line for each of its lines, and returns status.
func fail(stderr io.Writer, status int, err error, hint string) int {
	for line := range strings.Lines(strings.ReplaceAll(err.Error(), "cognitotest: ", "")) {
		fmt.Fprintf(stderr, "fakecognito: error: %s\n", strings.TrimSpace(line))
	}
	if hint != "" {
		fmt.Fprintf(stderr, "fakecognito: hint: %s\n", hint)
	}
	return status
}

// options are what the command line says.
type options struct {
	config   cognitotest.Config
	certFile string
	quiet    bool
}

// parse reads the command line. The error is flag.ErrHelp if help is asked for.
func parse(args []string) (options, error) {
	var (
		opts options
		c    common
	)
	flags := flag.NewFlagSet("fakecognito", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&opts.config.Addr, "listen", "127.0.0.1:9199", "")
	flags.StringVar(&c.poolID, "pool", cognitotest.DemoPoolID, "")
	flags.DurationVar(&c.ttl, "ttl", cognitotest.DefaultTTL, "")
	flags.StringVar(&c.user, "user", "", "")
	flags.BoolVar(&c.rotate, "rotate", false, "")
	flags.Func("callback", "", func(value string) error {
		c.callbacks = append(c.callbacks, value)
		return nil
	})
	flags.StringVar(&opts.certFile, "tls-cert", "", "")
	flags.BoolVar(&opts.quiet, "quiet", false, "")
	// Only kept here, as package flag would repeat the value, which holds a secret, in its error.
	flags.Func("client", "", func(value string) error {
		c.clients = append(c.clients, value)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("found the argument %q, want flags only", flags.Arg(0))
	}

	opts.config.Control = true
	opts.config.TLS = opts.certFile != ""
	var err error
	if opts.config.Pools, err = c.pools(); err != nil {
		return options{}, err
	}
	return opts, opts.config.Check()
}

// common is what the command line says of all pools and clients.
type common struct {
	poolID    string
	ttl       time.Duration
	clients   []string
	callbacks []string
	user      string
	rotate    bool
}

// pools returns the pools that the -client flags describe, or the demo pool if there are none.
func (c *common) pools() ([]cognitotest.PoolConfig, error) {
	if c.ttl <= 0 {
		return nil, fmt.Errorf("-ttl is %s, want a positive duration such as 5m; /_control/token makes expired tokens", c.ttl)
	}
	var list []cognitotest.PoolConfig
	var errs []error
	if len(c.clients) == 0 {
		list = []cognitotest.PoolConfig{cognitotest.DemoPool()}
		list[0].ID = c.poolID
	}
	for _, value := range c.clients {
		poolID, client, err := parseClient(value)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if poolID == "" {
			poolID = c.poolID
		}
		list = addClient(list, poolID, client)
	}
	for i := range list {
		list[i].SignInAs = c.user
		for j := range list[i].Clients {
			client := &list[i].Clients[j]
			client.TokenTTL, client.RedirectURLs, client.LogoutURLs, client.RotateRefreshTokens = c.ttl, c.callbacks, c.callbacks, c.rotate
		}
	}
	return list, errors.Join(errs...)
}

// parseClient reads [pool/]id:secrets:scopes. Its errors hold no secret.
func parseClient(value string) (poolID string, c cognitotest.Client, err error) {
	// A scope may hold colons, as resource server identifiers may be URLs; IDs and secrets hold none.
	parts := strings.SplitN(value, ":", 3)
	poolID, id, named := strings.Cut(parts[0], "/")
	if !named {
		poolID, id = "", parts[0]
	}
	if len(parts) < 3 {
		return "", c, fmt.Errorf("-client of %q has %d of 3 parts, want [POOL/]ID:SECRETS:SCOPES, such as %s", id, len(parts), clientExample)
	}
	return poolID, cognitotest.Client{ID: id, Secrets: list(parts[1]), Scopes: list(parts[2])}, nil
}

// list splits at commas; an empty text is no element.
func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// addClient adds c, and the resource servers that its scopes belong to, to its pool, which it makes if need be.
func addClient(pools []cognitotest.PoolConfig, poolID string, c cognitotest.Client) []cognitotest.PoolConfig {
	at := 0
	for at < len(pools) && pools[at].ID != poolID {
		at++
	}
	if at == len(pools) {
		pools = append(pools, cognitotest.PoolConfig{ID: poolID})
	}
	pools[at].Clients = append(pools[at].Clients, c)
	for _, scope := range c.Scopes {
		// A scope without a slash is one of OpenID Connect's, or a mistake that Config.Check names.
		if slash := strings.LastIndexByte(scope, '/'); slash >= 0 {
			pools[at].ResourceServers = append(pools[at].ResourceServers, cognitotest.ResourceServer{Identifier: scope[:slash], Scopes: []string{scope[slash+1:]}})
		}
	}
	return pools
}

// introduce prints the addresses and what to try. Its first line is for scripts: ready, and the URL.
func introduce(w io.Writer, s *cognitotest.Server, opts options) error {
	var b strings.Builder
	fmt.Fprintf(&b, "ready %s\n", s.URL)
	var try *cognitotest.Client
	var person *cognitotest.Client
	var people *cognitotest.Pool
	for i, p := range s.Pools() {
		fmt.Fprintf(&b, "\nuser pool %s\n", p.ID())
		fmt.Fprintf(&b, "  issuer          %s\n", p.Issuer())
		fmt.Fprintf(&b, "  JWK Set         %s\n", p.JWKSURL())
		fmt.Fprintf(&b, "  token endpoint  %s\n", p.TokenURL())
		fmt.Fprintf(&b, "  sign-in         %s\n", p.AuthorizeURL())
		for _, c := range opts.config.Pools[i].Clients {
			secrets := "no secret"
			if len(c.Secrets) > 0 {
				secrets = "secret " + strings.Join(c.Secrets, " or ")
				if try == nil && len(c.Scopes) > 0 {
					try = &c
				}
			} else if person == nil {
				person, people = &c, p
			}
			fmt.Fprintf(&b, "  client          %s, %s, scopes [%s]\n", c.ID, secrets, strings.Join(c.Scopes, " "))
		}
	}
	curl, caFlag := "curl -s", ""
	if opts.certFile != "" {
		curl += " --cacert " + opts.certFile
		caFlag = " --ca-file " + opts.certFile
	}
	b.WriteString("\ntry\n")
	if try != nil {
		fmt.Fprintf(&b, "  %s -u %s:%s -d grant_type=client_credentials %s/oauth2/token\n", curl, try.ID, try.Secrets[0], s.URL)
		fmt.Fprintf(&b, "  COGNITOCTL_CLIENT_SECRET=%s cognitoctl token --token-url %s/oauth2/token --client-id %s%s\n", try.Secrets[0], s.URL, try.ID, caFlag)
	}
	if person != nil && opts.certFile == "" {
		fmt.Fprintf(&b, "  cognitoctl login --token-url %s --issuer %s --client-id %s\n", people.TokenURL(), people.Issuer(), person.ID)
	}
	fmt.Fprintf(&b, "  %s %s/_control/state\n", curl, s.URL)
	_, err := io.WriteString(w, b.String())
	return err
}
