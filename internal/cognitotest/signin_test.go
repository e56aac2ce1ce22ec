package cognitotest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

const (
	callback = "http://localhost:3000"
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636 appendix B
)

// A person is one who signs in at a pool.
type person struct {
	t    *testing.T
	pool *cognitotest.Pool
	now  *clock
}

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func startPerson(t *testing.T, edit ...func(*cognitotest.Client)) *person {
	t.Helper()
	c := &clock{t: now}
	_, pool := start(t, func(cfg *cognitotest.Config) {
		cfg.Pools[0].Now = c.now
		cfg.Pools[0].SignInAs = "jane"
		for _, e := range edit {
			e(&cfg.Pools[0].Clients[2])
		}
	})
	return &person{t, pool, c}
}

// authorizeRequest is one that is granted.
func authorizeRequest() url.Values {
	sum := sha256.Sum256([]byte(verifier))
	return url.Values{
		"response_type": {"code"}, "client_id": {cognitotest.DemoWebID}, "redirect_uri": {callback}, "scope": {"openid orders/read"},
		"state": {"s"}, "nonce": {"n"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
}

func exchangeRequest(code string) url.Values {
	return url.Values{
		"grant_type": {"authorization_code"}, "client_id": {cognitotest.DemoWebID}, "redirect_uri": {callback}, "code": {code}, "code_verifier": {verifier},
	}
}

// authorize sends the request and returns where the browser was sent.
func (p *person) authorize(query url.Values) *url.URL {
	p.t.Helper()
	got := get(p.t, p.pool.AuthorizeURL()+"?"+query.Encode())
	u, err := url.Parse(got.Header.Get("Location"))
	if err != nil || got.Status != http.StatusFound {
		p.t.Fatalf("got %d %s, want a redirect", got.Status, got.Body)
	}
	return u
}

func (p *person) code() string {
	p.t.Helper()
	return p.authorize(authorizeRequest()).Query().Get("code")
}

type tokens struct {
	ID      string `json:"id_token"`
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Type    string `json:"token_type"`
	Life    int    `json:"expires_in"`
}

// token sends a token request, which must be granted.
func (p *person) token(form url.Values) (answer tokens) {
	p.t.Helper()
	got := postForm(p.t, p.pool.TokenURL(), form)
	if got.Status != 200 {
		p.t.Fatalf("got %d %s, want tokens", got.Status, got.Body)
	}
	if err := json.Unmarshal([]byte(got.Body), &answer); err != nil {
		p.t.Fatal(err)
	}
	return answer
}

func (p *person) refresh(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {cognitotest.DemoWebID}, "refresh_token": {token}}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	p := startPerson(t)
	at := p.authorize(authorizeRequest())
	query := at.Query()
	if at.Scheme+"://"+at.Host != callback || query.Get("state") != "s" || query.Get("code") == "" || len(query) != 2 {
		t.Errorf("the browser was sent to %s", at)
	}
	first := p.token(exchangeRequest(query.Get("code")))
	if first.Type != "Bearer" || first.Life != 3600 || strings.Count(first.Refresh, ".") != 4 || len(first.Refresh) < 1000 {
		t.Errorf("got %+v", first)
	}
	id, access := claimsOf(t, first.ID), claimsOf(t, first.Access)
	sum := sha256.Sum256([]byte(first.Access))
	for name, want := range map[string]any{
		"nonce": "n", "aud": cognitotest.DemoWebID, "token_use": "id", "cognito:username": "jane", "auth_time": float64(now.Unix()),
		"at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]), "sub": access["sub"], "origin_jti": access["origin_jti"], "event_id": access["event_id"],
	} {
		if id[name] != want {
			t.Errorf("%s of the ID token is %v, want %v", name, id[name], want)
		}
	}
	if access["scope"] != "openid orders/read" || access["client_id"] != cognitotest.DemoWebID || access["username"] != "jane" {
		t.Errorf("the access token has %v", access)
	}

	p.now.add(time.Minute)
	second := p.token(p.refresh(first.Refresh))
	if second.Refresh != "" {
		t.Error("a refresh without rotation gave a refresh token")
	}
	again := claimsOf(t, second.ID)
	if again["sub"] != id["sub"] || again["auth_time"] != id["auth_time"] || again["origin_jti"] != id["origin_jti"] || again["iat"] == id["iat"] || again["nonce"] != nil {
		t.Errorf("the refreshed ID token has %v, want the sign-in of %v", again, id)
	}
	if p.pool.Requests(cognitotest.Authorize) != 1 || p.pool.Requests(cognitotest.Token) != 2 {
		t.Error("the requests were not counted")
	}
}

// Each request differs in one thing from one that is granted.
func TestAuthorizeErrors(t *testing.T) {
	t.Parallel()
	p := startPerson(t)
	set := func(name, value string) func(url.Values) { return func(q url.Values) { q.Set(name, value) } }
	drop := func(name string) func(url.Values) { return func(q url.Values) { q.Del(name) } }
	for _, tt := range []struct {
		name string
		edit func(url.Values)
		want string // the error; with a / before it, on a page
	}{
		{"another client", set("client_id", "other"), "/invalid_request"},
		{"a machine's client", set("client_id", cognitotest.DemoClientID), "unauthorized_client"},
		{"another redirect URI", set("redirect_uri", "http://localhost:3001"), "/redirect_mismatch"},
		{"a slash more", set("redirect_uri", callback+"/"), "/redirect_mismatch"},
		{"no redirect URI", drop("redirect_uri"), "/redirect_mismatch"},
		{"no response type", drop("response_type"), "invalid_request"},
		{"the implicit grant", set("response_type", "token"), "unauthorized_client"},
		{"PKCE by plain", set("code_challenge_method", "plain"), "invalid_request"},
		{"PKCE without method", drop("code_challenge_method"), "invalid_request"},
		{"PKCE without challenge", drop("code_challenge"), "invalid_request"},
		{"a scope of others", set("scope", "openid orders/admin"), "invalid_scope"},
		{"two states", func(q url.Values) { q.Add("state", "t") }, "invalid_request"},
	} {
		query := authorizeRequest()
		tt.edit(query)
		if want, page := strings.CutPrefix(tt.want, "/"); page {
			if got := get(t, p.pool.AuthorizeURL()+"?"+query.Encode()); got.Status != 400 || !strings.Contains(got.Body, want) || got.Header.Get("Location") != "" {
				t.Errorf("%s: got %d %s, want a page with %s", tt.name, got.Status, got.Body, want)
			}
			continue
		}
		at := p.authorize(query)
		if q := at.Query(); q.Get("error") != tt.want || q.Get("state") != "s" || q.Has("code") {
			t.Errorf("%s: the browser was sent to %s, want error=%s", tt.name, at, tt.want)
		}
	}
	if got := get(t, strings.Replace(p.pool.AuthorizeURL(), p.pool.ID(), "eu-west-1_Nowhere", 1)+"?"+authorizeRequest().Encode()); got.Status != 404 {
		t.Errorf("another pool: got %d", got.Status)
	}
}

func TestAuthorizeWithoutPKCEAndScope(t *testing.T) {
	t.Parallel()
	p := startPerson(t)
	query := authorizeRequest()
	for _, name := range []string{"code_challenge", "code_challenge_method", "scope", "nonce", "state"} {
		query.Del(name)
	}
	at := p.authorize(query)
	if at.Query().Has("state") {
		t.Errorf("the browser was sent to %s, want no state", at)
	}
	form := exchangeRequest(at.Query().Get("code"))
	form.Del("code_verifier")
	got := p.token(form)
	if access := claimsOf(t, got.Access); access["scope"] != "openid email orders/read" {
		t.Errorf("the scope is %v, want all that the client may have", access["scope"])
	}
	if _, ok := claimsOf(t, got.ID)["nonce"]; ok {
		t.Error("the ID token has a nonce")
	}
	query.Set("scope", "orders/read")
	form.Set("code", p.authorize(query).Query().Get("code"))
	if got := p.token(form); got.ID != "" {
		t.Error("there is an ID token without the scope openid")
	}
}

// Each exchange differs in one thing from one that is granted.
func TestExchangeErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		edit func(*person, url.Values)
		want string
	}{
		{"another verifier", func(_ *person, f url.Values) { f.Set("code_verifier", verifier+"x") }, "invalid_grant"},
		{"no verifier", func(_ *person, f url.Values) { f.Del("code_verifier") }, "invalid_grant"},
		{"another redirect URI", func(_ *person, f url.Values) { f.Set("redirect_uri", "http://localhost:3001") }, "invalid_grant"},
		{"another client", func(_ *person, f url.Values) { f.Set("client_id", "4other") }, "invalid_grant"},
		{"a client that is not there", func(_ *person, f url.Values) { f.Set("client_id", "5nobody") }, "invalid_client"},
		{"a second time", func(p *person, f url.Values) { p.token(f) }, "invalid_grant"},
		{"too late", func(p *person, _ url.Values) { p.now.add(5*time.Minute + time.Second) }, "invalid_grant"},
		{"a verifier where there was no challenge", func(p *person, f url.Values) {
			query := authorizeRequest()
			query.Del("code_challenge")
			query.Del("code_challenge_method")
			f.Set("code", p.authorize(query).Query().Get("code"))
		}, "invalid_grant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{t: now}
			_, pool := start(t, func(cfg *cognitotest.Config) {
				cfg.Pools[0].Now, cfg.Pools[0].SignInAs = c.now, "jane"
				cfg.Pools[0].Clients = append(cfg.Pools[0].Clients, cognitotest.Client{ID: "4other", Scopes: []string{"openid"}})
			})
			p := &person{t, pool, c}
			form := exchangeRequest(p.code())
			tt.edit(p, form)
			if got := postForm(t, pool.TokenURL(), form); got.Status != 400 || got.Body != `{"error":"`+tt.want+`"}` {
				t.Errorf("got %d %s, want %s", got.Status, got.Body, tt.want)
			}
		})
	}
}

