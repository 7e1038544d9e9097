package machine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// Cluster is what leaving role by role asks of the cluster. A member is `role/machine`.
type Cluster interface {
	// Drain lets a process hand over what it has, and returns when nothing is left on it.
	Drain(ctx context.Context, member string) error
	// Activate takes Drain back.
	Activate(ctx context.Context, member string) error
	// Remove takes a process out of the cluster: its certificates are refused from then on.
	Remove(ctx context.Context, member string, force bool) error
}

// Leave says what leaves.
type Leave struct {
	// Roles are the processes to take back; empty: all, and with them the machine.
	Roles []authzv1.Role
	// Force goes on where the cluster, or a clean-up, says no.
	Force bool
	// Cluster is asked to let the processes go; nil: nobody can be asked.
	Cluster Cluster
}

// Left is a leave that is done.
type Left struct {
	// Machine is the id that this machine had.
	Machine string
	// Manager says that its store left.
	Manager bool
	// Roles are the processes that left, Stay those that are still here.
	Roles, Stay []authzv1.Role
	// Warnings tell what could not be cleaned up.
	Warnings []string
}

// Leave takes this machine out of its cluster: processes, containers, kernel tables, certificates and configuration go. The
// cluster still lists the machine, as down, until somebody removes it. With roles it takes these processes back alone.
//
// The machine's id goes with its last process. Nobody can prove it without the keys, and one that was removed is refused for
// as long as its certificates might be in other hands: kept, it would keep this machine out of the cluster that it has just
// left.
func (m *Machine) Leave(ctx context.Context, req Leave) (Left, error) {
	has := m.Roles()
	left := Left{Machine: m.ID(), Manager: slices.Contains(has, authzv1.Role_ROLE_STORE), Roles: has}
	// Step 1: is it wanted, and allowed?
	if len(has) == 0 && !req.Force {
		return left, errs.New(errs.Precondition, "This node is not part of a cluster.")
	}
	if !m.Host.Privileged() {
		return left, errs.New(errs.Denied, "this takes root; run the command with sudo")
	}
	if len(req.Roles) > 0 {
		return m.leaveRoles(ctx, req, has)
	}
	if left.Manager && !req.Force {
		return left, errs.New(errs.Precondition, "You are attempting to leave the cluster on a node that is participating as a manager. "+
			"Removing the last manager erases all current state of the cluster. With several, run `shoal node rm --force` for this node on another manager afterwards. "+
			"Use `--force` to ignore this message.")
	}
	if control := controlOf(has); len(control) > 0 && !req.Force {
		if req.Cluster == nil {
			return left, errs.New(errs.Precondition, "others use %s of this machine, and there is no operator's context here with which the cluster could be asked to let go; "+
				"run `shoal member rm` for each where you have one, then this with --force", layout.Names(control))
		}
		req.Roles = has
		return m.leaveRoles(ctx, req, has)
	}
	// Step 2: the processes, so that none brings back what goes next.
	m.Tell("stopping the processes")
	if len(has) == 0 {
		has = layout.All()
	}
	if err := m.stop(ctx, has); err != nil && !req.Force {
		return left, fmt.Errorf("stop the processes: %w", err)
	}
	// Step 3: what they have made outside their folders, while their configuration is still there.
	warnings, err := m.resetAll(ctx, has, req.Force)
	left.Warnings = warnings
	if err != nil {
		return left, err
	}
	// Step 4: who it was.
	return left, m.forgetAll()
}

func controlOf(roles []authzv1.Role) []authzv1.Role {
	return slices.DeleteFunc(slices.Clone(roles), func(r authzv1.Role) bool { return !layout.IsControl(r) })
}

// AsksCluster says that such a leave has the cluster to ask: where it can't be reached, the others do without.
func (m *Machine) AsksCluster(req Leave) bool {
	return len(req.Roles) > 0 || len(controlOf(m.Roles())) > 0 && !req.Force
}

// resetAll lets the node's processes remove what they have made; with force, what could not be removed is a warning.
func (m *Machine) resetAll(ctx context.Context, roles []authzv1.Role, force bool) (warnings []string, err error) {
	for _, r := range resetOrder(roles) {
		if err := m.reset(ctx, r); err != nil {
			if !force {
				return warnings, fmt.Errorf("%w; `shoal leave --force` leaves nevertheless", err)
			}
			warnings = append(warnings, err.Error())
		}
	}
	return warnings, nil
}

