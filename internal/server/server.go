// Package server listens: for Envoy's checks and gRPC health checks, for kubelet and Prometheus, and on loopback for
// the operator. It ends without dropping a check.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/health"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// A Config says where to listen and what to serve there. All fields are required but those that say otherwise.
type Config struct {
	// GRPC, Metrics and Admin are addresses host:port; GRPC may be unix:///path. Metrics and Admin may be empty: no
	// listener.
	GRPC, Metrics, Admin string
	// TLS for GRPC. Nil: none.
	TLS *tls.Config

	Checker Checker
	// MessageBytes is how long a CheckRequest may be to reach Checker. It should be above Checker's own limits together, as
	// those tell what was too long. Default 96 MiB.
	MessageBytes int
	// Checks is how many checks Checker takes at once; it answers more as overload. Default: fewer than 5,000.
	Checks int
	// MetricsHandler serves /metrics.
	MetricsHandler http.Handler
	// Effective returns the effective configuration as YAML, without secrets.
	Effective func() []byte
	// Status returns the state of what the service depends on, without secrets. It is served as JSON.
	Status func() any

	// Delay is how long to go on serving after health has turned NOT_SERVING, so that every Envoy has seen it.
	Delay time.Duration
	// Grace is how long checks under way may then take to finish.
	Grace time.Duration

	Logger *slog.Logger
}

// A Server serves one Config, once.
type Server struct {
	cfg       Config
	grpc      *unary.Server
	health    *health.Server
	readiness readiness
	listeners struct{ grpc, metrics, admin net.Listener }
}

// Listen opens the listeners, so that an address that cannot be had is an error before anything is served.
func Listen(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, health: health.NewServer()}
	s.setReady("starting", false)
	var err error
	if s.listeners.grpc, err = listen(cfg.GRPC); err != nil {
		return nil, fmt.Errorf("listen.grpc: %w", err)
	}
	if s.listeners.metrics, err = listenHTTP(cfg.Metrics); err != nil {
		s.closeListeners()
		return nil, fmt.Errorf("listen.metrics: %w", err)
	}
	if s.listeners.admin, err = listenHTTP(cfg.Admin); err != nil {
		s.closeListeners()
		return nil, fmt.Errorf("listen.admin: %w", err)
	}
	s.grpc = s.newGRPC()
	return s, nil
}

// The bounds of what clients can make the gRPC listener hold. Those of a request's parts are Checker's, and answered: these are
// above them, as an error of gRPC's may be an allow to Envoy.
const (
	// defaultMessage is above the largest limits of a configuration together, bodyBytes and headerBytes.
	defaultMessage = 96 << 20
	// maxHeld is what all messages under way may take, unless GOMEMLIMIT leaves less: a quarter of that.
	maxHeld = 256 << 20
	// maxConnections is several times what hundreds of Envoys have: one for each of their threads, and one for health checks.
	maxConnections = 10_000
	// connectionBytes is what a connection takes that holds as much as counts in no bound: 40 KiB when idle, measured, and 32 KiB.
	connectionBytes = 72 << 10
)

func (s *Server) newGRPC() *unary.Server {
	held := min(maxHeld, debug.SetMemoryLimit(-1)/4)
	message := int64(cmp.Or(s.cfg.MessageBytes, defaultMessage))
	// The transport refuses more with an error of gRPC's, so it has to take more than Checker does.
	calls := max(10_000, 2*s.cfg.Checks)
	return unary.New(unary.Config{
		Methods: s.methods(),
		TLS:     s.cfg.TLS,
		Limits: unary.Limits{
			Streams: calls, Detached: 2 * calls, Connections: connections(debug.SetMemoryLimit(-1), maxFiles()),
			MessageBytes: int(min(message, held)), ConnBytes: held/2 + held/8, Bytes: held,
		},
		Logger: s.cfg.Logger,
	})
}

// connections is how many connections there may be: they may take half of the memory, and three quarters of the
// files, as fetching keys and answering probes takes some.
func connections(memory int64, files uint64) int {
	return int(max(1, min(maxConnections, uint64(memory/2/connectionBytes), files/4*3)))
}

// Connections returns how many connections listen.grpc has, how many it has turned away because it had too many, and how often the
// system could not hand one over.
func (s *Server) Connections() (now int, turnedAway, notAccepted int64) { return s.grpc.Connections() }

func listen(addr string) (net.Listener, error) {
	path, ok := strings.CutPrefix(addr, "unix://")
	if !ok {
		return net.Listen("tcp", addr) //nolint:noctx // there is nothing to wait for
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		// Left by a process that was killed, unless somebody still answers there.
		if conn, err := net.Dial("unix", path); err == nil { //nolint:noctx // a socket file answers at once
			_ = conn.Close()
			return nil, fmt.Errorf("%s: another process listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path) //nolint:noctx // there is nothing to wait for
}

// listenHTTP returns nil for an address that is switched off.
func listenHTTP(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil //nolint:nilnil // documented above
	}
	return listen(addr)
}

func (s *Server) closeListeners() {
	for _, l := range []net.Listener{s.listeners.grpc, s.listeners.metrics, s.listeners.admin} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// Addrs returns the addresses listened at, in the order grpc, metrics, admin; those switched off are empty.
func (s *Server) Addrs() (grpcAddr, metrics, admin string) {
	return address(s.listeners.grpc), address(s.listeners.metrics), address(s.listeners.admin)
}

func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// Ready says that checks can be answered: /readyz and gRPC health turn well. It does nothing once Serve drains.
func (s *Server) Ready() { s.setReady("ok", true) }

// Serve serves until ctx ends, then drains: health turns NOT_SERVING, Delay passes, no new connections and streams
// are taken (GOAWAY), the checks under way finish within Grace. It returns nil if all that went well.
func (s *Server) Serve(ctx context.Context) error {
	metrics, admin := s.httpServer(s.metricsMux()), s.httpServer(guardHost(s.adminMux()))
	var group errgroup.Group
	stopped, stop := context.WithCancel(ctx) // ends with ctx, or when a listener fails
	defer stop()
	run := func(f func() error) {
		group.Go(func() error {
			defer stop()
			err := f()
			if errors.Is(err, http.ErrServerClosed) || errors.Is(err, unary.ErrClosed) {
				return nil // the end came before it had begun
			}
			return err
		})
	}
	run(func() error { return s.grpc.Serve(s.listeners.grpc) })
	if s.listeners.metrics != nil {
		run(func() error { return metrics.Serve(s.listeners.metrics) })
	}
	if s.listeners.admin != nil {
		run(func() error { return admin.Serve(s.listeners.admin) })
	}
	<-stopped.Done()
	if ctx.Err() != nil {
		s.drain()
	}
	s.grpc.Close()
	_ = metrics.Close()
	_ = admin.Close()
	return group.Wait()
}

func (s *Server) drain() {
	s.cfg.Logger.Info("draining", "delay", s.cfg.Delay.String(), "grace", s.cfg.Grace.String())
	s.readiness.close()
	s.health.Shutdown()
	time.Sleep(s.cfg.Delay)
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Grace)
	defer cancel()
	if err := s.grpc.Shutdown(ctx); err != nil {
		s.cfg.Logger.Warn("not drained in time: checks under way are cut off")
		return
	}
	s.cfg.Logger.Info("drained")
}
