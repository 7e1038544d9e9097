package command

import (
	"context"

	"github.com/spf13/cobra"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/command/workload"
	"github.com/shoalproject/shoal/cli/internal/outlook"
)

// planCommand rehearses: the verbs below it are the real ones, flags and faults included, on a client that changes nothing.
func planCommand(a *app.App) *cobra.Command {
	var format string
	services := app.Group("service", "What a change of a service would do", workload.Changes(a)...)
	nodes := app.Group("node", "What a change of a machine would do",
		nodeDrain(a), nodeUpdate(a), workload.NodeRebalance(a), nodeRm(a), nodePowerOff(a))
	c := app.Group("plan", "Show what a command would do, without doing it", services, nodes)
	c.Long = "Show what a command would do, without doing it: which tasks would start, move and stop, where and in which order,\n" +
		"which would wait and why, and whether services keep what they promise. Nothing is changed. It takes the flags of the\n" +
		"command itself, and is refused as that would be. It supposes that tasks start at once and stay well."
	c.Example = "  shoal plan service update --image registry.example/web:2 web\n" +
		"  shoal plan node drain m2\n  shoal plan node power-off m2 m3\n  shoal plan --format json service scale web=9"
	c.PersistentFlags().StringVar(&format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template for each action")
	c.PersistentPreRun = func(*cobra.Command, []string) {
		a.Rehearse = func(ctx context.Context, cl *client.Client, r *client.Rehearsal) error {
			plan, err := cl.Foresee(ctx, r)
			if err != nil {
				return app.Wrap(err, "look ahead")
			}
			return outlook.WritePlan(a.Out, format, plan)
		}
	}
	for _, group := range []*cobra.Command{services, nodes} {
		for _, verb := range group.Commands() {
			verb.Short += ": what it would do"
			verb.Example = ""
			for _, name := range []string{"detach", "quiet"} { // nobody waits here
				if f := verb.Flags().Lookup(name); f != nil {
					f.Hidden = true
				}
			}
		}
	}
	return c
}

func nodeDrain(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "drain NODE [NODE...]", Short: "Take the tasks off machines", Args: app.AtLeastOne(),
		Long: "What 'shoal node update --availability drain' would do.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return app.Each(args, func(name string) error {
					return updateNode(c.Context(), a, cl, name, func(s *typesv1.NodeSpec) error {
						s.Availability = typesv1.Availability_AVAILABILITY_DRAIN
						return nil
					})
				})
			})
		},
	}
	return app.Completed(c, a.NodeNames)
}

func nodePowerOff(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "power-off NODE [NODE...]", Short: "Lose machines without a warning", Args: app.AtLeastOne(),
		Long: "What would happen if machines were switched off, or died, all at once. The time counts from when the cluster takes\n" +
			"them for lost.",
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		tell := a.Rehearse
		a.Rehearse = func(ctx context.Context, cl *client.Client, r *client.Rehearsal) error {
			if err := app.Each(args, func(name string) error {
				got, err := a.Node(ctx, cl, name)
				r.PowerOff = append(r.PowerOff, got.GetNode().GetNode().GetMeta().GetId())
				return err
			}); err != nil {
				return err
			}
			return tell(ctx, cl, r)
		}
		return a.Connect(c.Context(), func(*client.Client) error { return nil })
	}
	return app.Completed(c, a.NodeNames)
}
