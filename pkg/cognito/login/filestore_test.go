package login

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func newFileStore(t *testing.T, path string) *FileStore {
	t.Helper()
	s, err := NewFileStore(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// jwt returns a token with this payload. Nobody verifies it here.
func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func someTokens() *Tokens {
	return &Tokens{
		IDToken: jwt(`{"exp":1900000000,"use":"id"}`), AccessToken: jwt(`{"exp":1900000300}`), RefreshToken: "refresh",
		IDTokenExpiry: time.Unix(1900000000, 0).UTC(), AccessTokenExpiry: time.Unix(1900000300, 0).UTC(),
		ObtainedAt: time.Unix(1899996400, 5).UTC(),
	}
}

func TestFileStore(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := newFileStore(t, filepath.Join(dir, "tokens.json"))
	ctx := t.Context()
	if _, err := s.Load(ctx); !errors.Is(err, ErrNoTokens) {
		t.Errorf("without a folder: %v, want ErrNoTokens", err)
	}
	if err := s.Delete(ctx); err != nil {
		t.Errorf("Delete without a folder: %v", err)
	}
	want := someTokens()
	for range 2 {
		if err := s.Save(ctx, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Load(ctx)
	if err != nil || *got != *want {
		t.Errorf("got %+v, %v, want what was saved", got, err)
	}
	unlock, err := s.Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	modes := make(map[string]fs.FileMode)
	err = filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, _ error) error {
		info, err := d.Info()
		name, _ := filepath.Rel(filepath.Dir(dir), path)
		modes[name] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		// Nothing else is left: no file of a write that was under way.
		want := map[string]fs.FileMode{".": fs.ModeDir | 0o700, "b": fs.ModeDir | 0o700, "b/tokens.json": 0o600, "b/tokens.json.lock": 0o600}
		if diff := cmp.Diff(want, modes); diff != "" {
			t.Error(diff)
		}
	}
	// A process that is killed while it saves leaves a file with tokens. What others have there is theirs.
	dir, base := filepath.Split(s.Path())
	theirs := filepath.Join(dir, "."+base+".swp")
	for _, path := range []string{filepath.Join(dir, "."+base+".123456"), theirs} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(ctx); !errors.Is(err, ErrNoTokens) {
		t.Errorf("after Delete: %v, want ErrNoTokens", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "."+base+".*")); err != nil || !slices.Equal(left, []string{theirs}) {
		t.Errorf("after Delete there are %q, %v, want only %q", left, err, theirs)
	}
}

func TestFileStoreFails(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.MkdirAll(filepath.Join(path, "more"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := newFileStore(t, path).Delete(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "login: delete the tokens: ") {
		t.Errorf("Delete of a folder returns %v, want an error", err)
	}
	s := newFileStore(t, filepath.Join(path, "tokens.json"))
	late := someTokens()
	late.ObtainedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := s.Save(t.Context(), late); err == nil || !strings.HasPrefix(err.Error(), "login: save the tokens: ") {
		t.Errorf("Save of a time that JSON cannot hold returns %v, want an error", err)
	}
	below := newFileStore(t, filepath.Join(path, "tokens.json", "x"))
	if err := s.Save(t.Context(), someTokens()); err != nil {
		t.Fatal(err)
	}
	if err := below.Save(t.Context(), someTokens()); err == nil || !strings.HasPrefix(err.Error(), "login: save the tokens: ") {
		t.Errorf("Save below a file returns %v, want an error", err)
	}
	if _, err := below.Lock(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "login: ") {
		t.Errorf("Lock below a file returns %v, want an error", err)
	}
}

// The longest tokens that a login takes can be saved, and loaded again.
func TestFileStoreTakesTheLongestTokens(t *testing.T) {
	t.Parallel()
	s := newFileStore(t, filepath.Join(t.TempDir(), "tokens", "tokens.json"))
	want := someTokens()
	want.RefreshToken = strings.Repeat("<", maxRefreshBytes)
	want.IDToken += strings.Repeat("A", validator.MaxTokenBytes-len(want.IDToken))
	want.AccessToken += strings.Repeat("A", validator.MaxTokenBytes-len(want.AccessToken))
	if err := s.Save(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context()); err != nil || *got != *want {
		t.Errorf("got %v, %v, want what was saved", got, err)
	}
}

func TestFileStorePath(t *testing.T) {
	t.Parallel()
	if _, err := NewFileStore(""); err == nil || err.Error() != `login: token file is "", want a path` {
		t.Errorf("got %v", err)
	}
	s := newFileStore(t, "tokens.json")
	if !filepath.IsAbs(s.Path()) {
		t.Errorf("the path is %s, want an absolute one: the working directory may change", s.Path())
	}
}

// Each row differs in one thing from a file that is taken.
func TestFileStoreRefuses(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files have no mode on Windows")
	}
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir, path string) error
		want  string // PATH and DIR stand for themselves
		saves bool   // whether Save puts it right
	}{
		{"a file that the group may read", func(_ *testing.T, _, path string) error { return os.Chmod(path, 0o640) }, "PATH has mode 0640, want 0600, as others must not read or write it\nhint: if nobody else has had access, run: chmod 600 \"PATH\"", true},
		{"a file that all may read", func(_ *testing.T, _, path string) error { return os.Chmod(path, 0o604) }, "PATH has mode 0604, want 0600", true},
		{"a file that all may write", func(_ *testing.T, _, path string) error { return os.Chmod(path, 0o602) }, "PATH has mode 0602, want 0600", true},
		{"a folder that the group may write to", func(_ *testing.T, dir, _ string) error { return os.Chmod(dir, 0o770) }, "folder DIR has mode 0770, want 0700, as others must not write to it\nhint: use a folder of your own, or run: chmod 700 \"DIR\"", false},
		{"a folder that all may write to", func(_ *testing.T, dir, _ string) error { return os.Chmod(dir, 0o707) }, "folder DIR has mode 0707, want 0700", false},
		{"a folder for all, with the sticky bit", func(_ *testing.T, dir, _ string) error { return os.Chmod(dir, 0o777|fs.ModeSticky) }, "folder DIR has mode 0777, want 0700", false},
		{"a symbolic link", func(_ *testing.T, dir, path string) error {
			return errors.Join(os.Rename(path, dir+"/other"), os.Symlink(dir+"/other", path))
		}, "PATH is a symbolic link, want a file\nhint: remove it", true},
		{"a pipe", func(_ *testing.T, _, path string) error {
			return errors.Join(os.Remove(path), mkfifo(path))
		}, "PATH is p", true},
		{"a folder", func(_ *testing.T, _, path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "PATH is d", false},
		{"an endless file", replace(strings.Repeat(" ", maxStoreBytes+1)), "PATH has more than 163840 bytes", true},
		{"an empty file", replace(""), "PATH is damaged, or not a file of tokens\nhint: log in again, which replaces it", true},
		{"half of a file", func(_ *testing.T, _, path string) error { return os.Truncate(path, 100) }, "PATH is damaged, or not a file of tokens", true},
		{"null", replace("null"), "PATH has version 0, want 1", true},
		{"something behind it", appendTo("{}"), "PATH is damaged: something stands behind the tokens", true},
		{"a later version", edit(`"version":1`, `"version":2`), "PATH has version 2, want 1", true},
		{"something more", edit(`"version":1`, `"version":1,"more":1`), "PATH is damaged, or not", true},
		{"another type", edit(`"version":1`, `"version":"1"`), "PATH is damaged, or not", true},
		{"no ID token", edit(`"id_token":"e30.`, `"id_token":"`), "PATH is damaged: the ID token is none", true},
		{"no access token", edit(`"access_token":"e30.`, `"access_token":"`), "PATH is damaged: the access token is none", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s := newFileStore(t, filepath.Join(dir, "tokens.json"))
			if err := s.Save(t.Context(), someTokens()); err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(t, dir, s.path); err != nil {
				t.Fatal(err)
			}
			tokens, err := s.Load(t.Context())
			want := "login: read the tokens: " + strings.NewReplacer("PATH", s.path, "DIR", dir).Replace(tt.want)
			if tokens != nil || err == nil || errors.Is(err, ErrNoTokens) || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v and %v, want %s", tokens, err, want)
			}
			err = s.Save(t.Context(), someTokens())
			if saved := err == nil; saved != tt.saves {
				t.Fatalf("Save returns %v", err)
			}
			if tt.saves {
				if _, err := s.Load(t.Context()); err != nil {
					t.Errorf("after Save: %v", err)
				}
			}
			entries, err := os.ReadDir(dir)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), ".") {
					t.Errorf("%s is left, %v", e.Name(), err)
				}
			}
		})
	}
}

