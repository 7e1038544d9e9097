package workload

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/progress"
)

func serviceRebalance(a *app.App) *cobra.Command {
	var w Waiting
	c := &cobra.Command{
		Use: "rebalance [OPTIONS] SERVICE [SERVICE...]", Short: "Move running tasks so that they are evenly placed", Args: app.AtLeastOne(),
		Long: "Move running tasks of services so that they are evenly placed, once. As many at a time as an update would have under way;\n" +
			"the new task starts first, so that nothing is missing. What is even enough stays where it is.",
		Example: "  shoal service rebalance web api",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error { return rebalance(c.Context(), a, cl, w, args, "") })
		},
	}
	w.Flags(c, "progress")
	return app.Completed(c, a.ServiceNames)
}

// NodeRebalance is the command that evens out all services, or brings tasks to one machine.
func NodeRebalance(a *app.App) *cobra.Command {
	var w Waiting
	c := &cobra.Command{
		Use: "rebalance [OPTIONS] [NODE]", Short: "Move running tasks so that they are evenly placed", Args: app.Between(0, 1),
		Long: "Move running tasks of all replicated services so that they are evenly placed, once; with a NODE only to it or from it, such\n" +
			"as one that has just come. See 'shoal service rebalance'.",
		Example: "  shoal node rebalance\n  shoal node rebalance w5",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				node := ""
				if len(args) > 0 {
					got, err := a.Node(c.Context(), cl, args[0])
					if err != nil {
						return err
					}
					node = got.GetNode().GetNode().GetMeta().GetId()
				}
				names, err := replicated(c.Context(), cl)
				if err != nil {
					return err
				}
				return rebalance(c.Context(), a, cl, w, names, node)
			})
		},
	}
	w.Flags(c, "progress")
	return app.Completed(c, a.NodeNames)
}

// replicated are the names of the services whose tasks can be moved.
func replicated(ctx context.Context, cl *client.Client) (names []string, err error) {
	err = client.Pages(func(token string) (string, error) {
		resp, err := cl.Services.ListServices(ctx, &controlv1.ListServicesRequest{Filters: []string{"mode=replicated"}, PageToken: token})
		for _, s := range resp.GetServices() {
			names = append(names, s.GetService().GetSpec().GetAnnotations().GetName())
		}
		return resp.GetNextPageToken(), err
	})
	return names, app.Wrap(err, "list services")
}

// rebalance asks for all services first and then watches them one after another. Node is the id of one that it is about.
func rebalance(ctx context.Context, a *app.App, cl *client.Client, w Waiting, names []string, node string) error {
	asked := map[string]*typesv1.Service{}
	fault := app.Each(names, func(name string) error {
		svc, err := askToRebalance(ctx, a, cl, name, node)
		if err == nil {
			asked[name] = svc
			fmt.Fprintln(a.Out, name)
		}
		return err
	})
	if w.Detach || a.Rehearse != nil {
		return fault
	}
	watch := progress.Watch{Services: cl.Services, Tasks: cl.Tasks, Out: a.Err, Terminal: a.Terminal}
	if w.Quiet {
		watch.Out = nil
	}
	for _, name := range names {
		if asked[name] == nil || ctx.Err() != nil {
			continue
		}
		err := watch.Even(ctx, asked[name].GetMeta().GetId(), asked[name].GetSpec().GetRebalance().GetRequest())
		if progress.Interrupted(err) {
			fmt.Fprintf(a.Err, "Operation continuing in background.\nUse 'shoal service inspect --pretty %s' to check progress.\n", name)
			return fault
		}
		fault = app.JoinFaults(fault, app.Wrap(err, "rebalance service %q", name))
	}
	return fault
}

func askToRebalance(ctx context.Context, a *app.App, cl *client.Client, name, node string) (*typesv1.Service, error) {
	got, err := app.Service(ctx, cl, name)
	if err != nil {
		return nil, err
	}
	last := got.GetService().GetRebalanceStatus().GetRequest()
	svc, _, err := changeService(ctx, a, cl, name, func(s *typesv1.ServiceSpec) error {
		if s.Rebalance == nil {
			s.Rebalance = &typesv1.Rebalance{}
		}
		s.Rebalance.Request, s.Rebalance.RequestNodeId = max(s.GetRebalance().GetRequest(), last)+1, node
		return nil
	})
	return svc, err
}
