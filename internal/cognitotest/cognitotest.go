// Package cognitotest is a stand-in for Amazon Cognito user pools, FOR DEVELOPMENT AND TESTS ONLY. Its keys live in
// memory, its client secrets in plain text, and it listens on loopback addresses and nowhere else.
//
//	s, err := cognitotest.Start(cognitotest.Config{Pools: []cognitotest.PoolConfig{cognitotest.DemoPool()}})
//	defer s.Close()
//	pool := s.Pools()[0]
//	token := pool.Token(cognitotest.DemoClientID)  // as the client credentials grant would issue it
//	pool.JWKSURL(), pool.Issuer(), pool.TokenURL() // what a verifier and a caller are configured with
//
// People sign in at [Pool.AuthorizeURL], with any name and no password, or at once with [Pool.SignInAs].
//
// What a verifier or a caller can observe is as Cognito does it: the shape and the order of the claims, the escaped
// slashes, the two RSA keys of a pool, the discovery document, codes with PKCE, refresh tokens with and without rotation,
// revocation, and the token endpoint's answers and error codes. Where
// Amazon documents a behaviour, the comment beside the code names the page; where it is known only from what people
// have seen and published, the comment says "observed"; where neither was found, it says "not known" and what was chosen.
//
// The rest of the package serves negative tests. [Pool.Sign], [Pool.SignBytes] and [Key.Sign] make tokens that Cognito
// never would; [Pool.Rotate] and [Pool.RemoveKey] change the key set; [Pool.Fail] makes an endpoint misbehave on demand;
// [Pool.Requests] and [Pool.WaitRequests] tell what has arrived. Nothing here sleeps, and after [Server.Close] returns
// no goroutine of the server is left.
//
// The pages cited are those of the Amazon Cognito Developer Guide, https://docs.aws.amazon.com/cognito/latest/developerguide/:
// token-endpoint, authorization-endpoint, revocation-endpoint, logout-endpoint, federation-endpoints,
// amazon-cognito-user-pools-using-the-refresh-token, amazon-cognito-user-pools-using-the-access-token,
// amazon-cognito-user-pools-using-the-id-token and amazon-cognito-user-pools-using-tokens-verifying-a-jwt.
package cognitotest

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config says where a [Server] listens and what it serves.
type Config struct {
	// Addr is the host:port to listen on. The host must be localhost or a loopback address; anything else is an error,
	// since whoever reaches the server can have any token. Empty means 127.0.0.1:0, port 0 a free port.
	Addr string
	// Pools are the user pools. At least one is required; [DemoPool] is one that is ready to use.
	Pools []PoolConfig
	// TLS serves HTTPS with a certificate made at start for 127.0.0.1, ::1 and localhost. See [Server.CertPEM].
	TLS bool
	// Control serves the control endpoints under /_control/, which rotate keys, set faults and mint tokens. See the
	// page docs/fakecognito.md. In-process users call the methods of [Pool] and leave it off.
	Control bool
	// Logger gets one line for each request, without any parameter of it. Nil means no log.
	Logger *slog.Logger
}

// Server is a running stand-in. All its methods may be called from several goroutines at once.
type Server struct {
	// URL is the base of all URLs, such as http://127.0.0.1:41234, without a slash at the end.
	URL string

	pools   []*Pool
	log     *slog.Logger
	certPEM []byte

	http      *http.Server
	stop      context.CancelFunc // releases every request that a fault holds
	serveDone chan struct{}
	conns     sync.WaitGroup
	closing   atomic.Bool
	closeOnce sync.Once

	mu   sync.Mutex
	used map[*rsa.PrivateKey]bool // so that no two keys of this server are the same pair
}

// Check returns an error that names every problem of cfg, one in each line. It does no I/O. [Start] calls it.
func (cfg Config) Check() error {
	if err := errors.Join(checkAddr(cfg.Addr), checkPools(cfg.Pools)); err != nil {
		return fmt.Errorf("cognitotest: %w", err)
	}
	return nil
}

// Start checks cfg, listens and serves until [Server.Close].
func Start(cfg Config) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	addr := cfg.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cognitotest: listen: %w", err)
	}
	// The name localhost means whatever the hosts file says.
	if ip := listener.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		listener.Close()
		return nil, fmt.Errorf("cognitotest: listen: %s is %s, want a loopback address", addr, ip)
	}

	s := &Server{
		URL:       "http://" + listener.Addr().String(),
		log:       cfg.Logger,
		serveDone: make(chan struct{}),
		used:      make(map[*rsa.PrivateKey]bool),
	}
	if cfg.TLS {
		cert, err := selfSigned()
		if err != nil {
			listener.Close()
			return nil, fmt.Errorf("cognitotest: make a certificate: %w", err)
		}
		s.URL = "https://" + listener.Addr().String()
		s.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	}
	for _, pc := range cfg.Pools {
		s.pools = append(s.pools, newPool(s, pc))
	}

	base, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.http = &http.Server{
		Handler:           s.routes(cfg.Control),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState:         s.trackConn,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go func() {
		defer close(s.serveDone)
		_ = s.http.Serve(listener) // always an error, and after Close always http.ErrServerClosed
	}()
	return s, nil
}

// Close ends all requests, those held by a fault too, and returns when no goroutine of the server is left. It may be
// called more than once. It must not be called by a request handler of the same server.
func (s *Server) Close() {
	s.closeOnce.Do(func() {
		s.closing.Store(true)
		s.stop()
		_ = s.http.Close()
		<-s.serveDone
		s.conns.Wait()
	})
}

// Pools returns the pools in the order of [Config.Pools].
func (s *Server) Pools() []*Pool { return slices.Clone(s.pools) }

// Pool returns the pool with the given user pool ID, nil if there is none.
func (s *Server) Pool(id string) *Pool {
	for _, p := range s.pools {
		if p.ID() == id {
			return p
		}
	}
	return nil
}

// CertPEM returns the certificate of a server started with [Config.TLS], in PEM form; it is its own certificate
// authority. Nil without TLS.
func (s *Server) CertPEM() []byte { return slices.Clone(s.certPEM) }

// trackConn counts connections, because [http.Server.Close] does not wait for their goroutines.
func (s *Server) trackConn(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
		if s.closing.Load() {
			// Accepted just before the listener was closed; http.Server.Close may not know it yet.
			_ = conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}

// newKey returns a key that no pool of s has had.
func (s *Server) newKey() Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := ring.take(s.used)
	s.used[k] = true
	return Key{ID: newKeyID(), Private: k}
}

// checkAddr returns an error if addr is not one that this machine alone can reach.
func checkAddr(addr string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen address %q: %w; want host:port, such as 127.0.0.1:9199", addr, err)
	}
	if !isLoopbackHost(host) {
		return fmt.Errorf("listen address %q: host %q is reachable from elsewhere, want localhost or a loopback address such as 127.0.0.1: this server gives any token to anybody", addr, host)
	}
	return nil
}

func isLoopbackHost(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
