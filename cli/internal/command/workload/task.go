package workload

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/command/inside"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/progress"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// Tasks is the group of commands about tasks.
func Tasks(a *app.App) *cobra.Command {
	return app.Group("task", "Tasks: single attempts to run a container", taskLs(a), taskInspect(a),
		inside.Logs(a, "logs [OPTIONS] TASK...", a.TaskNames))
}

func taskLs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list", "ps"}, Short: "List tasks of all services", Args: app.Exactly(0),
		Long: "List tasks. Filters: id, name, service, node, desired-state, label.",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error { return ListTasks(c.Context(), a, cl, &l, nil) })
		},
	}
	l.Flags(c, "ids")
	return c
}

// ListTasks prints the tasks that match, beside the person's filters, those of the command.
func ListTasks(ctx context.Context, a *app.App, cl *client.Client, l *app.Listing, filters []string) error {
	own, err := l.Checked()
	if err != nil {
		return err
	}
	for _, f := range own {
		// People name machines and services; tasks know them by id.
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "node":
			got, err := a.Node(ctx, cl, value)
			if err != nil {
				return err
			}
			f = "node=" + got.GetNode().GetNode().GetMeta().GetId()
		case "service":
			got, err := app.Service(ctx, cl, value)
			if err != nil {
				return err
			}
			f = "service=" + got.GetService().GetMeta().GetId()
		}
		filters = append(filters, f)
	}
	tasks, err := progress.All(ctx, cl.Tasks, filters...)
	if err != nil {
		return app.Wrap(err, "list tasks")
	}
	columns := []table.Column{
		{Header: "ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "IMAGE", Field: "Image"}, {Header: "NODE", Field: "Node"},
		{Header: "DESIRED STATE", Field: "DesiredState"}, {Header: "CURRENT STATE", Field: "CurrentState"},
		{Header: "ERROR", Field: "Error"}, {Header: "PORTS", Field: "Ports"},
	}
	return app.PrintRows(a, l, columns, docker.TaskRowsOf(tasks, a.Env.Now(), l.Whole()), func(r docker.TaskRow) string { return r.ID })
}

func taskInspect(a *app.App) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "inspect [OPTIONS] TASK [TASK...]", Short: "Show all about tasks: container id, process id, machine, addresses, exit code", Args: app.AtLeastOne(),
		Example: "  shoal task inspect -f '{{.NodeHostname}} {{.Status.ContainerStatus.ContainerID}} {{.Status.ContainerStatus.PID}}' 3k9x",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Task
				fault := app.Each(args, func(name string) error {
					got, err := cl.Tasks.GetTask(c.Context(), &controlv1.GetTaskRequest{Task: name})
					if err != nil {
						return fmt.Errorf("task %q: %w", name, err)
					}
					list = append(list, docker.TaskOf(got.GetTask()))
					return nil
				})
				return app.JoinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	return app.Completed(c, a.TaskIDs)
}
