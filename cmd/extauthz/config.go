package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/reload"
)

// defaultConfig is where the image and the manifests put the configuration.
const defaultConfig = "/etc/extauthz/extauthz.yaml"

// load reads the configuration, with the environment over it.
func load(path string) (*config.Config, error) {
	cfg, err := config.Load(path, os.Environ())
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w\n  hint: name yours: extauthz serve --config FILE, extauthz config check FILE; docs/extauthz.example.yaml is one to begin with", err)
	}
	if err != nil {
		return nil, &wrongError{err}
	}
	return cfg, nil
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration, or print its JSON Schema",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration with all that it names, and say everything that is wrong with it",
		Long: `check reads the configuration as serve does, environment variables (EXTAUTHZ__…) included, loads
the files that it names and compiles the policy. It prints every problem with file, line and
column, and exits with 2 if there is one. It connects to nothing.

FILE is ` + defaultConfig + ` unless said otherwise.`,
		Example: "  extauthz config check extauthz.yaml",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := defaultConfig
			if len(args) == 1 {
				path = args[0]
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			quiet := slog.New(slog.DiscardHandler)
			p, err := newParts(cmd.Context(), path, cfg, quiet, nil)
			if err != nil {
				return err
			}
			if _, err := newTLS(cfg, reload.New(quiet)); err != nil {
				return wrongAbout(path, err)
			}
			if _, err := newBundles(cmd.Context(), cfg, p.engine, quiet); err != nil {
				return wrongAbout(path, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok (pools: %d, clients: %d, routes: %d), revision %s, policy %s\n",
				path, len(cfg.Pools), len(cfg.Clients), len(cfg.Routes), cfg.Revision(), cmp.Or(p.engine.Revision(), "from bundles"))
			return err
		},
	}, &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of the configuration, for editors",
		Example: "  extauthz config schema > extauthz.schema.json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	})
	return cmd
}
