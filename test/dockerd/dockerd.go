// Package dockerd gives tests a private Docker Engine: Debian's dockerd on a bare host of the laboratory, with that
// host's own containerd, folders, socket and network. Its containers, mounts, control groups and firewall rules live and
// die with the host, so nothing of it touches the machine outside, also not after a crash.
//
// The host sees the machine's file system (but its own /etc/shoal, /etc/containerd, /var/lib/shoal, /var/lib/containerd,
// /var/lib/docker, /var/log, /run and /root), so a folder of the machine can be bound into a container. The host's
// containerd trusts the laboratory's registry with the test images, and so does dockerd.
//
// A Daemon is safe for concurrent use, but for Restart, PowerCycle and Close.
package dockerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalproject/shoal/test/harness"
	"github.com/shoalproject/shoal/test/harness/enter"
)

// bootLimit is how long dockerd may take until it answers.
const bootLimit = 60 * time.Second

// outerSocket is in a folder of the host that is one of the machine outside, too: its /run is not, which is in memory.
const outerSocket = "root/docker.sock"

// Daemon is a running dockerd.
type Daemon struct {
	lab  *harness.Lab
	host string
	own  bool   // the lab is this daemon's alone
	net  string // the file of the host's network namespace since its last boot
}

// Start makes a lab with one bare host in a folder that does not exist yet, with a dockerd on it. The folder must be on
// a real file system such as ext4, with a short name: its sockets' names are bounded. Close removes all of it.
func Start(ctx context.Context, dir string) (*Daemon, error) {
	lab, err := harness.Up(ctx, harness.Options{Dir: dir, Workers: 1, NoInit: true, Program: os.Getenv("SHOAL_LAB_PROGRAM")})
	if err != nil {
		return nil, err
	}
	d := &Daemon{lab: lab, host: "w1", own: true}
	if err := d.boot(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// On starts a dockerd on a host of a lab that the caller has made, for tests with several machines.
func On(ctx context.Context, lab *harness.Lab, host string) (*Daemon, error) {
	d := &Daemon{lab: lab, host: host}
	return d, d.boot(ctx)
}

// boot starts dockerd and returns when it answers. It is no unit of the host's init: a test says when it runs.
func (d *Daemon) boot(ctx context.Context) error {
	if _, err := exec.LookPath("dockerd"); err != nil {
		return errors.New("dockerd is missing; on Debian: tools/make/deps deploy")
	}
	registry, err := d.lab.Registry()
	if err != nil {
		return err
	}
	// Mounts are shared, as systemd has them: a container may then be given some that the machine sees, too. The second socket is for
	// the machine outside.
	const start = `set -e
mount --make-rshared /
mkdir -p /etc/docker/certs.d/%[1]s
cp /etc/containerd/certs.d/%[1]s/ca.crt /etc/docker/certs.d/%[1]s/
setsid dockerd --containerd /run/containerd/containerd.sock --data-root /var/lib/docker --exec-root /run/docker \
	--storage-driver overlay2 --host unix:///run/docker.sock --host unix:///%[2]s >>/var/log/dockerd.log 2>&1 </dev/null &`
	if _, err := d.Run(ctx, d.host, fmt.Sprintf(start, registry, outerSocket)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := d.Docker(ctx, "version")
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("dockerd does not answer: %w; its log ends:\n%s", err, d.logTail())
		case <-tick.C:
		}
	}
	pid, err := d.lab.PID(ctx, d.host, "containerd")
	d.net = fmt.Sprintf("/proc/%d/ns/net", pid)
	return err
}

func (d *Daemon) logTail() string {
	text, err := os.ReadFile(d.path("var/log/dockerd.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// path is where a path of the host's own folders lies on the machine outside.
func (d *Daemon) path(inside string) string {
	return filepath.Join(d.lab.Dir(), "hosts", d.host, inside)
}

// Host is the daemon's address as DOCKER_HOST wants it, usable from the machine outside.
func (d *Daemon) Host() string { return "unix://" + d.path(outerSocket) }

// Env is what a docker or compose command needs to find the daemon, and no other.
func (d *Daemon) Env() []string {
	return []string{"DOCKER_HOST=" + d.Host(), "DOCKER_CONFIG=" + d.path("root/.docker"), "DOCKER_CONTEXT=default"}
}

// Lab is the laboratory that the host belongs to, for its registry, addresses and network faults.
func (d *Daemon) Lab() *harness.Lab { return d.lab }

// Machine is the host's name in the laboratory.
func (d *Daemon) Machine() string { return d.host }

// Address is the host's IPv4 address, reached from the machine outside.
func (d *Daemon) Address() (string, error) { return d.lab.Address(d.host) }

// Docker runs a docker command and returns what it printed, without the last line's end. An exit code other than 0 is an
// error that holds what it said.
func (d *Daemon) Docker(ctx context.Context, args ...string) (string, error) {
	return d.Pipe(ctx, nil, args...)
}

// Pipe is Docker with something to read.
func (d *Daemon) Pipe(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "docker", args...)
	command.Env = append(os.Environ(), d.Env()...)
	command.Stdin = stdin
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	command.WaitDelay = 2 * time.Second
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("docker %s: %w: %s%s", args[0], err, stdout.Bytes(), stderr.Bytes())
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// Pull takes one of the laboratory's test images, micro:TAG, into the daemon and returns its name there.
func (d *Daemon) Pull(ctx context.Context, tag string) (string, error) {
	registry, err := d.lab.Registry()
	if err != nil {
		return "", err
	}
	image := registry + "/micro:" + tag
	_, err = d.Docker(ctx, "pull", "--quiet", image)
	return image, err
}

// Run runs a shell script on a host of the daemon's lab and returns what it printed, outputs in one. An exit code other
// than 0 is an error that holds it, too.
func (d *Daemon) Run(ctx context.Context, host, script string) (string, error) {
	stdout, stderr, code, err := d.lab.Exec(ctx, host, "bash", "-c", script)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d on %s: %s\n%s%s", code, host, script, stdout, stderr)
	}
	return stdout + stderr, err
}

// Dial connects to an address as the host sees it, for example to one of a container. The address must be a literal.
func (d *Daemon) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := enter.Net(d.net, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
