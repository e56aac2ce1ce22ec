package identity

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cognitoidentity/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What goes wrong is a *RequestError that tells it and unwraps to the SDK's error; what may pass is tried three times.
func TestErrors(t *testing.T) {
	const provider = `does the identity pool have ` + logins + ` with app client "7a8b9c0d1e2f3g4h5i6j7k8" as an identity provider?`
	tests := []struct {
		name     string
		config   func(*Config)
		id       []answer // of GetId
		creds    []answer // of GetCredentialsForIdentity
		want     RequestError
		as       any // the SDK's error; nil: whatever it is
		attempts [2]int
	}{
		{
			"throttled", nil, nil,
			[]answer{failure(400, "TooManyRequestsException", "Rate exceeded")},
			RequestError{Operation: "GetCredentialsForIdentity", StatusCode: 400, ErrorCode: "TooManyRequestsException", Message: "Rate exceeded", temporary: true},
			new(*types.TooManyRequestsException),
			[2]int{1, 3},
		},
		{
			"too many identities", nil,
			[]answer{failure(400, "LimitExceededException", "Limit exceeded")},
			nil,
			RequestError{Operation: "GetId", StatusCode: 400, ErrorCode: "LimitExceededException", Message: "Limit exceeded", temporary: true},
			new(*types.LimitExceededException),
			[2]int{3, 0},
		},
		{
			"internal error", nil,
			[]answer{failure(500, "InternalErrorException", "")},
			nil,
			RequestError{Operation: "GetId", StatusCode: 500, ErrorCode: "InternalErrorException", temporary: true},
			new(*types.InternalErrorException),
			[2]int{3, 0},
		},
		{
			"bad gateway", nil,
			[]answer{{status: 502, body: "<html>"}},
			nil,
			RequestError{Operation: "GetId", StatusCode: 502, temporary: true},
			nil,
			[2]int{3, 0},
		},
		{
			"a status that is not repeated", nil,
			[]answer{failure(505, "SomethingException", "no")},
			nil,
			RequestError{Operation: "GetId", StatusCode: 505, ErrorCode: "SomethingException", Message: "no", temporary: true},
			nil,
			[2]int{1, 0},
		},
		{
			"not authorized", nil, nil,
			[]answer{failure(400, "NotAuthorizedException", "Invalid login token. Couldn't verify signed token.")},
			RequestError{
				Operation: "GetCredentialsForIdentity", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "Invalid login token. Couldn't verify signed token.",
				Hint: provider,
			},
			new(*types.NotAuthorizedException),
			[2]int{1, 1},
		},
		{
			"an expired token", func(c *Config) { c.IDToken = always(token(claim("exp", 946684799))) },
			[]answer{failure(400, "NotAuthorizedException", "Invalid login token. Token expired: 946684799 >= 946684800")},
			nil,
			RequestError{
				Operation: "GetId", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "Invalid login token. Token expired: 946684799 >= 946684800",
				Hint: "the ID token expired at 1999-12-31T23:59:59Z",
			},
			new(*types.NotAuthorizedException),
			[2]int{1, 0},
		},
		{
			"a token that expires now", func(c *Config) { c.IDToken = always(token(claim("exp", 946684800))) },
			[]answer{failure(400, "NotAuthorizedException", "Token expired")},
			nil,
			RequestError{Operation: "GetId", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "Token expired", Hint: "the ID token expired at 2000-01-01T00:00:00Z"},
			nil,
			[2]int{1, 0},
		},
		{
			"a token that does not say when it expires", func(c *Config) { c.IDToken = always(token(without("exp"))) },
			[]answer{failure(400, "NotAuthorizedException", "no")},
			nil,
			RequestError{Operation: "GetId", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "no", Hint: provider},
			nil,
			[2]int{1, 0},
		},
		{
			"one role and none preferred", func(c *Config) {
				c.IDToken = always(token(claim("cognito:roles", []string{admin}), without("cognito:preferred_role")))
			},
			nil,
			[]answer{failure(400, "NotAuthorizedException", "no")},
			RequestError{Operation: "GetCredentialsForIdentity", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "no", Hint: provider},
			nil,
			[2]int{1, 1},
		},
		{
			"a role that the user has", func(c *Config) {
				c.IDToken, c.RoleARN = always(token(without("cognito:preferred_role"))), admin
			},
			nil,
			[]answer{failure(400, "NotAuthorizedException", "no")},
			RequestError{Operation: "GetCredentialsForIdentity", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "no", Hint: provider},
			nil,
			[2]int{1, 1},
		},
		{
			"an answer of something else", nil,
			[]answer{{status: 403, body: "<html>forbidden</html>"}},
			nil,
			RequestError{Operation: "GetId", StatusCode: 403, temporary: true},
			nil,
			[2]int{1, 0},
		},
		{
			"a role that the user does not have", func(c *Config) { c.RoleARN = "arn:aws:iam::123456789012:role/Owner" },
			nil,
			[]answer{failure(400, "NotAuthorizedException", "Not allowed.")},
			RequestError{
				Operation: "GetCredentialsForIdentity", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "Not allowed.",
				Hint: "the role is not among the user's: " + analyst + ", " + admin,
			},
			new(*types.NotAuthorizedException),
			[2]int{1, 1},
		},
		{
			"several roles and none preferred", func(c *Config) { c.IDToken = always(token(without("cognito:preferred_role"))) },
			nil,
			[]answer{failure(400, "NotAuthorizedException", "Not allowed.")},
			RequestError{
				Operation: "GetCredentialsForIdentity", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "Not allowed.",
				Hint: "the user has several roles and none is preferred, select one by RoleSuffix or RoleARN: " + analyst + ", " + admin,
			},
			new(*types.NotAuthorizedException),
			[2]int{1, 1},
		},
		{
			"no identity pool", nil,
			[]answer{failure(400, "ResourceNotFoundException", "IdentityPool '"+pool+"' not found.")},
			nil,
			RequestError{
				Operation: "GetId", StatusCode: 400, ErrorCode: "ResourceNotFoundException", Message: "IdentityPool '" + pool + "' not found.",
				Hint: "is there an identity pool " + pool + " in eu-west-1?",
			},
			new(*types.ResourceNotFoundException),
			[2]int{1, 0},
		},
		{
			"a role that does not trust the pool", nil, nil,
			[]answer{failure(400, "InvalidIdentityPoolConfigurationException", "Invalid identity pool configuration. Check assigned IAM roles for this pool.")},
			RequestError{
				Operation: "GetCredentialsForIdentity", StatusCode: 400, ErrorCode: "InvalidIdentityPoolConfigurationException",
				Message: "Invalid identity pool configuration. Check assigned IAM roles for this pool.",
				Hint:    "does the identity pool have a role for authenticated users, and does that role trust " + pool + "?",
			},
			new(*types.InvalidIdentityPoolConfigurationException),
			[2]int{1, 1},
		},
		{
			"a parameter that is wrong", nil,
			[]answer{failure(400, "InvalidParameterException", "Please provide a valid public provider.")},
			nil,
			RequestError{Operation: "GetId", StatusCode: 400, ErrorCode: "InvalidParameterException", Message: "Please provide a valid public provider."},
			new(*types.InvalidParameterException),
			[2]int{1, 0},
		},
		{
			"an error that nobody knows", nil,
			[]answer{failure(403, "com.amazonaws#SomethingException", "no")},
			nil,
			RequestError{Operation: "GetId", StatusCode: 403, ErrorCode: "SomethingException", Message: "no"},
			nil,
			[2]int{1, 0},
		},
		{
			"garbage", nil,
			[]answer{{status: 200, body: "<html>sign in</html>"}},
			nil,
			RequestError{Operation: "GetId", StatusCode: 200, temporary: true},
			nil,
			[2]int{1, 0},
		},
		{
			"no identity", nil,
			[]answer{{status: 200, body: "{}"}},
			nil,
			RequestError{Operation: "GetId", Message: "answer has no IdentityId, want one", temporary: true},
			nil,
			[2]int{1, 0},
		},
		{
			"no credentials", nil, nil,
			[]answer{{status: 200, body: `{"IdentityId":"eu-west-1:1"}`}},
			RequestError{Operation: "GetCredentialsForIdentity", Message: "answer has no Credentials, want them", temporary: true},
			nil,
			[2]int{1, 1},
		},
		{
			"credentials without a session token", nil, nil,
			[]answer{{status: 200, body: `{"Credentials":{"AccessKeyId":"a","SecretKey":"b","Expiration":4102444800}}`}},
			RequestError{Operation: "GetCredentialsForIdentity", Message: "answer lacks AccessKeyId, SecretKey or SessionToken, want all three", temporary: true},
			nil,
			[2]int{1, 1},
		},
		{
			"credentials without a secret", nil, nil,
			[]answer{{status: 200, body: `{"Credentials":{"AccessKeyId":"a","SessionToken":"b","Expiration":4102444800}}`}},
			RequestError{Operation: "GetCredentialsForIdentity", Message: "answer lacks AccessKeyId, SecretKey or SessionToken, want all three", temporary: true},
			nil,
			[2]int{1, 1},
		},
		{
			"credentials without an access key", nil, nil,
			[]answer{{status: 200, body: `{"Credentials":{"SecretKey":"a","SessionToken":"b","Expiration":4102444800}}`}},
			RequestError{Operation: "GetCredentialsForIdentity", Message: "answer lacks AccessKeyId, SecretKey or SessionToken, want all three", temporary: true},
			nil,
			[2]int{1, 1},
		},
		{
			"credentials without an end", nil, nil,
			[]answer{{status: 200, body: `{"Credentials":{"AccessKeyId":"a","SecretKey":"b","SessionToken":"c"}}`}},
			RequestError{Operation: "GetCredentialsForIdentity", Message: "answer has no Expiration, want one", temporary: true},
			nil,
			[2]int{1, 1},
		},
		{
			"credentials that have expired", nil, nil,
			[]answer{{status: 200, body: `{"Credentials":{"AccessKeyId":"a","SecretKey":"b","SessionToken":"c","Expiration":946684800}}`}},
			RequestError{Operation: "GetCredentialsForIdentity", Message: "answer has credentials that expired at 2000-01-01T00:00:00Z, and it is 2000-01-01T00:00:", temporary: true},
			nil,
			[2]int{1, 1},
		},
		{
			"credentials that never end", nil, nil,
			[]answer{{status: 200, body: `{"Credentials":{"AccessKeyId":"a","SecretKey":"b","SessionToken":"c","Expiration":946814401}}`}},
			RequestError{Operation: "GetCredentialsForIdentity", Message: "answer has credentials until 2000-01-02T12:00:01Z, want at most 36h0m0s", temporary: true},
			nil,
			[2]int{1, 1},
		},
		{
			"a redirect", nil,
			[]answer{{status: 307, header: http.Header{"Location": {"https://example.com/"}}}},
			nil,
			RequestError{Operation: "GetId", StatusCode: 307, temporary: true},
			nil,
			[2]int{1, 0},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tc.config == nil {
					tc.config = func(*Config) {}
				}
				p, s := newProvider(t, tc.config)
				s.repeat = true
				s.answers["GetId"], s.answers["GetCredentialsForIdentity"] = tc.id, tc.creds
				_, err := p.Retrieve(t.Context())
				var got *RequestError
				if !errors.As(err, &got) {
					t.Fatalf("got %v, want a *RequestError", err)
				}
				if !strings.HasPrefix(got.Message, tc.want.Message) {
					t.Errorf("message is %q, want it to begin with %q", got.Message, tc.want.Message)
				}
				if tc.want.ErrorCode == "" {
					got.ErrorCode = ""
				}
				if diff := cmp.Diff(&tc.want, got, cmp.AllowUnexported(RequestError{}), cmpopts.IgnoreFields(RequestError{}, "Err", "Message", "RequestID")); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				if tc.want.StatusCode != 0 && got.RequestID != "request-1" {
					t.Errorf("request ID is %q, want that of the answer", got.RequestID)
				}
				if tc.as != nil && !errors.As(err, tc.as) {
					t.Errorf("got %#v, want it to unwrap to %T", err, tc.as)
				}
				if got := s.count(); got != tc.attempts {
					t.Errorf("called %v times, want %v", got, tc.attempts)
				}
			})
		})
	}
}

