package cognitotest

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// codeTTL is the life of an authorization code (authorization-endpoint: five minutes).
const codeTTL = 5 * time.Minute

// refreshTTL is the life of a refresh token (amazon-cognito-user-pools-using-the-refresh-token: 30 days by default).
const refreshTTL = 30 * 24 * time.Hour

// DefaultRedirectURL is the callback URL of a client that names none.
const DefaultRedirectURL = "http://localhost:3000"

// signIn is one sign-in of a person: what its tokens have in common.
type signIn struct {
	clientID  string
	username  string
	scopes    []string
	at        time.Time
	originJTI string
	revoked   bool
}

// issuedCode is an authorization code that has not been used.
type issuedCode struct {
	signIn      *signIn
	redirectURI string
	challenge   string // empty if the request had none
	nonce       string
	expires     time.Time
}

// issuedRefresh is a refresh token.
type issuedRefresh struct {
	signIn  *signIn
	expires time.Time
}

// AlterUserTokens changes the ID tokens and access tokens that the token endpoint issues to people from now on. Without
// options they are as Cognito's again.
func (p *Pool) AlterUserTokens(id, access []TokenOption) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idOptions, p.accessOptions = slices.Clone(id), slices.Clone(access)
}

// SignInAs lets the authorization endpoint sign in this person at once, as Cognito does with a browser that has a session.
// With the empty name it shows the sign-in page again.
func (p *Pool) SignInAs(username string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signedIn = username
}

// RevokeSignIns ends all sign-ins: their refresh tokens work no more, as after AdminUserGlobalSignOut.
func (p *Pool) RevokeSignIns() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.refreshTokens {
		r.signIn.revoked = true
	}
}

// authorization is a request at the authorization endpoint that is fit to be answered at its redirect URI.
type authorization struct {
	client      *Client
	redirectURI string
	query       url.Values
}

// serveAuthorize is the authorization endpoint.
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	p, a, ok := s.readAuthorization(w, r)
	if !ok || p.arrive(Authorize).serve(w, r) {
		return
	}
	if problem := a.problem(); problem != "" {
		a.refuse(w, r, problem, "")
		return
	}
	p.mu.Lock()
	username := p.signedIn
	p.mu.Unlock()
	if username == "" {
		// "Otherwise, it redirects to the Login endpoint with the same URL parameters" (authorization-endpoint).
		http.Redirect(w, r, "/"+p.id+"/login?"+r.URL.RawQuery, http.StatusFound) // #nosec G710 -- a path of our own
		return
	}
	p.accept(w, r, a, username)
}

// readAuthorization finds pool, client and redirect URI. Without them there is nowhere to send an error to, and Cognito shows
// a page (observed: /error?error=redirect_mismatch&client_id=…).
func (s *Server) readAuthorization(w http.ResponseWriter, r *http.Request) (*Pool, *authorization, bool) {
	query := r.URL.Query()
	p, known := s.poolOf(r, query.Get("client_id"))
	if !known {
		http.NotFound(w, r)
		return nil, nil, false
	}
	var client *Client
	if p != nil {
		client = p.client(query.Get("client_id"))
	}
	problem := ""
	switch {
	case client == nil:
		problem = "invalid_request"
	case !client.redirectsTo(query.Get("redirect_uri")):
		problem = "redirect_mismatch"
	}
	if problem != "" {
		writePage(w, http.StatusBadRequest, signInPage{Problem: problem})
		return nil, nil, false
	}
	return p, &authorization{client, query.Get("redirect_uri"), query}, true
}

// problem returns the error code for what is wrong with the request (authorization-endpoint).
func (a *authorization) problem() string {
	q := a.query
	switch {
	case hasRepeated(q), q.Get("response_type") == "":
		return "invalid_request"
	case q.Get("response_type") != "code", !slices.Contains(a.client.flows(), FlowCode):
		// Cognito knows token, the implicit grant, as well; no client here has it.
		return "unauthorized_client"
	case q.Has("code_challenge") != q.Has("code_challenge_method"), q.Has("code_challenge") && q.Get("code_challenge_method") != "S256":
		return "invalid_request"
	}
	for _, scope := range strings.Fields(q.Get("scope")) {
		if !slices.Contains(a.client.Scopes, scope) {
			return "invalid_scope"
		}
	}
	return ""
}

// refuse sends the browser back with an error (RFC 6749 section 4.1.2.1).
func (a *authorization) refuse(w http.ResponseWriter, r *http.Request, code, description string) {
	answer := url.Values{"error": {code}}
	if description != "" {
		answer.Set("error_description", description)
	}
	a.redirect(w, r, answer)
}

func (a *authorization) redirect(w http.ResponseWriter, r *http.Request, answer url.Values) {
	if state := a.query.Get("state"); state != "" {
		answer.Set("state", state)
	}
	u, err := url.Parse(a.redirectURI)
	if err != nil {
		writePage(w, http.StatusBadRequest, signInPage{Problem: "redirect_mismatch"})
		return
	}
	query := u.Query()
	for name, values := range answer {
		query[name] = values
	}
	u.RawQuery = query.Encode()
	http.Redirect(w, r, u.String(), http.StatusFound) // #nosec G710 -- one of the client's URLs
}

