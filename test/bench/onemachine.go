package main

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/bench/poll"
)

const (
	onOne        = "50 more on one machine"
	onOneLinked  = "50 more on one machine, on a network"
	aimOne       = "1.3 × bare"
	aimOneLinked = "1.6 × bare"
	// rest is for the kernel to end the namespaces of what was removed before.
	rest = 2 * time.Second
)

// oneMachine gives one machine 50 more replicas, without a network and on one of users, in turns with the bare client.
func oneMachine(ctx context.Context, b *bench, o orchestrator) error {
	s, ok := o.(*shoal)
	if !ok {
		return nil // it is measured on three machines
	}
	floor, err := newBare(ctx, s.on())
	if err != nil {
		return err
	}
	if _, err := floor.scale(ctx, 0, 1); err != nil {
		return err
	}
	plain, linked := b.name("plain"), b.name("linked")
	if err := s.create(ctx, service{name: plain, replicas: 1}); err != nil {
		return err
	}
	if err := s.createLinked(ctx, linked); err != nil {
		return err
	}
	for _, name := range []string{plain, linked} {
		if _, err := b.moreOf(ctx, s, name, 1); err != nil {
			return err
		}
	}
	for range b.cfg.Runs {
		took, err := rested(ctx, func() (time.Duration, error) { return floor.scale(ctx, 1, 1+b.cfg.Replicas) })
		if err != nil {
			return err
		}
		b.report.add(bareClient, onOne, "s", "", took.Seconds())
		b.report.add(bareClient, onOneLinked, "s", "", took.Seconds())
		if _, err := floor.scale(ctx, 1+b.cfg.Replicas, 1); err != nil {
			return err
		}
		for _, c := range []struct{ name, row, aim string }{{plain, onOne, aimOne}, {linked, onOneLinked, aimOneLinked}} {
			took, err := rested(ctx, func() (time.Duration, error) { return b.moreOf(ctx, s, c.name, 1+b.cfg.Replicas) })
			if err != nil {
				return err
			}
			b.log.Info("measured", "what", c.row, "took", took)
			b.report.add(ours, c.row, "s", c.aim, took.Seconds())
			if err := s.scale(ctx, c.name, 1); err != nil {
				return err
			}
			if _, err := emptied(ctx, s, 2); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{plain, linked} {
		if err := s.remove(ctx, name); err != nil {
			return err
		}
	}
	_, err = floor.scale(ctx, 1, 0)
	return err
}

// rested measures after a rest, the bare client too.
func rested(ctx context.Context, f func() (time.Duration, error)) (time.Duration, error) {
	_ = run.Sleep(ctx, rest) // f meets the end of ctx, too
	return f()
}

// moreOf has so many of a service run.
func (b *bench) moreOf(ctx context.Context, s *shoal, name string, n int) (time.Duration, error) {
	began := time.Now()
	if err := s.scale(ctx, name, n); err != nil {
		return 0, err
	}
	_, err := poll.Until(ctx, fmt.Sprintf("%d of %s run", n, name), healLimit, func(ctx context.Context) string {
		have, err := s.counted(ctx, name)
		if err != nil || have < n {
			return fmt.Sprintf("%d: %v", have, err)
		}
		return ""
	})
	return time.Since(began), err
}

// createLinked creates a service of one task on a network of its own.
func (o *shoal) createLinked(ctx context.Context, name string) error {
	if _, err := controlv1.NewNetworkServiceClient(o.conn).CreateNetwork(ctx, &controlv1.CreateNetworkRequest{
		Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: name}},
	}); err != nil {
		return err
	}
	spec := o.spec(service{name: name, replicas: 1})
	spec.Task.Networks = []*typesv1.NetworkAttachment{{Target: name}}
	_, err := o.services.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: spec})
	return err
}
