package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoalproject/shoal/test/bench/poll"
)

// scales takes a service from 1 to 50 and back on each cluster, beside the bare client on our hosts, in turn: what makes
// the machine slow for a while must hit all of them.
func scales(ctx context.Context, b *bench, clusters []orchestrator) error {
	floor, err := newBare(ctx, clusters[0].on())
	if err != nil {
		return err
	}
	if _, err := floor.scale(ctx, 0, 1); err != nil {
		return err
	}
	for _, o := range clusters {
		s := service{name: "scaled", replicas: 1}
		if o.who() == ours {
			s.publish = publishedPort
		}
		if err := o.create(ctx, s); err != nil {
			return err
		}
		if err := b.warm(ctx, o, s.name); err != nil {
			return err
		}
	}
	for i := range b.cfg.Runs {
		turns := []func() error{func() error { return b.scaleBare(ctx, floor) }}
		for _, o := range clusters {
			turns = append(turns, func() error { return b.scale(ctx, o, "scaled") })
		}
		if i%2 == 1 { // nobody always comes first
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return err
			}
		}
		b.log.Info("scaled", "run", i+1, "of", b.cfg.Runs)
	}
	for _, o := range clusters {
		if err := b.away(ctx, o, "scaled"); err != nil {
			return err
		}
	}
	_, err = floor.scale(ctx, 1, 0)
	return err
}

// warm has the image on every host before anything is measured.
func (b *bench) warm(ctx context.Context, o orchestrator, name string) error {
	for _, n := range []int{2 * len(o.on().hosts), 1} {
		if err := o.scale(ctx, name, n); err != nil {
			return err
		}
		if _, err := full(ctx, o, name, n, all); err != nil {
			return err
		}
	}
	_, err := emptied(ctx, o, 1)
	return err
}

// away removes a service with its containers.
func (b *bench) away(ctx context.Context, o orchestrator, name string) error {
	if err := o.remove(ctx, name); err != nil {
		return err
	}
	_, err := emptied(ctx, o, 0)
	return err
}

func (b *bench) scaleBare(ctx context.Context, floor *bare) error {
	n := b.cfg.Replicas
	up, err := floor.scale(ctx, 1, n)
	if err != nil {
		return err
	}
	b.report.add(bareClient, b.upStep("running"), "s", "", up.Seconds())
	b.report.add(bareClient, b.answerStep(), "s", "", up.Seconds())
	down, err := floor.scale(ctx, n, 1)
	b.report.add(bareClient, b.downStep(), "s", "", down.Seconds())
	return err
}

func (b *bench) upStep(what string) string {
	return fmt.Sprintf("1 to %d: all %s", b.cfg.Replicas, what)
}
func (b *bench) answerStep() string { return b.upStep("answer") }
func (b *bench) downStep() string   { return fmt.Sprintf("%d to 1: containers gone", b.cfg.Replicas) }

const scaleAim = "2 × bare (2.0 s); Swarm 15.8 s"

func (b *bench) scale(ctx context.Context, o orchestrator, name string) error {
	n := b.cfg.Replicas
	began := time.Now()
	if err := o.scale(ctx, name, n); err != nil {
		return err
	}
	_, err := poll.Until(ctx, fmt.Sprintf("%d/%d", n, n), healLimit, func(ctx context.Context) string {
		have, err := o.counted(ctx, name)
		if err != nil {
			return err.Error()
		}
		if have < n {
			return fmt.Sprintf("%d/%d", have, n)
		}
		return ""
	})
	if err != nil {
		return err
	}
	b.report.add(o.who(), b.upStep("running"), "s", scaleAim, time.Since(began).Seconds())
	if o.who() == ours {
		s := o.on()
		asked := newAnswers(publishedPort, s.addressesOf(s.hosts)...)
		if err := asked.different(ctx, n, healLimit); err != nil {
			return err
		}
		b.report.add(ours, b.answerStep(), "s", scaleAim, time.Since(began).Seconds())
	} else {
		b.report.why(b.answerStep(), "s", scaleAim, "Docker Swarm publishes no port here (no IPVS in this kernel)")
	}
	began = time.Now()
	if err := o.scale(ctx, name, 1); err != nil {
		return err
	}
	if _, err := emptied(ctx, o, 1); err != nil {
		return err
	}
	b.report.add(o.who(), b.downStep(), "s", "", time.Since(began).Seconds())
	return nil
}
