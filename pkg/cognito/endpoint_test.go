package cognito

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

var clientCredentials = url.Values{"grant_type": {"client_credentials"}}

func newEndpoint(tokenURL string, edit ...func(*Endpoint)) *Endpoint {
	e := &Endpoint{URL: tokenURL, ClientID: clientID, Secret: StaticSecret(secret), Retry: Retry{MaxAttempts: 1}}
	for _, edit := range edit {
		edit(e)
	}
	return e
}

func TestTokenOfTheStandIn(t *testing.T) {
	pool := startPool(t)
	for name, edit := range map[string]func(*Endpoint){
		"basic": func(*Endpoint) {},
		"post":  func(e *Endpoint) { e.AuthStyle = AuthPost },
	} {
		t.Run(name, func(t *testing.T) {
			before := time.Now().Add(-time.Second)
			token, err := newEndpoint(pool.TokenURL(), edit).Token(t.Context(), clientCredentials)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(token.AccessToken(), ".") != 2 || token.TokenType != "Bearer" || token.Authorization() != "Bearer "+token.AccessToken() {
				t.Errorf("got %s token %q, want a bearer JWT", token.TokenType, token.AccessToken())
			}
			if token.ObtainedAt.Before(before) || token.Expiry.Sub(token.ObtainedAt) != time.Hour {
				t.Errorf("it lives from %v to %v, want an hour from now", token.ObtainedAt, token.Expiry)
			}
		})
	}
}

