package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cognitoidentity/types"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
)

// One call of each kind, however many ask for cold credentials at once.
func TestThousandCallersCostOneCallOfEachKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tokens atomic.Int32
		p, s := newProvider(t, func(c *Config) {
			c.IDToken = func(context.Context) (string, error) {
				tokens.Add(1)
				time.Sleep(time.Second)
				return token(), nil
			}
		})
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				if c, err := p.Retrieve(t.Context()); err != nil || c.AccessKeyID != "ASIA1" {
					t.Errorf("got %q, %v, want the first credentials", c.AccessKeyID, err)
				}
			})
		}
		wg.Wait()
		if got := s.count(); got != [2]int{1, 1} || tokens.Load() != 1 {
			t.Errorf("GetId and GetCredentialsForIdentity were called %v times, IDToken %d times, want 1 each", got, tokens.Load())
		}
	})
}

func TestRefreshIsEarly(t *testing.T) {
	tests := []struct {
		name  string
		life  time.Duration
		early time.Duration
		fresh time.Duration // how long they are kept
	}{
		{"five minutes by default", time.Hour, 0, 55 * time.Minute},
		{"as configured", time.Hour, 20 * time.Minute, 40 * time.Minute},
		{"at the last moment", time.Hour, -1, time.Hour - 5*time.Second},
		{"credentials that live as short as moto's", 90 * time.Second, 0, 45 * time.Second},
		{"credentials that live twice as long as they are replaced early", 10 * time.Minute, 0, 5 * time.Minute},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := newProvider(t, func(c *Config) { c.EarlyExpiry = tc.early })
				s.life = tc.life
				for i := range 3 {
					key(t, p)
					time.Sleep(tc.fresh - 2*time.Millisecond) // JSON has milliseconds
					for range 10 {
						key(t, p)
					}
					if got := s.count(); got != [2]int{1, 1 + i} {
						t.Fatalf("before the time: called %v times, want 1 and %d", got, 1+i)
					}
					time.Sleep(2 * time.Millisecond)
				}
			})
		})
	}
}

// Once the clock is set back, nothing is known about how long credentials hold.
func TestClockThatIsSetBack(t *testing.T) {
	start := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for back, want := range map[time.Duration]string{30 * time.Second: "ASIA1", 90 * time.Second: "ASIA2"} {
		for _, folder := range []string{"", t.TempDir()} {
			now := start
			clock := func() time.Time { return now }
			s := newService()
			s.now = clock
			edit := func(c *Config) { c.Now, c.CacheDir = clock, folder }
			p := shares(t, s, folder, edit)
			key(t, p)
			now = start.Add(-back)
			if got := key(t, p); got != want {
				t.Errorf("set back by %v: got %s, want %s", back, got, want)
			}
			if folder == "" {
				continue
			}
			if got := key(t, shares(t, s, folder, edit)); got != want {
				t.Errorf("set back by %v, another process: got %s, want %s", back, got, want)
			}
		}
	}
}

// The SDK's cache keeps credentials to their last second by Expires. With ours they are replaced early all the same, and
// those with a short life are not fetched for every request.
func TestSDKsCache(t *testing.T) {
	caches := map[string]func(*testing.T, *Provider) aws.CredentialsProvider{
		"aws.CredentialsCache": func(_ *testing.T, p *Provider) aws.CredentialsProvider { return aws.NewCredentialsCache(p) },
		"aws.CredentialsCache with a window of its own": func(_ *testing.T, p *Provider) aws.CredentialsProvider {
			return aws.NewCredentialsCache(p, func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = 5 * time.Minute })
		},
		"config.LoadDefaultConfig": func(t *testing.T, p *Provider) aws.CredentialsProvider {
			cfg, err := config.LoadDefaultConfig(t.Context(), config.WithCredentialsProvider(p), config.WithSharedConfigFiles([]string{}))
			if err != nil {
				t.Fatal(err)
			}
			return cfg.Credentials
		},
	}
	for name, wrap := range caches {
		for _, life := range []time.Duration{time.Hour, 90 * time.Second} {
			t.Run(name+" "+life.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, s := newProvider(t)
					s.life = life
					provider := wrap(t, p)
					for range 10 {
						c, err := provider.Retrieve(t.Context())
						if err != nil || c.AccessKeyID != "ASIA1" {
							t.Fatalf("got %q, %v, want the first credentials", c.AccessKeyID, err)
						}
					}
					if got := s.count(); got != [2]int{1, 1} {
						t.Errorf("called %v times, want once each", got)
					}
					time.Sleep(life - min(5*time.Minute, life/2))
					if c, err := provider.Retrieve(t.Context()); err != nil || c.AccessKeyID != "ASIA2" {
						t.Errorf("early before their end: got %q, %v, want the next credentials", c.AccessKeyID, err)
					}
				})
			})
		}
	}
}

