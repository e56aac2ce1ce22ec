package login

import (
	"context"
	"crypto/rsa"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/cognito"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func rotating(_ *cognitotest.PoolConfig, c *cognitotest.Client) { c.RotateRefreshTokens = true }

func steady(*cognitotest.PoolConfig, *cognitotest.Client) {}

func newSession(t *testing.T, a *Authenticator, edits ...func(*SessionConfig)) *Session {
	t.Helper()
	cfg := SessionConfig{Authenticator: a}
	for _, edit := range edits {
		edit(&cfg)
	}
	s, err := NewSession(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Wait)
	return s
}

// signedIn returns a session in which jane has signed in.
func (f *fixture) signedIn(t *testing.T, edits ...func(*SessionConfig)) *Session {
	t.Helper()
	s := newSession(t, f.authenticator(t), edits...)
	if _, err := s.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-f.visits
	return s
}

// requests returns how many token requests there were since the last call.
func (f *fixture) requests() func() int {
	seen := 0
	return func() int {
		n := f.pool.Requests(cognitotest.Token)
		defer func() { seen = n }()
		return n - seen
	}
}

func mustTokens(t *testing.T, s *Session) *Tokens {
	t.Helper()
	tokens, err := s.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		client  func(*cognitotest.PoolConfig, *cognitotest.Client)
		rotates bool
	}{
		{"without rotation keeps the refresh token", steady, false},
		{"with rotation takes the new refresh token", rotating, true},
		{"of a client with a secret", func(_ *cognitotest.PoolConfig, c *cognitotest.Client) {
			c.Secrets, c.Flows = []string{testSecret}, []string{cognitotest.FlowCode}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, tt.client)
			a := f.authenticator(t, func(c *Config) {
				if len(f.client.Secrets) > 0 {
					c.Secret = cognito.StaticSecret(testSecret)
				}
			})
			old := f.login(t, a)
			f.clock.add(time.Minute)
			got, err := a.Refresh(t.Context(), old)
			if err != nil {
				t.Fatal(err)
			}
			if got.IDToken == old.IDToken || got.AccessToken == old.AccessToken || !got.Expiry().Equal(old.Expiry().Add(time.Minute)) || !got.ObtainedAt.Equal(f.clock.now()) {
				t.Errorf("got %v, want tokens that are a minute younger than %v", got, old)
			}
			if rotated := got.RefreshToken != old.RefreshToken; rotated != tt.rotates || got.RefreshToken == "" {
				t.Errorf("the refresh token is another one: %t, want %t", rotated, tt.rotates)
			}
			before, _ := old.IDClaims()
			after, _ := got.IDClaims()
			if before.Subject != after.Subject || !before.AuthTime.Equal(after.AuthTime) {
				t.Errorf("got %+v, want the person and auth_time of %+v", after, before)
			}
			_, err = a.Refresh(t.Context(), old)
			if again := err == nil; again == tt.rotates {
				t.Errorf("the old refresh token gives %v", err)
			}
		})
	}
}

func TestRefreshWithoutRefreshToken(t *testing.T) {
	t.Parallel()
	f := start(t)
	_, err := f.authenticator(t).Refresh(t.Context(), &Tokens{})
	if want := "login: a new login is needed: there is no refresh token"; !errors.Is(err, ErrLoginRequired) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// OpenID Connect Core section 12.2. Each row differs in one thing from a refresh that succeeds.
func TestRefreshRefusesTokens(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		id, access []cognitotest.TokenOption
		want       string
	}{
		{"another person", []cognitotest.TokenOption{cognitotest.Claim("sub", "other")}, []cognitotest.TokenOption{cognitotest.Claim("sub", "other")}, "its sub is another than that of the ID token before"},
		{"another issuer of the same pool", []cognitotest.TokenOption{cognitotest.Claim("iss", "https://issuer.example")}, nil, "its iss is another than that of the ID token before"},
		{"another nonce", []cognitotest.TokenOption{cognitotest.Claim("nonce", "other")}, nil, "its nonce is another than that of the ID token before"},
		{"a nonce of another type", []cognitotest.TokenOption{cognitotest.Claim("nonce", []any{})}, nil, "its nonce is another than that of the ID token before"},
		{"another client", []cognitotest.TokenOption{cognitotest.Claim("aud", "other")}, nil, "client not allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t)
			a := f.authenticator(t, func(c *Config) { c.Issuers = append(c.Issuers, "https://issuer.example") })
			old := f.login(t, a)
			f.pool.AlterUserTokens(tt.id, tt.access)
			tokens, err := a.Refresh(t.Context(), old)
			var refused *TokenRefusedError
			if tokens != nil || !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v and %v, want %q", tokens, err, tt.want)
			}
		})
	}
}

// A nonce may be there, if it is that of the sign-in.
func TestRefreshWithTheSameNonce(t *testing.T) {
	t.Parallel()
	f := start(t)
	a := f.authenticator(t)
	old := f.login(t, a)
	claims, err := old.IDClaims()
	if err != nil {
		t.Fatal(err)
	}
	f.pool.AlterUserTokens([]cognitotest.TokenOption{cognitotest.Claim("nonce", claims.Map()["nonce"])}, nil)
	if _, err := a.Refresh(t.Context(), old); err != nil {
		t.Error(err)
	}
}