// What goes over the wire.
func TestRequest(t *testing.T) {
	const odd = "a+b/c=d%e:f"
	for name, tc := range map[string]struct {
		edit          func(*Endpoint)
		form          url.Values
		authorization string
	}{
		"basic": {func(*Endpoint) {}, url.Values{"grant_type": {"x"}, "scope": {"a b"}}, "Basic aWQ6czNjcmV0Xzk="},
		"basic with characters that are encoded": {
			func(e *Endpoint) { e.Secret = StaticSecret(odd) },
			url.Values{"grant_type": {"x"}, "scope": {"a b"}},
			"Basic aWQ6YSUyQmIlMkZjJTNEZCUyNWUlM0Fm", // id:a%2Bb%2Fc%3Dd%25e%3Af
		},
		"post": {
			func(e *Endpoint) { e.AuthStyle = AuthPost; e.Secret = StaticSecret(odd) },
			url.Values{"grant_type": {"x"}, "scope": {"a b"}, "client_id": {"id"}, "client_secret": {odd}},
			"",
		},
		"public client": {func(e *Endpoint) { e.Secret = nil }, url.Values{"grant_type": {"x"}, "scope": {"a b"}, "client_id": {"id"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got http.Request
			var body string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text, _ := io.ReadAll(r.Body)
				got, body = *r, string(text)
				w.Header().Set("Content-Type", "application/json")
				io.WriteString(w, `{"access_token":"a","expires_in":60,"token_type":"Bearer"}`)
			}))
			defer server.Close()
			e := newEndpoint(server.URL+"/oauth2/token", func(e *Endpoint) { e.ClientID, e.Secret = "id", StaticSecret("s3cret_9") }, tc.edit)
			form := url.Values{"grant_type": {"x"}, "scope": {"a b"}}
			if _, err := e.Token(t.Context(), form); err != nil {
				t.Fatal(err)
			}
			if got.Method != http.MethodPost || got.RequestURI != "/oauth2/token" || got.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || got.Header.Get("Accept") != "application/json" {
				t.Errorf("the request is %s %s with %v", got.Method, got.RequestURI, got.Header)
			}
			if got.Header.Get("Authorization") != tc.authorization {
				t.Errorf("Authorization is %q, want %q", got.Header.Get("Authorization"), tc.authorization)
			}
			if body != tc.form.Encode() {
				t.Errorf("the form is %s, want %s", body, tc.form.Encode())
			}
			if len(form) != 2 {
				t.Errorf("the caller's form became %v", form)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	pool := startPool(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed, with Authorization %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	long := strings.Repeat("x ", 4000)

	for name, tc := range map[string]struct {
		fault     cognitotest.Fault
		want      string
		body      string
		temporary bool
	}{
		"invalid_request":      {cognitotest.Fault{Status: 400, Body: []byte(`{"error":"invalid_request"}`)}, `status 400: error is "invalid_request"`, `{"error":"invalid_request"}`, false},
		"with a description":   {cognitotest.Fault{Status: 400, Body: []byte(`{"error":"invalid_grant","error_description":"a\nb"}`)}, `status 400: error is "invalid_grant" ("a\nb")`, `{"error":"invalid_grant","error_description":"a\nb"}`, false},
		"a description, cut":   {cognitotest.Fault{Status: 400, Body: []byte(`{"error":"invalid_grant","error_description":"` + long + `"}`)}, `status 400: error is "invalid_grant" ("` + long[:256] + `…")`, "", false},
		"401":                  {cognitotest.Fault{Status: 401, Body: []byte(`{"error":"invalid_client"}`)}, `status 401: error is "invalid_client"`, `{"error":"invalid_client"}`, false},
		"a code that is none":  {cognitotest.Fault{Status: 400, Body: []byte(`{"error":"a\u0000b"}`)}, `status 400: want status 200 or an error code`, `{"error":"a\u0000b"}`, false},
		"a code of no string":  {cognitotest.Fault{Status: 400, Body: []byte(`{"error":{}}`)}, `status 400: want status 200 or an error code`, `{"error":{}}`, false},
		"403 of a firewall":    {cognitotest.Fault{Status: 403, Body: []byte("<html>Forbidden</html>"), Header: http.Header{"Content-Type": {"text/html"}}}, `status 403: want status 200 or an error code`, "<html>Forbidden</html>", false},
		"404":                  {cognitotest.Fault{Status: 404}, `status 404: want status 200 or an error code`, `{"message":"Not Found"}`, false},
		"201":                  {cognitotest.Fault{Status: 201, Body: []byte(`{"access_token":"canary-canary","expires_in":3600,"token_type":"Bearer"}`)}, `status 201: want status 200 or an error code`, `{"access_token":"[…]","expires_in":3600,"token_type":"Bearer"}`, false},
		"204":                  {cognitotest.Fault{Status: 204, Body: []byte{}}, `status 204: want status 200 or an error code`, "", false},
		"429":                  {cognitotest.Fault{Status: 429, Body: []byte(`{"error":"too_many_requests"}`)}, `status 429: error is "too_many_requests"`, `{"error":"too_many_requests"}`, true},
		"500":                  {cognitotest.Fault{Status: 500, Body: []byte("oops")}, `status 500: want status 200 or an error code`, "oops", true},
		"503":                  {cognitotest.Fault{Status: 503}, `status 503: want status 200 or an error code`, `{"message":"Service Unavailable"}`, true},
		"200 with an error":    {cognitotest.Fault{Body: []byte(`{"error":"invalid_scope"}`)}, `status 200: error is "invalid_scope"`, `{"error":"invalid_scope"}`, false},
		"a captive portal":     {cognitotest.Garbage, `status 200: content type is "text/html", want application/json`, "<html><body>Sign in to the guest network</body></html>", false},
		"huge":                 {cognitotest.Fault{HugeBytes: math.MaxInt64}, `status 200: the answer has more than 131072 bytes`, "", false},
		"truncated":            {cognitotest.Fault{Truncate: true, Body: []byte(`{"access_token":"canary-canary","expires_in":3600,"token_type":"Bearer"}`)}, `status 200: reading the answer: unexpected EOF`, "", true},
		"dropped":              {cognitotest.Fault{Drop: true}, `EOF`, "", true},
		"a redirect":           {cognitotest.Fault{Redirect: elsewhere.URL + "/oauth2/token?x=canary"}, `status 302: redirected to "` + elsewhere.URL + `", which is not followed`, "", false},
		"a redirect with 307":  {cognitotest.Fault{Status: 307, Header: http.Header{"Location": {elsewhere.URL}}}, `status 307: redirected to "` + elsewhere.URL + `", which is not followed`, `{"message":"Temporary Redirect"}`, false},
		"a redirect, relative": {cognitotest.Fault{Status: 308, Header: http.Header{"Location": {"/other"}}}, `status 308: redirected to elsewhere, which is not followed`, `{"message":"Permanent Redirect"}`, false},
		"slow":                 {cognitotest.Fault{Hang: true}, `no answer within`, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			pool.Fail(cognitotest.Token, tc.fault)
			e := newEndpoint(pool.TokenURL(), func(e *Endpoint) {
				if tc.fault.Hang {
					e.Timeout = 20 * time.Millisecond
				}
			})
			token, err := e.Token(t.Context(), clientCredentials)
			if token != nil {
				t.Errorf("got a token, want none")
			}
			failure := wantFailure(t, err)
			if got := err.Error(); got != "cognito: token request failed: "+tc.want && (!tc.fault.Hang || !strings.HasPrefix(got, "cognito: token request failed: "+tc.want)) {
				t.Errorf("got %s\nwant cognito: token request failed: %s", got, tc.want)
			}
			if tc.body != "" && failure.ResponseBody != tc.body {
				t.Errorf("the body is shown as %q, want %q", failure.ResponseBody, tc.body)
			}
			if failure.Temporary() != tc.temporary || IsTemporary(err) != tc.temporary {
				t.Errorf("it is temporary: %v, want %v", failure.Temporary(), tc.temporary)
			}
			var retrieve *oauth2.RetrieveError
			if errors.As(err, &retrieve) != (failure.StatusCode != 0) {
				t.Fatalf("it matches *oauth2.RetrieveError: %v, want so with an answer", retrieve != nil)
			}
			if retrieve != nil {
				if retrieve.ErrorCode != failure.ErrorCode || string(retrieve.Body) != failure.ResponseBody || retrieve.Response.StatusCode != failure.StatusCode || retrieve.Response.Request != nil {
					t.Errorf("the *oauth2.RetrieveError is %+v, want what the error has, and no request", retrieve)
				}
				_ = retrieve.Error() // it uses Response
			}
			if failure.StatusCode != 0 && !tc.fault.Drop && tc.fault.Status != 204 && failure.RequestID == "" {
				t.Error("there is no request ID, want the answer's")
			}
			if isContextError(err) {
				t.Error("it matches the end of a context, want none: no caller's has ended")
			}
		})
	}
}

// What an error shows of an answer.
func TestWhatIsShownOfAnAnswer(t *testing.T) {
	o := &origin{answer: func(int, *http.Request) (*http.Response, error) {
		return reply(500, "text/plain", strings.Repeat("€", 2000)+"\xff", "Retry-After", "7", "Date", "Wed, 04 Mar 2026 05:06:07 GMT",
			"Set-Cookie", "a=b", "X-Amz-Cognito-Request-Id", "a b", "X-Long", strings.Repeat("x", 101))
	}}
	_, err := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient = &http.Client{Transport: o} }).Token(t.Context(), clientCredentials)
	failure := wantFailure(t, err)
	if want := strings.Repeat("€", 4096/3) + "…"; failure.ResponseBody != want {
		t.Errorf("%d bytes of the body are shown, want %d: %q", len(failure.ResponseBody), len(want), failure.ResponseBody)
	}
	if failure.RequestID != "" || failure.RetryAfter != 7*time.Second {
		t.Errorf("the request ID is %q and Retry-After %v, want none that has a space, and 7s", failure.RequestID, failure.RetryAfter)
	}
	var retrieve *oauth2.RetrieveError
	if !errors.As(err, &retrieve) {
		t.Fatal("it is no *oauth2.RetrieveError")
	}
	want := http.Header{"Content-Type": {"text/plain"}, "Date": {"Wed, 04 Mar 2026 05:06:07 GMT"}, "Retry-After": {"7"}}
	if diff := cmp.Diff(want, retrieve.Response.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	for body, want := range map[string]string{
		"a\xffb": "a\ufffdb",
		"error: this_is_a_long_name_of_words_alone_and_no_token": "error: this_is_a_long_name_of_words_alone_and_no_token",
		`{"n":12,"m":123456789012345678901234567890123}`:         `{"m":"[…]","n":12}`,
		`<b>a &amp; b</b>`: `<b>a & b</b>`,
		`[null,true]`:      `[null,true]`,
	} {
		o.set(func(int, *http.Request) (*http.Response, error) { return reply(400, "text/plain", body) })
		_, err := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient = &http.Client{Transport: o} }).Token(t.Context(), clientCredentials)
		if got := wantFailure(t, err).ResponseBody; got != want {
			t.Errorf("%q is shown as %q, want %q", body, got, want)
		}
	}
}

