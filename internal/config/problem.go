package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error is everything that is wrong with a configuration.
type Error struct {
	// Problems is never empty. Those of the file come first, in its order.
	Problems []Problem
}

// Error returns all problems, as [Problem.String] has them, each on its own line or two.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// A Problem is one thing that is wrong with a configuration.
type Problem struct {
	// File is the name that [Load] or [Parse] was given; empty for an environment variable.
	File string
	// Line and Column say where, from 1, the column in characters; 0 for an environment variable.
	Line, Column int
	// Variable is the environment variable that is wrong; empty for a place in the file.
	Variable string
	// Key is the full key, such as pools.main.region or routes[2].path, with items of lists counted from 0. Empty
	// if the problem is not about one key.
	Key string
	// Message says what was found and what would be valid. It never holds the value of a secret.
	Message string
	// Hint is a likely remedy; empty if there is none.
	Hint string
}

// String returns "file:line:column: key: message" or "variable: key: message", and if there is a hint, it
// follows on a line of its own, indented.
func (p Problem) String() string {
	var b strings.Builder
	if p.Variable != "" {
		b.WriteString(p.Variable)
	} else {
		fmt.Fprintf(&b, "%s:%d:%d", p.File, p.Line, p.Column)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Message)
	if p.Hint != "" {
		b.WriteString("\n  hint: " + p.Hint)
	}
	return b.String()
}

// inOrder sorts the problems of the file by place and leaves those of the environment behind them.
func inOrder(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.Variable, b.Variable),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	return problems
}

// maxQuoted bounds what a message quotes of the file, in characters.
const maxQuoted = 100

// quote makes text from outside fit for a message of one line. A user name and password in a URL are left out: they
// are never valid, and somebody may put them there.
func quote(s string) string {
	return fmt.Sprintf("%q", shorten(userinfo.ReplaceAllString(s, "://…@")))
}

var userinfo = regexp.MustCompile(`://[^/?#@ ]+@`)

func shorten(s string) string {
	if utf8.RuneCountInString(s) <= maxQuoted {
		return s
	}
	return string([]rune(s)[:maxQuoted]) + "…"
}

// visible keeps a message on its line, whatever of the file is in it.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// oneOf lists words as a sentence does: "a, b or c".
func oneOf(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// nearest returns the option that word was likely meant to be, or "".
func nearest(word string, options []string) string {
	const longest = 48 // longer ones are no misspelling of any key, and the comparison is quadratic
	if len(word) > longest {
		return ""
	}
	best, least := "", 3 // more than two slips are another word
	word = plain(word)
	for _, o := range options {
		option := plain(o)
		if len(word)-len(option) >= least || len(option)-len(word) >= least {
			continue
		}
		if d := distance(word, option); d < least && 2*d < len(o) {
			best, least = o, d
		}
	}
	return best
}

// plain makes user_pool_id, User-Pool-ID and userPoolId the same.
func plain(s string) string { return strings.ToLower(separators.Replace(s)) }

var separators = strings.NewReplacer("_", "", "-", "")

// distance counts the slips between two words: a letter too many, too few or another, two neighbours swapped
// (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
