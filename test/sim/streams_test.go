package sim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/test/sim"
)

const stdout = logsv1.LogStream_LOG_STREAM_STDOUT

// say lets a task's container write a line.
func say(t *testing.T, c *sim.Cluster, task *controlv1.ListedTask, text string) {
	t.Helper()
	m := c.MachineOf(task.GetTask().GetDecided().GetNodeId())
	m.Runtime.Write(task.GetTask().GetMeta().GetId()+".0", time.Now(), stdout, text)
}

// followed is what a person sees of a followed log.
type followed struct {
	lines chan string // "web.1 text", "web.1 missing: why", and at last "ended: why"
}

func follow(t *testing.T, c *sim.Cluster, o *logsv1.LogOptions, targets ...string) *followed {
	t.Helper()
	stream, err := c.Operator.Logs.Logs(t.Context(), &logsv1.LogsRequest{Targets: targets, Options: o})
	if err != nil {
		t.Fatal(err)
	}
	f := &followed{lines: make(chan string, 1000)}
	run.Async(t.Context(), func(context.Context) (struct{}, error) {
		for {
			r, err := stream.Recv()
			if err != nil {
				f.lines <- "ended: " + err.Error()
				return struct{}{}, nil
			}
			if r.GetMissing() != "" {
				f.lines <- r.GetTask().GetName() + " missing: " + r.GetMissing()
			}
			for _, l := range r.GetLines() {
				f.lines <- r.GetTask().GetName() + " " + string(l.GetText())
			}
		}
	})
	return f
}

// next is the next line within a time.
func (f *followed) next(within time.Duration) string {
	patience := time.NewTimer(within)
	defer patience.Stop()
	select {
	case l := <-f.lines:
		return l
	case <-patience.C:
		return "nothing within " + within.String()
	}
}

func tasksOf(t *testing.T, c *sim.Cluster, service string) []*controlv1.ListedTask {
	t.Helper()
	tasks, err := c.Operator.ListTasks(service, true)
	if err != nil || len(tasks) == 0 {
		t.Fatalf("%d tasks, %v", len(tasks), err)
	}
	return tasks
}

// The output of a service comes from every machine that runs it, in the order of time, with the task's name; a machine that
// is off is named within 10 s and holds up nobody.
func TestLogsOfAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 3, apart())
		serve(t, c, 4)
		tasks := tasksOf(t, c, "web")
		for i := range 12 {
			say(t, c, tasks[i%4], fmt.Sprintf("line %02d", i))
			time.Sleep(time.Millisecond)
		}
		f := follow(t, c, nil, "web")
		for i := range 12 {
			if got, want := f.next(5*time.Second), fmt.Sprintf("%s line %02d", tasks[i%4].GetName(), i); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		if got := f.next(5 * time.Second); got != "ended: EOF" {
			t.Errorf("after all: %q", got)
		}
		one := uint32(1)
		last := follow(t, c, &logsv1.LogOptions{Tail: &one}, "web.2")
		if got := last.next(5 * time.Second); !strings.HasPrefix(got, "web.2 line ") {
			t.Errorf("the last line of one: %q", got)
		}

		off := c.MachineOf(tasks[0].GetTask().GetDecided().GetNodeId())
		off.PowerOff()
		began := time.Now()
		f = follow(t, c, nil, "web")
		missing := 0
		for {
			l := f.next(15 * time.Second)
			if l == "ended: EOF" {
				break
			}
			if strings.HasPrefix(l, "nothing") || strings.HasPrefix(l, "ended") {
				t.Fatal(l)
			}
			if strings.Contains(l, " missing: ") {
				missing++
			}
		}
		if took := time.Since(began); missing == 0 || took > 10*time.Second {
			t.Errorf("%d named as missing after %s", missing, took)
		}
	})
}

// A follower misses nothing when what is between it and the container dies: dispatcher and agent. A task that ends leaves the
// others; one that is new joins; when the machine goes off it is named.
func TestFollowedLogsSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 4, apart())
		serve(t, c, 2)
		audit := sim.NewAudit(c, nobody)
		time.Sleep(time.Second)
		task := tasksOf(t, c, "web")[0]
		m := c.MachineOf(task.GetTask().GetDecided().GetNodeId())
		f := follow(t, c, &logsv1.LogOptions{Follow: true}, "web")
		n := 0
		heard := func(what string, within time.Duration) {
			t.Helper()
			n++
			say(t, c, task, fmt.Sprintf("line %d", n))
			want := fmt.Sprintf("%s line %d", task.GetName(), n)
			for deadline := time.Now().Add(within); ; {
				got := f.next(time.Until(deadline))
				if got == want {
					return
				}
				if !strings.Contains(got, " missing: ") {
					t.Fatalf("%s: %q, want %q", what, got, want)
				}
			}
		}
		heard("at first", time.Second)
		holder := ""
		for node := range audit.Snapshot().Nodes() {
			if node.GetMeta().GetId() == m.ID {
				holder = node.GetStatus().GetSession().GetDispatcherId()
			}
		}
		c.MachineOf(holder).Kill("dispatcher")
		heard("after the death of its dispatcher", 20*time.Second)
		m.Kill("agent")
		n++
		say(t, c, task, fmt.Sprintf("line %d", n)) // while nobody is there
		if err := m.StartAgain("agent"); err != nil {
			t.Fatal(err)
		}
		n--
		for deadline := time.Now().Add(20 * time.Second); ; {
			got := f.next(time.Until(deadline))
			if strings.HasSuffix(got, fmt.Sprintf(" line %d", n+1)) {
				break
			}
			if !strings.Contains(got, " missing: ") {
				t.Fatalf("what was written while the agent was dead: %q", got)
			}
		}
		n++
		heard("after the death of its agent", 20*time.Second)
		m.PowerOff()
		got := f.next(10 * time.Second)
		for !strings.HasSuffix(got, " missing: node is down") && strings.Contains(got, " missing: ") {
			got = f.next(10 * time.Second)
		}
		if !strings.HasSuffix(got, " missing: node is down") {
			t.Errorf("after the machine went off: %q", got)
		}
	})
}

