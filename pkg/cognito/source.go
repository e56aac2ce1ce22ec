package cognito

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/internal/refresh"
)

// A TokenSource yields access tokens of one app client with one set of scopes. It is safe for concurrent use, and there is
// nothing to close.
type TokenSource struct {
	cfg      *Config // a copy of its own, behind a pointer as that is not printed
	key      string
	endpoint *Endpoint
	tokens   *refresh.Source[*Token]
	log      *slog.Logger

	failure atomic.Pointer[TokenRequestError] // of the last request of the fetch under way that failed; nil if none did

	mu     sync.Mutex
	forced forced
}

// A Cache keeps tokens where other processes find them. Package tokenfile has one.
type Cache interface {
	// Token returns the token stored under key if there is one of which good reports true. Otherwise it calls fetch, once,
	// stores what that returns, and returns it. While one caller of any process is in fetch for a key, others with the same
	// key wait, as long as ctx allows, and then look again. good may be called several times.
	//
	// An error is one of fetch, unchanged, or of ctx. That a token could not be stored is no error.
	//
	// The key is 64 hexadecimal digits. It stands for token URL, client, scopes and metadata together, and tells none of them.
	Token(ctx context.Context, key string, good func(*Token) bool, fetch func(context.Context) (*Token, error)) (*Token, error)
}

// NewTokenSource checks cfg, naming all that is wrong in one error, and does no I/O. What the caller does with its slices
// and maps later changes nothing.
func NewTokenSource(cfg Config) (*TokenSource, error) {
	u, err := cfg.check()
	if err != nil {
		return nil, fmt.Errorf("cognito: %w", err)
	}
	cfg.Scopes = sortedScopes(cfg.Scopes)
	cfg.ClientMetadata = maps.Clone(cfg.ClientMetadata)
	cfg.Retry = cfg.Retry.withDefaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &TokenSource{cfg: &cfg, key: cacheKey(u, cfg)}
	s.log = cfg.Logger.With("token_host", u.Host, "client_id", cfg.ClientID)
	s.endpoint = &Endpoint{
		URL:        cfg.TokenURL,
		ClientID:   cfg.ClientID,
		Secret:     cfg.Secret,
		AuthStyle:  cfg.AuthStyle,
		Timeout:    cfg.Timeout,
		Retry:      cfg.Retry,
		HTTPClient: cfg.HTTPClient,
		Now:        cfg.Now,
		failed:     s.failure.Store,
	}
	s.tokens = refresh.New(refresh.Config[*Token]{
		Fetch:       s.fetch,
		Timeout:     cfg.Retry.MaxElapsed,
		EarlyExpiry: cfg.EarlyExpiry,
		Rest:        rest,
		Report:      s.report,
		Now:         cfg.Now,
	})
	return s, nil
}

// Token returns a token that has not expired, and has some of its life left: 10 seconds, if it lives long enough for that.
//
// With such a token at hand it returns at once, whatever the state of ctx. When the time to replace it has come (see
// [Config.EarlyExpiry]), it also starts a request in the background; if that fails, the token at hand serves on, and the
// request is made again after a while.
//
// Without one, all callers wait for one request, and its repetitions, together. ctx bounds this caller's wait and nothing
// else: the request is shared, and bounded by [Retry.MaxElapsed]. Errors are a [*TokenRequestError], those of
// [Config.Secret], or that of ctx, which comes with the [*TokenRequestError] of the last attempt if there was one.
//
// After a failure, callers without a token get the same error for a moment, without a request: 1 second, doubling up to 5,
// or what the endpoint says (Retry-After, at most [MaxRetryAfter]); for errors that only a person can end, such as
// invalid_client, 10 seconds, doubling up to a minute. In the background it is 10 seconds, doubling up to a minute.
func (s *TokenSource) Token(ctx context.Context) (*Token, error) {
	t, err := s.tokens.Get(ctx)
	if err != nil {
		return nil, s.explain(err)
	}
	return t, nil
}

