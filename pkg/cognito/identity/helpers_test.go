package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	pool    = "eu-west-1:00000000-1111-2222-3333-444444444444"
	users   = "eu-west-1_AbCdEfGhI"
	logins  = "cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
	jane    = "eu-west-1:11111111-aaaa-bbbb-cccc-000000000001"
	analyst = "arn:aws:iam::123456789012:role/Analyst"
	admin   = "arn:aws:iam::123456789012:role/teams/Admin"
)

// token makes an ID token, by default of Jane with two roles. Its signature is none: identity pools check it, not we.
func token(edit ...func(claims map[string]any)) string {
	c := map[string]any{
		"iss": "https://" + logins, "sub": "jane", "aud": "7a8b9c0d1e2f3g4h5i6j7k8", "token_use": "id", "exp": 4102444800,
		"cognito:roles": []string{analyst, admin}, "cognito:preferred_role": analyst,
	}
	for _, e := range edit {
		e(c)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256","kid":"test"}`)) + "." + part(payload) + "." + part([]byte("CANARY signature of an ID token"))
}

func claim(name string, value any) func(map[string]any) {
	return func(c map[string]any) { c[name] = value }
}

func without(name string) func(map[string]any) {
	return func(c map[string]any) { delete(c, name) }
}

// always is an IDToken that returns one token.
func always(t string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return t, nil }
}

// An answer of the service.
type answer struct {
	status int
	body   string
	header http.Header
	delay  time.Duration // until the request's context ends, if it is that long
}

// service stands in for Amazon Cognito Identity, JSON 1.1 protocol. It is a transport too, so that time can be fake.
type service struct {
	mu       sync.Mutex
	life     time.Duration // of credentials, default an hour
	now      func() time.Time
	answers  map[string][]answer // by operation: the next ones in place of good ones; the last serves on if repeat is set
	repeat   bool
	requests []request
	issued   int
}

type request struct {
	Operation string
	Host      string
	Header    http.Header
	Body      map[string]any
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation, _ := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "AWSCognitoIdentityService.")
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var body map[string]any
	if err := json.Unmarshal(text, &body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, request{operation, r.Host, r.Header.Clone(), body})
	a := s.good(operation, body)
	if next := s.answers[operation]; len(next) > 0 {
		if a = next[0]; len(next) > 1 || !s.repeat {
			s.answers[operation] = next[1:]
		}
	}
	s.mu.Unlock()
	if a.delay > 0 {
		select {
		case <-time.After(a.delay):
		case <-r.Context().Done():
			return
		}
	}
	maps.Copy(w.Header(), a.header)
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", "request-1")
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

// good is what the service answers when all is well. The caller holds mu.
func (s *service) good(operation string, body map[string]any) answer {
	switch operation {
	case "GetId":
		return answer{status: 200, body: fmt.Sprintf(`{"IdentityId":%q}`, jane)}
	case "GetCredentialsForIdentity":
		s.issued++
		return answer{status: 200, body: credentials(s.issued, fmt.Sprint(body["IdentityId"]), s.now().Add(s.life))}
	}
	return answer{status: 400, body: `{"__type":"UnknownOperationException"}`}
}

func credentials(n int, identity string, expires time.Time) string {
	return fmt.Sprintf(`{"IdentityId":%q,"Credentials":{"AccessKeyId":"ASIA%d","SecretKey":"CANARY secret %d","SessionToken":"CANARY session %d","Expiration":%.3f}}`,
		identity, n, n, n, float64(expires.UnixMilli())/1000)
}

// failure is an error of the API.
func failure(status int, code, message string) answer {
	body, err := json.Marshal(map[string]string{"__type": code, "message": message})
	if err != nil {
		panic(err)
	}
	return answer{status: status, body: string(body)}
}

// RoundTrip makes the service a transport.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r.Host = r.URL.Host
	s.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

// next sets the next answers of an operation.
func (s *service) next(operation string, answers ...answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[operation], s.repeat = answers, false
}

// always sets the answer of an operation from now on.
func (s *service) always(operation string, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[operation], s.repeat = []answer{a}, true
}

// well lets it answer well again.
func (s *service) well() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.answers)
}

// count returns how often each operation was asked for: GetId, GetCredentialsForIdentity.
func (s *service) count() [2]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var n [2]int
	for _, r := range s.requests {
		n[slices.Index([]string{"GetId", "GetCredentialsForIdentity"}, r.Operation)]++
	}
	return n
}

func newService() *service {
	return &service{life: time.Hour, now: time.Now, answers: make(map[string][]answer)}
}

// newProvider returns a Provider that works, with edits, and the service that it asks.
func newProvider(t *testing.T, edit ...func(*Config)) (*Provider, *service) {
	t.Helper()
	s := newService()
	cfg := Config{IdentityPoolID: pool, UserPoolID: users, IDToken: always(token()), HTTPClient: &http.Client{Transport: s}}
	for _, e := range edit {
		e(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p, s
}

// logged is a Logger's output.
type logged struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// key returns the access key of credentials that must be had.
func key(t *testing.T, p *Provider) string {
	t.Helper()
	c, err := p.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.AccessKeyID
}
