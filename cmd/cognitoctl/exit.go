package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/identity"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// The exit codes. Scripts may rely on them; docs/callers.md lists them for their writers. cognitoctl exec has those of its
// child once that runs.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2   // the command line, a variable or the configuration is wrong
	exitRefused     = 3   // the token, the app client or the request is refused: trying again does not help
	exitNotEnough   = 4   // the token is good and lacks a scope; or its client is not accepted, and the signature was not looked at
	exitUnavailable = 5   // an endpoint cannot be reached, or says that it cannot answer now: trying again may help
	exitLogin       = 6   // a person has to log in
	exitCannotRun   = 126 // exec: the program is there and cannot be run, as with env(1)
	exitNotFound    = 127 // exec: there is no such program, as with env(1)
	exitSignal      = 128 // and the number of the signal that ended it, as shells have it
)

// A codedError says which exit code its cause means, where the cause by itself does not, and what to do.
type codedError struct {
	code int
	err  error
	hint string // may be empty
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// A usageError is about the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// arguments checks how many there are, and says what they are. They are not shown, as one may be a secret.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch n := len(args); {
		case n < least:
			return &usageError{fmt.Errorf("found no argument, want %s", what)}
		case n > most && most == 0:
			return &usageError{errors.New("found an argument, want flags only")}
		case n > most:
			return &usageError{fmt.Errorf("found %d arguments, want %s", n, what)}
		}
		return nil
	}
}

var noArguments = arguments(0, 0, "")

// finish says what went wrong, and returns the exit code.
func finish(ctx context.Context, stderr io.Writer, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	if child := (*childError)(nil); errors.As(err, &child) {
		return child.code
	}
	if s := (*signalError)(nil); errors.As(context.Cause(ctx), &s) {
		return exitSignal + s.number() // whoever sent it knows
	}
	code, hint := classify(err)
	if code == exitUsage && hint == "" && errors.As(err, new(*usageError)) {
		hint = cmd.CommandPath() + " --help"
	}
	text := err.Error()
	if text == "" {
		return code
	}
	if problems := (*config.Error)(nil); errors.As(err, &problems) {
		text = problems.Error() // each begins with its place
	} else {
		text = "cognitoctl: " + strings.TrimPrefix(text, "cognitoctl: ")
	}
	fmt.Fprintln(stderr, visible(indentHints(text)))
	if hint != "" && !strings.Contains(text, "hint: ") {
		fmt.Fprintln(stderr, "  hint: "+visible(hint))
	}
	return code
}

// classify returns the exit code of an error and a hint, which may be empty.
func classify(err error) (code int, hint string) {
	var (
		coded    *codedError
		usage    *usageError
		problems *config.Error
		request  *cognito.TokenRequestError
		aws      *identity.RequestError
	)
	switch {
	case errors.As(err, &coded):
		return coded.code, coded.hint
	case errors.As(err, &usage), errors.As(err, &problems):
		return exitUsage, ""
	case errors.Is(err, login.ErrLoginRequired):
		return exitLogin, "cognitoctl login" // settings.needsLogin says more where it can
	case errors.As(err, &request):
		return classifyRequest(request)
	case errors.As(err, &aws):
		return classifyAWS(aws)
	case errors.As(err, new(*identity.RoleError)):
		return exitRefused, "name one with --role-arn, or enough of its end with --role-suffix"
	case errors.As(err, new(*login.AuthorizationError)), errors.As(err, new(*login.TokenRefusedError)):
		return exitRefused, ""
	case errors.As(err, new(*login.TimeoutError)):
		return exitLogin, ""
	case errors.Is(err, validator.ErrKeysUnavailable), errors.Is(err, context.DeadlineExceeded):
		return exitUnavailable, ""
	case errors.As(err, new(*validator.TokenError)):
		return exitRefused, ""
	}
	return exitFailed, ""
}

// classifyRequest is [classify] for the token endpoint.
func classifyRequest(err *cognito.TokenRequestError) (code int, hint string) {
	switch {
	case err.ErrorCode == cognito.InvalidClient:
		return exitRefused, "is it the secret of this app client, and the token endpoint of its user pool?"
	case err.ErrorCode == cognito.UnauthorizedClient:
		return exitRefused, "the app client does not have the grant that is asked for: client credentials for token, authorization code for login"
	case err.ErrorCode == cognito.InvalidScope:
		return exitRefused, "a machine's scopes are those of resource servers, such as orders/read, that its app client is allowed; several have spaces between them"
	case err.ErrorCode != "":
		return exitRefused, ""
	case err.Temporary():
		return exitUnavailable, ""
	case err.StatusCode == http.StatusNotFound || err.StatusCode == http.StatusMethodNotAllowed:
		return exitFailed, "is this the token endpoint? That of Cognito ends in /oauth2/token"
	}
	return exitFailed, ""
}

// classifyAWS is [classify] for an identity pool.
func classifyAWS(err *identity.RequestError) (code int, hint string) {
	if err.Temporary() { // throttling has status 400 there
		return exitUnavailable, ""
	}
	return exitRefused, ""
}

// visible keeps what others wrote from steering the terminal. Line feeds stay.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0) {
			return '�'
		}
		return r
	}, s)
}

// A childError is how the child of exec ended. The child has said what there was to say.
type childError struct{ code int }

func (e *childError) Error() string { return fmt.Sprintf("the program ended with status %d", e.code) }

// A signalError is the cause of a context that a signal has ended.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return "found the signal " + e.signal.String() }

func (e *signalError) number() int {
	if s, ok := e.signal.(syscall.Signal); ok {
		return int(s)
	}
	return int(syscall.SIGINT)
}

// interruptible returns a context that SIGINT and SIGTERM end; a second signal ends the process at once. After stop the
// signals have their usual effect.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	stop := sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		<-ended
		select {
		case s := <-signals: // the last moment counts too
			cancel(&signalError{s})
		default:
		}
	})
	go func() {
		defer close(ended)
		select {
		case s := <-signals:
			cancel(&signalError{s})
			signal.Stop(signals)
		case <-done:
		}
	}()
	return context.WithValue(ctx, stopKey{}, context.CancelFunc(stop)), func() { stop(); cancel(nil) }
}

type stopKey struct{}

// leaveSignals ends the effect of [interruptible] for who wants the signals itself. One that came before has ended ctx.
func leaveSignals(ctx context.Context) {
	ctx.Value(stopKey{}).(context.CancelFunc)()
}
