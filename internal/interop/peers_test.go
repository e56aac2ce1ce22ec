package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A peer is a verifier that others have written. It runs as one process, which reads a JSON line for each case.
type peer struct {
	name       string
	command    []string // below the folder of the installed peers, or of tools/interop
	accessOnly bool     // it has nothing for ID tokens
}

var peers = []peer{
	{"aws-jwt-verify", []string{"node", "verify.mjs"}, false},
	{"m2m-cognito", []string{"python3", "verify.py", "m2m-cognito"}, true},
	{"cognitojwt", []string{"python3", "verify.py", "cognitojwt"}, false},
	{"golang-jwt", []string{"golang-jwt"}, false},
}

// A question is a case with the settings of the pool.
type question struct {
	testCase
	Region    string   `json:"region"`
	PoolID    string   `json:"userPoolId"`
	ClientIDs []string `json:"clientIds"`
}

// An answer is what a verifier makes of a case.
type answer struct {
	Name     string   `json:"name"`
	Accepted bool     `json:"accepted"`
	Error    string   `json:"error"`
	ClientID string   `json:"clientId"`
	Scopes   []string `json:"scopes"`
}

// installed returns the folder of the peers, or leaves the test out.
func installed(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("EXTAUTHZ_INTEROP")
	if folder == "" {
		t.Skip("EXTAUTHZ_INTEROP is not set, want the folder of other verifiers and issuers: run make interop")
	}
	if _, err := os.Stat(filepath.Join(folder, "installed")); err != nil {
		t.Fatalf("EXTAUTHZ_INTEROP is %s, want a folder that make interop has filled: %v", folder, err)
	}
	return folder
}

// program returns a command that finds what is installed in folder: a program of its own, or an interpreter and the script
// of tools/interop that it runs.
func program(t *testing.T, folder string, args ...string) *exec.Cmd {
	t.Helper()
	path := args[0]
	if path != "python3" {
		path = filepath.Join(folder, "bin", path)
	}
	args = slices.Clone(args[1:])
	if len(args) > 0 && slices.Contains([]string{".py", ".mjs"}, filepath.Ext(args[0])) {
		args[0] = filepath.Join("..", "..", "tools", "interop", args[0])
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(folder, "python"), "INTEROP_NODE_MODULES="+folder)
	return cmd
}

func (p peer) ask(t *testing.T, folder string, cases []testCase) map[string]answer {
	t.Helper()
	var in bytes.Buffer
	lines := json.NewEncoder(&in)
	lines.SetEscapeHTML(false)
	for _, c := range cases {
		if err := lines.Encode(question{c, region, poolID, []string{client}}); err != nil {
			t.Fatal(err)
		}
	}
	cmd := program(t, folder, p.command...)
	var failure bytes.Buffer
	cmd.Stdin, cmd.Stderr = &in, &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", p.name, err, failure.Bytes())
	}
	return readAnswers(t, p.name, out, len(cases))
}

func readAnswers(t *testing.T, name string, out []byte, want int) map[string]answer {
	t.Helper()
	answers := make(map[string]answer)
	for line := range bytes.Lines(out) {
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%s answered %q: %v", name, line, err)
		}
		a.Scopes = setOfScopes(a.Scopes)
		answers[a.Name] = a
	}
	if len(answers) != want {
		t.Fatalf("%s answered %d cases, want %d", name, len(answers), want)
	}
	return answers
}

// setOfScopes sorts scopes and drops what is empty, which is no scope (RFC 6749 section 3.3).
func setOfScopes(scopes []string) []string {
	set := make(map[string]bool)
	for _, s := range scopes {
		if s != "" {
			set[s] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// ours verifies the cases with pkg/validator.
func ours(t *testing.T, cases []testCase) map[string]answer {
	t.Helper()
	answers := make(map[string]answer)
	for _, c := range cases {
		a := answer{Name: c.Name}
		claims, err := validate(t, c)
		if err != nil {
			a.Error = err.Error()
		} else {
			a.Accepted, a.ClientID, a.Scopes = true, claims.ClientID, setOfScopes(claims.Scopes)
		}
		answers[c.Name] = a
	}
	return answers
}

func validate(t *testing.T, c testCase) (*validator.Claims, error) {
	t.Helper()
	keys, _, err := validator.ParseJWKS([]byte(c.JWKS))
	if err != nil {
		return nil, err
	}
	v, err := validator.New(validator.Config{
		Issuers:   []string{validator.CognitoIssuer(region, poolID), validator.UpdatedIssuer(region, poolID)},
		ClientIDs: []string{client},
		TokenUses: []validator.TokenUse{validator.TokenUse(c.TokenUse)},
		Keys:      keys,
	})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := v.Validate(t.Context(), c.Token)
	if errors.Is(err, validator.ErrKeysUnavailable) {
		t.Errorf("%s: the check fails, want the token accepted or refused: %v", c.Name, err)
	}
	return claims, err
}

// cases returns the cases that concern a peer.
func (p peer) cases(all []testCase) []testCase {
	if !p.accessOnly {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(c testCase) bool { return c.TokenUse != "access" })
}
