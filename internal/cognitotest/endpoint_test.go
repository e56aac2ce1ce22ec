package cognitotest_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

const formType = "application/x-www-form-urlencoded"

// tokenRequest is a token request that is granted, as client_secret_basic.
type tokenRequest struct {
	method   string
	path     string // of the server
	query    string
	user     string // of the Authorization header; empty for none
	password string
	header   http.Header
	form     url.Values
	body     string // instead of form
}

func granted() tokenRequest {
	return tokenRequest{
		method:   http.MethodPost,
		path:     "/" + cognitotest.DemoPoolID + "/oauth2/token",
		user:     cognitotest.DemoClientID,
		password: cognitotest.DemoClientSecret,
		header:   http.Header{"Content-Type": {formType}},
		form:     url.Values{"grant_type": {"client_credentials"}},
	}
}

func (tr tokenRequest) send(t *testing.T, s *cognitotest.Server) response {
	t.Helper()
	body := tr.body
	if body == "" {
		body = tr.form.Encode()
	}
	req := newRequest(t, tr.method, s.URL+tr.path+"?"+tr.query, body)
	for name, values := range tr.header {
		req.Header[name] = values
	}
	if tr.user != "" {
		req.SetBasicAuth(tr.user, tr.password)
	}
	return do(t, req)
}

// TestTokenEndpointGrants: each request is one change away from the first, and its token has these scopes.
func TestTokenEndpointGrants(t *testing.T) {
	t.Parallel()
	s, pool := start(t, func(cfg *cognitotest.Config) {
		c := &cfg.Pools[0].Clients[0]
		c.Secrets = []string{cognitotest.DemoClientSecret, "second+secret"}
		c.TokenTTL = 300 * time.Second
	})
	tests := []struct {
		name  string
		edit  func(*tokenRequest)
		scope string
	}{
		{"client_secret_basic", func(*tokenRequest) {}, "orders/read orders/write"},
		{"client_secret_post", func(tr *tokenRequest) {
			tr.user = ""
			tr.form.Set("client_id", cognitotest.DemoClientID)
			tr.form.Set("client_secret", cognitotest.DemoClientSecret)
		}, "orders/read orders/write"},
		{"the header and client_id, as Amazon's page has it", func(tr *tokenRequest) { tr.form.Set("client_id", cognitotest.DemoClientID) }, "orders/read orders/write"},
		{"the second secret", func(tr *tokenRequest) { tr.password = "second+secret" }, "orders/read orders/write"},
		{"the second secret, form-encoded as RFC 6749 has it", func(tr *tokenRequest) { tr.password = "second%2Bsecret" }, "orders/read orders/write"},
		{"a form-encoded client ID", func(tr *tokenRequest) { tr.user = "%31ordersbatch0demo0client00" }, "orders/read orders/write"},
		{"the second secret by client_secret_post", func(tr *tokenRequest) {
			tr.user = ""
			tr.form.Set("client_id", cognitotest.DemoClientID)
			tr.form.Set("client_secret", "second+secret")
		}, "orders/read orders/write"},
		{"the shared path", func(tr *tokenRequest) { tr.path = "/oauth2/token" }, "orders/read orders/write"},
		{"grant_type in the query", func(tr *tokenRequest) { tr.query, tr.form = "grant_type=client_credentials", nil }, "orders/read orders/write"},
		{"one scope", func(tr *tokenRequest) { tr.form.Set("scope", "orders/write") }, "orders/write"},
		{"both scopes in another order", func(tr *tokenRequest) { tr.form.Set("scope", "orders/write orders/read") }, "orders/read orders/write"},
		{"scopes that the client may not have", func(tr *tokenRequest) { tr.form.Set("scope", "orders/admin orders/read billing/read") }, "orders/read"},
		{"an empty scope", func(tr *tokenRequest) { tr.form.Set("scope", "") }, "orders/read orders/write"},
		{"metadata for the trigger", func(tr *tokenRequest) { tr.form.Set("aws_client_metadata", `{"a":"b"}`) }, "orders/read orders/write"},
		{"a charset in the content type", func(tr *tokenRequest) { tr.header.Set("Content-Type", formType+"; charset=UTF-8") }, "orders/read orders/write"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := granted()
			tt.edit(&tr)
			got := tr.send(t, s)
			if got.Status != http.StatusOK {
				t.Fatalf("status is %d %s, want 200", got.Status, got.Body)
			}
			var answer struct {
				AccessToken string `json:"access_token"`
			}
			if err := json.Unmarshal([]byte(got.Body), &answer); err != nil {
				t.Fatal(err)
			}
			if want := `{"access_token":"` + answer.AccessToken + `","expires_in":300,"token_type":"Bearer"}`; got.Body != want {
				t.Errorf("body\n got %s\nwant %s", got.Body, want)
			}
			if err := verify(pool.JWKS(), answer.AccessToken); err != nil {
				t.Error(err)
			}
			claims := claimsOf(t, answer.AccessToken)
			if claims["scope"] != tt.scope {
				t.Errorf("scope is %v, want %s", claims["scope"], tt.scope)
			}
			if got, want := claims["exp"].(float64)-claims["iat"].(float64), 300.0; got != want {
				t.Errorf("exp - iat is %v, want %v", got, want)
			}
		})
	}
}