func TestErrorText(t *testing.T) {
	for want, err := range map[string]*TokenRequestError{
		`cognito: token request failed`: {},
		`cognito: token request failed: status 400: error is "invalid_grant" ("code \"x\"") (after 2 requests)`: {StatusCode: 400, ErrorCode: InvalidGrant, ErrorDescription: `code "x"`, Attempts: 2},
		`cognito: token request failed: no way (after 4 requests)`:                                              {Err: errors.New("no way"), Attempts: 4},
	} {
		if err.Error() != want {
			t.Errorf("got %s, want %s", err, want)
		}
	}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":          {nil, false},
		"another":          {errors.New("another"), false},
		"end of a context": {fmt.Errorf("x: %w", context.Canceled), true},
		"deadline":         {context.DeadlineExceeded, true},
		"429":              {fmt.Errorf("x: %w", &TokenRequestError{StatusCode: 429}), true},
		"500":              {&TokenRequestError{StatusCode: 500}, true},
		"499":              {&TokenRequestError{StatusCode: 499}, false},
	} {
		if got := IsTemporary(tc.err); got != tc.want {
			t.Errorf("%s: temporary is %v, want %v", name, got, tc.want)
		}
	}
}

// A host's name may be as long as a secret.
func TestErrorOfTheNetworkIsShownAsItIs(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("lookup app-of-a-team-in-a-company-2026-eu-west-1: no such host")}
	echo := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("lookup " + secret + ": no such host")}
	o := &origin{answer: each(
		func(int, *http.Request) (*http.Response, error) { return nil, dial },
		func(int, *http.Request) (*http.Response, error) { return nil, echo },
	)}
	e := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient = &http.Client{Transport: o} })
	if _, err := e.Token(t.Context(), clientCredentials); !errors.Is(err, dial) {
		t.Errorf("got %v, want the error of the network", err)
	}
	if _, err := e.Token(t.Context(), clientCredentials); errors.Is(err, echo) || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v, want no secret in it", err)
	}
}

