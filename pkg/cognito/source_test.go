package cognito

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func TestThousandGoroutinesMakeOneRequest(t *testing.T) {
	pool := startPool(t)
	s := newSource(t, pool.TokenURL())
	release := make(chan struct{})
	pool.Fail(cognitotest.Token, cognitotest.Fault{Until: release})
	var all sync.WaitGroup
	tokens := make([]*Token, 1000)
	for i := range tokens {
		all.Go(func() {
			var err error
			if tokens[i], err = s.Token(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	if err := pool.WaitRequests(t.Context(), cognitotest.Token, 1); err != nil {
		t.Fatal(err)
	}
	close(release)
	all.Wait()
	for _, token := range tokens {
		if token != tokens[0] {
			t.Fatal("callers have different tokens, want one")
		}
	}
	if n := pool.Requests(cognitotest.Token); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// A day of a caller that asks every five seconds: what it costs, by the defaults.
func TestRequestsOfADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: grant}
		s := newSource(t, originURL, o.use)
		for range 24 * 60 * 12 {
			if _, err := s.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
		}
		if n := o.count(); n < 26 || n > 28 {
			t.Errorf("%d requests in a day, with tokens of an hour, want 26 to 28", n)
		}
	})
}

// An outage that is shorter than the life of the token at hand is not seen by callers, whatever it looks like.
func TestOutageIsNotSeen(t *testing.T) {
	for name, outage := range map[string]func(int, *http.Request) (*http.Response, error){
		"no network":     unreachable,
		"500":            fail(500),
		"429":            fail(429, "Retry-After", "30"),
		"garbage":        garbage,
		"hangs":          hang,
		"invalid_client": refuse(InvalidClient),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{answer: grant}
				s := newSource(t, originURL, o.use)
				begin := time.Now()
				wantToken(t, s, "token-1")
				o.set(outage)
				for time.Since(begin) < 59*time.Minute+45*time.Second {
					if _, err := s.Token(t.Context()); err != nil {
						t.Fatalf("after %v: %v", time.Since(begin), err)
					}
					time.Sleep(time.Second)
				}
				failed := o.count() - 1
				o.set(grant)
				time.Sleep(time.Minute) // of rest, at most
				token, err := s.Token(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if token.AccessToken() == "token-1" {
					t.Error("the expired token is still served")
				}
				// It failed for 5 to 7.5 minutes: at most 4 requests at once, and then a rest that grows to a minute.
				if failed < 4 || failed > 48 {
					t.Errorf("%d requests while it failed, want some and not many", failed)
				}
				t.Logf("%d requests while it failed", failed)
			})
		})
	}
}

