package harness_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness"
)

// TestDownLeavesNothing: neither an orderly end nor one after the lab's own processes were killed leaves a trace, and
// a second lab on the machine is not touched.
func TestDownLeavesNothing(t *testing.T) {
	program := program(t)
	other := up(t, program, 1, 0)
	for name, damage := range map[string]func(*testing.T, *harness.Lab){
		"orderly":                   func(*testing.T, *harness.Lab) {},
		"own processes were killed": killOwnProcesses,
		"state is lost":             func(t *testing.T, lab *harness.Lab) { do(t, os.RemoveAll(filepath.Join(lab.Dir(), "run"))) },
	} {
		t.Run(name, func(t *testing.T) {
			lab := up(t, program, 1, 1)
			do(t, lab.Disk(t.Context(), "w1", 64<<20))
			mine, theirs := address(t, lab), address(t, other)
			if mine == theirs {
				t.Fatalf("two labs share the address %s", mine)
			}
			var switchNS unix.Stat_t
			do(t, unix.Stat(filepath.Join(lab.Dir(), "switch.ns"), &switchNS))
			if len(traces(t, lab, switchNS.Ino)) < 4 {
				t.Fatalf("the traces that the test looks for are not there while the lab is up: %v", traces(t, lab, switchNS.Ino))
			}
			// A host of the other lab that boots now sees this lab's mounts: it must not hold on to them.
			do(t, other.PowerOff(t.Context(), "m1"))
			do(t, other.PowerOn(t.Context(), "m1"))
			damage(t, lab)
			do(t, lab.Down())
			do(t, lab.Down()) // again is no fault
			// The kernel ends what is in a dead namespace in its own time.
			eventually(t, 5*time.Second, "nothing is left of the lab", func() bool { return len(traces(t, lab, switchNS.Ino)) == 0 })
			if _, err := os.Stat(lab.Dir()); err == nil {
				t.Error("the folder is left")
			}
			on(t, other, 0, "m1", "ctr", "version")
		})
	}
}

// TestDownSparesStrangers: a folder that is not a lab's is never removed.
func TestDownSparesStrangers(t *testing.T) {
	dir := t.TempDir()
	do(t, os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600))
	do(t, harness.DownDir(dir, "/nonexistent"))
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Error(err)
	}
	_, err := harness.Up(t.Context(), harness.Options{Dir: dir, Managers: 1, NoInit: true, Program: "/nonexistent"})
	if err == nil || !strings.Contains(err.Error(), "not empty") && !strings.Contains(err.Error(), "root") {
		t.Errorf("a lab in a folder with other things: %v", err)
	}
}

func address(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	address, err := lab.Address("m1")
	do(t, err)
	return address
}

func killOwnProcesses(t *testing.T, lab *harness.Lab) {
	for _, pid := range labProcesses(t, lab) {
		do(t, syscall.Kill(pid, syscall.SIGKILL))
	}
}

// labProcesses lists live processes that name the lab's folder.
func labProcesses(t *testing.T, lab *harness.Lab) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	do(t, err)
	var pids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), lab.Dir()) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		do(t, err)
		pids = append(pids, pid)
	}
	return pids
}

// traces lists all that the machine has of a lab.
func traces(t *testing.T, lab *harness.Lab, switchNS uint64) []string {
	t.Helper()
	found := groups(t, lab.ID()+"*")
	for _, pid := range labProcesses(t, lab) {
		found = append(found, "process "+strconv.Itoa(pid))
	}
	if _, err := os.Stat("/sys/class/net/" + lab.ID()); err == nil {
		found = append(found, "interface "+lab.ID())
	}
	// Every mount namespace of the machine is looked at: a copy of a mount would hold what it shows.
	namespaces, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	do(t, err)
	for _, file := range namespaces {
		text, err := os.ReadFile(file)
		inode := "net:[" + strconv.FormatUint(switchNS, 10) + "]"
		if err == nil && (strings.Contains(string(text), lab.Dir()) || strings.Contains(string(text), inode)) {
			found = append(found, "mount in "+file)
		}
	}
	return append(found, loops(t, lab.Dir())...)
}
