// Command cognitoctl gets access tokens from Amazon Cognito user pools and hands them to what needs them: for machines
// with the client credentials grant, for people with a login in the browser. It is for callers of what extauthz
// protects, in the shell and in cron jobs. cognitoctl --help tells how to use it, docs/callers.md what it is good for.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cognito-extauthz/extauthz/internal/config"
)

// version is set by the linker (-X main.version=…).
var version = ""

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := interruptible()
	defer stop()
	root := command()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	return finish(ctx, os.Stderr, cmd, err)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "cognitoctl",
		Short: "Get tokens from Amazon Cognito user pools, and use them",
		Long: `cognitoctl gets access tokens from Amazon Cognito user pools, keeps them fresh, and hands them to
what needs them. Amazon bills each token request of a machine, so tokens are kept in a cache that
all processes of a user share.

A machine has an app client with a secret, which comes from a variable:

  COGNITOCTL_CLIENT_SECRET=... cognitoctl token \
    --domain my-team --region eu-west-1 --client-id 7a8b9c0d1e2f3g4h5i6j7k8

or from a file (--client-secret-file) or a command (--client-secret-command).

What stays the same goes into a profile (cognitoctl config --help), and commands get short:

  cognitoctl token --header | curl -H @- https://api.example.com/orders
  cognitoctl exec -- ./nightly-report

A person logs in with the browser:

  cognitoctl login --profile me
  cognitoctl whoami --profile me`,
		Version:       programVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("cognitoctl {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(printUsage)
	addPlaces(root)
	root.AddGroup(
		&cobra.Group{ID: "machines", Title: "For machines:"},
		&cobra.Group{ID: "people", Title: "For people:"},
		&cobra.Group{ID: "tokens", Title: "About tokens:"},
		&cobra.Group{ID: "program", Title: "About this program:"},
	)
	group := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("machines", tokenCommand(), execCommand())
	group("people", loginCommand(), whoamiCommand(), credentialsCommand(), logoutCommand())
	group("tokens", decodeCommand(), verifyCommand())
	group("program", profilesCommand(), configCommand(), manCommand(), versionCommand())
	root.SetHelpCommandGroupID("program")
	root.SetCompletionCommandGroupID("program")
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Args = knownCommand
		completion.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		for _, shell := range completion.Commands() {
			shell.Args = noArguments
		}
	}
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, args []string) error {
			if about, rest, _ := root.Find(args); about.HasSubCommands() {
				return knownCommand(about, rest)
			}
			return nil
		}
	}
	return root
}

// knownCommand is for a command that has others: an argument is one that it does not have.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	err := fmt.Errorf("found the command %q, which %s does not have", args[0], cmd.CommandPath())
	if meant := config.Nearest(args[0], names); meant != "" {
		return &codedError{exitUsage, err, "did you mean " + meant + "?"}
	}
	return &usageError{err}
}

// flagError explains an error of package pflag, which quotes names and not values where the value may be a secret.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return &usageError{err}
	}
	name := unknown.GetSpecifiedName()
	if name == "client-secret" || name == "secret" || name == "password" {
		return &codedError{exitUsage, err, "a secret does not belong on a command line, which every user of the machine can read: use --client-secret-file, or the variable " + secretVariable}
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if meant := config.Nearest(name, names); meant != "" {
		return &codedError{exitUsage, err, "did you mean --" + meant + "?"}
	}
	return &usageError{err}
}

// exclusive returns an error if more than one of the flags is given.
func exclusive(cmd *cobra.Command, flags ...string) error {
	first := ""
	for _, name := range flags {
		switch {
		case !cmd.Flags().Changed(name):
		case first != "":
			return &usageError{fmt.Errorf("found --%s beside --%s, want one of the two", name, first)}
		default:
			first = name
		}
	}
	return nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return printf("cognitoctl %s\n", programVersion())
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