func TestFailuresAreRemembered(t *testing.T) {
	for name, tc := range map[string]struct {
		answer        func(int, *http.Request) (*http.Response, error)
		least, most   time.Duration // of the rest after the first
		inTenMinutes  int           // requests of callers in a loop, at most
		second, third time.Duration // the most after the second and third
	}{
		"invalid_client":   {refuse(InvalidClient), 7500 * time.Millisecond, 10 * time.Second, 16, 20 * time.Second, 40 * time.Second},
		"garbage":          {garbage, 7500 * time.Millisecond, 10 * time.Second, 16, 20 * time.Second, 40 * time.Second},
		"500":              {fail(500), 750 * time.Millisecond, time.Second, 340, 2 * time.Second, 4 * time.Second},
		"429, Retry-After": {fail(429, "Retry-After", "45"), 45 * time.Second, 45 * time.Second, 14, 45 * time.Second, 45 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{answer: tc.answer}
				s := newSource(t, originURL, o.use)
				_, err := s.Token(t.Context())
				first := wantFailure(t, err)
				n, ended := o.count(), time.Now()
				for o.count() == n {
					_, err := s.Token(t.Context())
					if o.count() == n && wantFailure(t, err) != first {
						t.Fatalf("got %v, want the error at hand", err)
					}
					time.Sleep(20 * time.Millisecond)
				}
				if rest := o.requests[n].at.Sub(ended); rest < tc.least || rest > tc.most+40*time.Millisecond {
					t.Errorf("it rested for %v, want %v to %v", rest, tc.least, tc.most)
				}
				for time.Since(ended) < 10*time.Minute {
					_, _ = s.Token(t.Context())
					time.Sleep(100 * time.Millisecond)
				}
				if n := o.count(); n > tc.inTenMinutes {
					t.Errorf("%d requests in ten minutes, want at most %d", n, tc.inTenMinutes)
				}
				o.set(grant)
				time.Sleep(time.Minute)
				if _, err := s.Token(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestRememberedErrorSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: refuse(InvalidClient)}
		s := newSource(t, originURL, o.use)
		_, first := s.Token(t.Context())
		_, second := s.Token(t.Context())
		const want = `cognito: token request failed: status 400: error is "invalid_client"`
		if first.Error() != want || !strings.HasPrefix(second.Error(), want+" (remembered; asking again in ") {
			t.Errorf("got %v, then %v", first, second)
		}
		var retrieve *oauth2.RetrieveError
		if !errors.As(second, &retrieve) || retrieve.ErrorCode != InvalidClient {
			t.Errorf("%v is no *oauth2.RetrieveError with its code", second)
		}
	})
}

func TestWaitingCallerLearnsWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: fail(503)}
		s := newSource(t, originURL, o.use)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Token(ctx)
		if failure := wantFailure(t, err); failure.StatusCode != 503 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the context and the 503", err)
		}
		if want := "cognito: waiting for a token: context deadline exceeded; so far token request failed: status 503: want status 200 or an error code"; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if !IsTemporary(err) {
			t.Error("it is not temporary, want it so")
		}
		time.Sleep(time.Minute) // so that the request has ended before the bubble does
	})
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: hang}
		s := newSource(t, originURL, o.use)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || err.Error() != "cognito: waiting for a token: context deadline exceeded" {
			t.Errorf("got %v, want the end of the context", err)
		}
		time.Sleep(time.Minute)
	})
}

// A fetch that is cut short by its own bound does not look like the end of a caller's context.
func TestFetchOutOfTime(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(int, *http.Request) (*http.Response, error)
		edit   func(*Config)
		want   []string // any of them: two bounds end at the same time
	}{
		"hangs": {
			hang, func(c *Config) { c.Timeout = time.Hour },
			[]string{"cognito: token request failed: no token within 30s", "cognito: token request failed: no answer within 30s"},
		},
		"hangs after a failure": {
			each(fail(503), hang), func(c *Config) { c.Timeout = time.Hour },
			[]string{"cognito: token request failed: status 503", "cognito: token request failed: no answer within 29"},
		},
		"a secret that hangs": {grant, func(c *Config) {
			c.Secret = func(ctx context.Context) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }
		}, []string{"cognito: token request failed: no token within 30s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{answer: tc.answer}
				s := newSource(t, originURL, o.use, tc.edit)
				begin := time.Now()
				_, err := s.Token(t.Context())
				if took := time.Since(begin); took != 30*time.Second {
					t.Errorf("it took %v, want 30s", took)
				}
				said := func(want string) bool { return strings.HasPrefix(err.Error(), want) }
				if failure := wantFailure(t, err); !slices.ContainsFunc(tc.want, said) || isContextError(err) || !failure.Temporary() {
					t.Errorf("got %v, want one of %q, temporary, and no end of a context", err, tc.want)
				}
			})
		})
	}
}

func TestRenewBuysANewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: slowly(time.Second, grant)}
		s := newSource(t, originURL, o.use)
		wantToken(t, s, "token-1")
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if token, err := s.Renew(t.Context()); err != nil || token.AccessToken() != "token-2" {
					t.Errorf("got %v, %v, want token-2", token, err)
				}
			})
		}
		all.Wait()
		wantToken(t, s, "token-2")
		o.set(refuse(InvalidClient))
		if _, err := s.Renew(t.Context()); err == nil {
			t.Error("got a token, want an error")
		}
		wantToken(t, s, "token-2")
	})
}