// Keys that are away for a moment are waited for: what they verify cannot be got a second time.
func TestLoginWaitsForKeys(t *testing.T) {
	t.Parallel()
	f := start(t)
	keys := &switchedKeys{KeySet: mustKeys(t, f)}
	a := f.authenticator(t, func(c *Config) { c.Keys = keys })
	keys.fail(true)
	var pauses []time.Duration
	a.pause = func(_ context.Context, d time.Duration) bool {
		pauses = append(pauses, d)
		keys.fail(false)
		return true
	}
	f.login(t, a)
	if len(pauses) != 1 || pauses[0] != time.Second {
		t.Errorf("it waited %v, want what the key set says", pauses)
	}
	for goesOn, most := range map[bool]int{true: 2, false: 1} { // false: the context has ended
		keys.fail(true)
		n := 0
		a.pause = func(context.Context, time.Duration) bool {
			n++
			return goesOn
		}
		if _, err := a.Login(t.Context()); !errors.Is(err, validator.ErrKeysUnavailable) || n != most {
			t.Errorf("got %v after %d pauses, want ErrKeysUnavailable after %d", err, n, most)
		}
		<-f.visits
	}
}

func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if !pause(ctx, time.Second/2) || time.Since(begin) != time.Second/2 {
			t.Error("it did not wait half a second")
		}
		if pause(ctx, time.Minute) || time.Since(begin) != time.Second {
			t.Error("it waited longer than the context")
		}
	})
}

// If the keys vanish between a refresh and the verification, the new refresh token is all that keeps the sign-in: the old one
// is spent.
func TestRefreshWithoutKeysKeepsTheRefreshToken(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	keys := &switchedKeys{KeySet: mustKeys(t, f)}
	a := f.authenticator(t, func(c *Config) { c.Keys = keys })
	a.pause = func(context.Context, time.Duration) bool { return true }
	s := newSession(t, a)
	old, err := s.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.clock.add(56 * time.Minute)
	keys.fail(true)
	if got := mustTokens(t, s); got.AccessToken != old.AccessToken || got.RefreshToken == old.RefreshToken {
		t.Error("want the old access token, which holds, with the new refresh token")
	}
	keys.fail(false)
	f.clock.add(refreshPause)
	if got := mustTokens(t, s); got.AccessToken == old.AccessToken {
		t.Error("want a new access token, by the new refresh token")
	}
}

