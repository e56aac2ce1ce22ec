package validator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// fakeJWKS is a JWKS server as a transport, so that it can live in a synctest bubble, where time does not pass by itself.
type fakeJWKS struct {
	mu       sync.Mutex
	body     []byte
	etag     string
	err      error
	delay    time.Duration
	redirect string
	header   http.Header
	requests int

	rotated    []byte // another set, with other keys
	rotatedKid string
}

func (f *fakeJWKS) set(edit func(*fakeJWKS)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(f)
}

func (f *fakeJWKS) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests
}

func (f *fakeJWKS) RoundTrip(req *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.requests++
	body, etag, err, delay, redirect, header := f.body, f.etag, f.err, f.delay, f.redirect, f.header.Clone()
	f.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if header == nil {
		header = make(http.Header)
	}
	header.Set("ETag", etag)
	resp := &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(bytes.NewReader(body)), Request: req}
	switch {
	case err != nil:
		return nil, err
	case redirect != "":
		resp.StatusCode, resp.Header = http.StatusFound, http.Header{"Location": {redirect}}
	case etag != "" && req.Header.Get("If-None-Match") == etag:
		resp.StatusCode, resp.Body = http.StatusNotModified, http.NoBody
	}
	return resp, nil
}

// jwksOf is the JWK Set of a fresh stand-in, and its first kid.
func jwksOf(t testing.TB) (body []byte, kid string) {
	t.Helper()
	p := newPool(t)
	return p.JWKS(), p.AccessKey().ID
}

// bubble runs a test on fake time, with a fake JWKS server and the keys that it serves.
func bubble(t *testing.T, edit func(*validator.RemoteKeysConfig), test func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string)) {
	t.Helper()
	body, kid := jwksOf(t)
	rotated, rotatedKid := jwksOf(t)
	synctest.Test(t, func(t *testing.T) {
		f := &fakeJWKS{body: body, rotated: rotated, rotatedKid: rotatedKid}
		cfg := validator.RemoteKeysConfig{URL: "https://keys.example/jwks.json", Transport: f}
		if edit != nil {
			edit(&cfg)
		}
		k, err := validator.NewRemoteKeys(cfg)
		if err != nil {
			t.Fatal(err)
		}
		test(t, f, k, kid)
	})
}

func wantKey(t *testing.T, k *validator.RemoteKeys, kid string) {
	t.Helper()
	if key, err := k.PublicKey(t.Context(), kid, time.Now()); err != nil || key == nil {
		t.Errorf("key %s: %v, want it", kid, err)
	}
}

func wantErr(t *testing.T, k *validator.RemoteKeys, kid string, asOf time.Time, want error) {
	t.Helper()
	if key, err := k.PublicKey(t.Context(), kid, asOf); !errors.Is(err, want) || key != nil {
		t.Errorf("key %s: %v and error %v, want %v", kid, key, err, want)
	}
}

func TestKeysAreFetchedByTheFirstToken(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		wantKey(t, k, kid)
		wantKey(t, k, kid)
		if f.count() != 1 {
			t.Errorf("%d fetches, want 1", f.count())
		}
	})
}

func TestConcurrentMissesJoinOneFetch(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		f.set(func(f *fakeJWKS) { f.delay = time.Second })
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() { wantKey(t, k, kid) })
		}
		synctest.Wait()
		wantErr(t, k, kid, time.Now(), validator.ErrKeysUnavailable) // enough wait already
		wg.Wait()
		wantKey(t, k, kid)
		if f.count() != 1 {
			t.Errorf("%d fetches, want 1", f.count())
		}
	})
}

// A flood of unknown kids costs one fetch an interval, and known keys go on without waiting.
func TestFloodOfUnknownKids(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		wantKey(t, k, kid)
		f.set(func(f *fakeJWKS) { f.delay = 100 * time.Millisecond })
		start := time.Now()
		for i := range 1000 {
			_, err := k.PublicKey(t.Context(), fmt.Sprint("unknown-", i), time.Now().Add(30*time.Second))
			if retry := validator.RetryAfter(err); !errors.Is(err, validator.ErrKeysUnavailable) || retry < time.Second || retry > 10*time.Second {
				t.Fatalf("error is %v with Retry-After %v, want keys_unavailable and 1 s to 10 s", err, retry)
			}
			before := time.Now()
			wantKey(t, k, kid)
			if waited := time.Since(before); waited != 0 {
				t.Fatalf("a known key waited %v", waited)
			}
			time.Sleep(35 * time.Millisecond) // fake time
		}
		intervals := int(time.Since(start)/(10*time.Second)) + 1
		if f.count() > 1+intervals {
			t.Errorf("%d fetches in %d intervals, want at most one each", f.count(), intervals)
		}
	})
}

