package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/harness/hollow"
)

const (
	// hollowLimit is when a step with thousands of machines is given up.
	hollowLimit = 5 * time.Minute
	// hollowRest is how long a cluster is left alone before it counts as settled, and hollowLook how long it is then watched.
	hollowRest = 20 * time.Second
	hollowLook = 20 * time.Second
	// changes is how many single tasks are given to machines, one after the other.
	changes = 100

	aimConnection = "≤ 60"
	aimSettled    = "< 25"
	aimChange     = "≤ 50 (p99)"
	aimReconnect  = "≤ 15"
)

// hollowNodes measures the way of decisions to thousands of machines, which run real agents over containers in memory: what
// their dispatcher costs, how fast a change is with them, and how fast they come back when it dies.
func hollowNodes(ctx context.Context, b *bench, o orchestrator) (err error) {
	s, ok := o.(*shoal)
	if !ok {
		return nil // nobody else has hollow nodes
	}
	// Its own containers and tables are no part of it.
	for _, process := range []string{"agent", "meshproxy"} {
		if err := o.on().Stop(ctx, "m1", process); err != nil {
			return err
		}
	}
	before, err := usageOf(ctx, o.on().Lab, "m1", "shoal-dispatcher")
	if err != nil {
		return err
	}
	fleet, err := hollow.InLab(ctx, o.on().Lab, b.cfg.Hollow, b.log)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := fleet.Join(ctx); err != nil {
		return err
	}
	b.hollowRow("joins", rate, "", float64(b.cfg.Hollow)/time.Since(began).Seconds())
	ctx, cancel := context.WithCancel(ctx)
	ended := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, fleet.Run(ctx) })
	defer func() {
		cancel()
		err = errors.Join(err, (<-ended).Err)
	}()
	h := &hollowStep{b, s, fleet}
	if err := h.sessions(ctx, b.cfg.Hollow); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return h.settled(ctx, before) }, h.changes, h.fill, h.reconnect,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// hollowRow adds to a row of this step.
func (b *bench) hollowRow(what, unit, aim string, v float64) {
	b.log.Info("measured", "what", what, "value", figure(v), "unit", unit)
	b.report.add(ours, fmt.Sprintf("%d hollow nodes: %s", b.cfg.Hollow, what), unit, aim, v)
}

// hollowStep is a cluster with its fleet.
type hollowStep struct {
	*bench
	o     *shoal
	fleet *hollow.Fleet
}

// sessions waits until so many sessions have been opened in all.
func (h *hollowStep) sessions(ctx context.Context, opened int) error {
	ctx, cancel := context.WithTimeout(ctx, hollowLimit)
	defer cancel()
	return h.fleet.AwaitSessions(ctx, opened)
}

// settled is what the dispatcher costs while nothing happens.
func (h *hollowStep) settled(ctx context.Context, before usage) error {
	if err := run.Sleep(ctx, hollowRest); err != nil {
		return err
	}
	for range h.cfg.FaultRuns {
		from, err := usageOf(ctx, h.o.on().Lab, "m1", "shoal-dispatcher")
		if err != nil {
			return err
		}
		if err := run.Sleep(ctx, hollowLook); err != nil {
			return err
		}
		to, err := usageOf(ctx, h.o.on().Lab, "m1", "shoal-dispatcher")
		if err != nil {
			return err
		}
		h.hollowRow("dispatcher, settled", "% of a CPU", aimSettled, 100*(to.cpu-from.cpu).Seconds()/to.at.Sub(from.at).Seconds())
		h.hollowRow("dispatcher, memory a connection", "KiB", aimConnection, (to.memory.resident-before.memory.resident)*1024/float64(h.cfg.Hollow))
	}
	return nil
}

// changes gives tasks to one machine after another, and measures from the call to the container, which the way by the
// scheduler is part of, and from the commit of the task to it.
func (h *hollowStep) changes(ctx context.Context) error {
	times := h.fleet.Made()
	var whole, last []time.Duration
	for i := range changes {
		n := h.fleet.Nodes()[i*len(h.fleet.Nodes())/changes]
		name := h.name("change")
		spec := h.o.spec(service{name: name, replicas: 1})
		spec.Task.Placement = &typesv1.Placement{Constraints: []string{"node.id == " + n.ID}}
		began := time.Now()
		if _, err := h.o.services.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: spec}); err != nil {
			return err
		}
		var task *typesv1.Task
		if _, err := until(ctx, "the container of "+name+" is made", hollowLimit, func(ctx context.Context) string {
			got, err := h.o.tasks.ListTasks(ctx, &controlv1.ListTasksRequest{Filters: []string{"service=" + name}})
			if err != nil || len(got.GetTasks()) == 0 {
				return fmt.Sprintf("no task: %v", err)
			}
			if task = got.GetTasks()[0].GetTask(); times.Of(task.GetMeta().GetId()).IsZero() {
				return "task " + task.GetMeta().GetId() + " is not there"
			}
			return ""
		}); err != nil {
			return err
		}
		made := times.Of(task.GetMeta().GetId())
		whole, last = append(whole, made.Sub(began)), append(last, made.Sub(task.GetMeta().GetCreatedAt().AsTime()))
		if err := h.o.remove(ctx, name); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		name string
		p    float64
		aim  string
	}{{"p50", 0.5, ""}, {"p99", 0.99, aimChange}} {
		h.hollowRow("commit of a task to its container, "+p.name, "ms", p.aim, percentile(last, p.p))
		h.hollowRow("create of a service to its container, "+p.name, "ms", "", percentile(whole, p.p))
	}
	return h.empty(ctx)
}

// fill creates services of many replicas, and waits until the store has all of them running.
func (h *hollowStep) fill(ctx context.Context) error {
	for range h.cfg.FaultRuns {
		for _, f := range []struct {
			replicas int
			aim      string
		}{{1000, "≤ 0.7"}, {5000, "≤ 3"}} {
			name := h.name("fill")
			began := time.Now()
			if err := h.o.create(ctx, service{name: name, replicas: f.replicas}); err != nil {
				return err
			}
			if _, err := until(ctx, "all replicas run", hollowLimit, func(ctx context.Context) string {
				n, err := h.o.counted(ctx, name)
				if err != nil || n < f.replicas {
					return fmt.Sprintf("%d of %d: %v", n, f.replicas, err)
				}
				return ""
			}); err != nil {
				return err
			}
			h.hollowRow(fmt.Sprintf("create to %d running", f.replicas), "s", f.aim, time.Since(began).Seconds())
			if err := h.o.remove(ctx, name); err != nil {
				return err
			}
			if err := h.empty(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// empty waits until nothing runs any more.
func (h *hollowStep) empty(ctx context.Context) error {
	_, err := until(ctx, "no container is left", hollowLimit, func(context.Context) string {
		if n := h.fleet.Containers(); n > 0 {
			return fmt.Sprintf("%d containers", n)
		}
		return ""
	})
	return err
}

// reconnect kills the dispatcher and waits until every machine has a session again. It is started anew at once.
func (h *hollowStep) reconnect(ctx context.Context) error {
	for range h.cfg.FaultRuns {
		opened, began := h.fleet.Opened(), time.Now()
		if err := h.o.on().Kill(ctx, "m1", "dispatcher"); err != nil {
			return err
		}
		if err := h.sessions(ctx, opened+h.cfg.Hollow); err != nil {
			return err
		}
		h.hollowRow("dispatcher killed to all in session", "s", aimReconnect, time.Since(began).Seconds())
	}
	return nil
}
