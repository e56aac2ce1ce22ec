// Package tokenfile shares access tokens among the processes of one user on one machine, such as cron jobs and shell
// scripts, so that they do not buy one each: a [cognito.Cache] that keeps them in files.
//
//	cache, err := tokenfile.New(tokenfile.Config{})
//	// ...
//	source, err := cognito.NewTokenSource(cognito.Config{ /* ... */ Cache: cache})
//
// Each token has a file of its own, mode 0600 in a folder of mode 0700, named by the hash of token URL, client, scopes and
// metadata. The client secret is in none of them. Who needs a token that is not there holds a lock on a file beside it
// while fetching it; the others wait and look again. The lock is the operating system's (flock on Unix, LockFileEx on
// Windows), and gone with the process that holds it.
//
// What stands in a file is not believed unless it is the user's own, nobody else may read it, and it is for the very
// same key. What cannot be used is fetched anew and replaced.
//
// The folder must be on a local file system, or on one whose locks work.
package tokenfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/internal/privatefile"
)

// A Config says where tokens are kept. The zero value of a field means the default named in its comment.
type Config struct {
	// Dir is the folder, of this cache alone. It is made, with mode 0700, if it is not there. Default [DefaultDir].
	Dir string
	// LockTimeout is how long to wait for another process that fetches the same token. After it, or after half of the time
	// that there is, the token is fetched all the same: the other process may have been stopped. Default 15s.
	LockTimeout time.Duration
	// Problem, if set, is told why a file could not be used or written, or that LockTimeout has passed. A cache that does not
	// work costs tokens and fails nobody. It may be called by several goroutines at once. Default: not told.
	Problem func(error)
	// Now is the clock that tells which files have expired. Default [time.Now].
	Now func() time.Time
}

// A Cache implements [cognito.Cache]. It is safe for concurrent use, and there is nothing to close.
type Cache struct {
	dir         string
	lockTimeout time.Duration
	problem     func(error)
	now         func() time.Time
}

var _ cognito.Cache = (*Cache)(nil)

// DefaultDir returns extauthz/tokens in the user's cache folder (see [os.UserCacheDir]), such as
// ~/.cache/extauthz/tokens.
func DefaultDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("tokenfile: no folder for the user's caches: %w\nhint: set HOME or XDG_CACHE_HOME, or say the folder", err)
	}
	return filepath.Join(base, "extauthz", "tokens"), nil
}

// New makes the folder if it is not there, and returns an error if it cannot be used: a program may then go on without a
// cache.
func New(cfg Config) (*Cache, error) {
	if cfg.LockTimeout < 0 {
		return nil, fmt.Errorf("tokenfile: LockTimeout is %v, want none that is negative", cfg.LockTimeout)
	}
	if cfg.Dir == "" {
		dir, err := DefaultDir()
		if err != nil {
			return nil, err
		}
		cfg.Dir = dir
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("tokenfile: %w", err)
	}
	c := &Cache{dir: dir, lockTimeout: cmp.Or(cfg.LockTimeout, 15*time.Second), problem: cfg.Problem, now: cfg.Now}
	if c.problem == nil {
		c.problem = func(error) {}
	}
	if c.now == nil {
		c.now = time.Now
	}
	if err := privatefile.MakeDir(dir); err != nil {
		return nil, fmt.Errorf("tokenfile: %w", err)
	}
	return c, nil
}

// Dir returns the folder.
func (c *Cache) Dir() string { return c.dir }

