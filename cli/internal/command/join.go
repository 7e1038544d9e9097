package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/machine"
)

func (a *App) joinCommand() *cobra.Command {
	var req machine.Join
	c := &cobra.Command{
		Use: "join --token TOKEN [OPTIONS] HOST[:PORT]", Short: "Make this machine a part of a cluster", Args: exactly(1),
		Long: "Make this machine a worker or a manager of a cluster: the token decides. `shoal join-token worker|manager` on a\n" +
			"manager prints the whole line.\n\n" +
			"A manager that joined has no operator's certificate. Copy the folder ~/.config/shoal of the person who called\n" +
			"`shoal init` to use the cluster from another machine.",
		Example: "  shoal join --token SHOAL-1-... 10.0.0.1:2377",
		RunE: func(c *cobra.Command, args []string) error {
			if req.Token == "" {
				return &usageError{errs.New(errs.Invalid, "--token is missing: `shoal join-token worker` on a manager prints the whole line")}
			}
			req.Address = args[0]
			done, err := a.machine().Join(c.Context(), req)
			if err != nil {
				return err
			}
			kind := "worker"
			if done.Manager {
				kind = "manager"
			}
			fmt.Fprintf(a.Out, "This node joined a cluster as a %s.\n", kind)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&req.Token, "token", "", "the join `token`")
	f.StringVar(&req.Advertise, "advertise-addr", "", "`address` of this machine that the others dial (default the one on the way to HOST)")
	f.StringVar(&req.Listen, "listen-addr", "", "`address` to bind, when it is another one")
	return c
}

func (a *App) leaveCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use: "leave [OPTIONS]", Short: "Take this machine out of its cluster", Args: exactly(0),
		Long: "Take this machine out of its cluster: its processes stop, its containers, networks, certificates and configuration\n" +
			"are removed. The cluster lists it as down until `shoal node rm`. A manager needs --force.",
		RunE: func(c *cobra.Command, _ []string) error {
			left, err := a.machine().Leave(c.Context(), force)
			if err != nil {
				return err
			}
			for _, w := range left.Warnings {
				fmt.Fprintf(a.Err, "shoal: warning: %s\n", w)
			}
			fmt.Fprintln(a.Out, "Node left the cluster.")
			if left.Manager {
				fmt.Fprintf(a.Err, "If other managers remain, run this on one of them now: its vote counts until then.\n\n    shoal node rm --force %s\n\n", left.Machine)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "leave although this is a manager, or something can't be cleaned up")
	return c
}
