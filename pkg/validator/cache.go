package validator

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/maypok86/otter/v2"
)

// A CacheConfig bounds a [Cached]. The zero value of a field means the default named in its comment.
type CacheConfig struct {
	// Bytes is how much memory the verified tokens may take, by an estimate that is never much too low. Default 64 MiB,
	// which is room for about 35,000 tokens of the client credentials grant.
	Bytes int64
	// Entries is how many verified tokens there may be. Default 1,000,000.
	Entries int64
	// Refusals is how many tokens with a bad signature are remembered, at about 500 bytes each. Default 10,000.
	Refusals int64
}

// A Cached is a [Validator] that remembers the result of the costly step: whether the key with the token's kid verifies
// the signature. All that can change while a token stays the same is checked anew for each call, so that its answer is
// always the one that the Validator would give: the times, whether the pool's [KeySet] still has that key, the
// denylist. It is safe for concurrent use.
//
// Verified tokens and tokens with a bad signature are remembered apart, so that who sends the latter displaces none of the
// former. Other refusals cost less than a cache would save. Tokens are known by their SHA-256 and not kept.
type Cached struct {
	validator *Validator
	verified  *otter.Cache[digest, *verification]
	refused   *otter.Cache[digest, *verification]
	hits      atomic.Uint64
	misses    atomic.Uint64
}

type digest = [sha256.Size]byte

// A CacheStatus says what a [Cached] holds, and what it was good for.
type CacheStatus struct {
	Verified int    // verified tokens
	Bytes    uint64 // what they take, by estimate
	Refused  int    // tokens with a bad signature
	Hits     uint64 // calls that needed no signature check
	Misses   uint64 // calls that did, or were refused before it
}

// NewCached returns a Cached of v.
func NewCached(v *Validator, cfg CacheConfig) (*Cached, error) {
	const (
		bytes    = 64 << 20
		entries  = 1_000_000
		refusals = 10_000
	)
	if v == nil {
		return nil, errors.New("validator: no Validator")
	}
	if cfg.Bytes < 0 || cfg.Entries < 0 || cfg.Refusals < 0 {
		return nil, fmt.Errorf("validator: Bytes is %d, Entries %d, Refusals %d, want none negative", cfg.Bytes, cfg.Entries, cfg.Refusals)
	}
	cfg.Bytes, cfg.Entries, cfg.Refusals = cmp.Or(cfg.Bytes, bytes), cmp.Or(cfg.Entries, entries), cmp.Or(cfg.Refusals, refusals)
	// One weight for both bounds: what all entries weigh is at most Bytes, and each weighs at least a share of it.
	share := uint32(min(max(cfg.Bytes/cfg.Entries, 1), math.MaxUint32))
	verified, err := newCache(cfg.Bytes, func(_ digest, ver *verification) uint32 { return max(ver.size(), share) })
	if err != nil {
		return nil, err
	}
	refused, err := newCache(cfg.Refusals, func(digest, *verification) uint32 { return 1 })
	if err != nil {
		return nil, err
	}
	return &Cached{validator: v, verified: verified, refused: refused}, nil
}

func newCache(most int64, weigh func(digest, *verification) uint32) (*otter.Cache[digest, *verification], error) {
	return otter.New(&otter.Options[digest, *verification]{
		MaximumWeight: uint64(most),
		Weigher:       weigh,
		Executor:      func(f func()) { f() }, // evict before going on, not some time later
	})
}

// Validate answers as [Validator.Validate] does.
func (c *Cached) Validate(ctx context.Context, token string) (*Claims, error) {
	if len(token) > MaxTokenBytes {
		return c.validator.Validate(ctx, token) // which refuses it, before it is hashed
	}
	// The bytes of the token as they are: it is not copied to be hashed.
	id := sha256.Sum256(unsafe.Slice(unsafe.StringData(token), len(token))) //nolint:gosec // Sum256 changes nothing
	ver, known := c.verified.GetIfPresent(id)
	if !known {
		ver, known = c.refused.GetIfPresent(id)
	}
	if !known {
		return c.verify(ctx, id, token)
	}
	if err := ver.pool.inTime(ver.claims); err != nil {
		c.forgetExpired(id, err)
		return nil, err
	}
	key, err := ver.pool.key(ctx, ver.kid, ver.claims.IssuedAt)
	switch {
	case err != nil:
		return nil, err
	case key != ver.key && !key.Equal(ver.key):
		c.forget(id)
		return c.verify(ctx, id, token)
	}
	c.hits.Add(1)
	if !ver.good {
		return nil, errSignature
	}
	return c.validator.admit(ver)
}

// verify takes the costly step and remembers its result. What was remembered of the token before must be forgotten.
func (c *Cached) verify(ctx context.Context, id digest, token string) (*Claims, error) {
	c.misses.Add(1)
	ver, err := c.validator.verify(ctx, token)
	if err != nil {
		if ver != nil {
			c.refused.Set(id, ver.refusal())
		}
		return nil, err
	}
	c.verified.Set(id, ver)
	return c.validator.admit(ver)
}

// forgetExpired makes room. A token that has expired stays so, but for a clock that is set back, and then it is verified
// anew.
func (c *Cached) forgetExpired(id digest, err error) {
	if errors.Is(err, ErrExpired) {
		c.forget(id)
	}
}

func (c *Cached) forget(id digest) {
	c.verified.Invalidate(id)
	c.refused.Invalidate(id)
}

// Status returns what the cache holds.
func (c *Cached) Status() CacheStatus {
	return CacheStatus{
		Verified: c.verified.EstimatedSize(),
		Bytes:    c.verified.WeightedSize(),
		Refused:  c.refused.EstimatedSize(),
		Hits:     c.hits.Load(),
		Misses:   c.misses.Load(),
	}
}

// refusal keeps of a bad token only what it takes to refuse it again. All of it was made up by who sent it.
func (ver *verification) refusal() *verification {
	brief := *ver
	brief.claims = &Claims{IssuedAt: ver.claims.IssuedAt, NotBefore: ver.claims.NotBefore, ExpiresAt: ver.claims.ExpiresAt}
	brief.kid = strings.Clone(ver.kid)
	return &brief
}

// size estimates the bytes that a verified token takes, the cache's own included. Strings are parts of the payload's text, which is
// kept as a whole.
func (ver *verification) size() uint32 {
	const (
		fixed    = 600 // a verification, a Claims, a node of the cache
		perScope = 16
	)
	n := fixed + len(ver.kid) + perScope*len(ver.claims.Scopes) + valueSize(map[string]any(ver.claims.all))
	return uint32(min(n, math.MaxUint32))
}

// valueSize estimates the bytes that a JSON value takes, the interface that holds it included.
func valueSize(v any) int {
	const (
		word  = 16  // an interface, a string's header
		group = 370 // a map with up to 8 members, and its text besides them
		slot  = 64  // of a larger map, for each member more
	)
	switch v := v.(type) {
	case string:
		return textSize(v)
	case json.Number:
		return textSize(string(v))
	case []any:
		n := 4 * word
		for _, item := range v {
			n += valueSize(item)
		}
		return n
	case map[string]any:
		n := group + slot*max(0, len(v)-8)
		for name, item := range v {
			n += len(name) + 8 + valueSize(item)
		}
		return n
	}
	return word
}

// textSize estimates the bytes that a string takes in an interface, with what stands between it and the next in the text.
func textSize(s string) int { return 32 + 8 + len(s)*9/8 }
