// Package initd is process 1 of a container that asks for a small init: it starts the container's program, passes signals
// on to it, takes away processes that have ended, and ends as the program does.
//
// It owns nothing and outlives nothing. It must never do more: a container's program should behave as if it were alone. It
// runs in the container, from the agent's own binary, in one goroutine.
package initd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of shells for a program that could not be started.
const (
	notFound      = 127
	notExecutable = 126
)

// Program is the file that a container with a small init sees: this one. Empty if the machine does not say which it is.
func Program() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	return path
}

// Run is `shoal-agent init -- PROGRAM [ARG...]`. It returns the exit code: the program's, or 128 and the signal that ended it.
func Run(args []string, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(stderr, "shoal-agent init: no program is named")
		return notFound
	}
	// Step 1: listen, so that no signal ends process 1 before its program is there.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	// Step 2: the program, in a process group of its own, which has the terminal if there is one.
	program, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		fmt.Fprintf(stderr, "shoal-agent init: %s\n", err)
		return codeOf(err)
	}
	_, err = unix.IoctlGetTermios(0, unix.TCGETS)
	child, err := syscall.ForkExec(program, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: err != nil, Foreground: err == nil},
	})
	if err != nil {
		fmt.Fprintf(stderr, "shoal-agent init: start %s: %s\n", program, err)
		return codeOf(err)
	}
	// Step 3: pass signals on, until it has ended.
	for s := range signals {
		switch s {
		case syscall.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		case syscall.SIGURG: // Go's own, many times a second
		default:
			if number, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(child, number) // it may just have ended
			}
		}
	}
	return 0
}

func codeOf(err error) int {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return notFound
	}
	return notExecutable
}

// reap takes away all that have ended. One signal may stand for many of them.
func reap(child int) (code int, ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil || pid <= 0:
			return code, ended
		case pid == child && status.Exited():
			code, ended = status.ExitStatus(), true
		case pid == child && status.Signaled():
			code, ended = 128+int(status.Signal()), true
		}
	}
}