func TestErrorOfTheNetworkCanBeMatched(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = newEndpoint("http://"+l.Addr().String()+"/").Token(t.Context(), clientCredentials)
	var network *net.OpError
	if failure := wantFailure(t, err); !errors.As(err, &network) || !failure.Temporary() || failure.StatusCode != 0 {
		t.Errorf("got %v, want a temporary error of the network", err)
	}
}

func TestUnknownAuthority(t *testing.T) {
	pool := startPool(t, func(c *cognitotest.Config) { c.TLS = true })
	e := newEndpoint(pool.TokenURL(), func(e *Endpoint) { e.Retry = Retry{} })
	_, err := e.Token(t.Context(), clientCredentials)
	var invalid *tls.CertificateVerificationError
	if failure := wantFailure(t, err); !errors.As(err, &invalid) || failure.Temporary() || failure.Attempts != 1 {
		t.Errorf("got %v after %d requests, want the certificate's error at once: it does not mend", err, failure.Attempts)
	}
}

func TestRetry(t *testing.T) {
	for name, tc := range map[string]struct {
		answers  []func(int, *http.Request) (*http.Response, error)
		retry    Retry
		requests int
		token    bool
		least    []time.Duration // of each pause; the most is three times that, or what Retry-After adds to
		most     []time.Duration
	}{
		"none needed":            {answers: answers(grant), requests: 1, token: true},
		"429":                    {answers: answers(fail(429), grant), requests: 2, token: true, least: ms(250), most: ms(750)},
		"500":                    {answers: answers(fail(500), grant), requests: 2, token: true, least: ms(250), most: ms(750)},
		"503":                    {answers: answers(fail(503), grant), requests: 2, token: true, least: ms(250), most: ms(750)},
		"no network":             {answers: answers(unreachable, grant), requests: 2, token: true, least: ms(250), most: ms(750)},
		"backoff":                {answers: answers(fail(500)), requests: 4, least: ms(250, 500, 1000), most: ms(750, 1500, 3000)},
		"backoff with a most":    {answers: answers(fail(500)), retry: Retry{MaxBackoff: 600 * time.Millisecond}, requests: 4, least: ms(250, 300, 300), most: ms(750, 900, 900)},
		"once":                   {answers: answers(fail(500)), retry: Retry{MaxAttempts: 1}, requests: 1},
		"twice":                  {answers: answers(fail(500)), retry: Retry{MaxAttempts: 2}, requests: 2, least: ms(250), most: ms(750)},
		"Retry-After":            {answers: answers(fail(429, "Retry-After", "7"), grant), requests: 2, token: true, least: ms(7250), most: ms(7750)},
		"Retry-After, a date":    {answers: answers(fail(503, "Date", "Wed, 04 Mar 2026 05:06:07 GMT", "Retry-After", "Wed, 04 Mar 2026 05:06:17 GMT"), grant), requests: 2, token: true, least: ms(10250), most: ms(10750)},
		"Retry-After too late":   {answers: answers(fail(429, "Retry-After", "31"), grant), requests: 1},
		"Retry-After in an hour": {answers: answers(fail(429, "Retry-After", "3600"), grant), requests: 1},
		"MaxElapsed":             {answers: answers(slowly(4*time.Second, fail(500))), retry: Retry{MaxElapsed: 5 * time.Second, MaxAttempts: 9}, requests: 2, least: ms(4250), most: ms(4750)},
		"truncated":              {answers: answers(cutOff, grant), requests: 2, token: true, least: ms(250), most: ms(750)},
		"too slow":               {answers: answers(hang, grant), requests: 2, token: true, least: ms(10250), most: ms(10750)},
		// What asking again does not change.
		"invalid_client":         {answers: answers(refuse(InvalidClient), grant), requests: 1},
		"invalid_grant":          {answers: answers(refuse(InvalidGrant), grant), requests: 1},
		"invalid_scope":          {answers: answers(refuse(InvalidScope), grant), requests: 1},
		"invalid_request":        {answers: answers(refuse(InvalidRequest), grant), requests: 1},
		"unauthorized_client":    {answers: answers(refuse(UnauthorizedClient), grant), requests: 1},
		"unsupported_grant_type": {answers: answers(refuse(UnsupportedGrantType), grant), requests: 1},
		"403":                    {answers: answers(fail(403), grant), requests: 1},
		"404":                    {answers: answers(fail(404), grant), requests: 1},
		"302":                    {answers: answers(fail(302, "Location", "https://x.example.com/"), grant), requests: 1},
		"200 and garbage":        {answers: answers(garbage, grant), requests: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{answer: each(tc.answers...)}
				e := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient, e.Retry = &http.Client{Transport: o}, tc.retry })
				_, err := e.Token(t.Context(), clientCredentials)
				if (err == nil) != tc.token {
					t.Errorf("got %v, want a token: %v", err, tc.token)
				}
				if err != nil && wantFailure(t, err).Attempts != tc.requests {
					t.Errorf("the error counts %d requests, want %d", wantFailure(t, err).Attempts, tc.requests)
				}
				pauses := o.pauses()
				if o.count() != tc.requests || len(pauses) != len(tc.least) {
					t.Fatalf("%d requests, want %d", o.count(), tc.requests)
				}
				for i, p := range pauses {
					if p < tc.least[i] || p > tc.most[i] {
						t.Errorf("pause %d is %v, want %v to %v", i, p, tc.least[i], tc.most[i])
					}
				}
			})
		})
	}
}

