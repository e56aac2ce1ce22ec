package identity

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofrs/flock"
)

// shares returns a Provider beside another one, as in another process: they have the service and the folder in common.
func shares(t *testing.T, s *service, folder string, edit ...func(*Config)) *Provider {
	t.Helper()
	p, _ := newProvider(t, append([]func(*Config){func(c *Config) {
		c.HTTPClient.Transport, c.CacheDir = s, folder
	}}, edit...)...)
	return p
}

func TestFiftyProcessesCostOneCallOfEachKind(t *testing.T) {
	s := newService()
	s.next("GetId", answer{status: 200, delay: 100 * time.Millisecond, body: `{"IdentityId":"eu-west-1:1"}`})
	server := httptest.NewServer(s)
	defer server.Close()
	folder := filepath.Join(t.TempDir(), "new", "folder")
	var wg sync.WaitGroup
	var mu sync.Mutex
	outputs := make(map[string]int)
	for range 50 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], server.URL, folder)
			cmd.Env = []string{asProcess + "=1"}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			mu.Lock()
			defer mu.Unlock()
			outputs[string(out)]++
		})
	}
	wg.Wait()
	if got := s.count(); got != [2]int{1, 1} || len(outputs) != 1 {
		t.Errorf("called %v times with %d kinds of output, want once each and the same for all", got, len(outputs))
	}
}

// The same in one process, where the clock is fake and a slow service too.
func TestTwentyProvidersCostOneCallOfEachKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, folder := newService(), t.TempDir()
		s.next("GetId", answer{status: 200, delay: 8 * time.Second, body: `{"IdentityId":"eu-west-1:1"}`})
		var log logged
		var wg sync.WaitGroup
		for range 20 {
			p := shares(t, s, folder, func(c *Config) { c.Logger = log.logger() })
			wg.Go(func() {
				if got := key(t, p); got != "ASIA1" {
					t.Errorf("got %s, want the same for all", got)
				}
			})
		}
		wg.Wait()
		if got := s.count(); got != [2]int{1, 1} {
			t.Errorf("called %v times, want once each", got)
		}
		if log.String() != "" {
			t.Errorf("log is %q, want nothing said when all is well", log.String())
		}
	})
}

// What credentials depend on parts them; what they do not depend on does not.
func TestCacheIsKeyed(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Config)
		same bool
	}{
		{"the same", func(*Config) {}, true},
		{"a newer token of the same user", func(c *Config) { c.IDToken = always(token(claim("exp", 4102448400), claim("iat", 1))) }, true},
		{"another user", func(c *Config) { c.IDToken = always(token(claim("sub", "john"))) }, false},
		{"the same sub of another user pool", func(c *Config) { c.IDToken = always(token(claim("iss", "https://"+logins+"J"))) }, false},
		{"another app client", func(c *Config) { c.IDToken = always(token(claim("aud", "other"))) }, false},
		{"a role", func(c *Config) { c.RoleARN = analyst }, false},
		{"a role by its end", func(c *Config) { c.RoleSuffix = "Admin" }, false},
		{"an account", func(c *Config) { c.AccountID = "123456789012" }, false},
		{"another Region", func(c *Config) { c.Region = "us-west-2" }, false},
		{"another identity pool", func(c *Config) { c.IdentityPoolID = "eu-west-1:00000000" }, false},
		{"another login provider", func(c *Config) { c.UserPoolID, c.LoginProvider = "", "login.example.com" }, false},
		{"an endpoint", func(c *Config) { c.Endpoint = "https://vpce.example.com" }, false},
		{"other times", func(c *Config) { c.Timeout, c.EarlyExpiry = time.Minute, time.Minute }, true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s, folder := newService(), t.TempDir()
			key(t, shares(t, s, folder))
			want := "ASIA2"
			if tc.same {
				want = "ASIA1"
			}
			for range 2 {
				if got := key(t, shares(t, s, folder, tc.edit)); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
	}
}

// The same role, said in two ways, is the same.
func TestCacheKnowsTheRoleAndNotHowItWasSaid(t *testing.T) {
	s, folder := newService(), t.TempDir()
	key(t, shares(t, s, folder, func(c *Config) { c.RoleARN = admin }))
	p := shares(t, s, folder, func(c *Config) { c.RoleSuffix = "/Admin" })
	c, err := p.Credentials(t.Context())
	if err != nil || c.AccessKeyID != "ASIA1" || c.RoleARN != admin || c.AccountID != "123456789012" || c.IdentityID != jane {
		t.Errorf("got %q, %v, want those that are kept, with all that they say", fields(c), err)
	}
}

func TestCacheKeepsCredentialsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, folder := newService(), t.TempDir()
		for i := range 3 {
			key(t, shares(t, s, folder))
			time.Sleep(54 * time.Minute)
			key(t, shares(t, s, folder))
			if got := s.count(); got != [2]int{1, i + 1} {
				t.Errorf("while they are fresh: called %v times, want GetId once in all", got)
			}
			time.Sleep(2 * time.Minute)
		}
		c, err := shares(t, s, folder).Renew(t.Context())
		if err != nil || c.AccessKeyID != "ASIA4" {
			t.Errorf("Renew: got %q, %v, want new ones", c.AccessKeyID, err)
		}
		if c, err = shares(t, s, folder).Renew(t.Context()); err != nil || c.AccessKeyID != "ASIA5" {
			t.Errorf("Renew while those that are kept are fresh: got %q, %v, want new ones", c.AccessKeyID, err)
		}
		if got := key(t, shares(t, s, folder)); got != "ASIA5" {
			t.Errorf("after Renew: got %s, want those from now on", got)
		}
	})
}

