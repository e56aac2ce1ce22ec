package validator_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// The tests of this file are those that the mutation checker asked for: each stands for a check, or for one side of a
// border, that could be gone without another test to notice.

func TestBordersOfClaims(t *testing.T) {
	p := newPool(t)
	anyClient := func(c *validator.Config) { c.ClientIDs, c.AllowAnyClient = nil, true }
	none := func(*validator.Config) {}
	tests := []struct {
		name  string
		edit  func(*validator.Config)
		token string
		want  validator.Reason
	}{
		{"client_id empty, any allowed", anyClient, p.Sign(nil, with(p.Claims(client), "client_id", "")), validator.ErrClaims},
		{"no iat, and a good nbf", none, p.Sign(nil, with(without(p.Claims(client), "iat"), "nbf", 1)), validator.ErrClaims},
		{"iat zero", none, p.Sign(nil, with(p.Claims(client), "iat", 0)), ""},
		{"exp at the end of the year 9999", none, p.Sign(nil, with(p.Claims(client), "exp", 253402300799)), ""},
		{"scope with the first and the last character", none, p.Sign(nil, with(p.Claims(client), "scope", "!/~")), ""},
		{"scope with DEL", none, p.Sign(nil, with(p.Claims(client), "scope", "a\x7f")), validator.ErrScopeClaim},
		{
			"cognito:username, and machines only", func(c *validator.Config) { c.MachinesOnly = true },
			p.Sign(nil, with(p.Claims(client), "cognito:username", "ada")), validator.ErrNotAMachine,
		},
		{"an ID token, whatever the audience", func(c *validator.Config) {
			c.TokenUses, c.Audience = []validator.TokenUse{validator.AccessToken, validator.IDToken}, []string{"api"}
		}, p.IDToken(client, "ada"), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := config(t, p)
			test.edit(&cfg)
			_, err := newValidator(t, cfg).Validate(t.Context(), test.token)
			if reasonOf(t, err) != test.want {
				t.Errorf("error is %v, want reason %q", err, test.want)
			}
		})
	}
}

func TestBordersOfForm(t *testing.T) {
	p := newPool(t)
	payload := mustJSON(t, p.Claims(client))
	header := func(text string) string { return p.SignBytes([]byte(text), payload) }
	nested := func(depth int) string { // of lists, one below the claims
		return p.SignBytes(nil, append([]byte(`{"x":`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+`,`), payload[1:]...))
	}
	// Trailing bits in the payload, where the last character encodes nothing but a space.
	spaced := payload
	for len(spaced)%3 != 1 || len(spaced) < len(payload)+2 {
		spaced = append(spaced[:len(spaced):len(spaced)], ' ')
	}
	parts := strings.Split(p.SignBytes(nil, spaced), ".")
	last := len(parts[1]) - 1
	parts[1] = parts[1][:last] + string(nextBits(parts[1][last]))
	tests := []struct {
		name  string
		token string
		want  validator.Reason
	}{
		{"as long as allowed", ofLength(t, p.SignBytes, payload, validator.MaxTokenBytes), ""},
		{"nested as deep as allowed", nested(15), ""},
		{"nested one too deep", nested(16), validator.ErrMalformed},
		{"kid as long as allowed", header(`{"alg":"RS256","kid":"` + strings.Repeat("k", 256) + `"}`), validator.ErrUnknownKey},
		{"typ application/at+jwt", header(`{"alg":"RS256","typ":"application/at+jwt","kid":"` + p.AccessKey().ID + `"}`), ""},
		{"trailing bits in the payload", strings.Join(parts, "."), validator.ErrMalformed},
	}
	v := newValidator(t, config(t, p))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := v.Validate(t.Context(), test.token)
			if reasonOf(t, err) != test.want {
				t.Errorf("error is %v, want reason %q", err, test.want)
			}
		})
	}
}

func without(claims map[string]any, name string) map[string]any {
	delete(claims, name)
	return claims
}

// ofLength signs the payload with so many spaces that the token has n bytes. Not every length of base64 exists, so the
// header may get some too.
func ofLength(t *testing.T, sign func(header, payload []byte) string, payload []byte, n int) string {
	t.Helper()
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(sign(nil, payload), ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		missing := n - len(sign(header, payload))
		for pad := max(missing*3/4-3, 0); pad <= missing*3/4+3; pad++ {
			if token := sign(header, append(payload[:len(payload):len(payload)], strings.Repeat(" ", pad)...)); len(token) == n {
				return token
			}
		}
		header = append(header, ' ')
	}
	t.Fatalf("no token of %d bytes", n)
	return ""
}

