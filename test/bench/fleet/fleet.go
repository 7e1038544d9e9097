// Package fleet measures the way of decisions to thousands of machines, which run real agents over containers in memory: what
// their dispatcher costs, how fast a change is with them, and how fast they come back when it dies.
//
// It owns the steps and what each figure is taken from; where the figures go is the caller's. A Measurement has one caller.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/bench/poll"
	"github.com/shoalproject/shoal/test/bench/usage"
	"github.com/shoalproject/shoal/test/harness"
	"github.com/shoalproject/shoal/test/harness/hollow"
)

const (
	manager = "m1"
	// limit is when a wait for thousands of machines is given up, and one that for a single one.
	limit = 2 * time.Minute
	one   = 30 * time.Second
	// rest is how long a cluster is left alone before it counts as settled, and look how long it is then watched.
	rest = 20 * time.Second
	look = 20 * time.Second
	// changes is how many single tasks are given to machines, one after the other.
	changes = 100

	aimConnection = "≤ 60"
	aimSettled    = "< 25"
	aimChange     = "≤ 50"
	aimReconnect  = "≤ 15"
)

// Report takes the figures.
type Report interface {
	// Row is one figure.
	Row(what, unit, aim string, v float64)
	// Spread is how long each of many took; for 99 of 100 that is to be at most the aim, in milliseconds.
	Spread(what, aim string, took []time.Duration)
}

// Measurement is one run on a laboratory with one manager and no worker.
type Measurement struct {
	Lab *harness.Lab
	Log *slog.Logger
	// Nodes is how many machines are played, Runs how often each figure is taken.
	Nodes, Runs int
	// Services and Tasks are those of a gateway; Spec is that of a service that runs anywhere.
	Services controlv1.ServiceServiceClient
	Tasks    controlv1.TaskServiceClient
	Spec     func(name string, replicas int) *typesv1.ServiceSpec
	Report   Report

	fleet  *hollow.Fleet
	before usage.Look // the dispatcher before anybody came
	serial int
}

// Run takes all figures.
func (h *Measurement) Run(ctx context.Context) (err error) {
	// Its own containers and tables are no part of it.
	for _, process := range []string{"agent", "meshproxy"} {
		if err := h.Lab.Stop(ctx, manager, process); err != nil {
			return err
		}
	}
	if h.before, err = h.dispatcher(ctx); err != nil {
		return err
	}
	if h.fleet, err = hollow.InLab(ctx, h.Lab, h.Nodes, h.Log); err != nil {
		return err
	}
	began := time.Now()
	if err := h.fleet.Join(ctx); err != nil {
		return err
	}
	defer h.fleet.Undisturbed()()
	h.row("joins", "1/s", "", float64(h.Nodes)/time.Since(began).Seconds())
	ctx, cancel := context.WithCancel(ctx)
	began = time.Now()
	ended := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, h.fleet.Run(ctx) })
	defer func() {
		cancel()
		err = errors.Join(err, (<-ended).Err)
	}()
	if err := h.sessions(ctx, nil); err != nil {
		return err
	}
	h.row("all agents started to all in session", "s", "", time.Since(began).Seconds())
	for _, s := range []step{{"settled", h.settled}, {"changes", h.changes}, {"reconnect", h.reconnect}, {"fill", h.fill}} {
		if err := h.step(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

type step struct {
	name string
	take func(context.Context) error
}

// step takes one, from a fleet that is whole, and tells how many sessions were lost in it: one that has lost many has measured how they
// came back.
func (h *Measurement) step(ctx context.Context, s step) error {
	if err := h.sessions(ctx, nil); err != nil {
		return fmt.Errorf("step %s can't begin: %w", s.name, err)
	}
	before := h.opened()
	err := s.take(ctx)
	lost := h.opened() - before
	h.Log.Info("step", "name", s.name, "sessions_opened", lost, "in_session", h.fleet.InSession(nil))
	if err != nil {
		return fmt.Errorf("step %s: %d of %d machines are in session, and %d have opened one since it began: %w",
			s.name, h.fleet.InSession(nil), h.Nodes, lost, err)
	}
	return nil
}

// opened counts the sessions that were ever opened.
func (h *Measurement) opened() (sum int) {
	for _, n := range h.fleet.Opened() {
		sum += n
	}
	return sum
}

func (h *Measurement) row(what, unit, aim string, v float64) {
	h.Log.Info("measured", "what", what, "value", v, "unit", unit)
	h.Report.Row(what, unit, aim, v)
}

func (h *Measurement) name(what string) string {
	h.serial++
	return fmt.Sprintf("%s-%d", what, h.serial)
}

func (h *Measurement) dispatcher(ctx context.Context) (usage.Look, error) {
	return usage.Of(ctx, h.Lab, manager, "shoal-dispatcher")
}

func (h *Measurement) create(ctx context.Context, spec *typesv1.ServiceSpec) error {
	_, err := h.Services.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: spec})
	return err
}

func (h *Measurement) remove(ctx context.Context, name string) error {
	_, err := h.Services.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: name})
	return err
}