// An outage shorter than what is left is not seen by callers, and the service is not hammered meanwhile.
func TestOutage(t *testing.T) {
	down := map[string]func(*service){
		"throttled": func(s *service) {
			s.always("GetCredentialsForIdentity", failure(400, "TooManyRequestsException", "Rate exceeded"))
		},
		"failing": func(s *service) { s.always("GetCredentialsForIdentity", failure(500, "InternalErrorException", "")) },
		"hanging": func(s *service) { s.always("GetCredentialsForIdentity", answer{status: 200, delay: 24 * time.Hour}) },
		"a proxy": func(s *service) {
			s.always("GetCredentialsForIdentity", answer{status: 200, body: "<html>sign in</html>"})
		},
		"empty": func(s *service) { s.always("GetCredentialsForIdentity", answer{status: 200, body: "{}"}) },
		"expired": func(s *service) {
			s.always("GetCredentialsForIdentity", answer{status: 200, body: credentials(9, jane, time.Now().Add(-time.Second))})
		},
		"redirect": func(s *service) {
			s.always("GetCredentialsForIdentity", answer{status: 307, header: map[string][]string{"Location": {"https://example.com"}}})
		},
	}
	for name, breakIt := range down {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log logged
				p, s := newProvider(t, func(c *Config) { c.Logger = log.logger() })
				end := time.Now().Add(time.Hour)
				key(t, p)
				time.Sleep(55 * time.Minute)
				breakIt(s)
				for time.Until(end) > 10*time.Second {
					begin := time.Now()
					c, err := p.Retrieve(t.Context())
					if err != nil || c.AccessKeyID != "ASIA1" {
						t.Fatalf("%v before the end: got %q, %v, want those at hand", time.Until(end), c.AccessKeyID, err)
					}
					if took := time.Since(begin); took > 6*time.Second {
						t.Fatalf("a caller waited %v for what was at hand, want 5s at most", took)
					}
					if c.Expires.After(end) || c.Expires.Before(time.Now()) {
						t.Fatalf("Expires is %v from now, want it between now and the end", time.Until(c.Expires))
					}
					time.Sleep(time.Second)
				}
				if got := s.count()[1]; got > 1+3*11 {
					t.Errorf("GetCredentialsForIdentity was called %d times, want at most 3 attempts each half minute", got)
				}
				if !strings.Contains(log.String(), "aws credentials not refreshed") {
					t.Errorf("log is %q, want it to say that they were not refreshed", log.String())
				}
				time.Sleep(10 * time.Second)
				if c, err := p.Retrieve(t.Context()); err == nil {
					t.Errorf("after their end: got %q, want an error", c.AccessKeyID)
				}
				s.well()
				if got := key(t, p); got == "ASIA1" {
					t.Error("after the outage: got the first credentials, want new ones")
				}
			})
		})
	}
}