func TestBordersOfSettings(t *testing.T) {
	p := newPool(t)
	for name, edit := range map[string]func(*validator.Config){
		"leeway at five minutes":        func(c *validator.Config) { c.Leeway = validator.MaxLeeway },
		"expiry leeway at five minutes": func(c *validator.Config) { c.ExpLeeway = validator.MaxLeeway },
	} {
		cfg := config(t, p)
		edit(&cfg)
		if _, err := validator.New(cfg); err != nil {
			t.Errorf("%s: error is %v, want none", name, err)
		}
	}
	for name, edit := range map[string]func(*validator.Config){
		"an empty scope": func(c *validator.Config) { c.RequiredScopes = []string{""} },
		"an exponent of 32 bits": func(c *validator.Config) {
			c.Keys = validator.StaticKeys{"k": {N: p.AccessKey().Private.N, E: 1<<31 + 1}}
		},
		"a key with no key": func(c *validator.Config) { c.Keys = validator.StaticKeys{"k": new(rsa.PublicKey)} },
	} {
		cfg := config(t, p)
		edit(&cfg)
		if _, err := validator.New(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// Errors are read by whoever looks for the cause: each says what was found.
func TestErrorTexts(t *testing.T) {
	p := newPool(t)
	v := newValidator(t, config(t, p))
	refused := func(header, payload string) error {
		_, err := v.Validate(t.Context(), p.SignBytes([]byte(header), []byte(payload)))
		return err
	}
	set := func(text string) error {
		_, _, err := validator.ParseJWKS([]byte(text))
		return err
	}
	cut := string(mustJSON(t, with(p.Claims(client), "iss", strings.Repeat("i", 129))))
	whole := string(mustJSON(t, with(p.Claims(client), "iss", strings.Repeat("i", 128))))
	good := `{"alg":"RS256","kid":"x"}`
	cause := errors.New("the cause")
	for _, test := range []struct {
		err  error
		want string
	}{
		{refused(good, `{"a":1,"a":2}`), "malformed: payload is a JSON object with a member name twice"},
		{refused(good, `{"a":`+strings.Repeat("[", 17)+strings.Repeat("]", 17)+`}`), "nested too deeply"},
		{refused(good, `{"a":1`), "no well-formed JSON object"},
		{refused(good, cut), `"` + strings.Repeat("i", 128) + `…"`},
		{refused(good, whole), `"` + strings.Repeat("i", 128) + `"`},
		{set("<html>"), "no JSON object"},
		{set("{}"), "no list of keys"},
		{set(`{"keys":[1]}`), "no JSON object"},
		{&validator.TokenError{Reason: validator.ErrExpired, Err: cause}, "expired: the cause"},
		{&validator.InsufficientScopeError{ScopeMatch: validator.MatchAll}, "want all of"},
		{&validator.InsufficientScopeError{ScopeMatch: validator.MatchAny}, "want any of"},
		{&validator.KeysUnavailableError{}, "keys unavailable"},
		{&validator.KeysUnavailableError{Err: cause}, "keys unavailable: the cause"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("error is %v, want one with %q", test.err, test.want)
		}
	}
}

type keyAndError struct {
	key *rsa.PublicKey
	err error
}

func (k keyAndError) PublicKey(context.Context, string, time.Time) (*rsa.PublicKey, error) {
	return k.key, k.err
}

// Whatever a KeySet of somebody else's returns, no error of its own passes for a reason, and no key that comes with one
// is used.
func TestOddKeySets(t *testing.T) {
	p := newPool(t)
	for _, test := range []struct {
		name string
		keys keyAndError
		want string // part of the error
	}{
		{"a key and an error", keyAndError{&p.AccessKey().Private.PublicKey, errors.New("odd")}, "odd"},
		{"neither", keyAndError{}, "neither key nor error"},
		{"another reason", keyAndError{err: validator.ErrExpired}, "expired"},
	} {
		cfg := config(t, p)
		cfg.Keys = test.keys
		_, err := newValidator(t, cfg).Validate(t.Context(), p.Token(client))
		if reasonOf(t, err) != validator.ErrKeysUnavailable || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want keys_unavailable with %q", test.name, err, test.want)
		}
	}
	if errors.Is(&validator.KeysUnavailableError{}, validator.ErrExpired) {
		t.Error("a KeysUnavailableError matches another reason")
	}
}

// Each case changes one thing in one of two keys that are accepted, as in TestParseJWKS.
func TestBordersOfKeys(t *testing.T) {
	p := newPool(t)
	set := func(name string, value any) func(map[string]any) {
		return func(j map[string]any) { j[name] = value }
	}
	type row struct {
		name string
		edit func(map[string]any)
		want string // part of the problem; empty: the key is used
	}
	tests := []row{
		{"kid as long as allowed", set("kid", strings.Repeat("k", 256)), ""},
		{"kid of the other key, and unusable", func(j map[string]any) { j["kid"], j["use"] = p.IDKey().ID, "enc" }, "use"},
		{"n of 8192 bits", set("n", base64.RawURLEncoding.EncodeToString(append(append([]byte{0x80}, make([]byte, 1022)...), 1))), ""},
		{"e three", set("e", "Aw"), ""},
		{"e four", set("e", "BA"), "exponent"},
		{"e 2^31-1", set("e", "f____w"), ""},
		{"e 2^31+1", set("e", "gAAAAQ"), "exponent"},
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		tests = append(tests, row{"with " + name, set(name, nil), "secret"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed, other := jwkOf(p.AccessKey()), jwkOf(p.IDKey())
			test.edit(changed)
			keys, problems, err := validator.ParseJWKS(mustJSON(t, map[string]any{"keys": []any{other, changed}}))
			if err != nil || keys[p.IDKey().ID] == nil {
				t.Fatalf("error is %v and keys %v, want the other key to be used", err, keys)
			}
			if test.want == "" && (len(keys) != 2 || len(problems) > 0) {
				t.Errorf("problems are %v, want none", problems)
			}
			if test.want != "" && (len(keys) != 1 || len(problems) != 1 || !strings.Contains(problems[0].String(), test.want)) {
				t.Errorf("%d keys, problems are %v, want one with %q", len(keys), problems, test.want)
			}
		})
	}
	text := p.JWKS()
	if _, _, err := validator.ParseJWKS(append(text, bytes.Repeat([]byte(" "), validator.MaxJWKSBytes-len(text))...)); err != nil {
		t.Errorf("a JWK Set as long as allowed: %v", err)
	}
}

func TestBordersOfRemoteKeys(t *testing.T) {
	for _, url := range []string{"https://keys.example/%zz", "ftp://localhost/x", "http://192.0.2.1/x"} {
		if _, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: url}); err == nil {
			t.Errorf("URL %q was accepted", url)
		}
	}
	same := validator.RemoteKeysConfig{URL: "https://keys.example/", MinInterval: time.Hour, MaxAge: time.Hour, MaxStale: time.Hour}
	if _, err := validator.NewRemoteKeys(same); err != nil {
		t.Errorf("three equal durations: %v", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func answer(req *http.Request, status int, header http.Header, body io.Reader) (*http.Response, error) {
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(body), Request: req}, nil
}

// At the end of each way of redirects stands a good set: only those allowed may get there.
func TestRedirects(t *testing.T) {
	body, _ := jwksOf(t)
	for _, test := range []struct {
		name string
		way  []string
		good bool
	}{
		{"none", []string{"https://keys.example/"}, true},
		{"twice on the host", []string{"https://keys.example/", "https://keys.example/a", "https://keys.example/b"}, true},
		{"three times", []string{"https://keys.example/", "https://keys.example/a", "https://keys.example/b", "https://keys.example/c"}, false},
		{"another host", []string{"https://keys.example/", "https://other.example/"}, false},
		{"another port", []string{"https://keys.example/", "https://keys.example:8443/"}, false},
		{"plain http", []string{"https://keys.example/", "http://keys.example/"}, false},
		{"plain http on loopback", []string{"https://localhost/", "http://localhost/"}, false},
		{"with a password", []string{"https://keys.example/", "https://user:secret@keys.example/"}, false},
	} {
		k, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{
			URL: test.way[0],
			Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
				at := req.URL.String()
				for i, u := range test.way[:len(test.way)-1] {
					if u == at {
						return answer(req, http.StatusFound, http.Header{"Location": {test.way[i+1]}}, http.NoBody)
					}
				}
				return answer(req, http.StatusOK, nil, bytes.NewReader(body))
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Refresh(t.Context()); (err == nil) != test.good {
			t.Errorf("%s: error is %v, want none: %t", test.name, err, test.good)
		}
	}
}

// Each of these answers brings a good set, or the word that the last one is good, and must not be taken.
func TestOddAnswers(t *testing.T) {
	body, _ := jwksOf(t)
	down := errors.New("down")
	for _, test := range []struct {
		name string
		rt   roundTripper
		want string // part of the error
	}{
		{"status 500", func(r *http.Request) (*http.Response, error) { return answer(r, 500, nil, bytes.NewReader(body)) }, "500"},
		{"status 199", func(r *http.Request) (*http.Response, error) { return answer(r, 199, nil, bytes.NewReader(body)) }, "199"},
		{"status 304 unasked", func(r *http.Request) (*http.Response, error) { return answer(r, 304, nil, http.NoBody) }, "304"},
		{"cut behind the set", func(r *http.Request) (*http.Response, error) {
			return answer(r, 200, nil, io.MultiReader(bytes.NewReader(body), iotest.ErrReader(down)))
		}, "down"},
		{"no connection", func(*http.Request) (*http.Response, error) { return nil, down }, "down"},
		{"a panic", func(*http.Request) (*http.Response, error) { panic("oh") }, "oh"},
	} {
		k, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: "https://keys.example/", Transport: test.rt})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "keys.example") {
			t.Errorf("%s: error is %v, want one with %q and no URL", test.name, err, test.want)
		}
	}
}

