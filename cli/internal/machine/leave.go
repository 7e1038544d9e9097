package machine

import (
	"context"
	"fmt"
	"slices"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// Left is a leave that is done.
type Left struct {
	// Machine is the id that this machine had.
	Machine string
	// Manager says that it was one.
	Manager bool
	// Warnings tell what could not be cleaned up.
	Warnings []string
}

// Leave takes this machine out of its cluster: processes, containers, kernel tables, certificates and configuration go. The
// cluster still lists the machine, as down, until somebody removes it.
//
// The machine's id goes, too. Nobody can prove it without the keys, and one that was removed is refused for as long as its
// certificates might be in other hands: kept, it would keep this machine out of the cluster that it has just left.
func (m *Machine) Leave(ctx context.Context, force bool) (Left, error) {
	roles := m.roles()
	left := Left{Machine: m.ID(), Manager: slices.Contains(roles, authzv1.Role_ROLE_STORE)}
	// Step 1: is it wanted, and allowed?
	if len(roles) == 0 && !force {
		return left, errs.New(errs.Precondition, "This node is not part of a cluster.")
	}
	if !m.Host.Privileged() {
		return left, errs.New(errs.Denied, "this takes root; run the command with sudo")
	}
	if left.Manager && !force {
		return left, errs.New(errs.Precondition, "You are attempting to leave the cluster on a node that is participating as a manager. "+
			"Removing the last manager erases all current state of the cluster. With several, run `shoal node rm --force` for this node on another manager afterwards. "+
			"Use `--force` to ignore this message.")
	}
	// Step 2: the processes, so that none brings back what goes next.
	m.Tell("stopping the processes")
	if len(roles) == 0 {
		roles = managerRoles()
	}
	if err := m.stop(ctx, roles); err != nil && !force {
		return left, fmt.Errorf("stop the processes: %w", err)
	}
	// Step 3: what they have made outside their folders, while their configuration is still there.
	for _, r := range resetOrder() {
		if err := m.reset(ctx, r); err != nil {
			if !force {
				return left, fmt.Errorf("%w; `shoal leave --force` leaves nevertheless", err)
			}
			left.Warnings = append(left.Warnings, err.Error())
		}
	}
	// Step 4: who it was.
	if err := m.removeFolders(); err != nil {
		return left, errs.New(errs.Unavailable, "remove the processes' folders: %w", err)
	}
	for _, r := range managerRoles() {
		if err := m.Env.Files.Remove(m.config(r)); err != nil {
			return left, errs.New(errs.Unavailable, "remove %s: %w", m.config(r), err)
		}
	}
	if err := m.Env.Files.Remove(m.idFile()); err != nil {
		return left, errs.New(errs.Unavailable, "remove %s: %w", m.idFile(), err)
	}
	return left, nil
}

// reset lets a node's process remove its containers, interfaces and rules.
func (m *Machine) reset(ctx context.Context, role authzv1.Role) error {
	if !m.exists(m.config(role)) {
		return nil // it never ran here
	}
	program, err := m.Programs.Find(unit(role))
	if err != nil {
		return fmt.Errorf("%s reset: %w", unit(role), err)
	}
	m.Tell("removing what " + unit(role) + " has made")
	if _, err := m.Programs.Run(ctx, program, "reset"); err != nil {
		return fmt.Errorf("%s reset: %w", unit(role), err)
	}
	return nil
}