// After a failure the next attempt is half a minute later, and those who ask are told so.
func TestPauseAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t)
		key(t, p)
		time.Sleep(56 * time.Minute)
		s.always("GetCredentialsForIdentity", answer{status: 200, body: "{}"})
		for i := range 3 {
			c, err := p.Retrieve(t.Context())
			if err != nil || time.Until(c.Expires) != 30*time.Second {
				t.Errorf("got %v, Expires in %v, want it in 30s", err, time.Until(c.Expires))
			}
			time.Sleep(30*time.Second - time.Nanosecond)
			key(t, p)
			if got := s.count()[1]; got != 2+i {
				t.Errorf("within the pause: called %d times, want %d", got, 2+i)
			}
			time.Sleep(time.Nanosecond)
		}
	})
}

// An error that is returned is not logged as well.
func TestReturnedErrorsAreNotLogged(t *testing.T) {
	var log logged
	p, s := newProvider(t, func(c *Config) { c.Logger = log.logger() })
	s.always("GetId", failure(400, "NotAuthorizedException", "no"))
	if _, err := p.Credentials(t.Context()); err == nil || log.String() != "" {
		t.Errorf("got %v and a log of %q, want an error and none", err, log.String())
	}
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t, func(c *Config) { c.Logger = log.logger() })
		key(t, p)
		time.Sleep(time.Hour)
		s.always("GetCredentialsForIdentity", failure(400, "NotAuthorizedException", "no"))
		if _, err := p.Credentials(t.Context()); err == nil || log.String() != "" {
			t.Errorf("after their end: got %v and a log of %q, want an error and none", err, log.String())
		}
	})
}

func TestPanicOfIDToken(t *testing.T) {
	for want, f := range map[string]func(){
		"identity: panic: runtime error: integer divide by zero": func() { zero := 0; _ = 1 / zero },
		"identity: panic: a value of type string":                func() { panic("CANARY") },
	} {
		p, _ := newProvider(t, func(c *Config) {
			c.IDToken = func(context.Context) (string, error) {
				f()
				return token(), nil
			}
		})
		if _, err := p.Credentials(t.Context()); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A logger that panics ends nothing.
func TestLoggerPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t, func(c *Config) { c.Logger = slog.New(panics{slog.DiscardHandler}) })
		key(t, p)
		time.Sleep(56 * time.Minute)
		s.always("GetCredentialsForIdentity", failure(500, "InternalErrorException", ""))
		if got := key(t, p); got != "ASIA1" {
			t.Errorf("got %s, want what is at hand", got)
		}
	})
}

type panics struct{ slog.Handler }

func (panics) Enabled(context.Context, slog.Level) bool  { return true }
func (panics) Handle(context.Context, slog.Record) error { panic("logger") }

// Whoever comes while one caller waits for the refresh is served what is at hand.
func TestOneCallerWaitsForARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t)
		key(t, p)
		time.Sleep(56 * time.Minute)
		s.next("GetCredentialsForIdentity", answer{status: 200, delay: 3 * time.Second, body: credentials(2, jane, time.Now().Add(time.Hour))})
		var wg sync.WaitGroup
		var waited, old atomic.Int32
		begin := time.Now()
		for range 100 {
			wg.Go(func() {
				c, err := p.Credentials(t.Context())
				if err != nil {
					t.Error(err)
				}
				if time.Since(begin) > 0 {
					waited.Add(1)
				}
				if c.AccessKeyID == "ASIA1" {
					old.Add(1)
				}
				if c, err := p.Retrieve(t.Context()); err != nil || c.Expires.Before(begin) {
					t.Errorf("got %v, Expires %v, want it not to be in the past", err, c.Expires)
				}
			})
		}
		wg.Wait()
		if waited.Load() != 1 || old.Load() != 99 {
			t.Errorf("%d of 100 waited and %d got those at hand, want 1 and 99", waited.Load(), old.Load())
		}
		if got := key(t, p); got != "ASIA2" {
			t.Errorf("afterwards: got %s, want the new ones", got)
		}
	})
}

