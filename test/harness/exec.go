package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/shoalproject/shoal/test/harness/enter"
)

// Exec runs a command on a host and returns what it wrote and its exit code. The error is for what kept it from
// running, not for a code other than 0. When ctx ends, the command is killed.
func (l *Lab) Exec(ctx context.Context, host string, args ...string) (stdout, stderr string, code int, err error) {
	if len(args) == 0 {
		return "", "", 0, errors.New("exec: no command")
	}
	if _, _, err := l.host(host); err != nil {
		return "", "", 0, err
	}
	if _, err := l.alive(host); err != nil {
		return "", "", 0, err
	}
	command := exec.CommandContext(ctx, l.program, append([]string{"exec", "--dir", l.dir, host, "--"}, args...)...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	// A command that leaves a daemon behind must not hold the caller by the daemon's open outputs.
	command.WaitDelay = 2 * time.Second
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		err = ctx.Err()
	}
	if err != nil {
		return out.String(), said.String(), -1, fmt.Errorf("exec on %s: %w", host, err)
	}
	return out.String(), said.String(), command.ProcessState.ExitCode(), nil
}

// must runs a command on a host and makes any exit code but 0 an error that holds what the command said.
func (l *Lab) must(ctx context.Context, host string, args ...string) (string, error) {
	stdout, stderr, code, err := l.Exec(ctx, host, args...)
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", fmt.Errorf("`%s` on %s ended with exit code %d:\n%s%s", quote(args), host, code, stdout, stderr)
	}
	return stdout, nil
}

// Enter runs a command on a host with the caller's own stdin, stdout, stderr and terminal, and returns its exit code.
// The calling process stays in the host's namespaces: it is for a command line, as its last act.
func (l *Lab) Enter(host string, args []string, extraEnv []string) (int, error) {
	state, found, err := l.host(host)
	if err != nil {
		return 0, err
	}
	record, err := l.alive(host)
	if err != nil {
		return 0, err
	}
	return enter.Run(record.Init.PID, args, append(l.machine(state, found).Env(), extraEnv...))
}