func TestTLSIsUsed(t *testing.T) {
	p := newPool(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(p.JWKS()) }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // it is one handshake that fails
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for _, cfg := range []*tls.Config{nil, {RootCAs: roots}} {
		k, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{URL: s.URL, TLS: cfg})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Refresh(t.Context()); (err == nil) != (cfg != nil) {
			t.Errorf("error is %v with TLS %v, want none only with the server's root", err, cfg)
		}
	}
}

// A caller waits for the fetch under way and for the next, and no longer.
func TestCallersWaitForTwoFetches(t *testing.T) {
	edit := func(c *validator.RemoteKeysConfig) { c.MinInterval = time.Nanosecond }
	bubble(t, edit, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, _ string) {
		f.set(func(f *fakeJWKS) { f.delay = time.Second })
		wantErr(t, k, "unknown", time.Now().Add(10*time.Second), validator.ErrKeysUnavailable)
		if f.count() != 2 {
			t.Errorf("%d fetches, want 2", f.count())
		}
	})
}

func TestEndOfContextIsTheCause(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		f.set(func(f *fakeJWKS) { f.delay = 3 * time.Second })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.PublicKey(ctx, kid, time.Now()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want its cause to be the end of the context", err)
		}
		time.Sleep(3 * time.Second) // fake time, until the fetch ends
	})
}

