package cognito

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing")
	t.Setenv("SECRET_A", "aaaaaaaa")
	t.Setenv("SECRET_B", "bbbbbbbb")
	t.Setenv("SECRET_EMPTY", "")
	errStore := errors.New("the store is closed")

	for name, tc := range map[string]struct {
		secret Secret
		want   []string
		err    string
	}{
		"static":                        {StaticSecret("aaaaaaaa"), []string{"aaaaaaaa"}, ""},
		"two":                           {StaticSecret("aaaaaaaa", "bbbbbbbb"), []string{"aaaaaaaa", "bbbbbbbb"}, ""},
		"the same twice":                {StaticSecret("aaaaaaaa", "aaaaaaaa"), []string{"aaaaaaaa"}, ""},
		"an empty one beside":           {StaticSecret("", "aaaaaaaa"), []string{"aaaaaaaa"}, ""},
		"three":                         {StaticSecret("a", "b", "c"), nil, "client secret: there are 3, want one, or two while one is replaced"},
		"none":                          {StaticSecret(), nil, "client secret: there are 0, want one, or two while one is replaced"},
		"one with a space":              {StaticSecret("canary canary"), nil, "client secret: one has white space or a control character in it, want the secret alone"},
		"one with a delete character":   {StaticSecret("canary\x7f"), nil, "client secret: one has white space or a control character in it, want the secret alone"},
		"file":                          {SecretFile(write("plain", "aaaaaaaa")), []string{"aaaaaaaa"}, ""},
		"file with a line end":          {SecretFile(write("line", "aaaaaaaa\n")), []string{"aaaaaaaa"}, ""},
		"file with line ends":           {SecretFile(write("dos", "aaaaaaaa\r\n\n")), []string{"aaaaaaaa"}, ""},
		"file with two lines":           {SecretFile(write("two", "canary\ncanary\n")), nil, "client secret: one has white space or a control character in it, want the secret alone"},
		"file with + and =":             {SecretFile(write("odd", "a+b=c/d")), []string{"a+b=c/d"}, ""},
		"empty file":                    {SecretFile(write("empty", "\n")), nil, "client secret: file " + filepath.Join(dir, "empty") + " is empty"},
		"huge file":                     {SecretFile(write("huge", strings.Repeat("a", maxSecretBytes+1))), nil, "client secret: file " + filepath.Join(dir, "huge") + " has more than 4096 bytes, want a secret"},
		"missing file":                  {SecretFile(missing), nil, "client secret: file " + missing + " does not exist"},
		"the second file is missing":    {SecretFile(write("first", "aaaaaaaa"), missing), []string{"aaaaaaaa"}, ""},
		"the first file is missing":     {SecretFile(missing, write("second", "bbbbbbbb")), []string{"bbbbbbbb"}, ""},
		"a folder":                      {SecretFile(dir), nil, "client secret: read " + dir + ": is a directory"},
		"environment":                   {SecretEnv("SECRET_A", "SECRET_B"), []string{"aaaaaaaa", "bbbbbbbb"}, ""},
		"environment, the second unset": {SecretEnv("SECRET_A", "SECRET_C"), []string{"aaaaaaaa"}, ""},
		"environment, unset":            {SecretEnv("SECRET_C"), nil, "client secret: environment variable SECRET_C is not set"},
		"environment, empty":            {SecretEnv("SECRET_EMPTY"), nil, "client secret: environment variable SECRET_EMPTY is not set"},
		"a function that fails":         {func(context.Context) ([]string, error) { return nil, errStore }, nil, "client secret: the store is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.secret.secrets(t.Context())
			if err != nil && err.Error() != tc.err || err == nil && tc.err != "" {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("secrets (-want +got):\n%s", diff)
			}
		})
	}
}

func TestErrorOfTheSecretIsTheCallersOwn(t *testing.T) {
	errStore := errors.New("the store is closed")
	o := &origin{answer: grant}
	s := newSource(t, originURL, o.use, func(c *Config) {
		c.Secret = func(context.Context) ([]string, error) { return nil, errStore }
	})
	if _, err := s.Token(t.Context()); !errors.Is(err, errStore) || err.Error() != "cognito: client secret: the store is closed" {
		t.Errorf("got %v, want %v", err, errStore)
	}
	if o.count() != 0 {
		t.Errorf("%d requests, want none", o.count())
	}
}
