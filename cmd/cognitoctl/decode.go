package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func decodeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "decode [FILE]",
		Short: "Show what a token says, without verifying it",
		Long: `decode shows the header and the claims of a token, with times that people can read. It VERIFIES NOTHING:
anybody can have written the token. cognitoctl verify tells whether it is good.

It reads FILE or standard input, and takes a token, an Authorization header or the JSON answer that a
token came in. A token does not belong on a command line, which every user of the machine can read.`,
		Example: `  cognitoctl token | cognitoctl decode
  cognitoctl token | cognitoctl decode --json | jq -r .claims.scope
  cognitoctl decode token.txt`,
		Args: arguments(0, 1, "at most one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := readToken(cmd, args)
			if err != nil {
				return err
			}
			d, err := decode(token)
			if err != nil {
				return &codedError{exitRefused, err, ""}
			}
			note("not verified: anybody can have written this; cognitoctl verify tells whether it is good")
			if asJSON {
				return printJSON(d)
			}
			return d.print(time.Now())
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// A decoded token is one of which nothing is verified.
type decoded struct {
	Header   json.RawMessage `json:"header"`
	Claims   json.RawMessage `json:"claims"`
	Verified bool            `json:"verified"` // always false: who reads the JSON is told too
}

// decode takes a compact JWS apart.
func decode(token string) (*decoded, error) {
	parts := strings.Split(token, ".")
	switch {
	case len(parts) == 5:
		return nil, errors.New("found the 5 parts of an encrypted token (JWE), want the 3 of a signed one")
	case len(parts) != 3:
		return nil, fmt.Errorf("found %d parts separated by dots, want the 3 of a token (compact JWS); an opaque token, such as a refresh token, says nothing", len(parts))
	}
	var d decoded
	for i, into := range []*json.RawMessage{&d.Header, &d.Claims} {
		name := []string{"header", "payload"}[i]
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return nil, fmt.Errorf("the %s is no base64url without padding", name)
		}
		if !json.Valid(text) || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
			return nil, fmt.Errorf("the %s is no JSON object", name)
		}
		*into = text
	}
	return &d, nil
}

// timeClaims are numbers of seconds since 1970 (RFC 7519 section 4.1; OpenID Connect Core section 2).
var timeClaims = []string{"exp", "nbf", "iat", "auth_time"}

// print shows header and claims, in the token's order.
func (d *decoded) print(now time.Time) error {
	if err := printf("%s\n", paint(bold, "header")); err != nil {
		return err
	}
	var header table
	for _, m := range members(d.Header) {
		header.add("  "+m.name, claimText(m.name, m.value, now))
	}
	if err := header.print(); err != nil {
		return err
	}
	if err := printf("%s\n", paint(bold, "claims")); err != nil {
		return err
	}
	return d.claims(now, "  ").print()
}

func (d *decoded) claims(now time.Time, indent string) (t table) {
	for _, m := range members(d.Claims) {
		t.add(indent+m.name, claimText(m.name, m.value, now))
		if m.name == "exp" && expired(m.value, now) {
			t.mark(red, "expired")
		}
	}
	return t
}

type member struct {
	name  string
	value json.RawMessage
}

// members returns the members of a JSON object in its order. The object is valid JSON.
func members(object json.RawMessage) (all []member) {
	dec := json.NewDecoder(bytes.NewReader(object))
	_, _ = dec.Token() // {
	for dec.More() {
		var m member
		name, err := dec.Token()
		if err != nil || dec.Decode(&m.value) != nil {
			return all
		}
		m.name, _ = name.(string)
		all = append(all, m)
	}
	return all
}

// expired reports whether a time has come.
func expired(value json.RawMessage, now time.Time) bool {
	seconds := 0.0
	return json.Unmarshal(value, &seconds) == nil && seconds <= float64(now.Unix())
}

// claimText shows a claim as people read it.
func claimText(name string, value json.RawMessage, now time.Time) string {
	if seconds := 0.0; slices.Contains(timeClaims, name) && json.Unmarshal(value, &seconds) == nil && math.Abs(seconds) < 1e11 {
		return when(time.Unix(int64(seconds), 0), now)
	}
	text := ""
	if json.Unmarshal(value, &text) == nil && string(value) != "null" {
		if name == "scope" {
			return strings.Join(strings.Split(text, " "), "\n")
		}
		return text
	}
	var list []string
	if json.Unmarshal(value, &list) == nil && string(value) != "null" {
		return strings.Join(list, "\n")
	}
	var compact bytes.Buffer
	_ = json.Compact(&compact, value)
	return compact.String()
}