func answers(a ...func(int, *http.Request) (*http.Response, error)) []func(int, *http.Request) (*http.Response, error) {
	return a
}

func ms(n ...int) (all []time.Duration) {
	for _, n := range n {
		all = append(all, time.Duration(n)*time.Millisecond)
	}
	return all
}

func garbage(int, *http.Request) (*http.Response, error) {
	return reply(200, "text/html", "<html></html>")
}

func cutOff(int, *http.Request) (*http.Response, error) {
	resp, err := replyJSON(200, `{"access_token":"canary`)
	resp.Body = io.NopCloser(io.MultiReader(resp.Body, failingReader{}))
	return resp, err
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// The pauses of many clients that failed at once differ.
func TestBackoffHasJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := make(map[time.Duration]bool)
		for range 50 {
			o := &origin{answer: each(fail(503, "Retry-After", "1"), grant)}
			e := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient, e.Retry = &http.Client{Transport: o}, Retry{} })
			if _, err := e.Token(t.Context(), clientCredentials); err != nil {
				t.Fatal(err)
			}
			seen[o.pauses()[0].Round(10*time.Millisecond)] = true
		}
		if len(seen) < 10 {
			t.Errorf("50 pauses have %d lengths, want them spread", len(seen))
		}
	})
}

