// Package release lets the cluster let go of processes: it drains them and waits until nothing is left on them, takes that
// back, and removes them.
//
// It owns the waiting and its words. What may be drained or removed is the cluster's to say. A Cluster serves one command.
package release

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/client"
)

const (
	// poll is how often a drained process is looked at.
	poll = 200 * time.Millisecond
	// forceLimit is how long somebody who forces waits for one process.
	forceLimit = time.Minute
	// maxTries is how often a change of a machine is made again because somebody else was faster.
	maxTries = 3
)

// Cluster is asked to let go. It is what machine.Leave needs.
type Cluster struct {
	// Client reaches the cluster.
	Client *client.Client
	// Out is told what is still left.
	Out io.Writer

	// Force bounds the waiting: who forces goes on without those that do not let go.
	Force bool

	before map[string]state // by member, before it was drained
}

// state is what Drain changes.
type state struct {
	availability typesv1.Availability // of an agent's machine
	drained      bool
}

// note remembers the first state that was seen: a second look may see what the first try has changed.
func (c *Cluster) note(member string, s state) {
	if c.before == nil {
		c.before = map[string]state{}
	}
	if _, noted := c.before[member]; !noted {
		c.before[member] = s
	}
}

// agentOf is the machine of an agent's member.
func agentOf(member string) (machine string, ok bool) { return strings.CutPrefix(member, "agent/") }

// nobody says that nobody is sent to a process, so that there is nothing to drain: all meshproxies dial all.
func nobody(member string) bool { return strings.HasPrefix(member, "meshproxy/") }

// Drain lets a process hand over what it has, and returns when nothing is left on it. An agent's machine is drained of tasks.
func (c *Cluster) Drain(ctx context.Context, member string) error {
	if c.Force {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, forceLimit, errs.New(errs.Unavailable, "it has not let go of all within %s", forceLimit))
		defer cancel()
	}
	if id, ok := agentOf(member); ok {
		return c.empty(ctx, member, id)
	}
	if nobody(member) {
		return nil
	}
	got, err := c.Client.Members.GetMember(ctx, &controlv1.GetMemberRequest{Member: member})
	if err != nil {
		return fmt.Errorf("drain member %q: %w", member, err)
	}
	c.note(member, state{drained: got.GetMember().GetMember().GetSpec().GetDrain()})
	return c.DrainMember(ctx, member, false, false)
}

// DrainMember drains a control process, and unless detached waits until nothing is left on it.
func (c *Cluster) DrainMember(ctx context.Context, name string, detach, force bool) error {
	drain := true
	resp, err := c.Client.Members.UpdateMember(ctx, &controlv1.UpdateMemberRequest{Member: name, Drain: &drain, Force: force})
	if err != nil {
		return fmt.Errorf("drain member %q: %w", name, err)
	}
	if detach {
		return nil
	}
	id := resp.GetMember().GetMember().GetMeta().GetId()
	told := ""
	for {
		got, err := c.Client.Members.GetMember(ctx, &controlv1.GetMemberRequest{Member: id})
		if err == nil && got.GetMember().GetMember().GetStatus().GetDrained() {
			return nil
		}
		// A gateway that is drained may be the very one that was asked: the next try finds another, or it again.
		if err != nil && errs.KindOf(err) != errs.Unavailable && ctx.Err() == nil {
			return fmt.Errorf("drain member %q: %w", name, err)
		}
		if said := drainText(got.GetMember(), err); said != told && ctx.Err() == nil {
			fmt.Fprintf(c.Out, "%s: %s\n", name, said)
			told = said
		}
		if run.Sleep(ctx, poll) != nil {
			return fmt.Errorf("drain member %q: %w", name, context.Cause(ctx))
		}
	}
}

func drainText(m *controlv1.ListedMember, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case m.GetHealth() == controlv1.MemberHealth_MEMBER_HEALTH_SILENT:
		return "it was not heard lately; it drains when it is back"
	case m.GetMember().GetStatus().GetLoad() > 0:
		return fmt.Sprintf("draining, %d left", m.GetMember().GetStatus().GetLoad())
	}
	return "draining"
}