// forgetAll removes folders, configuration and the machine's id. It goes on where one can't be removed.
func (m *Machine) forgetAll() error {
	faults := []error{m.removeFolders()}
	names := []string{m.unfinishedFile(), m.layout().MachineID()}
	for _, r := range layout.All() {
		names = append(names, m.config(r))
	}
	for _, name := range names {
		if err := m.Env.Files.Remove(name); err != nil {
			faults = append(faults, errs.New(errs.Unavailable, "remove %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

// leaveRoles takes single processes back, one after another: each is gone before the next begins, so that an interruption
// leaves whole processes.
func (m *Machine) leaveRoles(ctx context.Context, req Leave, has []authzv1.Role) (Left, error) {
	left := Left{Machine: m.ID(), Stay: has}
	if missing := layout.Without(layout.Sorted(req.Roles), has); len(missing) > 0 {
		return left, errs.New(errs.Precondition, "this machine has no %s; it has %s", layout.Names(missing), layout.Names(has))
	}
	if req.Cluster == nil && !req.Force && slices.ContainsFunc(req.Roles, layout.IsControl) {
		return left, errs.New(errs.Precondition, "there is no operator's context on this machine with which the cluster could be asked to let %s go; "+
			"run `shoal member rm` for each where you have one, then this with --force", layout.Names(layout.Sorted(req.Roles)))
	}
	for _, r := range leaveOrder(req.Roles) {
		warnings, err := m.leaveRole(ctx, req, r)
		left.Warnings = append(left.Warnings, warnings...)
		if err != nil {
			return left, err
		}
		left.Manager = left.Manager || r == authzv1.Role_ROLE_STORE
		left.Roles = append(left.Roles, r)
		left.Stay = layout.Without(left.Stay, []authzv1.Role{r})
	}
	if len(left.Stay) == 0 {
		return left, m.forgetAll()
	}
	// What stays may have to know: a meshproxy that lost its agent opens the session itself.
	var back undo
	changed, err := m.reshape(left.Stay, left.Stay, &back)
	if err != nil {
		return left, err
	}
	return left, m.restart(ctx, changed)
}

// leaveOrder: containers, then what they were on, then the rest; the gateway last, because the cluster may be asked by it.
func leaveOrder(roles []authzv1.Role) []authzv1.Role {
	node := resetOrder(roles)
	return append(node, layout.Without(layout.Sorted(roles), node)...)
}

// leaveRole drains, stops, and cleans up. A control process is removed from the cluster before it stops: a store that is
// stopped first may take the quorum with it that its removal needs. A node's process is removed after: it is no member that
// others dial, and what it has made must be gone first.
func (m *Machine) leaveRole(ctx context.Context, req Leave, role authzv1.Role) (warnings []string, err error) {
	member := identity.RoleName(role) + "/" + m.ID()
	control, gone := layout.IsControl(role), false
	if req.Cluster != nil {
		m.Tell("draining " + identity.RoleName(role))
		if gone, err = m.release(ctx, req, control, member); err != nil {
			return nil, err
		}
	}
	m.Tell("stopping " + layout.Unit(role))
	if err := m.stop(ctx, []authzv1.Role{role}); err != nil && !req.Force {
		return nil, fmt.Errorf("stop %s: %w", layout.Unit(role), err)
	}
	warnings, err = m.resetAll(ctx, []authzv1.Role{role}, req.Force)
	if err != nil {
		return nil, err
	}
	if req.Cluster != nil && !control {
		err := req.Cluster.Remove(ctx, member, true)
		if gone = err == nil || errs.KindOf(err) == errs.NotFound; !gone {
			warnings = append(warnings, fmt.Sprintf("the cluster still lists it: %s", err))
		}
	}
	return warnings, m.forget(role, !gone)
}

// release lets the cluster let go of a process, and with remove forget it. A refusal leaves it as it was. One that the cluster
// does not have any more is gone: somebody removed it, or an earlier try that was interrupted.
func (m *Machine) release(ctx context.Context, req Leave, remove bool, member string) (gone bool, err error) {
	fault := req.Cluster.Drain(ctx, member)
	if remove && (fault == nil || req.Force && ctx.Err() == nil) {
		if fault != nil {
			m.Tell("going on by force: " + fault.Error())
		}
		if fault = req.Cluster.Remove(ctx, member, req.Force); fault == nil {
			return true, nil
		}
	}
	switch {
	case fault == nil:
		return false, nil
	case errs.KindOf(fault) == errs.NotFound:
		return true, nil
	case req.Force && ctx.Err() == nil:
		m.Tell("going on by force: " + fault.Error())
		return false, nil
	}
	// A person who pressed Ctrl-C wants the process back at work, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := req.Cluster.Activate(ctx, member); err != nil {
		return false, fmt.Errorf("%w; and it could not be made active again: %w; `shoal member activate %s` does", fault, err, member)
	}
	return false, fault
}

// forget removes a process's files. While the cluster knows the process by its key, that stays as the next one: when the
// machine asks for the role again, it proves itself with it.
func (m *Machine) forget(role authzv1.Role, known bool) error {
	key, err := m.Env.Files.Read(path.Join(m.layout().Identity(role), identity.KeyFile))
	keep := err == nil && known
	if err := m.clear(m.folder(role)); err != nil {
		return err
	}
	if keep {
		next := path.Join(m.layout().Identity(role), identity.NextKeyFile)
		if err := m.Env.Files.Write(next, key, 0o600); err != nil {
			return errs.New(errs.Unavailable, "write %s: %w", next, err)
		}
	}
	if err := m.Env.Files.Remove(m.config(role)); err != nil {
		return errs.New(errs.Unavailable, "remove %s: %w", m.config(role), err)
	}
	return nil
}