func TestSetServesUntilMaxStale(t *testing.T) {
	bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
		wantKey(t, k, kid)
		f.set(func(f *fakeJWKS) { f.err = errors.New("down") })
		time.Sleep(24 * time.Hour)
		wantKey(t, k, kid)
		time.Sleep(time.Nanosecond)
		wantErr(t, k, kid, time.Now(), validator.ErrKeysUnavailable)
	})
}

// Before there is a set, Run begins with half a second; once there is one, it waits for MinInterval since the last fetch,
// whoever caused that.
func TestRunsFirstPause(t *testing.T) {
	for name, primed := range map[string]bool{"no set": false, "a set": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, kid string) {
				pause := 600 * time.Millisecond
				if primed {
					wantKey(t, k, kid)
					pause = 9999 * time.Millisecond
				}
				before := f.count()
				f.set(func(f *fakeJWKS) { f.err = errors.New("down") })
				ctx, cancel := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer cancel()
				go func() { _ = k.Run(ctx) }()
				time.Sleep(pause)
				if got, want := f.count()-before, map[bool]int{false: 2, true: 0}[primed]; got != want {
					t.Errorf("%d fetches in %v, want %d", got, pause, want)
				}
				time.Sleep(2 * time.Millisecond)
				if got, want := f.count()-before, map[bool]int{false: 2, true: 1}[primed]; got != want {
					t.Errorf("%d fetches in %v, want %d", got, pause+2*time.Millisecond, want)
				}
			})
		})
	}
}

