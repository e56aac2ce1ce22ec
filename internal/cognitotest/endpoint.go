package cognitotest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxFormBytes bounds what is read of a token request. Cognito's own bound is not known.
const maxFormBytes = 64 << 10

func (s *Server) routes(control bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{pool}/.well-known/jwks.json", s.inPool(JWKS, (*Pool).serveJWKS))
	mux.HandleFunc("GET /{pool}/.well-known/openid-configuration", s.inPool(Discovery, (*Pool).serveDiscovery))
	mux.HandleFunc("/{pool}/oauth2/token", s.serveToken)
	mux.HandleFunc("/oauth2/token", s.serveToken)
	for _, base := range []string{"", "/{pool}"} {
		mux.HandleFunc("GET "+base+"/oauth2/authorize", s.serveAuthorize)
		mux.HandleFunc("GET "+base+"/login", s.serveLogin)
		mux.HandleFunc("POST "+base+"/login", s.serveLogin)
		mux.HandleFunc("GET "+base+"/logout", s.serveLogout)
		mux.HandleFunc(base+"/oauth2/revoke", s.serveRevoke)
	}
	if control {
		s.routeControl(mux)
	}
	if s.log == nil {
		return mux
	}
	return logRequests(s.log, mux)
}

// inPool finds the pool of the request's path and counts the request, then lets a fault or the endpoint answer it.
func (s *Server) inPool(e Endpoint, serve func(*Pool, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := s.Pool(r.PathValue("pool"))
		if p == nil {
			// Observed, with status 400; others have written 404 for it.
			message := "User pool " + r.PathValue("pool") + " does not exist."
			writeJSON(w, http.StatusBadRequest, "application/json", mustMarshal(object{{"message", message}}))
			return
		}
		if !p.arrive(e).serve(w, r) {
			serve(p, w, r)
		}
	}
}

// serveJWKS answers with an ETag, and 304 to a request that knows it. Which caching headers Cognito sends is not known,
// so there is no Cache-Control: a verifier must not need one.
func (p *Pool) serveJWKS(w http.ResponseWriter, r *http.Request) {
	body := p.JWKS()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(body)))) // strong: the same bytes
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// serveDiscovery has the members of Cognito's document, in its order (federation-endpoints; observed). Of the
// addresses, that of userInfo leads nowhere.
func (p *Pool) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	base := p.server.URL + "/" + p.id
	writeJSON(w, http.StatusOK, "application/json", mustMarshal(object{
		{"authorization_endpoint", base + "/oauth2/authorize"},
		{"end_session_endpoint", base + "/logout"},
		{"id_token_signing_alg_values_supported", []string{"RS256"}},
		{"issuer", p.issuer},
		{"jwks_uri", p.JWKSURL()},
		{"response_types_supported", []string{"code", "token"}},
		{"revocation_endpoint", base + "/oauth2/revoke"},
		{"scopes_supported", []string{"openid", "email", "phone", "profile"}},
		{"subject_types_supported", []string{"public"}},
		{"token_endpoint", p.TokenURL()},
		{"token_endpoint_auth_methods_supported", []string{"client_secret_basic", "client_secret_post"}},
		{"userinfo_endpoint", base + "/oauth2/userInfo"},
	}))
}

// The error codes of the token endpoint (token-endpoint; RFC 6749 section 5.2). invalid_scope is not on that page, but
// observed.
const (
	codeInvalidRequest       = "invalid_request"
	codeInvalidClient        = "invalid_client"
	codeInvalidGrant         = "invalid_grant"
	codeUnauthorizedClient   = "unauthorized_client"
	codeUnsupportedGrantType = "unsupported_grant_type"
	codeInvalidScope         = "invalid_scope"
)

// tokenError is an error answer of the token endpoint. Its status is always 400 (token-endpoint; observed for
// invalid_client too, where RFC 6749 would have 401 after an Authorization header).
type tokenError struct {
	code        string
	description string // most have none
}

// A post is what came to an endpoint that clients post forms to.
type post struct {
	pool    *Pool // nil: no client of that id is known
	form    error // why the form could not be read
	clients credentials
}

