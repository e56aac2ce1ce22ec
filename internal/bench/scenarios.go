package main

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// A scenario is a kind of load.
type scenario struct {
	Name     string
	Says     string // what it is, for the table
	InFlight int
	Conns    int
	Servers  []string
	before   []message // sent once each, before anything is measured
	messages []message
	again    bool // messages are sent again and again, else each once
}

// The usual load: many checks at once, as a busy Envoy sends them.
const (
	inFlight = 32
	conns    = 2
)

// coldRate is how many new tokens a second suffice for the fastest server on a good machine. A window ends early if not.
const coldRate = 9000

// liveTokens is the number of tokens of the scenario with many.
const liveTokens = 10_000

// coldBefore are the new tokens that come before the window with new tokens, for all but the tokens to be warm.
const coldBefore = 300

var (
	everybody  = []string{extauthz, noop, stockOPA}
	withoutOPA = []string{extauthz, noop}
)

// scenarios makes the messages of all scenarios.
func scenarios(m *mint, window time.Duration, live int) ([]scenario, error) {
	t, err := newTemplates()
	if err != nil {
		return nil, err
	}
	fresh := coldBefore + int(coldRate*window.Seconds())
	tokens, err := m.good(max(live, fresh))
	if err != nil {
		return nil, err
	}
	read := func(tokens []string, want int) []message {
		all := make([]message, len(tokens))
		for i, token := range tokens {
			all[i] = t.message(readOrder, token, want)
		}
		return all
	}
	ten := tokens[:10]
	warm := read(ten, http.StatusOK)
	cold := read(tokens[:fresh], http.StatusOK)
	bad := make([]string, fresh)
	for i := range bad {
		bad[i] = forged(ten[i%10], i)
	}
	badMessages := read(bad, http.StatusUnauthorized)
	var poor []message
	for _, token := range ten {
		poor = append(poor, t.message(createOrder, token, http.StatusForbidden))
	}
	many := read(tokens[:live], http.StatusOK)
	all := []scenario{
		{Name: "warm", Says: "10 tokens", Servers: everybody, messages: warm, again: true},
		{Name: "10k", Says: "10,000 tokens, each sent once before", Servers: withoutOPA, before: many, messages: many, again: true},
		{Name: "cold", Says: "every token new", Servers: everybody, before: cold[:coldBefore], messages: cold[coldBefore:]},
		{Name: "forged", Says: "bad signatures, every one new", Servers: everybody, before: badMessages[:coldBefore], messages: badMessages[coldBefore:]},
		{Name: "forged again", Says: "10 tokens with a bad signature", Servers: withoutOPA, messages: badMessages[:10], again: true},
		{Name: "refused cheaply", Says: "malformed, algorithm, issuer, client, expired: in turn", Servers: withoutOPA, messages: refusals(m, t), again: true},
		{Name: "denied", Says: "10 tokens that lack the scope", Servers: everybody, messages: poor, again: true},
		{Name: "no token", Says: "no Authorization header", Servers: withoutOPA, messages: []message{t.message(readOrder, "", http.StatusUnauthorized)}, again: true},
		{Name: "one in flight", Says: "10 tokens, one check at a time", InFlight: 1, Conns: 1, Servers: everybody, messages: warm, again: true},
	}
	for i := range all {
		if all[i].InFlight == 0 {
			all[i].InFlight, all[i].Conns = inFlight, conns
		}
	}
	return all, nil
}

// untraced returns the warm load with requests that have no trace of their own.
func untraced(m *mint) (scenario, error) {
	t, err := newTemplates()
	if err != nil {
		return scenario{}, err
	}
	tokens, err := m.good(10)
	if err != nil {
		return scenario{}, err
	}
	ten := make([]message, len(tokens))
	for i, token := range tokens {
		ten[i] = t.message(readUntraced, token, http.StatusOK)
	}
	return warmLoad(ten), nil
}

// refusals are tokens that are refused without a look at their signature, each in its own way.
func refusals(m *mint, t *templates) []message {
	ways := []struct {
		token string
		want  int
	}{
		{strings.Replace(m.token(), ".", "-", 1), http.StatusUnauthorized},
		{m.token(cognitotest.HeaderParam("alg", "HS256")), http.StatusUnauthorized},
		{m.token(cognitotest.Claim("iss", issuer+"x")), http.StatusUnauthorized},
		{m.token(cognitotest.Claim("client_id", "another"), cognitotest.Claim("sub", "another")), http.StatusForbidden},
		{m.token(cognitotest.IssuedAt(time.Now().Add(-2 * tokenTTL))), http.StatusUnauthorized},
	}
	all := make([]message, len(ways))
	for i, w := range ways {
		all[i] = t.message(readOrder, w.token, w.want)
	}
	return all
}

// forServer returns the messages with the answers that this server must give: the no-op one lets everything through.
func forServer(name string, messages []message) []message {
	if name != noop {
		return messages
	}
	all := slices.Clone(messages)
	for i := range all {
		all[i].want = http.StatusOK
	}
	return all
}

// only returns the scenarios of these names, all if there are none.
func only(all []scenario, names []string) []scenario {
	if len(names) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !slices.Contains(names, s.Name) })
}
