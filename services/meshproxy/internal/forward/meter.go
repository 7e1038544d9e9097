package forward

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/run"
)

// meter is what is counted.
type meter struct {
	connections, failures, inbound *prometheus.CounterVec
	open, ports                    *prometheus.GaugeVec
	dials, dropped                 prometheus.Counter
	links                          prometheus.Gauge
	connect                        prometheus.Histogram

	openTCP   prometheus.Gauge // those of the above that each connection changes
	servedTCP prometheus.Counter
}

func newMeter(env run.Env) *meter {
	m := &meter{
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_mesh_connections_total", Help: "Connections and UDP sessions of clients, by network and result.",
		}, []string{"network", "result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_mesh_task_failures_total", Help: "Tries of a task that did not answer; another was tried then.",
		}, []string{"network"}),
		inbound: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shoal_mesh_peer_streams_total", Help: "Streams that other meshproxies asked for, by result.",
		}, []string{"result"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_mesh_connections_open", Help: "Connections and UDP sessions of clients that are open.",
		}, []string{"network"}),
		ports: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_mesh_ports", Help: "Published ports, by state: open, or unbound because another process has them.",
		}, []string{"state"}),
		dials: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_mesh_peer_dials_total", Help: "New links to other meshproxies. Streams beyond them used a warm one.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_mesh_datagrams_dropped_total", Help: "Datagrams dropped at a bound.",
		}),
		links: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "shoal_mesh_peer_links_idle", Help: "Warm links to other meshproxies.",
		}),
		connect: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_mesh_connect_seconds", Help: "Time from a client's connection to its task's, in seconds.",
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 2, 5},
		}),
	}
	env.Metrics.MustRegister(m.connections, m.failures, m.inbound, m.open, m.ports, m.dials, m.dropped, m.links, m.connect)
	m.openTCP, m.servedTCP = m.open.WithLabelValues("tcp"), m.connections.WithLabelValues("tcp", "served")
	return m
}
