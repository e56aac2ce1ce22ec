package cognitotest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

func startControlled(t *testing.T, edit ...func(*cognitotest.Config)) (*cognitotest.Server, *cognitotest.Pool) {
	t.Helper()
	return start(t, append(edit, func(cfg *cognitotest.Config) { cfg.Control = true })...)
}

// control posts to a control endpoint and returns the members of its answer.
func control(t *testing.T, s *cognitotest.Server, action, parameters string) map[string]any {
	t.Helper()
	form, err := url.ParseQuery(parameters)
	if err != nil {
		t.Fatal(err)
	}
	got := postForm(t, s.URL+"/_control/"+action, form)
	var answer map[string]any
	if err := json.Unmarshal([]byte(got.Body), &answer); err != nil {
		t.Fatalf("%s: %d %s", action, got.Status, got.Body)
	}
	if _, failed := answer["error"]; failed != (got.Status == http.StatusBadRequest) || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: %d %v", action, got.Status, answer)
	}
	return answer
}

func TestControlKeys(t *testing.T) {
	t.Parallel()
	s, pool := startControlled(t)
	old := pool.AccessKey().ID
	if got := control(t, s, "rotate", "")["access_kid"]; got != pool.AccessKey().ID || got == old {
		t.Errorf("access_kid is %v, want the pool's new one, %s", got, pool.AccessKey().ID)
	}
	if got := control(t, s, "remove-key", url.Values{"kid": {old}, "pool": {pool.ID()}}.Encode())["published_kids"]; len(got.([]any)) != 2 {
		t.Errorf("published_kids are %v, want two", got)
	}
}

func TestControlFaults(t *testing.T) {
	t.Parallel()
	s, pool := startControlled(t)
	tests := []struct {
		parameters string
		status     int
		body       string
	}{
		{"status=503", 503, `{"message":"Service Unavailable"}`},
		{"status=200&body=hello&delay=1ms", 200, "hello"},
		{"body=", 200, ""},
		{"redirect=http://127.0.0.1:1/", 302, "<a href=\"http://127.0.0.1:1/\">Found</a>.\n\n"},
		{"huge=12", 200, `{"keys":[{"k`},
	}
	for _, tt := range tests {
		control(t, s, "fail", "endpoint=jwks&"+tt.parameters)
		if got := get(t, pool.JWKSURL()); got.Status != tt.status || got.Body != tt.body {
			t.Errorf("%s: %d %q, want %d %q", tt.parameters, got.Status, got.Body, tt.status, tt.body)
		}
	}
	for _, parameters := range []string{"drop=true", "hang=true", "truncate=true&body=hello"} {
		control(t, s, "fail", "endpoint=jwks&times=1&"+parameters)
		req := newRequest(t, http.MethodGet, pool.JWKSURL(), "")
		if parameters == "hang=true" {
			if !strings.Contains(get(t, s.URL+"/_control/state").Body, `"failing":["jwks"]`) {
				t.Error("the state does not show the fault")
			}
			pool.Heal(cognitotest.JWKS)
			continue
		}
		if res, err := client.Do(req); err == nil {
			if _, err := res.Body.Read(make([]byte, 10)); err == nil {
				_, err = res.Body.Read(make([]byte, 10))
				if err == nil {
					t.Errorf("%s: an answer without an error", parameters)
				}
			}
			res.Body.Close()
		}
	}

	control(t, s, "fail", "endpoint=jwks&status=500")
	control(t, s, "heal", "endpoint=jwks")
	if got := get(t, pool.JWKSURL()); got.Status != 200 {
		t.Errorf("after heal: %d, want 200", got.Status)
	}
}

func TestControlToken(t *testing.T) {
	t.Parallel()
	s, pool := startControlled(t)
	tests := []struct {
		parameters, claim string
		want              any
	}{
		{"client=" + cognitotest.DemoClientID, "scope", "orders/read orders/write"},
		{"use=machine&client=" + cognitotest.DemoClientID + "&scope=orders/read", "scope", "orders/read"},
		{"client=" + cognitotest.DemoClientID + "&scope=", "scope", nil},
		{"client=somebody", "client_id", "somebody"},
		{"client=x&ttl=-5m", "exp", float64(now.Add(-5 * time.Minute).Unix())},
		{"use=user&client=x", "username", "jane"},
		{"use=user&client=x&user=joe", "username", "joe"},
		{"use=id&client=x", "token_use", "id"},
	}
	for _, tt := range tests {
		token := control(t, s, "token", tt.parameters)["token"].(string)
		if err := verify(pool.JWKS(), token); err != nil {
			t.Errorf("%s: %v", tt.parameters, err)
		}
		if got := claimsOf(t, token)[tt.claim]; got != tt.want {
			t.Errorf("%s: %s is %v, want %v", tt.parameters, tt.claim, got, tt.want)
		}
	}
}