// A process that is new in an outage serves what another one has kept, to its end.
func TestCacheServesOnInAnOutage(t *testing.T) {
	for name, breakIt := range map[string]func(*service){
		"failing": func(s *service) { s.always("GetCredentialsForIdentity", failure(500, "InternalErrorException", "")) },
		"hanging": func(s *service) { s.always("GetCredentialsForIdentity", answer{delay: time.Hour}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, folder := newService(), t.TempDir()
				key(t, shares(t, s, folder))
				time.Sleep(56 * time.Minute)
				breakIt(s)
				begin := time.Now()
				p := shares(t, s, folder)
				if got := key(t, p); got != "ASIA1" {
					t.Errorf("got %s, want what is kept", got)
				}
				if took := time.Since(begin); took > patience {
					t.Errorf("it took %v, want 5s at most", took)
				}
				asked := s.count()
				key(t, p)
				if got := s.count(); got != asked {
					t.Errorf("asked again at once: %v after %v", got, asked)
				}
				time.Sleep(5 * time.Minute)
				if c, err := shares(t, s, folder).Credentials(t.Context()); err == nil {
					t.Errorf("after their end: got %s, want an error", c.AccessKeyID)
				}
			})
		})
	}
}

func TestCacheDoesNotServeWhatAWSRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, folder := newService(), t.TempDir()
		key(t, shares(t, s, folder))
		time.Sleep(56 * time.Minute)
		s.always("GetCredentialsForIdentity", failure(400, "NotAuthorizedException", "no"))
		if c, err := shares(t, s, folder).Credentials(t.Context()); err == nil {
			t.Errorf("got %s, want the error", c.AccessKeyID)
		}
	})
}

// What a process has in memory is not given up for what stands in an old file, and it knows its identity without one.
func TestMemoryIsNewerThanTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, folder := newService(), t.TempDir()
		p := shares(t, s, folder)
		key(t, p)
		file := onlyFile(t, folder)
		old, err := os.ReadFile(file)
		must(t, err)
		time.Sleep(56 * time.Minute)
		key(t, p)
		must(t, os.WriteFile(file, old, 0o600))
		time.Sleep(56 * time.Minute)
		s.always("GetCredentialsForIdentity", failure(500, "InternalErrorException", ""))
		for range 2 {
			if got := key(t, p); got != "ASIA2" {
				t.Errorf("in an outage: got %s, want what is in memory and serves", got)
			}
			time.Sleep(time.Minute)
		}

		s.well()
		must(t, os.Remove(file))
		if got := key(t, p); got == "ASIA2" || s.count()[0] != 1 {
			t.Errorf("got %s after %d calls of GetId, want new ones for the identity that is known", got, s.count()[0])
		}
	})
}

// What another process has kept serves in an outage, if it is newer than what stands in memory.
func TestFileIsNewerThanMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, folder := newService(), t.TempDir()
		p := shares(t, s, folder)
		key(t, p)
		time.Sleep(30 * time.Minute)
		if _, err := shares(t, s, folder).Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(56 * time.Minute)
		s.always("GetCredentialsForIdentity", failure(500, "InternalErrorException", ""))
		for range 2 {
			if got := key(t, p); got != "ASIA2" {
				t.Errorf("got %s, want those that the other process has kept", got)
			}
		}
	})
}

