package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
)

const (
	// refreshTimeout bounds the wait for the refreshes of other processes, and then a refresh of one's own.
	refreshTimeout = time.Minute
	// failurePause is how long nobody asks again after a refresh that failed, refreshPause while the tokens at hand hold.
	failurePause = time.Second
	refreshPause = 10 * time.Second
	// patience is how long a caller waits for a refresh while the tokens at hand hold.
	patience = 5 * time.Second
	// usable is how much of a token's life must be left for it to be worth serving: the request that carries it has to arrive.
	usable = 5 * time.Second
	// clockBack is how far before the moment when tokens came the clock may stand. If it is set back further, nothing is known
	// about how long they hold.
	clockBack = time.Minute
)

// A SessionConfig says whose tokens a [Session] keeps fresh. The zero value of an optional field means the default named in
// its comment.
type SessionConfig struct {
	// Authenticator signs in and refreshes. Required.
	Authenticator *Authenticator
	// Store is where the tokens are kept. Default: in memory, for the life of the Session.
	Store Store
	// EarlyExpiry is how long before its expiry a token is refreshed, but not before half of its life. Default
	// [DefaultEarlyExpiry].
	EarlyExpiry time.Duration
	// Logger gets a line when a refresh fails while the tokens at hand hold (warn), and when tokens cannot be saved (error).
	// Default: discard.
	Logger *slog.Logger
}

// A Session keeps the tokens of one sign-in fresh. It is safe for concurrent use: however many callers wait, one refresh is
// under way, in this process and in all that share its [Store].
type Session struct {
	auth  *Authenticator
	store Store
	early time.Duration
	log   *slog.Logger

	patience time.Duration // as the constant, but in tests

	mu      sync.Mutex
	tokens  *Tokens   // at hand; nil before they are loaded, and when there are none
	unsaved bool      // whether the store could not take them
	changes int       // how often Login or Logout has changed the store
	flight  *flight   // the refresh under way; nil if none
	failure error     // of the last flight; nil if it did not fail
	rest    time.Time // until when the failure stands for the next
}

// A flight is a look into the store, and a refresh if need be. Its results are set when done is closed. With an error, there
// may be tokens too: old ones, which may still hold.
type flight struct {
	done   chan struct{}
	tokens *Tokens
	err    error
}

// NewSession checks cfg and does no I/O: the tokens are loaded when they are first asked for.
func NewSession(cfg SessionConfig) (*Session, error) {
	if cfg.Authenticator == nil {
		return nil, errors.New("login: Authenticator is nil, want one of New")
	}
	if cfg.EarlyExpiry < 0 {
		return nil, fmt.Errorf("login: EarlyExpiry is %v, want one that is not negative", cfg.EarlyExpiry)
	}
	s := &Session{auth: cfg.Authenticator, store: cfg.Store, early: cfg.EarlyExpiry, log: cfg.Logger, patience: patience}
	if s.store == nil {
		s.store = newMemoryStore()
	}
	if s.early == 0 {
		s.early = DefaultEarlyExpiry
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Format prints whose session it is and nothing of the tokens, whatever the verb.
func (s *Session) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "login.Session{%v}", s.auth) }

// Tokens returns tokens of which both ID token and access token hold for EarlyExpiry, refreshed if need be. If the refresh
// fails, or takes long, it returns those at hand as long as they hold, unless the sign-in has ended. The context bounds this
// caller's wait and not the refresh, whose answer may hold the only refresh token that still works: see [Session.Wait]. An
// error matches [ErrLoginRequired] if nobody is signed in, or the sign-in has ended.
func (s *Session) Tokens(ctx context.Context) (*Tokens, error) {
	return s.get(ctx, (*Tokens).Expiry, nil)
}

// IDToken returns the ID token, as [Session.Tokens] does.
func (s *Session) IDToken(ctx context.Context) (string, error) {
	t, err := s.get(ctx, func(t *Tokens) time.Time { return t.IDTokenExpiry }, nil)
	if err != nil {
		return "", err
	}
	return t.IDToken, nil
}

// AccessToken returns the access token, as [Session.Tokens] does.
func (s *Session) AccessToken(ctx context.Context) (string, error) {
	t, err := s.get(ctx, func(t *Tokens) time.Time { return t.AccessTokenExpiry }, nil)
	if err != nil {
		return "", err
	}
	return t.AccessToken, nil
}

// Refresh returns tokens that are newer than those at hand, whatever is left of these: for claims that have changed, or a
// server that refuses them. If another process has refreshed them meanwhile, it returns those.
func (s *Session) Refresh(ctx context.Context) (*Tokens, error) {
	s.mu.Lock()
	old := s.tokens
	s.mu.Unlock()
	if old == nil {
		var err error
		if old, err = s.load(ctx); err != nil {
			return nil, err
		}
	}
	return s.get(ctx, (*Tokens).Expiry, old)
}