func TestCancelledCaller(t *testing.T) {
	s := newSource(t, originURL)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Token(ctx); !errors.Is(err, context.Canceled) || err.Error() != "cognito: waiting for a token: context canceled" {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func TestOAuth2Source(t *testing.T) {
	o := &origin{answer: grant}
	s := newSource(t, originURL, o.use)
	token, err := s.OAuth2(t.Context()).Token()
	if err != nil || token.AccessToken != "token-1" || !token.Valid() {
		t.Errorf("got %v, %v, want token-1, valid", token, err)
	}
	o.set(refuse(InvalidClient))
	failing := newSource(t, originURL, o.use)
	var retrieve *oauth2.RetrieveError
	if _, err := failing.OAuth2(t.Context()).Token(); !errors.As(err, &retrieve) {
		t.Errorf("got %v, want an *oauth2.RetrieveError", err)
	}
}

func TestSharedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: grant}
		cache := new(sharedCache)
		share := func(c *Config) { c.Cache = cache }
		a, b := newSource(t, originURL, o.use, share), newSource(t, originURL, o.use, share)
		wantToken(t, a, "token-1")
		wantToken(t, b, "token-1")
		other := newSource(t, originURL, o.use, share, func(c *Config) { c.Scopes = []string{"orders/write"} })
		wantToken(t, other, "token-2")

		// Both replace it in the background, and the second finds what the first has bought.
		time.Sleep(56 * time.Minute)
		for _, s := range []*TokenSource{a, b} {
			wantToken(t, s, "token-1")
			synctest.Wait()
			wantToken(t, s, "token-3")
		}

		// So it is with a token that both renew because it is refused, but not if they say so one after the other.
		time.Sleep(time.Minute)
		from := time.Now()
		for _, s := range []*TokenSource{a, b} {
			if token, err := s.renew(t.Context(), from); err != nil || token.AccessToken() != "token-4" {
				t.Errorf("got %v, %v, want token-4", token, err)
			}
		}
		time.Sleep(time.Second)
		if token, err := a.Renew(t.Context()); err != nil || token.AccessToken() != "token-5" {
			t.Errorf("got %v, %v, want token-5", token, err)
		}
		if o.count() != 5 {
			t.Errorf("%d requests, want 5", o.count())
		}
	})
}

func TestWhatIsNotBelievedOfASharedCache(t *testing.T) {
	at := func(obtained, expiry time.Duration) func(*Token, time.Time) {
		return func(token *Token, now time.Time) { token.ObtainedAt, token.Expiry = now.Add(obtained), now.Add(expiry) }
	}
	holding := func(access string) func(*Token, time.Time) {
		return func(token *Token, _ time.Time) { token.hidden().access = access }
	}
	for name, tc := range map[string]struct {
		edit func(*Token, time.Time)
		want string
	}{
		"as it is":                         {func(*Token, time.Time) {}, "stored"},
		"at its start":                     {at(0, time.Hour), "stored"},
		"expired":                          {at(-time.Hour, 0), "token-1"},
		"about to expire":                  {at(-time.Hour, 9*time.Second), "token-1"},
		"to be replaced":                   {at(-56*time.Minute, 4*time.Minute), "token-1"},
		"from before the clock was set":    {at(time.Minute, time.Hour), "token-1"},
		"with a life of years":             {at(0, 9000*time.Hour), "token-1"},
		"without a token":                  {holding(""), "token-1"},
		"with what cannot be sent":         {holding("a\r\nX-Admin: 1"), "token-1"},
		"with more than a header can hold": {holding(strings.Repeat("a", 16<<10+1)), "token-1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{answer: grant}
				cache := new(sharedCache)
				s := newSource(t, originURL, o.use, func(c *Config) { c.Cache = cache })
				now := time.Now()
				stored := NewToken("stored", now.Add(-time.Minute), now.Add(59*time.Minute))
				tc.edit(stored, now)
				cache.tokens = map[string]*Token{s.key: stored}
				wantToken(t, s, tc.want)
			})
		})
	}
}

