package workload

import (
	"github.com/spf13/cobra"

	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/outlook"
)

func serviceExplain(a *app.App) *cobra.Command {
	var format, task string
	var nodes bool
	c := &cobra.Command{
		Use: "explain [OPTIONS] SERVICE", Short: "Say why the tasks of a service are where they are, or nowhere", Args: app.Exactly(1),
		Long: "Say why each task of a service is on its node, or why it waits: how many nodes each rule keeps out, which node is\n" +
			"nearest, and by what the others were ranked. The nodes are judged as they are now, as if the task was nowhere.",
		Example: "  shoal service explain web\n  shoal service explain --task 3 web\n  shoal service explain --nodes web",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				got, err := app.Service(c.Context(), cl, args[0])
				if err != nil {
					return err
				}
				why, err := cl.Explain.Explain(c.Context(), &schedulerv1.ExplainRequest{
					Service: got.GetService().GetMeta().GetId(), Task: task, Nodes: nodes, AtLeast: got.GetVersion(),
				})
				if err != nil {
					return app.Wrap(err, "explain service %q", args[0])
				}
				if nodes {
					return outlook.WriteNodes(a.Out, format, why)
				}
				return outlook.WriteTasks(a.Out, format, why)
			})
		},
	}
	c.Flags().StringVar(&format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template for each row")
	c.Flags().StringVar(&task, "task", "", "only this task: a `slot` or an id")
	c.Flags().BoolVar(&nodes, "nodes", false, "judge every node for one more task, instead of the tasks there are")
	return app.Completed(c, a.ServiceNames)
}
