package command

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/release"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func memberCommand(a *app.App) *cobra.Command {
	return app.Group("member", "Processes of the cluster's machines", memberLs(a), memberInspect(a), memberDrain(a), memberActivate(a),
		memberVote(a, "promote", "Let learners' stores vote", true), memberVote(a, "demote", "Let stores copy and not vote", false), memberRm(a))
}

func memberLs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List processes", Args: app.Exactly(0),
		Long: "List the cluster's control processes. Filters: role, node, health, drain.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.Checked()
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				list, err := cl.AllMembers(c.Context(), filters)
				if err != nil {
					return fmt.Errorf("list members: %w", err)
				}
				var rows []docker.MemberRow
				slices.SortStableFunc(list, memberOrder)
				for _, m := range list {
					rows = append(rows, docker.MemberRowOf(m, l.Whole()))
				}
				columns := []table.Column{
					{Header: "MEMBER", Field: "Name"}, {Header: "HOSTNAME", Field: "Hostname"}, {Header: "ADDRESS", Field: "Address"},
					{Header: "VERSION", Field: "Version"}, {Header: "HEALTH", Field: "Health"}, {Header: "LOAD", Field: "Load"},
					{Header: "DUTY", Field: "Duty"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.MemberRow) string { return r.ID },
					table.Column{Header: "ID", Field: "ID"}, table.Column{Header: "ROLE", Field: "Role"}, table.Column{Header: "MACHINE", Field: "Machine"},
					table.Column{Header: "LEASE", Field: "Lease"}, table.Column{Header: "DRAIN", Field: "Drain"}, table.Column{Header: "RAFT", Field: "Raft"})
			})
		},
	}
	l.Flags(c, "names")
	app.Complete(c, "filter", app.Words("role=", "node=", "health=", "drain="))
	return c
}

// memberOrder is by role, then by hostname.
func memberOrder(a, b *controlv1.ListedMember) int {
	key := func(l *controlv1.ListedMember) [3]string {
		m := l.GetMember()
		return [3]string{identity.RoleName(m.GetRole()), l.GetHostname(), m.GetMachineId()}
	}
	ka, kb := key(a), key(b)
	return slices.Compare(ka[:], kb[:])
}

func memberInspect(a *app.App) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "inspect [OPTIONS] MEMBER [MEMBER...]", Short: "Show all about processes", Args: app.AtLeastOne(),
		Long: "Show all about processes. A member is role/machine, where machine is an id, the beginning of one, or a hostname.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Member
				fault := app.Each(args, func(name string) error {
					got, err := cl.Members.GetMember(c.Context(), &controlv1.GetMemberRequest{Member: name})
					if err == nil {
						list = append(list, docker.MemberOf(got.GetMember()))
					}
					return app.Wrap(err, "member %q", name)
				})
				return app.JoinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	return app.Completed(c, a.MemberNames)
}

func memberDrain(a *app.App) *cobra.Command {
	var detach, force bool
	c := &cobra.Command{
		Use: "drain [OPTIONS] MEMBER [MEMBER...]", Short: "Let processes hand over what they have and take nobody new", Args: app.AtLeastOne(),
		Long: "Let processes hand over what they have: a dispatcher its machines, a scheduler its lease, a leading store the lead. They\n" +
			"get nobody new. The command waits until nothing is left on them; Ctrl-C ends the waiting, not the draining.",
		Example: "  shoal member drain dispatcher/m1",
		RunE: func(c *cobra.Command, args []string) error {
			return a.ConnectBeside(c.Context(), args, func(cl *client.Client) error {
				return app.Each(args, func(name string) error {
					err := (&release.Cluster{Client: cl, Out: a.Err}).DrainMember(c.Context(), name, detach, force)
					if err != nil && c.Context().Err() != nil {
						fmt.Fprintln(a.Err, "Operation continuing in background.")
						return nil
					}
					if err == nil {
						fmt.Fprintln(a.Out, name)
					}
					return err
				})
			})
		},
	}
	c.Flags().BoolVarP(&detach, "detach", "d", false, "return at once")
	c.Flags().BoolVarP(&force, "force", "f", false, "drain the last of a role, too")
	return app.Completed(c, a.MemberNames)
}

func memberActivate(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "activate MEMBER [MEMBER...]", Short: "Take back a drain", Args: app.AtLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return changeMembers(c.Context(), a, args, "activate", func(cl *client.Client, name string) error {
				return (&release.Cluster{Client: cl, Out: a.Err}).ActivateMember(c.Context(), name)
			})
		},
	}
	return app.Completed(c, a.MemberNames)
}

func memberVote(a *app.App, verb, short string, vote bool) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: verb + " [OPTIONS] MEMBER [MEMBER...]", Short: short, Args: app.AtLeastOne(),
		Example: "  shoal member " + verb + " store/m2",
		RunE: func(c *cobra.Command, args []string) error {
			return changeMembers(c.Context(), a, args, verb, func(cl *client.Client, name string) error {
				_, err := cl.Members.UpdateMember(c.Context(), &controlv1.UpdateMemberRequest{Member: name, Voter: &vote, Force: force})
				return err
			})
		},
	}
	if !vote {
		c.Flags().BoolVarP(&force, "force", "f", false, "do it although the quorum would be lost")
	}
	return app.Completed(c, a.MemberNames)
}

func memberRm(a *app.App) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "rm [OPTIONS] MEMBER [MEMBER...]", Aliases: []string{"remove"}, Short: "Remove processes from the cluster", Args: app.AtLeastOne(),
		Long: "Remove processes from the cluster: a store leaves the voters first. Their certificates are refused everywhere within\n" +
			"seconds. Drain them before; `shoal leave --roles` on the machine does all of it.",
		RunE: func(c *cobra.Command, args []string) error {
			return changeMembers(c.Context(), a, args, "remove", func(cl *client.Client, name string) error {
				return cl.RemoveMember(c.Context(), name, force)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "remove the last of a role, or although the quorum would be lost")
	return app.Completed(c, a.MemberNames)
}

// changeMembers does something for each member and prints the names of those for which it worked.
func changeMembers(ctx context.Context, a *app.App, names []string, verb string, change func(cl *client.Client, name string) error) error {
	return a.ConnectBeside(ctx, names, func(cl *client.Client) error {
		return app.Each(names, func(name string) error {
			if err := change(cl, name); err != nil {
				return app.Wrap(err, "%s member %q", verb, name)
			}
			fmt.Fprintln(a.Out, name)
			return nil
		})
	})
}

// nodeVote is Docker's word for what `member promote` and `demote` do to a machine's store.
func nodeVote(a *app.App, verb, short string, vote bool) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " NODE [NODE...]", Short: short, Args: app.AtLeastOne(),
		Long: short + ". A machine without a store becomes a manager by `shoal join --roles store,...` on it, with a manager's token.",
		RunE: func(c *cobra.Command, args []string) error {
			return changeMembers(c.Context(), a, args, verb, func(cl *client.Client, name string) error {
				got, err := a.Node(c.Context(), cl, name)
				if err != nil {
					return err
				}
				_, err = cl.Members.UpdateMember(c.Context(), &controlv1.UpdateMemberRequest{Member: "store/" + got.GetNode().GetNode().GetMeta().GetId(), Voter: &vote})
				if errs.KindOf(err) == errs.NotFound {
					return errs.New(errs.Precondition, "node %q has no store; `shoal join --roles store,...` on it, with a manager's token, gives it one", name)
				}
				return err
			})
		},
	}
	return app.Completed(c, a.NodeNames)
}
