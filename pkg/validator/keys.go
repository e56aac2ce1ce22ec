package validator

import (
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A RemoteKeysConfig says how to fetch a JWK Set (RFC 7517). The zero value of an optional field means the default
// named in its comment.
type RemoteKeysConfig struct {
	// URL of the JWK Set. Required. See [JWKSURL]. https, or http on a loopback address.
	URL string
	// MaxAge is how old the set may get before Run fetches it again, give or take a tenth, so that the replicas of
	// a fleet do not ask in step. Default 1h. If the server says that the set is fresh for less (RFC 9111 section 4.2.1,
	// max-age without Age), Run believes it, down to a minute or MinInterval, whichever is longer.
	MaxAge time.Duration
	// MinInterval is the least time between the starts of two fetches, whatever kids the tokens name. Default 10s.
	MinInterval time.Duration
	// MaxStale is how long the last good set serves while fetches fail. Default 24h.
	MaxStale time.Duration
	// Timeout bounds one fetch. Default 5s.
	Timeout time.Duration
	// Seed is a set to begin with, as [ParseJWKS] reads it from a file, so that tokens can be verified although the server
	// cannot be reached. The first good fetch replaces it; without one it serves for MaxStale, like any other. It never
	// has a token refused for its key, as it may be old. Default none.
	Seed StaticKeys
	// TLS is used for the fetches. Default: the system's roots, TLS 1.2 and up.
	TLS *tls.Config
	// Transport replaces the transport made of TLS, for tests and instrumentation. Redirects are never followed to
	// another host or from https to http, whatever the transport.
	Transport http.RoundTripper
	// Logger says when the set changes, when a fetch fails and when it works again. Default: discard.
	Logger *slog.Logger
	// Now is the clock. Default [time.Now].
	Now func() time.Time
}

// RemoteKeys is a [KeySet] that fetches a JWK Set and keeps the last good one: a failed fetch or an unusable
// answer never replaces it. A kid that the set does not have is looked for with one fetch that all who wait share.
// It is safe for concurrent use.
type RemoteKeys struct {
	cfg    RemoteKeysConfig
	client *http.Client
	log    *slog.Logger
	ready  chan struct{}

	current atomic.Pointer[fetched] // the last good set; nil before the first; written with mu held

	mu      sync.Mutex
	flight  *flight   // the fetch under way; nil if none
	waiting int       // how many callers wait for it
	started time.Time // when the last fetch started
	failed  error     // why the last fetch failed; nil if it did not
	planned time.Time // when Run will fetch next; zero if it does not run
	status  KeyStatus // its counters
}

// fetched is a good set and what is known of it. It is not changed once it is current.
type fetched struct {
	keys  StaticKeys
	since time.Time     // when it began to serve, or was confirmed: the start of that fetch
	asOf  time.Time     // the same, but zero for a seed: what it does not have may have come since
	fresh time.Duration // for how long the server says that it is; negative if it does not say
	age   time.Duration // how old the answer was when it came (RFC 9111 section 5.1)
	etag  string
	noted string // the problems, to log them once
}

// maxWaiting bounds how many callers may wait for a fetch at once. Whoever sends unknown kids can make us wait, and what
// waits holds memory and a place among the checks under way; the others are told to come back.
const maxWaiting = 64

// maxETagBytes bounds an ETag that is sent back: servers limit what they read of a request's headers.
const maxETagBytes = 256

// flight is a fetch under way; done is closed at its end.
type flight struct{ done chan struct{} }

// A KeyStatus is the state of [RemoteKeys].
type KeyStatus struct {
	Keys      int       // how many keys the last good set has; 0 before the first
	FetchedAt time.Time // when the fetch that confirmed it started; zero before the first, and for a seed
	Usable    bool      // whether there is a good set, and it is younger than MaxStale
	LastError error     // why the last fetch failed; nil if it did not
	NextFetch time.Time // from when an unknown kid may cause a fetch
	NextRun   time.Time // when Run fetches next; zero if it does not run
	Fetches   uint64    // how many have ended, well or not
	Failures  uint64    // how many of them failed
}

// NewRemoteKeys checks cfg and does no I/O: the first fetch is made by [RemoteKeys.Run], or by the first token.
func NewRemoteKeys(cfg RemoteKeysConfig) (*RemoteKeys, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || !allowedURL(u) {
		return nil, fmt.Errorf("validator: JWKS URL is %q, want https://…, or http://… on a loopback address", withoutSecrets(u))
	}
	cfg.MaxAge = cmp.Or(cfg.MaxAge, time.Hour)
	cfg.MinInterval = cmp.Or(cfg.MinInterval, 10*time.Second)
	cfg.MaxStale = cmp.Or(cfg.MaxStale, 24*time.Hour)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	if cfg.MinInterval < 0 || cfg.Timeout < 0 || cfg.MaxAge < cfg.MinInterval || cfg.MaxStale < cfg.MaxAge {
		return nil, fmt.Errorf("validator: MinInterval is %v, MaxAge %v, MaxStale %v, Timeout %v, want none negative and the first three in ascending order",
			cfg.MinInterval, cfg.MaxAge, cfg.MaxStale, cfg.Timeout)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	log := cfg.Logger.With("url", withoutSecrets(u))
	k := &RemoteKeys{cfg: cfg, client: newClient(cfg), log: log, ready: make(chan struct{})}
	if cfg.Seed != nil {
		if err := cfg.Seed.check(); err != nil {
			return nil, fmt.Errorf("validator: Seed: %w", err)
		}
		k.current.Store(&fetched{keys: maps.Clone(cfg.Seed), since: cfg.Now(), fresh: -1})
		close(k.ready)
	}
	return k, nil
}

// withoutSecrets writes a URL without user and query: that of a presigned URL is a secret. It may be nil.
func withoutSecrets(u *url.URL) string {
	if u == nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func newClient(cfg RemoteKeysConfig) *http.Client {
	rt := cfg.Transport
	if rt == nil {
		rt = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        cfg.TLS,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true, // a fetch an hour needs no connection held open, nor one gone stale
		}
	}
	return &http.Client{Transport: rt, CheckRedirect: checkRedirect}
}

// allowedURL reports whether a JWK Set may come from u: what a network in between could change, could let anybody in.
func allowedURL(u *url.URL) bool {
	if u.User != nil || u.Fragment != "" {
		return false
	}
	if u.Scheme == "https" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Host != first.Host || req.URL.Scheme != first.Scheme || !allowedURL(req.URL) {
		return errors.New("redirected to another host or scheme, which is not followed")
	}
	if len(via) >= 3 {
		return errors.New("redirected more than twice")
	}
	return nil
}

// PublicKey implements [KeySet]. A known key is returned without waiting for anything. An unknown one makes a
// fetch, or joins the one under way, at most one in MinInterval; ctx bounds the wait, not the fetch. When many wait already,
// it does not, and returns an error that matches [ErrKeysUnavailable].
func (k *RemoteKeys) PublicKey(ctx context.Context, kid string, asOf time.Time) (*rsa.PublicKey, error) {
	if key := k.known(kid, k.cfg.Now()); key != nil {
		return key, nil
	}
	const most = 2 // the fetch under way may have started before the key was there; the next one has not
	for waits := 0; ; waits++ {
		key, wait, err := k.lookup(ctx, kid, asOf, waits < most)
		if wait == nil {
			return key, err
		}
		if err := k.await(ctx, wait); err != nil {
			return nil, &KeysUnavailableError{RetryAfter: time.Second, Err: err}
		}
	}
}

// known returns the key with this kid of the last good set, if that may still serve. It takes no lock.
func (k *RemoteKeys) known(kid string, now time.Time) *rsa.PublicKey {
	if s := k.current.Load(); k.usable(s, now) {
		return s.keys[kid]
	}
	return nil
}

// usable reports whether a set may serve.
func (k *RemoteKeys) usable(s *fetched, now time.Time) bool {
	return s != nil && now.Sub(s.since) <= k.cfg.MaxStale
}

// await waits for the end of a fetch. lookup has counted the caller among those who do.
func (k *RemoteKeys) await(ctx context.Context, end <-chan struct{}) error {
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.waiting--
	}()
	select {
	case <-end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lookup answers from the set at hand or, if it may, returns the end of a fetch to wait for.
func (k *RemoteKeys) lookup(ctx context.Context, kid string, asOf time.Time, mayWait bool) (*rsa.PublicKey, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Now()
	if key := k.known(kid, now); key != nil {
		return key, nil, nil
	}
	// A set from the future by the wall clock was fetched before the clock was set back: it says nothing of now.
	if s := k.current.Load(); k.usable(s, now) && s.asOf.After(asOf) && !s.asOf.Round(0).After(now.Round(0)) {
		return nil, nil, ErrUnknownKey
	}
	pause := k.started.Add(k.cfg.MinInterval).Sub(now)
	if pause > k.cfg.MinInterval {
		pause = 0 // the clock was set back
	}
	if !mayWait || k.waiting == maxWaiting || k.flight == nil && !k.started.IsZero() && pause > 0 {
		return nil, nil, &KeysUnavailableError{RetryAfter: max(pause, time.Second), Err: k.failed}
	}
	if k.flight == nil {
		k.takeOff(ctx, now, false)
	}
	k.waiting++
	return nil, k.flight.done, nil
}

// takeOff starts a fetch. It outlives the caller's context, as others may come to wait for it, and is bounded by
// Timeout. A conditional one lets the server say that nothing has changed: not where a key is missed, nor after a failure,
// which may be due to the condition. The caller holds mu.
func (k *RemoteKeys) takeOff(ctx context.Context, now time.Time, conditional bool) *flight {
	f := &flight{done: make(chan struct{})}
	k.flight, k.started = f, now
	var last string
	if s := k.current.Load(); s != nil && conditional && k.failed == nil {
		last = s.etag
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.cfg.Timeout)
		defer cancel()
		got, err := k.fetch(ctx, last)
		report := k.land(got, err)
		close(f.done)
		defer func() { _ = recover() }() // of a Logger, which must not end the process
		report()
	}()
	return f
}

// land takes over what a fetch got, and returns what logs it: a log that blocks must not hold up who looks for a key. A set
// without keys means that the current one was confirmed.
func (k *RemoteKeys) land(got *fetched, err error) (report func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, failedBefore := k.current.Load(), k.failed
	k.flight, k.failed = nil, err
	k.status.Fetches++
	if err != nil {
		k.status.Failures++
	} else {
		got.since, got.asOf = k.started, k.started.Add(-got.age)
		got.takeOver(before)
		if before == nil {
			close(k.ready)
		}
		k.current.Store(got)
	}
	return func() {
		if err != nil {
			k.log.Error("jwks fetch failed", "error", err)
			return
		}
		if failedBefore != nil {
			k.log.Info("jwks fetch works again")
		}
		k.logChange(before, got)
	}
}

// takeOver fills a set that only confirms the one before, and keeps the keys that both have, so that who has verified
// something with one can tell that it is the same.
func (f *fetched) takeOver(before *fetched) {
	if f.keys == nil {
		f.keys, f.etag, f.noted = before.keys, before.etag, before.noted
		return
	}
	if before == nil {
		return
	}
	for kid, key := range before.keys {
		if now := f.keys[kid]; now != nil && now.Equal(key) {
			f.keys[kid] = key
		}
	}
}

func (k *RemoteKeys) logChange(before, got *fetched) {
	added, removed := len(got.keys), 0
	if before != nil {
		for kid, key := range before.keys {
			if got.keys[kid] == key {
				added--
			} else {
				removed++
			}
		}
	}
	if added > 0 || removed > 0 {
		k.log.Info("jwks changed", "keys", len(got.keys), "added", added, "removed", removed)
	}
	if got.noted != "" && (before == nil || before.noted != got.noted) {
		k.log.Warn("jwks has keys that are left out", "problems", got.noted)
	}
}

// Ready returns a channel that is closed when the first good set is there.
func (k *RemoteKeys) Ready() <-chan struct{} { return k.ready }

// fetch gets and checks a set. It returns one without keys if the server says that the one with this etag is current
// (RFC 9110 section 13.1.2).
func (k *RemoteKeys) fetch(ctx context.Context, etag string) (_ *fetched, err error) {
	defer func() {
		// What comes from outside is parsed here, in a goroutine of our own: a panic would end the process.
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.cfg.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		if withURL := (*url.Error)(nil); errors.As(err, &withURL) {
			err = withURL.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && etag != "" {
		return &fetched{fresh: freshness(resp.Header), age: seconds(resp.Header.Get("Age"))}, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status is %d, want 200", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxJWKSBytes+1))
	if err != nil {
		return nil, err
	}
	keys, problems, err := ParseJWKS(body)
	if err != nil {
		return nil, err
	}
	got := &fetched{keys: keys, fresh: freshness(resp.Header), age: seconds(resp.Header.Get("Age"))}
	if etag := resp.Header.Get("ETag"); len(etag) <= maxETagBytes {
		got.etag = etag
	}
	if len(problems) > 0 {
		got.noted = fmt.Sprint(problems)
	}
	return got, nil
}

// freshness returns for how long an answer is fresh from now on (RFC 9111 section 4.2): the max-age of Cache-Control less
// Age; zero for no-cache and no-store; negative if it does not say. What cannot be understood counts as stale (section
// 4.2.1).
func freshness(h http.Header) time.Duration {
	fresh := time.Duration(-1)
	for item := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		switch strings.ToLower(name) {
		case "no-cache", "no-store":
			return 0
		case "max-age":
			fresh = seconds(strings.Trim(value, `"`))
		}
	}
	return max(fresh-seconds(h.Get("Age")), min(fresh, 0))
}

// seconds reads delta-seconds; what is none counts as zero, and what is too large as the largest
// that is kept (RFC 9111 section 1.2.2).
func seconds(text string) time.Duration {
	n, _ := strconv.ParseUint(text, 10, 31) // with an error, it is zero or the largest number
	return time.Duration(n) * time.Second
}

// Refresh fetches the set now, whatever MinInterval says, or joins the fetch under way, and returns why that
// failed. ctx bounds the wait. Unknown kids must not lead here.
func (k *RemoteKeys) Refresh(ctx context.Context) error {
	k.mu.Lock()
	f := k.flight
	if f == nil {
		f = k.takeOff(ctx, k.cfg.Now(), true)
	}
	k.mu.Unlock()
	select {
	case <-f.done:
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.failed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run fetches the set and keeps it fresh until ctx ends, then returns nil. After a failure it tries again after
// MinInterval, then after twice that, and so on up to a minute or MinInterval, whichever is longer. Before there is a
// set, it begins with half a second, as the network of a pod that has just started may not be there yet.
func (k *RemoteKeys) Run(ctx context.Context) error {
	const first = 500 * time.Millisecond
	backoff := min(first, k.cfg.MinInterval)
	for {
		pause := k.rest()
		if pause <= 0 {
			if err := k.Refresh(ctx); err != nil {
				pause = jitter(backoff)
				backoff = min(2*backoff, max(time.Minute, k.cfg.MinInterval))
			} else {
				pause = max(jitter(k.maxAge()), k.cfg.MinInterval)
				backoff = k.cfg.MinInterval
			}
		}
		k.plan(k.cfg.Now().Add(pause))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			k.plan(time.Time{})
			return nil
		case <-timer.C:
		}
	}
}

// rest is how much of MinInterval is left, whoever caused the last fetch; nothing before there is a set.
func (k *RemoteKeys) rest() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current.Load() == nil {
		return 0
	}
	return min(k.started.Add(k.cfg.MinInterval).Sub(k.cfg.Now()), k.cfg.MinInterval) // the clock may have been set back
}

// maxAge is how old the current set may get: as old as configured, or as old as its server says, within bounds.
func (k *RemoteKeys) maxAge() time.Duration {
	s := k.current.Load() // there is one: Run has just fetched it
	if s.fresh < 0 {
		return k.cfg.MaxAge
	}
	return min(max(s.fresh, time.Minute, k.cfg.MinInterval), k.cfg.MaxAge)
}

func (k *RemoteKeys) plan(next time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.planned = next
}

// jitter spreads d by a tenth either way.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) //nolint:gosec // spreads load, keeps no secret
}

// Status returns the state of the set, for metrics and health.
func (k *RemoteKeys) Status() KeyStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, current := k.status, k.current.Load()
	s.Usable, s.LastError, s.NextRun = k.usable(current, k.cfg.Now()), k.failed, k.planned
	if !k.started.IsZero() {
		s.NextFetch = k.started.Add(k.cfg.MinInterval)
	}
	if current != nil {
		s.Keys, s.FetchedAt = len(current.keys), current.asOf
	}
	return s
}
