package command

import (
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func versionCommand(a *app.App) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "version [OPTIONS]", Short: "Show the versions of this tool and of the cluster", Args: app.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			words := strings.Fields(run.Version())
			commit, committed := run.Commit()
			v := docker.Versions{Client: docker.ClientVersion{
				Version: words[0], GoVersion: words[1], Platform: words[2], Commit: commit, Committed: committed,
			}}
			fault := a.Connect(c.Context(), func(cl *client.Client) error {
				got, err := cl.Cluster.GetVersion(c.Context(), &controlv1.GetVersionRequest{})
				if err != nil {
					return app.Wrap(err, "version of the cluster")
				}
				release, _, _ := strings.Cut(got.GetVersion(), " ")
				v.Server = &docker.ServerVersion{
					Version: release, GoVersion: got.GetGoVersion(), Leader: got.GetLeader(),
					Revision: got.GetStore().GetRevision(), Epoch: got.GetStore().GetEpoch().GetNumber(),
				}
				return nil
			})
			// Without a cluster there is still a client to tell about.
			if errs.KindOf(fault) == errs.Precondition && a.ContextName == "" {
				fault = nil
			}
			switch format {
			case "":
				return app.JoinFaults(table.Inspect(a.Out, docker.PrettyVersion, []docker.Versions{v}), fault)
			case "json":
				return app.JoinFaults(table.Inspect(a.Out, "{{json .}}", []docker.Versions{v}), fault)
			}
			return app.JoinFaults(table.Inspect(a.Out, format, []docker.Versions{v}), fault)
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	return c
}
