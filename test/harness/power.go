package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shoalproject/shoal/test/harness/cgroup"
	"github.com/shoalproject/shoal/test/harness/hostinit"
	"github.com/shoalproject/shoal/test/harness/keeper"
)

const endLimit = 15 * time.Second

// errOff is what tells that a host has no init to ask.
var errOff = errors.New("is powered off")

// boot starts a host's keeper and returns when the host's init is there and containerd has started or given up.
func (l *Lab) boot(ctx context.Context, state State, host Host) error {
	order := keeper.Order{
		Machine: l.machine(state, host), Switch: l.lan(), Plugged: !host.Unplugged,
		Group: l.group(host.Name), Record: l.record(host.Name),
	}
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	said, err := l.spawn(ctx, "host-"+host.Name, text, "host-keeper", "--host", host.Name)
	if err != nil {
		return fmt.Errorf("boot host %s: %w", host.Name, err)
	}
	if said != "ok" {
		return fmt.Errorf("boot host %s: %s (more in %s)", host.Name, said, l.path("log", "host-"+host.Name+".log"))
	}
	return nil
}

// spawn starts one of the lab's own long-lived processes in a session of its own, so that it outlives this command,
// and returns the one line (or error text) that it says when it is up.
func (l *Lab) spawn(ctx context.Context, name string, stdin []byte, args ...string) (string, error) {
	log, err := l.openLog(name)
	if err != nil {
		return "", err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer read.Close()
	process := exec.Command(l.program, append(args, "--dir", l.dir)...)
	process.Dir = "/"
	process.Stdout, process.Stderr = write, log
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	feed, err := process.StdinPipe()
	if err != nil {
		return "", errors.Join(err, write.Close())
	}
	err = errors.Join(process.Start(), write.Close())
	if err != nil {
		return "", fmt.Errorf("start %s: %w", l.program, err)
	}
	_, err = feed.Write(stdin)
	if err := errors.Join(err, feed.Close()); err != nil {
		return "", fmt.Errorf("start %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = read.SetReadDeadline(time.Now()) })
	defer stop()
	var said bytes.Buffer
	_, err = said.ReadFrom(read)
	if err != nil {
		return "", errors.Join(ctx.Err(), process.Process.Kill())
	}
	text := strings.TrimSpace(said.String())
	if text == "" {
		text = "it ended without a word; see " + log.Name()
	}
	return text, process.Process.Release()
}

func (l *Lab) machine(state State, host Host) hostinit.Machine {
	machine := hostinit.Machine{
		Name: host.Name, Dir: l.hostDir(host.Name), Shims: l.path("shims"), Bin: filepath.Dir(l.program),
		Disk: host.Disk, Addresses: state.Range.Addresses(host.Number), Containerd: state.Containerd,
	}
	for _, peer := range state.Hosts {
		var addresses []netip.Addr
		for _, prefix := range state.Range.Addresses(peer.Number) {
			addresses = append(addresses, prefix.Addr())
		}
		machine.Peers = append(machine.Peers, hostinit.Peer{Name: peer.Name, Addresses: addresses})
	}
	return machine
}

func (l *Lab) hostDir(host string) string { return l.path("hosts", host) }
func (l *Lab) record(host string) string  { return l.path("run", "host-"+host+".json") }
func (l *Lab) group(host string) string   { return "shoal-lab-" + l.id + "/" + host }

// alive returns who runs a host, or errOff.
func (l *Lab) alive(host string) (keeper.Record, error) {
	var record keeper.Record
	text, err := os.ReadFile(l.record(host))
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err != nil || !record.Init.Alive() {
		return keeper.Record{}, fmt.Errorf("host %s %w", host, errOff)
	}
	return record, nil
}

// client speaks to the init of a host that is on.
func (l *Lab) client(host string) (hostinit.Client, error) {
	if _, _, err := l.host(host); err != nil {
		return hostinit.Client{}, err
	}
	root, err := l.Root(host)
	if err != nil {
		return hostinit.Client{}, err
	}
	return hostinit.NewClient(root + hostinit.Socket), nil
}

// Root is where the files of a host that is on are on this machine, until it is off.
func (l *Lab) Root(host string) (string, error) {
	record, err := l.alive(host)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root", record.Init.PID), nil
}

// Dial connects to what listens on a unix socket of a host. It works again after the host was off.
func (l *Lab) Dial(ctx context.Context, host, socket string) (net.Conn, error) {
	root, err := l.Root(host)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, "unix", root+socket)
}

func (l *Lab) requireContainerd(ctx context.Context, host Host) error {
	client, err := l.client(host.Name)
	if err != nil {
		return err
	}
	if err := client.Do(ctx, "start", "containerd"); err != nil {
		return fmt.Errorf("host %s: %w", host.Name, err)
	}
	return nil
}

// PowerOff cuts a host's power: every process on it ends by SIGKILL at once and its link goes. A host that is off
// already is no fault.
func (l *Lab) PowerOff(_ context.Context, host string) error {
	return l.change(func(*State) error {
		if _, _, err := l.host(host); err != nil {
			return err
		}
		return l.powerOff(host)
	})
}

func (l *Lab) powerOff(host string) error {
	var record keeper.Record
	if text, err := os.ReadFile(l.record(host)); err == nil {
		if err := json.Unmarshal(text, &record); err != nil {
			return fmt.Errorf("read %s: %w", l.record(host), err)
		}
	}
	if err := record.Init.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	// The keeper sweeps and ends; if it was killed, or is killed now, the sweep is done again here.
	if err := record.Keeper.Wait(endLimit); err != nil {
		if err := errors.Join(record.Keeper.Signal(syscall.SIGKILL), record.Init.Wait(endLimit)); err != nil {
			return err
		}
	}
	group, err := cgroup.Open(l.group(host))
	if err != nil {
		return err
	}
	return keeper.Sweep(group, l.lan(), l.hostDir(host), host, l.record(host))
}

// PowerOn boots a host: its disk is as it was, /run is empty, and its init starts what was enabled. It returns when
// containerd has started or given up. A host that is on already is no fault.
func (l *Lab) PowerOn(ctx context.Context, host string) error {
	return l.change(func(*State) error {
		state, found, err := l.host(host)
		if err != nil {
			return err
		}
		if _, err := l.alive(host); err == nil {
			return nil
		}
		if err := l.powerOff(host); err != nil { // sweeps what a killed keeper may have left
			return err
		}
		return l.boot(ctx, state, found)
	})
}