// Renew returns a token that was requested after the call began, whatever is at hand: for a token that is refused although
// it has not expired. Each call may cost a token; callers at the same time share one. After a failure it returns the same
// error for as long as the background would wait: see [TokenSource.Token].
func (s *TokenSource) Renew(ctx context.Context) (*Token, error) {
	now := s.cfg.Now()
	s.mu.Lock()
	s.forced.at = now
	s.mu.Unlock()
	return s.renew(ctx, now)
}

func (s *TokenSource) renew(ctx context.Context, from time.Time) (*Token, error) {
	t, err := s.tokens.Renew(ctx, from)
	if err != nil {
		return nil, s.explain(err)
	}
	return t, nil
}

// OAuth2 returns the source as package oauth2 has them, for libraries that take one. Its Token method waits as long as ctx
// allows. For HTTP prefer [TokenSource.Transport]: that of package oauth2 sends the token to whatever host a redirect names.
func (s *TokenSource) OAuth2(ctx context.Context) oauth2.TokenSource {
	return oauth2Source(func() (*oauth2.Token, error) {
		t, err := s.Token(ctx)
		if err != nil {
			return nil, err
		}
		return t.OAuth2(), nil
	})
}

type oauth2Source func() (*oauth2.Token, error)

func (s oauth2Source) Token() (*oauth2.Token, error) { return s() }

// Format prints what the source is for.
func (s *TokenSource) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "cognito.TokenSource{TokenURL: %q, ClientID: %q, Scopes: %q}", s.cfg.TokenURL, s.cfg.ClientID, s.cfg.Scopes)
}

// fetch gets a token that was obtained at from or later, from the shared cache or the endpoint.
func (s *TokenSource) fetch(ctx context.Context, from time.Time) (refresh.Value[*Token], error) {
	s.failure.Store(nil)
	request := func(ctx context.Context) (*Token, error) { return s.endpoint.Token(ctx, tokenForm(s.cfg)) }
	var t *Token
	var err error
	if s.cfg.Cache == nil {
		t, err = request(ctx)
	} else {
		t, err = s.share(ctx, from, request)
	}
	if err != nil && isContextError(err) {
		err = s.outOfTime(err) // the context is that of no caller
	}
	if t == nil {
		return refresh.Value[*Token]{}, err
	}
	return refresh.Value[*Token]{V: t, Obtained: t.ObtainedAt, Expiry: t.Expiry}, err
}

// share gets a token through the shared cache. With an error it returns the stored token all the same, if that has life
// left.
func (s *TokenSource) share(ctx context.Context, from time.Time, request func(context.Context) (*Token, error)) (*Token, error) {
	var stored *Token
	spread := rand.Float64() //nolint:gosec // spreads load, keeps no secret
	good := func(t *Token) bool {
		now := s.cfg.Now()
		replace, end := refresh.Plan(t.ObtainedAt, t.Expiry, s.cfg.EarlyExpiry, spread)
		// A token from the future was obtained before the clock was set back: its expiry means nothing now.
		if !isBearerToken(t.AccessToken()) || t.ObtainedAt.After(now) || t.ObtainedAt.Before(from) || !now.Before(end) || t.Expiry.Sub(t.ObtainedAt) > maxLife {
			return false
		}
		stored = t
		return now.Before(replace)
	}
	t, err := s.cfg.Cache.Token(ctx, s.key, good, request)
	if err != nil {
		return stored, err
	}
	if t == nil {
		return nil, errors.New("cognito: the cache returned neither token nor error")
	}
	return t, nil
}

// outOfTime is the error of a fetch that did not end within its bound: that of its last request, if one failed.
func (s *TokenSource) outOfTime(err error) error {
	if last := s.failure.Load(); last != nil {
		return last
	}
	return &TokenRequestError{Err: fmt.Errorf("no token within %v: %v", s.cfg.Retry.MaxElapsed, err), temporary: true} //nolint:errorlint // it must not match: no caller's context has ended
}