// What IDToken says passes; what AWS says for good does not, even while there is something at hand.
func TestWhatServesOn(t *testing.T) {
	broken := errors.New("no session")
	tests := []struct {
		name   string
		answer *answer
		token  func() (string, error)
		want   any // for errors.As; nil: what is at hand
	}{
		{"IDToken fails", nil, func() (string, error) { return "", broken }, nil},
		{"IDToken fails for a while", nil, func() (string, error) { return "", temporary(true) }, nil},
		{"IDToken fails for good", nil, func() (string, error) { return "", temporary(false) }, new(temporary)},
		{"nobody is signed in any more", nil, func() (string, error) { return "", fmt.Errorf("%w: nobody is signed in", login.ErrLoginRequired) }, new(interface{ Temporary() bool })},
		{"IDToken has no network", nil, func() (string, error) { return "", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED} }, nil},
		{"IDToken panics", nil, func() (string, error) { panic("CANARY") }, nil},
		{"IDToken ends the goroutine", nil, func() (string, error) { runtime.Goexit(); return "", nil }, new(error)},
		{"the token is none", nil, func() (string, error) { return "CANARY", nil }, new(error)},
		{"no longer authorized", ptr(failure(400, "NotAuthorizedException", "Token is not from a supported provider of this identity pool.")), nil, new(*types.NotAuthorizedException)},
		{"the identity pool is gone", ptr(failure(400, "ResourceNotFoundException", "IdentityPool not found.")), nil, new(*types.ResourceNotFoundException)},
		{"an error that nobody knows", ptr(failure(403, "SomethingException", "")), nil, new(*RequestError)},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				get := func() (string, error) { return token(), nil }
				p, s := newProvider(t, func(c *Config) { c.IDToken = func(context.Context) (string, error) { return get() } })
				key(t, p)
				time.Sleep(56 * time.Minute)
				if tc.token != nil {
					get = tc.token
				}
				if tc.answer != nil {
					s.always("GetCredentialsForIdentity", *tc.answer)
				}
				_, _ = p.Retrieve(t.Context()) // the next one is told the same
				c, err := p.Retrieve(t.Context())
				switch {
				case tc.want == nil && (err != nil || c.AccessKeyID != "ASIA1"):
					t.Errorf("got %q, %v, want those at hand", c.AccessKeyID, err)
				case tc.want != nil && (err == nil || !errors.As(err, tc.want)):
					t.Errorf("got %q, %v, want %T", c.AccessKeyID, err, tc.want)
				case tc.want != nil && c.HasKeys():
					t.Errorf("got credentials with %v", err)
				}
				time.Sleep(5 * time.Minute)
				if c, err := p.Retrieve(t.Context()); err == nil {
					t.Errorf("after their end: got %q, want an error", c.AccessKeyID)
				}
				get = func() (string, error) { return token(), nil }
				s.well()
				key(t, p)
			})
		})
	}
}

// A temporary error says whether it is one.
type temporary bool

func (t temporary) Error() string   { return "no session" }
func (t temporary) Temporary() bool { return bool(t) }

func ptr[T any](v T) *T { return &v }

func TestIDTokensErrorIsReturned(t *testing.T) {
	broken := errors.New("no session: run login")
	p, s := newProvider(t, func(c *Config) {
		c.IDToken = func(context.Context) (string, error) { return "", broken }
	})
	_, err := p.Credentials(t.Context())
	if !errors.Is(err, broken) || err.Error() != "identity: ID token: no session: run login" {
		t.Errorf("got %v, want it to wrap the error of IDToken", err)
	}
	if len(s.requests) != 0 {
		t.Errorf("%d requests were sent, want none without a token", len(s.requests))
	}
}

