package cognito

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// An Endpoint is an endpoint of a user pool's domain that authenticates app clients: the token endpoint (RFC 6749 section
// 3.2) or the revocation endpoint (RFC 7009). It sends single requests and keeps no token: most users want a [TokenSource].
// Other grants than client credentials, and package login, are built on it.
//
// The fields mean what those of the same name in [Config] do. It is safe for concurrent use once they are set, and must not
// be copied after that.
type Endpoint struct {
	// URL of the endpoint. Required.
	URL string
	// ClientID of the app client. Required.
	ClientID string
	// Secret of the app client. Nil for a public client, which names itself by the parameter client_id.
	Secret    Secret
	AuthStyle AuthStyle
	Timeout   time.Duration
	// Retry says how requests are repeated. Set MaxAttempts to 1 for what must not be sent twice, such as an authorization
	// code.
	Retry      Retry
	HTTPClient *http.Client
	Now        func() time.Time

	preferred atomic.Pointer[[sha256.Size]byte] // the hash of the secret that worked last
	failed    func(*TokenRequestError)          // if set, is told of each request that failed
}

// maxAnswerBytes bounds what is read of an answer: three tokens of the size that HTTP servers take in a header, and room.
const maxAnswerBytes = 128 << 10

// defaultTransport keeps no connections: a token an hour needs none held open, nor one gone stale.
var defaultTransport = &http.Transport{
	Proxy:                  http.ProxyFromEnvironment,
	TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	ForceAttemptHTTP2:      true,
	MaxResponseHeaderBytes: 64 << 10,
	DisableKeepAlives:      true,
}

// Check returns an error that names all that is wrong with the fields. It does no I/O.
func (e *Endpoint) Check() error {
	_, err := parseURL("URL", e.URL)
	err = errors.Join(err, checkClientID(e.ClientID), e.AuthStyle.check(), e.Retry.check())
	if e.Timeout < 0 {
		err = errors.Join(err, fmt.Errorf("Timeout is %v, want none that is negative", e.Timeout))
	}
	if err != nil {
		return fmt.Errorf("cognito: endpoint: %w", err)
	}
	return nil
}

// Token sends a token request with the parameters of form, adds the app client's authentication, and returns the token of
// the answer (RFC 6749 section 5.1). Of a person's login, [Token.Extra] has the strings id_token and refresh_token. ctx
// bounds all of it, as Retry.MaxElapsed does. Errors are a [*TokenRequestError], or those of Secret.
func (e *Endpoint) Token(ctx context.Context, form url.Values) (*Token, error) {
	var token *Token
	err := e.send(ctx, form, func(a *answer) (err error) {
		token, err = parseToken(a.contentType, a.body, a.sentAt)
		return err
	})
	if err != nil {
		return nil, err
	}
	return token, nil
}

// Revoke asks the endpoint, which is the revocation endpoint then, to revoke a refresh token with all access tokens that
// were issued for it (RFC 7009 section 2.1). Errors are those of [Endpoint.Token].
func (e *Endpoint) Revoke(ctx context.Context, refreshToken string) error {
	return e.send(ctx, url.Values{"token": {refreshToken}}, func(*answer) error { return nil })
}

// send repeats the request as Retry says, until accept takes an answer of status 200.
func (e *Endpoint) send(ctx context.Context, form url.Values, accept func(*answer) error) error {
	if err := e.Check(); err != nil {
		return err
	}
	retry := e.Retry.withDefaults()
	caller := ctx
	ctx, cancel := context.WithTimeout(caller, retry.MaxElapsed)
	defer cancel()
	secrets, err := e.secrets(ctx)
	if err != nil {
		return fmt.Errorf("cognito: %w", err)
	}

	backoff := retry.MinBackoff
	for attempt, sent := 1, 1; ; sent++ {
		failure := e.attempt(ctx, form, secrets, accept)
		if failure == nil {
			e.prefer(secrets[0])
			return nil
		}
		failure.Attempts = sent
		if err := caller.Err(); err != nil {
			failure.Err = err // and not that the connection was closed therefore
			return failure
		}
		if e.failed != nil {
			e.failed(failure)
		}
		if failure.refusesClient() && len(secrets) > 1 {
			secrets = secrets[1:]
			continue
		}
		if !failure.Temporary() || attempt >= retry.MaxAttempts || !pause(ctx, backoff, failure.RetryAfter) {
			return failure
		}
		attempt++
		backoff = min(2*backoff, retry.MaxBackoff)
	}
}