// A stored token that is to be replaced serves while it cannot be.
func TestStoredTokenServesWhileRequestsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: fail(500)}
		cache := new(sharedCache)
		s := newSource(t, originURL, o.use, func(c *Config) { c.Cache = cache })
		now := time.Now()
		cache.tokens = map[string]*Token{s.key: NewToken("stored", now.Add(-57*time.Minute), now.Add(3*time.Minute))}
		for time.Since(now) < 2*time.Minute {
			wantToken(t, s, "stored")
			time.Sleep(time.Second)
		}
		if n := o.count(); n < 4 || n > 20 {
			t.Errorf("%d requests in two minutes of failure, want some and not many", n)
		}
		o.set(grant)
		time.Sleep(2 * time.Minute)
		if token, err := s.Token(t.Context()); err != nil || token.AccessToken() == "stored" {
			t.Errorf("got %v, %v, want a new token", token, err)
		}
	})
}

func TestStoredTokenThatHasExpiredDoesNotServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: refuse(InvalidClient)}
		cache := new(sharedCache)
		s := newSource(t, originURL, o.use, func(c *Config) { c.Cache = cache })
		now := time.Now()
		cache.tokens = map[string]*Token{s.key: NewToken("stored", now.Add(-time.Hour), now.Add(9*time.Second))}
		if token, err := s.Token(t.Context()); err == nil {
			t.Errorf("got %v, want an error: it has 9 seconds left", token)
		}
	})
}

// That a stored token serves does not make the failure a success: the next request waits.
func TestFailureBehindAStoredTokenCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: refuse(InvalidClient)}
		cache := new(sharedCache)
		s := newSource(t, originURL, o.use, func(c *Config) { c.Cache = cache })
		now := time.Now()
		cache.tokens = map[string]*Token{s.key: NewToken("stored", now.Add(-57*time.Minute), now.Add(3*time.Minute))}
		for range 7 {
			wantToken(t, s, "stored")
			time.Sleep(time.Second)
		}
		if o.count() != 1 {
			t.Errorf("%d requests in 7 seconds, want 1", o.count())
		}
	})
}

type brokenCache func() (*Token, error)

func (c brokenCache) Token(context.Context, string, func(*Token) bool, func(context.Context) (*Token, error)) (*Token, error) {
	return c()
}