// The set that is confirmed is not sent again.
func TestETagIsSent(t *testing.T) {
	body, _ := jwksOf(t)
	var asked []string
	k, err := validator.NewRemoteKeys(validator.RemoteKeysConfig{
		URL: "https://keys.example/",
		Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			asked = append(asked, strings.Join(req.Header.Values("If-None-Match"), ","))
			if asked[len(asked)-1] == `"v1"` {
				return answer(req, http.StatusNotModified, nil, http.NoBody)
			}
			return answer(req, http.StatusOK, http.Header{"Etag": {`"v1"`}}, bytes.NewReader(body))
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"", `"v1"`}, asked); diff != "" {
		t.Errorf("If-None-Match (-want +got):\n%s", diff)
	}
}

// The log says what changes, and says it once.
func TestLogOfFetches(t *testing.T) {
	p := newPool(t)
	a, b, c := jwkOf(p.AccessKey()), jwkOf(p.IDKey()), jwkOf(p.AddKey())
	forged := with(jwkOf(p.ForgedKey()), "kid", a["kid"])
	odd := map[string]any{"kid": "odd"}
	set := func(keys ...any) []byte { return mustJSON(t, map[string]any{"keys": keys}) }
	unchanged := func(*fakeJWKS) {}
	steps := []struct {
		name string
		edit func(*fakeJWKS)
		want string
	}{
		{"the first set", func(f *fakeJWKS) { f.body = set(a, b) }, "jwks changed keys=2 added=2 removed=0\n"},
		{"the same", unchanged, ""},
		{"confirmed", func(f *fakeJWKS) { f.etag = "v" }, ""},
		{"confirmed again", unchanged, ""},
		{"one more", func(f *fakeJWKS) { f.body, f.etag = set(a, b, c), "" }, "jwks changed keys=3 added=1 removed=0\n"},
		{"one less", func(f *fakeJWKS) { f.body = set(a, b) }, "jwks changed keys=2 added=0 removed=1\n"},
		{"another under its kid", func(f *fakeJWKS) { f.body = set(forged, b) }, "jwks changed keys=2 added=1 removed=1\n"},
		{"an odd one", func(f *fakeJWKS) { f.body = set(forged, b, odd) }, "jwks has keys that are left out problems=[key odd: kty is not RSA]\n"},
		{"the odd one still", unchanged, ""},
		{"the odd one gone", func(f *fakeJWKS) { f.body = set(forged, b) }, ""},
		{"down", func(f *fakeJWKS) { f.err = errors.New("down") }, "jwks fetch failed error=down\n"},
		{"up", func(f *fakeJWKS) { f.err = nil }, "jwks fetch works again\n"},
	}
	var log bytes.Buffer
	short := func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Key == slog.TimeKey || attr.Key == slog.LevelKey || attr.Key == "url" {
			return slog.Attr{}
		}
		return attr
	}
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: short}))
	bubble(t, func(c *validator.RemoteKeysConfig) { c.Logger = logger }, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, _ string) {
		for _, step := range steps {
			log.Reset()
			f.set(step.edit)
			_ = k.Refresh(t.Context())
			synctest.Wait()
			got := strings.NewReplacer("msg=", "", `"`, "", `\`, "").Replace(log.String())
			if diff := cmp.Diff(step.want, got); diff != "" {
				t.Errorf("%s: log (-want +got):\n%s", step.name, diff)
			}
		}
	})
	log.Reset()
	bubble(t, func(c *validator.RemoteKeysConfig) { c.Logger = logger }, func(t *testing.T, f *fakeJWKS, k *validator.RemoteKeys, _ string) {
		f.set(func(f *fakeJWKS) { f.body = set(a, odd) })
		err := k.Refresh(t.Context())
		synctest.Wait()
		if err != nil || !strings.Contains(log.String(), "left out") {
			t.Errorf("error is %v and log %q, want none and the key that is left out", err, &log)
		}
	})
}
