package lease

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	held  prometheus.Gauge
	taken prometheus.Counter
}

func newMetrics(reg *prometheus.Registry, name string) metrics {
	held := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "shoal_lease_held", Help: "1 while this process holds the lease.",
	}, []string{"lease"})
	taken := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_lease_taken_total", Help: "Times that this process has taken the lease.",
	}, []string{"lease"})
	return metrics{held: register(reg, held).WithLabelValues(name), taken: register(reg, taken).WithLabelValues(name)}
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
