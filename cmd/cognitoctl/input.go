package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// maxInput bounds what is read in the hope of a token: a token, and what may stand around it.
const maxInput = validator.MaxTokenBytes + 4<<10

// readToken reads a token from a file, or from standard input if name is "" or "-". What people have at hand is taken as it
// is: a token, an Authorization header, or the JSON of a token endpoint, of cognitoctl token --json or of fakecognito.
func readToken(cmd *cobra.Command, args []string) (string, error) {
	name := "-"
	if len(args) > 0 {
		name = args[0]
	}
	if looksLikeToken(name) {
		return "", &codedError{exitUsage, errors.New("found a token on the command line, want it on standard input or in a file"), "every user of the machine can read command lines, and the shell keeps them; this token has been shown"}
	}
	text, err := readInput(cmd.Context(), name)
	if err != nil {
		return "", err
	}
	if len(text) > maxInput {
		return "", &codedError{exitRefused, fmt.Errorf("found more than %d bytes, want a token", maxInput), ""}
	}
	text = strings.TrimSpace(text)
	token := takeToken(text)
	switch hint := "cognitoctl token | " + cmd.CommandPath(); {
	case text == "":
		return "", &codedError{exitUsage, errors.New("found nothing, want a token"), hint}
	case token == "" && strings.HasPrefix(text, "{"):
		return "", &codedError{exitUsage, errors.New("found JSON that has neither access_token nor id_token nor token, want a token"), hint}
	case token == "":
		return "", &codedError{exitUsage, errors.New("found a header without a token, want a token"), hint}
	}
	return token, nil
}

// readInput reads a file or standard input, of which ctx bounds the wait.
func readInput(ctx context.Context, name string) (string, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", &codedError{exitUsage, err, ""}
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxInput+1))
		if err != nil {
			return "", &codedError{exitUsage, err, ""} // it is a folder
		}
		return string(text), nil
	}
	if isTerminal(os.Stdin) {
		return readTerminal(ctx)
	}
	return inTime(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(os.Stdin, maxInput+1)) })
}

// readTerminal reads a line that the terminal does not show.
func readTerminal(ctx context.Context) (string, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	note("paste the token, which is not shown, and press Enter")
	text, err := inTime(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	if ctx.Err() != nil {
		_ = term.Restore(fd, before) // the one who reads does not come to it
	}
	return text, err
}

// inTime returns what read does, unless ctx ends first.
func inTime(ctx context.Context, read func() ([]byte, error)) (string, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", fmt.Errorf("read standard input: %w", r.err)
		}
		return string(r.text), nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// looksLikeToken reports whether a text is a compact JWS and no file name: its header is JSON, which begins with {".
func looksLikeToken(text string) bool {
	return strings.HasPrefix(takeToken(strings.TrimSpace(text)), "eyJ") && strings.Count(text, ".") >= 2 && len(text) > 40
}

// takeToken returns the token in a text, else the text.
func takeToken(text string) string {
	var answer struct {
		AccessToken string `json:"access_token"`
		IDToken     string `json:"id_token"`
		Token       string `json:"token"` // of fakecognito's /_control/token
	}
	if strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &answer) == nil {
		return cmp.Or(answer.AccessToken, answer.IDToken, answer.Token)
	}
	if name, rest, ok := strings.Cut(text, ":"); ok && strings.EqualFold(strings.TrimSpace(name), "authorization") {
		text = strings.TrimSpace(rest)
	}
	if scheme, rest, ok := strings.Cut(text, " "); ok && strings.EqualFold(scheme, "bearer") {
		text = strings.TrimSpace(rest)
	}
	return text
}
