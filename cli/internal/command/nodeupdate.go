package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/spec"
)

func nodeUpdate(a *app.App) *cobra.Command {
	var change spec.NodeChange
	c := &cobra.Command{
		Use: "update [OPTIONS] NODE", Short: "Change a machine's labels, taints or availability", Args: app.Exactly(1),
		Example: "  shoal node update --availability drain m2\n  shoal node update --label-add zone=a --label-rm old m2\n" +
			"  shoal node update --taint-add gpu=yes:no-execute m3",
		RunE: func(c *cobra.Command, args []string) error {
			change.Name = args[0]
			return a.Connect(c.Context(), func(cl *client.Client) error {
				if err := updateNode(c.Context(), a, cl, args[0], change.Apply); err != nil {
					return err
				}
				fmt.Fprintln(a.Out, args[0])
				return nil
			})
		},
	}
	c.Flags().StringArrayVar(&change.AddLabels, "label-add", nil, "add or replace a label: `key=value`")
	c.Flags().StringArrayVar(&change.RemoveLabels, "label-rm", nil, "remove a label: `key`")
	c.Flags().StringArrayVar(&change.AddTaints, "taint-add", nil, "keep tasks away: `key[=value][:no-schedule|no-execute|prefer-no-schedule]`")
	c.Flags().StringArrayVar(&change.RemoveTaints, "taint-rm", nil, "remove a taint: `key[:effect]`")
	c.Flags().StringVar(&change.Availability, "availability", "", "active, pause or drain")
	c.Flags().StringVar(&change.Role, "role", "", "not there yet")
	_ = c.Flags().MarkHidden("role") // the flag is there
	app.Complete(c, "availability", app.Words("active", "pause", "drain"))
	return app.Completed(c, a.NodeNames)
}

// updateNode reads, changes and writes, and does it again when somebody else was faster.
func updateNode(ctx context.Context, a *app.App, cl *client.Client, name string, change func(*typesv1.NodeSpec) error) error {
	for try := 0; ; try++ {
		got, err := a.Node(ctx, cl, name)
		if err != nil {
			return err
		}
		next := proto.CloneOf(got.GetNode().GetNode().GetSpec())
		if next == nil {
			next = &typesv1.NodeSpec{}
		}
		if err := change(next); err != nil {
			return err
		}
		_, err = cl.Nodes.UpdateNode(ctx, &controlv1.UpdateNodeRequest{
			Node: got.GetNode().GetNode().GetMeta().GetId(), Version: got.GetVersion(), Spec: next,
		})
		if errs.KindOf(err) != errs.Conflict || try == app.MaxTries {
			return app.Wrap(err, "update node %q", name)
		}
	}
}
