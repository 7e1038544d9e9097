// Package doctor looks at a machine: whether shoal's processes can run on it, and whether those that do are well. Each check
// yields findings that say what is there, why it matters and which command mends it.
//
// `shoal doctor` makes all checks; `shoal init` and `shoal join` make those that must hold before anything is changed, by the
// same code, and a join, once the machine has been let in, those of the ways to the others. It changes nothing but a config file that it writes beside a person's own to have it checked, and removes
// again. What only shoal-agent and shoal-meshproxy may look at (containerd, the kernel's tables) it asks their programs.
// A Doctor is safe for concurrent use.
package doctor

import (
	"context"
	"net/netip"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// Programs runs other programs of the machine.
type Programs interface {
	// Find returns the path of a program of ours, or of the machine's.
	Find(name string) (string, error)
	// Run waits for a program and returns what it printed; an exit code other than 0 is an error with what it said.
	Run(ctx context.Context, name string, args ...string) (string, error)
}

// System is what is asked of the operating system.
type System interface {
	// Privileged says whether this is root.
	Privileged() bool
	// Addresses are those of the machine's interfaces.
	Addresses() ([]netip.Addr, error)
	// Space is what is left on the file system that holds a path, or would hold it.
	Space(path string) (Space, error)
	// OpenFiles is how many files a process may have open at most.
	OpenFiles() (uint64, error)
	// Lookup finds the addresses of a host's name.
	Lookup(ctx context.Context, host string) ([]string, error)
}

// Space is what is left of a file system.
type Space struct{ Bytes, Files uint64 }

// Accounts are the machine's users, and whose a file is.
type Accounts interface {
	// Account finds a user; ok is false when the machine has none of that name.
	Account(user string) (uid, gid int, ok bool)
	// Owner is whose a file or folder is.
	Owner(path string) (uid, gid int, err error)
}

// Doctor looks at one machine.
type Doctor struct {
	Env      run.Env
	Programs Programs
	System   System
	Accounts Accounts
	Layout   layout.Layout
}

// Patient is what is looked at.
type Patient struct {
	// Roles are the processes that run here, or shall run.
	Roles []authzv1.Role
	// Advertise and Listen are where they are reached, as `shoal init` takes them.
	Advertise []string
	Listen    string
	// Configs are config files as they are going to be, by role, for those that a person has begun.
	Configs map[authzv1.Role][]byte
	// Elsewhere says that the processes are not started here by the init system: in containers, say. What concerns only a
	// machine that starts them is left out.
	Elsewhere bool
	// DataPort is the UDP port of the networks between machines; 0: not known yet, and probably the default.
	DataPort int
	// Machine is this machine's id, of which Ways leaves out the processes.
	Machine string
}

// check is one look. It returns nothing when there is nothing to look at.
type check func(ctx context.Context, p Patient) []finding.Finding

// Preflight makes the checks that must hold before the roles are set up here.
func (d *Doctor) Preflight(ctx context.Context, p Patient) []finding.Finding {
	checks := []check{
		d.privilege, d.initSystem, d.programs, d.versions, d.containers, d.kernel, d.place, d.freePorts, d.freeDataPort, d.disk, d.openFiles,
		d.nextConfigs, d.keyModes,
	}
	if p.Elsewhere {
		checks = []check{d.words, d.freePorts, d.disk, d.keyModes} // the ports are this machine's if the address is
	}
	return d.all(ctx, p, checks)
}

// Ways makes the checks for which a machine must have been let in: the clock, and whether the members are found and reached
// without which the roles that come to it can't work. What they can begin without is a warning.
func (d *Doctor) Ways(ctx context.Context, p Patient) []finding.Finding {
	return d.all(ctx, p, []check{d.clock, d.waysNames, d.waysReach})
}

// Examine makes all checks on a machine whose roles are set up, or, without roles, on one that might become one.
func (d *Doctor) Examine(ctx context.Context, p Patient) []finding.Finding {
	checks := []check{
		d.privilege, d.initSystem, d.programs, d.versions, d.containers, d.kernel, d.place, d.ports, d.disk, d.openFiles,
		d.names, d.configs, d.keyModes, d.owners, d.clock, d.reach, d.units,
	}
	return d.all(ctx, p, checks)
}

// all makes the checks side by side; the findings keep the checks' order.
func (d *Doctor) all(ctx context.Context, p Patient, checks []check) []finding.Finding {
	found := make([][]finding.Finding, len(checks))
	places := make([]int, len(checks))
	for i := range places {
		places[i] = i
	}
	err := run.Each(ctx, 0, places, func(ctx context.Context, i int) error {
		found[i] = checks[i](ctx, p)
		return nil
	})
	var out []finding.Finding
	for _, f := range found {
		out = append(out, f...)
	}
	if err != nil { // a check that broke must not look like one that found nothing
		out = append(out, finding.Faulty("doctor", err.Error(), "a check could not be made", "report it"))
	}
	return out
}
