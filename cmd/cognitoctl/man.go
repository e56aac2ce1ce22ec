package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the man pages into a folder",
		Long: `man writes a page for each command, cognitoctl.1 and so on, into FOLDER, which it makes if need be. They are
what --help says. Their date is today's, or SOURCE_DATE_EPOCH.`,
		Example: `  cognitoctl man ~/.local/share/man/man1
  man cognitoctl-token`,
		Args: arguments(1, 1, "a folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { // #nosec G301 -- manuals are for everybody
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			showPlaceholders(root)
			fenceBlocks(root)
			header := &doc.GenManHeader{Section: "1", Source: "cognitoctl " + programVersion(), Manual: "extauthz"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write man pages: %w", err)
			}
			return nil
		},
	}
}

// indented are lines that stand as they are, such as examples.
var indented = regexp.MustCompile(`(?m)(^  .*\n?)+(^\n(^  .*\n?)+)*`)

// fenceBlocks has the pages show the indented lines of a description as they are; the library takes two spaces for nothing.
func fenceBlocks(cmd *cobra.Command) {
	cmd.Long = indented.ReplaceAllStringFunc(cmd.Long, func(block string) string {
		return "```\n" + strings.TrimRight(block, "\n") + "\n```\n"
	})
	for _, c := range cmd.Commands() {
		fenceBlocks(c)
	}
}

// showPlaceholders has the pages say --client-id=ID, where the library shows a default.
func showPlaceholders(cmd *cobra.Command) {
	for _, flags := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			if t, ok := f.Value.(*texts); ok {
				f.DefValue = t.placeholder
			}
		})
	}
	for _, c := range cmd.Commands() {
		showPlaceholders(c)
	}
}
