package command

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func (a *App) nodeCommand() *cobra.Command {
	return group("node", "Machines of the cluster", a.nodeLs(), a.nodeInspect(), a.nodeUpdate(), a.nodeRm(), a.nodePs())
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
				nodes, err := allNodes(c.Context(), cl, filters)
				if err != nil {
					return fmt.Errorf("list nodes: %w", err)
				}
				self := a.self()
				var rows []docker.NodeRow
				for _, n := range nodes {
					rows = append(rows, docker.NodeRowOf(n, self))
				}
				a.learnGateways(c.Context(), cl)
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

func allNodes(ctx context.Context, cl *client.Client, filters []string) (out []*controlv1.ListedNode, err error) {
	err = pages(func(token string) (string, error) {
		resp, err := cl.Nodes.ListNodes(ctx, &controlv1.ListNodesRequest{Filters: filters, PageToken: token})
		out = append(out, resp.GetNodes()...)
		return resp.GetNextPageToken(), err
	})
	return out, err
}

// self is this machine's id; empty where shoal does not run.
func (a *App) self() string {
	data, err := a.Env.Files.Read(path.Join(a.Root, enroll.DefaultRoot, "machine-id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// learnGateways adds gateways that came since to the context, so that the person's tool survives the loss of the first
// manager. It is a convenience: when it fails, the next listing tries again.
func (a *App) learnGateways(ctx context.Context, cl *client.Client) {
	store, c, err := a.picked()
	if err != nil || len(a.gateway) > 0 {
		return
	}
	resp, err := cl.Members.ListMembers(ctx, &controlv1.ListMembersRequest{Filters: []string{"role=gateway"}})
	if err != nil {
		return
	}
	var seen []string
	for _, m := range resp.GetMembers() {
		seen = append(seen, m.GetAddresses()...)
	}
	// Known ones keep their place: the person may have put the nearest first.
	next := slices.DeleteFunc(slices.Clone(c.Gateways), func(g string) bool {
		full, err := client.Addresses([]string{g})
		return err == nil && len(seen) > 0 && !slices.Contains(seen, full[0])
	})
	for _, g := range seen {
		if !slices.Contains(next, g) {
			next = append(next, g)
		}
	}
	if len(next) > 0 && !slices.Equal(next, c.Gateways) {
		c.Gateways = next
		_ = store.Put(c) // see above
	}
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
					format = prettyNode
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

func (a *App) nodeUpdate() *cobra.Command {
	var add, remove []string
	var availability, role string
	c := &cobra.Command{
		Use: "update [OPTIONS] NODE", Short: "Change a machine's labels or availability", Args: exactly(1),
		Example: "  shoal node update --availability drain m2\n  shoal node update --label-add zone=a --label-rm old m2",
		RunE: func(c *cobra.Command, args []string) error {
			change := func(s *typesv1.NodeSpec) error { return changeNode(s, args[0], add, remove, availability, role) }
			return a.connect(c.Context(), func(cl *client.Client) error {
				if err := a.updateNode(c.Context(), cl, args[0], change); err != nil {
					return err
				}
				fmt.Fprintln(a.Out, args[0])
				return nil
			})
		},
	}
	c.Flags().StringArrayVar(&add, "label-add", nil, "add or replace a label: `key=value`")
	c.Flags().StringArrayVar(&remove, "label-rm", nil, "remove a label: `key`")
	c.Flags().StringVar(&availability, "availability", "", "active, pause or drain")
	c.Flags().StringVar(&role, "role", "", "not there yet")
	_ = c.Flags().MarkHidden("role") // the flag is there
	complete(c, "availability", words("active", "pause", "drain"))
	return completed(c, a.nodeNames)
}

func changeNode(s *typesv1.NodeSpec, name string, add, remove []string, availability, role string) error {
	var faults errs.Collector
	if s.Annotations == nil {
		s.Annotations = &typesv1.Annotations{}
	}
	labels, err := spec.Labels(add, s.Annotations.Labels)
	faults.Merge("label-add", err)
	for _, key := range remove {
		_, ok := labels[key]
		faults.Check(ok, "label-rm", "there is no label %q to remove", key)
		delete(labels, key)
	}
	s.Annotations.Labels = labels
	if availability != "" {
		v, ok := typesv1.Availability_value["AVAILABILITY_"+strings.ToUpper(availability)]
		faults.Check(ok && v > 0, "availability", "%q is not active, pause or drain", availability)
		s.Availability = typesv1.Availability(v)
	}
	if role != "" {
		v, ok := typesv1.NodeRole_value["NODE_ROLE_"+strings.ToUpper(role)]
		faults.Check(ok && v > 0, "role", "%q is not worker or manager", role)
		s.Role = typesv1.NodeRole(v)
	}
	return faults.Err(fmt.Sprintf("update node %q", name))
}

// updateNode reads, changes and writes, and does it again when somebody else was faster.
func (a *App) updateNode(ctx context.Context, cl *client.Client, name string, change func(*typesv1.NodeSpec) error) error {
	for try := 0; ; try++ {
		got, err := a.node(ctx, cl, name)
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
		if errs.KindOf(err) != errs.Conflict || try == maxTries {
			return wrap(err, "update node %q", name)
		}
	}
}

func (a *App) nodeRm() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm [OPTIONS] NODE [NODE...]", Aliases: []string{"remove"}, Short: "Remove machines that are down from the cluster", Args: atLeastOne(),
		Long: "Remove machines from the cluster. Their certificates are refused everywhere within seconds; a machine that is not\ndown needs --force.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				return each(args, func(name string) error {
					got, err := a.node(c.Context(), cl, name)
					if err != nil {
						return err
					}
					_, err = cl.Nodes.DeleteNode(c.Context(), &controlv1.DeleteNodeRequest{Node: got.GetNode().GetNode().GetMeta().GetId(), Force: force})
					if err != nil {
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
