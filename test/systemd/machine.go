package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	imageName = "shoal-test/debian"
	bootLimit = 60 * time.Second
	stopLimit = "60" // seconds that a machine's shutdown may take
)

// create makes a machine that is off. What it may beyond an ordinary container:
//   - SYS_ADMIN: systemd and runc mount and make namespaces.
//   - NET_ADMIN: our agent and meshproxy make interfaces, routes, tables.
//   - SYS_PTRACE: systemd makes user namespaces under a /proc that hides the processes of others.
//   - no filter of system calls, and a writable /proc/sys, as a machine has.
//
// containerd's and shoal's data are volumes, because an overlay cannot lie on the overlay that is a container's root.
func (m *Machines) create(ctx context.Context, name string, ipv6 bool) error {
	args := []string{
		"create", "--name", name, "--hostname", name, "--network", network, "--ip", m.Address(name),
		"--stop-signal", "SIGRTMIN+3", // by which systemd shuts down
		"--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE",
		"--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
		"--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw",
		"--tmpfs", "/run:exec", "--tmpfs", "/tmp:exec",
		"--volume", name + "-containerd:/var/lib/containerd", "--volume", name + "-shoal:/var/lib/shoal",
		"--volume", m.debian + ":/srv/debian:ro", "--volume", m.repository + ":/srv/shoal:ro",
	}
	if ipv6 { // dockerd switches it off else, on a network without IPv6 addresses
		args = append(args, "--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--sysctl", "net.ipv6.conf.default.disable_ipv6=0")
	}
	for _, peer := range m.names {
		args = append(args, "--add-host", peer+":"+m.Address(peer))
	}
	if _, err := m.daemon.Docker(ctx, append(args, imageName)...); err != nil {
		return fmt.Errorf("make machine %s: %w", name, err)
	}
	// Trust in the laboratory's registry, where containerd's clients look for it.
	trust := filepath.Join(m.daemon.Lab().Dir(), "hosts", m.daemon.Machine(), "etc/containerd/certs.d")
	_, err := m.daemon.Docker(ctx, "cp", trust, name+":/etc/containerd/")
	return err
}

// PowerOn boots a machine and returns when systemd says that it runs.
func (m *Machines) PowerOn(ctx context.Context, name string) error {
	if _, err := m.daemon.Docker(ctx, "start", name); err != nil {
		return err
	}
	return m.booted(ctx, name)
}

// PowerOff cuts a machine's power: everything on it dies at once.
func (m *Machines) PowerOff(ctx context.Context, name string) error {
	_, err := m.daemon.Docker(ctx, "kill", name)
	return err
}

// Reboot shuts a machine down by its systemd and boots it.
func (m *Machines) Reboot(ctx context.Context, name string) error {
	if _, err := m.daemon.Docker(ctx, "restart", "--time", stopLimit, name); err != nil {
		return err
	}
	return m.booted(ctx, name)
}

// booted waits until systemd has started everything; a unit that failed is an error.
func (m *Machines) booted(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		said, err := m.Run(ctx, name, "systemctl is-system-running --wait || { systemctl --failed --no-legend --plain; false; }")
		if err == nil {
			return nil
		}
		if strings.Contains(said, "degraded") {
			return fmt.Errorf("machine %s has booted with failed units: %s", name, said)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("machine %s does not boot: %w", name, err)
		case <-tick.C:
		}
	}
}

// Run runs a shell script as root on a machine, as at its console, or on the host of the machines (Outside), and returns
// what it printed, outputs in one, without the last line's end. An exit code other than 0 is an error that holds it, too.
func (m *Machines) Run(ctx context.Context, name, script string) (string, error) {
	stdout, stderr, err := m.run(ctx, name, script)
	said := strings.TrimSuffix(stdout+stderr, "\n")
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("on %s: %w: %s\n%s", name, err, script, said)
	}
	return said, err
}

func (m *Machines) run(ctx context.Context, name, script string) (stdout, stderr string, err error) {
	if name == Outside {
		stdout, err = m.daemon.Run(ctx, m.daemon.Machine(), script)
		return stdout, "", err
	}
	args := []string{"exec", name}
	// A docker command that is killed leaves what it has started in the container: that ends itself a moment earlier.
	if deadline, ok := ctx.Deadline(); ok {
		args = append(args, "timeout", "--kill-after=1", fmt.Sprintf("%.1f", max(time.Until(deadline).Seconds(), 0.1)))
	}
	command := exec.CommandContext(ctx, "docker", append(args, "bash", "-c", script)...)
	command.Env = append(os.Environ(), m.daemon.Env()...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	command.WaitDelay = 2 * time.Second
	err = command.Run()
	return out.String(), said.String(), err
}
