package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/test/harness"
)

// site is the laboratory with the services that are asked. The target is on w1, clients are on w2 and in a container on w1.
type site struct {
	*harness.Lab

	cfg   config
	log   *slog.Logger
	r     *report
	image string
	// tasks are those of w1, by their services. Each way has one of its own: a client chooses its port for each address anew, and a task
	// that has just seen the same pair by another way refuses it for a while.
	tasks map[string]task
}

const (
	kernelPort    = 30500
	userSpacePort = 30501
	hostPort      = 30502 // of the task's machine alone
	microPort     = 8000
)

// task is what `shoal task inspect` shows, as far as it is needed.
type task struct {
	ID, Name string
	Status   struct {
		Timestamp, State string
		ContainerStatus  struct{ PID int }
	}
	NetworksAttachments []struct {
		Network   struct{ ID string }
		Addresses []string
	}
}

// on is the task's address: on the machine network, or on the other one.
func (t task) on(machine bool) string {
	for _, a := range t.NetworksAttachments {
		if (a.Network.ID == "") == machine && len(a.Addresses) > 0 {
			address, _, _ := strings.Cut(a.Addresses[0], "/")
			return address
		}
	}
	return ""
}

// prepare runs the services.
func (s *site) prepare(ctx context.Context) error {
	registry, err := s.Registry()
	if err != nil {
		return err
	}
	s.image = registry + "/micro:1.0.0"
	if _, err := s.shoal(ctx, "network", "create", "--driver", "overlay", "bench"); err != nil {
		return err
	}
	s.tasks = map[string]task{}
	for _, args := range [][]string{
		{"caller", "--network", "bench"},
		{"target", "--network", "bench"},
		{"virtual", "--network", "bench"},
		{"haproxy"},
		{"nginx"},
		{"hosted", "-p", fmt.Sprintf("published=%d,target=%d,mode=host", hostPort, microPort)},
		{"meshed", "-p", fmt.Sprintf("%d:%d", kernelPort, microPort)},
		{"carried", "-p", fmt.Sprintf("published=%d,target=%d,dataplane=userspace", userSpacePort, microPort)},
	} {
		create := slices.Concat([]string{"service", "create", "--constraint", "node.hostname==w1", "--name"}, args, []string{s.image})
		if _, err := s.shoal(ctx, create...); err != nil {
			return err
		}
		if s.tasks[args[0]], err = s.taskOf(ctx, args[0]); err != nil {
			return err
		}
	}
	return nil
}

// socket is where a service's task is reached on the machine network.
func (s *site) socket(service string) string {
	return net.JoinHostPort(s.tasks[service].on(true), strconv.Itoa(microPort))
}

func (s *site) shoal(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, "m1", append([]string{"shoal"}, args...)...)
}

// run is a command on a host that must succeed.
func (s *site) run(ctx context.Context, host string, args ...string) (string, error) {
	out, words, code, err := s.Exec(ctx, host, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s%s", code, out, words)
	}
	if err != nil {
		return "", fmt.Errorf("on %s: %s: %w", host, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out), nil
}

// taskOf is a service's only running task.
func (s *site) taskOf(ctx context.Context, service string) (task, error) {
	ids, err := s.shoal(ctx, "service", "ps", "-q", "--no-trunc", "--filter", "desired-state=running", service)
	if err != nil {
		return task{}, err
	}
	out, err := s.shoal(ctx, "task", "inspect", ids)
	if err != nil {
		return task{}, err
	}
	var list []task
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		return task{}, fmt.Errorf("task inspect printed %q: %w", out, err)
	}
	return list[0], nil
}

// beside makes a command of this machine that runs in a host's network, and shares the processors with the host's meshproxy: outside
// of the host's control group it would have a larger part of a busy machine.
func (s *site) beside(ctx context.Context, host string, args ...string) (*exec.Cmd, error) {
	pid, err := s.PID(ctx, host, "meshproxy")
	if err != nil {
		return nil, err
	}
	group, err := groupOf(pid)
	if err != nil {
		return nil, err
	}
	const enter = `echo $$ > "$0" && exec "$@"`
	return exec.CommandContext(ctx, "sh", slices.Concat([]string{"-c", enter, filepath.Join(group, "cgroup.procs"), "nsenter", "-t", strconv.Itoa(pid), "-n", "--"}, args)...), nil
}

// groupOf is the folder of a process's control group that shares out the processors (cgroups(7)).
func groupOf(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) < 3:
		case slices.Contains(strings.Split(parts[1], ","), "cpu"):
			return filepath.Join("/sys/fs/cgroup", parts[1], parts[2]), nil
		case parts[0] == "0" && !strings.Contains(string(data), ":cpu"):
			return filepath.Join("/sys/fs/cgroup", parts[2]), nil
		}
	}
	return "", fmt.Errorf("no group of process %d has the processors: %q", pid, data)
}