// accept sends the browser back with a code.
func (p *Pool) accept(w http.ResponseWriter, r *http.Request, a *authorization, username string) {
	scopes := a.client.Scopes
	if requested := strings.Fields(a.query.Get("scope")); len(requested) > 0 {
		scopes = requested
	}
	now := p.now()
	code := newUUID() // observed
	p.mu.Lock()
	for c, issued := range p.codes {
		if now.After(issued.expires) {
			delete(p.codes, c)
		}
	}
	p.codes[code] = issuedCode{
		signIn:      &signIn{clientID: a.client.ID, username: username, scopes: slices.Clone(scopes), at: now, originJTI: newUUID()},
		redirectURI: a.redirectURI,
		challenge:   a.query.Get("code_challenge"),
		nonce:       a.query.Get("nonce"),
		expires:     now.Add(codeTTL),
	}
	p.mu.Unlock()
	a.redirect(w, r, url.Values{"code": {code}})
}

// serveLogin is the sign-in page. It believes whatever name is typed, and asks for no password.
func (s *Server) serveLogin(w http.ResponseWriter, r *http.Request) {
	p, a, ok := s.readAuthorization(w, r)
	if !ok {
		return
	}
	if problem := a.problem(); problem != "" {
		a.refuse(w, r, problem, "")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		writePage(w, http.StatusOK, signInPage{Client: a.client.ID})
		return
	}
	switch username := strings.TrimSpace(r.PostForm.Get("username")); {
	case r.PostForm.Get("action") == "deny":
		// What an identity provider behind Cognito answers when the person says no. Cognito's own page has no such button.
		a.refuse(w, r, "access_denied", "The person has said no")
	case username == "":
		writePage(w, http.StatusOK, signInPage{Client: a.client.ID, Problem: "The name is empty."})
	default:
		p.accept(w, r, a, username)
	}
}

// serveLogout ends the browser's session, of which there is none here, and goes on (logout-endpoint).
func (s *Server) serveLogout(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	p, known := s.poolOf(r, query.Get("client_id"))
	if !known {
		http.NotFound(w, r)
		return
	}
	var client *Client
	if p != nil {
		client = p.client(query.Get("client_id"))
	}
	if client == nil || !slices.Contains(client.LogoutURLs, query.Get("logout_uri")) {
		writePage(w, http.StatusBadRequest, signInPage{Problem: "invalid_request"})
		return
	}
	http.Redirect(w, r, query.Get("logout_uri"), http.StatusFound) // #nosec G710 -- one of the client's URLs
}

// serveRevoke is the revocation endpoint (revocation-endpoint; RFC 7009).
func (s *Server) serveRevoke(w http.ResponseWriter, r *http.Request) {
	in, ok := s.receive(Revoke, w, r)
	if !ok {
		return
	}
	token := r.Form.Get("token")
	if in.form != nil || hasRepeated(r.Form) || in.clients.contradictory || in.clients.id == "" || token == "" {
		writeTokenError(w, &tokenError{code: codeInvalidRequest})
		return
	}
	p := in.pool
	client, failure := p.authenticate(in.clients)
	if failure != nil {
		writeTokenError(w, failure)
		return
	}
	if strings.Count(token, ".") == 2 {
		// "If the token that Amazon Cognito is to revoke isn't a refresh token".
		writeTokenError(w, &tokenError{code: "unsupported_token_type"})
		return
	}
	p.mu.Lock()
	// One that is not known is as good as revoked (RFC 7009 section 2.2). What Cognito answers for another client's is
	// "unauthorized_client".
	issued, ok := p.refreshTokens[token]
	foreign := ok && issued.signIn.clientID != client.ID
	if ok && !foreign {
		issued.signIn.revoked = true
	}
	p.mu.Unlock()
	if foreign {
		writeTokenError(w, &tokenError{code: codeUnauthorizedClient})
		return
	}
	w.WriteHeader(http.StatusOK) // with an empty body
}

// exchange takes a code once (RFC 6749 section 4.1.3, RFC 7636 section 4.6). Whether Cognito revokes what it issued for a code
// that comes twice is not known.
func (p *Pool) exchange(form url.Values, client *Client) (*signIn, string, *tokenError) {
	if form.Get("code") == "" {
		return nil, "", &tokenError{code: codeInvalidRequest}
	}
	p.mu.Lock()
	issued, ok := p.codes[form.Get("code")]
	delete(p.codes, form.Get("code"))
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	switch {
	case !ok, p.now().After(issued.expires), issued.signIn.clientID != client.ID, issued.redirectURI != form.Get("redirect_uri"):
		return nil, "", &tokenError{code: codeInvalidGrant}
	case issued.challenge != "" && subtle.ConstantTimeCompare([]byte(issued.challenge), []byte(challenge)) != 1:
		return nil, "", &tokenError{code: codeInvalidGrant}
	case issued.challenge == "" && form.Has("code_verifier"):
		return nil, "", &tokenError{code: codeInvalidGrant} // RFC 9700 section 2.1.1: a downgrade
	}
	return issued.signIn, issued.nonce, nil
}

