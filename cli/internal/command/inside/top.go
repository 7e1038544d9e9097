package inside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/progress"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// topRow has the names of Docker's columns, which are ps's.
type topRow struct {
	Task, Node         string
	UID, PID, PPID     string
	STIME, Time, RSS   string
	CMD                string
	Started, ProcessID string
}

// Top is `shoal top`.
func Top(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "top [OPTIONS] SERVICE|TASK", Short: "Show the processes of running tasks", Args: app.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := l.Checked(); err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error { return showTop(c.Context(), a, cl, &l, args[0]) })
		},
	}
	l.Flags(c, "process ids")
	return app.Completed(c, a.TargetNames)
}

// showTop asks each running task of a service, or the one task that is named.
func showTop(ctx context.Context, a *app.App, cl *client.Client, l *app.Listing, target string) error {
	type one struct{ task, node, name string }
	list := []one{{task: target, name: target}}
	got, err := cl.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: target})
	switch {
	case err == nil:
		tasks, err := progress.All(ctx, cl.Tasks, "service="+got.GetService().GetMeta().GetId(), "desired-state=running")
		if err != nil {
			return app.Wrap(err, "list tasks of %q", target)
		}
		list = nil
		for _, t := range tasks {
			if t.GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
				list = append(list, one{t.GetTask().GetMeta().GetId(), t.GetNodeHostname(), t.GetName()})
			}
		}
	case !errs.Is(err, errs.NotFound):
		return app.Wrap(err, "top %q", target)
	}
	var rows []topRow
	var faults []error
	for _, t := range list {
		processes, err := processes(ctx, cl, t.task)
		if err != nil {
			faults = append(faults, app.Wrap(err, "top %q", t.name))
			continue
		}
		for _, p := range processes {
			rows = append(rows, topRowOf(t.name, t.node, p, a.Env.Now()))
		}
	}
	columns := []table.Column{
		{Header: "TASK", Field: "Task"}, {Header: "UID", Field: "UID"}, {Header: "PID", Field: "PID"}, {Header: "PPID", Field: "PPID"},
		{Header: "STIME", Field: "STIME"}, {Header: "TIME", Field: "Time"}, {Header: "RSS", Field: "RSS"}, {Header: "CMD", Field: "CMD"},
	}
	err = app.PrintRows(a, l, columns, rows, func(r topRow) string { return r.PID }, table.Column{Header: "NODE", Field: "Node"})
	return app.JoinFaults(append(faults, err)...)
}

func processes(ctx context.Context, cl *client.Client, task string) ([]*logsv1.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	stream, err := cl.Read.ListProcesses(ctx, &logsv1.ListProcessesRequest{Task: task})
	if err != nil {
		return nil, err
	}
	r, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Unavailable, "the task's machine has said nothing")
	}
	return r.GetProcesses(), err
}

func topRowOf(task, node string, p *logsv1.Process, now time.Time) topRow {
	started := p.GetStarted().AsTime().In(now.Location())
	form := "15:04"
	if now.Sub(started) > 24*time.Hour {
		form = "Jan02"
	}
	cpu := p.GetCpu().AsDuration()
	return topRow{
		Task: task, Node: node, UID: fmt.Sprint(p.GetUid()), PID: fmt.Sprint(p.GetPid()), PPID: fmt.Sprint(p.GetParent()),
		STIME: started.Format(form), Started: started.Format(time.RFC3339), RSS: units.BytesSize(float64(p.GetMemory())), CMD: p.GetCommand(),
		Time: fmt.Sprintf("%02d:%02d:%02d", int(cpu.Hours()), int(cpu.Minutes())%60, int(cpu.Seconds())%60), ProcessID: fmt.Sprint(p.GetPid()),
	}
}