// receive reads a form. It has answered the request if it is not ok.
func (s *Server) receive(e Endpoint, w http.ResponseWriter, r *http.Request) (post, bool) {
	s.tokenHeader(w.Header())
	if r.Method != http.MethodPost {
		// Observed: status 405 with an empty body (amazon-archives/amazon-cognito-auth-js#52).
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return post{}, false
	}
	// Parameters in the query count as well as those in the body (observed: many callers send grant_type so). A body of
	// another type than a form has none (observed: invalid_request).
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	in := post{form: r.ParseForm()}
	in.clients = readCredentials(r)
	var known bool
	if in.pool, known = s.poolOf(r, in.clients.id); !known {
		http.NotFound(w, r)
		return post{}, false
	}
	return in, in.pool == nil || !in.pool.arrive(e).serve(w, r)
}

// serveToken is the token endpoint.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	in, ok := s.receive(Token, w, r)
	if !ok {
		return
	}
	if in.form != nil {
		writeTokenError(w, &tokenError{code: codeInvalidRequest})
		return
	}
	answer, failure := in.pool.grant(r.Form, in.clients)
	if failure != nil {
		writeTokenError(w, failure)
		return
	}
	writeJSON(w, http.StatusOK, tokenContentType, mustMarshal(answer))
}

// poolOf finds the pool that a token request is for: that of the path, else the first that has the client, else the
// only one there is. Nil is for a client that none of several pools has; known is false for a pool that is not there.
func (s *Server) poolOf(r *http.Request, clientID string) (p *Pool, known bool) {
	if id := r.PathValue("pool"); id != "" {
		p = s.Pool(id)
		return p, p != nil
	}
	for _, p := range s.pools {
		if p.client(clientID) != nil {
			return p, true
		}
	}
	if len(s.pools) == 1 {
		return s.pools[0], true
	}
	return nil, true
}

// grant decides a token request. The order in which Cognito looks at things is not known; a request with one fault gets
// the answer of that fault. p is nil for a client that no pool has.
func (p *Pool) grant(form url.Values, creds credentials) (object, *tokenError) {
	grantType := form.Get("grant_type")
	switch {
	case hasRepeated(form), creds.contradictory, grantType == "", creds.id == "":
		// RFC 6749 section 3.2: parameters must not be repeated. What Cognito does with repeated ones, or with an
		// Authorization header and a body that name different clients, is not known.
		return nil, &tokenError{code: codeInvalidRequest}
	case !slices.Contains([]string{"client_credentials", "authorization_code", "refresh_token"}, grantType):
		return nil, &tokenError{code: codeUnsupportedGrantType}
	}
	client, failure := p.authenticate(creds)
	if failure != nil {
		return nil, failure
	}
	flow := FlowCode
	if grantType == "client_credentials" {
		flow = FlowClientCredentials
	}
	if !slices.Contains(client.flows(), flow) {
		return nil, &tokenError{code: codeUnauthorizedClient}
	}
	switch grantType {
	case "client_credentials":
		return p.grantMachine(form, client)
	case "authorization_code":
		signIn, nonce, failure := p.exchange(form, client)
		if failure != nil {
			return nil, failure
		}
		return p.userAnswer(client, signIn, nonce, p.newRefreshToken(signIn)), nil
	default:
		signIn, rotate, failure := p.refresh(form, client)
		if failure != nil {
			return nil, failure
		}
		refreshToken := ""
		if rotate {
			refreshToken = p.newRefreshToken(signIn)
		}
		return p.userAnswer(client, signIn, "", refreshToken), nil
	}
}

// authenticate finds the client of a token request. p is nil for a client that no pool has.
func (p *Pool) authenticate(creds credentials) (*Client, *tokenError) {
	var client *Client
	if p != nil {
		client = p.client(creds.id)
	}
	switch {
	case client == nil:
		return nil, &tokenError{code: codeInvalidClient}
	case len(client.Secrets) > 0 && !creds.match(client.Secrets):
		// Observed for a missing and for a wrong secret.
		return nil, &tokenError{code: codeInvalidClient, description: "invalid_client_secret"}
	case len(client.Secrets) == 0 && len(creds.secrets) > 0:
		// A public client must not send a secret. What Cognito answers is not known.
		return nil, &tokenError{code: codeInvalidClient}
	}
	return client, nil
}

