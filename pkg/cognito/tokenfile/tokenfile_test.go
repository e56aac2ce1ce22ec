package tokenfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
)

// The test binary is also the process that shares tokens with others: see TestFiftyProcessesMakeOneRequest.
func TestMain(m *testing.M) {
	if os.Getenv("TOKENFILE_TEST_DIR") != "" {
		process()
		return
	}
	goleak.VerifyTestMain(m)
}

// process says that it is ready, waits until its input ends, and prints a token.
func process() {
	die := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	cache, err := New(Config{Dir: os.Getenv("TOKENFILE_TEST_DIR"), Problem: func(err error) { fmt.Println("problem:", err) }})
	die(err)
	source, err := cognito.NewTokenSource(cognito.Config{
		TokenURL: os.Getenv("TOKENFILE_TEST_URL"),
		ClientID: cognitotest.DemoClientID,
		Secret:   cognito.SecretEnv("TOKENFILE_TEST_SECRET"),
		Cache:    cache,
	})
	die(err)
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	die(err)
	token, err := source.Token(context.Background())
	die(err)
	fmt.Println(token.AccessToken())
}

func startPool(t testing.TB) *cognitotest.Pool {
	t.Helper()
	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Pools()[0]
}

// a child is a process that is ready to ask for a token.
type child struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

func startChild(t *testing.T, dir, tokenURL string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "TOKENFILE_TEST_DIR="+dir, "TOKENFILE_TEST_URL="+tokenURL, "TOKENFILE_TEST_SECRET="+cognitotest.DemoClientSecret)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	c := &child{cmd, in, bufio.NewReader(out)}
	if line := c.line(t); line != "ready" {
		t.Fatalf("the process says %q, want ready", line)
	}
	return c
}