// sessions waits until all machines are in session, by one that was opened since before was taken.
func (h *Measurement) sessions(ctx context.Context, before []int) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return h.fleet.AwaitSessions(ctx, before)
}

// settled is what the dispatcher costs while nothing happens.
func (h *Measurement) settled(ctx context.Context) error {
	if err := run.Sleep(ctx, rest); err != nil {
		return err
	}
	for range h.Runs {
		from, err := h.dispatcher(ctx)
		if err != nil {
			return err
		}
		if err := run.Sleep(ctx, look); err != nil {
			return err
		}
		to, err := h.dispatcher(ctx)
		if err != nil {
			return err
		}
		h.row("dispatcher, settled", "% of a CPU", aimSettled, to.Busy(from))
		h.row("dispatcher, memory a connection", "KiB", aimConnection, (to.Memory.Resident-h.before.Memory.Resident)*1024/float64(h.Nodes))
	}
	return nil
}

// changes gives tasks to one machine after another, and measures from the call to the container, which the way by the
// scheduler is part of, and from the commit of the task to it.
func (h *Measurement) changes(ctx context.Context) error {
	times := h.fleet.Made()
	var whole, last []time.Duration
	for i := range changes {
		n := h.fleet.Nodes()[i*len(h.fleet.Nodes())/changes]
		name := h.name("change")
		spec := h.Spec(name, 1)
		spec.Task.Placement = &typesv1.Placement{Constraints: []string{"node.id == " + n.ID}}
		began := time.Now()
		if err := h.create(ctx, spec); err != nil {
			return err
		}
		var task *typesv1.Task
		if _, err := poll.Until(ctx, "the container of "+name+" is made on "+n.Name, one, func(ctx context.Context) (wrong string) {
			task, wrong = h.made(ctx, name, times)
			return wrong
		}); err != nil {
			return err
		}
		made := times.Of(task.GetMeta().GetId())
		whole, last = append(whole, made.Sub(began)), append(last, made.Sub(task.GetMeta().GetCreatedAt().AsTime()))
		if err := h.remove(ctx, name); err != nil {
			return err
		}
	}
	h.Log.Info("measured", "what", "changes", "machines", changes)
	h.Report.Spread("commit of a task to its container", aimChange, last)
	h.Report.Spread("create of a service to its container", "", whole)
	return h.empty(ctx)
}

// made is the task of a service whose container was made first. A machine that was lost meanwhile, or its session, may have got another.
func (h *Measurement) made(ctx context.Context, service string, times *hollow.Times) (first *typesv1.Task, wrong string) {
	got, err := h.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{Filters: []string{"service=" + service}})
	if err != nil || len(got.GetTasks()) == 0 {
		return nil, fmt.Sprintf("no task: %v", err)
	}
	for _, entry := range got.GetTasks() {
		t := entry.GetTask()
		if at := times.Of(t.GetMeta().GetId()); !at.IsZero() && (first == nil || at.Before(times.Of(first.GetMeta().GetId()))) {
			first = t
		}
		wrong += fmt.Sprintf("task %s is %s %s; ", t.GetMeta().GetId(), t.GetObserved().GetState(), t.GetObserved().GetMessage())
	}
	if first != nil {
		return first, ""
	}
	return nil, wrong
}

// fill creates services of many replicas, and waits until the store has all of them running.
func (h *Measurement) fill(ctx context.Context) error {
	for range h.Runs {
		for _, f := range []struct {
			replicas int
			aim      string
		}{{1000, "≤ 0.7"}, {5000, "≤ 3"}} {
			name := h.name("fill")
			began := time.Now()
			if err := h.create(ctx, h.Spec(name, f.replicas)); err != nil {
				return err
			}
			if _, err := poll.Until(ctx, "all replicas run", limit, func(ctx context.Context) string {
				got, err := h.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: name})
				n := int(got.GetCounts().GetRunning())
				if err != nil || n < f.replicas {
					return fmt.Sprintf("%d of %d: %v", n, f.replicas, err)
				}
				return ""
			}); err != nil {
				return err
			}
			h.row(fmt.Sprintf("create to %d running", f.replicas), "s", f.aim, time.Since(began).Seconds())
			if err := h.remove(ctx, name); err != nil {
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
func (h *Measurement) empty(ctx context.Context) error {
	_, err := poll.Until(ctx, "no container is left", limit, func(context.Context) string {
		if n := h.fleet.Containers(); n > 0 {
			return fmt.Sprintf("%d containers, %d of %d machines in session", n, h.fleet.InSession(nil), h.Nodes)
		}
		return ""
	})
	return err
}

// reconnect kills the dispatcher and waits until every machine has a session again. It is started anew at once.
func (h *Measurement) reconnect(ctx context.Context) error {
	for range h.Runs {
		before, began := h.fleet.Opened(), time.Now()
		if err := h.Lab.Kill(ctx, manager, "dispatcher"); err != nil {
			return err
		}
		if err := h.sessions(ctx, before); err != nil {
			return err
		}
		h.row("dispatcher killed to all in session", "s", aimReconnect, time.Since(began).Seconds())
	}
	return nil
}
