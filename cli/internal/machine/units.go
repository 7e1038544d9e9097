package machine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// start enables the units and starts them side by side: each waits for what it needs. It returns when all are ready, or with
// the first that is not: the others are not waited for.
func (m *Machine) start(ctx context.Context, roles []authzv1.Role, back *undo) error {
	var mu sync.Mutex // guards ready
	var ready []authzv1.Role
	// Last first: the processes stop, then what they have made goes, while their configuration is still there.
	back.add("remove what the processes have made", func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return m.unmake(ctx, roles, ready)
	})
	back.add("stop the processes", func(ctx context.Context) error { return m.stop(ctx, roles) })
	if _, err := m.Programs.Run(ctx, "systemctl", append([]string{"enable"}, layout.Units(roles)...)...); err != nil {
		return fmt.Errorf("enable the units: %w", err)
	}
	// The others may wait for the very one that failed.
	other := errors.New("another unit did not start")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return run.Each(ctx, 0, roles, func(ctx context.Context, r authzv1.Role) error {
		_, err := m.Programs.Run(ctx, "systemctl", "start", layout.Unit(r))
		if errors.Is(err, other) {
			return nil // that one says why
		}
		if err != nil {
			cancel(other)
			return fmt.Errorf("start %s: %w%s", layout.Unit(r), err, m.said(ctx, r))
		}
		m.Tell(layout.Unit(r) + " is ready")
		mu.Lock()
		defer mu.Unlock()
		ready = append(ready, r)
		return nil
	})
}

// startJoined starts a store after all others are ready. It gets its vote on its own, and one that is stopped with a vote may
// take the cluster's quorum with it: so nothing can fail after it, and once it may vote nothing is taken back.
func (m *Machine) startJoined(ctx context.Context, roles []authzv1.Role, learner bool, back *undo) error {
	store := []authzv1.Role{authzv1.Role_ROLE_STORE}
	if others := layout.Without(roles, store); len(others) > 0 {
		if err := m.start(ctx, others, back); err != nil {
			return err
		}
	}
	if !slices.Contains(roles, store[0]) {
		return nil
	}
	err := m.start(ctx, store, back)
	if err == nil || learner || !m.exists(path.Join(m.folder(store[0]), raftFolder)) {
		return err
	}
	back.keep()
	return fmt.Errorf("%w\nits vote may count in the cluster by now: so nothing was taken back, and the processes go on; `shoal doctor` says how they are, "+
		"and `shoal leave --roles store` takes the store back", err)
}

// raftFolder is where a store keeps its log, without which it can't have a vote.
const raftFolder = "raft"

const (
	// saidLimit bounds the look for why a process did not start.
	saidLimit = 3 * time.Second
	saidLines = "5"
)

// said is what a process that did not start waits for, and the last that the journal has of it: soon it is stopped, and the
// person has this error alone.
func (m *Machine) said(ctx context.Context, role authzv1.Role) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saidLimit)
	defer cancel()
	var text string
	if program, err := m.Programs.Find(layout.Unit(role)); err == nil {
		if out, err := m.Programs.Run(ctx, program, "health", "-config", m.config(role)); err != nil && strings.TrimSpace(out) != "" {
			text += "\n" + strings.TrimSpace(out)
		}
	}
	out, err := m.Programs.Run(ctx, "journalctl", "--unit", layout.Unit(role), "--lines", saidLines, "--no-pager", "--output", "cat")
	if out = strings.TrimSpace(out); err == nil && out != "" && !strings.HasPrefix(out, "-- ") {
		text += "\n" + out
	}
	return text
}

// unmake removes what the node's processes have made outside their folders. One that was never ready may have made
// something, too; if it can't say, that is no further fault: why it did not start is told already.
func (m *Machine) unmake(ctx context.Context, roles, ready []authzv1.Role) error {
	var faults []error
	for _, r := range resetOrder(roles) {
		if err := m.reset(ctx, r); err != nil && slices.Contains(ready, r) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// resetOrder: containers, then what they were on.
func resetOrder(roles []authzv1.Role) []authzv1.Role {
	return slices.DeleteFunc([]authzv1.Role{authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY}, func(r authzv1.Role) bool {
		return !slices.Contains(roles, r)
	})
}

// stop disables and stops, nodes' processes first. A unit that is not there is no fault.
func (m *Machine) stop(ctx context.Context, roles []authzv1.Role) error {
	list := layout.Units(roles)
	slices.Reverse(list)
	_, err := m.Programs.Run(ctx, "systemctl", append([]string{"disable", "--now"}, list...)...)
	return err
}

// restart lets processes read their changed configuration.
func (m *Machine) restart(ctx context.Context, roles []authzv1.Role) error {
	for _, r := range roles {
		m.Tell("restarting " + layout.Unit(r))
		if _, err := m.Programs.Run(ctx, "systemctl", "restart", layout.Unit(r)); err != nil {
			return fmt.Errorf("restart %s: %w", layout.Unit(r), err)
		}
	}
	return nil
}

// reset lets a node's process remove its containers, interfaces and rules.
func (m *Machine) reset(ctx context.Context, role authzv1.Role) error {
	if !m.exists(m.config(role)) {
		return nil // it never ran here
	}
	return m.mustReset(ctx, role)
}

func (m *Machine) mustReset(ctx context.Context, role authzv1.Role, args ...string) error {
	program, err := m.Programs.Find(layout.Unit(role))
	if err != nil {
		return fmt.Errorf("%s reset: %w", layout.Unit(role), err)
	}
	m.Tell("removing what " + layout.Unit(role) + " has made")
	if _, err := m.Programs.Run(ctx, program, append([]string{"reset"}, args...)...); err != nil {
		return fmt.Errorf("%s reset: %w", layout.Unit(role), err)
	}
	return nil
}