// A process that hangs while it holds the lock costs others time, and no more.
func TestLockThatIsNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		s, folder := newService(), t.TempDir()
		p := shares(t, s, folder, func(c *Config) { c.Logger = log.logger() })
		w, err := p.wanted(token())
		if err != nil {
			t.Fatal(err)
		}
		l := flock.New(p.cache.path(p.key(w)) + ".lock")
		if err := l.Lock(); err != nil {
			t.Fatal(err)
		}
		defer l.Close()

		begin := time.Now()
		if got := key(t, p); got != "ASIA1" || time.Since(begin) > 16*time.Second {
			t.Errorf("got %s after %v, want new ones after half of the timeout", got, time.Since(begin))
		}
		if !strings.Contains(log.String(), "aws credentials cache not locked") {
			t.Errorf("log is %q, want it to say so", log.String())
		}
		begin = time.Now()
		if got := key(t, shares(t, s, folder)); got != "ASIA1" || time.Since(begin) != 0 {
			t.Errorf("got %s after %v, want what is kept and fresh, at once", got, time.Since(begin))
		}
		time.Sleep(56 * time.Minute)
		begin = time.Now()
		if got := key(t, shares(t, s, folder)); got != "ASIA1" || time.Since(begin) > patience {
			t.Errorf("got %s after %v, want what is kept and serves, after 5s at most", got, time.Since(begin))
		}
		if c, err := shares(t, s, folder).Renew(t.Context()); err != nil || c.AccessKeyID != "ASIA2" {
			t.Errorf("Renew: got %q, %v, want new ones all the same", c.AccessKeyID, err)
		}
	})
}

// A file that is not as it should be is not believed, and does no harm.
func TestFilesThatAreNotBelieved(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	tests := []struct {
		name  string
		spoil func(t *testing.T, file, text string)
		log   string // empty: nothing is said
	}{
		{"others can read it", func(t *testing.T, file, _ string) { must(t, os.Chmod(file, 0o640)) }, "has mode 0640, want 0600"},
		{"a link", func(t *testing.T, file, text string) {
			to := filepath.Join(t.TempDir(), "other")
			must(t, os.WriteFile(to, []byte(text), 0o600))
			must(t, os.Remove(file))
			must(t, os.Symlink(to, file))
		}, "is a symbolic link"},
		{"a folder", func(t *testing.T, file, _ string) { must(t, os.Remove(file)); must(t, os.Mkdir(file, 0o700)) }, "want a regular file"},
		{"empty", replace(""), "no credentials of its key"},
		{"cut off", func(t *testing.T, file, text string) { must(t, os.WriteFile(file, []byte(text[:len(text)/2]), 0o600)) }, "no credentials of its key"},
		{"too long", func(t *testing.T, file, text string) {
			must(t, os.WriteFile(file, []byte(text+strings.Repeat(" ", maxEntryBytes)), 0o600))
		}, "has more than 65536 bytes"},
		{"of another key", edited(`\"1\",`, `\"2\",`), "no credentials of its key"},
		{"of another user", edited("jane", "john"), "no credentials of its key"},
		{"without a secret", edited("CANARY secret 1", ""), "no credentials of its key"},
		{"without a session token", edited("CANARY session 1", ""), "no credentials of its key"},
		{"without an access key", edited("ASIA1", ""), "no credentials of its key"},
		{"without an identity", edited(`"identityId":"`+jane, `"identityId":"`), "no credentials of its key"},
		{"obtained after its end", edited(`"obtained":"2000-`, `"obtained":"2100-`), ""},
		{"of the future", edited(`"2000-01-01T`, `"2000-01-02T`), ""},
		{"expired", edited(`"2000-01-01T`, `"1999-01-01T`), ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, folder := newService(), t.TempDir()
				key(t, shares(t, s, folder))
				file := onlyFile(t, folder)
				text, err := os.ReadFile(file)
				must(t, err)
				tc.spoil(t, file, string(text))

				var log logged
				if got := key(t, shares(t, s, folder, func(c *Config) { c.Logger = log.logger() })); got != "ASIA2" {
					t.Errorf("got %s, want new ones", got)
				}
				if said := log.String(); tc.log == "" && said != "" || !strings.Contains(said, tc.log) {
					t.Errorf("log is %q, want %q", said, tc.log)
				}
				if strings.Contains(log.String(), "CANARY") {
					t.Errorf("log has a secret in it: %s", log.String())
				}
				if tc.name == "a folder" {
					if !strings.Contains(log.String(), "aws credentials not kept") {
						t.Errorf("log is %q, want it to say that they could not be kept", log.String())
					}
					return
				}
				if got := key(t, shares(t, s, folder)); got != "ASIA2" {
					t.Errorf("afterwards: got %s, want a good file in its place", got)
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func replace(with string) func(t *testing.T, file, text string) {
	return func(t *testing.T, file, _ string) {
		t.Helper()
		must(t, os.WriteFile(file, []byte(with), 0o600))
	}
}

func edited(from, to string) func(t *testing.T, file, text string) {
	return func(t *testing.T, file, text string) {
		t.Helper()
		if !strings.Contains(text, from) {
			t.Fatalf("%s has no %q in it: %s", file, from, text)
		}
		must(t, os.WriteFile(file, []byte(strings.ReplaceAll(text, from, to)), 0o600))
	}
}

// onlyFile returns the only file of credentials in a folder.
func onlyFile(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files are %v, %v, want one", files, err)
	}
	return files[0]
}

// The folder and the files are the user's own, whatever the umask, and nothing else is left there.
func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	folder := filepath.Join(t.TempDir(), "a", "b")
	key(t, shares(t, newService(), folder))
	for path, want := range map[string]os.FileMode{
		filepath.Dir(folder): 0o700, folder: 0o700, onlyFile(t, folder): 0o600, onlyFile(t, folder) + ".lock": 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode().Perm(), err, want)
		}
	}
	if all, err := os.ReadDir(folder); err != nil || len(all) != 2 {
		t.Errorf("the folder has %v, %v, want the credentials and a lock", all, err)
	}
}

