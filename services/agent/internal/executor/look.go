package executor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

const (
	// clockTick is the kernel's USER_HZ: 100 on every architecture that Linux runs containers on (man 5 proc).
	clockTick = 10 * time.Millisecond
	// maxProcesses and maxCommand bound what is told of a container.
	maxProcesses, maxCommand = 10000, 512
)

// pidOf is the first process of a running container, on this machine.
func (e *Executor) pidOf(ctx context.Context, id string) (int, error) {
	r, err := e.client.TaskService().Get(ctx, &tasksv1.GetRequest{ContainerID: id})
	if err != nil {
		return 0, notRunning(e.failure("find the container's process", err))
	}
	if s := r.GetProcess().GetStatus(); s != tasktypes.Status_RUNNING && s != tasktypes.Status_PAUSED {
		return 0, errs.New(errs.Precondition, "the container does not run")
	}
	return int(r.GetProcess().GetPid()), nil
}

// Usage reads what a running container uses, from its control group and its network namespace.
func (e *Executor) Usage(ctx context.Context, id string) (*logsv1.Usage, error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	pid, err := e.pidOf(ctx, id)
	if err != nil {
		return nil, err
	}
	f, err := e.groups.Read(container.Group(id))
	if err != nil {
		return nil, errs.New(errs.Unavailable, "read the container's control group: %w", err)
	}
	received, sent := traffic(pid)
	var machine unix.Sysinfo_t
	if err := unix.Sysinfo(&machine); err != nil {
		return nil, err
	}
	return &logsv1.Usage{
		At: timestamppb.Now(), Cpu: durationpb.New(f.CPU), Memory: f.Memory, MemoryLimit: f.MemoryLimit, Pids: f.PIDs,
		BlockRead: f.Read, BlockWritten: f.Written, NetworkReceived: received, NetworkSent: sent,
		MachineMemory: int64(machine.Totalram) * int64(machine.Unit),
	}, nil
}

// traffic adds up the interfaces of a process's network namespace, but for the loopback. What can't be read is 0: the process
// may have ended.
func traffic(pid int) (received, sent int64) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(raw)) {
		name, figures, ok := strings.Cut(line, ":")
		words := strings.Fields(figures)
		if !ok || strings.TrimSpace(name) == "lo" || len(words) < 9 {
			continue
		}
		in, _ := strconv.ParseInt(words[0], 10, 64) // the kernel writes numbers
		out, _ := strconv.ParseInt(words[8], 10, 64)
		received, sent = received+in, sent+out
	}
	return received, sent
}

// Processes lists those of a running container.
func (e *Executor) Processes(ctx context.Context, id string) ([]*logsv1.Process, error) {
	ctx, cancel := e.call(ctx)
	defer cancel()
	if _, err := e.pidOf(ctx, id); err != nil {
		return nil, err
	}
	r, err := e.client.TaskService().ListPids(ctx, &tasksv1.ListPidsRequest{ContainerID: id})
	if err != nil {
		return nil, notRunning(e.failure("list the container's processes", err))
	}
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	var list []*logsv1.Process
	for _, p := range r.GetProcesses() {
		if one := processOf(int64(p.GetPid()), boot); one != nil && len(list) < maxProcesses {
			list = append(list, one)
		}
	}
	slices.SortFunc(list, func(a, b *logsv1.Process) int { return int(a.GetPid() - b.GetPid()) })
	return list, nil
}

func bootTime() (time.Time, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errs.New(errs.Internal, "/proc/stat does not say when the machine was started")
}

// processOf reads /proc/PID/stat (man 5 proc); nil: it has ended.
func processOf(pid int64, boot time.Time) *logsv1.Process {
	folder := fmt.Sprintf("/proc/%d", pid)
	raw, err := os.ReadFile(folder + "/stat")
	if err != nil {
		return nil
	}
	// The name stands in brackets, and may have any character in it.
	end := bytes.LastIndexByte(raw, ')')
	begin := bytes.IndexByte(raw, '(')
	if begin < 0 || end < begin {
		return nil
	}
	words := strings.Fields(string(raw[end+1:])) // from field 3 on
	if len(words) < 22 {
		return nil
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(words[field-3], 10, 64) // the kernel writes numbers
		return n
	}
	p := &logsv1.Process{
		Pid: pid, Parent: number(4), Cpu: durationpb.New(time.Duration(number(14)+number(15)) * clockTick),
		Started: timestamppb.New(boot.Add(time.Duration(number(22)) * clockTick)), Memory: number(24) * int64(os.Getpagesize()),
		Command: "[" + string(raw[begin+1:end]) + "]",
	}
	if args, err := os.ReadFile(folder + "/cmdline"); err == nil && len(args) > 0 {
		p.Command = string(bytes.ReplaceAll(bytes.TrimRight(args[:min(len(args), maxCommand)], "\x00"), []byte{0}, []byte{' '}))
	}
	p.Command = strings.ToValidUTF8(p.Command, "?")
	var st unix.Stat_t
	if unix.Stat(folder, &st) == nil {
		p.Uid = st.Uid
	}
	return p
}
