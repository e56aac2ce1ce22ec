package cognito

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// canaries must occur in nothing that this package says.
var canaries = struct{ secret, second, access, id, refresh, code, verifier, metadata string }{
	secret:   "canary+secret/1=one&two%",
	second:   "canary_secret_2",
	access:   "eyJraWQiOiJjYW5hcnkifQ.eyJjYW5hcnkiOjF9.Y2FuYXJ5",
	id:       "canary-id-token",
	refresh:  "canary-refresh-token",
	code:     "canary-code",
	verifier: "canary-verifier",
	metadata: "canary-metadata",
}

// canaryForms are the canaries in any notation that somebody could undo.
var canaryForms = sync.OnceValue(func() (forms []string) {
	for _, secret := range []string{
		canaries.secret, canaries.second, canaries.access, canaries.id, canaries.refresh, canaries.code, canaries.verifier, canaries.metadata,
		strings.Split(canaries.access, ".")[1],
	} {
		pair := clientID + ":" + secret
		forms = append(forms,
			secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret), strings.ReplaceAll(secret, "/", `\/`),
			base64.StdEncoding.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(pair)),
			base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(clientID)+":"+url.QueryEscape(secret))),
			strings.Trim(fmt.Sprintf("%q", secret), `"`), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprint([]byte(secret)), "[]"))
	}
	return forms
})

// canaryFinder finds all forms in one pass.
var canaryFinder = sync.OnceValue(func() *strings.Replacer {
	var pairs []string
	for _, form := range canaryForms() {
		pairs = append(pairs, form, "")
	}
	return strings.NewReplacer(pairs...)
})

// leaks returns the forms of canaries that are in the text.
func leaks(text string) (found []string) {
	if canaryFinder().Replace(text) == text {
		return nil
	}
	for _, form := range canaryForms() {
		if strings.Contains(text, form) {
			found = append(found, form)
		}
	}
	return found
}

// shown returns all that can be made of a value with package fmt, package slog and package json.
func shown(v any) string {
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%o", "%t", "%g", "%20.10s"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	for _, log := range []*slog.Logger{
		slog.New(slog.NewTextHandler(&b, nil)),
		slog.New(slog.NewJSONHandler(&b, nil)),
	} {
		log.Info("x", "v", v, slog.Group("g", "v", v), "in", struct{ V any }{v}, "list", []any{v})
	}
	if text, err := json.Marshal(v); err == nil {
		b.Write(text)
	}
	if err, ok := v.(error); ok {
		b.WriteString(err.Error())
		for _, inner := range unwrapped(err) {
			b.WriteString(shown(inner))
		}
	}
	return b.String()
}

func unwrapped(err error) []error {
	switch err := err.(type) { //nolint:errorlint // this is what unwraps
	case interface{ Unwrap() []error }:
		return err.Unwrap()
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil {
			return []error{inner}
		}
	}
	return nil
}

func wantNoLeak(t *testing.T, what, text string) {
	t.Helper()
	if found := leaks(text); found != nil {
		t.Errorf("%s has %q in it:\n%.2000s", what, found, text)
	}
}

func TestCanariesAreFound(t *testing.T) {
	for _, secret := range []string{canaries.secret, canaries.second, canaries.access, canaries.id} {
		for _, text := range []string{
			secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%d", []byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
			base64.StdEncoding.EncodeToString([]byte(clientID + ":" + secret)), url.QueryEscape(secret), html.EscapeString(secret),
		} {
			if leaks(text) == nil {
				t.Errorf("no canary was found in %q, which is %s", text, secret)
			}
		}
	}
	for _, text := range []string{
		shown(canaries), `{"x":"canary-id-token"}`, url.Values{"client_secret": {canaries.secret}}.Encode(),
		shown(errors.New(canaries.access)), shown(oauth2.Token{AccessToken: canaries.access}),
	} {
		if leaks(text) == nil {
			t.Errorf("no canary was found in %q: this test would find none elsewhere", text)
		}
	}
}