// TestTokenEndpointErrors: each request is one change away from one that is granted.
func TestTokenEndpointErrors(t *testing.T) {
	t.Parallel()
	s, pool := start(t, func(cfg *cognitotest.Config) {
		p := &cfg.Pools[0]
		p.Clients = append(p.Clients,
			cognitotest.Client{ID: "noscopes", Secrets: []string{"s"}},
			cognitotest.Client{ID: "codeonly", Secrets: []string{"s"}, Flows: []string{cognitotest.FlowCode}},
		)
	})
	as := func(id, secret string) func(*tokenRequest) {
		return func(tr *tokenRequest) { tr.user, tr.password = id, secret }
	}
	public := func(grantType, name, value string) func(*tokenRequest) {
		return func(tr *tokenRequest) {
			tr.user = ""
			tr.form = url.Values{"grant_type": {grantType}, "client_id": {cognitotest.DemoWebID}, name: {value}}
		}
	}
	const (
		invalidRequest = `{"error":"invalid_request"}`
		invalidClient  = `{"error":"invalid_client"}`
		invalidSecret  = `{"error":"invalid_client","error_description":"invalid_client_secret"}`
		unauthorized   = `{"error":"unauthorized_client"}`
	)
	tests := []struct {
		name string
		edit func(*tokenRequest)
		want string
	}{
		{"no grant_type", func(tr *tokenRequest) { tr.form = nil }, invalidRequest},
		{"another grant_type", func(tr *tokenRequest) { tr.form.Set("grant_type", "password") }, `{"error":"unsupported_grant_type"}`},
		{"two grant_types", func(tr *tokenRequest) { tr.query = "grant_type=client_credentials" }, invalidRequest},
		{"no client", func(tr *tokenRequest) { tr.user = "" }, invalidRequest},
		{"JSON", func(tr *tokenRequest) {
			tr.body = `{"grant_type":"client_credentials"}`
			tr.header.Set("Content-Type", "application/json")
		}, invalidRequest},
		{"JSON called a form", func(tr *tokenRequest) { tr.body = `{"grant_type":"client_credentials"}` }, invalidRequest},
		{"a broken escape", func(tr *tokenRequest) { tr.body = "grant_type=client_credentials&scope=%zz" }, invalidRequest},
		{"a body over the limit", func(tr *tokenRequest) { tr.form.Set("x", strings.Repeat("x", 64<<10)) }, invalidRequest},
		{"two clients", func(tr *tokenRequest) { tr.form.Set("client_id", cognitotest.DemoReaderID) }, invalidRequest},

		{"an unknown client", as("nobody", "x"), invalidClient},
		{"an unknown client at the shared path", func(tr *tokenRequest) { tr.path, tr.user = "/oauth2/token", "nobody" }, invalidClient},
		{"a wrong secret", as(cognitotest.DemoClientID, "x"), invalidSecret},
		{"another client's secret", as(cognitotest.DemoClientID, cognitotest.DemoReaderSecret), invalidSecret},
		{"no secret in the header", as(cognitotest.DemoClientID, ""), invalidSecret},
		{"no secret in the body", func(tr *tokenRequest) {
			tr.user = ""
			tr.form.Set("client_id", cognitotest.DemoClientID)
		}, invalidSecret},
		{"the header is not Basic", func(tr *tokenRequest) {
			tr.user = ""
			tr.header.Set("Authorization", "Bearer x")
		}, invalidRequest},
		{"a secret of a public client", as(cognitotest.DemoWebID, "x"), invalidClient},

		{"client credentials by a public client", public("client_credentials", "scope", "orders/read"), unauthorized},
		{"client credentials by a client for people", as("codeonly", "s"), unauthorized},
		{"a code by a machine's client", func(tr *tokenRequest) { tr.form.Set("grant_type", "authorization_code") }, unauthorized},
		{"a refresh token by a machine's client", func(tr *tokenRequest) { tr.form.Set("grant_type", "refresh_token") }, unauthorized},
		{"no code", public("authorization_code", "x", "y"), invalidRequest},
		{"a code that was never given", public("authorization_code", "code", "18fe37c2"), `{"error":"invalid_grant"}`},
		{"no refresh token", public("refresh_token", "x", "y"), invalidRequest},
		{"a refresh token that was never given", public("refresh_token", "refresh_token", "eyJj"), `{"error":"invalid_grant"}`},

		{"only scopes that the client may not have", func(tr *tokenRequest) { tr.form.Set("scope", "orders/admin openid") }, `{"error":"invalid_scope"}`},
		{"a client without scopes", as("noscopes", "s"), `{"error":"invalid_scope"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := granted()
			tt.edit(&tr)
			got := tr.send(t, s)
			if got.Status != http.StatusBadRequest || got.Body != tt.want {
				t.Errorf("got %d %s, want 400 %s", got.Status, got.Body, tt.want)
			}
			if ct := got.Header.Get("Content-Type"); ct != "application/json;charset=UTF-8" {
				t.Errorf("Content-Type is %q", ct)
			}
		})
	}
	if n := pool.Requests(cognitotest.JWKS); n != 0 {
		t.Errorf("token requests counted as %d requests for keys", n)
	}
}

func TestTokenEndpointHeaders(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	want := map[string]string{
		"Content-Type":                "application/json;charset=UTF-8",
		"Cache-Control":               "no-cache, no-store, max-age=0, must-revalidate",
		"Pragma":                      "no-cache",
		"Expires":                     "0",
		"Access-Control-Allow-Origin": "*",
	}
	header := granted().send(t, s).Header
	got := make(map[string]string)
	for name := range want {
		got[name] = header.Get(name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if id := header.Get("x-amz-cognito-request-id"); !pattern("«uuid»", map[string]string{"uuid": uuid}).MatchString(id) {
		t.Errorf("x-amz-cognito-request-id is %q, want a UUID", id)
	}
}

func TestTokenEndpointWantsPOST(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	tr := granted()
	tr.method = http.MethodGet
	if got := tr.send(t, s); got.Status != http.StatusMethodNotAllowed || got.Body != "" || got.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET got %d %q, Allow %q; want 405 without a body, Allow POST", got.Status, got.Body, got.Header.Get("Allow"))
	}
}

func TestSetSecrets(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	status := func(secret string) int {
		tr := granted()
		tr.password = secret
		return tr.send(t, s).Status
	}
	for _, step := range []struct {
		secrets      []string
		oldOK, newOK int
	}{
		{[]string{cognitotest.DemoClientSecret, "new"}, 200, 200},
		{[]string{"new"}, 400, 200},
	} {
		if err := pool.SetSecrets(cognitotest.DemoClientID, step.secrets...); err != nil {
			t.Fatal(err)
		}
		if oldGot, newGot := status(cognitotest.DemoClientSecret), status("new"); oldGot != step.oldOK || newGot != step.newOK {
			t.Errorf("with %q: old secret %d, new %d; want %d, %d", step.secrets, oldGot, newGot, step.oldOK, step.newOK)
		}
	}

	for _, tt := range []struct {
		client  string
		secrets []string
		want    string
	}{
		{"nobody", nil, `there is no client "nobody"`},
		{cognitotest.DemoClientID, []string{"a", "b", "c"}, "there are 3 secrets, want at most 2"},
		{cognitotest.DemoClientID, []string{""}, "a secret is empty"},
		{cognitotest.DemoClientID, nil, "there is no secret, want one for the flow client_credentials"},
	} {
		if err := pool.SetSecrets(tt.client, tt.secrets...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("SetSecrets(%q, %q): %v, want %q in it", tt.client, tt.secrets, err, tt.want)
		}
	}
	if got := status("new"); got != 200 {
		t.Errorf("after refused changes the secret gets %d, want 200", got)
	}
	// A client for people stays one: secrets do not bring a flow.
	if err := pool.SetSecrets(cognitotest.DemoWebID, "s"); err != nil {
		t.Fatal(err)
	}
	tr := granted()
	tr.user, tr.password = cognitotest.DemoWebID, "s"
	if got := tr.send(t, s); got.Body != `{"error":"unauthorized_client"}` {
		t.Errorf("got %s, want unauthorized_client", got.Body)
	}
}

// TestSharedTokenPath: the same client ID in two pools is two clients; the shared path takes the first, the pool's own
// path that pool's.
func TestSharedTokenPath(t *testing.T) {
	t.Parallel()
	s, first := start(t, func(cfg *cognitotest.Config) {
		second := cognitotest.DemoPool()
		second.ID = "eu-west-1_Second"
		second.Clients = append(second.Clients, cognitotest.Client{ID: "onlysecond", Secrets: []string{"s"}, Scopes: []string{"orders/admin"}})
		cfg.Pools = append(cfg.Pools, second)
	})
	second := s.Pool("eu-west-1_Second")
	tests := []struct {
		name, path, client, secret string
		want                       *cognitotest.Pool
	}{
		{"shared path, client of both", "/oauth2/token", cognitotest.DemoClientID, cognitotest.DemoClientSecret, first},
		{"shared path, client of the second", "/oauth2/token", "onlysecond", "s", second},
		{"the second's path, client of both", "/eu-west-1_Second/oauth2/token", cognitotest.DemoClientID, cognitotest.DemoClientSecret, second},
		{"the first's path, client of the second", "/" + first.ID() + "/oauth2/token", "onlysecond", "s", nil},
		{"shared path, client of none", "/oauth2/token", "nobody", "s", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := granted()
			tr.path, tr.user, tr.password = tt.path, tt.client, tt.secret
			got := tr.send(t, s)
			if tt.want == nil {
				if got.Status != 400 || got.Body != `{"error":"invalid_client"}` {
					t.Errorf("got %d %s, want invalid_client", got.Status, got.Body)
				}
				return
			}
			var answer map[string]any
			if err := json.Unmarshal([]byte(got.Body), &answer); err != nil {
				t.Fatalf("%v: %s", err, got.Body)
			}
			if iss := claimsOf(t, answer["access_token"].(string))["iss"]; iss != tt.want.Issuer() {
				t.Errorf("iss is %v, want %s", iss, tt.want.Issuer())
			}
		})
	}
	if first.Requests(cognitotest.Token) != 2 || second.Requests(cognitotest.Token) != 2 {
		t.Errorf("pools counted %d and %d token requests, want 2 and 2", first.Requests(cognitotest.Token), second.Requests(cognitotest.Token))
	}
	tr := granted()
	tr.path = "/eu-west-1_Nowhere/oauth2/token"
	if got := tr.send(t, s); got.Status != http.StatusNotFound {
		t.Errorf("a pool that is not there got %d, want 404", got.Status)
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	base := s.URL + "/" + cognitotest.DemoPoolID
	got := get(t, pool.DiscoveryURL())
	want := `{"authorization_endpoint":"` + base + `/oauth2/authorize","end_session_endpoint":"` + base + `/logout",` +
		`"id_token_signing_alg_values_supported":["RS256"],"issuer":"` + base + `","jwks_uri":"` + base + `/.well-known/jwks.json",` +
		`"response_types_supported":["code","token"],"revocation_endpoint":"` + base + `/oauth2/revoke","scopes_supported":["openid","email","phone","profile"],` +
		`"subject_types_supported":["public"],"token_endpoint":"` + base + `/oauth2/token",` +
		`"token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post"],"userinfo_endpoint":"` + base + `/oauth2/userInfo"}`
	if got.Status != 200 || got.Body != want || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s\n%s\nwant\n%s", got.Status, got.Header.Get("Content-Type"), got.Body, want)
	}
	if n := pool.Requests(cognitotest.Discovery); n != 1 {
		t.Errorf("counted %d requests, want 1", n)
	}
}

func TestIssuerOfTheRealForm(t *testing.T) {
	t.Parallel()
	const issuer = "https://cognito-idp.eu-west-1.amazonaws.com/" + cognitotest.DemoPoolID
	s, pool := start(t, func(cfg *cognitotest.Config) { cfg.Pools[0].Issuer = issuer })
	if got := claimsOf(t, pool.Token(cognitotest.DemoClientID))["iss"]; got != issuer {
		t.Errorf("iss is %v, want %s", got, issuer)
	}
	if !strings.HasPrefix(pool.JWKSURL(), s.URL+"/") || !strings.Contains(get(t, pool.DiscoveryURL()).Body, `"issuer":"`+issuer+`"`) {
		t.Errorf("the key set is at %s, want it at the server, and the issuer in the metadata", pool.JWKSURL())
	}
}

func TestJWKSEndpoint(t *testing.T) {
	t.Parallel()
	s, pool := start(t)
	first := get(t, pool.JWKSURL())
	etag := first.Header.Get("ETag")
	if first.Status != 200 || first.Header.Get("Content-Type") != "application/json" || etag == "" || first.Header.Get("Cache-Control") != "" {
		t.Errorf("got %d %v", first.Status, first.Header)
	}
	conditional := func() response {
		req := newRequest(t, http.MethodGet, pool.JWKSURL(), "")
		req.Header.Set("If-None-Match", etag)
		return do(t, req)
	}
	if got := conditional(); got.Status != http.StatusNotModified || got.Body != "" {
		t.Errorf("with the ETag: %d %q, want 304", got.Status, got.Body)
	}
	pool.Rotate()
	if got := conditional(); got.Status != http.StatusOK || got.Header.Get("ETag") == etag {
		t.Errorf("with the ETag after a rotation: %d, ETag %s; want 200 and another", got.Status, got.Header.Get("ETag"))
	}
	if n := pool.Requests(cognitotest.JWKS); n != 3 {
		t.Errorf("counted %d requests, want 3", n)
	}

	if got := do(t, newRequest(t, http.MethodPost, pool.JWKSURL(), "")); got.Status != http.StatusMethodNotAllowed {
		t.Errorf("POST got %d, want 405", got.Status)
	}
	got := get(t, s.URL+"/eu-west-1_Nowhere/.well-known/jwks.json")
	if want := `{"message":"User pool eu-west-1_Nowhere does not exist."}`; got.Status != 400 || got.Body != want {
		t.Errorf("got %d %s, want 400 %s", got.Status, got.Body, want)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s, pool := start(t, func(cfg *cognitotest.Config) { cfg.TLS = true })
	if !strings.HasPrefix(pool.Issuer(), "https://127.0.0.1:") {
		t.Errorf("the issuer is %s, want https", pool.Issuer())
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CertPEM()) {
		t.Fatal("CertPEM holds no certificate")
	}
	trusting := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	res, err := trusting.Get(pool.JWKSURL())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if _, err := client.Get(pool.JWKSURL()); err == nil {
		t.Error("a client that does not know the certificate got an answer")
	}
}

// TestLogHoldsNoSecret: the log is for watching a demo, and must be fit to be shown.
func TestLogHoldsNoSecret(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s, pool := start(t, func(cfg *cognitotest.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	tr := granted()
	tr.query = "client_secret=canary_in_query"
	tr.form.Set("client_id", cognitotest.DemoClientID)
	tr.form.Set("x", "canary_in_form")
	answer := tr.send(t, s).Body
	pool.Fail(cognitotest.JWKS, cognitotest.Fault{Drop: true, Times: 1})
	if _, err := client.Get(pool.JWKSURL()); err == nil {
		t.Error("a dropped connection gave an answer")
	}
	pool.Fail(cognitotest.JWKS, cognitotest.Fault{Body: []byte("canary"), Truncate: true})
	res, err := client.Get(pool.JWKSURL())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	s.Close() // the log is written to no more

	for _, want := range []string{
		"msg=request method=POST path=/eu-west-1_Demo12345/oauth2/token status=200",
		"msg=request method=GET path=/eu-west-1_Demo12345/.well-known/jwks.json status=0",
		"msg=request method=GET path=/eu-west-1_Demo12345/.well-known/jwks.json status=200",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
	for _, secret := range []string{"canary", cognitotest.DemoClientSecret, answer} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds %q:\n%s", secret, log.String())
		}
	}
}