// rest says for how long nobody asks again after a failure: see [TokenSource.Token]. While a token serves, there is time. When
// it has expired, the failures in the background do not keep those who need one from asking.
func rest(err error, failures int, usable bool) (idle, needed time.Duration) {
	doubled := func(first, most time.Duration) time.Duration {
		d := min(first<<min(failures-1, 10), most)
		return d - rand.N(d/4) //nolint:gosec // spreads load, keeps no secret
	}
	idle = doubled(10*time.Second, time.Minute)
	var request *TokenRequestError
	switch isRequest := errors.As(err, &request); {
	case isRequest && !request.Temporary():
		return idle, idle
	case isRequest:
		idle, needed = max(idle, request.RetryAfter), request.RetryAfter
	}
	if !usable {
		needed = max(needed, doubled(time.Second, 5*time.Second))
	}
	return idle, needed
}

// report logs how a fetch ended.
func (s *TokenSource) report(r refresh.Report) {
	ctx := context.Background()
	switch {
	case r.Err != nil:
		s.log.LogAttrs(ctx, slog.LevelWarn, "getting a token failed", slog.Any("error", r.Err), slog.Int("failures", r.Failures),
			slog.Duration("next_after", r.Rest), slog.Bool("token_at_hand", r.Usable))
	case r.Failures > 0:
		s.log.LogAttrs(ctx, slog.LevelInfo, "getting a token works again", slog.Int("failures", r.Failures), slog.Duration("took", r.Took))
	default:
		s.log.LogAttrs(ctx, slog.LevelDebug, "got a token", slog.Duration("took", r.Took))
	}
}

// explain says why a caller has waited in vain.
func (s *TokenSource) explain(err error) error {
	if err != context.Canceled && err != context.DeadlineExceeded { //nolint:errorlint // exactly the caller's, not one within another
		return err
	}
	if last := s.failure.Load(); last != nil {
		return &waitError{ended: err, last: last}
	}
	return fmt.Errorf("cognito: waiting for a token: %w", err)
}

// A waitError is the end of a caller's context while requests fail.
type waitError struct {
	ended error
	last  *TokenRequestError
}

func (e *waitError) Error() string {
	return fmt.Sprintf("cognito: waiting for a token: %v; so far %s", e.ended, strings.TrimPrefix(e.last.Error(), "cognito: "))
}

func (e *waitError) Unwrap() []error { return []error{e.ended, e.last} }

// tokenForm returns the parameters of a client credentials request (RFC 6749 section 4.4.2).
func tokenForm(cfg *Config) url.Values {
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(cfg.Scopes) > 0 {
		form.Set("scope", strings.Join(cfg.Scopes, " "))
	}
	if len(cfg.ClientMetadata) > 0 {
		form.Set("aws_client_metadata", string(mustMarshal(cfg.ClientMetadata)))
	}
	return form
}

// cacheKey returns the SHA-256, in hexadecimal, of all that makes one token differ from another: a token must not be given
// to who asks for another endpoint, client, set of scopes or metadata. The order of scopes and the spelling of the host do
// not matter, and secrets are no part of it, so that rotating them does not cost a token.
func cacheKey(u *url.URL, cfg Config) string {
	host := canonicalHost(u)
	sum := sha256.Sum256(mustMarshal(struct {
		Version        int               `json:"version"`
		TokenURL       string            `json:"token_url"`
		ClientID       string            `json:"client_id"`
		Scopes         []string          `json:"scopes"`
		ClientMetadata map[string]string `json:"client_metadata"`
	}{1, u.Scheme + "://" + host + cmp.Or(u.EscapedPath(), "/"), cfg.ClientID, append([]string{}, cfg.Scopes...), mapOrEmpty(cfg.ClientMetadata)}))
	return hex.EncodeToString(sum[:])
}

func mapOrEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// canonicalHost returns host and port in lower case, without the port that the scheme has anyway.
func canonicalHost(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		return strings.TrimSuffix(host, ":443")
	case "http":
		return strings.TrimSuffix(host, ":80")
	}
	return host
}

// mustMarshal is for what always can be marshalled: strings, and lists and maps of them.
func mustMarshal(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("cognito: " + err.Error())
	}
	return text
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