func TestErrorText(t *testing.T) {
	for want, e := range map[string]*RequestError{
		"identity: GetId: NotAuthorizedException: Not allowed. (status 400)\nhint: ask": {Operation: "GetId", StatusCode: 400, ErrorCode: "NotAuthorizedException", Message: "Not allowed.", Hint: "ask"},
		"identity: GetId: no route to host":                                             {Operation: "GetId", Message: "no route to host"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A text of the service is bounded, and it cannot move a terminal's cursor.
func TestErrorTextIsClean(t *testing.T) {
	p, s := newProvider(t)
	s.always("GetId", failure(400, "NotAuthorizedException", "a\x1b[2Jb\nc\u202ed"+strings.Repeat("x", 10_000)))
	_, err := p.Retrieve(t.Context())
	if err == nil || len(err.Error()) > 550 {
		t.Fatalf("got %d bytes, want an error of 550 at most", len(err.Error()))
	}
	if text, _, _ := strings.Cut(err.Error(), "xx"); text != "identity: GetId: NotAuthorizedException: a [2Jb c d" {
		t.Errorf("got %q, want no control characters", text)
	}
}

func TestCut(t *testing.T) {
	whole := strings.Repeat("x", 300)
	for text, want := range map[string]string{whole: whole, whole + "x": whole + "…", whole[:299] + "ü": whole[:299] + "…"} {
		if got := cut(text); got != want {
			t.Errorf("%d bytes: got %q, want %q", len(text), got, want)
		}
	}
}

// Parts of a token are removed, and not parts of words.
func TestClean(t *testing.T) {
	if got := clean("id: 12345678, 123456789", "id.12345678.123456789"); got != "id: 12345678, [removed]" {
		t.Errorf("got %q", got)
	}
}

func TestDefaultClientBoundsAnAttempt(t *testing.T) {
	if got := newHTTPClient(nil).Timeout; got != 10*time.Second {
		t.Errorf("timeout is %v, want 10s", got)
	}
	if got := newHTTPClient(&http.Client{Timeout: time.Minute}).Timeout; got != time.Minute {
		t.Errorf("timeout is %v, want that of the configured client", got)
	}
}

// A transport is a function that is one.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A client that says how to follow redirects does.
func TestConfiguredRedirects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := errors.New("asked")
		p, s := newProvider(t, func(c *Config) {
			c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return asked }
		})
		s.always("GetId", answer{status: http.StatusSeeOther, header: http.Header{"Location": {"https://example.com/"}}})
		if _, err := p.Retrieve(t.Context()); !errors.Is(err, asked) {
			t.Errorf("got %v, want that of CheckRedirect", err)
		}
	})
}