// A caller's context bounds its own wait. The refresh goes on for others, and for whoever comes next.
func TestCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t)
		s.next("GetId", answer{status: 200, delay: 4 * time.Second, body: `{"IdentityId":"eu-west-1:1"}`})
		var wg sync.WaitGroup
		wg.Go(func() { // the first, which began the refresh
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begin := time.Now()
			if _, err := p.Retrieve(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
				t.Errorf("after %v: got %v, want a deadline after 1s", time.Since(begin), err)
			}
		})
		wg.Go(func() {
			time.Sleep(time.Millisecond)
			if _, err := p.Retrieve(t.Context()); err != nil {
				t.Errorf("with more time: got %v, want credentials", err)
			}
		})
		wg.Wait()
		if got := s.count(); got != [2]int{1, 1} {
			t.Errorf("called %v times, want once each", got)
		}

		time.Sleep(56 * time.Minute)
		s.next("GetCredentialsForIdentity", answer{status: 200, delay: 2 * time.Second, body: credentials(2, jane, time.Now().Add(time.Hour))})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if c, err := p.Retrieve(ctx); err != nil || c.AccessKeyID != "ASIA1" {
			t.Errorf("with something at hand: got %q, %v, want that in place of a deadline", c.AccessKeyID, err)
		}
		time.Sleep(2 * time.Second)
		if got := key(t, p); got != "ASIA2" {
			t.Errorf("afterwards: got %s, want those of the refresh that went on", got)
		}
	})
}

// What a caller's context carries does not decide whose credentials all get.
func TestIDTokenDoesNotSeeACallersContext(t *testing.T) {
	type who struct{}
	p, _ := newProvider(t, func(c *Config) {
		c.IDToken = func(ctx context.Context) (string, error) {
			if sub := ctx.Value(who{}); sub != nil {
				t.Errorf("IDToken sees %v", sub)
			}
			return token(), nil
		}
	})
	if _, err := p.Retrieve(context.WithValue(t.Context(), who{}, "jane")); err != nil {
		t.Error(err)
	}
}

func TestTimeoutBoundsARefresh(t *testing.T) {
	for name, edit := range map[string]func(*Config, *service){
		"of a service that hangs": func(_ *Config, s *service) { s.always("GetId", answer{delay: time.Hour}) },
		"of an IDToken that hangs": func(c *Config, _ *service) {
			c.IDToken = func(ctx context.Context) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newService()
				p, _ := newProvider(t, func(c *Config) {
					c.HTTPClient.Transport = s
					c.Timeout = 7 * time.Second
					edit(c, s)
				})
				begin := time.Now()
				_, err := p.Retrieve(t.Context())
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 7*time.Second {
					t.Errorf("after %v: got %v, want a deadline after 7s", time.Since(begin), err)
				}
			})
		})
	}
}

// GetId is called once for each user, and nobody is served what is another user's.
func TestAnotherUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		who := token()
		p, s := newProvider(t, func(c *Config) {
			c.IDToken = func(context.Context) (string, error) { return who, nil }
		})
		const john = "eu-west-1:22222222-aaaa-bbbb-cccc-000000000002"
		for range 3 {
			key(t, p)
			time.Sleep(56 * time.Minute)
		}
		if got := s.count(); got != [2]int{1, 3} {
			t.Errorf("one user: called %v times, want GetId once", got)
		}

		who = token(claim("sub", "john"))
		s.next("GetId", failure(400, "TooManyRequestsException", ""), failure(400, "TooManyRequestsException", ""), failure(400, "TooManyRequestsException", ""),
			answer{status: 200, body: `{"IdentityId":"` + john + `"}`})
		if c, err := p.Credentials(t.Context()); err == nil {
			t.Errorf("with the token of John: got credentials of %s, want an error", c.IdentityID)
		}
		c, err := p.Credentials(t.Context())
		if err != nil || c.IdentityID != john {
			t.Errorf("with the token of John: got credentials of %s, %v, want John's", c.IdentityID, err)
		}
	})
}