func TestUnknownKidIsRefusedOnlyBySetsYoungerThanTheToken(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		issued := time.Now()
		time.Sleep(time.Minute)
		wantErr(t, k, "unknown", issued, validator.ErrUnknownKey)
		wantErr(t, k, "unknown", issued, validator.ErrUnknownKey)
		if f.count() != 1 {
			t.Errorf("%d fetches, want 1: the set at hand is younger than the token", f.count())
		}
		wantErr(t, k, "unknown", time.Now(), validator.ErrKeysUnavailable)
		time.Sleep(11 * time.Second)
		wantErr(t, k, "unknown", time.Now().Add(-time.Second), validator.ErrUnknownKey)
		if f.count() != 2 {
			t.Errorf("%d fetches, want 2", f.count())
		}
	})
}

func TestRotation(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		wantKey(t, k, kid)
		time.Sleep(time.Minute)
		f.set(func(f *fakeJWKS) { f.body = f.rotated })
		wantKey(t, k, f.rotatedKid) // on first sight
		wantErr(t, k, kid, time.Now().Add(-time.Hour), validator.ErrUnknownKey)
	})
}

func TestOutage(t *testing.T) {
	faults := map[string]func(*fakeJWKS){
		"down":       func(f *fakeJWKS) { f.err = errors.New("connection refused") },
		"slow":       func(f *fakeJWKS) { f.delay = time.Hour },
		"garbage":    func(f *fakeJWKS) { f.body = []byte("<html>") },
		"empty set":  func(f *fakeJWKS) { f.body = []byte(`{"keys":[]}`) },
		"no set":     func(f *fakeJWKS) { f.body = []byte(`{}`) },
		"no body":    func(f *fakeJWKS) { f.body = nil },
		"huge":       func(f *fakeJWKS) { f.body = bytes.Repeat([]byte(" "), validator.MaxJWKSBytes+1) },
		"other host": func(f *fakeJWKS) { f.redirect = "https://evil.example/jwks.json" },
		"plain http": func(f *fakeJWKS) { f.redirect = "http://keys.example/jwks.json" },
		"loop":       func(f *fakeJWKS) { f.redirect = "https://keys.example/again" },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			twoHours := func(c *validator.RemoteKeysConfig) { c.MaxStale = 2 * time.Hour }
			bubble(t, twoHours, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
				ctx, cancel := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer cancel()
				go func() { _ = k.Run(ctx) }()
				synctest.Wait()
				good := f.body
				f.set(fault)
				time.Sleep(110 * time.Minute)
				wantKey(t, k, kid)
				if s := k.Status(); !s.Usable || s.LastError == nil || s.Failures == 0 {
					t.Errorf("status is %+v, want usable with an error", s)
				}
				time.Sleep(time.Hour)
				wantErr(t, k, kid, time.Now(), validator.ErrKeysUnavailable)
				if s := k.Status(); s.Usable {
					t.Errorf("status is %+v, want not usable after MaxStale", s)
				}
				f.set(func(f *fakeJWKS) { f.body, f.err, f.delay, f.redirect = good, nil, 0, "" })
				time.Sleep(2 * time.Minute)
				wantKey(t, k, kid)
			})
		})
	}
}

func TestRunKeepsTheSetFresh(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = k.Run(ctx) }()
		synctest.Wait()
		select {
		case <-k.Ready():
		default:
			t.Fatal("not ready after the first fetch")
		}
		f.set(func(f *fakeJWKS) { f.body = f.rotated }) // the key is removed
		wantKey(t, k, kid)
		time.Sleep(67 * time.Minute)
		wantErr(t, k, kid, time.Now().Add(-2*time.Hour), validator.ErrUnknownKey)
		if f.count() != 2 {
			t.Errorf("%d fetches in 67 minutes, want 2", f.count())
		}
		cancel()
		synctest.Wait()
		time.Sleep(24 * time.Hour)
		if f.count() != 2 {
			t.Errorf("%d fetches, want none after the end of Run", f.count())
		}
	})
}