func TestRefreshRotation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		grace time.Duration
	}{{"without grace", 0}, {"with grace", time.Minute}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startPerson(t, func(c *cognitotest.Client) { c.RotateRefreshTokens, c.RefreshGrace = true, tt.grace })
			first := p.token(exchangeRequest(p.code()))
			second := p.token(p.refresh(first.Refresh))
			if second.Refresh == "" || second.Refresh == first.Refresh {
				t.Fatal("there is no new refresh token")
			}
			got := postForm(t, p.pool.TokenURL(), p.refresh(first.Refresh))
			if again := got.Status == 200; again != (tt.grace > 0) {
				t.Errorf("at once, the old refresh token gets %d", got.Status)
			}
			p.now.add(tt.grace + time.Second)
			if got := postForm(t, p.pool.TokenURL(), p.refresh(first.Refresh)); got.Body != `{"error":"invalid_grant"}` {
				t.Errorf("later, the old refresh token gets %s", got.Body)
			}
			p.token(p.refresh(second.Refresh))
		})
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	revoke := func(token string) url.Values {
		return url.Values{"client_id": {cognitotest.DemoWebID}, "token": {token}}
	}
	c := &clock{t: now}
	_, pool := start(t, func(cfg *cognitotest.Config) {
		cfg.Pools[0].Now, cfg.Pools[0].SignInAs = c.now, "jane"
		cfg.Pools[0].Clients = append(cfg.Pools[0].Clients, cognitotest.Client{ID: "4other", Scopes: []string{"openid"}})
	})
	p := &person{t, pool, c}
	first := p.token(exchangeRequest(p.code()))
	for _, tt := range []struct {
		name, want string
		form       url.Values
	}{
		{"no token", `{"error":"invalid_request"}`, revoke("")},
		{"an access token", `{"error":"unsupported_token_type"}`, revoke(first.Access)},
		{"another client", `{"error":"unauthorized_client"}`, url.Values{"client_id": {"4other"}, "token": {first.Refresh}}},
		{"a client that is not there", `{"error":"invalid_client"}`, url.Values{"client_id": {"5nobody"}, "token": {first.Refresh}}},
		{"two tokens", `{"error":"invalid_request"}`, url.Values{"client_id": {cognitotest.DemoWebID}, "token": {"a", "b"}}},
	} {
		if got := postForm(t, pool.RevokeURL(), tt.form); got.Status != 400 || got.Body != tt.want {
			t.Errorf("%s: got %d %s, want %s", tt.name, got.Status, got.Body, tt.want)
		}
	}
	p.token(p.refresh(first.Refresh))
	for range 2 { // a token that is revoked is as good as one that never was
		if got := postForm(t, pool.RevokeURL(), revoke(first.Refresh)); got.Status != 200 || got.Body != "" {
			t.Errorf("got %d %q, want 200 and nothing", got.Status, got.Body)
		}
	}
	if got := postForm(t, pool.TokenURL(), p.refresh(first.Refresh)); got.Body != `{"error":"invalid_grant"}` {
		t.Errorf("the revoked refresh token gets %s", got.Body)
	}
	if got := get(t, pool.RevokeURL()); got.Status != 405 {
		t.Errorf("GET gets %d, want 405", got.Status)
	}
	second := p.token(exchangeRequest(p.code()))
	pool.RevokeSignIns()
	if got := postForm(t, pool.TokenURL(), p.refresh(second.Refresh)); got.Body != `{"error":"invalid_grant"}` {
		t.Errorf("after RevokeSignIns the refresh token gets %s", got.Body)
	}
}

