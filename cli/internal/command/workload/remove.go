package workload

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/progress"
)

func serviceRm(a *app.App) *cobra.Command {
	var w Waiting
	c := &cobra.Command{
		Use: "rm [OPTIONS] SERVICE [SERVICE...]", Aliases: []string{"remove"}, Short: "Remove services and stop their tasks", Args: app.AtLeastOne(),
		Long: "Remove services, and wait until their tasks have stopped, so that what they used can be removed next.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				gone := map[string]string{}
				fault := app.Each(args, func(name string) error {
					resp, err := cl.Services.DeleteService(c.Context(), &controlv1.DeleteServiceRequest{Service: name})
					if err != nil {
						return app.Wrap(err, "remove service %q", name)
					}
					gone[name] = resp.GetId()
					fmt.Fprintln(a.Out, name)
					return nil
				})
				for _, name := range args {
					if gone[name] == "" || w.Detach || a.Rehearse != nil {
						continue
					}
					fault = app.JoinFaults(fault, stopped(c.Context(), a, cl, gone[name], name))
				}
				return fault
			})
		},
	}
	w.Flags(c, "")
	return app.Completed(c, a.ServiceNames)
}

// stopped waits until the last task of a removed service has stopped.
func stopped(ctx context.Context, a *app.App, cl *client.Client, id, name string) error {
	watch := progress.Watch{Tasks: cl.Tasks, Out: a.Err}
	err := watch.Stopped(ctx, id, name)
	if progress.Interrupted(err) {
		fmt.Fprintln(a.Err, "Operation continuing in background.")
		return nil
	}
	return app.Wrap(err, "watch the tasks of service %q", name)
}