// keyPattern is that of a [cognito.Cache]'s keys, and fit for the name of a file.
var keyPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Token implements [cognito.Cache].
func (c *Cache) Token(ctx context.Context, key string, good func(*cognito.Token) bool, fetch func(context.Context) (*cognito.Token, error)) (*cognito.Token, error) {
	if !keyPattern.MatchString(key) {
		return nil, fmt.Errorf("tokenfile: the key has %d characters, want 64 hexadecimal digits", len(key))
	}
	if err := privatefile.MakeDir(c.dir); err != nil { // anew: caches are cleared
		c.tell(err)
		return fetch(ctx)
	}
	stored := func() (*cognito.Token, error) {
		t, err := c.load(key)
		if t == nil || !good(t) {
			return nil, err
		}
		return t, nil
	}
	t, err := stored()
	if t != nil {
		return t, nil
	}
	if err != nil {
		c.tell(err) // once: it is replaced by what is fetched now
	}

	unlock, t, err := c.lock(ctx, key, stored)
	if err != nil || t != nil {
		return t, err
	}
	defer unlock()
	t, err = fetch(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.store(key, t); err != nil {
		c.tell(err)
	}
	c.purge(key)
	return t, nil
}

func (c *Cache) tell(err error) { c.problem(fmt.Errorf("tokenfile: %w", err)) }

// lock takes the lock of a key. While another process has it, it looks for what that one stores. Without an error there is
// either a token or the lock; or neither, and then an unlock that does nothing: the token is fetched without it.
func (c *Cache) lock(ctx context.Context, key string, stored func() (*cognito.Token, error)) (unlock func(), _ *cognito.Token, _ error) {
	path := filepath.Join(c.dir, key+lockSuffix)
	give := c.lockTimeout
	if deadline, ok := ctx.Deadline(); ok {
		give = min(give, time.Until(deadline)/2)
	}
	timeout := time.NewTimer(give)
	defer timeout.Stop()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if err := ctx.Err(); err != nil {
			return nil, nil, fmt.Errorf("tokenfile: waiting for another process: %w", err)
		}
		l, err := tryLock(path)
		if err != nil {
			c.tell(fmt.Errorf("lock: %w", err))
			return func() {}, nil, nil
		}
		if t, _ := stored(); t != nil {
			release(l)
			return nil, t, nil
		}
		if l != nil {
			return func() { release(l) }, nil, nil
		}
		next := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // spreads load, keeps no secret
		select {
		case <-next.C:
		case <-ctx.Done():
		case <-timeout.C:
			next.Stop()
			c.tell(fmt.Errorf("another process has had the lock %s for %v; fetching without it", path, give))
			return func() {}, nil, nil
		}
		next.Stop()
	}
}

// How often a lock is tried. Locks of the operating system cannot be waited for with a context.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// tryLock returns nil if another process has the lock. A lock file may be purged after it was opened and before it is
// locked; then the lock is on a file that nobody else will find.
func tryLock(path string) (*flock.Flock, error) {
	for {
		l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
		locked, err := l.TryLock()
		if err != nil || !locked {
			return nil, err
		}
		switch there, err := isAt(l, path); {
		case err != nil:
			release(l)
			return nil, err
		case there:
			return l, nil
		}
		release(l)
	}
}

// isAt reports whether the file that is locked is still the one at its path.
func isAt(l *flock.Flock, path string) (bool, error) {
	held, err := l.Stat()
	if err != nil {
		return false, err
	}
	found, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && !found.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	return err == nil && os.SameFile(held, found), err
}

func release(l *flock.Flock) {
	if l != nil {
		_ = l.Close() // which gives the lock back, whatever else
	}
}

const (
	tokenSuffix = ".json"
	lockSuffix  = ".lock"
)

// load returns the token stored under a key; nil if there is none. An error says why what is stored is not believed.
func (c *Cache) load(key string) (*cognito.Token, error) {
	path := filepath.Join(c.dir, key+tokenSuffix)
	text, err := privatefile.Read(path, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t, err := decode(text, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// store replaces the file of a key, so that others see the old one or the new one and nothing between.
func (c *Cache) store(key string, t *cognito.Token) error {
	text, err := encode(t, key)
	if err != nil {
		return err
	}
	return privatefile.Write(filepath.Join(c.dir, key+tokenSuffix), text)
}

// Bounds of a purge.
const (
	maxPurged   = 1000           // files looked at
	abandonedIn = 24 * time.Hour // after which a file that nobody can use is removed
)

// tempPattern is that of files which become a token's, as package privatefile names them.
var tempPattern = regexp.MustCompile(`^\.[0-9a-f]{64}\.json\.`)

// purge removes expired tokens, and what processes that were killed have left. It looks at files of this cache's names
// only, and does what it can.
func (c *Cache) purge(own string) {
	dir, err := os.Open(c.dir)
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxPurged)
	for _, name := range names {
		path := filepath.Join(c.dir, name)
		key, suffix := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
		switch {
		case tempPattern.MatchString(name):
			c.removeAbandoned(path)
		case key == own || !keyPattern.MatchString(key):
		case suffix == tokenSuffix:
			if t, err := c.load(key); err != nil {
				c.removeAbandoned(path)
			} else if t != nil && !c.now().Before(t.Expiry) {
				_ = os.Remove(path)
			}
		case suffix == lockSuffix:
			c.removeLock(key, path)
		}
	}
}

func (c *Cache) removeAbandoned(path string) {
	if c.abandoned(path) {
		_ = os.Remove(path)
	}
}

func (c *Cache) abandoned(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && c.now().Sub(info.ModTime()) > abandonedIn
}

// removeLock removes the lock file of a key that has no token, unless another process has the lock. Who has opened the file
// meanwhile finds out: see tryLock.
func (c *Cache) removeLock(key, path string) {
	if _, err := os.Lstat(filepath.Join(c.dir, key+tokenSuffix)); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if !c.abandoned(path) {
		return
	}
	if l, err := tryLock(path); err == nil && l != nil {
		_ = os.Remove(path)
		release(l)
	}
}