// The page is for a person: a name, and two buttons.
func TestSignInPage(t *testing.T) {
	t.Parallel()
	p := startPerson(t)
	p.pool.SignInAs("")
	at := p.authorize(authorizeRequest())
	if at.Path != "/"+p.pool.ID()+"/login" || at.RawQuery != authorizeRequest().Encode() {
		t.Fatalf("the browser was sent to %s, want the sign-in page with the same parameters", at)
	}
	page := strings.TrimSuffix(p.pool.AuthorizeURL(), "/oauth2/authorize") + "/login?" + at.RawQuery
	if got := get(t, page); got.Status != 200 || !strings.Contains(got.Body, `<form method="post">`) || !strings.Contains(got.Body, cognitotest.DemoWebID) {
		t.Errorf("got %d %s, want a form", got.Status, got.Body)
	}
	for _, tt := range []struct {
		name string
		form url.Values
		want string // in the address, or on the page
	}{
		{"a name", url.Values{"username": {" joe "}, "action": {"signin"}}, "code="},
		{"no name", url.Values{"username": {" "}, "action": {"signin"}}, "The name is empty."},
		{"no", url.Values{"username": {"joe"}, "action": {"deny"}}, "error=access_denied&error_description=The+person+has+said+no&state=s"},
	} {
		if got := postForm(t, page, tt.form); !strings.Contains(got.Header.Get("Location")+got.Body, tt.want) {
			t.Errorf("%s: got %d %s %s, want %s", tt.name, got.Status, got.Header.Get("Location"), got.Body, tt.want)
		}
	}
	query := authorizeRequest()
	query.Set("response_type", "token")
	if got := postForm(t, strings.Split(page, "?")[0]+"?"+query.Encode(), url.Values{"username": {"joe"}}); !strings.Contains(got.Header.Get("Location"), "error=unauthorized_client") {
		t.Errorf("a request that is wrong got %d %s", got.Status, got.Header.Get("Location"))
	}
}

