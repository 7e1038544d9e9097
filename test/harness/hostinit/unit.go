package hostinit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// State is a unit's state in systemd's words.
type State string

// What a unit can be.
const (
	Inactive     State = "inactive"
	Activating   State = "activating" // started, not ready yet, or waiting for its restart
	Active       State = "active"
	Deactivating State = "deactivating"
	Failed       State = "failed" // ended by itself although nobody will restart it
)

// Unit is what the supervisor tells about one of its units.
type Unit struct {
	Name     string    `json:"name"`
	State    State     `json:"state"`
	Enabled  bool      `json:"enabled"`
	PID      int       `json:"pid"`      // as the host sees it; 0 if no process runs
	Restarts int       `json:"restarts"` // since it was last started by hand or by a boot
	Since    time.Time `json:"since"`    // of the state
}

const (
	readyLimit   = 30 * time.Second
	stopLimit    = 15 * time.Second
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second
	steadyAfter  = 10 * time.Second // a process that lived that long starts the back-off afresh
)

// unit is guarded by the supervisor's mutex.
type unit struct {
	name    string
	argv    []string
	log     string
	enabled bool
	wanted  bool // should run: its process is restarted when it ends

	state    State
	since    time.Time
	restarts int
	backoff  time.Duration
	retry    *time.Timer // set while it waits for its restart
	process
}

// process is a unit's present or last process.
type process struct {
	pid     int // 0 once it has ended
	started time.Time
	settled chan struct{} // closed when it is ready or has ended
	gone    chan struct{} // closed when it has ended
	ending  string        // how it ended
}

func newUnits(machine Machine) map[string]*unit {
	units := map[string]*unit{}
	add := func(name string, argv ...string) {
		units[name] = &unit{
			name: name, argv: argv, log: filepath.Join("/var/log", name+".log"),
			state: Inactive, since: time.Now(), backoff: firstBackoff,
		}
	}
	add("containerd", "/usr/bin/containerd", "--config", "/etc/containerd/config.toml")
	for _, process := range []string{"ca", "store", "scheduler", "dispatcher", "gateway", "agent", "meshproxy"} {
		name := "shoal-" + process
		add(name, filepath.Join(machine.Bin, name), "-config", "/etc/shoal/"+process+".yaml")
	}
	return units
}

func (u *unit) set(state State) {
	u.state, u.since = state, time.Now()
}

// spawn starts the unit's process. The caller holds the mutex, and so does the reaper when it looks for ended
// processes: no process can end unseen before its id is noted here.
func (u *unit) spawn(env []string) error {
	if _, err := os.Stat(u.argv[0]); err != nil {
		return fmt.Errorf("unit %s has no program: %w", u.name, err)
	}
	out, err := os.OpenFile(u.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", u.name, err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(u.argv[0], u.argv, &syscall.ProcAttr{
		Dir: "/", Env: append(slices.Clone(env), "NOTIFY_SOCKET="+notifyPath(u.name)),
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", u.argv[0], err)
	}
	u.process = process{pid: pid, started: time.Now(), settled: make(chan struct{}), gone: make(chan struct{})}
	u.set(Activating)
	return nil
}

func (u *unit) ready() {
	if u.pid != 0 && u.state == Activating {
		u.set(Active)
		closeOnce(u.settled)
	}
}

// ended notes the end of the unit's process and returns after which time to restart it; zero means never.
func (u *unit) ended(status syscall.WaitStatus) time.Duration {
	lived := time.Since(u.started)
	u.ending = fmt.Sprintf("exit code %d", status.ExitStatus())
	if status.Signaled() {
		u.ending = "signal " + status.Signal().String()
	}
	u.pid = 0
	closeOnce(u.settled)
	closeOnce(u.gone)
	if !u.wanted {
		u.set(Inactive)
		return 0
	}
	u.set(Activating)
	if lived >= steadyAfter {
		u.backoff = firstBackoff
	}
	delay := u.backoff
	u.backoff = min(2*u.backoff, lastBackoff)
	return delay
}

func closeOnce(channel chan struct{}) {
	select {
	case <-channel:
	default:
		close(channel)
	}
}

func (u *unit) describe() Unit {
	return Unit{Name: u.name, State: u.state, Enabled: u.enabled, PID: u.pid, Restarts: u.restarts, Since: u.since}
}

// tail returns the last lines of the unit's log, for the error of a failed start.
func (u *unit) tail() string {
	text, err := os.ReadFile(u.log)
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "\n" + strings.Join(lines[max(0, len(lines)-5):], "\n")
}
