package login

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the callback server. It talks to one browser, for as long as a person takes to sign in, while anything on the
// machine may connect to it.
const (
	// maxConns is more than the six connections that browsers make to a host.
	maxConns = 64
	// maxHeaderBytes leaves room for the cookies that other programs on localhost have set, on whatever port: browsers send
	// up to 180 cookies of 4 kB (RFC 6265 section 6.1 asks for 50), and most of them far less.
	maxHeaderBytes = 256 << 10
	readTimeout    = 5 * time.Second
	// pageTimeout is how long the browser has to fetch the last page.
	pageTimeout = 3 * time.Second
	// lingerTimeout is how long connections that a browser has opened in advance hold up the end.
	lingerTimeout = 200 * time.Millisecond
)

// Bounds of what an answer may hold. Cognito's codes are UUIDs; other servers' have some hundred bytes.
const (
	maxCodeBytes        = 4 << 10
	maxErrorBytes       = 64
	maxDescriptionBytes = 256
)

// A callback waits on a loopback address for the answer to one authorization request.
type callback struct {
	host, path string // of the requests that are answered
	state      string
	issuers    []string
	notice     func(problem string) // is told of the first answers that are ignored, with the error that they claim, or ""

	server  *http.Server
	serving sync.WaitGroup

	answers chan answer   // the one answer
	outcome chan struct{} // closed when it is known what came of it
	last    page          // what the browser is shown then
	shown   chan struct{} // closed when it has been

	mu       sync.Mutex
	answered bool
	ignored  int
}

// An answer is that of the authorization endpoint: a code, or an error.
type answer struct {
	code string
	err  *AuthorizationError
}

// listen starts a callback for the request, at its redirect URL, and completes that with the port.
func listen(ctx context.Context, r *AuthorizationRequest, issuers []string, notice func(problem string)) (*callback, error) {
	redirect, err := url.Parse(r.RedirectURL)
	if err != nil {
		return nil, err // New has checked it
	}
	listeners, port, err := listenLoopback(ctx, listenOn, redirect.Hostname(), redirectPort(redirect))
	if err != nil {
		return nil, err
	}
	if redirect.Port() == "0" {
		// Only the port, as the rest has to be what is registered, to the letter.
		r.RedirectURL = strings.Replace(r.RedirectURL, ":0", ":"+port, 1)
		redirect.Host = strings.TrimSuffix(redirect.Host, "0") + port
	}
	c := &callback{
		host:    hostHeader(redirect.Host),
		path:    cmp.Or(redirect.EscapedPath(), "/"), // RFC 9110 section 4.2.3
		state:   r.State,
		issuers: issuers,
		notice:  notice,
		answers: make(chan answer, 1),
		outcome: make(chan struct{}),
		shown:   make(chan struct{}),
	}
	c.server = &http.Server{
		Handler:           http.HandlerFunc(c.serve),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	c.server.SetKeepAlivesEnabled(false)
	for _, l := range listeners {
		c.serving.Go(func() {
			_ = c.server.Serve(netutil.LimitListener(l, maxConns)) // always an error, and after Close http.ErrServerClosed
		})
	}
	return c, nil
}

// hostHeader writes the host as browsers do (RFC 9110 section 4.2.3).
func hostHeader(host string) string { return strings.TrimSuffix(strings.ToLower(host), ":80") }

func redirectPort(u *url.URL) string {
	if u.Port() == "" {
		return "80"
	}
	return u.Port()
}

// A listenFunc listens on host:port.
type listenFunc func(ctx context.Context, addr string) (net.Listener, error)

// listenLoopback listens on the host's addresses. Those of localhost are taken both: a browser may try either first, and what
// another program could listen on, it would get the answer on.
func listenLoopback(ctx context.Context, on listenFunc, host, port string) (listeners []net.Listener, taken string, err error) {
	if host != "localhost" {
		l, err := on(ctx, net.JoinHostPort(host, port))
		if err != nil {
			return nil, "", err
		}
		return []net.Listener{l}, portOf(l), nil
	}
	// A port that is free on one address need not be on the other. With a fixed port there is one try.
	const tries = 10
	for range tries {
		listeners, taken, err = listenBoth(ctx, on, port)
		if err == nil || port != "0" || !errors.Is(err, errInUse) {
			break
		}
	}
	return listeners, taken, err
}

// listenBoth listens on 127.0.0.1 and on ::1, on one of them if the machine does not have the other.
func listenBoth(ctx context.Context, on listenFunc, port string) (listeners []net.Listener, taken string, err error) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, listenErr := on(ctx, net.JoinHostPort(host, port))
		switch {
		case listenErr == nil:
			listeners = append(listeners, l)
			port = portOf(l)
		case noSuchAddress(listenErr):
			err = listenErr
		default:
			for _, l := range listeners {
				l.Close()
			}
			return nil, "", listenErr
		}
	}
	if len(listeners) == 0 {
		return nil, "", err
	}
	return listeners, port, nil
}

