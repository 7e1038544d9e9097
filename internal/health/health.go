// Package health is whether a process does its work, and what it waits for if not.
//
// A process has parts ("store", "lease", "listener"); each says whether it is well, and if not why, in words. The process
// is SERVING when all parts are. The state goes to grpc.health.v1, to /healthz, to the log, to a metric and to the init
// system. It decides nothing: nobody is restarted or taken out because of it. A Server is safe for concurrent use.
package health

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalproject/shoal/internal/run"
)

// Server is the health of one process.
type Server struct {
	log    *slog.Logger
	notify func(state string) error
	rpc    *grpchealth.Server
	metric *prometheus.GaugeVec

	mu      sync.Mutex // guards all below
	parts   map[string]part
	changed chan struct{} // closed and replaced when a part changes
}

type part struct {
	ok  bool
	why string
}

// New makes a process's health, with no parts: SERVING. Parts that must be well before it serves are Set to false first.
func New(env run.Env) *Server {
	s := &Server{log: env.Log, notify: env.Notify, rpc: grpchealth.NewServer(), parts: map[string]part{}, changed: make(chan struct{})}
	s.metric = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "shoal_health_part", Help: "Whether a part of the process is well (1) or waits for something (0).",
	}, []string{"part"})
	if env.Metrics != nil {
		if err := env.Metrics.Register(s.metric); err != nil {
			s.log.Warn("health metric is not registered", "error", err)
		}
	}
	return s
}

// GRPC is the grpc.health.v1 service.
func (s *Server) GRPC() healthpb.HealthServer { return s.rpc }

// Set says how a part is. Why is what a person can act on: "Waiting for the store at 10.0.0.1:2381". It is told once: the
// same state again is nothing.
func (s *Server) Set(name string, ok bool, why string) {
	if ok {
		why = ""
	}
	old, known, waiting := s.put(name, part{ok: ok, why: why})
	if known && old.ok == ok && old.why == why {
		return
	}
	status := healthpb.HealthCheckResponse_SERVING
	if len(waiting) > 0 {
		status = healthpb.HealthCheckResponse_NOT_SERVING
	}
	s.rpc.SetServingStatus("", status)
	s.tell(name, ok, why, known && old.ok == ok, waiting)
}

func (s *Server) put(name string, p part) (old part, known bool, waiting []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known = s.parts[name]
	s.parts[name] = p
	if !known || old != p {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return old, known, s.waiting()
}

// Changed is closed when a part changes next. Take it before reading.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Parts is how many parts have said how they are.
func (s *Server) Parts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.parts)
}

func (s *Server) tell(name string, ok bool, why string, wordsOnly bool, waiting []string) {
	value := 0.0
	if ok {
		value = 1
	}
	s.metric.WithLabelValues(name).Set(value)
	switch {
	case ok:
		s.log.Info("part is well", "part", name)
	case wordsOnly:
		s.log.Debug("part still waits", "part", name, "why", why)
	default:
		s.log.Info("part waits", "part", name, "why", why)
	}
	if s.notify == nil {
		return
	}
	state := "STATUS=serving"
	if len(waiting) > 0 {
		state = "STATUS=" + strings.Join(waiting, "; ")
	}
	if err := s.notify(state); err != nil {
		s.log.Debug("init system was not told", "error", err)
	}
}

// waiting needs the lock.
func (s *Server) waiting() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		if p := s.parts[name]; !p.ok {
			out = append(out, name+": "+p.why)
		}
	}
	return out
}

// Serving says whether all parts are well; else what they wait for, "part: why", sorted.
func (s *Server) Serving() (ok bool, waiting []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting = s.waiting()
	return len(waiting) == 0, waiting
}

// Shutdown says NOT_SERVING to all who ask or watch, for good.
func (s *Server) Shutdown() { s.rpc.Shutdown() }

// ServeHTTP answers 200 "ok", or 503 and a line for each part that waits.
func (s *Server) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	ok, waiting := s.Serving()
	if ok {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, strings.Join(waiting, "\n"))
}
