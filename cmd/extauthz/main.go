// Command extauthz lets Envoy ask, before a request reaches a service, whether its Amazon Cognito token is good and
// its policy allows it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=…).
var version = ""

// The exit codes. Scripts may rely on them.
const (
	exitOK     = 0
	exitFailed = 1 // something went wrong that trying again may mend
	exitUsage  = 2 // the command line or the configuration is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal drains; with the handler gone, a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(os.Stderr, err)
	var wrong *wrongError
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

// A wrongError is about the command line or the configuration: trying again does not help.
type wrongError struct{ err error }

func (e *wrongError) Error() string { return e.err.Error() }
func (e *wrongError) Unwrap() error { return e.err }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "extauthz",
		Short: "Decide for Envoy which machine may call what, by its Amazon Cognito token",
		Long: `extauthz answers Envoy's ext_authz checks over gRPC. It verifies the Amazon Cognito access
token of a request, finds the route, lets the policy decide, and answers with an allow that
carries identity headers, or with a denial that says why.

Start with a configuration file (docs/config.md), check it, then serve:

  extauthz config check extauthz.yaml
  extauthz serve --config extauthz.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &wrongError{fmt.Errorf("extauthz: %w\n  hint: %s --help", err, cmd.CommandPath())}
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(serveCommand(), configCommand(), policyCommand(), versionCommand())
	return root
}

// usage makes the errors of an argument check errors of the command line.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &wrongError{fmt.Errorf("extauthz: %w\n  hint: %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "extauthz", programVersion())
			return err
		},
	}
}

// programVersion is the one stamped at the build, or else what the Go tool knows of the module.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
