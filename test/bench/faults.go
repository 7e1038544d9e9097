package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoalproject/shoal/test/bench/poll"
)

const (
	// lossReplicas is the size of the service that loses something.
	lossReplicas = 9
	writeLimit   = time.Second // one try to write while the leader is away
)

const (
	hostAim       = "6.5 s"
	dispatcherAim = "8.5 s; Swarm 20 s"
	leaderAim     = "3 s; Swarm 5.2 s"
)

// loss is one service that loses something, and what is measured until it is whole again.
type loss struct {
	step, aim string
	delay     *time.Duration
	// Cut takes something away and returns which tasks count from then on.
	cut func(ctx context.Context, tasks []task) (counts func(task) bool, err error)
	// Ask are the hosts on whose published port everybody must answer.
	ask []string
}

// lose creates a service, cuts, and measures until as many tasks as before run and, where ports can be published,
// answer.
func (b *bench) lose(ctx context.Context, o orchestrator, l loss) error {
	s := service{name: b.name("lost"), replicas: lossReplicas, delay: l.delay}
	if o.who() == ours {
		s.publish = publishedPort
	}
	if err := o.create(ctx, s); err != nil {
		return err
	}
	if _, err := full(ctx, o, s.name, s.replicas, all); err != nil {
		return err
	}
	if o.who() == ours { // the port is in force everywhere
		if err := newAnswers(publishedPort, o.on().addressesOf(o.on().hosts)...).different(ctx, s.replicas, healLimit); err != nil {
			return err
		}
	}
	tasks, err := o.running(ctx, s.name)
	if err != nil {
		return err
	}
	began := time.Now()
	counts, err := l.cut(ctx, tasks)
	if err != nil {
		return err
	}
	if _, err := full(ctx, o, s.name, s.replicas, counts); err != nil {
		return err
	}
	said := time.Since(began)
	b.report.add(o.who(), l.step+": running", "s", l.aim, said.Seconds())
	b.log.Info("whole again", "step", l.step, "of", o.on().Dir(), "after", said.Round(time.Millisecond))
	if o.who() == ours {
		if err := newAnswers(publishedPort, o.on().addressesOf(l.ask)...).different(ctx, s.replicas, healLimit); err != nil {
			return err
		}
		b.report.add(ours, l.step+": all answer", "s", l.aim, time.Since(began).Seconds())
	}
	return o.remove(ctx, s.name)
}

// containerLoss kills a container's process; with the default restart delay, and without.
func containerLoss(ctx context.Context, b *bench, o orchestrator) error {
	none := time.Duration(0)
	for range b.cfg.FaultRuns {
		for _, l := range []loss{
			{step: "container killed, restart delay 5 s", aim: "5 s + start"},
			{step: "container killed, restart delay 0 s", delay: &none},
		} {
			l.ask = o.on().hosts
			l.cut = func(ctx context.Context, tasks []task) (func(task) bool, error) {
				victim := tasks[0]
				return func(t task) bool { return t.container != victim.container },
					o.on().kill(ctx, o.namespace(), victim.host, victim.container)
			}
			if err := b.lose(ctx, o, l); err != nil {
				return err
			}
			if _, err := emptied(ctx, o, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// hostLoss powers off a worker whose session is at another machine's dispatcher.
func hostLoss(ctx context.Context, b *bench, o orchestrator) error {
	for range b.cfg.FaultRuns {
		if err := b.loseHost(ctx, o, "w2", loss{step: "host powered off", aim: hostAim}); err != nil {
			return err
		}
	}
	return nil
}

// dispatcherLoss powers off a machine together with the dispatcher that holds its session. In a swarm this is the leader.
func dispatcherLoss(ctx context.Context, b *bench, o orchestrator) error {
	for range b.cfg.FaultRuns {
		victim, asked, err := b.pick(ctx, o)
		if err == nil {
			err = o.ask(asked)
		}
		if err == nil {
			err = b.loseHost(ctx, o, victim, loss{step: "host powered off with its dispatcher", aim: dispatcherAim})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pick chooses a manager that dies with its dispatcher, and another one to ask.
func (b *bench) pick(ctx context.Context, o orchestrator) (victim, asked string, err error) {
	leader, followers, err := quorum(ctx, o)
	if err != nil {
		return "", "", err
	}
	ours, ok := o.(*shoal)
	if !ok {
		return leader, followers[0], nil
	}
	victim = followers[0]
	for _, f := range followers { // one that is there already costs no restart of an agent
		if holder, err := ours.holder(ctx, f); err == nil && holder == f {
			victim = f
			break
		}
	}
	return victim, leader, ours.holdOwnSession(ctx, victim)
}

// quorum finds the leader and the other managers.
func quorum(ctx context.Context, o orchestrator) (leader string, followers []string, err error) {
	ns, err := o.nodes(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, n := range ns {
		switch {
		case n.leader:
			leader = n.host
		case n.manager:
			followers = append(followers, n.host)
		}
	}
	if leader == "" || len(followers) == 0 {
		return "", nil, errors.New("no leader, or nobody else to ask")
	}
	return leader, followers, nil
}

// loseHost measures the loss of a host and brings it back.
func (b *bench) loseHost(ctx context.Context, o orchestrator, victim string, l loss) error {
	l.ask = o.on().others(victim)
	l.cut = func(ctx context.Context, _ []task) (func(task) bool, error) {
		return func(t task) bool { return t.host != victim }, o.on().cut(ctx, victim)
	}
	return errors.Join(b.lose(ctx, o, l), b.restore(ctx, o, victim))
}

// restore powers a host on and waits until the cluster is whole and the last step's containers are gone.
func (b *bench) restore(ctx context.Context, o orchestrator, host string) error {
	if err := errors.Join(o.on().Plug(ctx, host), o.on().PowerOn(ctx, host)); err != nil {
		return err
	}
	if err := o.refresh(ctx, host); err != nil {
		return err
	}
	if err := whole(ctx, o); err != nil {
		return err
	}
	_, err := emptied(ctx, o, 0)
	return err
}

// leaderLoss powers off the leader's machine and writes through another manager until a write is accepted.
func leaderLoss(ctx context.Context, b *bench, o orchestrator) error {
	for range b.cfg.FaultRuns {
		leader, followers, err := quorum(ctx, o)
		if err == nil {
			err = o.ask(followers[0])
		}
		if err != nil {
			return err
		}
		var written []string
		began := time.Now()
		if err := o.on().cut(ctx, leader); err != nil {
			return err
		}
		_, err = poll.Until(ctx, "a write is accepted", healLimit, func(ctx context.Context) string {
			// A name of its own for each try: one whose answer was lost may have been accepted.
			name := b.name("written")
			written = append(written, name)
			ctx, cancel := context.WithTimeout(ctx, writeLimit)
			defer cancel()
			if err := o.create(ctx, service{name: name}); err != nil {
				return err.Error()
			}
			return ""
		})
		if err == nil {
			b.report.add(o.who(), "leader's host powered off: a write is accepted", "s", leaderAim, time.Since(began).Seconds())
			b.log.Info("write accepted", "of", o.on().Dir(), "after", time.Since(began).Round(time.Millisecond))
		}
		if err := errors.Join(err, b.restore(ctx, o, leader)); err != nil {
			return err
		}
		for _, name := range written {
			if err := o.remove(ctx, name); err != nil && !missing(err) {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return nil
}