func TestEndOfTheCallersContext(t *testing.T) {
	for name, tc := range map[string]struct {
		answer   func(int, *http.Request) (*http.Response, error)
		after    time.Duration
		requests int
	}{
		"during the request": {hang, time.Second, 1},
		"in a pause":         {fail(503, "Retry-After", "9"), time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{answer: tc.answer}
				e := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient, e.Retry = &http.Client{Transport: o}, Retry{} })
				ctx, cancel := context.WithCancel(t.Context())
				begin := time.Now()
				time.AfterFunc(tc.after, cancel)
				_, err := e.Token(ctx, clientCredentials)
				if took := time.Since(begin); took != tc.after {
					t.Errorf("it took %v, want %v", took, tc.after)
				}
				failure := wantFailure(t, err)
				if o.count() != tc.requests || name == "during the request" && !errors.Is(err, context.Canceled) || name == "in a pause" && failure.StatusCode != 503 {
					t.Errorf("got %v after %d requests", err, o.count())
				}
			})
		})
	}
}

// A pause that does not fit into the caller's time is not begun: the error is better than none.
func TestPauseThatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: fail(503, "Retry-After", "9")}
		e := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient, e.Retry = &http.Client{Transport: o}, Retry{} })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := e.Token(ctx, clientCredentials)
		if failure := wantFailure(t, err); failure.StatusCode != 503 || failure.RetryAfter != 9*time.Second || time.Since(begin) != 0 {
			t.Errorf("got %v, which says to wait %v, after %v, want the 503 at once", err, failure.RetryAfter, time.Since(begin))
		}
	})
}

