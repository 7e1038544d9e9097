package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness/cgroup"
	"github.com/shoalproject/shoal/test/harness/keeper"
	"github.com/shoalproject/shoal/test/harness/proc"
)

// Hidden verbs of shoal-lab that run as long as the lab does. Down finds their processes by these words and the lab's
// folder, so that it needs no record of them.
const (
	verbKeeper   = "host-keeper"
	verbRegistry = "registry"
)

// sweepLimit is how long Down waits for a keeper to sweep before it does so itself.
const sweepLimit = 2 * time.Second

// DownDir removes the lab in a folder, whatever is left of it. A folder without a lab is no fault.
func DownDir(dir, program string) error {
	lab, err := newLab(dir, program, nil)
	if err != nil {
		return err
	}
	return lab.Down()
}

// Down removes the lab: processes, cgroups, interface, namespaces, mounts and the folder. It needs nothing that the
// lab's processes know, only the names that follow from the folder, and it may be repeated.
func (l *Lab) Down() error {
	var faults []error
	// Step 1: the lab's own processes. A host's init dies with its keeper, and all on the host with its init.
	faults = append(faults, l.endProcesses())
	// Step 2: what is still in the lab's cgroups, and the cgroups. After this nothing uses the host's mounts.
	top, err := cgroup.Open("shoal-lab-" + l.id)
	if err == nil {
		err = keeper.Clear(top, endLimit)
	}
	faults = append(faults, err)
	// Step 3: the switch, and with it every link.
	faults = append(faults, l.lan().Remove())
	// Step 4: the folder, if it is a lab's and all else is gone: with faults it is kept, so that Down can be repeated.
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("take the lab %s down: %w", l.dir, err)
	}
	if err := l.removeDir(); err != nil {
		return fmt.Errorf("take the lab %s down: %w", l.dir, err)
	}
	return nil
}

func (l *Lab) endProcesses() error {
	pids, err := proc.List()
	if err != nil {
		return err
	}
	var ids []proc.ID
	for _, pid := range pids {
		args := proc.Args(pid)
		if len(args) < 2 || (args[1] != verbKeeper && args[1] != verbRegistry) {
			continue
		}
		if i := slices.Index(args, "--dir"); i < 0 || i+1 >= len(args) || args[i+1] != l.dir {
			continue
		}
		if id, err := proc.Of(pid); err == nil {
			ids = append(ids, id)
		}
	}
	// The hosts' inits first: their keepers then reap them, sweep and end by themselves. Killed the other way round, the
	// inits would be left to the machine's own process 1, which not everywhere reaps at once.
	faults := []error{l.cutAllPower()}
	for _, id := range ids {
		if args := proc.Args(id.PID); len(args) > 1 && args[1] == verbKeeper && id.Wait(sweepLimit) == nil {
			continue
		}
		faults = append(faults, id.Signal(syscall.SIGKILL))
	}
	for _, id := range ids {
		faults = append(faults, id.Wait(endLimit))
	}
	return errors.Join(faults...)
}

// cutAllPower kills the inits that the lab knows of. A record that cannot be read is that of a host whose keeper is
// found by its name.
func (l *Lab) cutAllPower() error {
	records, err := filepath.Glob(l.record("*"))
	if err != nil {
		return err
	}
	var faults []error
	for _, path := range records {
		var record keeper.Record
		if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &record) == nil {
			faults = append(faults, record.Init.Signal(syscall.SIGKILL))
		}
	}
	return errors.Join(faults...)
}

// removeDir removes the folder if it bears a lab's mark or is empty. Anything still mounted below it is let go of
// first: a removal must never reach through a mount.
func (l *Lab) removeDir() error {
	if _, err := os.Stat(l.path("state.json")); errors.Is(err, os.ErrNotExist) {
		if err := os.Remove(l.dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		return nil
	}
	mounts, err := mountsBelow(l.dir)
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", mount, err)
		}
	}
	// The mark goes last, so that a removal that is cut short can be repeated.
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == "state.json" {
			continue
		}
		if err := os.RemoveAll(l.path(entry.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(l.dir)
}

// mountsBelow lists mount points in a folder, deepest first.
func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+string(filepath.Separator)) {
			found = append(found, fields[4])
		}
	}
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	return found, nil
}
