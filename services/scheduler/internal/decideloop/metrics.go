package decideloop

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

type metrics struct {
	decisions *prometheus.CounterVec
	duration  prometheus.Histogram
	latency   prometheus.Histogram
	tasks     *census
}

// census counts the tasks of the latest decision when somebody asks: a walk over all of them at each decision would cost as
// much as the decision where few tasks of many change.
type census struct {
	*prometheus.GaugeVec
	latest atomic.Pointer[state.Snapshot]
	mu     sync.Mutex // held while one collects
}

// Collect is as in prometheus.Collector.
func (c *census) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.latest.Load(); s != nil {
		c.count(s)
	}
	c.GaugeVec.Collect(out)
}

func (c *census) count(s *state.Snapshot) {
	count := map[typesv1.TaskState]int{}
	for t := range s.Tasks() {
		count[state.TaskState(t, s.Node(t.GetDecided().GetNodeId()))]++
	}
	c.Reset()
	for st, n := range count {
		c.WithLabelValues(strings.ToLower(strings.TrimPrefix(st.String(), "TASK_STATE_"))).Set(float64(n))
	}
}

func newMetrics(reg *prometheus.Registry) metrics {
	m := metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_scheduler_decisions_total", Help: "Decisions made, and commits of them by outcome: applied, conflict, fenced or unknown.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_scheduler_decision_seconds", Help: "Time to make one plan.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_scheduler_commit_seconds", Help: "Time from sending a plan to its outcome.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		tasks: &census{GaugeVec: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_scheduler_tasks", Help: "Tasks by the state that a person sees.",
		}, []string{"state"})},
	}
	if reg != nil {
		for _, c := range []prometheus.Collector{m.decisions, m.duration, m.latency, m.tasks} {
			_ = reg.Register(c) // a second loop in one registry counts for itself
		}
	}
	return m
}

// decided counts one decision, and keeps the tasks that it saw for who asks.
func (m metrics) decided(s *state.Snapshot, took time.Duration) {
	m.decisions.WithLabelValues("made").Inc()
	m.duration.Observe(took.Seconds())
	m.tasks.latest.Store(s)
}

func (m metrics) committed(outcome string, took time.Duration) {
	m.decisions.WithLabelValues(outcome).Inc()
	m.latency.Observe(took.Seconds())
}
