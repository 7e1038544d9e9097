package data

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// Volumes is the group of commands about volumes.
func Volumes(a *app.App) *cobra.Command {
	return app.Group("volume", "Volumes: data on nodes that outlives containers", volumeCreate(a), volumeLs(a), volumeInspect(a), volumeRm(a), volumePrune(a))
}

// listVolumes asks for the volumes of nodes, all if none is named, and names those that can't be asked.
func listVolumes(ctx context.Context, a *app.App, cl *client.Client, nodes []string) ([]*logsv1.ListedVolume, error) {
	var out []*logsv1.ListedVolume
	told := map[string]bool{} // each page has them
	err := client.Pages(func(token string) (string, error) {
		resp, err := cl.Volumes.ListVolumes(ctx, &logsv1.ListVolumesRequest{Nodes: nodes, PageToken: token})
		for _, m := range resp.GetMissing() {
			if !told[m.GetNodeId()] {
				fmt.Fprintf(a.Err, "shoal: warning: %s can't be asked: %s\n", m.GetHostname(), m.GetReason())
			}
			told[m.GetNodeId()] = true
		}
		out = append(out, resp.GetVolumes()...)
		return resp.GetNextPageToken(), err
	})
	return out, app.Wrap(err, "list volumes")
}

func volumeCreate(a *app.App) *cobra.Command {
	var labels []string
	var node, driver string
	c := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Short: "Make an empty volume on a node", Args: app.Between(0, 1),
		Long:    "Make an empty volume on a node, before a service uses it. One that is there stays as it is.",
		Example: "  shoal volume create --node w1 --label tier=db data",
		RunE: func(c *cobra.Command, args []string) error {
			name := identity.NewID(a.Env.Rand)
			if len(args) > 0 {
				name = args[0]
			}
			var faults errs.Collector
			parsed, err := spec.Labels(labels, nil)
			faults.Merge("label", err)
			faults.Check(driver == "local", "driver", "%q is not there: volumes are folders of their nodes (local)", driver)
			if err := faults.Err(fmt.Sprintf("create volume %q", name)); err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				if _, err := cl.Volumes.CreateVolume(c.Context(), &logsv1.CreateVolumeRequest{Node: node, Name: name, Labels: parsed}); err != nil {
					return app.Wrap(err, "create volume %q", name)
				}
				fmt.Fprintln(a.Out, name)
				return nil
			})
		},
	}
	c.Flags().StringArrayVar(&labels, "label", nil, "label the volume: `key=value`")
	c.Flags().StringVar(&node, "node", "", "the `node` that gets it; may be left out where there is only one")
	c.Flags().StringVarP(&driver, "driver", "d", "local", "driver: local")
	app.Complete(c, "node", a.NodeNames)
	return c
}

func volumeLs(a *app.App) *cobra.Command {
	var l app.Listing
	var nodes []string
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List volumes of all nodes", Args: app.Exactly(0),
		Long: "List the named volumes of all nodes. A node that can't be asked is named.\nFilters: name, label, node, service, driver, dangling (true: no container uses it).",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := volumeFilters(&l)
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				all, err := listVolumes(c.Context(), a, cl, nodes)
				if err != nil {
					return err
				}
				var rows []docker.VolumeRow
				for _, v := range all {
					if filters.pass(v) {
						rows = append(rows, docker.VolumeRowOf(v))
					}
				}
				columns := []table.Column{
					{Header: "DRIVER", Field: "Driver"}, {Header: "VOLUME NAME", Field: "Name"}, {Header: "NODE", Field: "Node"},
					{Header: "USED BY", Field: "UsedBy"}, {Header: "STATUS", Field: "Status"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.VolumeRow) string { return r.Name },
					table.Column{Header: "NODE ID", Field: "NodeID"}, table.Column{Header: "SCOPE", Field: "Scope"}, table.Column{Header: "MOUNTPOINT", Field: "Mountpoint"},
					table.Column{Header: "LABELS", Field: "Labels"}, table.Column{Header: "CREATED AT", Field: "CreatedAt"},
					table.Column{Header: "SERVICE", Field: "Service"}, table.Column{Header: "SLOT", Field: "Slot"})
			})
		},
	}
	l.Flags(c, "names")
	nodeFlag(a, c, &nodes)
	return c
}

// nodeFlag asks some nodes alone.
func nodeFlag(a *app.App, c *cobra.Command, nodes *[]string) {
	c.Flags().StringArrayVar(nodes, "node", nil, "only of this `node`")
	app.Complete(c, "node", a.NodeNames)
}

func volumeInspect(a *app.App) *cobra.Command {
	var format string
	var nodes []string
	c := &cobra.Command{
		Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Short: "Show all about volumes", Args: app.AtLeastOne(),
		Long: "Show all about volumes. Of a name that several nodes have, those of all.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				all, err := listVolumes(c.Context(), a, cl, nodes)
				if err != nil {
					return err
				}
				var list []docker.Volume
				fault := app.Each(args, func(name string) error {
					before := len(list)
					for _, v := range all {
						if v.GetVolume().GetName() == name {
							list = append(list, docker.VolumeOf(v))
						}
					}
					if len(list) == before {
						return errs.New(errs.NotFound, "no such volume: %s", name)
					}
					return nil
				})
				return app.JoinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	nodeFlag(a, c, &nodes)
	return app.Completed(c, a.VolumeNames)
}

func volumeRm(a *app.App) *cobra.Command {
	var node string
	var force bool
	c := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"}, Short: "Remove volumes with all that is in them", Args: app.AtLeastOne(),
		Long: "Remove volumes that no container uses, with all that is in them. The slot of a volume with scope=slot begins anew, on whichever\n" +
			"node is best.",
		Example: "  shoal volume rm db.2.data\n  shoal volume rm --force db.2.data     its node is lost",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return app.Each(args, func(name string) error { return removeVolume(c.Context(), a, cl, node, name, force) })
			})
		},
	}
	c.Flags().StringVar(&node, "node", "", "the `node` whose volume is meant, if several have one of the name")
	c.Flags().BoolVarP(&force, "force", "f", false, "give up what a slot has on a node that can't be asked; it stays there")
	app.Complete(c, "node", a.NodeNames)
	return app.Completed(c, a.VolumeNames)
}

func removeVolume(ctx context.Context, a *app.App, cl *client.Client, node, name string, force bool) error {
	resp, err := cl.Volumes.RemoveVolume(ctx, &logsv1.RemoveVolumeRequest{Name: name, Node: node, Force: force})
	if err != nil {
		return app.Wrap(err, "remove volume %q", name)
	}
	if left := resp.GetLeft(); left != "" {
		fmt.Fprintf(a.Err, "shoal: warning: volume %q: %s\n", name, left)
	}
	fmt.Fprintln(a.Out, name)
	return nil
}