// There is no answer: the error says why, and the operation once.
func TestNetworkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried := 0
		p, _ := newProvider(t, func(c *Config) {
			c.HTTPClient = &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
				tried++
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			})}
		})
		_, err := p.Retrieve(t.Context())
		var got *RequestError
		if !errors.As(err, &got) || got.StatusCode != 0 || !got.Temporary() || !errors.Is(err, syscall.ECONNREFUSED) || tried != 3 {
			t.Fatalf("after %d attempts: got %#v, want after 3 a *RequestError without a status that may pass", tried, err)
		}
		if text := err.Error(); !strings.Contains(text, "connection refused") || strings.Contains(text, "operation error") {
			t.Errorf("text is %q, want the reason, and the operation once", text)
		}
	})
}

// An answer without an end is given up after 64 KiB, and a redirect does not get the token, by the default client too.
func TestAnswersAreBoundedAndNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s got a request, want the redirect not followed", r.Host)
	}))
	defer elsewhere.Close()
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"IdentityId":"`)
			for sent := 0; sent < 1<<30; sent += 1 << 16 {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
			t.Error("the server could send 1 GiB, want it to be cut off")
		}, "request body too large"},
		{"endless error", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			for sent := 0; sent < 1<<30; sent += 1 << 16 {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
					return
				}
			}
			t.Error("the server could send 1 GiB, want it to be cut off")
		}, "request body too large"},
		{"longer than 64 KiB", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{`+strings.Repeat(" ", 64<<10)+`"IdentityId":"eu-west-1:1"}`)
		}, "request body too large"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "status 307"},
		{"redirect to be got", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		}, "status 302"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(tc.answer)
			defer server.Close()
			p, err := New(Config{IdentityPoolID: pool, UserPoolID: users, IDToken: always(token()), Endpoint: server.URL, Timeout: 10 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Retrieve(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