func mustKeys(t *testing.T, f *fixture) validator.KeySet {
	t.Helper()
	keys, _, err := validator.ParseJWKS(f.pool.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// So it is if the clock of this machine is wrong for a while, with which no new token holds.
func TestRefreshWithAWrongClockKeepsTheRefreshToken(t *testing.T) {
	t.Parallel()
	for _, wrong := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		f := start(t, rotating)
		own := newClock()
		own.add(f.clock.now().Sub(own.now()))
		s := newSession(t, f.authenticator(t, func(c *Config) { c.Now = own.now }))
		old, err := s.Login(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		own.add(wrong)
		if _, err := s.Refresh(t.Context()); !errors.As(err, new(*TokenRefusedError)) {
			t.Errorf("got %v, want *TokenRefusedError", err)
		}
		own.add(-wrong + failurePause)
		if got, err := s.Refresh(t.Context()); err != nil || got.RefreshToken == old.RefreshToken {
			t.Errorf("when the clock is right again: %v, want new tokens", err)
		}
	}
}

// The keys are fetched before a refresh token is spent on tokens that could not be verified.
func TestRefreshWantsKeysFirst(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	old := f.login(t, f.authenticator(t))
	f.pool.Fail(cognitotest.JWKS, cognitotest.Fault{Status: 503})
	since := f.requests()
	since()
	_, err := f.authenticator(t).Refresh(t.Context(), old) // as a new process
	if !errors.Is(err, validator.ErrKeysUnavailable) || since() != 0 {
		t.Errorf("got %v, want ErrKeysUnavailable and no token request", err)
	}
	f.pool.Heal(cognitotest.JWKS)
	if _, err := f.authenticator(t).Refresh(t.Context(), old); err != nil {
		t.Errorf("the refresh token is spent: %v", err)
	}
}

func TestSessionRefreshesEarly(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := f.signedIn(t)
	since := f.requests()
	since()
	first := mustTokens(t, s)
	f.clock.add(55*time.Minute - time.Second)
	if got := mustTokens(t, s); got != first || since() != 0 {
		t.Error("refreshed more than 5 minutes before the expiry")
	}
	f.clock.add(2 * time.Second)
	second := mustTokens(t, s)
	if second.AccessToken == first.AccessToken || since() != 1 {
		t.Error("did not refresh within 5 minutes of the expiry")
	}
	id, err := s.IDToken(t.Context())
	if err != nil || id != second.IDToken {
		t.Errorf("IDToken returns another, %v", err)
	}
	access, err := s.AccessToken(t.Context())
	if err != nil || access != second.AccessToken || since() != 0 {
		t.Errorf("AccessToken returns another, %v", err)
	}
}

// Cognito lets tokens live for five minutes: not all of it can be early.
func TestSessionWithShortTokens(t *testing.T) {
	t.Parallel()
	f := start(t, func(_ *cognitotest.PoolConfig, c *cognitotest.Client) { c.TokenTTL = 5 * time.Minute })
	s := f.signedIn(t)
	since := f.requests()
	since()
	first := mustTokens(t, s)
	f.clock.add(2 * time.Minute)
	if got := mustTokens(t, s); got != first || since() != 0 {
		t.Error("refreshed before half of the life was over")
	}
	f.clock.add(31 * time.Second)
	if got := mustTokens(t, s); got == first || since() != 1 {
		t.Error("did not refresh after half of the life")
	}
}

// ID token and access token have lives of their own: who needs one does not pay for the other.
func TestSessionLooksAtTheTokenThatIsNeeded(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.pool.AlterUserTokens([]cognitotest.TokenOption{cognitotest.TTL(10 * time.Minute)}, nil)
	s := f.signedIn(t)
	f.clock.add(6 * time.Minute)
	since := f.requests()
	since()
	if _, err := s.AccessToken(t.Context()); err != nil || since() != 0 {
		t.Errorf("the access token was refreshed, %v", err)
	}
	if _, err := s.IDToken(t.Context()); err != nil || since() != 1 {
		t.Errorf("the ID token was not refreshed, %v", err)
	}
}

// Who joins a flight that is for somebody else gets what they need from the next one.
func TestSessionJoinsAnothersFlight(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.pool.AlterUserTokens([]cognitotest.TokenOption{cognitotest.TTL(10 * time.Minute)}, nil)
	store := &brokenStore{memoryStore: newMemoryStore()}
	first := mustTokens(t, f.signedIn(t, func(c *SessionConfig) { c.Store = store }))
	f.clock.add(6 * time.Minute)
	s := newSession(t, f.authenticator(t), func(c *SessionConfig) { c.Store = store })
	store.mutex.Lock() // so that the flight for the access token, which is fresh, waits
	s.mu.Lock()
	s.takeOff(t.Context(), func(t *Tokens) time.Time { return t.AccessTokenExpiry }, nil)
	s.mu.Unlock()
	ctx := &askedContext{Context: t.Context(), asked: make(chan struct{}, 2)}
	result := make(chan error, 1)
	go func() {
		id, err := s.IDToken(ctx)
		if err == nil && id == first.IDToken {
			err = errors.New("got the old ID token")
		}
		result <- err
	}()
	<-ctx.asked // it waits
	store.mutex.Unlock()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// An askedContext tells when somebody waits for its end.
type askedContext struct {
	context.Context
	asked chan struct{}
}

func (c *askedContext) Done() <-chan struct{} {
	select {
	case c.asked <- struct{}{}:
	default:
	}
	return c.Context.Done()
}

func TestSessionJoinsRefreshes(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	store := &brokenStore{memoryStore: newMemoryStore()}
	s := f.signedIn(t, func(c *SessionConfig) { c.Store = store })
	loads, locks := store.counts()
	for range 10 {
		mustTokens(t, s)
	}
	if nowLoads, nowLocks := store.counts(); nowLoads != loads || nowLocks != locks {
		t.Error("tokens at hand were looked for in the store")
	}
	f.clock.add(2 * time.Hour)
	release := make(chan struct{})
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release, Times: 1})
	since := f.requests()
	since()
	var wg sync.WaitGroup
	tokens := make(chan string, 1000)
	for range cap(tokens) {
		wg.Go(func() {
			token, err := s.AccessToken(t.Context())
			if err != nil {
				t.Error(err)
			}
			tokens <- token
		})
	}
	if err := f.pool.WaitRequests(t.Context(), cognitotest.Token, 2); err != nil {
		t.Fatal(err)
	}
	close(release)
	wg.Wait()
	close(tokens)
	first := <-tokens
	for token := range tokens {
		if token != first {
			t.Fatal("two callers got two tokens")
		}
	}
	if n := since(); n != 1 {
		t.Errorf("the token endpoint got %d requests, want 1", n)
	}
	if nowLoads, nowLocks := store.counts(); nowLoads != loads+2 || nowLocks != locks+1 {
		t.Errorf("the store was asked %d times and locked %d times, want twice and once", nowLoads-loads, nowLocks-locks)
	}
}

// Fresh tokens in the store are there for all, also while somebody has the lock.
func TestSessionLoadsWithoutTheLock(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := newMemoryStore()
	first := mustTokens(t, f.signedIn(t, func(c *SessionConfig) { c.Store = store }))
	unlock, err := store.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if got := mustTokens(t, newSession(t, f.authenticator(t), func(c *SessionConfig) { c.Store = store })); got != first {
		t.Error("got other tokens than the store has")
	}
}

// A caller who goes away does not take the refresh along: its answer may hold the only refresh token that works.
func TestSessionRefreshOutlivesTheCaller(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	s := f.signedIn(t)
	f.clock.add(2 * time.Hour)
	release := make(chan struct{})
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := s.Tokens(ctx)
		result <- err
	}()
	if err := f.pool.WaitRequests(t.Context(), cognitotest.Token, 2); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	close(release)
	s.Wait()
	since := f.requests()
	since()
	mustTokens(t, s)
	if n := since(); n != 0 {
		t.Errorf("the token endpoint got %d more requests, want the answer of the first to be used", n)
	}
}

