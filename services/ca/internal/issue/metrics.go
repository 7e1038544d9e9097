package issue

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics count decisions.
type metrics struct {
	issued  *prometheus.CounterVec
	refused *prometheus.CounterVec
}

func newMetrics(reg *prometheus.Registry) metrics {
	m := metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_ca_issued_total", Help: "Certificates handed out, by decision (join, renewal, issuing) and role.",
		}, []string{"decision", "role"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_ca_refused_total", Help: "Calls refused, by method and kind of error.",
		}, []string{"method", "kind"}),
	}
	if reg != nil {
		reg.MustRegister(m.issued, m.refused)
	}
	return m
}
