package command

import (
	"fmt"

	"github.com/spf13/cobra"

	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
)

func joinTokenCommand(a *app.App) *cobra.Command {
	var quiet, rotate bool
	c := &cobra.Command{
		Use: "join-token [OPTIONS] worker|manager", Short: "Show or rotate a join token", Args: app.Exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			role, ok := map[string]typesv1.NodeRole{
				"worker": typesv1.NodeRole_NODE_ROLE_WORKER, "manager": typesv1.NodeRole_NODE_ROLE_MANAGER,
			}[args[0]]
			if !ok {
				return &app.UsageError{Err: errs.New(errs.Invalid, "%q is not worker or manager", args[0])}
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				token, addresses, err := joinToken(c, cl, role, rotate)
				if err != nil {
					return app.Wrap(err, "join token for a %s", args[0])
				}
				if quiet {
					fmt.Fprintln(a.Out, token)
					return nil
				}
				if rotate {
					fmt.Fprintf(a.Out, "Successfully rotated %s join token.\n\n", args[0])
				}
				if len(addresses) == 0 {
					return errs.New(errs.Unavailable, "no CA has told its address yet; try again in a moment")
				}
				fmt.Fprintf(a.Out, "To add a %s to this cluster, run the following command:\n\n    shoal join --token %s %s\n\n", args[0], token, addresses[0])
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "show only the token")
	c.Flags().BoolVar(&rotate, "rotate", false, "make a new token; the old one is refused from now on")
	return app.Completed(c, app.Words("worker", "manager"))
}

func joinToken(c *cobra.Command, cl *client.Client, role typesv1.NodeRole, rotate bool) (string, []string, error) {
	if rotate {
		got, err := cl.Tokens.RotateJoinToken(c.Context(), &cav1.RotateJoinTokenRequest{Role: role})
		return got.GetToken(), got.GetAddresses(), err
	}
	got, err := cl.Tokens.GetJoinToken(c.Context(), &cav1.GetJoinTokenRequest{Role: role})
	return got.GetToken(), got.GetAddresses(), err
}
