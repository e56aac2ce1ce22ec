package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/internal/privatefile"
)

// maxEntryBytes bounds what is read of a file; a good one has about 3 KiB.
const maxEntryBytes = maxAnswerBytes

// A cache keeps credentials in files for other processes of the same user: one file for each key, replaced at once, and
// beside it one to lock while credentials are fetched. It is a help and no more: what is wrong with it is logged, and the
// credentials are fetched.
type cache struct{ dir string }

// An entry is the content of a file.
type entry struct {
	Key             string    `json:"key"` // what the file's name is the hash of
	AccessKeyID     string    `json:"accessKeyId"`
	SecretAccessKey string    `json:"secretAccessKey"`
	SessionToken    string    `json:"sessionToken"`
	Expires         time.Time `json:"expires"`
	Obtained        time.Time `json:"obtained"`
	IdentityID      string    `json:"identityId"`
}

// shared returns what another process has kept, if it is fresh, or gets credentials while the others wait.
func (p *Provider) shared(ctx context.Context, w wanted, before *held, anew bool) (*held, error) {
	if err := privatefile.MakeDir(p.cache.dir); err != nil {
		p.cfg.Logger.Warn("aws credentials cache not used", "dir", p.cache.dir, "error", err)
		return p.fetch(ctx, w, before.identity())
	}
	key := p.key(w)
	kept := p.read(key, w)
	if kept.fresh(p) && !anew {
		return kept, nil
	}
	if kept.serves(p) && !anew {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	unlock, err := p.cache.lock(ctx, key)
	switch {
	case err == nil:
		defer unlock()
		if kept = p.read(key, w); kept.fresh(p) && !anew {
			return kept, nil
		}
	case kept.serves(p) && !anew:
		return kept, passing{fmt.Errorf("identity: %w", err)}
	default:
		p.cfg.Logger.Warn("aws credentials cache not locked", "error", err)
	}

	identity := kept.identity()
	if identity == "" {
		identity = before.identity()
	}
	got, err := p.fetch(ctx, w, identity)
	if err != nil {
		return kept, err
	}
	if err := p.cache.write(key, got); err != nil {
		p.cfg.Logger.Warn("aws credentials not kept", "error", err)
	}
	return got, nil
}

// key says all that credentials depend on. The app client is a part of it, since an identity pool may give the users of each
// client other roles.
func (p *Provider) key(w wanted) string {
	key, _ := json.Marshal([]string{ //nolint:errchkjson // strings only
		"1", p.cfg.Endpoint, p.cfg.Region, p.cfg.IdentityPoolID, p.cfg.LoginProvider, p.cfg.AccountID, w.role,
		w.user.issuer, w.user.subject, w.user.client,
	})
	return string(key)
}

// read returns what is kept under a key, expired or not; nil if there is nothing that can be used.
func (p *Provider) read(key string, w wanted) *held {
	path := p.cache.path(key)
	text, err := privatefile.Read(path, maxEntryBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var h *held
	if err == nil {
		if h = p.decode(text, key, w); h == nil {
			err = fmt.Errorf("%s has no credentials of its key in it", path)
		}
	}
	if err != nil {
		p.cfg.Logger.Warn("aws credentials in the cache not used", "error", err)
	}
	return h
}

// decode reads the content of a file, and returns nil unless it is all there and of its key.
func (p *Provider) decode(text []byte, key string, w wanted) *held {
	var e entry
	if json.Unmarshal(text, &e) != nil || e.Key != key || e.AccessKeyID == "" || e.SecretAccessKey == "" || e.SessionToken == "" || e.IdentityID == "" {
		return nil
	}
	c := NewCredentials(e.AccessKeyID, e.SecretAccessKey, e.SessionToken, e.Expires)
	c.IdentityID, c.RoleARN, c.AccountID = e.IdentityID, w.role, p.account(w.role)
	return &held{c, w.user, e.Obtained}
}

func (c *cache) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:])+".json")
}

func (c *cache) write(key string, h *held) error {
	text, _ := json.Marshal(entry{ //nolint:errchkjson // it cannot fail
		Key: key, AccessKeyID: h.AccessKeyID, SecretAccessKey: h.SecretAccessKey(), SessionToken: h.SessionToken(),
		Expires: h.Expires, Obtained: h.obtained, IdentityID: h.IdentityID,
	})
	return privatefile.Write(c.path(key), text)
}

// lock waits for the key's lock, at most half of what ctx leaves, so that there is time to fetch without it: its holder may
// be a process that hangs.
func (c *cache) lock(ctx context.Context, key string) (unlock func(), err error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	return privatefile.Lock(ctx, c.path(key))
}

// entryName is that of a file, or of one that package privatefile was about to make it.
var entryName = regexp.MustCompile(`^([0-9a-f]{64}\.json|\.[0-9a-f]{64}\.json\.[0-9]+)$`)

// ClearCache removes all credentials that Providers have kept in a folder ([Config.CacheDir]), as a logout should: what else is
// there is left alone. It is no error if the folder does not exist. Credentials that somebody has already are good until they
// expire.
func ClearCache(dir string) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	for _, f := range files {
		if entryName.MatchString(f.Name()) {
			if err := privatefile.Remove(filepath.Join(dir, f.Name())); err != nil {
				return fmt.Errorf("identity: %w", err)
			}
		}
	}
	return nil
}
