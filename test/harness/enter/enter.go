// Package enter runs functions and commands inside the namespaces of lab hosts.
//
// Namespaces belong to threads, so every entry pins its goroutine to its thread. It never remounts anything, which is
// what sets it apart from "ip netns exec": that hides the cgroup mounts.
package enter

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Net calls fn on a thread that is in the network namespace at path, and comes back. Commands that fn starts run
// there too.
func Net(path string, fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	there, err := os.Open(path)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	err = fn()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays pinned and ends with its goroutine: nothing else may run in the wrong namespace.
		return errors.Join(err, fmt.Errorf("leave network namespace %s: %w", path, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Verb is the hidden verb by which Run calls this program again inside the host; main hands the words after it to
// Inside.
const Verb = "host-exec"

// Run runs a command in all namespaces of the process pid, with the caller's stdin, stdout, stderr and terminal, and
// returns its exit code as a shell would tell it (128 plus the signal that ended it; 126 and 127 if it cannot run).
//
// The caller's thread stays in those namespaces, so Run is for a process that does nothing else afterwards.
func Run(pid int, argv, env []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	runtime.LockOSThread()
	if err := join(pid); err != nil {
		return 0, err
	}
	command := exec.Command(self, append([]string{Verb}, argv...)...)
	command.Env, command.Dir = env, "/root"
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := command.Start(); err != nil {
		return 0, fmt.Errorf("run %q: %w", argv[0], err)
	}
	forward(command.Process)
	err = command.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for %q: %w", argv[0], err)
	}
	status, ok := command.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return command.ProcessState.ExitCode(), nil
}

// Inside becomes the command, in the process that Run made. It first ties the command's life to Run's: a caller that
// is killed, for example by a time limit, leaves nothing running. (SysProcAttr.Pdeathsig cannot do it: it compares
// parents' ids, which differ between process-id namespaces, and kills the child at once.) It returns only on failure,
// with the exit code that a shell would give.
func Inside(argv []string) int {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-lab: tie the command to its caller:", err)
		return 126
	}
	path, err := exec.LookPath(argv[0])
	if err == nil {
		err = unix.Exec(path, argv, os.Environ())
	}
	fmt.Fprintf(os.Stderr, "shoal-lab: run %q on the host: %v\n", argv[0], err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}

// join moves the calling thread into every namespace of the process. The files are opened first, because /proc is
// another one once the mount namespace has changed.
func join(pid int) error {
	kinds := []struct {
		name string
		flag int
	}{
		{"cgroup", unix.CLONE_NEWCGROUP}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET},
		{"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS},
	}
	files := make([]*os.File, len(kinds))
	for i, kind := range kinds {
		file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + kind.name)
		if err != nil {
			return fmt.Errorf("open the host's %s namespace: %w", kind.name, err)
		}
		defer file.Close()
		files[i] = file
	}
	// A thread that shares its working folder with others may not change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("take a working folder of its own: %w", err)
	}
	for i, kind := range kinds {
		if err := unix.Setns(int(files[i].Fd()), kind.flag); err != nil {
			return fmt.Errorf("enter the host's %s namespace: %w", kind.name, err)
		}
	}
	return nil
}
