package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// An answer is what the client got.
type answer struct {
	status int // 0: the connection or the stream ended without an answer
	header http.Header
	body   string
	seen   *lab.Echoed // what the upstream saw; nil if the request did not get there
}

// host is the Host of all requests that are not about hosts.
const host = "Host: api.example.com"

// get sends GET for a target, byte for byte as it is written here.
func (g *gateway) get(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	return g.send(t, append([]string{"GET " + target + " HTTP/1.1", host}, headers...)...)
}

// send writes the lines of one HTTP/1.1 request byte for byte, since Go's client would tidy them up. What stands behind
// an empty line is the body.
func (g *gateway) send(t *testing.T, lines ...string) answer {
	t.Helper()
	head, body := lines, ""
	if i := slices.Index(lines, ""); i >= 0 {
		head, body = lines[:i], strings.Join(lines[i+1:], "")
	}
	conn := dial(t, g.Address)
	defer conn.Close()
	// An Envoy that refuses a request may close while it is still being written.
	_, _ = io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n"+body)
	method, _, _ := strings.Cut(lines[0], " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answer{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: reading the body: %v", lines[0], err)
	}
	return newAnswer(resp.StatusCode, resp.Header, string(text))
}

// clientTimeout bounds one request; a request of these tests takes milliseconds, or the half second of Envoy's timeout.
const clientTimeout = 20 * time.Second

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: clientTimeout}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func newAnswer(status int, header http.Header, body string) answer {
	a := answer{status: status, header: header, body: body}
	var seen lab.Echoed
	if json.Unmarshal([]byte(body), &seen) == nil && seen.Proto != "" {
		a.seen = &seen
	}
	return a
}

// field is a header, pseudo header or trailer of HTTP/2.
type field [2]string

// h2 returns the fields of an HTTP/2 request, followed by further ones.
func h2(method, path string, more ...field) []field {
	return append([]field{{":method", method}, {":scheme", "http"}, {":authority", "api.example.com"}, {":path", path}}, more...)
}

// sendH2 sends one HTTP/2 request over a connection of its own, field by field. With trailers, they come after a body.
func (g *gateway) sendH2(t *testing.T, fields []field, trailers ...field) answer {
	t.Helper()
	conn := dial(t, g.Address)
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block) // one for the connection, whose table has a state
	write := func(fields []field, last bool) error {
		block.Reset()
		for _, f := range fields {
			_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // into memory
		}
		text := block.Bytes()
		const most = 16 << 10 // of a frame
		first := text[:min(most, len(text))]
		rest := text[len(first):]
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: last, EndHeaders: len(rest) == 0})
		for len(rest) > 0 {
			part := rest[:min(most, len(rest))]
			rest = rest[len(part):]
			err = errors.Join(err, framer.WriteContinuation(1, len(rest) == 0, part))
		}
		return err
	}
	err := errors.Join(framer.WriteSettings(), write(fields, len(trailers) == 0))
	if len(trailers) > 0 {
		err = errors.Join(err, framer.WriteData(1, false, []byte("body")), write(trailers, true))
	}
	if err != nil {
		return answer{} // refused while it was written
	}
	return readH2(framer)
}

// readH2 reads the answer on stream 1.
func readH2(framer *http2.Framer) answer {
	status, header, body := 0, http.Header{}, ""
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return answer{}
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == ":status" {
					status, _ = strconv.Atoi(h.Value) // 0 if it is none
				} else {
					header.Add(h.Name, h.Value)
				}
			}
		case *http2.DataFrame:
			body += string(f.Data())
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return answer{}
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck() // the next read will tell
			}
		}
		if h := frame.Header(); h.StreamID == 1 && h.Flags.Has(http2.FlagDataEndStream) {
			return newAnswer(status, header, body)
		}
	}
}

// An outcome is what a client can tell of an answer, and whether the upstream saw the request, and how.
type outcome struct {
	Status      int
	Reason      string // of the problem body
	Challenge   string // WWW-Authenticate
	ContentType string
	RetryAfter  bool   // there is one, of 1 to 10 seconds
	Upstream    string // the path that the upstream saw; empty if the request did not get there
}

func (a answer) outcome() outcome {
	o := outcome{
		Status:      a.status,
		Challenge:   a.header.Get("Www-Authenticate"),
		ContentType: a.header.Get("Content-Type"),
	}
	if a.seen != nil {
		o.Upstream = a.seen.Path
	} else {
		o.Reason = a.problem().Reason
	}
	if o.ContentType == "text/plain" {
		o.ContentType = "" // Envoy's own answers have it or not; those of extauthz name a charset
	}
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil && seconds >= 1 && seconds <= 10 {
		o.RetryAfter = true
	}
	return o
}

// A problem is the body of an answer that extauthz gave.
type problem struct {
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Reason     string `json:"reason"`
	DecisionID string `json:"decision_id"`
}

// problem returns the problem in the body; the zero problem if there is none.
func (a answer) problem() problem {
	var p problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		return problem{}
	}
	return p
}

const problemType = "application/problem+json"

// The outcomes of the three words, as extauthz answers HTTP clients.

// reaches is the outcome of a request that the upstream saw with this path.
func reaches(path string) outcome {
	return outcome{Status: 200, ContentType: "application/json", Upstream: path}
}

func refused(reason, description string) outcome {
	return outcome{
		Status: 401, Reason: reason, ContentType: problemType,
		Challenge: `Bearer realm="extauthz", error="invalid_token", error_description="` + description + `"`,
	}
}

func invalid(reason string) outcome {
	return outcome{Status: 400, Reason: reason, ContentType: problemType, Challenge: `Bearer realm="extauthz", error="invalid_request"`}
}

func missing() outcome {
	return outcome{Status: 401, Reason: "missing_token", ContentType: problemType, Challenge: `Bearer realm="extauthz"`}
}

func denied(reason string) outcome {
	return outcome{Status: 403, Reason: reason, ContentType: problemType}
}

func scopeMissing(scope string) outcome {
	o := denied("insufficient_scope")
	o.Challenge = `Bearer realm="extauthz", error="insufficient_scope", scope="` + scope + `"`
	return o
}

func failed(reason string) outcome {
	return outcome{Status: 503, Reason: reason, ContentType: problemType, RetryAfter: true}
}

// byEnvoy is the outcome of a request that Envoy answers without asking extauthz.
func byEnvoy(status int) outcome { return outcome{Status: status} }

// eventually calls f until it returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(clientTimeout)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

// logged returns the line of Envoy's access log about the request that was answered.
func (g *gateway) logged(t *testing.T, a answer) map[string]any {
	t.Helper()
	id := a.header.Get("X-Request-Id")
	if id == "" {
		t.Fatal("the answer has no x-request-id")
	}
	var found map[string]any
	eventually(t, func() error {
		entries, err := g.AccessLog()
		if err != nil {
			return err // half a line
		}
		for _, e := range entries {
			if e["request_id"] == id {
				found = e
				return nil
			}
		}
		return fmt.Errorf("found no line with request id %s in Envoy's access log", id)
	})
	return found
}

// decision returns the line of extauthz's log with the decision id.
func (x *service) decision(t *testing.T, id string) map[string]any {
	t.Helper()
	var found map[string]any
	eventually(t, func() error { // a line is written shortly after the answer
		for line := range strings.Lines(x.Stderr()) {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && entry["decision_id"] == id && entry["msg"] == "check" {
				found = entry
				return nil
			}
		}
		return fmt.Errorf("found no line with decision id %s in extauthz's log", id)
	})
	return found
}
