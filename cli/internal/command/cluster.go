package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/spec"
)

func clusterCommand(a *app.App) *cobra.Command {
	return app.Group("cluster", "The cluster: what holds for all machines", clusterInspect(a), clusterUpdate(a))
}

func clusterInspect(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "inspect", Short: "Show the cluster's settings, as JSON", Args: app.Exactly(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				got, err := cl.Cluster.GetCluster(c.Context(), &controlv1.GetClusterRequest{})
				if err != nil {
					return app.Wrap(err, "inspect the cluster")
				}
				raw, err := protojson.Marshal(got.GetCluster().GetSpec())
				if err != nil {
					return err
				}
				var out bytes.Buffer // protojson's own spaces differ from build to build
				if err := json.Indent(&out, raw, "", "    "); err != nil {
					return err
				}
				fmt.Fprintln(a.Out, out.String())
				return nil
			})
		},
	}
}

func clusterUpdate(a *app.App) *cobra.Command {
	var change spec.ClusterChange
	c := &cobra.Command{
		Use: "update [OPTIONS]", Short: "Change what holds for the whole cluster", Args: app.Exactly(0),
		Long: "Change what holds for the whole cluster. What is not named stays as it is. A policy is asked when a service is made or\n" +
			"changed: services that are there already run on.",
		Example: "  shoal cluster update --allow-privileged\n  shoal cluster update --allow-host-namespaces=false\n" +
			"  shoal cluster update --preemption on --strategy binpack",
	}
	change.Flags(c.Flags())
	app.Complete(c, "preemption", app.Words("on", "off"))
	app.Complete(c, "encrypt-mesh", app.Words("on", "off"))
	app.Complete(c, "userns", app.Words("private", "host"))
	app.Complete(c, "strategy", app.Words("spread", "binpack"))
	app.Complete(c, "dataplane", app.Words("kernel", "userspace"))
	c.RunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().NFlag() == 0 {
			return &app.UsageError{Err: fmt.Errorf("nothing to change: give a flag")}
		}
		return a.Connect(c.Context(), func(cl *client.Client) error {
			now, err := updateCluster(c.Context(), cl, change.Apply)
			if err != nil {
				return err
			}
			if change.Policy() {
				fmt.Fprintf(a.Out, "allow-privileged: %t\nallow-host-namespaces: %t\n", now.GetAllowPrivileged(), now.GetAllowHostNamespaces())
			}
			return nil
		})
	}
	return c
}

// updateCluster reads, changes and writes, and does it again when somebody else was faster. It returns what containers may
// do from then on.
func updateCluster(ctx context.Context, cl *client.Client, change func(*typesv1.ClusterSpec) error) (*typesv1.ContainerPolicy, error) {
	for try := 0; ; try++ {
		got, err := cl.Cluster.GetCluster(ctx, &controlv1.GetClusterRequest{})
		if err != nil {
			return nil, app.Wrap(err, "update the cluster")
		}
		next := proto.CloneOf(got.GetCluster().GetSpec())
		if next == nil {
			next = &typesv1.ClusterSpec{}
		}
		if err := change(next); err != nil {
			return nil, err
		}
		_, err = cl.Cluster.UpdateCluster(ctx, &controlv1.UpdateClusterRequest{Version: got.GetVersion(), Spec: next})
		if errs.KindOf(err) != errs.Conflict || try == app.MaxTries {
			return next.GetContainers(), app.Wrap(err, "update the cluster")
		}
	}
}
