package hostinit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Supervisor runs the host's units.
type Supervisor struct {
	log    *slog.Logger
	env    []string
	memory string // file that keeps which units are enabled over power cycles

	mu    sync.Mutex // guards units
	units map[string]*unit
}

func newSupervisor(machine Machine, log *slog.Logger) (*Supervisor, error) {
	s := &Supervisor{
		log: log, env: machine.Env(), units: newUnits(machine), memory: filepath.Join(machine.Dir, "enabled.json"),
	}
	text, err := os.ReadFile(s.memory)
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte(`["containerd"]`), nil // a fresh machine, as Debian's package would leave it
	}
	if err != nil {
		return nil, err
	}
	var enabled []string
	if err := json.Unmarshal(text, &enabled); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.memory, err)
	}
	for _, name := range enabled {
		if u := s.units[name]; u != nil {
			u.enabled = true
		}
	}
	return s, os.MkdirAll(notifyDir, 0o755)
}

// startEnabled starts all enabled units at once, in no order: shoal's processes wait for what they need by themselves.
// Only containerd holds the boot up, until it is ready, has ended or has used up its time.
func (s *Supervisor) startEnabled() {
	var group errgroup.Group
	for _, u := range s.Units() {
		switch {
		case !u.Enabled:
		case u.Name == "containerd":
			group.Go(func() error { return s.Start(u.Name) })
		default:
			group.Go(func() error { return s.begin(u.Name) })
		}
	}
	if err := group.Wait(); err != nil {
		s.log.Error("an enabled unit did not start", "error", err)
	}
}

func (s *Supervisor) unit(name string) *unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units[strings.TrimSuffix(name, ".service")]
}

func (s *Supervisor) find(name string) (*unit, error) {
	if u := s.unit(name); u != nil {
		return u, nil
	}
	return nil, fmt.Errorf("%w: unit %s could not be found", errUnknownUnit, name)
}

var errUnknownUnit = errors.New("unknown unit")

// Units lists all units, sorted by name.
func (s *Supervisor) Units() []Unit {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Unit, 0, len(s.units))
	for _, u := range s.units {
		all = append(all, u.describe())
	}
	slices.SortFunc(all, func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Enable makes a unit start at boot, or not any more. The answer means that it is on disk.
func (s *Supervisor) Enable(name string, enabled bool) error {
	u, err := s.find(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u.enabled = enabled
	names := []string{}
	for _, u := range s.units {
		if u.enabled {
			names = append(names, u.name)
		}
	}
	slices.Sort(names)
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	fresh := s.memory + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return fmt.Errorf("remember the enabled units: %w", err)
	}
	return os.Rename(fresh, s.memory)
}

// begin starts a unit's process unless one runs, and does not wait for it.
func (s *Supervisor) begin(name string) error {
	u, err := s.find(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.pid != 0 && u.wanted {
		return nil
	}
	if u.pid != 0 {
		return fmt.Errorf("unit %s is being stopped", name)
	}
	if u.retry != nil {
		u.retry.Stop()
		u.retry = nil
	}
	u.restarts, u.backoff = 0, firstBackoff
	if err := s.listen(u); err != nil {
		return err
	}
	if err := u.spawn(s.env); err != nil {
		u.set(Failed)
		return err
	}
	u.wanted = true
	return nil
}

// Start starts a unit and returns when it is ready. If its process ends first, or is not ready in time, that is an
// error, and the supervisor goes on restarting it as systemd would.
func (s *Supervisor) Start(name string) error {
	if err := s.begin(name); err != nil {
		return err
	}
	u := s.unit(name)
	s.mu.Lock()
	settled := u.settled
	s.mu.Unlock()
	select {
	case <-settled:
	case <-time.After(readyLimit):
		return fmt.Errorf("unit %s runs but has not said READY=1 within %s; see %s%s", name, readyLimit, u.log, u.tail())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.state == Active {
		return nil
	}
	return fmt.Errorf("unit %s ended (%s) before it was ready; see %s%s", name, u.ending, u.log, u.tail())
}

// Stop ends a unit's main process: SIGTERM, and SIGKILL after 15 s. Its children stay, as with KillMode=process:
// containers must outlive what started them.
func (s *Supervisor) Stop(name string) error {
	u, err := s.find(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	u.wanted = false
	if u.retry != nil {
		u.retry.Stop()
		u.retry = nil
	}
	pid, gone := u.pid, u.gone
	if pid == 0 {
		u.set(Inactive)
		s.mu.Unlock()
		return nil
	}
	u.set(Deactivating)
	err = unix.Kill(pid, unix.SIGTERM)
	s.mu.Unlock()
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	select {
	case <-gone:
		return nil
	case <-time.After(stopLimit):
	}
	s.mu.Lock()
	if u.pid == pid {
		err = unix.Kill(pid, unix.SIGKILL)
	}
	s.mu.Unlock()
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	<-gone
	return nil
}

// reap collects every process that ends: the units' and all orphans of the host.
func (s *Supervisor) reap(ctx context.Context) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	for {
		for s.reapOne() {
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-children:
		}
	}
}

func (s *Supervisor) reapOne() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	for _, u := range s.units {
		if u.pid != pid {
			continue
		}
		if delay := u.ended(syscall.WaitStatus(status)); delay > 0 {
			u.retry = time.AfterFunc(delay, func() { s.restart(u) })
		}
		s.log.Info("process ended", "unit", u.name, "how", u.ending, "state", u.state)
	}
	return true
}

// restart runs when a unit's back-off has passed.
func (s *Supervisor) restart(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.retry = nil
	if !u.wanted || u.pid != 0 {
		return
	}
	u.restarts++
	if err := u.spawn(s.env); err != nil {
		s.log.Error("restart failed", "unit", u.name, "error", err)
		u.set(Failed)
	}
}