// An identity that is known may have been deleted, or belong to someone else by now.
func TestAnIdentityThatIsGoneIsAskedForAgain(t *testing.T) {
	for _, code := range []string{"ResourceNotFoundException", "NotAuthorizedException"} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, s := newProvider(t)
				key(t, p)
				time.Sleep(time.Hour)
				s.next("GetId", answer{status: 200, body: `{"IdentityId":"eu-west-1:new"}`})
				s.next("GetCredentialsForIdentity", failure(400, code, "Identity not found."))
				c, err := p.Credentials(t.Context())
				if err != nil || c.IdentityID != "eu-west-1:new" {
					t.Errorf("got %q, %v, want credentials of the new identity", c.IdentityID, err)
				}

				time.Sleep(time.Hour)
				s.always("GetId", answer{status: 200, body: `{"IdentityId":"eu-west-1:new"}`})
				s.next("GetCredentialsForIdentity", failure(400, code, "Not allowed."))
				before := s.count()
				if _, err := p.Credentials(t.Context()); err == nil {
					t.Error("the same identity again: got credentials, want the error")
				}
				if got := s.count(); got[0] != before[0]+1 || got[1] != before[1]+1 {
					t.Errorf("the same identity again: called %v times after %v, want each once more", got, before)
				}

				s.next("GetCredentialsForIdentity", failure(400, code, "Not allowed."))
				s.answers["GetId"] = []answer{failure(400, "InvalidParameterException", "no")}
				var first *RequestError
				if _, err := p.Credentials(t.Context()); !errors.As(err, &first) || first.ErrorCode != code {
					t.Errorf("no identity: got %v, want the first error, %s", err, code)
				}
			})
		})
	}
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t)
		key(t, p)
		c, err := p.Renew(t.Context())
		if err != nil || c.AccessKeyID != "ASIA2" || key(t, p) != "ASIA2" {
			t.Errorf("got %q, %v, want new credentials, and those from now on", c.AccessKeyID, err)
		}
		s.next("GetCredentialsForIdentity", failure(400, "NotAuthorizedException", "no"))
		if _, err := p.Renew(t.Context()); !is[*types.NotAuthorizedException](err) {
			t.Errorf("got %v, want the error", err)
		}
		if got := key(t, p); got != "ASIA2" {
			t.Errorf("after an error: got %s, want what was kept", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.Renew(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that of the context", err)
		}
	})
}

// Renew has all the time that there is, though there is something at hand.
func TestRenewIsNotHurried(t *testing.T) {
	for _, folder := range []string{"", t.TempDir()} {
		synctest.Test(t, func(t *testing.T) {
			s := newService()
			p := shares(t, s, folder, func(c *Config) { c.CacheDir = folder })
			key(t, p)
			s.next("GetCredentialsForIdentity", answer{status: 200, delay: 8 * time.Second, body: credentials(2, jane, time.Now().Add(time.Hour))})
			if c, err := p.Renew(t.Context()); err != nil || c.AccessKeyID != "ASIA2" {
				t.Errorf("got %q, %v, want new credentials after 8s", c.AccessKeyID, err)
			}
		})
	}
}

// A caller's context bounds the wait of Renew for the refresh under way too.
func TestRenewBehindARefreshThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t)
		s.next("GetId", answer{delay: time.Hour})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = p.Credentials(t.Context()) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := p.Renew(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("after %v: got %v, want a deadline after 1s", time.Since(begin), err)
		}
		wg.Wait()
		time.Sleep(time.Minute) // the one that Renew asked for goes on
		if got := s.count(); got[1] != 1 {
			t.Errorf("called %v times, want the refresh after the one that hung", got)
		}
	})
}

// Renew does not join a refresh that may take what another process has kept.
func TestRenewDuringARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := newProvider(t)
		s.next("GetId", answer{status: 200, delay: time.Second, body: `{"IdentityId":"eu-west-1:1"}`})
		var wg sync.WaitGroup
		wg.Go(func() { key(t, p) })
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if c, err := p.Renew(t.Context()); err != nil || c.AccessKeyID != "ASIA2" {
					t.Errorf("got %q, %v, want those after the refresh under way", c.AccessKeyID, err)
				}
			})
		}
		wg.Wait()
		if got := s.count(); got != [2]int{1, 2} {
			t.Errorf("called %v times, want GetCredentialsForIdentity twice", got)
		}
	})
}
