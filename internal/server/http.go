package server

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Importing net/http/pprof puts its handlers on http.DefaultServeMux too, which nothing here serves.

// readiness is the word that /readyz says.
type readiness struct {
	mu     sync.Mutex
	word   string
	ok     bool
	closed bool // draining: there is no way back
}

func (r *readiness) set(word string, ok bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.word, r.ok = word, ok
	return true
}

func (r *readiness) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.word, r.ok, r.closed = "draining", false, true
}

func (r *readiness) get() (word string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.word, r.ok
}

func (s *Server) setReady(word string, ok bool) {
	if !s.readiness.set(word, ok) {
		return
	}
	status := healthv1.HealthCheckResponse_NOT_SERVING
	if ok {
		status = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(authorizationService, status)
}

// metricsMux serves what may be seen by everybody in the network.
func (s *Server) metricsMux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { word(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		status := http.StatusServiceUnavailable
		state, ok := s.readiness.get()
		if ok {
			status = http.StatusOK
		}
		word(w, status, state)
	})
	mux.Handle("GET /metrics", s.cfg.MetricsHandler)
	return mux
}

// adminMux serves what only the operator of this machine may see.
func (s *Server) adminMux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(s.cfg.Effective())
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(s.cfg.Status())
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func word(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// guardHost admits only requests that name the loopback host. A page in a browser on this machine can send requests
// here under a name of its own that resolves to 127.0.0.1 (DNS rebinding), but it cannot choose this Host.
func guardHost(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "the Host header must name a loopback address", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