// However long another process has had the lock, the refresh after it has its time: with rotation, the answer to one that is cut
// short has the only refresh token that works.
func TestSessionRefreshHasItsTime(t *testing.T) {
	t.Parallel()
	f := start(t)
	old := f.login(t, f.authenticator(t))
	synctest.Test(t, func(t *testing.T) {
		store := &slowLock{memoryStore: newMemoryStore(), wait: refreshTimeout - time.Second}
		_ = store.Save(t.Context(), old)
		var left time.Duration
		a := f.authenticator(t, func(c *Config) {
			c.Keys, c.Now = mustKeys(t, f), func() time.Time { return old.AccessTokenExpiry }
			c.HTTPClient = &http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
				deadline, _ := r.Context().Deadline()
				left = time.Until(deadline)
				return nil, io.ErrUnexpectedEOF
			})}
		})
		if _, err := newSession(t, a, func(c *SessionConfig) { c.Store = store }).Tokens(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want the transport's error", err)
		}
		if left < 5*time.Second {
			t.Errorf("the request had %v left, want the time of one", left)
		}
	})
}

// A process that hangs with the lock keeps nobody waiting without end.
func TestSessionWaitsForTheLockForAWhile(t *testing.T) {
	t.Parallel()
	f := start(t)
	a := f.authenticator(t, func(c *Config) { c.Keys = mustKeys(t, f) })
	for name, do := range map[string]func(*Session, context.Context) error{
		"Logout": (*Session).Logout,
		"Login":  func(s *Session, ctx context.Context) error { _, err := s.Login(ctx); return err },
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newMemoryStore()
			if _, err := store.Lock(t.Context()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			err := do(newSession(t, a, func(c *SessionConfig) { c.Store = store }), ctx)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != refreshTimeout {
				t.Errorf("%s: got %v after %v, want an error after %v", name, err, time.Since(begin), refreshTimeout)
			}
		})
	}
}

// The client's own Timeout is what bounds a request, for keys too.
func TestTimeoutOfTheClient(t *testing.T) {
	t.Parallel()
	f := start(t)
	old := f.login(t, f.authenticator(t))
	keys := mustKeys(t, f)
	for name, edit := range map[string]func(*Config){
		"token endpoint": func(c *Config) { c.Keys = keys },
		"keys":           func(*Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := f.authenticator(t, edit, func(c *Config) {
					c.HTTPClient = &http.Client{Timeout: 50 * time.Second, Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
						<-r.Context().Done()
						return nil, r.Context().Err()
					})}
				})
				begin := time.Now()
				if _, err := a.Refresh(t.Context(), old); err == nil || time.Since(begin) != 50*time.Second {
					t.Errorf("got %v after %v, want an error after 50s", err, time.Since(begin))
				}
			})
		})
	}
}

// A slowLock is a store whose lock somebody else has had for a while.
type slowLock struct {
	*memoryStore
	wait time.Duration
}

func (s *slowLock) Lock(ctx context.Context) (func(), error) {
	time.Sleep(s.wait)
	return s.memoryStore.Lock(ctx)
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A refresh that hangs is not waited for as long as the tokens at hand hold.
func TestSessionDoesNotWaitLong(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := f.signedIn(t)
	s.patience = time.Millisecond
	first := mustTokens(t, s)
	f.clock.add(56 * time.Minute)
	release := make(chan struct{})
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release, Times: 1})
	if got := mustTokens(t, s); got != first {
		t.Error("got other tokens, want those at hand")
	}
	close(release)
	s.Wait()
	second := mustTokens(t, s)
	if second == first {
		t.Error("got the tokens at hand, want those of the refresh")
	}

	// Who wants newer ones waits, and so does who has none that hold.
	for _, get := range []func(context.Context) (*Tokens, error){
		s.Refresh,
		func(ctx context.Context) (*Tokens, error) {
			f.clock.add(2 * time.Hour)
			return s.Tokens(ctx)
		},
	} {
		release := make(chan struct{})
		f.pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release, Times: 1})
		before, n := mustTokens(t, s), f.pool.Requests(cognitotest.Token)
		result := make(chan *Tokens, 1)
		go func() {
			tokens, err := get(t.Context())
			if err != nil {
				t.Error(err)
			}
			result <- tokens
		}()
		if err := f.pool.WaitRequests(t.Context(), cognitotest.Token, n+1); err != nil {
			t.Fatal(err)
		}
		timer := time.NewTimer(20 * s.patience)
		select {
		case <-result:
			t.Error("it did not wait for the refresh")
		case <-timer.C:
			close(release)
			if got := <-result; got == before {
				t.Error("got the tokens at hand, want those of the refresh")
			}
		}
	}
}

