package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// A scene is one request through Envoy, and what must come of it.
type scene struct {
	method, path string
	with         string      // what is special about it, for people
	header       http.Header // of the request

	status int
	reason string // extauthz's; "allowed" if the upstream answered
	result string // the challenge, or the identity that the upstream saw
}

// scenes are played in this order.
func (d *deployment) scenes() []scene {
	pool := d.pool()
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	reports := pool.Token(cognitotest.DemoReaderID)
	forged := func(h http.Header) http.Header {
		h = h.Clone()
		h.Set("X-Auth-Client-Name", "admin")
		return h
	}
	const seen = "x-auth-client-name: "
	return []scene{
		{
			"GET", "/orders/42", "token of reports", bearer(reports),
			200, "allowed", seen + "reports",
		},
		{
			"POST", "/orders", "token of orders-batch", bearer(pool.Token(cognitotest.DemoClientID)),
			200, "allowed", seen + "orders-batch",
		},
		{
			"GET", "/orders/42", "token of reports, forged name", forged(bearer(reports)),
			200, "allowed", seen + "reports",
		},
		{
			"GET", "/healthz", "no token, forged name", forged(http.Header{}),
			200, "allowed", "no identity",
		},
		{"GET", "/orders/42", "no token", nil, 401, "missing_token", `Bearer realm="extauthz"`},
		{
			"GET", "/orders/42", "token, expired an hour ago",
			bearer(pool.Token(cognitotest.DemoReaderID, cognitotest.IssuedAt(time.Now().Add(-2*time.Hour)))),
			401, "expired", `error="invalid_token"`,
		},
		{"GET", "/orders/42", "garbage", bearer("not.a.token"), 401, "malformed", `error="invalid_token"`},
		{
			"GET", "/orders/42", "token, signed by another key",
			bearer(pool.Token(cognitotest.DemoReaderID, cognitotest.SignedBy(pool.ForgedKey()))),
			401, "signature", `error="invalid_token"`,
		},
		{
			"POST", "/orders", "token of reports", bearer(reports),
			403, "insufficient_scope", `error="insufficient_scope", scope="orders/write"`,
		},
		{
			"GET", "/orders/42", "token of an unlisted client",
			bearer(pool.Token(cognitotest.DemoWebID, cognitotest.Scopes("orders/read"))),
			403, "client_not_allowed", "",
		},
		{"GET", "/invoices", "token of reports", bearer(reports), 403, "no_route", ""},
		{"GET", "/orders/%2e%2e;/x", "token of reports", bearer(reports), 400, "invalid_path", `error="invalid_request"`},
	}
}

// play sends every scene's request, prints a line for each, and returns how many answers are not the expected ones.
func (d *deployment) play(ctx context.Context, out io.Writer) (unexpected int) {
	rows := table{{"request", "with", "answer", "reason", "challenge, or what the service sees"}}
	for _, s := range d.scenes() {
		status, reason, result := d.send(ctx, s)
		row := []string{s.method + strings.Repeat(" ", max(0, 5-len(s.method))) + s.path, s.with, status, reason, result}
		if want := fmt.Sprint(s.status); status != want || reason != s.reason || result != s.result {
			unexpected++
			row = append(row, fmt.Sprintf("UNEXPECTED, want %s %s %s", want, s.reason, s.result))
		}
		rows = append(rows, row)
	}
	rows.print(out)
	return unexpected
}

// answerBytes bounds what is read of an answer; they have some hundred bytes.
const answerBytes = 1 << 20

// send makes the scene's request and returns what came of it, in words.
func (d *deployment) send(ctx context.Context, s scene) (status, reason, result string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, s.method, d.envoy.URL()+s.path, http.NoBody)
	if err != nil {
		return "-", "-", err.Error()
	}
	for name, values := range s.header {
		req.Header[name] = values
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "-", "-", err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		return "-", "-", err.Error()
	}
	status = fmt.Sprint(resp.StatusCode)
	if resp.StatusCode == http.StatusOK {
		return status, "allowed", identitySeen(body)
	}
	var problem struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(body, &problem); err != nil || problem.Reason == "" {
		return status, "-", "found no problem JSON with a reason"
	}
	return status, problem.Reason, challenge(resp.Header.Get("Www-Authenticate"))
}

// identitySeen says what the upstream got, by its echo: who the caller is, and anything that it should not have got.
func identitySeen(body []byte) string {
	var echoed lab.Echoed
	if err := json.Unmarshal(body, &echoed); err != nil {
		return "found no answer of the upstream"
	}
	var seen []string
	for _, name := range []string{"x-auth-client-name", "authorization"} {
		for _, value := range echoed.Headers[name] {
			seen = append(seen, name+": "+value)
		}
	}
	if len(seen) == 0 {
		return "no identity"
	}
	return strings.Join(seen, ", ")
}

// told matches the parts of a challenge that are the same in every answer, or are text for people.
var told = regexp.MustCompile(`Bearer realm="[^"]*", |, error_description="[^"]*"`)

// challenge returns what tells in a WWW-Authenticate header: error code and scope, or all of one without them.
func challenge(header string) string { return told.ReplaceAllString(header, "") }

// A table is rows of cells, printed in columns.
type table [][]string

func (t table) print(out io.Writer) {
	var widths []int
	for _, row := range t {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range t {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
	}
}