func TestTwoSecrets(t *testing.T) {
	pool := startPool(t)
	requests := func(e *Endpoint) (int, error) {
		before := pool.Requests(cognitotest.Token)
		_, err := e.Token(t.Context(), clientCredentials)
		return pool.Requests(cognitotest.Token) - before, err
	}
	want := func(t *testing.T, e *Endpoint, n int, code string) {
		t.Helper()
		got, err := requests(e)
		if got != n {
			t.Errorf("%d requests, want %d", got, n)
		}
		if code == "" && err != nil || code != "" && wantFailure(t, err).ErrorCode != code {
			t.Errorf("got %v, want error code %q", err, code)
		}
	}
	for name, style := range map[string]AuthStyle{"basic": AuthBasic, "post": AuthPost} {
		t.Run(name, func(t *testing.T) {
			secrets := []string{"the_secret_of_yesterday_", "the_secret_of_today_____"}
			if err := pool.SetSecrets(clientID, secrets[1]); err != nil {
				t.Fatal(err)
			}
			e := newEndpoint(pool.TokenURL(), func(e *Endpoint) {
				e.AuthStyle = style
				e.Secret = func(context.Context) ([]string, error) { return secrets, nil } // read for every request
			})
			want(t, e, 2, "")
			want(t, e, 1, "") // the second is preferred now
			secrets = []string{"the_secret_of_today_____", "the_secret_of_tomorrow__"}
			want(t, e, 1, "")
			if err := pool.SetSecrets(clientID, secrets[1]); err != nil {
				t.Fatal(err)
			}
			want(t, e, 2, "")
			want(t, e, 1, "")
			secrets = []string{"wrong___________________"}
			want(t, e, 1, InvalidClient)
			secrets = []string{"wrong___________________", "wrong_as_well___________"}
			want(t, e, 2, InvalidClient)
		})
	}
}

// Only a refusal of the client leads to the second secret, whatever status and code it has.
func TestWhenTheSecondSecretIsTried(t *testing.T) {
	for name, tc := range map[string]struct {
		first    func(int, *http.Request) (*http.Response, error)
		requests int
	}{
		"400 invalid_client": {refuse(InvalidClient), 2},
		"401 invalid_client": {func(int, *http.Request) (*http.Response, error) { return replyJSON(401, `{"error":"invalid_client"}`) }, 2},
		"401 without a code": {fail(401), 2},
		"invalid_scope":      {refuse(InvalidScope), 1},
		"401 invalid_scope":  {func(int, *http.Request) (*http.Response, error) { return replyJSON(401, `{"error":"invalid_scope"}`) }, 1},
		"500":                {fail(500), 1},
		"403":                {fail(403), 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := &origin{answer: each(tc.first, grant)}
			e := newEndpoint(originURL, func(e *Endpoint) {
				e.HTTPClient, e.Secret = &http.Client{Transport: o}, StaticSecret("first___", "second__")
			})
			_, err := e.Token(t.Context(), clientCredentials)
			if o.count() != tc.requests || (err == nil) != (tc.requests == 2) {
				t.Errorf("got %v after %d requests, want %d", err, o.count(), tc.requests)
			}
		})
	}
}

// With both the second secret and repetitions, requests are bounded.
func TestSecondSecretIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: func(n int, req *http.Request) (*http.Response, error) {
			if n == 2 || n == 5 {
				return refuse(InvalidClient)(n, req)
			}
			return fail(500)(n, req)
		}}
		e := newEndpoint(originURL, func(e *Endpoint) {
			e.HTTPClient, e.Secret, e.Retry = &http.Client{Transport: o}, StaticSecret("first___", "second__"), Retry{}
		})
		_, err := e.Token(t.Context(), clientCredentials)
		if failure := wantFailure(t, err); failure.ErrorCode != InvalidClient || o.count() != 5 {
			t.Errorf("got %v after %d requests, want invalid_client after 5", err, o.count())
		}
	})
}