// A folder that cannot be used costs a call and a line in the log.
func TestFolderThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	open := filepath.Join(t.TempDir(), "open")
	must(t, os.Mkdir(open, 0o700))
	must(t, os.Chmod(open, 0o777))
	for name, folder := range map[string]string{"a file": file, "below a file": filepath.Join(file, "x"), "others can write to it": open} {
		if runtime.GOOS == "windows" && folder == open {
			continue // modes mean nothing there
		}
		t.Run(name, func(t *testing.T) {
			var log logged
			s := newService()
			for want := 1; want < 3; want++ {
				key(t, shares(t, s, folder, func(c *Config) { c.Logger = log.logger() }))
				if got := s.count()[1]; got != want {
					t.Errorf("called %d times, want %d", got, want)
				}
			}
			if lines := strings.Count(log.String(), "\n"); lines != 2 || strings.Count(log.String(), folder) < 2 {
				t.Errorf("log is %q, want a line for each, with the folder's name", log.String())
			}
			key(t, shares(t, s, folder)) // without a Logger too
		})
	}
}

func TestClearCache(t *testing.T) {
	s, folder := newService(), t.TempDir()
	key(t, shares(t, s, folder))
	key(t, shares(t, s, folder, func(c *Config) { c.RoleARN = admin }))
	must(t, os.WriteFile(filepath.Join(folder, "other.json"), nil, 0o600))
	killed := filepath.Join(folder, "."+strings.Repeat("0", 64)+".json.123456") // of a process that was, while it wrote
	must(t, os.WriteFile(killed, nil, 0o600))
	if err := ClearCache(folder); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || !slices.Equal(files, []string{filepath.Join(folder, "other.json")}) {
		t.Errorf("files are %v, %v, want only what is not ours", files, err)
	}
	if _, err := os.Lstat(killed); err == nil {
		t.Errorf("%s is left", killed)
	}
	if got := key(t, shares(t, s, folder)); got != "ASIA3" {
		t.Errorf("got %s, want new ones", got)
	}
	if err := ClearCache(filepath.Join(folder, "none")); err != nil {
		t.Errorf("got %v, want no error without a folder", err)
	}
	stuck := filepath.Join(folder, strings.Repeat("0", 64)+".json", "x")
	must(t, os.MkdirAll(stuck, 0o700))
	if err := ClearCache(folder); err == nil || !strings.HasPrefix(err.Error(), "identity: ") {
		t.Errorf("got %v, want an error for what cannot be removed", err)
	}
	if err := ClearCache(filepath.Join(folder, "other.json")); err == nil || !strings.HasPrefix(err.Error(), "identity: ") {
		t.Errorf("got %v, want an error for a file", err)
	}
}

// A file's bytes come from outside: only credentials with all their members, and of the key, are taken.
func FuzzDecode(f *testing.F) {
	p, err := New(Config{IdentityPoolID: pool, UserPoolID: users, IDToken: always(token()), CacheDir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	w, err := p.wanted(token())
	if err != nil {
		f.Fatal(err)
	}
	k := p.key(w)
	if err := p.cache.write(k, &held{Credentials: complete(), user: w.user, obtained: time.Now()}); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(p.cache.path(k))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h := p.decode(text, k, w)
		if h != nil && (h.AccessKeyID == "" || h.SecretAccessKey() == "" || h.SessionToken() == "" || h.IdentityID == "") {
			t.Errorf("took %q from %q", fields(h.Credentials), text)
		}
		if h.serves(p) && !h.Expires.After(time.Now()) {
			t.Errorf("serves what expired at %v, from %q", h.Expires, text)
		}
	})
}
