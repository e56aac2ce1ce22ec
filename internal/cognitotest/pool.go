package cognitotest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Pool is a user pool of a [Server]. All its methods may be called from several goroutines at once, and go on working
// after [Server.Close]: only the endpoints are gone then.
type Pool struct {
	server *Server
	id     string
	issuer string
	now    func() time.Time

	mu        sync.Mutex
	clients   map[string]*Client // replaced, never changed
	accessKey Key
	idKey     Key
	published []Key
	faults    map[Endpoint]Fault
	requests  map[Endpoint]int
	arrived   chan struct{} // closed and replaced when a request arrives

	codes                    map[string]issuedCode
	refreshTokens            map[string]*issuedRefresh
	signedIn                 string // who the authorization endpoint signs in at once
	idOptions, accessOptions []TokenOption
}

func newPool(s *Server, cfg PoolConfig) *Pool {
	p := &Pool{
		server:    s,
		id:        cfg.ID,
		issuer:    cfg.Issuer,
		now:       cfg.Now,
		clients:   make(map[string]*Client),
		accessKey: s.newKey(),
		idKey:     s.newKey(),
		faults:    make(map[Endpoint]Fault),
		requests:  make(map[Endpoint]int),
		arrived:   make(chan struct{}),

		codes:         make(map[string]issuedCode),
		refreshTokens: make(map[string]*issuedRefresh),
		signedIn:      cfg.SignInAs,
	}
	if p.issuer == "" {
		p.issuer = s.URL + "/" + cfg.ID
	}
	if p.now == nil {
		p.now = time.Now
	}
	for _, c := range cfg.Clients {
		p.clients[c.ID] = &c
	}
	p.published = []Key{p.idKey, p.accessKey}
	return p
}

// ID returns the user pool ID.
func (p *Pool) ID() string { return p.id }

// Issuer returns the iss claim of the pool's tokens.
func (p *Pool) Issuer() string { return p.issuer }

// JWKSURL returns the address of the pool's JWK Set, which has Cognito's form: /<pool>/.well-known/jwks.json.
func (p *Pool) JWKSURL() string { return p.server.URL + "/" + p.id + "/.well-known/jwks.json" }

// DiscoveryURL returns the address of the OpenID provider metadata: /<pool>/.well-known/openid-configuration.
func (p *Pool) DiscoveryURL() string {
	return p.server.URL + "/" + p.id + "/.well-known/openid-configuration"
}

// TokenURL returns the address of the pool's token endpoint. With Cognito each pool has a domain of its own, where the
// path is /oauth2/token; here the pool stands before it. The server answers at /oauth2/token too, for the client that
// the request names.
func (p *Pool) TokenURL() string { return p.server.URL + "/" + p.id + "/oauth2/token" }

// AuthorizeURL returns the address of the pool's authorization endpoint, where people sign in.
func (p *Pool) AuthorizeURL() string { return p.server.URL + "/" + p.id + "/oauth2/authorize" }

// RevokeURL returns the address of the pool's revocation endpoint.
func (p *Pool) RevokeURL() string { return p.server.URL + "/" + p.id + "/oauth2/revoke" }

// LogoutURL returns the address where a browser's session ends.
func (p *Pool) LogoutURL() string { return p.server.URL + "/" + p.id + "/logout" }

// SetSecrets replaces the client's secrets, at once and for new token requests only, as AddUserPoolClientSecret and
// DeleteUserPoolClientSecret do. It is an error if the pool does not have the client, and if there would be more than
// two secrets or, for a client of the client credentials grant, none.
func (p *Pool) SetSecrets(clientID string, secrets ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.clients[clientID]
	if !ok {
		return fmt.Errorf("cognitotest: pool %q: there is no client %q", p.id, clientID)
	}
	changed := *c
	changed.Flows = c.flows() // the default depends on the secrets, but a flow does not come and go with them
	changed.Secrets = slices.Clone(secrets)
	if errs := checkSecrets(&changed); len(errs) > 0 {
		return fmt.Errorf("cognitotest: pool %q: client %q: %w", p.id, clientID, errors.Join(errs...))
	}
	p.clients[clientID] = &changed
	return nil
}

// client returns the app client, nil if there is none.
func (p *Pool) client(id string) *Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clients[id]
}

// AccessKey returns the key that signs access tokens. ID tokens are signed by another, so their kid never is that of an
// access token (amazon-cognito-user-pools-using-the-access-token).
func (p *Pool) AccessKey() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accessKey
}

// IDKey returns the key that signs ID tokens.
func (p *Pool) IDKey() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idKey
}

// Keys returns the published keys, in the order of the JWK Set.
func (p *Pool) Keys() []Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.published)
}

// JWKS returns the JWK Set that the pool publishes now.
func (p *Pool) JWKS() []byte { return jwks(p.Keys()) }

// AddKey publishes a new key that signs nothing yet and returns it.
func (p *Pool) AddKey() Key {
	k := p.server.newKey()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = append(p.published, k)
	return k
}

// Rotate publishes a new key, signs access tokens with it from now on, and returns it. The old key stays published
// until [Pool.RemoveKey]. The ID tokens' key does not change. How Cognito rotates is not known: it says only that it
// might (amazon-cognito-user-pools-using-tokens-verifying-a-jwt).
func (p *Pool) Rotate() Key {
	k := p.server.newKey()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = append(p.published, k)
	p.accessKey = k
	return k
}

// RemoveKey takes the key with the given kid out of the JWK Set and tells whether it was there. A removed key that
// signs goes on signing: no verifier can then accept what it signs.
func (p *Pool) RemoveKey(kid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.published)
	p.published = slices.DeleteFunc(slices.Clone(p.published), func(k Key) bool { return k.ID == kid })
	return len(p.published) < before
}

// ForgedKey returns a key pair that no pool of the server has, under the kid of the current access key: what somebody
// has who copies a kid from a real token.
func (p *Pool) ForgedKey() Key {
	return Key{ID: p.AccessKey().ID, Private: p.server.newKey().Private}
}

// Requests returns how many requests the endpoint has had, those answered by a fault included. Requests at the shared
// /oauth2/token count for the pool of the client that they name.
func (p *Pool) Requests(e Endpoint) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[e]
}

// WaitRequests returns when the endpoint has had n requests or more, or with the context's error. A request that a
// fault holds has arrived.
func (p *Pool) WaitRequests(ctx context.Context, e Endpoint, n int) error {
	for {
		p.mu.Lock()
		have, arrived := p.requests[e], p.arrived
		p.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return fmt.Errorf("cognitotest: pool %q: %s has had %d requests, want %d: %w", p.id, e, have, n, ctx.Err())
		}
	}
}

// Fail makes the endpoint misbehave as f says, from the next request on, instead of any fault set before.
func (p *Pool) Fail(e Endpoint, f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[e] = f
}

// Heal takes the endpoint's fault away. Requests that it holds are not released.
func (p *Pool) Heal(e Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.faults, e)
}

// arrive counts a request and returns the fault that is to meet it.
func (p *Pool) arrive(e Endpoint) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[e]++
	close(p.arrived)
	p.arrived = make(chan struct{})

	f, ok := p.faults[e]
	switch {
	case !ok:
		return Fault{}
	case f.Times == 1:
		delete(p.faults, e)
	case f.Times > 1:
		left := f
		left.Times--
		p.faults[e] = left
	}
	return f
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