func TestRunTriesAgainAfterFailures(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		f.set(func(f *fakeJWKS) { f.err = errors.New("down") })
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go func() { _ = k.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		if n := f.count(); n < 14 || n > 20 {
			t.Errorf("%d fetches in ten minutes of outage, want some at first and then about one a minute", n)
		}
		f.set(func(f *fakeJWKS) { f.err = nil })
		time.Sleep(70 * time.Second)
		wantKey(t, k, kid)
	})
}

// Run and unknown kids together keep the interval.
func TestRunKeepsTheInterval(t *testing.T) {
	for name, fault := range map[string]error{"good": nil, "away": errors.New("down")} {
		t.Run(name, func(t *testing.T) {
			every := func(c *validator.RemoteKeysConfig) { c.MinInterval, c.MaxAge = 10*time.Second, 10*time.Second }
			bubble(t, every, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, _ string) {
				if err := k.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				f.set(func(f *fakeJWKS) { f.err = fault })
				ctx, cancel := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer cancel()
				go func() { _ = k.Run(ctx) }()
				for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(70 * time.Millisecond) {
					_, _ = k.PublicKey(t.Context(), "unknown", time.Now().Add(time.Minute))
				}
				if n := f.count(); n > 61 || n < 50 {
					t.Errorf("%d fetches in ten minutes, want one in 10 s", n)
				}
			})
		})
	}
}

func TestETag(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		f.set(func(f *fakeJWKS) { f.etag = `"v1"` })
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := k.Status(); time.Since(s.FetchedAt) > time.Second || s.Keys != 2 || s.Fetches != 2 {
			t.Errorf("status is %+v, want the set confirmed just now", s)
		}
		wantKey(t, k, kid)
	})
}

func TestCallersContextBoundsTheWait(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		f.set(func(f *fakeJWKS) { f.delay = 3 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.PublicKey(ctx, kid, time.Now()); !errors.Is(err, validator.ErrKeysUnavailable) {
			t.Errorf("error is %v, want keys_unavailable", err)
		}
		time.Sleep(3 * time.Second)
		wantKey(t, k, kid) // the fetch went on for others
		if f.count() != 1 {
			t.Errorf("%d fetches, want 1", f.count())
		}
	})
}

