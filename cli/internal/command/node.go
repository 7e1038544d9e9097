package command

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func (a *App) nodeCommand() *cobra.Command {
	return group("node", "Machines of the cluster", a.nodeLs(), a.nodeInspect(), a.nodeUpdate(), a.nodeRm(), a.nodePs(),
		a.nodeVote("promote", "Let the store of a machine vote", true), a.nodeVote("demote", "Let the store of a machine copy and not vote", false), a.nodeReset())
}

func (a *App) nodeLs() *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List machines", Args: exactly(0),
		Long: "List machines. Filters: id, name, label, node.label, role, membership, availability.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.checked()
			if err != nil {
				return err
			}
			return a.connect(c.Context(), func(cl *client.Client) error {
				nodes, err := cl.AllNodes(c.Context(), filters)
				if err != nil {
					return fmt.Errorf("list nodes: %w", err)
				}
				self := a.self()
				var rows []docker.NodeRow
				for _, n := range nodes {
					rows = append(rows, docker.NodeRowOf(n, self))
				}
				if learnt, err := a.gateways(c.Context(), cl); err == nil {
					_ = a.keepGateways(learnt) // a convenience: the next listing tries again
				}
				return a.printNodes(&l, rows)
			})
		},
	}
	l.flags(c, "ids")
	return c
}

func (a *App) printNodes(l *listing, rows []docker.NodeRow) error {
	columns := []table.Column{
		{Header: "ID", Field: "Marked"}, {Header: "HOSTNAME", Field: "Hostname"}, {Header: "STATUS", Field: "Status"},
		{Header: "AVAILABILITY", Field: "Availability"}, {Header: "MANAGER STATUS", Field: "ManagerStatus"},
		{Header: "ENGINE VERSION", Field: "EngineVersion"},
	}
	return printRows(a, l, columns, rows, func(r docker.NodeRow) string { return r.ID },
		table.Column{Header: "ID", Field: "ID"}, table.Column{Header: "SELF", Field: "Self"})
}

// self is this machine's id; empty where shoal does not run.
func (a *App) self() string {
	data, err := a.Env.Files.Read(path.Join(a.Root, enroll.DefaultRoot, "machine-id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func (a *App) nodeInspect() *cobra.Command {
	var format string
	var pretty bool
	c := &cobra.Command{
		Use: "inspect [OPTIONS] self|NODE [NODE...]", Short: "Show all about machines", Args: atLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Node
				fault := each(args, func(name string) error {
					got, err := a.node(c.Context(), cl, name)
					if err == nil {
						list = append(list, docker.NodeOf(got.GetNode()))
					}
					return err
				})
				if pretty && format == "" {
					format = docker.PrettyNode
				}
				return joinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	c.Flags().BoolVar(&pretty, "pretty", false, "show it for people")
	return completed(c, a.nodeNames)
}

// node finds a machine by id, prefix or hostname; `self` is this one.
func (a *App) node(ctx context.Context, cl *client.Client, name string) (*controlv1.GetNodeResponse, error) {
	if name == "self" {
		if name = a.self(); name == "" {
			return nil, errs.New(errs.NotFound, "this machine is in no cluster, so there is no node \"self\"")
		}
	}
	got, err := cl.Nodes.GetNode(ctx, &controlv1.GetNodeRequest{Node: name})
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", name, err)
	}
	return got, nil
}

func (a *App) nodeRm() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm [OPTIONS] NODE [NODE...]", Aliases: []string{"remove"}, Short: "Remove machines that are down from the cluster", Args: atLeastOne(),
		Long: "Remove machines from the cluster. Their certificates are refused everywhere within seconds; a machine that is not\ndown needs --force.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				return each(args, func(name string) error {
					if err := a.removeNode(c.Context(), cl, name, force); err != nil {
						return fmt.Errorf("remove node %q: %w", name, err)
					}
					fmt.Fprintln(a.Out, name)
					return nil
				})
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove a machine that is not down, too")
	return completed(c, a.nodeNames)
}

func (a *App) removeNode(ctx context.Context, cl *client.Client, name string, force bool) error {
	// A machine with control processes alone is no node. What is found by the beginning of its id alone could be another
	// one's hostname: the store, which knows both, decides.
	ref, exact := name, false
	got, err := a.node(ctx, cl, name)
	if err != nil && errs.KindOf(err) != errs.NotFound || name == "self" && err != nil {
		return err
	}
	if n := got.GetNode().GetNode(); err == nil && (name == "self" || name == n.GetMeta().GetId() || name == docker.Hostname(n)) {
		ref, exact = n.GetMeta().GetId(), true
	}
	return cl.RemoveNode(ctx, ref, exact, force)
}

func (a *App) nodePs() *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "ps [OPTIONS] [NODE...]", Short: "List tasks on machines, by default on this one", Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"self"}
			}
			return a.connect(c.Context(), func(cl *client.Client) error {
				var filters []string
				for _, name := range args {
					got, err := a.node(c.Context(), cl, name)
					if err != nil {
						return err
					}
					filters = append(filters, "node="+got.GetNode().GetNode().GetMeta().GetId())
				}
				return a.listTasks(c.Context(), cl, &l, filters)
			})
		},
	}
	l.flags(c, "task ids")
	return completed(c, a.nodeNames)
}