// An expiry is the part of the tokens that a caller cares for.
type expiry func(*Tokens) time.Time

// get returns tokens of which that with the given expiry is fresh and, unless old is nil, that are newer than old.
func (s *Session) get(ctx context.Context, exp expiry, old *Tokens) (*Tokens, error) {
	// The flight under way may be for the other token, which expires later, or for a caller who is content with less. The one
	// after it is ours.
	const most = 2
	for i := 1; ; i++ {
		f, hand := s.look(ctx, exp, old)
		landed, err := s.await(ctx, f, hand != nil)
		switch {
		case err != nil:
			return nil, err
		case !landed:
			return hand, nil
		case f.err == nil && (s.good(f.tokens, exp, old) || i == most):
			return f.tokens, nil
		case f.err == nil:
		case old == nil && !errors.Is(f.err, ErrLoginRequired) && s.holds(f.tokens, exp):
			return f.tokens, nil
		default:
			return nil, f.err
		}
	}
}

// await waits for a flight, if need be without end, and returns whether it has landed.
func (s *Session) await(ctx context.Context, f *flight, impatient bool) (landed bool, err error) {
	var enough <-chan time.Time
	if impatient {
		timer := time.NewTimer(s.patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-f.done:
		return true, nil
	case <-enough:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("login: wait for tokens: %w", ctx.Err())
	}
}

// look returns the flight under way, or one that has landed with what is at hand, or a new one; and the tokens at hand if they
// will do when that takes too long.
func (s *Session) look(ctx context.Context, exp expiry, old *Tokens) (f *flight, hand *Tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old == nil && s.holds(s.tokens, exp) {
		hand = s.tokens
	}
	switch now := s.now(); {
	case s.good(s.tokens, exp, old):
		return landed(s.tokens, nil), hand
	case s.flight != nil:
		return s.flight, hand
	case s.failure != nil && now.Before(s.rest) && now.After(s.rest.Add(-2*cognito.MaxRetryAfter)): // unless the clock was set back
		return landed(s.tokens, s.failure), hand
	}
	return s.takeOff(ctx, exp, old), hand
}

func landed(t *Tokens, err error) *flight {
	f := &flight{done: make(chan struct{}), tokens: t, err: err}
	close(f.done)
	return f
}

// now is what the wall clock shows: the monotonic clock stands still while a machine sleeps, and tokens expire.
func (s *Session) now() time.Time { return s.auth.cfg.Now().Round(0) }

// good reports whether nothing has to be done.
func (s *Session) good(t *Tokens, exp expiry, old *Tokens) bool {
	return t != nil && s.fresh(t, exp) && (old == nil || t.AccessToken != old.AccessToken)
}

// fresh reports whether it is too early to refresh.
func (s *Session) fresh(t *Tokens, exp expiry) bool {
	now, end, obtained := s.now(), exp(t), t.ObtainedAt.Round(0)
	early := min(s.early, max(0, end.Sub(obtained)/2))
	return now.Before(end.Add(-early)) && now.After(obtained.Add(-clockBack))
}

// holds reports whether a token may still be used.
func (s *Session) holds(t *Tokens, exp expiry) bool {
	return t != nil && s.now().Before(exp(t).Add(-usable))
}

// takeOff starts a flight. It outlives the caller's context. The caller holds mu.
func (s *Session) takeOff(ctx context.Context, exp expiry, old *Tokens) *flight {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	go func() {
		ctx := context.WithoutCancel(ctx)
		t, err := s.renew(ctx, exp, old)
		s.land(f, t, err, exp)
		if err != nil && !errors.Is(err, ErrLoginRequired) && s.holds(t, exp) { // else who waits for it is told
			s.log.LogAttrs(ctx, slog.LevelWarn, "token refresh failed", slog.Any("error", err))
		}
		close(f.done)
	}()
	return f
}

// land takes over what a flight came to.
func (s *Session) land(f *flight, t *Tokens, err error, exp expiry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.tokens, f.err = t, err
	s.flight, s.failure = nil, err
	if err == nil {
		return
	}
	pause := failurePause
	if t != nil && !errors.Is(err, ErrLoginRequired) { // but not beyond the moment when somebody has to wait
		left := exp(t).Add(-usable).Sub(s.now())
		pause = min(max(left, failurePause), refreshPause)
	}
	if request := (*cognito.TokenRequestError)(nil); errors.As(err, &request) {
		pause = max(pause, request.RetryAfter)
	}
	s.rest = s.now().Add(pause)
}

// renew looks for good tokens in the store, and refreshes those there if they are not.
func (s *Session) renew(ctx context.Context, exp expiry, old *Tokens) (*Tokens, error) {
	// Without the lock first: most often there is nothing to do, and another process may have it for as long as its refresh
	// takes.
	waiting, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if t, err := s.load(waiting); err != nil || s.good(t, exp, old) {
		return t, err
	}
	unlock, err := s.store.Lock(waiting)
	if err != nil {
		return s.atHand(), err
	}
	defer unlock()
	// Time of its own, however long the lock took: a request that is cut short may lose the new refresh token.
	ctx, cancel = context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	t, err := s.load(ctx)
	if err != nil || s.good(t, exp, old) {
		return t, err
	}
	renewed, err := s.auth.refresh(ctx, t)
	switch {
	case renewed != nil: // and be it with an error
		s.save(ctx, renewed)
		t = renewed
	case errors.Is(err, ErrLoginRequired):
		// Those at hand that could not be saved are of no use any more; somebody may have signed in since.
		s.mu.Lock()
		s.unsaved = false
		s.mu.Unlock()
	}
	return t, err
}

var errNobody = fmt.Errorf("%w: nobody is signed in", ErrLoginRequired)

// load returns the tokens of the store, or those at hand if the store could not take them.
func (s *Session) load(ctx context.Context) (*Tokens, error) {
	s.mu.Lock()
	changes, t, unsaved := s.changes, s.tokens, s.unsaved
	s.mu.Unlock()
	if unsaved {
		return t, nil
	}
	stored, err := s.store.Load(ctx)
	if err == nil {
		err = s.auth.owns(stored)
	}
	switch {
	case errors.Is(err, ErrNoTokens):
		stored, err = nil, errNobody
	case err != nil && !errors.Is(err, ErrLoginRequired):
		return t, err // a store that cannot be read says nothing about the tokens at hand
	case err != nil:
		stored = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == changes {
		s.tokens = stored
	}
	return stored, err
}

// owns returns an error if the tokens are another client's or another pool's.
func (a *Authenticator) owns(t *Tokens) error {
	c, err := t.IDClaims()
	if err != nil {
		return err
	}
	if c.Audience != a.cfg.ClientID || !slices.Contains(a.cfg.Issuers, c.Issuer) {
		return fmt.Errorf("%w: the stored tokens are those of client %q at %q, want client %q at %q", ErrLoginRequired, c.Audience, c.Issuer, a.cfg.ClientID, a.cfg.Issuers)
	}
	return nil
}

// save keeps the tokens at hand if the store cannot take them. The caller has the store's lock.
func (s *Session) save(ctx context.Context, t *Tokens) {
	err := s.store.Save(ctx, t)
	s.mu.Lock()
	s.tokens, s.unsaved = t, err != nil
	s.mu.Unlock()
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelError, "tokens cannot be saved, and are lost when the program ends", slog.Any("error", err))
	}
}

