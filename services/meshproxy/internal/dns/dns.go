// Package dns is the name server of this machine's containers.
//
// It owns its sockets, what is asked outside, and the limits that keep one container from harming another. What a name means
// to whom is decided by package names; who is no container of this machine gets no answer. It needs no control plane: it
// answers from the last view that it was given. A Server is safe for concurrent use; Run has one caller.
package dns

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/ends"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/names"
)

const (
	// port is the protocol's.
	port = 53
	// retry is the wait after an address that could not be listened on: the bridge that has it may not be there yet.
	retry = time.Second
	// takeLimit bounds the wait for the sockets' first try.
	takeLimit = time.Second
)

// Health is told what waits, and why.
type Health interface {
	Set(part string, ok bool, why string)
}

// Server answers on the addresses that all machines have for it.
type Server struct {
	env       run.Env
	health    Health
	addresses []netip.AddrPort
	view      atomic.Pointer[names.View]
	limits    *limits
	lack      run.Lacks
	outside   *outside
	tasks     *run.Spawner
	results   *prometheus.CounterVec
	needed    chan struct{} // has a token once there is somebody to answer
	untried   atomic.Int32  // sockets that were not tried yet
	tried     chan struct{} // closed when all were
}

// New makes one. Net must keep sockets over a restart where there is an init system that does: who asks meanwhile then waits
// instead of being refused. Metrics: shoal_dns_queries_total, shoal_dns_upstream_seconds, shoal_dns_cache_entries.
func New(env run.Env, health Health) *Server {
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_dns_queries_total", Help: "Questions of containers, by what came of them.",
	}, []string{"result"})
	env.Metrics.MustRegister(results)
	s := &Server{
		env: env, health: health, results: results, tried: make(chan struct{}),
		addresses: []netip.AddrPort{netip.AddrPortFrom(ends.NameServer4(), port), netip.AddrPortFrom(ends.NameServer6(), port)},
		limits:    newLimits(), outside: newOutside(env), tasks: run.NewSpawner(env.Log), needed: make(chan struct{}, 1),
	}
	s.untried.Store(int32(2 * len(s.addresses)))
	return s
}

// Forget has nothing to clear away: answers are made anew each time.
func (s *Server) Forget() error { return nil }

// Apply puts a model in force, for the next question. It has one caller at a time, and never fails. The first one returns when
// the sockets that were kept for us are taken: what nobody has taken by then is given up.
func (s *Server) Apply(ctx context.Context, m *mesh.Model) error {
	v := names.Of(m, s.view.Load())
	s.view.Store(v)
	if v.Empty() {
		return nil
	}
	select {
	case s.needed <- struct{}{}:
	default:
	}
	enough := time.NewTimer(takeLimit)
	defer enough.Stop()
	select {
	case <-s.tried:
	case <-enough.C:
	case <-ctx.Done():
	}
	return nil
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	select { // a machine without containers may be without the addresses
	case <-s.needed:
	case <-ctx.Done():
		return nil
	}
	for _, a := range s.addresses {
		s.tasks.Go(ctx, "udp "+a.String(), func(ctx context.Context) error { return s.keep(ctx, a, s.packets) })
		s.tasks.Go(ctx, "tcp "+a.String(), func(ctx context.Context) error { return s.keep(ctx, a, s.streams) })
	}
	<-ctx.Done()
	return s.tasks.Wait(context.WithoutCancel(ctx))
}

// keep serves one socket for as long as ctx lives. IPv6 may be missing; IPv4 is what containers are told.
func (s *Server) keep(ctx context.Context, at netip.AddrPort, serve func(context.Context, netip.AddrPort, func()) error) error {
	told, tried := false, sync.OnceFunc(func() {
		if s.untried.Add(-1) == 0 {
			close(s.tried)
		}
	})
	for ctx.Err() == nil {
		err := serve(ctx, at, tried)
		tried()
		if ctx.Err() != nil {
			return nil
		}
		if at.Addr().Is4() {
			s.health.Set("names", false, err.Error())
			if !told {
				s.env.Log.Warn("names are not answered, will retry", "address", at, "error", err)
				told = true
			}
		}
		if run.Sleep(ctx, retry) != nil {
			return nil
		}
	}
	return nil
}

// heard is called when a socket is open.
func (s *Server) heard(at netip.AddrPort, tried func()) {
	tried()
	if at.Addr().Is4() {
		s.health.Set("names", true, "")
	}
}
