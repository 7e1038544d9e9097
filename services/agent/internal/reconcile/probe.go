package reconcile

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/health"
	"github.com/shoalproject/shoal/services/agent/internal/look"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// leastGrace is what is left of the grace for the stop signal when a command before it took too long.
const leastGrace = time.Second

const (
	// listenSoon is how long the report of a start waits for the container to listen: most do by then, and then there is one
	// report. listenBound is how long the mesh waits; who listens later needs a readiness probe, and some never listen.
	listenSoon  = 50 * time.Millisecond
	listenBound = time.Second
	listenPace  = 10 * time.Millisecond
)

// probes are those of a container, with defaults. Nil: none.
type probes struct{ health, ready *typesv1.Probe }

// none says that nobody looks whether the container takes connections.
func (p *probes) none() bool { return p.health == nil && p.ready == nil }

// opens waits until a container listens, or for so long. It is true as well when nobody can tell.
func (l *Loop) opens(ctx context.Context, id string, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if open, err := l.Network.Listens(id); open || err != nil {
			return true
		}
		if run.Sleep(ctx, listenPace) != nil {
			return false
		}
	}
}

// await lets a container without probes into the mesh when it listens: a process that has just begun refuses connections.
func (l *Loop) await(own context.Context, e *entry) {
	id := container.ID(e.id, e.attempt)
	l.workers.Go(own, "listens", func(own context.Context) error {
		l.opens(own, id, listenBound)
		l.post(own, func(ctx context.Context) {
			if own.Err() == nil {
				e.life.Answers(true, "")
				l.step(ctx, e)
			}
		})
		return nil
	})
}

// probesOf finds out which probes a container has; its image may have one.
func (l *Loop) probesOf(ctx context.Context, c *typesv1.ContainerSpec) (*probes, error) {
	own := c.GetHealthcheck()
	var image *typesv1.Probe
	if len(own.GetTest()) == 0 && own.GetHttp() == nil && own.GetTcp() == nil {
		var err error
		if image, err = l.Executor.ImageProbe(ctx, c.GetImage()); err != nil && !errs.Is(err, errs.NotFound) {
			return nil, err
		}
	}
	return &probes{health: health.Resolve(own, image), ready: health.Resolve(c.GetReadiness(), nil)}, nil
}

// attend looks at a container that runs, until it is stopped or ends.
func (l *Loop) attend(ctx context.Context, e *entry) {
	if e.looks != nil || !e.life.Serves() || e.assigned.GetSpec() == nil {
		return
	}
	own, cancel := context.WithCancel(ctx)
	e.looks = cancel
	if e.probes != nil {
		l.begin(own, e)
		return
	}
	c := e.assigned.GetSpec().GetContainer() // found running: ask first
	l.workers.Go(own, "probes", func(own context.Context) error {
		p, err := l.probesOf(own, c)
		for err != nil {
			if err := run.Sleep(own, retryLast); err != nil {
				return nil //nolint:nilerr // only the end of the container
			}
			p, err = l.probesOf(own, c)
		}
		l.post(own, func(ctx context.Context) {
			e.probes = p
			e.life.Checked(p.health != nil, p.ready != nil)
			l.begin(own, e)
			l.step(ctx, e)
		})
		return nil
	})
}

// begin starts the looks at a container whose probes are known. They end with own.
func (l *Loop) begin(own context.Context, e *entry) {
	addresses := addressesOf(e)
	if e.probes.none() && e.life.Opens() {
		l.await(own, e)
	}
	if p := e.probes.health; p != nil {
		m := health.New(p, l.Now(), e.life.Health == task.Healthy)
		l.repeat(own, e, p, m, append(addresses, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()), func(ctx context.Context) {
			switch m.State() {
			case health.Healthy:
				e.life.Looked(task.Healthy, "")
			case health.Unhealthy:
				e.life.Looked(task.Unhealthy, "unhealthy: "+m.Words())
				l.withdraw(ctx, e.id)
			case health.Starting:
			}
		})
	}
	if p := e.probes.ready; p != nil {
		m := health.New(p, l.Now(), e.life.Ready)
		if len(addresses) == 0 {
			addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		l.repeat(own, e, p, m, addresses, func(context.Context) { e.life.Answers(m.State() == health.Healthy, m.Words()) })
	}
}

// repeat looks again and again. Each look runs beside the loop; the monitor is the loop's, and so is what follows.
func (l *Loop) repeat(own context.Context, e *entry, p *typesv1.Probe, m *health.Monitor, addresses []netip.Addr, changed func(context.Context)) {
	id, wait := container.ID(e.id, e.attempt), m.Wait()
	l.workers.Go(own, "look", func(own context.Context) error {
		if err := run.Sleep(own, wait); err != nil {
			return nil //nolint:nilerr // only the end of the container
		}
		ok, said, err := look.Once(own, l.Executor, l.Network, id, p, addresses)
		l.post(own, func(ctx context.Context) {
			if own.Err() != nil {
				return
			}
			if before := m.State(); err == nil && m.Result(ok, said, l.Now()) != before {
				changed(ctx)
				l.step(ctx, e)
			}
			if own.Err() == nil { // it is not stopped for what was seen
				l.repeat(own, e, p, m, addresses, changed)
			}
		})
		return nil
	})
}

// unattend ends the looks at a container.
func (e *entry) unattend() {
	if e.looks != nil {
		e.looks()
	}
}

// addressesOf are the task's own on the machine network, where the mesh reaches it.
func addressesOf(e *entry) (list []netip.Addr) {
	if e.assigned.GetSpec().GetContainer().GetPrivileges().GetHostNetwork() {
		return nil // it is not on the machine network: it answers on the machine itself
	}
	for _, a := range e.assigned.GetAddresses() {
		if a.GetNetworkId() != "" {
			continue
		}
		for _, text := range a.GetAddresses() {
			if p, err := parseAddress(text); err == nil {
				list = append(list, p.Addr())
			}
		}
	}
	return list
}

// before runs the command that comes before the stop signal. It returns what is left of the grace.
func (l *Loop) before(ctx context.Context, id string, stop container.Stop) time.Duration {
	if len(stop.Before) == 0 || stop.Grace == 0 {
		return stop.Grace
	}
	began := l.Now()
	bounded, cancel := context.WithTimeout(ctx, stop.Grace)
	defer cancel()
	code, err := l.Executor.Exec(bounded, id, container.Command{Args: stop.Before, Stdout: io.Discard, Stderr: io.Discard}, func() error { return nil })
	if err != nil || code != 0 {
		l.Log.Info("the command before the stop did not end well", "container", id, "exit_code", code, "error", err)
	}
	return max(stop.Grace-l.Now().Sub(began), leastGrace)
}
