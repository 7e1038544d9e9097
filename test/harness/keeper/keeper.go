// Package keeper is the parent that a lab host's init has on the outer machine. It makes the host's namespaces and
// cgroups, plugs the cable in, and waits: when the init ends, in whatever way, the keeper removes what the host
// leaves behind and ends too. If the keeper itself is killed the init dies with it, so a host is on exactly as long as
// its keeper lives.
package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness/cgroup"
	"github.com/shoalproject/shoal/test/harness/hostinit"
	"github.com/shoalproject/shoal/test/harness/lan"
	"github.com/shoalproject/shoal/test/harness/proc"
)

// Order is what a keeper is told, as JSON on its standard input. It answers on its standard output with the line "ok"
// once the host is up, or with what went wrong.
type Order struct {
	Machine hostinit.Machine `json:"machine"`
	Switch  lan.Switch       `json:"switch"`
	Plugged bool             `json:"plugged"` // the cable is in
	Group   string           `json:"group"`   // the host's cgroup
	Record  string           `json:"record"`  // file that tells who runs the host
}

// Record tells who runs a host; the file exists while the host is on.
type Record struct {
	Keeper proc.ID `json:"keeper"`
	Init   proc.ID `json:"init"`
}

const endLimit = 10 * time.Second

// Run boots a host and returns after it is off and swept.
func Run(stdin io.Reader, stdout io.WriteCloser) error {
	var order Order
	if err := json.NewDecoder(stdin).Decode(&order); err != nil {
		return fmt.Errorf("read the keeper's order: %w", err)
	}
	// The init is told to die with the thread that made it, so that thread must live as long as the keeper.
	runtime.LockOSThread()
	child, boot, err := order.bear()
	if err == nil {
		err = order.raise(child, boot)
	}
	if err != nil {
		fmt.Fprintln(stdout, err)
		_ = stdout.Close() // what matters is the error above
		if child != nil {
			_ = child.Process.Kill() // it may have ended by itself
			_ = child.Wait()
		}
		return errors.Join(err, order.sweep())
	}
	fmt.Fprintln(stdout, "ok")
	if err := stdout.Close(); err != nil {
		return errors.Join(err, order.sweep())
	}
	_ = child.Wait() // an init always ends by a signal
	return order.sweep()
}

// pipes are the keeper's ends of what it shares with the init.
type pipes struct{ handover, report *os.File }

// bear starts the init in fresh namespaces. It returns while the init waits for the end of its handover.
func (o Order) bear() (*exec.Cmd, pipes, error) {
	group, err := cgroup.Open(o.Group)
	if err != nil {
		return nil, pipes{}, err
	}
	if err := Clear(group, endLimit); err != nil {
		return nil, pipes{}, fmt.Errorf("clear what the host left: %w", err)
	}
	if err := group.Create(); err != nil {
		return nil, pipes{}, err
	}
	handoverRead, handoverWrite, err := os.Pipe()
	if err != nil {
		return nil, pipes{}, err
	}
	defer handoverRead.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		return nil, pipes{}, errors.Join(err, handoverWrite.Close())
	}
	defer reportWrite.Close()

	self, err := os.Executable()
	if err != nil {
		return nil, pipes{}, err
	}
	init := exec.Command(self, "host-init", "--host", o.Machine.Name)
	init.Env, init.Dir = o.Machine.Env(), "/"
	init.Stderr = os.Stderr
	init.ExtraFiles = []*os.File{handoverRead, reportWrite} // hostinit.MachineFile and ReportFile
	// Pdeathsig makes the child kill itself if its parent's id is not the expected one, which it never is across a
	// process-id namespace; an init is immune to its own SIGKILL, so here it works, and only here.
	init.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
	}
	// A new cgroup namespace is rooted where its maker is: the keeper steps into the host's group for the birth.
	leave, err := group.Enter()
	if err != nil {
		return nil, pipes{}, errors.Join(err, handoverWrite.Close(), reportRead.Close())
	}
	err = init.Start()
	if err := errors.Join(err, leave()); err != nil {
		return nil, pipes{}, errors.Join(fmt.Errorf("start the host's init: %w", err), handoverWrite.Close(), reportRead.Close())
	}
	return init, pipes{handover: handoverWrite, report: reportRead}, nil
}

// raise records the host, plugs its cable in, lets the init go on, and waits for its report.
func (o Order) raise(init *exec.Cmd, boot pipes) error {
	defer boot.report.Close()
	record, err := o.record(init.Process.Pid)
	if err != nil {
		return errors.Join(err, boot.handover.Close())
	}
	if err := os.WriteFile(o.Record, record, 0o600); err != nil {
		return errors.Join(err, boot.handover.Close())
	}
	err = o.Switch.Connect(o.Machine.Name, init.Process.Pid, o.Plugged)
	if err == nil {
		err = json.NewEncoder(boot.handover).Encode(o.Machine)
	}
	if err := errors.Join(err, boot.handover.Close()); err != nil {
		return err
	}
	said, err := io.ReadAll(boot.report)
	if err != nil {
		return fmt.Errorf("hear from the host's init: %w", err)
	}
	switch report := strings.TrimSpace(string(said)); report {
	case "ok":
		return nil
	case "":
		return errors.New("the host's init ended before the host was up")
	default:
		return errors.New(report)
	}
}

func (o Order) record(pid int) ([]byte, error) {
	own, err := proc.Of(os.Getpid())
	if err != nil {
		return nil, err
	}
	init, err := proc.Of(pid)
	if err != nil {
		return nil, err
	}
	return json.Marshal(Record{Keeper: own, Init: init})
}

// sweep removes what a dead host leaves on the outer machine. The record goes last: while it is there, a sweep that
// was cut short is repeated by whoever comes next.
func (o Order) sweep() error {
	group, err := cgroup.Open(o.Group)
	if err != nil {
		return err
	}
	return Sweep(group, o.Switch, o.Machine.Dir, o.Machine.Name, o.Record)
}

// Sweep removes a dead host's cgroups, switch port, volatile files and record. It is safe to repeat.
func Sweep(group cgroup.Group, sw lan.Switch, dir, host, record string) error {
	faults := []error{Clear(group, endLimit), sw.Disconnect(host)}
	run, err := filepath.Glob(filepath.Join(dir, "run", "*"))
	faults = append(faults, err)
	for _, path := range run {
		faults = append(faults, os.RemoveAll(path))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("sweep host %s: %w", host, err)
	}
	if err := os.Remove(record); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Clear ends every process in a group and removes the group. The kernel lets go of a group a moment after its last
// process has ended, so a refusal is tried again until the limit.
func Clear(group cgroup.Group, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, pid := range group.Processes() {
			if pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL) // it has ended: that is the aim
			}
		}
		err := group.Remove()
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}
