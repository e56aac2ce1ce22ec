package cognitotest

import (
	"net/http"
	"strings"
	"time"
)

// Endpoint names an endpoint of a pool.
type Endpoint string

// The endpoints of a pool.
const (
	JWKS      Endpoint = "jwks"                 // the JWK Set
	Discovery Endpoint = "openid-configuration" // the OpenID provider metadata
	Token     Endpoint = "token"                // the token endpoint
	Authorize Endpoint = "authorize"            // the authorization endpoint
	Revoke    Endpoint = "revoke"               // the revocation endpoint
)

// Endpoints returns all endpoints of a pool.
func Endpoints() []Endpoint { return []Endpoint{JWKS, Discovery, Token, Authorize, Revoke} }

// Fault says how an endpoint misbehaves. First comes what delays the answer (Delay, Until, Hang), then the answer: the
// first of Drop, Redirect, HugeBytes, and Status and Body that is set. If none is, the true answer follows, so that a
// delay alone only makes the endpoint slow.
//
// Everything that waits ends when the client goes away and when the server is closed.
type Fault struct {
	// Delay is how long the answer waits.
	Delay time.Duration
	// Until holds the answer until the channel is closed or yields a value. Nil does not hold it.
	Until <-chan struct{}
	// Hang never answers.
	Hang bool

	// Drop closes the connection without an answer. A net/http client repeats a GET that met this on a kept connection,
	// so two requests may arrive for one of the caller's.
	Drop bool
	// Redirect answers 302 to this URL.
	Redirect string
	// HugeBytes answers 200 with a body of this many bytes that starts as a JWK Set and never ends as one. It is written
	// as long as the client reads: with math.MaxInt64 for ever.
	HugeBytes int64
	// Status is the status of the answer. Zero with a Body means 200.
	Status int
	// Header is added to the answer that Status and Body make. Its Content-Type wins over application/json.
	Header http.Header
	// Body is the body. Nil with a Status means a short JSON text.
	Body []byte
	// Truncate declares the whole Body, sends half of it, and closes the connection.
	Truncate bool

	// Times is how many requests the fault meets before it is over. Zero means all until [Pool.Heal].
	Times int
}

// Faults that have a name of their own.
var (
	// EmptyKeySet is a JWK Set without keys.
	EmptyKeySet = Fault{Body: []byte(`{"keys":[]}`)}
	// Garbage is what a captive portal answers: status 200, and no JSON.
	Garbage = Fault{Body: []byte("<html><body>Sign in to the guest network</body></html>"), Header: http.Header{"Content-Type": {"text/html"}}}
)

// serve plays the fault and tells whether it has answered the request.
func (f Fault) serve(w http.ResponseWriter, r *http.Request) bool {
	if !f.wait(r) {
		// Neither client nor server is there any more: no answer is the true one.
		panic(http.ErrAbortHandler)
	}
	switch {
	case f.Drop:
		panic(http.ErrAbortHandler) // how net/http closes a connection without an answer
	case f.Redirect != "":
		http.Redirect(w, r, f.Redirect, http.StatusFound)
	case f.HugeBytes > 0:
		writeHuge(w, f.HugeBytes)
	case f.Status != 0 || f.Body != nil:
		f.answer(w)
	default:
		return false
	}
	return true
}

// wait returns false if the request has ended meanwhile.
func (f Fault) wait(r *http.Request) bool {
	gone := r.Context().Done()
	if f.Hang {
		<-gone
		return false
	}
	if f.Until != nil {
		select {
		case <-f.Until:
		case <-gone:
			return false
		}
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-gone:
			return false
		}
	}
	return true
}

func (f Fault) answer(w http.ResponseWriter) {
	status, body := f.Status, f.Body
	if status == 0 {
		status = http.StatusOK
	}
	if body == nil {
		// The form of the errors of Amazon's APIs.
		body = mustMarshal(object{{"message", http.StatusText(status)}})
	}
	w.Header().Set("Content-Type", "application/json")
	for name, values := range f.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	if !f.Truncate {
		w.WriteHeader(status)
		_, _ = w.Write(body)
		return
	}
	w.Header().Set("Content-Length", itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func writeHuge(w http.ResponseWriter, size int64) {
	w.Header().Set("Content-Type", "application/json")
	chunk := []byte(`{"keys":[{"kid":"` + strings.Repeat("A", 32<<10))
	for size > 0 {
		n, err := w.Write(chunk[:min(int64(len(chunk)), size)])
		if err != nil {
			return
		}
		size -= int64(n)
		chunk = chunk[len(chunk)-32<<10:] // the start only once
	}
}
