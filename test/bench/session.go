package main

import (
	"context"
	"fmt"
	"strings"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	"github.com/shoalproject/shoal/test/bench/poll"
)

// holdOwnSession makes the agent of a manager have its session at the dispatcher of its own machine: it kills the agent,
// which then picks a dispatcher by chance, until it is so, or says that it could not.
func (o *shoal) holdOwnSession(ctx context.Context, host string) error {
	const tries = 20
	var seen []string
	for range tries {
		holder, err := o.holder(ctx, host)
		if err != nil {
			return err
		}
		if holder == host {
			return whole(ctx, o)
		}
		seen = append(seen, holder)
		before, err := o.session(ctx, host)
		if err != nil {
			return err
		}
		if err := o.site.Kill(ctx, host, "agent"); err != nil {
			return err
		}
		_, err = poll.Until(ctx, "a new session of "+host, healLimit, func(ctx context.Context) string {
			if number, err := o.session(ctx, host); err != nil || number <= before {
				return fmt.Sprintf("number %d, was %d: %v", number, before, err)
			}
			return ""
		})
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("in %d tries the agent of %s never came to the dispatcher of its own machine, but to those of %s", tries, host, strings.Join(seen, " "))
}

// holder is the host of the dispatcher that holds a host's session.
func (o *shoal) holder(ctx context.Context, host string) (string, error) {
	ns, err := o.nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range ns {
		if n.host == host {
			return n.dispatcher, nil
		}
	}
	return "", fmt.Errorf("no node %s in the cluster", host)
}

// session is the number of a host's session.
func (o *shoal) session(ctx context.Context, host string) (uint64, error) {
	got, err := o.machines.GetNode(ctx, &controlv1.GetNodeRequest{Node: host})
	return got.GetNode().GetNode().GetStatus().GetSession().GetNumber(), err
}