// Who follows from now on, and is cut off before anything was written, misses nothing of what is written meanwhile. What the
// agent's death leaves of a person's command is ended when there is an agent again, and the container runs on.
func TestWhatAnAgentsDeathCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 4, apart())
		serve(t, c, 1)
		task := tasksOf(t, c, "web")[0]
		m := c.MachineOf(task.GetTask().GetDecided().GetNodeId())
		say(t, c, task, "long ago")
		none := uint32(0)
		f := follow(t, c, &logsv1.LogOptions{Follow: true, Tail: &none}, "web")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ran := run.Async(ctx, func(ctx context.Context) (int32, error) {
			_, code, err := exec(ctx, c, start("web.1", "sleep", "1000"))
			return code, err
		})
		time.Sleep(time.Second)
		m.Kill("agent")
		say(t, c, task, "meanwhile")
		if r := <-ran; errs.KindOf(r.Err) != errs.Unavailable {
			t.Errorf("the command: %+v", r)
		}
		if n := m.Runtime.Running(); n != 1 {
			t.Errorf("%d commands run", n)
		}
		if err := m.StartAgain("agent"); err != nil {
			t.Fatal(err)
		}
		c.Until("the command is gone", 10*time.Second, func() string {
			if n := m.Runtime.Running(); n != 0 {
				return fmt.Sprint(n, " run")
			}
			return ""
		})
		got := f.next(20 * time.Second)
		for strings.Contains(got, " missing: ") {
			got = f.next(20 * time.Second)
		}
		if got != "web.1 meanwhile" {
			t.Errorf("followed: %q", got)
		}
		if again := tasksOf(t, c, "web")[0]; again.GetTask().GetMeta().GetId() != task.GetTask().GetMeta().GetId() {
			t.Error("the task was replaced")
		}
	})
}

func start(task string, command ...string) *logsv1.ExecRequest {
	return &logsv1.ExecRequest{Task: task, Message: &logsv1.ExecRequest_Start{Start: &logsv1.ExecStart{Command: command, Input: true}}}
}

// exec runs a command to its end.
func exec(ctx context.Context, c *sim.Cluster, req *logsv1.ExecRequest, input ...string) (out string, code int32, err error) {
	stream, err := c.Operator.Inside.Exec(ctx)
	if err != nil {
		return "", 0, err
	}
	if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
		return "", 0, err
	}
	for _, in := range input {
		if err := stream.Send(&logsv1.ExecRequest{Message: &logsv1.ExecRequest_Input{Input: []byte(in)}}); err != nil {
			break // the answer says why
		}
	}
	if err := stream.CloseSend(); err != nil {
		return "", 0, err
	}
	code = -1
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, code, nil
		}
		if err != nil {
			return out, code, err
		}
		switch m := r.GetMessage().(type) {
		case *logsv1.ExecResponse_Output:
			out += string(m.Output)
		case *logsv1.ExecResponse_ExitCode:
			code = m.ExitCode
		}
	}
}

