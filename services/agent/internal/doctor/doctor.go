// Package doctor looks whether this machine can run containers for us: containerd and its parts, runc, control groups, the
// kernel's filter of system calls, user namespaces.
//
// It is what `shoal-agent doctor` prints and `shoal doctor`, `init` and `join` ask for. It changes nothing, and keeps nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/services/agent/internal/disk"
	"github.com/shoalproject/shoal/services/agent/internal/system"
)

const (
	// answer is how long containerd may take: it is local.
	answer = 5 * time.Second
	// oldest is the oldest containerd that this was made with (Debian 12's).
	oldest = "1.6"
	shim   = "containerd-shim-runc-v2"
)

// Machine says where to look.
type Machine struct {
	// Socket is containerd's.
	Socket string
	// Namespace is ours in containerd, RunDir where the agent keeps the containers' network namespaces.
	Namespace, RunDir string
	// Snapshotter is the one that containers' file systems are on.
	Snapshotter string
	// Data is the folder of what the agent keeps.
	Data string
	// Volumes is the folder of volumes, IDs what containers with user namespaces of their own get.
	Volumes string
	IDs     IDs
	// ImagesHigh is how full the disk is, in percent, from which on unused images go; 0: never.
	ImagesHigh int64
	// Now is the wall time of the look.
	Now time.Time
}

// Look makes all checks.
func (m Machine) Look(ctx context.Context) []finding.Finding {
	found := m.containerd(ctx)
	return append(found, m.room("data", m.Data), runc(ctx), cgroups("/sys/fs/cgroup"), seccomp(), m.users("/etc"))
}

func (m Machine) containerd(ctx context.Context) []finding.Finding {
	const check = "containerd"
	if _, err := os.Stat(m.Socket); err != nil {
		return []finding.Finding{finding.Faulty(check, "there is no socket "+m.Socket, "", "install containerd and start it: `systemctl enable --now containerd`")}
	}
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	client, err := containerd.New(m.Socket, containerd.WithTimeout(answer))
	if err != nil {
		return []finding.Finding{m.silent(err)}
	}
	defer client.Close()
	version, err := client.Version(ctx)
	if err != nil {
		return []finding.Finding{m.silent(err)}
	}
	number := strings.TrimPrefix(version.Version, "v")
	found := []finding.Finding{finding.Well(check, "version %s at %s", number, m.Socket)}
	if older(number, oldest) {
		found[0] = finding.Warned(check, "version "+number, "shoal is tested with "+oldest+" and later", "install a newer one")
	}
	resp, err := client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return append(found, m.silent(err))
	}
	found = append(found, snapshotter(resp.GetPlugins(), m.Snapshotter))
	for _, p := range resp.GetPlugins() {
		if p.GetID() == m.Snapshotter && p.GetExports()["root"] != "" {
			found = append(found, m.room("images", p.GetExports()["root"]))
		}
	}
	return append(found, m.addresses(ctx, client))
}

// room looks at the file system of a folder, or of what it will be in.
func (m Machine) room(what, folder string) finding.Finding {
	check := "disk of " + what
	u, err := system.Room(folder)
	for errors.Is(err, fs.ErrNotExist) && folder != filepath.Dir(folder) {
		folder = filepath.Dir(folder)
		u, err = system.Room(folder)
	}
	if err != nil {
		return finding.Warned(check, fmt.Sprintf("%s can't be looked at: %s", folder, err), "", "")
	}
	state := fmt.Sprintf("%s is %d %% full, %d MB are free", folder, u.Percent(), u.Free/1e6)
	switch {
	case u.Percent() >= disk.Full:
		return finding.Faulty(check, state, "pulls, logs and what containers write fail when it is full",
			"`du -xh --max-depth=3 "+folder+"` says what is there; make it larger, or remove what nobody needs (`shoal volume ls`, `ctr -n shoal images ls`)")
	case m.ImagesHigh > 0 && u.Percent() >= m.ImagesHigh && what == "images":
		return finding.Warned(check, state, "unused images are removed, and pulled again when they are needed", "make it larger, or raise `images_high` in agent.yaml")
	}
	return finding.Well(check, "%s", state)
}

