// Package machine is what `shoal init`, `join` and `leave` do on the machine that they run on: look before they leap, write
// files, start units, wait until the machine is ready, and take back all of it when a step fails.
//
// It must never leave a machine half in a cluster: whatever it makes it notes first, and a failure, or the person's
// Ctrl-C, undoes it in reverse. It never signs and never decides: `shoal-ca bootstrap` and a CA do. A Machine serves one
// command at a time.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// Where things are on a machine, below Machine.Root.
const (
	configDir  = "/etc/shoal"
	dataDir    = enroll.DefaultRoot
	containerd = "/run/containerd/containerd.sock"
)

// Programs runs other programs of the machine.
type Programs interface {
	// Find returns the path of a program of ours, or of the machine's.
	Find(name string) (string, error)
	// Run waits for a program and returns what it printed; an exit code other than 0 is an error with what it said.
	Run(ctx context.Context, name string, args ...string) (string, error)
}

// Host is what else is asked of the machine.
type Host interface {
	// Privileged says whether this is root.
	Privileged() bool
	// Addresses are those of the machine's interfaces.
	Addresses() ([]netip.Addr, error)
	// Source is the machine's own address on the way to host:port.
	Source(ctx context.Context, hostport string) (netip.Addr, error)
	// RemoveAll deletes a folder and all below it.
	RemoveAll(path string) error
}

// Machine is the machine that the command runs on.
type Machine struct {
	Env      run.Env
	Programs Programs
	Host     Host
	// Root is put before every path; empty but in tests.
	Root string
	// Tell shows the person what is being done; never nil.
	Tell func(text string)
}

func (m *Machine) path(name string) string { return path.Join(m.Root, name) }

// config is a process's configuration file.
func (m *Machine) config(role authzv1.Role) string {
	return m.path(path.Join(configDir, identity.RoleName(role)+".yaml"))
}

// folder is a process's data folder.
func (m *Machine) folder(role authzv1.Role) string {
	return m.path(path.Join(dataDir, identity.RoleName(role)))
}

// unit is a process's systemd unit.
func unit(role authzv1.Role) string { return "shoal-" + identity.RoleName(role) }

// workerRoles are the processes of every machine that runs containers.
func workerRoles() []authzv1.Role {
	return []authzv1.Role{authzv1.Role_ROLE_MESHPROXY, authzv1.Role_ROLE_AGENT}
}

// managerRoles are the processes of a manager, in the order in which a person reads them.
func managerRoles() []authzv1.Role {
	return append([]authzv1.Role{
		authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_CA, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_GATEWAY,
	}, workerRoles()...)
}

// port is where a process listens; 0: nowhere.
func port(role authzv1.Role) int {
	return map[authzv1.Role]int{
		authzv1.Role_ROLE_CA: 2377, authzv1.Role_ROLE_STORE: 2381, authzv1.Role_ROLE_SCHEDULER: 2382,
		authzv1.Role_ROLE_DISPATCHER: 2383, authzv1.Role_ROLE_GATEWAY: 2384, authzv1.Role_ROLE_MESHPROXY: 2385,
	}[role]
}

func (m *Machine) idFile() string { return m.path(path.Join(dataDir, "machine-id")) }

// ID is this machine's id; empty when it has none.
func (m *Machine) ID() string {
	data, err := m.Env.Files.Read(m.idFile())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// roles are those of which the machine has a certificate.
func (m *Machine) roles() []authzv1.Role {
	var out []authzv1.Role
	for _, r := range managerRoles() {
		if _, err := m.Env.Files.Stat(path.Join(m.folder(r), "identity", identity.CertFile)); err == nil {
			out = append(out, r)
		}
	}
	return out
}

// enabled says that one of the roles' units starts at boot: the machine is in a cluster, and not on its way.
func (m *Machine) enabled(ctx context.Context, roles []authzv1.Role) bool {
	return slices.ContainsFunc(roles, func(r authzv1.Role) bool {
		_, err := m.Programs.Run(ctx, "systemctl", "is-enabled", "--quiet", unit(r))
		return err == nil
	})
}

// refuseMember says no on a machine that is in a cluster.
func (m *Machine) refuseMember(ctx context.Context) error {
	if m.enabled(ctx, m.roles()) {
		return errs.New(errs.Precondition, "This node is already part of a cluster. Use \"shoal leave\" to leave this cluster and join another one.")
	}
	return nil
}

// start enables the units and starts them side by side: each waits for what it needs. It returns when all are ready.
func (m *Machine) start(ctx context.Context, roles []authzv1.Role, back *undo) error {
	var mu sync.Mutex // guards ready
	var ready []authzv1.Role
	// Last first: the processes stop, then what they have made goes, while their configuration is still there.
	back.add("remove what the processes have made", func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return m.unmake(ctx, ready)
	})
	back.add("stop the processes", func(ctx context.Context) error { return m.stop(ctx, roles) })
	if _, err := m.Programs.Run(ctx, "systemctl", append([]string{"enable"}, units(roles)...)...); err != nil {
		return fmt.Errorf("enable the units: %w", err)
	}
	return run.Each(ctx, 0, roles, func(ctx context.Context, r authzv1.Role) error {
		if _, err := m.Programs.Run(ctx, "systemctl", "start", unit(r)); err != nil {
			return fmt.Errorf("start %s: %w", unit(r), err)
		}
		m.Tell(unit(r) + " is ready")
		mu.Lock()
		defer mu.Unlock()
		ready = append(ready, r)
		return nil
	})
}

// unmake removes what the node's processes have made outside their folders. One that was never ready may have made
// something, too; if it can't say, that is no further fault: why it did not start is told already.
func (m *Machine) unmake(ctx context.Context, ready []authzv1.Role) error {
	var faults []error
	for _, r := range resetOrder() {
		if err := m.reset(ctx, r); err != nil && slices.Contains(ready, r) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// resetOrder: containers, then what they were on.
func resetOrder() []authzv1.Role {
	return []authzv1.Role{authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY}
}

// stop disables and stops, nodes' processes first. A unit that is not there is no fault.
func (m *Machine) stop(ctx context.Context, roles []authzv1.Role) error {
	list := units(roles)
	slices.Reverse(list)
	_, err := m.Programs.Run(ctx, "systemctl", append([]string{"disable", "--now"}, list...)...)
	return err
}

func units(roles []authzv1.Role) []string {
	var out []string
	for _, r := range roles {
		out = append(out, unit(r))
	}
	return out
}

func (m *Machine) exists(name string) bool {
	_, err := m.Env.Files.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}