func (s *Session) atHand() *Tokens {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens
}

// Login signs in as [Authenticator.Login] does, and saves the tokens in place of those before. If they cannot be saved, it
// returns them with the error.
func (s *Session) Login(ctx context.Context) (*Tokens, error) {
	// A store that cannot be written to shows before a person has signed in.
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	unlock()
	t, err := s.auth.Login(ctx)
	if err != nil {
		return nil, err
	}
	if unlock, err = s.lock(ctx); err != nil {
		return t, err
	}
	defer unlock()
	err = s.store.Save(ctx, t)
	s.change(t, err != nil)
	return t, err
}

// Logout revokes the refresh token and deletes the tokens. They are deleted also if the refresh token cannot be revoked, as
// when it is another client's; that is an error. Without tokens it does nothing.
func (s *Session) Logout(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	t, err := s.load(ctx)
	switch {
	case errors.Is(err, errNobody):
		return nil
	case errors.Is(err, ErrLoginRequired): // no login would help with it
		err = fmt.Errorf("login: the refresh token is not revoked: %s", strings.TrimPrefix(err.Error(), ErrLoginRequired.Error()+": "))
	case t != nil:
		err = errors.Join(err, s.auth.Revoke(ctx, t))
	}
	err = errors.Join(err, s.store.Delete(ctx))
	s.change(nil, false)
	return err
}

// lock takes the store's lock, for which it does not wait longer than a refresh takes: whoever has it for longer hangs.
func (s *Session) lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	return s.store.Lock(ctx)
}

// change takes note of what Login or Logout has done to the store, whose lock the caller has.
func (s *Session) change(t *Tokens, unsaved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	s.tokens, s.unsaved, s.failure = t, unsaved, nil
}

// Wait returns when no refresh is under way. A program that ends calls it first, so that no new refresh token is lost.
func (s *Session) Wait() {
	for {
		s.mu.Lock()
		f := s.flight
		s.mu.Unlock()
		if f == nil {
			return
		}
		<-f.done
	}
}