// refresh takes a refresh token, and with rotation takes it away once Client.RefreshGrace has passed.
func (p *Pool) refresh(form url.Values, client *Client) (s *signIn, rotate bool, failure *tokenError) {
	token := form.Get("refresh_token")
	if token == "" {
		return nil, false, &tokenError{code: codeInvalidRequest}
	}
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	issued, ok := p.refreshTokens[token]
	if !ok || issued.signIn.revoked || now.After(issued.expires) || issued.signIn.clientID != client.ID {
		return nil, false, &tokenError{code: codeInvalidGrant}
	}
	if client.RotateRefreshTokens {
		// RefreshTokenRotationType: "the original refresh token ... can remain valid for a period of time of up to 60 seconds".
		if issued.expires = now.Add(client.RefreshGrace); client.RefreshGrace == 0 {
			delete(p.refreshTokens, token)
		}
	}
	return issued.signIn, client.RotateRefreshTokens, nil
}

// newRefreshToken has the form of Cognito's: a JWE of some 1,000 bytes that only it can read (observed).
func (p *Pool) newRefreshToken(s *signIn) string {
	part := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.Read(b) // never fails
		return base64.RawURLEncoding.EncodeToString(b)
	}
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"cty":"JWT","enc":"A256GCM","alg":"RSA-OAEP"}`))
	token := strings.Join([]string{header, part(256), part(12), part(480), part(16)}, ".")
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, issued := range p.refreshTokens {
		if now.After(issued.expires) {
			delete(p.refreshTokens, t)
		}
	}
	p.refreshTokens[token] = &issuedRefresh{s, now.Add(refreshTTL)}
	return token
}

// userAnswer is the token endpoint's answer for a person. The order of its members is observed. There is an ID token if the
// scope openid was granted.
func (p *Pool) userAnswer(client *Client, s *signIn, nonce, refreshToken string) object {
	p.mu.Lock()
	idOptions, accessOptions := slices.Clone(p.idOptions), slices.Clone(p.accessOptions)
	p.mu.Unlock()
	common := []TokenOption{Claim("origin_jti", s.originJTI), Claim("event_id", newUUID()), Claim("auth_time", s.at.Unix())}
	access := p.UserToken(client.ID, s.username, slices.Concat([]TokenOption{Scopes(s.scopes...)}, common, accessOptions)...)

	var answer object
	if slices.Contains(s.scopes, "openid") {
		// at_hash is observed. A refreshed ID token has no nonce, as OpenID Connect Core section 12.2 has it; whether that is
		// so with Cognito is not known.
		sum := sha256.Sum256([]byte(access))
		id := []TokenOption{Claim("at_hash", base64.RawURLEncoding.EncodeToString(sum[:16]))}
		if nonce != "" {
			id = append(id, Claim("nonce", nonce))
		}
		answer = append(answer, member{"id_token", p.IDToken(client.ID, s.username, slices.Concat(common, id, idOptions)...)})
	}
	answer = append(answer, member{"access_token", access})
	if refreshToken != "" {
		answer = append(answer, member{"refresh_token", refreshToken})
	}
	return append(answer, member{"expires_in", int64(client.ttl() / time.Second)}, member{"token_type", "Bearer"})
}

// redirectsTo reports whether the URL is one of the client's, to the letter. A callback URL with port 0 stands for any port,
// which is not Cognito's way but RFC 8252's (section 7.3): tests need free ports.
func (c *Client) redirectsTo(address string) bool {
	urls := c.RedirectURLs
	if len(urls) == 0 {
		urls = []string{DefaultRedirectURL}
	}
	if slices.Contains(urls, address) {
		return address != ""
	}
	u, err := url.Parse(address)
	if err != nil || u.Port() == "" || !isLoopbackHost(u.Hostname()) {
		return false
	}
	u.Host = net.JoinHostPort(u.Hostname(), "0")
	return slices.Contains(urls, u.String())
}

// signInPage is what people see.
type signInPage struct {
	Client  string // whose sign-in page it is; empty for an error
	Problem string
}

var signInTemplate = template.Must(template.New("sign-in").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>fakecognito</title>
<h1>fakecognito, for development only</h1>
{{with .Problem}}<p id="problem">{{.}}</p>
{{end}}{{with .Client}}<p>Sign in to {{.}} with any name. There is no password.</p>
<form method="post">
<label>Name <input name="username" autofocus></label>
<button name="action" value="signin">Sign in</button>
<button name="action" value="deny">Deny</button>
</form>
{{end}}</html>
`))

func writePage(w http.ResponseWriter, status int, page signInPage) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = signInTemplate.Execute(w, page) // that the browser has gone is nobody's concern
}