func TestCacheThatFails(t *testing.T) {
	errCache := errors.New("the cache is closed")
	for name, tc := range map[string]struct {
		cache brokenCache
		want  string
	}{
		"an error": {func() (*Token, error) { return nil, errCache }, "the cache is closed"},
		"nothing":  {func() (*Token, error) { return nil, nil }, "cognito: the cache returned neither token nor error"},
		"a panic":  {func() (*Token, error) { panic("canary") }, "panic with a string"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSource(t, originURL, func(c *Config) { c.Cache = tc.cache })
			if _, err := s.Token(t.Context()); err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestCacheKey(t *testing.T) {
	key := func(edit ...func(*Config)) string {
		cache := new(sharedCache)
		o := &origin{answer: grant}
		s := newSource(t, originURL, append([]func(*Config){o.use, func(c *Config) {
			c.Cache, c.Scopes, c.ClientMetadata = cache, []string{"a", "b"}, map[string]string{"x": "1", "y": "2"}
		}}, edit...)...)
		wantToken(t, s, "token-1")
		return cache.keys[0]
	}
	base := key()
	if len(base) != 64 || strings.Trim(base, "0123456789abcdef") != "" {
		t.Errorf("the key is %q, want 64 hexadecimal digits", base)
	}
	for name, edit := range map[string]func(*Config){
		"scopes in another order":        func(c *Config) { c.Scopes = []string{"b", "a", "b"} },
		"a host in capitals":             func(c *Config) { c.TokenURL = "HTTPS://Auth.Example.COM/oauth2/token" },
		"the scheme's own port":          func(c *Config) { c.TokenURL = "https://auth.example.com:443/oauth2/token" },
		"another secret":                 func(c *Config) { c.Secret = StaticSecret("another_secret__________") },
		"another way to authenticate":    func(c *Config) { c.AuthStyle = AuthPost },
		"other bounds":                   func(c *Config) { c.EarlyExpiry, c.Timeout = time.Minute, time.Second },
		"metadata of another map":        func(c *Config) { c.ClientMetadata = map[string]string{"y": "2", "x": "1"} },
		"another client with what it is": func(c *Config) { c.ClientID = clientID },
	} {
		if key(edit) != base {
			t.Errorf("%s makes another key, want the same", name)
		}
	}
	none := func(c *Config) { c.Scopes, c.ClientMetadata = nil, nil }
	empty := func(c *Config) { c.Scopes, c.ClientMetadata = []string{}, map[string]string{} }
	if key(none) != key(empty) {
		t.Error("nothing and what is empty make two keys, want one")
	}
	seen := map[string]string{base: "the base"}
	for name, edit := range map[string]func(*Config){
		"another scope":             func(c *Config) { c.Scopes = []string{"a", "c"} },
		"a scope less":              func(c *Config) { c.Scopes = []string{"a"} },
		"no scopes":                 func(c *Config) { c.Scopes = nil },
		"scopes joined":             func(c *Config) { c.Scopes = []string{"a,b"} },
		"another client":            func(c *Config) { c.ClientID = "other" },
		"another host":              func(c *Config) { c.TokenURL = "https://auth2.example.com/oauth2/token" },
		"another port":              func(c *Config) { c.TokenURL = "https://auth.example.com:8443/oauth2/token" },
		"another path":              func(c *Config) { c.TokenURL = "https://auth.example.com/other/token" },
		"a path in capitals":        func(c *Config) { c.TokenURL = "https://auth.example.com/OAuth2/token" },
		"no metadata":               func(c *Config) { c.ClientMetadata = nil },
		"other metadata":            func(c *Config) { c.ClientMetadata = map[string]string{"x": "1", "y": "3"} },
		"metadata in one":           func(c *Config) { c.ClientMetadata = map[string]string{"x": `1","y":"2`} },
		"metadata beside no scopes": func(c *Config) { c.ClientMetadata, c.Scopes = nil, []string{"a", "b", "x", "y"} },
	} {
		k := key(edit)
		if seen[k] != "" {
			t.Errorf("%s has the key of %s, want another", name, seen[k])
		}
		seen[k] = name
	}
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		o := &origin{answer: each(refuse(InvalidClient), grant)}
		s := newSource(t, originURL, o.use, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == "next_after" {
					return slog.Attr{}
				}
				return a
			}}))
		})
		_, _ = s.Token(t.Context())
		time.Sleep(time.Minute)
		wantToken(t, s, "token-2")
		time.Sleep(time.Second)
		if _, err := s.Renew(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		const source = " token_host=auth.example.com client_id=" + clientID
		want := `level=WARN msg="getting a token failed"` + source + ` error="cognito: token request failed: status 400: error is \"invalid_client\"" failures=1 token_at_hand=false
level=INFO msg="getting a token works again"` + source + ` failures=1 took=0s
level=DEBUG msg="got a token"` + source + ` took=0s
`
		if diff := cmp.Diff(want, text.String()); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkToken(b *testing.B) {
	o := &origin{answer: grant}
	s := newSource(b, originURL, o.use)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Token(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTokenParallel(b *testing.B) {
	o := &origin{answer: grant}
	s := newSource(b, originURL, o.use)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		for pb.Next() {
			if _, err := s.Token(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}
