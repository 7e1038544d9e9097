package command

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/layout"
	"github.com/shoalproject/shoal/cli/internal/machine"
	"github.com/shoalproject/shoal/cli/internal/release"
)

func leaveCommand(a *app.App) *cobra.Command {
	var req machine.Leave
	var roles []string
	c := &cobra.Command{
		Use: "leave [OPTIONS]", Short: "Take this machine out of its cluster", Args: app.Exactly(0),
		Long: "Take this machine out of its cluster: its processes stop, its containers, networks, certificates and configuration\n" +
			"are removed. The cluster lists it as down until `shoal node rm`. A manager needs --force.\n\n" +
			"With --roles these processes alone are taken back: each is drained, removed from the cluster, stopped, and its files\n" +
			"are removed. That takes an operator's context, or --force.",
		Example: "  shoal leave\n  shoal leave --roles dispatcher,gateway",
		RunE: func(c *cobra.Command, _ []string) error {
			var faults errs.Collector
			parsed, err := layout.ParseRoles(roles)
			faults.Merge("", err)
			faults.Check(!c.Flags().Changed("roles") || len(roles) > 0, "roles", "name at least one of %s", layout.Names(layout.All()))
			req.Roles = parsed
			if err := faults.Err("leave"); err != nil {
				return err
			}
			return leave(c.Context(), a, req)
		},
	}
	c.Flags().BoolVarP(&req.Force, "force", "f", false, "leave although this is a manager, or something can't be cleaned up")
	c.Flags().StringSliceVar(&roles, "roles", nil, "take back these `processes` alone, with commas")
	app.Complete(c, "roles", app.Words(roleNames(layout.All())...))
	return c
}

func leave(ctx context.Context, a *app.App, req machine.Leave) error {
	if !machineOf(a).AsksCluster(req) {
		return leaveNow(ctx, a, req)
	}
	_, c, err := a.Picked()
	if err != nil {
		return leaveNow(ctx, a, req) // nobody can be asked
	}
	// Another cluster would say that it has no such member, as if this one's were removed already.
	if own := machineOf(a).ClusterID(); own != "" && c.Cluster != "" && own != c.Cluster {
		if !req.Force {
			return errs.New(errs.Precondition, "the context %q is of cluster %s, and this machine is in cluster %s; name that one's context with --context",
				c.Name, c.Cluster, own)
		}
		return leaveNow(ctx, a, req)
	}
	leaving := req.Roles
	if len(leaving) == 0 {
		leaving = machineOf(a).Roles()
	}
	return a.ConnectBeside(ctx, roleNames(leaving), func(cl *client.Client) error {
		req.Cluster = &release.Cluster{Client: cl, Out: a.Err, Force: req.Force}
		return leaveNow(ctx, a, req)
	})
}

func leaveNow(ctx context.Context, a *app.App, req machine.Leave) error {
	left, err := machineOf(a).Leave(ctx, req)
	if err != nil {
		return err
	}
	for _, w := range left.Warnings {
		fmt.Fprintf(a.Err, "shoal: warning: %s\n", w)
	}
	if len(left.Stay) > 0 {
		fmt.Fprintf(a.Out, "This node gave back %s; it has %s.\n", layout.Names(left.Roles), layout.Names(left.Stay))
	} else {
		fmt.Fprintln(a.Out, "Node left the cluster.")
	}
	tellStillListed(a, req, left)
	return nil
}

// tellStillListed says what remains to be done in the cluster, by somebody who can ask it.
func tellStillListed(a *app.App, req machine.Leave, left machine.Left) {
	var members []string
	for _, r := range left.Roles {
		if layout.IsControl(r) {
			members = append(members, identity.RoleName(r)+"/"+left.Machine)
		}
	}
	remove := "shoal member rm " + strings.Join(members, " ")
	node := slices.ContainsFunc(left.Roles, func(r authzv1.Role) bool { return !layout.IsControl(r) })
	switch {
	case len(members) == 0 || req.Cluster != nil:
	case len(req.Roles) == 0 && left.Manager && node:
		fmt.Fprintf(a.Err, "If other managers remain, run this on one of them now: its vote counts until then.\n\n    shoal node rm --force %s\n\n", left.Machine)
	default:
		fmt.Fprintf(a.Err, "If the cluster still lists what left, run this where you have an operator's context:\n\n    %s\n\n", remove)
	}
}

func nodeReset(a *app.App) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "reset [OPTIONS]", Short: "Take this machine back to bare, without asking the cluster", Args: app.Exactly(0),
		Long: "Take this machine back to bare, whatever state it is in: its processes stop, and its containers, interfaces, rules,\n" +
			"certificates, configuration and data are removed, for ever. The cluster is not asked: where it still lives, remove the\n" +
			"machine there by `shoal node rm --force`.",
		RunE: func(c *cobra.Command, _ []string) error {
			m := machineOf(a)
			remains := m.Remains(c.Context())
			if !yes {
				fmt.Fprintf(a.Err, "This removes for ever, beside all containers and networks of shoal on this machine:\n")
				for _, r := range remains {
					fmt.Fprintln(a.Err, "    "+r)
				}
				if err := confirm(a, "Type yes to go on: "); err != nil {
					return err
				}
			}
			done, err := m.Reset(c.Context())
			for _, r := range done.Removed {
				fmt.Fprintln(a.Out, "removed "+r)
			}
			return app.JoinFaults(append([]error{err}, done.Faults...)...)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// confirm reads one line from the person.
func confirm(a *app.App, question string) error {
	fmt.Fprint(a.Err, question)
	var in io.Reader = strings.NewReader("")
	if a.In != nil {
		in = a.In
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if strings.TrimSpace(line) == "yes" {
		return nil
	}
	if err != nil {
		fmt.Fprintln(a.Err)
	}
	return errs.New(errs.Precondition, "nothing was changed; --yes goes on without asking")
}
