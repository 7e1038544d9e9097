package machine

import (
	"context"
	"fmt"
	"path"
	"slices"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// Reset is a machine that was taken back.
type Reset struct {
	// Removed are what went: units, files, and what the programs say of containers and tables.
	Removed []string
	// Faults are what could not be removed.
	Faults []error
}

// Remains are what of shoal is on this machine: what Reset would remove.
func (m *Machine) Remains(ctx context.Context) []string {
	var out []string
	for _, r := range layout.All() {
		if m.running(ctx, r) {
			out = append(out, "unit "+layout.Unit(r))
		}
	}
	for _, name := range m.owned() {
		if m.exists(name) {
			out = append(out, name)
		}
	}
	return out
}

// owned are all files and folders of ours, the processes' own first.
func (m *Machine) owned() []string {
	var out []string
	for _, r := range layout.All() {
		out = append(out, m.config(r), m.folder(r))
	}
	// The folder itself may be the package's.
	run := m.layout().Path(layout.RunDir)
	if names, err := m.Env.Files.List(run); err == nil {
		for _, n := range names {
			out = append(out, path.Join(run, n))
		}
	}
	return append(out, m.unfinishedFile(), m.layout().MachineID())
}

// running says that a unit runs or starts at boot.
func (m *Machine) running(ctx context.Context, role authzv1.Role) bool {
	return slices.ContainsFunc([]string{"is-active", "is-enabled"}, func(verb string) bool {
		_, err := m.Programs.Run(ctx, "systemctl", verb, "--quiet", layout.Unit(role))
		return err == nil
	})
}

// Reset takes this machine back to bare, without the cluster and whatever state it is in: units, containers, interfaces and
// rules, files. It goes on where something can't be removed, and tells all of that.
func (m *Machine) Reset(ctx context.Context) (Reset, error) {
	var done Reset
	if !m.Host.Privileged() {
		return done, errs.New(errs.Denied, "this takes root; run the command with sudo")
	}
	note := func(what string, err error) {
		if err != nil {
			done.Faults = append(done.Faults, fmt.Errorf("%s: %w", what, err))
			return
		}
		done.Removed = append(done.Removed, what)
	}
	// Step 1: the processes, so that none brings back what goes next.
	for _, r := range slices.Backward(layout.All()) {
		if m.running(ctx, r) {
			note("unit "+layout.Unit(r), m.stop(ctx, []authzv1.Role{r}))
		}
	}
	// Step 2: what they have made. Their programs find it without configuration and identity, too.
	for _, r := range resetOrder(layout.All()) {
		if _, err := m.Programs.Find(layout.Unit(r)); err != nil && !m.exists(m.folder(r)) {
			continue // it never was here
		}
		var args []string
		if r == authzv1.Role_ROLE_AGENT {
			args = []string{"-any"} // of whatever cluster; tables have no cluster
		}
		note(made(r), m.mustReset(ctx, r, args...))
	}
	// Step 3: the files.
	for _, name := range m.owned() {
		if m.exists(name) {
			note(name, m.clear(name))
		}
	}
	return done, nil
}

func made(role authzv1.Role) string {
	if role == authzv1.Role_ROLE_AGENT {
		return "containers and their networks"
	}
	return "interfaces, routes and rules"
}
