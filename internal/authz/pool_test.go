package authz

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// eachItsOwn accepts every token, as one of a client of the same name, but for those that begin with "bad".
type eachItsOwn struct{}

func (eachItsOwn) Validate(_ context.Context, token string) (*validator.Claims, error) {
	if strings.HasPrefix(token, "bad") {
		return nil, &validator.TokenError{Reason: validator.ErrSignature}
	}
	return &validator.Claims{Pool: "main", ClientID: token, Subject: token, TokenID: token, Scopes: []string{token}}, nil
}

// linesByPath keeps the last line about each path.
type linesByPath struct{ sync.Map }

func (l *linesByPath) Record(d *decisionlog.Decision) { l.Store(d.Path, *d) }

// What a check is made in is used again for another: nothing of one is in the answer to another, nor in its line.
func TestChecksKeepToThemselves(t *testing.T) {
	const workers, checks = 16, 200
	var lines linesByPath
	h := newHarness(t, func(c *Config) {
		c.Authenticator = eachItsOwn{}
		c.Limits.ConcurrentChecks = workers
		c.Log = DecisionLog{To: &lines}
		c.Authorizer = authorizer(func(_ context.Context, in *policy.Input) (policy.Decision, error) {
			if strings.HasSuffix(in.Token.ClientID, "3") {
				return policy.Decision{Reason: policy.Reason("no_" + in.Token.ClientID)}, nil
			}
			return policy.Decision{
				Allowed:              true,
				RequestHeaders:       []policy.Header{{Name: "x-of", Values: []string{in.Token.ClientID + in.Canonical.Path}}},
				RemoveRequestHeaders: []string{"x-" + in.Token.ClientID},
				Metadata:             map[string]any{"of": in.Token.ClientID},
			}, nil
		})
	})
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for n := range checks {
				name := fmt.Sprintf("c%dn%d", w, n)
				if n%5 == 4 {
					name = "bad" + name
				}
				msg := marshal(t, get("/orders/"+name, withHeader("authorization", "Bearer "+name), withHeader("x-auth-"+name, "forged")))
				resp := new(authv3.CheckResponse)
				if err := proto.Unmarshal(h.CheckMessage(t.Context(), nil, msg), resp); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				id := resp.GetDynamicMetadata().GetFields()["decision_id"].GetStringValue()
				line, _ := lines.Load("/orders/" + name)
				if d, _ := line.(decisionlog.Decision); d.ID != id || d.ClientID != resp.GetDynamicMetadata().GetFields()["client_id"].GetStringValue() {
					t.Errorf("%s: the line has id %s and client %q, want what the answer has: %v", name, d.ID, d.ClientID, resp)
				}
				if strays := strays(resp, name, id); len(strays) > 0 {
					t.Errorf("%s: found %q in the answer, want nothing of another check: %v", name, strays, resp)
				}
				if got := reasonIn(t, resp); (got == OK) != (n%5 != 4 && n%10 != 3) {
					t.Errorf("%s: the reason is %s", name, got)
				}
			}
		})
	}
	group.Wait()
}

// strays are the names of other checks in an answer.
func strays(resp *authv3.CheckResponse, name, id string) (found []string) {
	text := strings.ReplaceAll(strings.ReplaceAll(resp.String(), id, ""), name, "")
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", r) }) {
		var w, n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(word, "bad"), "c%dn%d", &w, &n); err == nil {
			found = append(found, word)
		}
	}
	return found
}