func TestSessionServesWhatHolds(t *testing.T) {
	t.Parallel()
	f := start(t)
	var log output
	s := f.signedIn(t, func(c *SessionConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	since := f.requests()
	since()
	first := mustTokens(t, s)
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 503})
	f.clock.add(56 * time.Minute)
	for range 10 {
		if got := mustTokens(t, s); got != first {
			t.Fatal("got other tokens, want those at hand")
		}
	}
	if n := since(); n != 1 {
		t.Errorf("the token endpoint got %d requests, want 1 in %v", n, refreshPause)
	}
	f.clock.add(refreshPause - time.Second)
	mustTokens(t, s)
	if n := since(); n != 0 {
		t.Errorf("the token endpoint got %d requests within the pause, want none", n)
	}
	f.clock.add(time.Second)
	mustTokens(t, s)
	if n := since(); n != 1 {
		t.Errorf("the token endpoint got %d requests after the pause, want 1", n)
	}
	// With five seconds left a token is of no use any more.
	f.clock.add(4*time.Minute - refreshPause - 2*usable)
	mustTokens(t, s)
	f.clock.add(usable)
	if tokens, err := s.Tokens(t.Context()); err == nil {
		t.Errorf("got %v, want an error", tokens)
	} else if !cognito.IsTemporary(err) || errors.Is(err, ErrLoginRequired) {
		t.Errorf("got %v, want a temporary error", err)
	}
	since()
	for range 10 {
		_, _ = s.Tokens(t.Context())
	}
	if n := since(); n != 0 {
		t.Errorf("the token endpoint got %d requests, want none for %v", n, failurePause)
	}
	f.pool.Heal(cognitotest.Token)
	f.clock.add(failurePause)
	if got := mustTokens(t, s); got == first {
		t.Error("got the old tokens, want new ones")
	}
	// The fourth failure was told to those who waited.
	if got := log.String(); strings.Count(got, `level=WARN msg="token refresh failed" error="login: refresh the tokens: cognito: token request failed: status 503`) != 3 {
		t.Errorf("the log is\n%s\nwant a line for each of 3 failures", got)
	}
}

// A server that says when to come back is believed.
func TestSessionKeepsToRetryAfter(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := f.signedIn(t)
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 429, Header: http.Header{"Retry-After": {"30"}}})
	f.clock.add(2 * time.Hour)
	since := f.requests()
	since()
	for pause, want := range []int{1, 0, 1} {
		if _, err := s.Tokens(t.Context()); !cognito.IsTemporary(err) {
			t.Errorf("got %v, want a temporary error", err)
		}
		if n := since(); n != want {
			t.Errorf("after %d pauses of 15s the token endpoint got %d requests, want %d", pause, n, want)
		}
		f.clock.add(15 * time.Second)
	}
}

// A sign-in that has ended is not hidden by what is left of its tokens.
func TestSessionThatHasEnded(t *testing.T) {
	t.Parallel()
	f := start(t)
	var log output
	s := f.signedIn(t, func(c *SessionConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	if _, err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.pool.RevokeSignIns()
	mustTokens(t, s) // nobody knows yet
	f.clock.add(56 * time.Minute)
	tokens, err := s.Tokens(t.Context())
	var request *cognito.TokenRequestError
	if tokens != nil || !errors.Is(err, ErrLoginRequired) || !errors.As(err, &request) || request.ErrorCode != cognito.InvalidGrant {
		t.Fatalf("got %v and %v, want ErrLoginRequired and the endpoint's error", tokens, err)
	}
	if want := "login: a new login is needed: the refresh token is expired or revoked: cognito: token request failed: status 400"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %s, want %s", err, want)
	}
	if _, err := s.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTokens(t, s)
	if log.String() != "" {
		t.Errorf("the log is %s, want nothing: the error says it", &log)
	}
}

func TestSessionOfNobody(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := newSession(t, f.authenticator(t))
	for _, get := range []func() error{
		func() error { _, err := s.Tokens(t.Context()); return err },
		func() error { _, err := s.Refresh(t.Context()); return err },
		func() error { _, err := s.IDToken(t.Context()); return err },
		func() error { _, err := s.AccessToken(t.Context()); return err },
	} {
		if err := get(); !errors.Is(err, ErrLoginRequired) || err.Error() != "login: a new login is needed: nobody is signed in" {
			t.Errorf("got %v, want ErrLoginRequired", err)
		}
	}
	if err := s.Logout(t.Context()); err != nil {
		t.Errorf("Logout: %v", err)
	}
}

func TestSessionRefresh(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	store := &memoryStore{lock: make(chan struct{}, 1)}
	inStore := func(c *SessionConfig) { c.Store = store }
	s := f.signedIn(t, inStore)
	other := newSession(t, f.authenticator(t), inStore) // as in another process
	mustTokens(t, other)
	since := f.requests()
	since()
	first := mustTokens(t, s)
	second, err := s.Refresh(t.Context())
	if err != nil || second.AccessToken == first.AccessToken || since() != 1 {
		t.Errorf("got the same tokens or %v, want new ones", err)
	}
	// What the first has refreshed is new to the other.
	third, err := other.Refresh(t.Context())
	if err != nil || third.AccessToken != second.AccessToken || since() != 0 {
		t.Errorf("got other tokens or %v, want those that the first session has got", err)
	}
	if _, err := newSession(t, f.authenticator(t), inStore).Refresh(t.Context()); err != nil || since() != 1 {
		t.Errorf("a session that has loaded nothing yet: %v, want a refresh", err)
	}
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 503})
	if _, err := s.Refresh(t.Context()); err != nil || since() != 0 {
		t.Errorf("got %v, want the tokens that another has got", err)
	}
	if tokens, err := s.Refresh(t.Context()); err == nil || since() != 1 {
		t.Errorf("got %v, want an error: those at hand are not what was asked for", tokens)
	}
}

