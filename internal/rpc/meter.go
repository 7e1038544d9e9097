package rpc

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/shoalproject/shoal/internal/run"
)

// meter counts and times calls, as a gRPC stats handler.
type meter struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	known   func(method string) bool // else the label is "unknown": a peer must not be able to make labels
}

type callCtx struct{}

func newMeter(env run.Env, side string, known func(string) bool) *meter {
	m := &meter{known: known}
	m.calls = registered(env, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_rpc_" + side + "_calls_total", Help: "Calls that have ended, by method and gRPC code.",
	}, []string{"method", "code"}))
	m.seconds = registered(env, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "shoal_rpc_" + side + "_seconds", Help: "Duration of unary calls in seconds.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method"}))
	return m
}

// registered returns the collector that the registry has under that name: a process has many clients.
func registered[C prometheus.Collector](env run.Env, c C) C {
	if env.Metrics == nil {
		return c
	}
	err := env.Metrics.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, same := already.ExistingCollector.(C); same {
			return old
		}
	}
	return c
}

type measured struct {
	method string
	unary  bool
}

// TagRPC notes the method.
func (m *meter) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	call := &measured{method: "unknown"}
	if m.known == nil || m.known(info.FullMethodName) {
		call.method = info.FullMethodName
	}
	return context.WithValue(ctx, callCtx{}, call)
}

// HandleRPC counts at the end.
func (m *meter) HandleRPC(ctx context.Context, s stats.RPCStats) {
	call, ok := ctx.Value(callCtx{}).(*measured)
	if !ok {
		return
	}
	switch s := s.(type) {
	case *stats.Begin:
		call.unary = !s.IsClientStream && !s.IsServerStream
	case *stats.End:
		m.calls.WithLabelValues(call.method, status.Code(s.Error).String()).Inc()
		if call.unary {
			m.seconds.WithLabelValues(call.method).Observe(s.EndTime.Sub(s.BeginTime).Seconds())
		}
	}
}

// TagConn does nothing.
func (*meter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (*meter) HandleConn(context.Context, stats.ConnStats) {}