func (p *Pool) grantMachine(form url.Values, client *Client) (object, *tokenError) {
	scopes := grantScopes(form.Get("scope"), client.Scopes)
	if len(scopes) == 0 {
		// Observed for a client without scopes (https://repost.aws/questions/QUnhrxb08MRJaH7hIRtUnCKA). For a request whose
		// scopes are all ignored it is not known.
		return nil, &tokenError{code: codeInvalidScope}
	}
	// The order of the members is observed; the page has both.
	return object{
		{"access_token", p.Token(client.ID, Scopes(scopes...))},
		{"expires_in", int64(client.ttl() / time.Second)},
		{"token_type", "Bearer"},
	}, nil
}

// grantScopes returns the scopes that a request gets. One that asks for none gets all; scopes that the client may not
// have are ignored (token-endpoint). They come in the order of the client's, each once; Cognito's order is not known.
func grantScopes(requested string, allowed []string) []string {
	if requested == "" {
		return allowed
	}
	asked := strings.Split(requested, " ")
	var scopes []string
	for _, scope := range allowed {
		if slices.Contains(asked, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// credentials are what a token request authenticates its client with.
type credentials struct {
	id            string
	secrets       []string // every reading of the secret; empty if there is none
	contradictory bool
}

// readCredentials takes client_secret_basic or else client_secret_post (token-endpoint). With an Authorization header
// the body may name the client once more, as the page's own examples do.
func readCredentials(r *http.Request) credentials {
	postID, postSecret := r.Form.Get("client_id"), r.Form.Get("client_secret")
	basicID, basicSecret, ok := r.BasicAuth()
	if !ok {
		c := credentials{id: postID}
		if postSecret != "" {
			c.secrets = []string{postSecret}
		}
		return c
	}

	c := credentials{id: basicID}
	if basicSecret != "" {
		c.secrets = []string{basicSecret}
	}
	// RFC 6749 section 2.3.1 has both parts form-encoded before base64, and golang.org/x/oauth2 does so; the page's
	// example does not. Which one Cognito decodes is not known, and matters only for a secret with a + in it: both pass.
	if id, err := url.QueryUnescape(basicID); err == nil && strings.Contains(basicID, "%") {
		c.id = id
	}
	if secret, err := url.QueryUnescape(basicSecret); err == nil && secret != basicSecret {
		c.secrets = append(c.secrets, secret)
	}
	c.contradictory = postID != "" && postID != c.id
	return c
}

func (c credentials) match(secrets []string) bool {
	return slices.ContainsFunc(c.secrets, func(s string) bool { return slices.Contains(secrets, s) })
}

func hasRepeated(form url.Values) bool {
	for _, values := range form {
		if len(values) > 1 {
			return true
		}
	}
	return false
}

const tokenContentType = "application/json;charset=UTF-8" // token-endpoint; observed

// tokenHeader sets the headers of all answers of the token endpoint (observed; x-amz-cognito-request-id and
// Access-Control-Allow-Origin also in token-endpoint). Cookies and the headers about transport are left out.
func (s *Server) tokenHeader(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cache-Control", "no-cache, no-store, max-age=0, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "0")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Amz-Cognito-Request-Id", newUUID())
}

func writeTokenError(w http.ResponseWriter, e *tokenError) {
	body := object{{"error", e.code}}
	if e.description != "" {
		body = append(body, member{"error_description", e.description})
	}
	writeJSON(w, http.StatusBadRequest, tokenContentType, mustMarshal(body))
}

func writeJSON(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // #nosec G705 -- JSON, and said to be
}

func itoa(n int) string { return strconv.Itoa(n) }

// logRequests logs method, path and status of each request: no query and no form, which hold secrets.
func logRequests(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, sw := r.Context(), &statusWriter{ResponseWriter: w}
		defer func() { // deferred, as a handler that closes the connection panics
			log.LogAttrs(ctx, slog.LevelInfo, "request",
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", sw.status))
		}()
		next.ServeHTTP(sw, r)
	})
}

// statusWriter remembers the status; 0 is a connection closed without an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
