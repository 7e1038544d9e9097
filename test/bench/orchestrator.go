package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/test/bench/poll"
)

// orchestrator is what a step needs of a cluster, so that shoal and its peers go through the same steps.
type orchestrator interface {
	// Who says in which column the figures stand.
	who() column
	// On is where it runs, and namespace where its containers are in each host's containerd.
	on() *site
	namespace() string
	// Ask sends all later calls to this manager.
	ask(host string) error
	// Create makes a service, by the API.
	create(ctx context.Context, s service) error
	// Remove removes a service, by the API.
	remove(ctx context.Context, name string) error
	// Scale is what a person types, without waiting: the command's own start counts.
	scale(ctx context.Context, name string, replicas int) error
	// Counted is how many replicas of a service the cluster says are running.
	counted(ctx context.Context, name string) (int, error)
	// Running are a service's tasks that are wanted and said to run.
	running(ctx context.Context, name string) ([]task, error)
	// Nodes are the machines of the cluster.
	nodes(ctx context.Context) ([]node, error)
	// Refresh makes a host that was powered on again work as before.
	refresh(ctx context.Context, host string) error
	close() error
}

// service is what a step creates.
type service struct {
	name     string
	replicas int
	publish  uint32         // 0: no port
	delay    *time.Duration // restart delay; nil: the default
}

type task struct{ container, host string }

type node struct {
	host       string
	ready      bool
	manager    bool
	leader     bool
	healthy    bool   // a manager that takes part in the quorum
	dispatcher string // host of the dispatcher that holds its session; empty where there is none
}

// whole waits until every machine is ready and every manager votes.
func whole(ctx context.Context, o orchestrator) error {
	_, err := poll.Until(ctx, "the cluster is whole", healLimit, func(ctx context.Context) string {
		ns, err := o.nodes(ctx)
		if err != nil {
			return err.Error()
		}
		if len(ns) < len(o.on().hosts) {
			return fmt.Sprintf("%d machines", len(ns))
		}
		var wrong []string
		for _, n := range ns {
			if !n.ready || n.manager && !n.healthy && !n.leader {
				wrong = append(wrong, n.host+" is away")
			}
		}
		return strings.Join(wrong, ", ")
	})
	return err
}

// full waits until n tasks run that the step counts.
func full(ctx context.Context, o orchestrator, name string, n int, counts func(task) bool) (time.Duration, error) {
	return poll.Until(ctx, fmt.Sprintf("%d tasks of %s run", n, name), healLimit, func(ctx context.Context) string {
		tasks, err := o.running(ctx, name)
		if err != nil {
			return err.Error()
		}
		have := 0
		for _, t := range tasks {
			if counts(t) {
				have++
			}
		}
		if have < n {
			return fmt.Sprintf("%d of %d", have, n)
		}
		return ""
	})
}

func all(task) bool { return true }

// emptied waits until a service's containers are gone from the hosts' containerds, but for n.
func emptied(ctx context.Context, o orchestrator, n int) (time.Duration, error) {
	return poll.Until(ctx, fmt.Sprintf("%d containers are left", n), healLimit, func(ctx context.Context) string {
		have, err := o.on().made(ctx, o.namespace(), o.on().hosts)
		switch {
		case err != nil:
			return err.Error()
		case have > n:
			return fmt.Sprintf("%d containers", have)
		}
		return ""
	})
}

// missing tells whether an error is about something that is not there.
func missing(err error) bool { return errs.Is(err, errs.NotFound) }