func TestRevoke(t *testing.T) {
	var forms []url.Values
	var authorization []string
	status := 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		forms, authorization = append(forms, r.PostForm), append(authorization, r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status != 200 {
			io.WriteString(w, `{"error":"unsupported_token_type"}`)
		}
	}))
	defer server.Close()
	confidential := newEndpoint(server.URL)
	public := newEndpoint(server.URL, func(e *Endpoint) { e.Secret = nil })
	for _, e := range []*Endpoint{confidential, public} {
		if err := e.Revoke(t.Context(), "refresh-token"); err != nil {
			t.Error(err)
		}
	}
	status = 400
	if failure := wantFailure(t, public.Revoke(t.Context(), "refresh-token")); failure.ErrorCode != "unsupported_token_type" {
		t.Errorf("got %v, want unsupported_token_type", failure)
	}
	want := []url.Values{{"token": {"refresh-token"}}, {"token": {"refresh-token"}, "client_id": {clientID}}, {"token": {"refresh-token"}, "client_id": {clientID}}}
	if diff := cmp.Diff(want, forms); diff != "" {
		t.Errorf("forms (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(authorization[0], "Basic ") || authorization[1] != "" {
		t.Errorf("Authorization is %q, want that of the confidential client only", authorization)
	}
}

func TestEndpointCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*Endpoint)
		want string
	}{
		"http":       {func(e *Endpoint) { e.URL = "http://auth.example.com/" }, "URL is http://auth.example.com/, want https://…, or http://… on a loopback address"},
		"no client":  {func(e *Endpoint) { e.ClientID = "" }, `ClientID is "", want the ID of an app client, such as 7a8b9c0d1e2f3g4h5i6j7k8`},
		"timeout":    {func(e *Endpoint) { e.Timeout = -1 }, "Timeout is -1ns, want none that is negative"},
		"auth style": {func(e *Endpoint) { e.AuthStyle = -1 }, "AuthStyle is -1, want AuthBasic or AuthPost"},
		"retry":      {func(e *Endpoint) { e.Retry.MaxAttempts = -2 }, "Retry has MaxAttempts -2, MinBackoff 500ms, MaxBackoff 8s and MaxElapsed 30s, want none negative and MinBackoff at most MaxBackoff"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(originURL, tc.edit)
			_, err := e.Token(t.Context(), clientCredentials)
			if want := "cognito: endpoint: " + tc.want; err == nil || err.Error() != want || fmt.Sprint(e.Check()) != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// expires_in counts from before the request was sent: a slow answer must not make a token look younger.
func TestExpiryCountsFromTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &origin{answer: slowly(8*time.Second, grant)}
		begin := time.Now()
		e := newEndpoint(originURL, func(e *Endpoint) { e.HTTPClient = &http.Client{Transport: o} })
		token, err := e.Token(t.Context(), clientCredentials)
		if err != nil {
			t.Fatal(err)
		}
		earlier := begin.Add(-time.Hour)
		e.Now = func() time.Time { return earlier }
		if token, err := e.Token(t.Context(), clientCredentials); err != nil || !token.ObtainedAt.Equal(earlier) {
			t.Errorf("got %v, %v, want a token of the clock that is set", token, err)
		}
		if !token.ObtainedAt.Equal(begin) || !token.Expiry.Equal(begin.Add(time.Hour)) {
			t.Errorf("it lives from %v to %v, want an hour from %v", token.ObtainedAt, token.Expiry, begin)
		}
	})
}

func TestUsersHTTPClientIsLeftAlone(t *testing.T) {
	pool := startPool(t)
	client := &http.Client{Transport: defaultTransport}
	if _, err := newEndpoint(pool.TokenURL(), func(e *Endpoint) { e.HTTPClient = client }).Token(t.Context(), clientCredentials); err != nil {
		t.Fatal(err)
	}
	if client.CheckRedirect != nil {
		t.Error("CheckRedirect of the user's client is set, want it as it was")
	}
}