func (c *child) line(t *testing.T) string {
	t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil && line == "" {
		t.Errorf("the process has ended: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func TestFiftyProcessesMakeOneRequest(t *testing.T) {
	pool, dir := startPool(t), filepath.Join(t.TempDir(), "tokens")
	children := make([]*child, 50)
	var all sync.WaitGroup
	for i := range children {
		children[i] = startChild(t, dir, pool.TokenURL())
	}
	for _, c := range children {
		all.Go(func() { c.in.Close() })
	}
	all.Wait()
	first := children[0].line(t)
	if !strings.HasPrefix(first, "ey") {
		t.Fatalf("a process says %q, want a token", first)
	}
	for _, c := range children[1:] {
		if got := c.line(t); got != first {
			t.Errorf("a process says %q, want the first one's token", got)
		}
	}
	if n := pool.Requests(cognitotest.Token); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	holdsNoSecret(t, dir)
}

// holdsNoSecret looks into all files of the folder, and at who may read them.
func holdsNoSecret(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
		if d.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), cognitotest.DemoClientSecret) || strings.Contains(string(text), cognitotest.DemoClientID+`"`) {
			t.Errorf("%s has the client's secret or its name in it:\n%s", path, text)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A process that is killed while it has the lock keeps nobody waiting.
func TestProcessThatIsKilledGivesTheLockBack(t *testing.T) {
	pool, dir := startPool(t), t.TempDir()+"/tokens"
	pool.Fail(cognitotest.Token, cognitotest.Fault{Hang: true, Times: 1})
	killed, next := startChild(t, dir, pool.TokenURL()), startChild(t, dir, pool.TokenURL())
	killed.in.Close()
	if err := pool.WaitRequests(t.Context(), cognitotest.Token, 1); err != nil {
		t.Fatal(err)
	}
	next.in.Close()
	begin := time.Now()
	if err := killed.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if line := next.line(t); !strings.HasPrefix(line, "ey") {
		t.Errorf("the next process says %q, want a token", line)
	}
	if took := time.Since(begin); took > 10*time.Second { // LockTimeout is 15s
		t.Errorf("it took %v, want less than it waits for a lock", took)
	}
	if n := pool.Requests(cognitotest.Token); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

const key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var other = strings.Repeat("f", 64)

// newCache returns a cache in a folder of its own, and what it had to tell.
func newCache(t testing.TB, edit ...func(*Config)) (*Cache, *problems) {
	t.Helper()
	p := new(problems)
	cfg := Config{Dir: filepath.Join(t.TempDir(), "tokens"), Problem: p.add}
	for _, e := range edit {
		e(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

type problems struct {
	mu  sync.Mutex
	all []string
}

func (p *problems) add(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, err.Error())
}

// want fails the test unless each problem begins as said, and forgets them.
func (p *problems) want(t *testing.T, want ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.all) != len(want) {
		t.Errorf("problems are %q, want %q", p.all, want)
	} else {
		for i := range want {
			if !strings.HasPrefix(p.all[i], want[i]) {
				t.Errorf("problem %d is %q, want %q", i, p.all[i], want[i])
			}
		}
	}
	p.all = nil
}

// fetches makes tokens, and counts them.
type fetches struct{ n atomic.Int32 }

func (f *fetches) fetch(context.Context) (*cognito.Token, error) {
	now := time.Now()
	return cognito.NewToken(fmt.Sprintf("token-%d", f.n.Add(1)), now, now.Add(time.Hour)), nil
}

func anything(*cognito.Token) bool { return true }

func wantToken(t *testing.T, c *Cache, f *fetches, key, want string) {
	t.Helper()
	got, err := c.Token(t.Context(), key, anything, f.fetch)
	if err != nil || got.AccessToken() != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

func (c *Cache) path(key string) string { return filepath.Join(c.dir, key+tokenSuffix) }

func TestTokenIsStored(t *testing.T) {
	c, p := newCache(t)
	now := time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)
	want := cognito.NewToken("abc", now, now.Add(time.Hour))
	want.Scopes = []string{"orders/read"}
	got, err := c.Token(t.Context(), key, anything, func(context.Context) (*cognito.Token, error) { return want, nil })
	if got != want || err != nil {
		t.Errorf("got %v, %v, want what was fetched", got, err)
	}
	again, err := New(Config{Dir: c.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	got, err = again.Token(t.Context(), key, anything, nil)
	if err != nil || got.AccessToken() != "abc" || !got.ObtainedAt.Equal(want.ObtainedAt) || !got.Expiry.Equal(want.Expiry) || got.TokenType != "Bearer" || !slices.Equal(got.Scopes, want.Scopes) {
		t.Errorf("got %v with scopes %q, %v, want %v", got, got.Scopes, err, want)
	}
	f := new(fetches)
	wantToken(t, again, f, other, "token-1")
	// One that is not good enough is replaced.
	got, err = again.Token(t.Context(), key, func(*cognito.Token) bool { return false }, f.fetch)
	if err != nil || got.AccessToken() != "token-2" {
		t.Errorf("got %v, %v, want token-2", got, err)
	}
	wantToken(t, c, f, key, "token-2")
	wantToken(t, c, f, other, "token-1")
	p.want(t)
	holdsNoSecret(t, c.dir)
}

func TestErrorOfFetch(t *testing.T) {
	c, p := newCache(t)
	errDown := errors.New("down")
	got, err := c.Token(t.Context(), key, anything, func(context.Context) (*cognito.Token, error) { return nil, errDown })
	if got != nil || err != errDown { //nolint:errorlint // as it is
		t.Errorf("got %v, %v, want the error as it is", got, err)
	}
	wantToken(t, c, new(fetches), key, "token-1") // which needs the lock
	p.want(t)
}

func TestFetchThatPanicsGivesTheLockBack(t *testing.T) {
	c, _ := newCache(t)
	func() {
		defer func() { _ = recover() }()
		_, _ = c.Token(t.Context(), key, anything, func(context.Context) (*cognito.Token, error) { panic("fetch") })
	}()
	wantToken(t, c, new(fetches), key, "token-1")
}

func TestKeyThatIsNone(t *testing.T) {
	c, _ := newCache(t)
	for _, key := range []string{"", "../../etc/passwd", strings.ToUpper(key), key + "0", key + "\n", strings.Repeat("/", 64)} {
		if got, err := c.Token(t.Context(), key, anything, new(fetches).fetch); got != nil || err == nil || !strings.Contains(err.Error(), "want 64 hexadecimal digits") {
			t.Errorf("%q: got %v, %v, want an error", key, got, err)
		}
	}
}

// What is in the file, from one that is believed.
func TestFileThatIsNotBelieved(t *testing.T) {
	const good = `{"version":1,"key":"` + key + `","access_token":"stored","token_type":"Bearer","obtained_at":"2026-03-04T05:06:07Z","expiry":"2026-03-04T06:06:07Z"}`
	for name, tc := range map[string]struct {
		content string
		want    string // empty: it is believed
	}{
		"as it is":            {good, ""},
		"with a line end":     {good + "\n", ""},
		"with scopes":         {strings.Replace(good, `,"expiry"`, `,"scopes":["a"],"expiry"`, 1), ""},
		"empty":               {"", "it is none of this cache's files, or damaged"},
		"null":                {"null", "its version is 0, want 1"},
		"an array":            {"[" + good + "]", "it is none of this cache's files, or damaged"},
		"cut":                 {good[:len(good)-9], "it is none of this cache's files, or damaged"},
		"zeroes":              {strings.Repeat("\x00", 200), "it is none of this cache's files, or damaged"},
		"two":                 {good + good, "it has something behind the token"},
		"another key":         {strings.Replace(good, key, other, 1), "it is for another key than its name says"},
		"no key":              {strings.Replace(good, key, "", 1), "it is for another key than its name says"},
		"another version":     {strings.Replace(good, `"version":1`, `"version":2`, 1), "its version is 2, want 1"},
		"a member too many":   {strings.Replace(good, `{`, `{"refresh_token":"x",`, 1), "it is none of this cache's files, or damaged"},
		"no token":            {strings.Replace(good, "stored", "", 1), "it has no bearer token"},
		"another type":        {strings.Replace(good, "Bearer", "DPoP", 1), "it has no bearer token"},
		"a life of none":      {strings.Replace(good, "T06:", "T05:", 1), "its token ends before it was obtained"},
		"a life before":       {strings.Replace(good, "T06:", "T04:", 1), "its token ends before it was obtained"},
		"a time that is none": {strings.Replace(good, "T06:", "T66:", 1), "it is none of this cache's files, or damaged"},
		"huge":                {good + strings.Repeat(" ", maxFileBytes), "has more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := newCache(t)
			if err := os.WriteFile(c.path(key), []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			f := new(fetches)
			if tc.want == "" {
				wantToken(t, c, f, key, "stored")
				p.want(t)
				return
			}
			wantToken(t, c, f, key, "token-1")
			if len(p.all) != 1 || !strings.Contains(p.all[0], tc.want) || !strings.Contains(p.all[0], c.path(key)) || strings.Contains(p.all[0], "stored") {
				t.Errorf("problems are %q, want one: %s", p.all, tc.want)
			}
			wantToken(t, c, f, key, "token-1") // it was replaced
		})
	}
}

func TestWhoMayReadAFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are not in the mode there")
	}
	for name, mode := range map[string]fs.FileMode{"all": 0o644, "the group": 0o640, "all may write": 0o602, "the group may write": 0o620} {
		t.Run(name, func(t *testing.T) {
			c, p := newCache(t)
			f := new(fetches)
			wantToken(t, c, f, key, "token-1")
			if err := os.Chmod(c.path(key), mode); err != nil {
				t.Fatal(err)
			}
			wantToken(t, c, f, key, "token-2")
			p.want(t, fmt.Sprintf("tokenfile: %s has mode %04o, want 0600, as others must not read or write it\nhint: ", c.path(key), mode))
			wantToken(t, c, f, key, "token-2")
			holdsNoSecret(t, c.dir) // the file that took its place has the right mode
		})
	}
}

func TestWhoMayWriteToTheFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are not in the mode there")
	}
	c, p := newCache(t)
	f := new(fetches)
	wantToken(t, c, f, key, "token-1")
	if err := os.Chmod(c.dir, 0o775); err != nil {
		t.Fatal(err)
	}
	want := "tokenfile: folder " + c.dir + " has mode 0775, want 0700, as others must not write to it\nhint: "
	if _, err := New(Config{Dir: c.dir}); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	wantToken(t, c, f, key, "token-2")
	wantToken(t, c, f, key, "token-3")
	p.want(t, want, want)
	if err := os.Chmod(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	wantToken(t, c, f, key, "token-1") // nothing was written meanwhile
}

func TestOwner(t *testing.T) {
	c, p := newCache(t)
	f := new(fetches)
	wantToken(t, c, f, key, "token-1")
	if err := os.Chown(c.path(key), 12345, -1); err != nil {
		// Only root can give a file away; what else there is to see is that one's own is believed.
		wantToken(t, c, f, key, "token-1")
		return
	}
	wantToken(t, c, f, key, "token-2")
	p.want(t, "tokenfile: "+c.path(key)+" belongs to user 12345")
	if err := os.Chown(c.dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: c.dir}); err == nil || !strings.Contains(err.Error(), " belongs to user 12345") {
		t.Errorf("got %v, want that the folder is another user's", err)
	}
}

// A file system that does not work costs a token and fails nobody.
func TestFilesThatCannotBeUsed(t *testing.T) {
	block := func(t *testing.T, path string) { // with a folder that is not empty
		t.Helper()
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("no token file", func(t *testing.T) {
		c, p := newCache(t)
		block(t, c.path(key))
		wantToken(t, c, new(fetches), key, "token-1")
		p.want(t, "tokenfile: "+c.path(key)+" is d---------, want a regular file", "tokenfile: rename ")
		names, _ := filepath.Glob(filepath.Join(c.dir, ".*"))
		if names != nil {
			t.Errorf("%q was left behind", names)
		}
	})
	t.Run("no lock file", func(t *testing.T) {
		c, p := newCache(t)
		block(t, filepath.Join(c.dir, key+lockSuffix))
		f := new(fetches)
		wantToken(t, c, f, key, "token-1")
		p.want(t, "tokenfile: lock: open ")
		wantToken(t, c, f, key, "token-1")
	})
	t.Run("a link", func(t *testing.T) {
		c, p := newCache(t)
		f := new(fetches)
		wantToken(t, c, f, key, "token-1")
		if err := os.Rename(c.path(key), c.path(other)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(c.path(other), c.path(key)); err != nil {
			t.Fatal(err)
		}
		wantToken(t, c, f, key, "token-2")
		p.want(t, "tokenfile: "+c.path(key)+" is a symbolic link, want a file")
		if info, err := os.Lstat(c.path(key)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("the link is still there: %v, %v", info, err)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		c, p := newCache(t)
		f := new(fetches)
		if err := os.RemoveAll(c.dir); err != nil {
			t.Fatal(err)
		}
		wantToken(t, c, f, key, "token-1") // it is made anew
		wantToken(t, c, f, key, "token-1")
		p.want(t)
		if err := os.RemoveAll(c.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		wantToken(t, c, f, key, "token-2")
		p.want(t, "tokenfile: mkdir ")
		if _, err := New(Config{Dir: c.dir}); err == nil {
			t.Error("a file was taken for a folder, want an error")
		}
	})
	t.Run("a token that cannot be written", func(t *testing.T) {
		c, p := newCache(t)
		got, err := c.Token(t.Context(), key, anything, func(context.Context) (*cognito.Token, error) {
			return cognito.NewToken("abc", time.Time{}, time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)), nil
		})
		if err != nil || got.AccessToken() != "abc" {
			t.Errorf("got %v, %v, want the token all the same", got, err)
		}
		p.want(t, "tokenfile: the token's times cannot be written")
	})
}

func TestNewChecksItsConfig(t *testing.T) {
	if _, err := New(Config{Dir: t.TempDir(), LockTimeout: -1}); err == nil || err.Error() != "tokenfile: LockTimeout is -1ns, want none that is negative" {
		t.Errorf("got %v, want an error", err)
	}
	home := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", home)
	t.Setenv("HOME", home)
	t.Setenv("LocalAppData", home)
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if rel, err := filepath.Rel(home, c.Dir()); err != nil || !strings.HasSuffix(rel, filepath.Join("extauthz", "tokens")) {
		t.Errorf("the folder is %s, want extauthz/tokens in the user's caches", c.Dir())
	}
	for _, name := range []string{"XDG_CACHE_HOME", "HOME", "LocalAppData"} {
		t.Setenv(name, "")
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "\nhint: set HOME") {
		t.Errorf("got %v, want a hint", err)
	}
}

// One waits for the other, and finds what that one has stored. The folder is shared by two caches, as by two processes.
func TestWhoComesSecondWaits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tokens")
	synctest.Test(t, func(t *testing.T) {
		f := new(fetches)
		var all sync.WaitGroup
		for range 20 {
			c, p := newCache(t, func(cfg *Config) { cfg.Dir = dir })
			all.Go(func() {
				got, err := c.Token(t.Context(), key, anything, func(ctx context.Context) (*cognito.Token, error) {
					time.Sleep(10 * time.Second)
					return f.fetch(ctx)
				})
				if err != nil || got.AccessToken() != "token-1" {
					t.Errorf("got %v, %v, want token-1", got, err)
				}
				p.want(t)
			})
		}
		all.Wait()
	})
}

func TestKeysDoNotWaitForEachOther(t *testing.T) {
	c, _ := newCache(t)
	synctest.Test(t, func(t *testing.T) {
		hold(t, c, key)
		begin := time.Now()
		wantToken(t, c, new(fetches), other, "token-1")
		if took := time.Since(begin); took != 0 {
			t.Errorf("it waited %v for another key", took)
		}
	})
}

// hold has the lock of a key until the test ends.
func hold(t *testing.T, c *Cache, key string) {
	t.Helper()
	l, err := tryLock(filepath.Join(c.dir, key+lockSuffix))
	if l == nil {
		t.Fatalf("no lock: %v", err)
	}
	t.Cleanup(func() { release(l) })
}

// A process that was stopped keeps its lock, and must not keep the others for ever.
func TestLockThatIsNotGivenBack(t *testing.T) {
	for name, tc := range map[string]struct {
		edit    func(*Config)
		timeout time.Duration // of the caller; 0 for none
		want    time.Duration
	}{
		"by default":                {func(*Config) {}, 0, 15 * time.Second},
		"as configured":             {func(c *Config) { c.LockTimeout = time.Second }, 0, time.Second},
		"in the time that there is": {func(*Config) {}, 8 * time.Second, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := newCache(t, tc.edit)
			synctest.Test(t, func(t *testing.T) {
				hold(t, c, key)
				ctx := t.Context()
				if tc.timeout != 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.timeout)
					defer cancel()
				}
				begin, f := time.Now(), new(fetches)
				got, err := c.Token(ctx, key, anything, f.fetch)
				if took := time.Since(begin); err != nil || got.AccessToken() != "token-1" || took != tc.want {
					t.Errorf("got %v, %v after %v, want a token after %v", got, err, took, tc.want)
				}
				p.want(t, "tokenfile: another process has had the lock ")
				wantToken(t, c, f, key, "token-1")
			})
		})
	}
}

func TestContextOfWhoWaits(t *testing.T) {
	c, p := newCache(t)
	synctest.Test(t, func(t *testing.T) {
		hold(t, c, key)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		got, err := c.Token(ctx, key, anything, new(fetches).fetch)
		if took := time.Since(begin); got != nil || !errors.Is(err, context.Canceled) || took != time.Second {
			t.Errorf("got %v, %v after %v, want the end of the context after 1s", got, err, took)
		}
		p.want(t)
	})
}

func TestPurge(t *testing.T) {
	now := time.Now()
	c, p := newCache(t, func(c *Config) { c.Now = func() time.Time { return now } })
	write := func(name, content string, age time.Duration) {
		t.Helper()
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	token := func(key string, expiry time.Duration) string {
		text, err := encode(cognito.NewToken("abc", now.Add(-100*time.Hour), now.Add(expiry)), key)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	named := func(c string) string { return strings.Repeat(c, 64) }
	const old, young = 25 * time.Hour, 23 * time.Hour

	write(named("1")+".json", token(named("1"), time.Minute), old) // in use
	write(named("1")+".lock", "", old)
	write(named("2")+".json", token(named("2"), 0), 0) // expired
	write(named("2")+".lock", "", young)               // its lock goes later
	write(named("3")+".json", "damaged", young)
	write(named("4")+".json", "damaged", old)
	write(named("5")+".lock", "", old)
	write(named("6")+".lock", "", old) // held
	hold(t, c, named("6"))
	write(named("9")+".lock", "", young) // of a token that is being fetched
	write("."+named("8")+".json.1", "half", old)
	write(named("9")+".lock", "", young) // of a token that is being fetched
	write("."+named("8")+".json.2", "half", young)
	write("notes.txt", "the user's own", old)
	write(strings.Repeat("z", 64)+".json", "the user's own", old)
	write(named("7")+".txt", "the user's own", old)

	wantToken(t, c, new(fetches), key, "token-1")
	p.want(t)
	want := []string{
		"." + named("8") + ".json.2", key + ".json", key + ".lock", named("1") + ".json", named("1") + ".lock", named("2") + ".lock",
		named("3") + ".json", named("6") + ".lock", named("7") + ".txt", named("9") + ".lock", "notes.txt", strings.Repeat("z", 64) + ".json",
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// A lock file may be removed by who has the lock. Then there must not be two who have it: one of the old file, and one of
// the new.
func TestLockOfAFileThatIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	var holders, rounds atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for rounds.Load() < 2000 {
				l, err := tryLock(path)
				if err != nil {
					t.Error(err)
					return
				}
				if l == nil {
					runtime.Gosched()
					continue
				}
				if holders.Add(1) != 1 {
					t.Error("two have the lock")
				}
				holders.Add(-1)
				if rounds.Add(1)%3 == 0 {
					_ = os.Remove(path) // last, as purge does
				}
				release(l)
			}
		})
	}
	all.Wait()
}

func TestWhichFileIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	l, err := tryLock(path)
	if l == nil {
		t.Fatalf("no lock: %v", err)
	}
	defer release(l)
	want := func(want bool, problem string) {
		t.Helper()
		got, err := isAt(l, path)
		if got != want || (err == nil) != (problem == "") || err != nil && err.Error() != problem {
			t.Errorf("got %v, %v, want %v, %s", got, err, want, problem)
		}
	}
	want(true, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(false, "")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(false, "")
	another, err := tryLock(path)
	if another == nil {
		t.Errorf("the new file cannot be locked: %v", err)
	}
	release(another)
	if err := os.Rename(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+"2", path); err != nil {
		t.Fatal(err)
	}
	want(false, path+" is no regular file")
	if l, err := tryLock(path); l != nil || err == nil {
		t.Errorf("got %v, %v, want no lock on a link", l, err)
	}
}

func TestNobodyIsTold(t *testing.T) {
	c, _ := newCache(t, func(c *Config) { c.Problem = nil })
	if err := os.WriteFile(c.path(key), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantToken(t, c, new(fetches), key, "token-1")
}

// With the real source: a token that was bought by one is used by the next, and replaced before it expires.
func TestSourcesThatShareTokens(t *testing.T) {
	pool := startPool(t)
	c, p := newCache(t)
	now := time.Now()
	var clock atomic.Pointer[time.Time]
	clock.Store(&now)
	newSource := func(scopes ...string) *cognito.TokenSource {
		s, err := cognito.NewTokenSource(cognito.Config{
			TokenURL: pool.TokenURL(), ClientID: cognitotest.DemoClientID, Secret: cognito.StaticSecret(cognitotest.DemoClientSecret),
			Scopes: scopes, Cache: c, Now: func() time.Time { return *clock.Load() }, Retry: cognito.Retry{MaxAttempts: 1},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	get := func(s *cognito.TokenSource, requests int) string {
		t.Helper()
		token, err := s.Token(t.Context())
		if err != nil {
			t.Error(err)
			return ""
		}
		if n := pool.Requests(cognitotest.Token); n != requests {
			t.Errorf("%d requests, want %d", n, requests)
		}
		return token.AccessToken()
	}
	first := get(newSource(), 1)
	if get(newSource(), 1) != first {
		t.Error("the second source has another token, want the first one's")
	}
	if get(newSource("orders/read"), 2) == first {
		t.Error("a source with other scopes has the same token, want its own")
	}
	soon := now.Add(time.Second)
	clock.Store(&soon)
	if token, err := newSource().Renew(t.Context()); err != nil || token.AccessToken() == first {
		t.Errorf("got %v, %v, want a new token", token, err)
	}
	second := get(newSource(), 3)

	later := now.Add(57 * time.Minute) // time to replace it, and time left
	clock.Store(&later)
	pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 500})
	if get(newSource(), 4) != second {
		t.Error("the token that is stored does not serve, want it to while the endpoint fails")
	}
	pool.Heal(cognitotest.Token)
	if get(newSource(), 5) == second {
		t.Error("the token was not replaced")
	}
	before := now.Add(-time.Hour)
	clock.Store(&before)
	if get(newSource(), 6) == "" {
		t.Error("no token after the clock was set back")
	}
	p.want(t)
}

func FuzzDecode(f *testing.F) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)
	text, err := encode(cognito.NewToken("abc", now, now.Add(time.Hour)), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"key":"` + key + `"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		token, err := decode(text, key)
		if (token == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of them", token, err)
		}
		if err != nil {
			return
		}
		if token.AccessToken() == "" || !token.Expiry.After(token.ObtainedAt) || !strings.Contains(string(text), key[:8]) {
			t.Errorf("got %v of %q", token, text)
		}
		again, err := encode(token, key)
		if err != nil {
			return // times that JSON does not have
		}
		same, err := decode(again, key)
		if err != nil || same.AccessToken() != token.AccessToken() || !same.Expiry.Equal(token.Expiry) {
			t.Errorf("%q comes back as %v, %v", again, same, err)
		}
	})
}
