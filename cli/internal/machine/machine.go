// Package machine is what `shoal init`, `join`, `leave` and `node reset` do on the machine that they run on: look before they
// leap, write files, start units, wait until the machine is ready, and take back all of it when a step fails.
//
// It must never leave a machine half in a cluster: whatever it makes it notes first, and a failure, or the person's
// Ctrl-C, undoes it in reverse. It never signs and never decides: `shoal-ca bootstrap` and a CA do. A Machine serves one
// command at a time.
package machine

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/doctor"
	"github.com/shoalproject/shoal/cli/internal/layout"
)

// Programs runs other programs of the machine.
type Programs = doctor.Programs

// Host is what else is asked of the machine.
type Host interface {
	doctor.System
	doctor.Accounts
	// Source is the machine's own address on the way to host:port.
	Source(ctx context.Context, hostport string) (netip.Addr, error)
	// Folder makes a folder, unless it is there, and says whether it did.
	Folder(path string, mode fs.FileMode) (made bool, err error)
	// Give makes a file, or a folder and all below it, a user's and a group's.
	Give(path string, uid, gid int) error
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

// Start says who starts the processes.
type Start string

// The ways to start. None writes the files alone: containers, or a person, run the processes.
const (
	StartUnits Start = "units"
	StartNone  Start = "none"
)

func (m *Machine) layout() layout.Layout { return layout.Layout{Root: m.Root} }

// config is a process's configuration file, folder its data folder.
func (m *Machine) config(role authzv1.Role) string { return m.layout().Config(role) }
func (m *Machine) folder(role authzv1.Role) string { return m.layout().Folder(role) }

// ID is this machine's id; empty when it has none.
func (m *Machine) ID() string {
	data, err := m.Env.Files.Read(m.layout().MachineID())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// ClusterID is the cluster that this machine's certificates are of; empty when it has none that can be read.
func (m *Machine) ClusterID() string {
	for _, r := range m.certified() {
		data, err := m.Env.Files.Read(path.Join(m.layout().Identity(r), identity.CertFile))
		if err != nil {
			continue
		}
		chain, err := identity.DecodeCertificates(data)
		if err != nil || len(chain) == 0 {
			continue
		}
		if id, err := identity.OfCertificate(chain[0]); err == nil {
			return id.Cluster
		}
	}
	return ""
}

// Roles are the processes that are set up here: they have a certificate and a configuration.
func (m *Machine) Roles() []authzv1.Role {
	return slices.DeleteFunc(m.certified(), func(r authzv1.Role) bool { return !m.exists(m.config(r)) })
}

// certified are those of which the machine has a certificate; a join that failed leaves one without a configuration.
func (m *Machine) certified() []authzv1.Role {
	return slices.DeleteFunc(layout.All(), func(r authzv1.Role) bool {
		return !m.exists(path.Join(m.layout().Identity(r), identity.CertFile))
	})
}

// member are the roles that this machine has in a cluster: their units start at boot. One with certificates alone is not in
// a cluster but on its way; where nobody starts units, certificates and configuration are all there is to see.
func (m *Machine) member(ctx context.Context, start Start) []authzv1.Role {
	if start == StartNone {
		return m.complete()
	}
	return slices.DeleteFunc(m.certified(), func(r authzv1.Role) bool {
		_, err := m.Programs.Run(ctx, "systemctl", "is-enabled", "--quiet", layout.Unit(r))
		return err != nil
	})
}

// refuseMember says no on a machine that is in a cluster.
func refuseMember(has []authzv1.Role) error {
	if len(has) > 0 {
		return errs.New(errs.Precondition, "This node is already part of a cluster. Use \"shoal leave\" to leave this cluster and join another one.")
	}
	return nil
}

func (m *Machine) exists(name string) bool {
	_, err := m.Env.Files.Stat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// folders makes the folders that all processes share, which all of them may enter.
func (m *Machine) folders(back *undo) error {
	for _, dir := range []string{layout.ConfigDir, layout.DataDir} {
		name := m.layout().Path(dir)
		made, err := m.Host.Folder(name, sharedMode)
		if err != nil {
			return errs.New(errs.Unavailable, "make %s: %w", name, err)
		}
		if made {
			back.add("remove "+name, func(context.Context) error {
				if names, err := m.Env.Files.List(name); err != nil || len(names) > 0 {
					return err // keys for the next try are in it
				}
				return m.Env.Files.Remove(name)
			})
		}
	}
	return nil
}

const sharedMode = fs.FileMode(0o755)

// own gives each process's files to the user that it runs as, where the machine has one of that name. The configuration
// stays root's: a process reads it and never writes it.
func (m *Machine) own(roles []authzv1.Role) error {
	for _, r := range roles {
		uid, gid, ok := m.Host.Account(layout.Unit(r))
		if !ok {
			continue
		}
		if err := m.Host.Give(m.folder(r), uid, gid); err != nil {
			return errs.New(errs.Unavailable, "give %s to user %s: %w", m.folder(r), layout.Unit(r), err)
		}
		if err := m.Host.Give(m.config(r), 0, gid); err != nil {
			return errs.New(errs.Unavailable, "give %s to group %s: %w", m.config(r), layout.Unit(r), err)
		}
	}
	return nil
}
