package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/progress"
)

func (a *App) serviceRm() *cobra.Command {
	var w waiting
	c := &cobra.Command{
		Use: "rm [OPTIONS] SERVICE [SERVICE...]", Aliases: []string{"remove"}, Short: "Remove services and stop their tasks", Args: atLeastOne(),
		Long: "Remove services, and wait until their tasks have stopped, so that what they used can be removed next.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				gone := map[string]string{}
				fault := each(args, func(name string) error {
					resp, err := cl.Services.DeleteService(c.Context(), &controlv1.DeleteServiceRequest{Service: name})
					if err != nil {
						return wrap(err, "remove service %q", name)
					}
					gone[name] = resp.GetId()
					fmt.Fprintln(a.Out, name)
					return nil
				})
				for _, name := range args {
					if gone[name] == "" || w.detach {
						continue
					}
					fault = joinFaults(fault, a.stopped(c.Context(), cl, gone[name], name))
				}
				return fault
			})
		},
	}
	w.flags(c, "")
	return completed(c, a.serviceNames)
}

// stopped waits until the last task of a removed service has stopped.
func (a *App) stopped(ctx context.Context, cl *client.Client, id, name string) error {
	watch := progress.Watch{Tasks: cl.Tasks, Out: a.Err}
	err := watch.Stopped(ctx, id, name)
	if progress.Interrupted(err) {
		fmt.Fprintln(a.Err, "Operation continuing in background.")
		return nil
	}
	return wrap(err, "watch the tasks of service %q", name)
}
