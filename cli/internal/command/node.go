package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/command/workload"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func nodeCommand(a *app.App) *cobra.Command {
	return app.Group("node", "Machines of the cluster", nodeLs(a), nodeInspect(a), nodeUpdate(a), nodeRm(a), nodePs(a), workload.NodeRebalance(a),
		nodeVote(a, "promote", "Let the store of a machine vote", true), nodeVote(a, "demote", "Let the store of a machine copy and not vote", false), nodeReset(a))
}

func nodeLs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List machines", Args: app.Exactly(0),
		Long: "List machines. Filters: id, name, label, node.label, role, membership, availability.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.Checked()
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				nodes, err := cl.AllNodes(c.Context(), filters)
				if err != nil {
					return fmt.Errorf("list nodes: %w", err)
				}
				self := a.Self()
				var rows []docker.NodeRow
				for _, n := range nodes {
					rows = append(rows, docker.NodeRowOf(n, self))
				}
				if learnt, err := a.Gateways(c.Context(), cl); err == nil {
					_ = a.KeepGateways(learnt) // a convenience: the next listing tries again
				}
				return printNodes(a, &l, rows)
			})
		},
	}
	l.Flags(c, "ids")
	return c
}

func printNodes(a *app.App, l *app.Listing, rows []docker.NodeRow) error {
	columns := []table.Column{
		{Header: "ID", Field: "Marked"}, {Header: "HOSTNAME", Field: "Hostname"}, {Header: "STATUS", Field: "Status"},
		{Header: "AVAILABILITY", Field: "Availability"}, {Header: "MANAGER STATUS", Field: "ManagerStatus"},
		{Header: "ENGINE VERSION", Field: "EngineVersion"},
	}
	return app.PrintRows(a, l, columns, rows, func(r docker.NodeRow) string { return r.ID },
		table.Column{Header: "ID", Field: "ID"}, table.Column{Header: "SELF", Field: "Self"})
}

func nodeInspect(a *app.App) *cobra.Command {
	var format string
	var pretty bool
	c := &cobra.Command{
		Use: "inspect [OPTIONS] self|NODE [NODE...]", Short: "Show all about machines", Args: app.AtLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Node
				fault := app.Each(args, func(name string) error {
					got, err := a.Node(c.Context(), cl, name)
					if err == nil {
						list = append(list, docker.NodeOf(got.GetNode()))
					}
					return err
				})
				if pretty && format == "" {
					format = docker.PrettyNode
				}
				return app.JoinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	c.Flags().BoolVar(&pretty, "pretty", false, "show it for people")
	return app.Completed(c, a.NodeNames)
}

func nodeRm(a *app.App) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm [OPTIONS] NODE [NODE...]", Aliases: []string{"remove"}, Short: "Remove machines that are down from the cluster", Args: app.AtLeastOne(),
		Long: "Remove machines from the cluster. Their certificates are refused everywhere within seconds; a machine that is not\ndown needs --force.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return app.Each(args, func(name string) error {
					if err := removeNode(c.Context(), a, cl, name, force); err != nil {
						return fmt.Errorf("remove node %q: %w", name, err)
					}
					fmt.Fprintln(a.Out, name)
					return nil
				})
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove a machine that is not down, too")
	return app.Completed(c, a.NodeNames)
}

func removeNode(ctx context.Context, a *app.App, cl *client.Client, name string, force bool) error {
	// A machine with control processes alone is no node. What is found by the beginning of its id alone could be another
	// one's hostname: the store, which knows both, decides.
	ref, exact := name, false
	got, err := a.Node(ctx, cl, name)
	if err != nil && errs.KindOf(err) != errs.NotFound || name == "self" && err != nil {
		return err
	}
	if n := got.GetNode().GetNode(); err == nil && (name == "self" || name == n.GetMeta().GetId() || name == docker.Hostname(n)) {
		ref, exact = n.GetMeta().GetId(), true
	}
	return cl.RemoveNode(ctx, ref, exact, force)
}

func nodePs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ps [OPTIONS] [NODE...]", Short: "List tasks on machines, by default on this one", Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"self"}
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var filters []string
				for _, name := range args {
					got, err := a.Node(c.Context(), cl, name)
					if err != nil {
						return err
					}
					filters = append(filters, "node="+got.GetNode().GetNode().GetMeta().GetId())
				}
				return workload.ListTasks(c.Context(), a, cl, &l, filters)
			})
		},
	}
	l.Flags(c, "task ids")
	return app.Completed(c, a.NodeNames)
}
