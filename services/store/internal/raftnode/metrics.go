package raftnode

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	revision  prometheus.Gauge
	leader    prometheus.Gauge
	commit    prometheus.Histogram
	proposals prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		revision: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_store_applied_revision", Help: "Last revision that this store has applied.",
		}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_store_leader", Help: "1 while this store leads, else 0.",
		}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_store_commit_seconds", Help: "Time from a proposal to its outcome, on the leader.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		proposals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_store_proposals_total", Help: "Transactions that this store has proposed.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.revision, m.leader, m.commit, m.proposals)
	}
	return m
}

func (m metrics) leads(yes bool) {
	if yes {
		m.leader.Set(1)
	} else {
		m.leader.Set(0)
	}
}