// Tokens of a new key are never refused, however many unknown kids others send.
func TestRotationUnderFlood(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		wantKey(t, k, kid)
		f.set(func(f *fakeJWKS) { f.body = f.rotated })
		issued := time.Now()
		for time.Since(issued) < 11*time.Second {
			_, _ = k.PublicKey(t.Context(), "flood", time.Now())
			_, err := k.PublicKey(t.Context(), f.rotatedKid, issued)
			if err == nil {
				return
			}
			if !errors.Is(err, validator.ErrKeysUnavailable) {
				t.Fatalf("error is %v, want keys_unavailable or none", err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error("the new key was not there after an interval")
	})
}

func TestNewRemoteKeysRefuses(t *testing.T) {
	for _, url := range []string{
		"", "keys.json", "ftp://keys.example", "http://keys.example/jwks.json", "http://127.0.0.1.example/", "https://",
		"https://user:secret@keys.example/", "https://keys.example/#x", "http://localhost.evil.example/",
	} {
		if _, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: url}); err == nil {
			t.Errorf("URL %q was accepted", url)
		}
	}
	for _, url := range []string{"https://keys.example/jwks.json", "http://127.0.0.1:9000/x", "http://[::1]/x", "http://localhost/x"} {
		if _, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: url}); err != nil {
			t.Error(err)
		}
	}
	for name, cfg := range map[string]validator.RemoteKeysConfig{
		"negative":               {MinInterval: -1},
		"MaxAge under interval":  {MinInterval: time.Hour, MaxAge: time.Minute},
		"MaxStale under MaxAge":  {MaxStale: time.Minute},
		"negative fetch timeout": {Timeout: -1},
	} {
		cfg.URL = "https://keys.example/jwks.json"
		if _, err := validator.NewRemoteKeys(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// The query of a presigned URL is a secret.
func TestLogHoldsNoQuery(t *testing.T) {
	var log bytes.Buffer
	bubble(t, func(c *validator.RemoteKeysConfig) {
		c.URL += "?X-Amz-Signature=CANARY"
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, _ string) {
		f.set(func(f *fakeJWKS) { f.err = errors.New("down") })
		err := k.Refresh(t.Context())
		synctest.Wait()
		if err == nil || strings.Contains(err.Error()+log.String(), "CANARY") || !strings.Contains(log.String(), "keys.example") {
			t.Errorf("error is %v and log %q, want the host and no query", err, &log)
		}
	})
}

// Over a real connection: the stand-in's faults, and an end without goroutines left.
func TestRealServer(t *testing.T) {
	p := newPool(t)
	k, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: p.JWKSURL(), Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]cognitotest.Fault{
		"status 500":  {Status: 500},
		"garbage":     cognitotest.Garbage,
		"empty set":   cognitotest.EmptyKeySet,
		"endless":     {HugeBytes: 1 << 40},
		"cut":         {Status: 200, Body: p.JWKS(), Truncate: true},
		"hangs":       {Hang: true},
		"drops":       {Drop: true},
		"redirects":   {Redirect: "http://127.0.0.1:1/"},
		"private key": {Body: []byte(`{"keys":[{"kty":"RSA","kid":"x","n":"AQAB","e":"AQAB","d":"AQAB"}]}`)},
	} {
		p.Fail(cognitotest.JWKS, fault)
		if err := k.Refresh(t.Context()); err == nil {
			t.Errorf("%s: the fetch did not fail", name)
		}
		wantKey(t, k, p.AccessKey().ID)
	}
	p.Heal(cognitotest.JWKS)
	if err := k.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
}

// A set that was fetched while the clock was fast must not refuse what is issued after it was set right.
func TestClockSetBack(t *testing.T) {
	fast := time.Hour
	bubble(t, func(c *validator.RemoteKeysConfig) {
		c.Now = func() time.Time { return time.Now().Round(0).Add(fast) }
	}, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		wantKey(t, k, kid)
		fast = 0
		f.set(func(f *fakeJWKS) { f.body = f.rotated })
		time.Sleep(time.Minute)
		fast = -90 * time.Minute // so that the set is from a time to come
		if _, err := k.PublicKey(t.Context(), f.rotatedKid, time.Now().Add(fast)); err != nil {
			t.Errorf("the new key: %v, want it", err)
		}
	})
}

// A log that blocks holds up nobody who looks for a key.
func TestBlockedLog(t *testing.T) {
	release := make(chan struct{})
	bubble(t, func(c *validator.RemoteKeysConfig) {
		c.Logger = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
			<-release
			return len(p), nil
		}), nil))
	}, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		inner := make(chan struct{})
		release = inner
		go func() { _ = k.Refresh(t.Context()) }()
		synctest.Wait()
		wantKey(t, k, kid)
		close(inner)
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// The server's word on freshness is believed within bounds.
func TestCacheControl(t *testing.T) {
	const age = time.Hour
	for _, test := range []struct {
		name     string
		control  []string
		age      string
		want     time.Duration
		interval time.Duration // if not the default
	}{
		{"nothing said", nil, "", age, 0},
		{"longer than MaxAge", []string{"max-age=86400"}, "", age, 0},
		{"shorter", []string{"public, max-age=600"}, "", 10 * time.Minute, 0},
		{"in another case, quoted", []string{`Max-Age="600"`}, "", 10 * time.Minute, 0},
		{"in a second header line", []string{"public", "max-age=600"}, "", 10 * time.Minute, 0},
		{"shorter, and some of it has passed", []string{"max-age=600"}, "240", 6 * time.Minute, 0},
		{"all of it has passed", []string{"max-age=600"}, "601", time.Minute, 0},
		{"Age alone", nil, "100", age, 0},
		{"shorter than a minute", []string{"max-age=1"}, "", time.Minute, 0},
		{"shorter than MinInterval", []string{"max-age=1"}, "", 5 * time.Minute, 5 * time.Minute},
		{"no-cache", []string{"no-cache"}, "", time.Minute, 0},
		{"no-store, beside max-age", []string{"max-age=600, no-store"}, "", time.Minute, 0},
		{"no number", []string{"max-age=soon"}, "", time.Minute, 0},
		{"negative", []string{"max-age=-600"}, "", time.Minute, 0},
		{"a number beyond measure", []string{"max-age=99999999999999999999"}, "", age, 0},
		{"a number beyond measure, of which little has passed", []string{"max-age=99999999999"}, "60", age, 0},
		{"something else", []string{"s-maxage=60, immutable"}, "", age, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(c *validator.RemoteKeysConfig) { c.MaxAge, c.MinInterval = age, test.interval }, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
				f.set(func(f *fakeJWKS) {
					f.etag = `"v1"` // so that the second answer is a 304
					f.header = http.Header{"Cache-Control": test.control, "Age": {test.age}}
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer cancel()
				go func() { _ = k.Run(ctx) }()
				for fetches := 1; fetches <= 2; fetches++ {
					synctest.Wait()
					if got := time.Until(k.Status().NextRun); got < test.want*9/10 || got > test.want*11/10 {
						t.Fatalf("after fetch %d, the next is in %v, want %v give or take a tenth", fetches, got, test.want)
					}
					time.Sleep(time.Until(k.Status().NextRun) + time.Millisecond)
				}
				synctest.Wait()
				if f.count() != 3 {
					t.Errorf("%d fetches, want 3", f.count())
				}
			})
		})
	}
}