// empty drains a machine and waits until no task is on it.
func (c *Cluster) empty(ctx context.Context, member, id string) error {
	note := func(before typesv1.Availability) { c.note(member, state{availability: before}) }
	if err := c.setAvailability(ctx, id, typesv1.Availability_AVAILABILITY_DRAIN, note); err != nil {
		return err
	}
	told := -1
	for {
		resp, err := c.Client.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{Filters: []string{"node=" + id}})
		if err != nil && errs.KindOf(err) != errs.Unavailable && ctx.Err() == nil {
			return fmt.Errorf("list the tasks of node %q: %w", id, err)
		}
		left := 0
		for _, t := range resp.GetTasks() {
			if s := t.GetState(); s >= typesv1.TaskState_TASK_STATE_ASSIGNED && s <= typesv1.TaskState_TASK_STATE_RUNNING {
				left++
			}
		}
		if err == nil && left == 0 {
			return nil
		}
		if err == nil && left != told {
			fmt.Fprintf(c.Out, "agent: tasks left: %d\n", left)
			told = left
		}
		if run.Sleep(ctx, poll) != nil {
			return fmt.Errorf("wait until no task is left on this machine: %w", context.Cause(ctx))
		}
	}
}

// setAvailability tells seen what it finds, before it changes it.
func (c *Cluster) setAvailability(ctx context.Context, id string, to typesv1.Availability, seen func(typesv1.Availability)) error {
	for try := 0; ; try++ {
		got, err := c.Client.Nodes.GetNode(ctx, &controlv1.GetNodeRequest{Node: id})
		if err != nil {
			return fmt.Errorf("node %q: %w", id, err)
		}
		next := proto.CloneOf(got.GetNode().GetNode().GetSpec())
		seen(next.GetAvailability())
		if next.GetAvailability() == to {
			return nil
		}
		next.Availability = to
		_, err = c.Client.Nodes.UpdateNode(ctx, &controlv1.UpdateNodeRequest{Node: id, Version: got.GetVersion(), Spec: next})
		if err == nil {
			return nil
		}
		if errs.KindOf(err) != errs.Conflict || try == maxTries {
			return fmt.Errorf("update node %q: %w", id, err)
		}
	}
}

// Activate takes back what Drain has changed: one that people had drained before stays drained.
func (c *Cluster) Activate(ctx context.Context, member string) error {
	if _, ok := agentOf(member); ok {
		return c.restore(ctx, member)
	}
	if before, noted := c.before[member]; !noted || before.drained {
		return nil
	}
	return c.ActivateMember(ctx, member)
}

// ActivateMember lets a control process take work again.
func (c *Cluster) ActivateMember(ctx context.Context, member string) error {
	drain := false
	if _, err := c.Client.Members.UpdateMember(ctx, &controlv1.UpdateMemberRequest{Member: member, Drain: &drain}); err != nil {
		return fmt.Errorf("activate member %q: %w", member, err)
	}
	return nil
}

// restore makes an agent's machine what it was before Drain looked at it; if it never did, nothing was changed.
func (c *Cluster) restore(ctx context.Context, member string) error {
	before, noted := c.before[member]
	if !noted {
		return nil
	}
	id, _ := agentOf(member)
	return c.setAvailability(ctx, id, before.availability, func(typesv1.Availability) {})
}

// Remove takes a process out of the cluster: its certificates are refused from then on. One that is not there is told by
// NotFound.
func (c *Cluster) Remove(ctx context.Context, member string, force bool) error {
	err := c.Client.RemoveMember(ctx, member, force)
	gone := err == nil || errs.KindOf(err) == errs.NotFound
	if _, ok := agentOf(member); ok && gone {
		// The machine without an agent gets no tasks; with one again it shall get them as before.
		if err := c.restore(ctx, member); err != nil && errs.KindOf(err) != errs.NotFound {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("remove member %q: %w", member, err)
	}
	return nil
}
