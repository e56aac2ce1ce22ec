package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// printf writes to standard output. Nothing but a command's result goes there.
func printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(os.Stdout, format, args...); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// note tells the person something beside the result.
func note(format string, args ...any) {
	clearProgress()
	fmt.Fprintln(os.Stderr, visible(indentHints("cognitoctl: "+fmt.Sprintf(format, args...))))
}

// indentHints has the hints of our packages stand below what they are about.
func indentHints(text string) string { return strings.ReplaceAll(text, "\nhint: ", "\n  hint: ") }

// printJSON writes a value as indented JSON.
func printJSON(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	return printf("%s", b.String())
}

// jsonFlag gives a command the flag --json.
func jsonFlag(cmd *cobra.Command, into *bool) {
	cmd.Flags().BoolVar(into, "json", false, "print JSON")
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Colours, by their codes of ECMA-48.
const (
	bold  = "1"
	red   = "31"
	green = "32"
)

// paint colours a word on a terminal, unless NO_COLOR says not to (https://no-color.org).
func paint(color, word string) string {
	if !isTerminal(os.Stdout) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return word
	}
	return "\x1b[" + color + "m" + word + "\x1b[0m"
}

// A table has lines of a name and a value.
type table []tableLine

type tableLine struct{ name, value, mark string }

func (t *table) add(name, value string) {
	*t = append(*t, tableLine{name: visible(name), value: visible(value)})
}

// mark puts a coloured word behind the last line.
func (t *table) mark(color, word string) { (*t)[len(*t)-1].mark = ", " + paint(color, word) }

// print writes the names in a column. A value of several lines goes on below its first.
func (t table) print() error {
	width := 0
	for _, line := range t {
		width = max(width, len(line.name))
	}
	var b strings.Builder
	for _, line := range t {
		value := strings.ReplaceAll(line.value, "\n", "\n"+strings.Repeat(" ", width+2))
		fmt.Fprintf(&b, "%-*s  %s%s\n", width, line.name, value, line.mark)
	}
	return printf("%s", b.String())
}

// when says a time and how far it is away.
func when(t, now time.Time) string {
	text := t.Local().Format("2006-01-02 15:04:05 MST")
	switch away := t.Sub(now); {
	case away > 0:
		return text + " (in " + span(away) + ")"
	default:
		return text + " (" + span(-away) + " ago)"
	}
}

// span says a duration in its two largest units.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	days, hours, minutes, seconds := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh %dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm %ds", minutes, seconds)
	}
	return fmt.Sprintf("%ds", seconds)
}

// printUsage prints the usage of a command, with its flags in groups.
func printUsage(cmd *cobra.Command) error {
	w := cmd.OutOrStderr()
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "Usage:\n  %s COMMAND\n", cmd.CommandPath())
		printCommands(w, cmd)
	} else {
		fmt.Fprintf(w, "Usage:\n  %s\n", cmd.UseLine())
	}
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	own := pflag.NewFlagSet("own", pflag.ContinueOnError)
	groups := make(map[string]*pflag.FlagSet)
	var order []string
	cmd.LocalFlags().SortFlags = false
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		title := f.Annotations[groupAnnotation]
		if title == nil {
			own.AddFlag(f)
			return
		}
		if groups[title[0]] == nil {
			groups[title[0]] = pflag.NewFlagSet(title[0], pflag.ContinueOnError)
			groups[title[0]].SortFlags = false
			order = append(order, title[0])
		}
		groups[title[0]].AddFlag(f)
	})
	printFlags(w, "Flags", own)
	for _, title := range order {
		printFlags(w, title, groups[title])
	}
	if cmd.HasAvailableInheritedFlags() {
		printFlags(w, "Flags of every command", cmd.InheritedFlags())
	}
	if order != nil {
		fmt.Fprintf(w, "\nEach flag with a heading of its own can also be a variable (--client-id: COGNITOCTL_CLIENT_ID) or a key\nof a profile (clientId). A flag counts most, then a variable, then the profile.\n")
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n%s COMMAND --help says more about one.\n", cmd.CommandPath())
	}
	return nil
}

func printCommands(w io.Writer, cmd *cobra.Command) {
	section := func(title, id string) {
		fmt.Fprintf(w, "\n%s\n", title)
		for _, c := range cmd.Commands() {
			if c.GroupID == id && (c.IsAvailableCommand() || c.Name() == "help") {
				fmt.Fprintf(w, "  %-*s  %s\n", cmd.NamePadding(), c.Name(), c.Short)
			}
		}
	}
	if len(cmd.Groups()) == 0 {
		section("Commands:", "")
		return
	}
	for _, g := range cmd.Groups() {
		section(g.Title, g.ID)
	}
}

func printFlags(w io.Writer, title string, flags *pflag.FlagSet) {
	if flags.HasAvailableFlags() {
		fmt.Fprintf(w, "\n%s:\n%s", title, flags.FlagUsages())
	}
}