func TestSeed(t *testing.T) {
	body, kid := jwksOf(t)
	seed, _, err := validator.ParseJWKS(body)
	if err != nil {
		t.Fatal(err)
	}
	withSeed := func(c *validator.RemoteKeysConfig) { c.Seed, c.MaxStale = seed, 2*time.Hour }
	bubble(t, withSeed, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, fetchedKid string) {
		select {
		case <-k.Ready():
		default:
			t.Error("not ready with a seed")
		}
		if s := k.Status(); !s.Usable || s.Keys != len(seed) || !s.FetchedAt.IsZero() || !s.NextFetch.IsZero() {
			t.Errorf("status is %+v, want usable, %d keys and nothing fetched", s, len(seed))
		}
		f.set(func(f *fakeJWKS) { f.err = errors.New("down") })
		wantKey(t, k, kid)
		// A key that the seed does not have may be a new one, however old the token.
		wantErr(t, k, fetchedKid, time.Now().Add(-time.Hour), validator.ErrKeysUnavailable)
		time.Sleep(119 * time.Minute)
		wantKey(t, k, kid)
		time.Sleep(2 * time.Minute)
		wantErr(t, k, kid, time.Now(), validator.ErrKeysUnavailable)
		// The first good fetch replaces it.
		f.set(func(f *fakeJWKS) { f.err = nil })
		time.Sleep(time.Minute)
		wantKey(t, k, fetchedKid)
		wantErr(t, k, kid, time.Now().Add(-time.Hour), validator.ErrUnknownKey)
	})
}

func TestSeedIsChecked(t *testing.T) {
	for name, seed := range map[string]validator.StaticKeys{
		"no keys":   {},
		"a nil key": {"kid": nil},
	} {
		if _, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: "https://keys.example/", Seed: seed}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// The state tells operators what happened and what comes next.
func TestStatus(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, _ string) {
		if s := k.Status(); s != (validator.KeyStatus{}) {
			t.Errorf("%+v before anything was fetched, want zero", s)
		}
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = k.Run(ctx) }()
		synctest.Wait()
		s := k.Status()
		if s.FetchedAt != start || s.NextFetch != start.Add(10*time.Second) || !s.NextRun.After(start.Add(53*time.Minute)) || s.Fetches != 1 {
			t.Errorf("%+v, want a fetch at %v, perhaps another 10 s later, for sure one an hour later", s, start)
		}
		f.set(func(f *fakeJWKS) { f.err = errors.New("down") })
		time.Sleep(time.Until(s.NextRun) + time.Millisecond)
		synctest.Wait()
		if s := k.Status(); s.LastError == nil || s.Failures != 1 || time.Until(s.NextRun) > 11*time.Second || s.FetchedAt != start {
			t.Errorf("%+v, want one failure and the next try in about 10 s", s)
		}
		cancel()
		synctest.Wait()
		if s := k.Status(); !s.NextRun.IsZero() {
			t.Errorf("%+v after the end of Run, want no next fetch", s)
		}
	})
}