func TestSessionLogout(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := f.signedIn(t)
	tokens := mustTokens(t, s)
	if err := s.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tokens(t.Context()); !errors.Is(err, ErrLoginRequired) {
		t.Errorf("got %v, want ErrLoginRequired", err)
	}
	if _, err := f.authenticator(t).Refresh(t.Context(), tokens); !errors.Is(err, ErrLoginRequired) {
		t.Errorf("the refresh token gives %v, want it revoked", err)
	}
	if n := f.pool.Requests(cognitotest.Revoke); n != 1 {
		t.Errorf("the revocation endpoint got %d requests, want 1", n)
	}
}

// Whoever logs out wants the tokens gone from this machine, whatever the server says.
func TestSessionLogoutWithoutTheServer(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := f.signedIn(t)
	f.pool.Fail(cognitotest.Revoke, cognitotest.Fault{Status: 503})
	if err := s.Logout(t.Context()); !cognito.IsTemporary(err) {
		t.Errorf("got %v, want the endpoint's error", err)
	}
	if _, err := s.Tokens(t.Context()); !errors.Is(err, ErrLoginRequired) {
		t.Errorf("got %v, want ErrLoginRequired", err)
	}
}

// A logout in one process is seen by the others when they look.
func TestSessionLogoutElsewhere(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := newMemoryStore()
	inStore := func(c *SessionConfig) { c.Store = store }
	s := f.signedIn(t, inStore)
	if err := newSession(t, f.authenticator(t), inStore).Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.clock.add(56 * time.Minute)
	if _, err := s.Tokens(t.Context()); !errors.Is(err, ErrLoginRequired) || !strings.Contains(err.Error(), "nobody is signed in") {
		t.Errorf("got %v, want ErrLoginRequired", err)
	}
}

func TestSessionDoesNotTakeOthersTokens(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := newMemoryStore()
	f.signedIn(t, func(c *SessionConfig) { c.Store = store })
	for name, edit := range map[string]func(*Config){
		"client": func(c *Config) { c.ClientID = "other" },
		"issuer": func(c *Config) {
			c.Issuers, c.JWKSURL = []string{"https://issuer.example"}, f.pool.JWKSURL()
		},
	} {
		s := newSession(t, f.authenticator(t, edit), func(c *SessionConfig) { c.Store = store })
		if tokens, err := s.Tokens(t.Context()); tokens != nil || !errors.Is(err, ErrLoginRequired) || !strings.Contains(err.Error(), "the stored tokens are those of client") {
			t.Errorf("another %s: got %v and %v, want ErrLoginRequired", name, tokens, err)
		}
		// Nobody is told that they are logged out while tokens are left, nor that their refresh token is revoked.
		before, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = s.Logout(t.Context())
		if err == nil || errors.Is(err, ErrLoginRequired) || !strings.HasPrefix(err.Error(), "login: the refresh token is not revoked: the stored tokens are those of client") {
			t.Errorf("another %s: Logout returns %v, want an error", name, err)
		}
		if _, err := store.Load(t.Context()); !errors.Is(err, ErrNoTokens) {
			t.Errorf("another %s: after Logout, the store has tokens, or %v", name, err)
		}
		_ = store.Save(t.Context(), before)
	}
	if n := f.pool.Requests(cognitotest.Revoke); n != 0 {
		t.Errorf("the revocation endpoint got %d requests, want none for tokens of others", n)
	}
}

// The clock of a machine that was asleep jumps; one that is set back says nothing about how long tokens hold.
func TestSessionAndTheClock(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := f.signedIn(t)
	since := f.requests()
	since()
	first := mustTokens(t, s)
	f.clock.add(-clockBack / 2)
	if got := mustTokens(t, s); got != first || since() != 0 {
		t.Error("a clock that is set back by little caused a refresh")
	}
	f.clock.add(-24 * time.Hour)
	second := mustTokens(t, s)
	if second == first || since() != 1 {
		t.Error("a clock that is set back by a day caused no refresh")
	}
	if got := mustTokens(t, s); got != second || since() != 0 {
		t.Error("the refreshed tokens were refreshed once more")
	}
	// A failure of later does not keep anybody waiting.
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 503, Times: 1})
	f.clock.add(2 * time.Hour)
	if _, err := s.Tokens(t.Context()); err == nil {
		t.Error("got tokens, want an error")
	}
	f.clock.add(-24 * time.Hour)
	if got := mustTokens(t, s); got == second {
		t.Error("a failure that is in the future keeps others from trying")
	}
}

