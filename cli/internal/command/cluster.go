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
)

func clusterCommand(a *app.App) *cobra.Command {
	return app.Group("cluster", "The cluster: what holds for all machines", clusterUpdate(a))
}

func clusterUpdate(a *app.App) *cobra.Command {
	var privileged, namespaces bool
	c := &cobra.Command{
		Use: "update [OPTIONS]", Short: "Change what holds for the whole cluster", Args: app.Exactly(0),
		Long: "Change what holds for the whole cluster. What is not named stays as it is. A policy is asked when a service is made or\n" +
			"changed: services that are there already run on.",
		Example: "  shoal cluster update --allow-privileged\n  shoal cluster update --allow-host-namespaces=false",
	}
	c.Flags().BoolVar(&privileged, "allow-privileged", false, "services may be privileged")
	c.Flags().BoolVar(&namespaces, "allow-host-namespaces", false, "services may share their node's process ids and memory")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().NFlag() == 0 {
			return &app.UsageError{Err: fmt.Errorf("nothing to change: give a flag")}
		}
		return a.Connect(c.Context(), func(cl *client.Client) error {
			now, err := updateCluster(c.Context(), cl, func(s *typesv1.ClusterSpec) {
				if s.Containers == nil {
					s.Containers = &typesv1.ContainerPolicy{}
				}
				if c.Flags().Changed("allow-privileged") {
					s.Containers.AllowPrivileged = privileged
				}
				if c.Flags().Changed("allow-host-namespaces") {
					s.Containers.AllowHostNamespaces = namespaces
				}
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "allow-privileged: %t\nallow-host-namespaces: %t\n", now.GetAllowPrivileged(), now.GetAllowHostNamespaces())
			return nil
		})
	}
	return c
}

// updateCluster reads, changes and writes, and does it again when somebody else was faster. It returns what containers may
// do from then on.
func updateCluster(ctx context.Context, cl *client.Client, change func(*typesv1.ClusterSpec)) (*typesv1.ContainerPolicy, error) {
	for try := 0; ; try++ {
		got, err := cl.Cluster.GetCluster(ctx, &controlv1.GetClusterRequest{})
		if err != nil {
			return nil, app.Wrap(err, "update the cluster")
		}
		next := proto.CloneOf(got.GetCluster().GetSpec())
		if next == nil {
			next = &typesv1.ClusterSpec{}
		}
		change(next)
		_, err = cl.Cluster.UpdateCluster(ctx, &controlv1.UpdateClusterRequest{Version: got.GetVersion(), Spec: next})
		if errs.KindOf(err) != errs.Conflict || try == app.MaxTries {
			return next.GetContainers(), app.Wrap(err, "update the cluster")
		}
	}
}