// pause waits for about d, and at least as long as the server asked for. It returns false, at once, if that does not fit
// into what is left of ctx.
func pause(ctx context.Context, d, atLeast time.Duration) bool {
	if d > 0 {
		d = d/2 + rand.N(d) //nolint:gosec // spreads load, keeps no secret
	}
	if atLeast > 0 {
		d += atLeast // so that those who were told the same time do not come at it
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// secrets returns the secrets in the order in which they are to be tried; for a public client a single empty one.
func (e *Endpoint) secrets(ctx context.Context) ([]string, error) {
	if e.Secret == nil {
		return []string{""}, nil
	}
	secrets, err := e.Secret.secrets(ctx)
	if err != nil {
		return nil, err
	}
	if p := e.preferred.Load(); p != nil && len(secrets) > 1 && sha256.Sum256([]byte(secrets[1])) == *p {
		slices.Reverse(secrets)
	}
	return secrets, nil
}

func (e *Endpoint) prefer(secret string) {
	sum := sha256.Sum256([]byte(secret))
	if p := e.preferred.Load(); p == nil || *p != sum {
		e.preferred.Store(&sum)
	}
}

// An answer is what came back for a request.
type answer struct {
	sentAt      time.Time // before the request was sent
	status      int
	statusText  string
	header      http.Header
	contentType string
	body        []byte
}

// attempt sends one request, with the first of the secrets. All of them are kept out of the error.
func (e *Endpoint) attempt(ctx context.Context, form url.Values, secrets []string, accept func(*answer) error) *TokenRequestError {
	req, err := e.request(ctx, form, secrets[0])
	if err != nil {
		return &TokenRequestError{Err: err}
	}
	hide := newScrubber(req, form, e.ClientID, secrets)
	a, failure := e.roundTrip(ctx, req, hide)
	if failure != nil {
		return failure
	}
	if a.status == http.StatusOK {
		if err = accept(a); err == nil {
			return nil
		}
	}
	return a.failure(err, hide, e.now())
}

// request builds the request. form is not changed.
func (e *Endpoint) request(ctx context.Context, form url.Values, secret string) (*http.Request, error) {
	params := make(url.Values, len(form)+2)
	for name, values := range form {
		params[name] = values
	}
	switch {
	case e.Secret == nil:
		params.Set("client_id", e.ClientID)
	case e.AuthStyle == AuthPost:
		params.Set("client_id", e.ClientID)
		params.Set("client_secret", secret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, strings.NewReader(params.Encode()))
	if err != nil {
		return nil, errors.New("the request could not be made") // not shown: it may hold a secret
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if e.Secret != nil && e.AuthStyle == AuthBasic {
		req.SetBasicAuth(url.QueryEscape(e.ClientID), url.QueryEscape(secret))
	}
	return req, nil
}

// roundTrip sends the request and reads the answer, all within Timeout.
func (e *Endpoint) roundTrip(ctx context.Context, req *http.Request, hide *scrubber) (*answer, *TokenRequestError) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(e.Timeout, 10*time.Second))
	defer cancel()
	cause := func(err error) error {
		if ctx.Err() != nil { // whose error must not be matched: it is not that of the caller's context
			return fmt.Errorf("no answer within %v", time.Since(start).Round(time.Millisecond))
		}
		return hide.cause(err)
	}
	a := &answer{sentAt: e.now()}
	resp, err := e.client().Do(req.WithContext(ctx))
	if err != nil {
		return nil, &TokenRequestError{Err: cause(err), temporary: !isCertificateError(err)}
	}
	defer resp.Body.Close()
	a.status, a.statusText, a.header, a.contentType = resp.StatusCode, resp.Status, resp.Header, resp.Header.Get("Content-Type")
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err == nil && len(body) <= maxAnswerBytes {
		a.body = body
		return a, nil
	}
	// What was read is not shown: a token may be cut in two at its end.
	var failure *TokenRequestError
	if err != nil {
		failure = a.failure(fmt.Errorf("reading the answer: %w", cause(err)), hide, e.now())
		failure.temporary = true
	} else {
		failure = a.failure(fmt.Errorf("the answer has more than %d bytes", maxAnswerBytes), hide, e.now())
	}
	return nil, failure
}

func isCertificateError(err error) bool {
	var invalid *tls.CertificateVerificationError
	return errors.As(err, &invalid)
}

// client returns HTTPClient, or ours, that follows no redirects: a token endpoint has no reason for one, and the secret
// would go along.
func (e *Endpoint) client() *http.Client {
	c := http.Client{Transport: defaultTransport}
	if e.HTTPClient != nil {
		c = *e.HTTPClient
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

func (e *Endpoint) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// retryAfter reads the header Retry-After (RFC 9110 section 10.2.3): seconds, or a date, which counts from the answer's own
// Date where it has one, so that the clocks need not agree.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if date, err := http.ParseTime(text); err == nil {
		if from, err := http.ParseTime(h.Get("Date")); err == nil {
			now = from
		}
		return max(0, min(date.Sub(now), MaxRetryAfter))
	}
	n, _ := strconv.ParseUint(text, 10, 31) // with an error, it is zero or the largest number
	return min(time.Duration(n)*time.Second, MaxRetryAfter)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