// Tokens that cannot be saved are used as long as the program runs, and the store's old refresh token is not.
func TestSessionThatCannotSave(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	store := &brokenStore{memoryStore: newMemoryStore()}
	var log output
	s := f.signedIn(t, func(c *SessionConfig) {
		c.Store, c.Logger = store, slog.New(slog.NewTextHandler(&log, nil))
	})
	store.saves(io.ErrShortWrite)
	for range 3 {
		before := mustTokens(t, s)
		f.clock.add(56 * time.Minute)
		if got := mustTokens(t, s); got == before {
			t.Error("got the old tokens, want new ones")
		}
	}
	if !strings.Contains(log.String(), `level=ERROR msg="tokens cannot be saved, and are lost when the program ends" error="short write"`) {
		t.Errorf("the log is\n%s", log.String())
	}
	store.saves(nil)
	f.clock.add(56 * time.Minute)
	got := mustTokens(t, s)
	if stored, err := store.Load(t.Context()); err != nil || stored != got {
		t.Errorf("the store has %v, %v, want the tokens at hand", stored, err)
	}
	store.saves(io.ErrShortWrite)
	f.clock.add(56 * time.Minute)
	mustTokens(t, s)
	// Once those at hand are of no use, another sign-in counts, which the store has.
	f.pool.RevokeSignIns()
	store.saves(nil)
	other := newSession(t, f.authenticator(t), func(c *SessionConfig) { c.Store = store })
	if _, err := other.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-f.visits
	if _, err := s.Refresh(t.Context()); !errors.Is(err, ErrLoginRequired) {
		t.Errorf("got %v, want ErrLoginRequired", err)
	}
	f.clock.add(failurePause)
	if got, err := s.Refresh(t.Context()); err != nil || got.AccessToken != mustTokens(t, other).AccessToken {
		t.Errorf("got %v, %v, want the tokens of the other sign-in", got, err)
	}
	store.saves(io.ErrShortWrite)
	if tokens, err := s.Login(t.Context()); tokens == nil || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Login returns %v and %v, want the tokens and the error", tokens, err)
	}
	<-f.visits
	if _, err := s.Tokens(t.Context()); err != nil {
		t.Errorf("after that login: %v", err)
	}
}

// A store that cannot be read says nothing about the tokens at hand, and nobody refreshes without it.
func TestSessionThatCannotLoad(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := &brokenStore{memoryStore: newMemoryStore()}
	s := f.signedIn(t, func(c *SessionConfig) { c.Store = store })
	since := f.requests()
	since()
	store.loads(io.ErrUnexpectedEOF)
	first := mustTokens(t, s)
	f.clock.add(56 * time.Minute)
	if got := mustTokens(t, s); got != first || since() != 0 {
		t.Error("refreshed without the store")
	}
	store.loads(nil)
	store.locks(io.ErrClosedPipe)
	f.clock.add(refreshPause)
	if got := mustTokens(t, s); got != first || since() != 0 {
		t.Error("refreshed without the lock")
	}
	store.locks(nil)
	store.loads(io.ErrUnexpectedEOF)
	f.clock.add(time.Hour)
	if _, err := s.Tokens(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want the store's error", err)
	}
	if err := s.Logout(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) || store.tokens != nil {
		t.Errorf("Logout returns %v, want the store's error, and the tokens deleted", err)
	}
}

// Nor does it go on if the store goes away on the way: the refresh token there may have been rotated.
func TestSessionThatCannotLoadTwice(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := &brokenStore{memoryStore: newMemoryStore()}
	first := mustTokens(t, f.signedIn(t, func(c *SessionConfig) { c.Store = store }))
	s := newSession(t, f.authenticator(t), func(c *SessionConfig) { c.Store = store })
	f.clock.add(56 * time.Minute)
	since := f.requests()
	since()
	store.loads(nil, io.ErrUnexpectedEOF)
	if got := mustTokens(t, s); got != first || since() != 0 {
		t.Error("refreshed without the store")
	}
}

// What cannot be saved is lost: it shows before a person signs in.
func TestSessionLoginWantsItsStoreFirst(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := &brokenStore{memoryStore: newMemoryStore(), lockErr: io.ErrClosedPipe}
	s := newSession(t, f.authenticator(t), func(c *SessionConfig) { c.Store = store })
	if _, err := s.Login(t.Context()); !errors.Is(err, io.ErrClosedPipe) || f.said.String() != "" {
		t.Errorf("got %v and %q, want the store's error before anything is asked", err, f.said)
	}
	if err := s.Logout(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Logout returns %v, want the store's error", err)
	}
}

// The store may go away while the person signs in.
func TestSessionLoginLosesItsStore(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := &brokenStore{memoryStore: newMemoryStore()}
	visit := f.cfg.OpenBrowser
	f.cfg.OpenBrowser = func(ctx context.Context, address string) error {
		store.locks(io.ErrClosedPipe)
		return visit(ctx, address)
	}
	s := newSession(t, f.authenticator(t), func(c *SessionConfig) { c.Store = store })
	if tokens, err := s.Login(t.Context()); tokens == nil || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v and %v, want the tokens with the error", tokens, err)
	}
	<-f.visits
}