func listenOn(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, &PortError{Addr: addr, Err: err}
	}
	return l, nil
}

// noSuchAddress reports whether the machine does not have the address, as without IPv6.
func noSuchAddress(err error) bool {
	return errors.Is(err, errNoAddress) || errors.Is(err, errNoFamily)
}

func portOf(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// wait returns the answer, or the context's error.
func (c *callback) wait(ctx context.Context) (answer, error) {
	select {
	case a := <-c.answers:
		return a, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// finish has the browser shown the page and returns when it has been, or could not be in time; then the server is gone. With
// no answer, nobody waits for the page.
func (c *callback) finish(last page) {
	c.mu.Lock()
	answered := c.answered
	c.answered = true
	c.mu.Unlock()
	c.last = last
	close(c.outcome)
	if answered {
		timer := time.NewTimer(pageTimeout)
		defer timer.Stop()
		select {
		case <-c.shown:
		case <-timer.C:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), lingerTimeout)
	defer cancel()
	_ = c.server.Shutdown(ctx)
	_ = c.server.Close()
	c.serving.Wait()
}

// serve answers one request. Whatever is not the answer to this very login changes nothing: a page in the same browser, or
// another program, can send any request here.
func (c *callback) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case hostHeader(r.Host) != c.host:
		// A name that leads here and is not ours is one of DNS rebinding.
		pageForbidden.write(w)
	case r.URL.EscapedPath() != c.path:
		pageNotFound.write(w)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		pageMethod.write(w)
	case !isNavigation(r.Header):
		pageForbidden.write(w)
	default:
		c.serveAnswer(w, r)
	}
}

// isNavigation reports whether the request is for a page to show, and not for a picture, a frame or a script's fetch (W3C
// Fetch Metadata Request Headers, section 2). Browsers that do not say are believed.
func isNavigation(h http.Header) bool {
	destination, mode := h.Get("Sec-Fetch-Dest"), h.Get("Sec-Fetch-Mode")
	return (destination == "" || destination == "document") && (mode == "" || mode == "navigate")
}

func (c *callback) serveAnswer(w http.ResponseWriter, r *http.Request) {
	a, ok := c.read(r.URL.RawQuery)
	if !ok {
		c.ignore(r.URL.Query().Get("error"))
		pageStrange.write(w)
		return
	}
	if !c.claim() {
		pageUsed.write(w)
		return
	}
	defer close(c.shown)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the request has been read, and the tokens may take longer
	c.answers <- a
	if a.err != nil {
		pageRefused(a.err).write(w)
		return
	}
	select {
	case <-c.outcome:
		c.last.write(w)
	case <-r.Context().Done(): // the person has closed the window; the login goes on
	}
}

// claim reports whether this answer is the first.
func (c *callback) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.answered
	c.answered = true
	return first
}

// maxNotices bounds what a page in the same browser can have printed, and knownErrors what it can have it say.
const maxNotices = 3

// knownErrors are the error codes of RFC 6749 section 4.1.2.1.
var knownErrors = []string{
	"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error",
	"temporarily_unavailable",
}

// ignore takes note of an answer that is not to this login.
func (c *callback) ignore(problem string) {
	c.mu.Lock()
	c.ignored++
	loud := c.ignored <= maxNotices
	c.mu.Unlock()
	if !slices.Contains(knownErrors, problem) {
		problem = ""
	}
	if loud {
		c.notice(problem)
	}
}

// read returns the answer that a query holds (RFC 6749 sections 4.1.2 and 4.1.2.1), if it is one to this login.
func (c *callback) read(rawQuery string) (answer, bool) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return answer{}, false
	}
	for _, values := range query {
		if len(values) > 1 { // RFC 6749 section 3.1
			return answer{}, false
		}
	}
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(c.state)) != 1 {
		return answer{}, false
	}
	// Cognito sends none. An answer with another issuer's is one that was mixed up (RFC 9207 section 2.4).
	if query.Has("iss") && !slices.Contains(c.issuers, query.Get("iss")) {
		return answer{}, false
	}
	code, problem := query.Get("code"), query.Get("error")
	switch {
	case (code == "") == (problem == ""):
		return answer{}, false
	case problem != "":
		return answer{err: &AuthorizationError{
			Code:        printable(problem, maxErrorBytes),
			Description: printable(query.Get("error_description"), maxDescriptionBytes),
		}}, true
	case len(code) > maxCodeBytes || code != printable(code, maxCodeBytes):
		return answer{}, false // RFC 6749 appendix A.11
	}
	return answer{code: code}, true
}

// printable makes a text from outside fit for a terminal: it keeps the printable ASCII characters, which are all that RFC 6749
// (appendices A.7, A.8 and A.11) allows, and cuts the text short.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

// count returns how many answers were ignored.
func (c *callback) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ignored
}

// address is where the callback listens, for people.
func (c *callback) address() string { return "http://" + c.host }