func TestControlErrors(t *testing.T) {
	t.Parallel()
	s, _ := startControlled(t)
	tests := []struct{ action, parameters, want string }{
		{"rotate", "pool=x", `pool is "x", want one of [eu-west-1_Demo12345]`},
		{"rotate", "kid=x", `there is no parameter "kid", want one of [pool]`},
		{"rotate", "pool=a&pool=b", `parameter "pool" is there 2 times, want it once`},
		{"remove-key", "kid=x", `kid is "x", want a published one; GET /_control/state lists them`},
		{"fail", "status=500", `endpoint is "", want one of [jwks openid-configuration token authorize revoke]`},
		{"fail", "endpoint=jwks", "nothing says how to fail, want one of status, body, delay, redirect, huge, hang, drop"},
		{"fail", "endpoint=jwks&status=42", `status is "42", want a number from 200 to 599`},
		{"fail", "endpoint=jwks&times=x", `times is "x", want a number from 1 to 1048576`},
		{"fail", "endpoint=jwks&delay=5", `delay is "5", want a duration such as 300ms or 2s`},
		{"fail", "endpoint=jwks&hang=yes", `hang is "yes", want true`},
		{"heal", "endpoint=keys", `endpoint is "keys", want one of [jwks openid-configuration token authorize revoke]`},
		{"token", "", `client is "", want a client ID; one that the pool does not have is fine`},
		{"token", "client=x&use=refresh", `use is "refresh", want machine, user or id`},
		{"token", "client=x&ttl=x", `ttl is "x", want a duration such as 5m, or -5m for a token that has expired`},
	}
	for _, tt := range tests {
		if got := control(t, s, tt.action, tt.parameters)["error"]; got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.action, tt.parameters, got, tt.want)
		}
	}
}

func TestControlState(t *testing.T) {
	t.Parallel()
	s, pool := startControlled(t)
	get(t, pool.JWKSURL())
	pool.Fail(cognitotest.Token, cognitotest.Fault{Hang: true})
	body := get(t, s.URL+"/_control/state").Body
	for _, want := range []string{
		`{"pools":[{"pool":"eu-west-1_Demo12345","access_kid":"` + pool.AccessKey().ID + `","id_kid":"` + pool.IDKey().ID + `"`,
		`{"id":"1ordersbatch0demo0client00","name":"orders-batch","flows":["client_credentials"],"scopes":["orders/read","orders/write"]}`,
		`"requests":{"jwks":1,"openid-configuration":0,"token":0,"authorize":0,"revoke":0},"failing":["token"]}]}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the state lacks %s:\n%s", want, body)
		}
	}
	if strings.Contains(body, cognitotest.DemoClientSecret) {
		t.Errorf("the state holds a secret:\n%s", body)
	}
}

// TestControlIsForThisMachineOnly: a page in a browser here can reach the port, but must not get anything done.
func TestControlIsForThisMachineOnly(t *testing.T) {
	t.Parallel()
	s, pool := startControlled(t)
	before := pool.AccessKey().ID
	for name, edit := range map[string]func(*http.Request){
		"a name that was rebound":  func(r *http.Request) { r.Host = "evil.example" },
		"with a port":              func(r *http.Request) { r.Host = "evil.example:9199" },
		"another machine's number": func(r *http.Request) { r.Host = "192.0.2.1:9199" },
		"a page's request":         func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
	} {
		req := newRequest(t, http.MethodPost, s.URL+"/_control/rotate", "")
		edit(req)
		if got := do(t, req); got.Status != http.StatusForbidden {
			t.Errorf("%s: %d %s, want 403", name, got.Status, got.Body)
		}
	}
	if got := get(t, s.URL+"/_control/rotate"); got.Status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d, want 405", got.Status)
	}
	if pool.AccessKey().ID != before {
		t.Error("the key was rotated")
	}
	for _, host := range []string{"localhost:9199", "[::1]:9199", "127.0.0.1"} {
		req := newRequest(t, http.MethodGet, s.URL+"/_control/state", "")
		req.Host = host
		if got := do(t, req); got.Status != http.StatusOK {
			t.Errorf("Host %s: %d %s, want 200", host, got.Status, got.Body)
		}
	}
}

func TestControlIsOffByDefault(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	before := pool.AccessKey().ID
	if got := postForm(t, s.URL+"/_control/rotate", nil); got.Status != http.StatusNotFound || pool.AccessKey().ID != before {
		t.Errorf("got %d, want 404 and the old key", got.Status)
	}
}

func TestControlNamesThePools(t *testing.T) {
	t.Parallel()
	s, _ := startControlled(t, func(cfg *cognitotest.Config) {
		second := cognitotest.DemoPool()
		second.ID = "eu-west-1_Second"
		cfg.Pools = append(cfg.Pools, second)
	})
	if got, want := control(t, s, "rotate", "")["error"], `pool is "", want one of [eu-west-1_Demo12345 eu-west-1_Second]`; got != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := control(t, s, "rotate", "pool=eu-west-1_Second")["pool"]; got != "eu-west-1_Second" {
		t.Errorf("pool is %v, want eu-west-1_Second", got)
	}
}