// A login that fails leaves things as they are.
func TestSessionLoginFails(t *testing.T) {
	t.Parallel()
	f := start(t)
	s := f.signedIn(t)
	before := mustTokens(t, s)
	f.pool.Fail(cognitotest.Token, cognitotest.Fault{Status: 503})
	if tokens, err := s.Login(t.Context()); tokens != nil || err == nil {
		t.Errorf("got %v, want an error", tokens)
	}
	<-f.visits
	if got := mustTokens(t, s); got != before {
		t.Error("the tokens before that are gone")
	}
}

// Tokens that a store made up are none.
func TestSessionWithStrangeTokens(t *testing.T) {
	t.Parallel()
	f := start(t)
	store := newMemoryStore()
	if err := store.Save(t.Context(), &Tokens{IDToken: "x"}); err != nil {
		t.Fatal(err)
	}
	s := newSession(t, f.authenticator(t), func(c *SessionConfig) { c.Store = store })
	if tokens, err := s.Tokens(t.Context()); tokens != nil || err == nil || !strings.Contains(err.Error(), "1 parts") {
		t.Errorf("got %v and %v, want an error", tokens, err)
	}
	old := f.login(t, f.authenticator(t))
	if _, err := f.authenticator(t).Refresh(t.Context(), &Tokens{IDToken: "x", RefreshToken: old.RefreshToken}); err == nil || !strings.Contains(err.Error(), "the ID token before it cannot be read") {
		t.Errorf("got %v, want an error", err)
	}
}

func TestSessionConfigErrors(t *testing.T) {
	t.Parallel()
	if _, err := NewSession(SessionConfig{}); err == nil || err.Error() != "login: Authenticator is nil, want one of New" {
		t.Errorf("got %v", err)
	}
	if _, err := NewSession(SessionConfig{Authenticator: &Authenticator{}, EarlyExpiry: -1}); err == nil || !strings.Contains(err.Error(), "EarlyExpiry is -1ns") {
		t.Errorf("got %v", err)
	}
}

// A restart of the program finds the tokens where the last run has left them.
func TestSessionInAFile(t *testing.T) {
	t.Parallel()
	f := start(t, rotating)
	path := filepath.Join(t.TempDir(), "tokens", "jane.json")
	inFile := func(c *SessionConfig) {
		store, err := NewFileStore(path)
		if err != nil {
			t.Fatal(err)
		}
		c.Store = store
	}
	first := mustTokens(t, f.signedIn(t, inFile))
	since := f.requests()
	since()
	again := mustTokens(t, newSession(t, f.authenticator(t), inFile))
	if again.AccessToken != first.AccessToken || again.IDToken != first.IDToken || again.RefreshToken != first.RefreshToken ||
		!again.Expiry().Equal(first.Expiry()) || !again.IDTokenExpiry.Equal(first.IDTokenExpiry) || !again.ObtainedAt.Equal(first.ObtainedAt) || since() != 0 {
		t.Errorf("got %v, want %v", again, first)
	}
	f.clock.add(2 * time.Hour)
	refreshed := mustTokens(t, newSession(t, f.authenticator(t), inFile))
	if got := mustTokens(t, newSession(t, f.authenticator(t), inFile)); got.AccessToken != refreshed.AccessToken || since() != 1 {
		t.Error("the refreshed tokens were not saved")
	}
}

// A brokenStore fails where it is told to.
type brokenStore struct {
	*memoryStore
	mutex            sync.Mutex
	loadErrs         []error // of the calls that follow, the last one for all of them
	saveErr, lockErr error
	loaded, locked   int
}

func (s *brokenStore) loads(errs ...error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.loadErrs = errs
}

// counts returns how often the store was loaded and locked.
func (s *brokenStore) counts() (loaded, locked int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.loaded, s.locked
}
func (s *brokenStore) saves(err error) { s.mutex.Lock(); defer s.mutex.Unlock(); s.saveErr = err }

func (s *brokenStore) locks(err error) { s.mutex.Lock(); defer s.mutex.Unlock(); s.lockErr = err }

func (s *brokenStore) Load(ctx context.Context) (*Tokens, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.loaded++
	if len(s.loadErrs) > 0 {
		err := s.loadErrs[0]
		if len(s.loadErrs) > 1 {
			s.loadErrs = s.loadErrs[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	return s.memoryStore.Load(ctx)
}

func (s *brokenStore) Save(ctx context.Context, t *Tokens) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.saveErr != nil {
		return s.saveErr
	}
	return s.memoryStore.Save(ctx, t)
}

func (s *brokenStore) Lock(ctx context.Context) (func(), error) {
	s.mutex.Lock()
	err := s.lockErr
	s.locked++
	s.mutex.Unlock()
	if err != nil {
		return nil, err
	}
	return s.memoryStore.Lock(ctx)
}

// switchedKeys are keys that can be away.
type switchedKeys struct {
	validator.KeySet
	gone atomic.Bool
}

func (k *switchedKeys) fail(gone bool) { k.gone.Store(gone) }

func (k *switchedKeys) PublicKey(ctx context.Context, kid string, asOf time.Time) (*rsa.PublicKey, error) {
	if k.gone.Load() {
		return nil, &validator.KeysUnavailableError{RetryAfter: time.Second}
	}
	return k.KeySet.PublicKey(ctx, kid, asOf)
}