func (m Machine) silent(err error) finding.Finding {
	return finding.Faulty("containerd", fmt.Sprintf("it does not answer at %s: %s", m.Socket, err), "", "`systemctl status containerd` and `journalctl -u containerd` say why")
}

// snapshotter: containerd has tried it when it started, and says what the kernel or the disk lack.
func snapshotter(plugins []*introspection.Plugin, wanted string) finding.Finding {
	var there []string
	for _, p := range plugins {
		if p.GetInitErr() == nil {
			there = append(there, p.GetID())
		}
		if p.GetID() != wanted {
			continue
		}
		if p.GetInitErr() == nil {
			return finding.Well(wanted, "containerd has the snapshotter")
		}
		return finding.Faulty(wanted, "containerd's snapshotter does not work: "+p.GetInitErr().GetMessage(), "containers have no file system without it",
			"`modprobe overlay`, or another `snapshotter` in agent.yaml, or a file system below /var/lib/containerd that can carry it; then restart containerd")
	}
	slices.Sort(there)
	return finding.Faulty(wanted, "containerd has no such snapshotter, but "+strings.Join(there, ", "), "", "set `snapshotter` in agent.yaml to one of these")
}

// older compares major and minor numbers.
func older(have, least string) bool {
	var h, l [2]int
	if n, _ := fmt.Sscanf(have, "%d.%d", &h[0], &h[1]); n != 2 {
		return false // a build without a number is somebody's own
	}
	_, _ = fmt.Sscanf(least, "%d.%d", &l[0], &l[1]) // our own constant
	return slices.Compare(h[:], l[:]) < 0
}

func runc(ctx context.Context) finding.Finding {
	const check = "runc"
	var missing []string
	for _, name := range []string{"runc", shim} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return finding.Faulty(check, "there is no "+strings.Join(missing, " and no ")+" on the PATH", "containerd starts containers with it", "apt-get install runc containerd")
	}
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	out, err := exec.CommandContext(ctx, "runc", "--version").Output()
	if err != nil {
		return finding.Faulty(check, "`runc --version` failed: "+err.Error(), "containerd starts containers with it", "install it again")
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return finding.Well(check, "%s", strings.TrimPrefix(first, "runc "))
}

// cgroups: limits are kept by controllers. A machine without them runs containers, but does not bound them.
func cgroups(root string) finding.Finding {
	const check = "cgroups"
	wanted := []string{"cpu", "memory", "pids"}
	version := "2"
	have, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	controllers := strings.Fields(string(have))
	if errors.Is(err, os.ErrNotExist) {
		version, controllers = "1", nil
		for _, c := range wanted {
			if _, err := os.Stat(filepath.Join(root, c, "tasks")); err == nil {
				controllers = append(controllers, c)
			}
		}
	}
	missing := slices.DeleteFunc(slices.Clone(wanted), func(c string) bool { return slices.Contains(controllers, c) })
	switch {
	case len(missing) == len(wanted):
		return finding.Faulty(check, "no controller of "+strings.Join(wanted, ", ")+" is at "+root, "runc can't make containers without control groups",
			"mount them: systemd does at boot")
	case len(missing) > 0:
		return finding.Warned(check, "version "+version+", without "+strings.Join(missing, ", "), "limits of that kind are not kept",
			"boot with cgroup_enable="+missing[0])
	}
	return finding.Well(check, "version %s with %s", version, strings.Join(wanted, ", "))
}

// seccomp (prctl(2), PR_GET_SECCOMP): without it runc refuses a profile, so containers run without one.
func seccomp() finding.Finding {
	if _, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); errors.Is(err, unix.EINVAL) {
		return finding.Warned("seccomp", "the kernel filters no system calls", "containers may make all of them", "use a kernel with CONFIG_SECCOMP_FILTER")
	}
	return finding.Well("seccomp", "the kernel filters system calls")
}
