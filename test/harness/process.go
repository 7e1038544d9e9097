package harness

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness/hostinit"
	"github.com/shoalproject/shoal/test/harness/proc"
)

// Start lets a host's init start a process and waits until it is ready. A process is named by its unit
// ("shoal-agent", "containerd") or in short ("agent").
func (l *Lab) Start(ctx context.Context, host, process string) error {
	return l.do(ctx, host, process, "start")
}

// Stop lets a host's init stop a process: SIGTERM, and SIGKILL after 15 s.
func (l *Lab) Stop(ctx context.Context, host, process string) error {
	return l.do(ctx, host, process, "stop")
}

func (l *Lab) do(ctx context.Context, host, process, verb string) error {
	client, err := l.client(host)
	if err != nil {
		return err
	}
	unit, err := find(ctx, client, process)
	if err != nil {
		return fmt.Errorf("host %s: %w", host, err)
	}
	if err := client.Do(ctx, verb, unit.Name); err != nil {
		return fmt.Errorf("host %s: %w", host, err)
	}
	return nil
}

// Kill ends a process by SIGKILL; its init starts it again, as systemd would.
func (l *Lab) Kill(ctx context.Context, host, process string) error {
	return l.signal(ctx, host, process, unix.SIGKILL)
}

// Pause freezes a process (SIGSTOP).
func (l *Lab) Pause(ctx context.Context, host, process string) error {
	return l.signal(ctx, host, process, unix.SIGSTOP)
}

// Resume lets a frozen process go on (SIGCONT).
func (l *Lab) Resume(ctx context.Context, host, process string) error {
	return l.signal(ctx, host, process, unix.SIGCONT)
}

func (l *Lab) signal(ctx context.Context, host, process string, signal syscall.Signal) error {
	pid, err := l.PID(ctx, host, process)
	if err != nil {
		return err
	}
	id, err := proc.Of(pid)
	if err != nil {
		return fmt.Errorf("host %s: %s: %w", host, process, err)
	}
	return id.Signal(signal)
}

// PID is the id on the outer machine of a host's process.
func (l *Lab) PID(ctx context.Context, host, process string) (int, error) {
	client, err := l.client(host)
	if err != nil {
		return 0, err
	}
	unit, err := find(ctx, client, process)
	if err != nil {
		return 0, fmt.Errorf("host %s: %w", host, err)
	}
	if unit.PID == 0 {
		return 0, fmt.Errorf("host %s: %s does not run (it is %s)", host, unit.Name, unit.State)
	}
	outside, err := proc.Outside()
	if err != nil {
		return 0, err
	}
	namespace, err := l.pidNamespace(host)
	if err != nil {
		return 0, err
	}
	pid, ok := outside[proc.Inside{Namespace: namespace, PID: unit.PID}]
	if !ok {
		return 0, fmt.Errorf("host %s: %s has just ended", host, unit.Name)
	}
	return pid, nil
}

// pidNamespace names a host's process-id namespace as /proc does.
func (l *Lab) pidNamespace(host string) (string, error) {
	record, err := l.alive(host)
	if err != nil {
		return "", err
	}
	return os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", record.Init.PID))
}

func find(ctx context.Context, client hostinit.Client, process string) (hostinit.Unit, error) {
	units, err := client.Units(ctx)
	if err != nil {
		return hostinit.Unit{}, err
	}
	i := slices.IndexFunc(units, func(u hostinit.Unit) bool {
		return u.Name == process || u.Name == "shoal-"+process
	})
	if i < 0 {
		var names []string
		for _, unit := range units {
			names = append(names, unit.Name)
		}
		return hostinit.Unit{}, fmt.Errorf("no process %q; there are %s", process, strings.Join(names, ", "))
	}
	return units[i], nil
}
