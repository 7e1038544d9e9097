package replica

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	revision prometheus.Gauge
	breaks   prometheus.Counter
	resyncs  prometheus.Counter
}

// newMetrics registers the metrics, or finds those that another replica of the same process has registered.
func newMetrics(reg *prometheus.Registry) metrics {
	return metrics{
		revision: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_replica_revision", Help: "Revision of the store that this process has reached.",
		})),
		breaks: register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_replica_breaks_total", Help: "Watch streams that broke and were opened again.",
		})),
		resyncs: register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_replica_resyncs_total", Help: "Times that the store asked to forget all and start from a snapshot.",
		})),
	}
}

func register[C prometheus.Collector](reg *prometheus.Registry, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	if are, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := are.ExistingCollector.(C); ok {
			return existing
		}
	}
	return c
}