func TestLogout(t *testing.T) {
	t.Parallel()
	p := startPerson(t, func(c *cognitotest.Client) { c.LogoutURLs = []string{"https://www.example.com/"} })
	at := func(client, uri string) string {
		return p.pool.LogoutURL() + "?" + url.Values{"client_id": {client}, "logout_uri": {uri}}.Encode()
	}
	if got := get(t, at(cognitotest.DemoWebID, "https://www.example.com/")); got.Status != 302 || got.Header.Get("Location") != "https://www.example.com/" {
		t.Errorf("got %d %s", got.Status, got.Header.Get("Location"))
	}
	for _, address := range []string{at(cognitotest.DemoWebID, "https://elsewhere.example/"), at("other", "https://www.example.com/")} {
		if got := get(t, address); got.Status != 400 {
			t.Errorf("%s got %d, want 400", address, got.Status)
		}
	}
}

func TestRedirectURLWithAnyPort(t *testing.T) {
	t.Parallel()
	p := startPerson(t, func(c *cognitotest.Client) {
		c.RedirectURLs = []string{"http://localhost:0", "https://www.example.com:0/"}
	})
	for uri, want := range map[string]int{
		"http://localhost:4711":        302,
		"http://127.0.0.1:4711":        400,
		"http://localhost:4711/":       400,
		"http://localhost":             400,
		"https://www.example.com:4711": 400,
	} {
		query := authorizeRequest()
		query.Set("redirect_uri", uri)
		if got := get(t, p.pool.AuthorizeURL()+"?"+query.Encode()); got.Status != want {
			t.Errorf("%s: got %d, want %d", uri, got.Status, want)
		}
	}
}

func TestAlterUserTokens(t *testing.T) {
	t.Parallel()
	p := startPerson(t)
	p.pool.AlterUserTokens([]cognitotest.TokenOption{cognitotest.Claim("nonce", "x")}, []cognitotest.TokenOption{cognitotest.WithoutClaim("username")})
	got := p.token(exchangeRequest(p.code()))
	if id, access := claimsOf(t, got.ID), claimsOf(t, got.Access); id["nonce"] != "x" || access["username"] != nil {
		t.Errorf("got %v and %v, want them altered", id, access)
	}
	p.pool.AlterUserTokens(nil, nil)
	got = p.token(exchangeRequest(p.code()))
	if id := claimsOf(t, got.ID); id["nonce"] != "n" {
		t.Errorf("got %v, want it as Cognito's again", id)
	}
}
