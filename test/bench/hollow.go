package main

import (
	"context"
	"fmt"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/bench/fleet"
)

// hollowNodes measures a dispatcher with thousands of machines.
func hollowNodes(ctx context.Context, b *bench, o orchestrator) error {
	s, ok := o.(*shoal)
	if !ok {
		return nil // nobody else has hollow nodes
	}
	m := fleet.Measurement{
		Lab: o.on().Lab, Log: b.log, Nodes: b.cfg.Hollow, Runs: b.cfg.FaultRuns, Services: s.services, Tasks: s.tasks,
		Spec: func(name string, replicas int) *typesv1.ServiceSpec {
			return s.spec(service{name: name, replicas: replicas})
		},
		Report: hollowReport{b},
	}
	return m.Run(ctx)
}

// hollowReport puts the figures into rows of their own.
type hollowReport struct{ *bench }

// Row is as in fleet.Report.
func (r hollowReport) Row(what, unit, aim string, v float64) {
	r.report.add(ours, fmt.Sprintf("%d hollow nodes: %s", r.cfg.Hollow, what), unit, aim, v)
}

// Spread is as in fleet.Report.
func (r hollowReport) Spread(what, aim string, took []time.Duration) {
	p50, p99 := percentile(took, 0.5), percentile(took, 0.99)
	r.log.Info("measured", "what", what, "p50_ms", p50, "p99_ms", p99)
	r.Row(what+", p50", "ms", "", p50)
	r.Row(what+", p99", "ms", aim, p99)
}
