package cognito

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Transport returns an [http.RoundTripper] that adds the token to each request, in place of an Authorization header that it
// may have, and sends it on by base; nil means [http.DefaultTransport]. The caller's request is not changed.
//
// Where the token goes. It goes to the host that a request names, over https, or http on a loopback address; any other
// request is an error. With hosts, such as api.example.com or api.example.com:8443, it goes to these alone, and a request
// to another is an error: say them if the addresses of requests come from elsewhere. A redirect that an [http.Client]
// follows has the token only if it stays with scheme, host and port of the first request, or with hosts; if not, it goes on
// without.
//
// When it is refused. On a 401 with error="invalid_token" (RFC 6750 section 3.1) the request is sent once more with a newer
// token, if its body can be sent again ([http.Request.GetBody]). The newer token is bought only if the refused one is older
// than a minute, and none was bought so in the minute before, which grows to an hour while that does not help: a token that
// is refused for its client or its audience would be refused again.
func (s *TokenSource) Transport(base http.RoundTripper, hosts ...string) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	hosts = slices.Clone(hosts)
	for i := range hosts {
		hosts[i] = strings.ToLower(hosts[i])
	}
	return &transport{source: s, base: base, hosts: hosts}
}

type transport struct {
	source *TokenSource
	base   http.RoundTripper
	hosts  []string
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	with, err := t.getsToken(req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	if !with {
		return t.base.RoundTrip(req)
	}
	token, err := t.source.Token(req.Context())
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, err := t.send(req, req.Body, token)
	if err != nil || resp == nil || resp.StatusCode != http.StatusUnauthorized || !resendable(req) {
		return resp, err
	}
	newer := t.source.Replacement(req.Context(), token, resp.Header["Www-Authenticate"])
	if newer == nil {
		return resp, nil
	}
	body := req.Body
	if req.GetBody != nil {
		if body, err = req.GetBody(); err != nil {
			return resp, nil
		}
	}
	drain(resp.Body)
	return t.send(req, body, newer)
}

// CloseIdleConnections does what that of [http.Client] asks for.
func (t *transport) CloseIdleConnections() {
	if base, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// send sends a copy of the request with the token. The answer's Request is the caller's, which has no token.
func (t *transport) send(req *http.Request, body io.ReadCloser, token *Token) (*http.Response, error) {
	sent := req.WithContext(req.Context())
	sent.Body = body
	sent.Header = make(http.Header, len(req.Header)+1)
	for name, values := range req.Header {
		if !strings.EqualFold(name, "Authorization") {
			sent.Header[name] = slices.Clone(values)
		}
	}
	sent.Header.Set("Authorization", token.Authorization())
	resp, err := t.base.RoundTrip(sent)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// getsToken reports whether a request gets the token. An [http.Client] calls RoundTrip for each hop of a redirect, with the
// answer that led to it in Request.Response, so a host that was not asked could have itself be sent the token. All requests
// on the way count: once it has left, who comes back was sent by a stranger.
func (t *transport) getsToken(req *http.Request) (bool, error) {
	if req.URL == nil {
		return false, nil // base says what is wrong
	}
	first, hops := req, 0
	for first.Response != nil {
		previous := first.Response.Request
		if hops++; hops > maxHops || previous == nil || previous.URL == nil {
			return false, nil // nothing is known of the way here
		}
		first = previous
	}
	if hops == 0 {
		return true, t.check(req.URL)
	}
	for r := req; ; r = r.Response.Request {
		if t.check(r.URL) != nil || len(t.hosts) == 0 && !sameOrigin(r.URL, first.URL) {
			return false, nil
		}
		if r == first {
			return true, nil
		}
	}
}

// maxHops bounds the way back through redirects. An http.Client follows ten.
const maxHops = 100

// check returns an error unless the token may be sent to u.
func (t *transport) check(u *url.URL) error {
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return fmt.Errorf("cognito: token for %s://%s, want https, or http on a loopback address", u.Scheme, u.Host)
	}
	if host := canonicalHost(u); len(t.hosts) > 0 && !slices.ContainsFunc(t.hosts, func(h string) bool { return host == canonicalHost(&url.URL{Scheme: u.Scheme, Host: h}) }) {
		return fmt.Errorf("cognito: token for host %s, want one of %q", u.Host, t.hosts)
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && canonicalHost(a) == canonicalHost(b)
}

// resendable reports whether the request's body can be sent once more.
func resendable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// drain lets the connection be used again, unless too much is on it.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}

// forced remembers the tokens that were bought before their time.
type forced struct {
	at    time.Time     // when the last one was asked for
	since time.Time     // when the token that it replaces was obtained
	wait  time.Duration // how long after at there is no other
}

// Bounds of how often tokens are bought because one was refused.
const (
	minForced = time.Minute
	maxForced = time.Hour
)

// Replacement returns a token to send a request with once more that was refused, or nil if there is none that might help.
// challenges are the values of WWW-Authenticate that the refusal came with: there is no replacement unless one of them has
// error="invalid_token" (RFC 6750 section 3.1). A token is bought for it as seldom as [TokenSource.Transport] says. It may wait
// for that, as long as ctx allows. Transport calls it by itself; it is for clients of other protocols.
func (s *TokenSource) Replacement(ctx context.Context, refused *Token, challenges []string) *Token {
	if !invalidToken(challenges) {
		return nil
	}
	from := refused.ObtainedAt.Add(1)
	if t, err := s.tokens.Get(ctx); err == nil && !t.ObtainedAt.Before(from) {
		return t // somebody has bought it already
	}
	now := s.cfg.Now()
	if now.Sub(refused.ObtainedAt) < minForced || !s.mayForce(now, refused) {
		return nil
	}
	t, err := s.renew(ctx, from)
	if err != nil {
		return nil // the answer at hand says what is wrong
	}
	return t
}

// mayForce reports whether a token may be bought in place of the refused one, and remembers that it is. All who were refused
// the same token share one.
func (s *TokenSource) mayForce(now time.Time, refused *Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ago := &s.forced, now.Sub(s.forced.at)
	wait := max(f.wait, minForced)
	switch {
	case f.since.Equal(refused.ObtainedAt):
		return true
	case !f.at.IsZero() && ago >= 0 && ago < wait:
		return false
	case !f.at.IsZero() && ago >= 0 && ago < 2*wait:
		wait = min(2*wait, maxForced)
	default:
		wait = minForced
	}
	s.forced = forced{at: now, since: refused.ObtainedAt, wait: wait}
	return true
}