// A command reaches its container on whatever dispatcher the machine is, and ends with any side: with the caller, with the
// container, and with the dispatcher between them. A machine that is off is told at once.
func TestExecEndsWithAnySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 5, apart())
		serve(t, c, 4)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		for _, task := range tasksOf(t, c, "web") {
			out, code, err := exec(ctx, c, start(task.GetName(), "cat"), "one ", "two")
			if err != nil || out != "one two" || code != 0 {
				t.Errorf("%s: %q, %d, %v", task.GetName(), out, code, err)
			}
		}
		if _, code, err := exec(ctx, c, start("web.1", "exit", "42")); code != 42 || err != nil {
			t.Errorf("exit code %d, %v", code, err)
		}
		if _, _, err := exec(ctx, c, start("web.1", "nothing")); errs.KindOf(err) != errs.NotFound {
			t.Errorf("no such program: %v", err)
		}
		if _, _, err := exec(ctx, c, start("nobody.1", "echo")); errs.KindOf(err) != errs.NotFound {
			t.Errorf("no such task: %v", err)
		}

		sleeps := func(target string) <-chan run.Result[int32] {
			done := run.Async(ctx, func(ctx context.Context) (int32, error) {
				_, code, err := exec(ctx, c, start(target, "sleep", "1000"))
				return code, err
			})
			time.Sleep(time.Second)
			return done
		}
		task := tasksOf(t, c, "web")[0]
		m := c.MachineOf(task.GetTask().GetDecided().GetNodeId())
		done := sleeps("web.1")
		m.Runtime.Kill(task.GetTask().GetObserved().GetContainerId(), 137)
		if r := <-done; r.Value != 137 {
			t.Errorf("the container has ended: %+v", r)
		}
		c.Operator.Converge("web", 4, 30*time.Second)

		done = sleeps("web.2")
		for _, d := range []string{"m1", "d1", "d2"} {
			c.Machine(d).Kill("dispatcher")
		}
		began := time.Now()
		if r := <-done; errs.KindOf(r.Err) != errs.Unavailable || time.Since(began) > 20*time.Second {
			t.Errorf("the dispatcher has died: %+v after %s", r, time.Since(began))
		}
		for _, d := range []string{"m1", "d1", "d2"} {
			if err := c.Machine(d).StartAgain("dispatcher"); err != nil {
				t.Fatal(err)
			}
		}
		c.Until("a command runs again", 30*time.Second, func() string {
			if _, code, err := exec(ctx, c, start("web.2", "exit", "7")); code != 7 {
				return fmt.Sprint(code, err)
			}
			return ""
		})
	})
}

// A caller that goes away while its input waits, since the command reads none of it, leaves neither command nor stream.
func TestCallerWhoseInputIsNotReadGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 5, apart())
		serve(t, c, 1)
		task := tasksOf(t, c, "web")[0]
		m := c.MachineOf(task.GetTask().GetDecided().GetNodeId())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const callers = 5
		for range callers {
			stream, err := c.Operator.Inside.Exec(ctx)
			if err != nil {
				t.Fatal(err)
			}
			run.Async(ctx, func(context.Context) (struct{}, error) {
				for req, full := start("web.1", "sleep", "1000"), make([]byte, 64<<10); ; {
					if err := stream.Send(req); err != nil {
						return struct{}{}, err
					}
					req = &logsv1.ExecRequest{Message: &logsv1.ExecRequest_Input{Input: full}}
				}
			})
		}
		c.Until("the commands run", 10*time.Second, func() string {
			if n := m.Runtime.Running(); n != callers {
				return fmt.Sprint(n, " run")
			}
			return ""
		})
		time.Sleep(5 * time.Second) // all that is between them is full
		cancel()
		c.Until("they are gone", time.Second, func() string {
			if n := m.Runtime.Running(); n != 0 {
				return fmt.Sprint(n, " run")
			}
			return ""
		})
	})
}

// What tasks use comes of all of them, and files go in and out.
func TestStatsAndCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 6, apart())
		serve(t, c, 4)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		stats, err := c.Operator.Stats.Stats(ctx, &logsv1.StatsRequest{Readings: 2})
		if err != nil {
			t.Fatal(err)
		}
		readings := map[string]int{}
		for {
			r, err := stats.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			readings[r.GetTask().GetName()]++
		}
		if len(readings) != 4 || readings["web.1"] != 2 {
			t.Errorf("%v", readings)
		}

		list, err := c.Operator.Read.ListProcesses(ctx, &logsv1.ListProcessesRequest{Task: "web.3"})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := list.Recv(); err != nil || len(r.GetProcesses()) != 1 {
			t.Errorf("processes: %v, %v", r, err)
		}

		put, err := c.Operator.Inside.Copy(ctx)
		if err != nil {
			t.Fatal(err)
		}
		big := strings.Repeat("archive ", 5000)
		for _, m := range []*logsv1.CopyRequest{
			{Task: "web.1", Message: &logsv1.CopyRequest_Put{Put: &logsv1.CopyPut{Dir: "/srv"}}},
			{Message: &logsv1.CopyRequest_Data{Data: []byte(big)}},
		} {
			if err := put.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		if err := put.CloseSend(); err != nil {
			t.Fatal(err)
		}
		var done *logsv1.CopyDone
		for done == nil {
			r, err := put.Recv()
			if err != nil {
				t.Fatal(err)
			}
			done = r.GetDone()
		}
		if done.GetBytes() != uint64(len(big)) {
			t.Errorf("%v", done)
		}
		get, err := c.Operator.Inside.Copy(ctx)
		if err != nil {
			t.Fatal(err)
		}
		err = get.Send(&logsv1.CopyRequest{Task: "web.1", Message: &logsv1.CopyRequest_Get{Get: &logsv1.CopyGet{Path: "/srv"}}})
		if err != nil {
			t.Fatal(err)
		}
		back := ""
		for {
			r, err := get.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			back += string(r.GetData())
		}
		if back != big {
			t.Errorf("%d bytes came back of %d", len(back), len(big))
		}
	})
}