func replace(content string) func(*testing.T, string, string) error {
	return func(_ *testing.T, _, path string) error { return os.WriteFile(path, []byte(content), 0o600) }
}

func appendTo(more string) func(*testing.T, string, string) error {
	return func(_ *testing.T, _, path string) error {
		content, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(path, append(content, more...), 0o600))
	}
}

func edit(old, replacement string) func(*testing.T, string, string) error {
	return func(t *testing.T, _, path string) error {
		content, err := os.ReadFile(path)
		if !strings.Contains(string(content), old) {
			t.Errorf("%s is not in the file", old)
		}
		return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(content), old, replacement, 1)), 0o600))
	}
}

// Somebody else's file or folder is not used, not even by root, who could read it.
func TestFileStoreOfAnother(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	for _, tt := range []struct{ name, what, want string }{
		{"file", "tokens.json", "belongs to user 65534, want it to be user 0's\nhint: remove it"},
		{"folder", ".", "belongs to user 65534, want it to be user 0's\nhint: use a folder of your own"},
	} {
		dir := t.TempDir()
		s := newFileStore(t, filepath.Join(dir, "tokens.json"))
		if err := errors.Join(os.Chmod(dir, 0o700), s.Save(t.Context(), someTokens()), os.Chown(filepath.Join(dir, tt.what), 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

// A link in the place of the file is replaced, and what it leads to stays as it is.
func TestFileStoreDoesNotFollowLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	path := filepath.Join(dir, "tokens.json")
	if err := errors.Join(os.Chmod(dir, 0o700), os.WriteFile(victim, []byte("mine"), 0o600), os.Symlink(victim, path)); err != nil {
		t.Fatal(err)
	}
	if err := newFileStore(t, path).Save(t.Context(), someTokens()); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(victim); err != nil || string(content) != "mine" {
		t.Errorf("the link's target has %q, %v", content, err)
	}
}

func TestStoreLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens", "tokens.json")
	memory := newMemoryStore()
	for name, stores := range map[string][2]Store{
		"file":   {newFileStore(t, path), newFileStore(t, path)},
		"memory": {memory, memory},
	} {
		unlock, err := stores[0].Lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		t.Cleanup(cancel)
		if _, err := stores[1].Lock(ctx); !errors.Is(err, context.DeadlineExceeded) || name == "file" && !strings.Contains(err.Error(), ".lock: waiting for another process: ") {
			t.Errorf("%s: got %v, want the context's error while another has the lock", name, err)
		}
		unlock()
		if unlock, err = stores[1].Lock(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		unlock()
	}
}

func FuzzStoredTokens(f *testing.F) {
	t := someTokens()
	f.Add(`{"version":1,"id_token":"` + t.IDToken + `","access_token":"` + t.AccessToken + `","refresh_token":"r","obtained_at":"2026-03-04T05:06:07Z"}`)
	f.Add(`{"version":1}`)
	f.Add(`{"version":1,"version":1,"id_token":null}`)
	f.Fuzz(func(t *testing.T, content string) {
		tokens, err := decodeStored([]byte(content))
		if err != nil {
			if tokens != nil {
				t.Errorf("got tokens with %v", err)
			}
			return
		}
		// What is believed is believed again as it stands.
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := newFileStore(t, filepath.Join(dir, "tokens.json"))
		if err := s.Save(t.Context(), tokens); err != nil {
			return // a time that RFC 3339 cannot write
		}
		again, err := s.Load(t.Context())
		if err != nil || again.IDToken != tokens.IDToken || again.AccessToken != tokens.AccessToken || again.RefreshToken != tokens.RefreshToken ||
			!again.Expiry().Equal(tokens.Expiry()) || !again.ObtainedAt.Equal(tokens.ObtainedAt) || again.Expiry().IsZero() {
			t.Errorf("%q: got %v, %v, want %v", content, again, err, tokens)
		}
	})
}