// A server that sends back all that it was sent, and the tokens it would have given, in every notation.
func TestNothingLeaksIntoErrorsAndLogs(t *testing.T) {
	notations := map[string]func(r *http.Request) (contentType, body string){
		"JSON": func(r *http.Request) (string, string) {
			return jsonType, string(mustMarshal(map[string]any{
				"error": "invalid_request", "error_description": "got " + r.PostForm.Encode() + " and " + r.Header.Get("Authorization") + " " + canaries.access,
				"form": r.PostForm, "header": r.Header, "access_token": canaries.access, "id_token": canaries.id, "refresh_token": canaries.refresh,
				"nested": []any{map[string]any{"refreshToken": canaries.refresh, "Client-Secret": canaries.secret, "token": []string{canaries.id}, canaries.access: 1}},
			}))
		},
		"JSON with escapes": func(r *http.Request) (string, string) {
			escaped := func(s string) (u string) {
				for _, c := range s {
					u += fmt.Sprintf(`\u%04x`, c)
				}
				return u
			}
			secret := r.PostForm.Get("client_secret")
			if secret == "" {
				_, secret, _ = r.BasicAuth()
			}
			return jsonType, `{"error":"invalid_request","error_description":"` + escaped(secret) + `","access_token":"` + escaped(canaries.access) + `","x":"` + escaped(canaries.access) + `"}`
		},
		"an error code": func(r *http.Request) (string, string) {
			return jsonType, string(mustMarshal(map[string]any{"error": canaries.access, "error_uri": canaries.access}))
		},
		"a code that is the secret": func(r *http.Request) (string, string) {
			return jsonType, string(mustMarshal(map[string]any{"error": canaries.second, "message": canaries.second}))
		},
		"HTML": func(r *http.Request) (string, string) {
			return "text/html", "<pre>" + html.EscapeString(r.PostForm.Encode()+"\n"+fmt.Sprint(r.PostForm, r.Header)+"\naccess_token="+canaries.access+"\nid_token: "+canaries.id+"\n'refresh_token' => '"+canaries.refresh+"'")
		},
		"HTML of the raw form": func(r *http.Request) (string, string) {
			return "text/html", fmt.Sprint("<pre>", r.PostForm, r.Header, "</pre>")
		},
		"a form": func(r *http.Request) (string, string) {
			return "application/x-www-form-urlencoded", url.Values{"access_token": {canaries.access}, "id_token": {canaries.id}, "refresh_token": {canaries.refresh}}.Encode() + "&" + r.PostForm.Encode()
		},
		"JSON that is cut": func(*http.Request) (string, string) {
			return jsonType, `{"refresh_token":"` + canaries.refresh + `","id_token":"` + canaries.id + `","access_token":"` + canaries.access[:30]
		},
		"JSON that is doubled": func(*http.Request) (string, string) {
			return jsonType, `{"access_token":"` + canaries.access + `"}{"refreshToken":"` + canaries.refresh + `"}`
		},
		"JSON of JSON": func(*http.Request) (string, string) {
			return jsonType, string(mustMarshal(map[string]any{"body": `{"access_token":"` + canaries.access + `","id_token":"` + canaries.id + `","refresh_token":"` + canaries.refresh + `"}`}))
		},
		"a token of the wrong type": func(*http.Request) (string, string) {
			return jsonType, `{"access_token":"` + canaries.access + `","token_type":"` + canaries.access + `","expires_in":"` + canaries.access + `"}`
		},
		"the values alone": func(r *http.Request) (string, string) {
			var b strings.Builder
			for _, values := range r.PostForm {
				b.WriteString(strings.Join(values, " ") + " ")
			}
			_, basic, _ := r.BasicAuth()
			return "text/plain", b.String() + basic + " " + r.Header.Get("Authorization")
		},
		"a content type": func(*http.Request) (string, string) {
			return "text/html; x=" + canaries.second, "<html>"
		},
		"a content type that is a token": func(*http.Request) (string, string) {
			return canaries.access, canaries.access
		},
		"tokens that are lists": func(*http.Request) (string, string) {
			return jsonType, `{"access_token":["` + canaries.id + `"],"refresh_token":{"value":"` + canaries.refresh + `"},"secret":{"a":"` + canaries.second + `"}}`
		},
	}
	var mu requestsInTurn
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		status, write := mu.get()
		contentType, body := write(r)
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Location", "https://"+canaries.second+"."+canaries.access+".example.com/?token="+canaries.access)
		h.Set("Retry-After", canaries.second)
		h.Set("Set-Cookie", "session="+canaries.access)
		h.Set("X-Amz-Cognito-Request-Id", "canary_secret_2")
		h.Set("WWW-Authenticate", "Bearer "+canaries.access)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()

	for name, write := range notations {
		for _, status := range []int{200, 302, 400, 401, 500} {
			for _, style := range []AuthStyle{AuthBasic, AuthPost} {
				mu.set(status, write)
				what := fmt.Sprintf("%s with status %d", name, status)

				var text bytes.Buffer
				s := newSource(t, server.URL, func(c *Config) {
					c.Secret, c.AuthStyle, c.ClientMetadata = StaticSecret(canaries.secret, canaries.second), style, map[string]string{"tenant": canaries.metadata}
					c.Logger = slog.New(slog.NewJSONHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
					c.Retry = Retry{MaxAttempts: 1}
				})
				done := make(chan struct{})
				inner := s.log.Handler()
				s.log = slog.New(notifying{inner, done})
				_, err := s.Token(t.Context())
				wantFailure(t, err)
				<-done
				wantNoLeak(t, "the error of "+what, shown(err))
				wantNoLeak(t, "the log of "+what, text.String())

				login := newEndpoint(server.URL, func(e *Endpoint) { e.Secret, e.AuthStyle = StaticSecret(canaries.secret, canaries.second), style })
				_, err = login.Token(t.Context(), url.Values{
					"grant_type": {"authorization_code"}, "code": {canaries.code}, "code_verifier": {canaries.verifier},
					"refresh_token": {canaries.refresh}, "client_assertion": {canaries.id}, "assertion": {canaries.id}, "password": {canaries.metadata},
				})
				wantFailure(t, err)
				wantNoLeak(t, "the error of a login: "+what, shown(err))
				if err := login.Revoke(t.Context(), canaries.refresh); err != nil {
					wantNoLeak(t, "the error of a revocation: "+what, shown(err))
				}
			}
		}
	}
}

type requestsInTurn struct {
	status int
	write  func(*http.Request) (string, string)
}

func (r *requestsInTurn) set(status int, write func(*http.Request) (string, string)) {
	r.status, r.write = status, write
}

func (r *requestsInTurn) get() (int, func(*http.Request) (string, string)) { return r.status, r.write }

// notifying closes a channel when something was logged.
type notifying struct {
	slog.Handler
	done chan struct{}
}

func (h notifying) Handle(ctx context.Context, r slog.Record) error {
	defer close(h.done)
	return h.Handler.Handle(ctx, r)
}

// An error of the HTTP client may quote anything.
func TestNothingLeaksFromTheHTTPClient(t *testing.T) {
	o := &origin{answer: func(_ int, req *http.Request) (*http.Response, error) {
		body, _ := req.GetBody()
		text, _ := io.ReadAll(body)
		return nil, fmt.Errorf("cannot send %s with %v to https://me:canary-refresh-token@proxy: malformed answer: access_token=%s", text, req.Header, canaries.access)
	}}
	for _, style := range []AuthStyle{AuthBasic, AuthPost} {
		e := newEndpoint(originURL, func(e *Endpoint) {
			e.HTTPClient, e.Secret, e.AuthStyle = &http.Client{Transport: o}, StaticSecret(canaries.secret), style
		})
		_, err := e.Token(t.Context(), url.Values{"refresh_token": {canaries.refresh}})
		if failure := wantFailure(t, err); !strings.Contains(err.Error(), "cannot send") || !failure.Temporary() {
			t.Errorf("got %v, want what is left of it", err)
		}
		wantNoLeak(t, "the error", shown(err))
	}
}

func TestNothingLeaksWhenPrinted(t *testing.T) {
	o := &origin{answer: func(int, *http.Request) (*http.Response, error) {
		return replyJSON(200, `{"access_token":"`+canaries.access+`","refresh_token":"`+canaries.refresh+`","expires_in":3600,"token_type":"Bearer"}`)
	}}
	cfg := Config{
		TokenURL: originURL, ClientID: clientID, Secret: StaticSecret(canaries.secret), AuthStyle: AuthPost,
		ClientMetadata: map[string]string{"tenant": canaries.metadata}, HTTPClient: &http.Client{Transport: o}, Logger: slog.New(slog.DiscardHandler),
	}
	wantNoLeak(t, "a Config", shown(cfg)+shown(&cfg))
	if text := fmt.Sprint(cfg); !strings.Contains(text, clientID) || !strings.Contains(text, "tenant") {
		t.Errorf("a Config prints as %s, want what identifies it", text)
	}
	odd := cfg
	odd.TokenURL = "https://me:canary_secret_2@auth.example.com/?x=canary-code"
	wantNoLeak(t, "a Config with an odd URL", shown(odd))
	odd.TokenURL = "https://me:canary_secret_2@%zz/?x=canary-code"
	wantNoLeak(t, "a Config with no URL", shown(odd))
	if text := fmt.Sprint(odd); !strings.Contains(text, `TokenURL: "…"`) {
		t.Errorf("a Config with no URL prints as %s", text)
	}

	s, err := NewTokenSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.requests = nil // what was sent is in the test's own fake
	all := shown(s) + shown(token) + shown(*token) + shown(s.endpoint) + shown(s.Transport(nil)) + shown(s.OAuth2(t.Context())) +
		shown(struct {
			S *TokenSource
			T *Token
			E *Endpoint
			s *TokenSource
			t *Token
			u Token
			e *Endpoint
			r http.RoundTripper
		}{s, token, s.endpoint, s, token, *token, s.endpoint, s.Transport(nil)})
	for _, verb := range []string{"%p", "%w"} { // by which package fmt shows a value without asking it
		all += fmt.Sprintf(verb, token) + fmt.Sprintf(verb, *token) + fmt.Sprintf(verb, s)
	}
	wantNoLeak(t, "a type of this package", all)
	if text := fmt.Sprint(token); !strings.Contains(text, "Bearer") || !strings.Contains(text, token.Expiry.Format(time.RFC3339)) {
		t.Errorf("a Token prints as %s, want its type and its times", text)
	}
}

// The answer of an API has the request that it is for; a program that dumps it must not dump the token.
func TestNothingLeaksThroughTheTransport(t *testing.T) {
	o, a := &origin{answer: func(int, *http.Request) (*http.Response, error) {
		return replyJSON(200, `{"access_token":"`+canaries.access+`","expires_in":3600,"token_type":"Bearer"}`)
	}}, &api{answer: ok}
	rt := newSource(t, originURL, o.use).Transport(a)
	req := newRequest(t, "GET", "https://api.example.com/", nil)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if len(leaks(a.seen[0])) == 0 {
		t.Error("the token was not sent")
	}
	wantNoLeak(t, "the answer", fmt.Sprintf("%+v %+v", resp, resp.Request))
	_, err = rt.RoundTrip(newRequest(t, "GET", "http://api.example.com/", nil))
	wantNoLeak(t, "an error", shown(err))
}

func FuzzScrub(f *testing.F) {
	f.Add([]byte(`{"error":"invalid_client","error_description":"x"}`), 3)
	f.Add([]byte(`{"access_token":"`+canaries.access+`"}`), 0)
	f.Add([]byte(`access_token=abc&refresh_token=def`), 7)
	f.Add([]byte("\xff\xfe{"), 1)
	f.Fuzz(func(t *testing.T, body []byte, at int) {
		req, err := http.NewRequest(http.MethodPost, originURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		const sent = "sEcReT-tHaT-wAs-SeNt"
		if bytes.Contains(body, []byte("sEcReT")) {
			t.Skip()
		}
		hide := newScrubber(req, url.Values{"code": {canaries.code}}, clientID, []string{sent})
		at = min(max(at, 0), len(body))
		echoed := append(append(bytes.Clone(body[:at]), sent...), body[at:]...)
		for _, text := range []string{hide.body(echoed), hide.text(string(echoed))} {
			if strings.Contains(text, sent) {
				t.Errorf("%q became %q", echoed, text)
			}
		}
		if again := hide.text(hide.text(string(body))); again != hide.text(string(body)) {
			t.Errorf("%q is not left alone once it is clean: %q", hide.text(string(body)), again)
		}
	})
}
