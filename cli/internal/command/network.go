package command

import (
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func networkCommand(a *app.App) *cobra.Command {
	return app.Group("network", "Networks that containers of several machines share", networkCreate(a), networkLs(a), networkInspect(a), networkRm(a))
}

func networkCreate(a *app.App) *cobra.Command {
	var driver string
	var subnets, labels []string
	var internal, attachable bool
	c := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Create a network", Args: app.Exactly(1),
		Example: "  shoal network create -d overlay front\n  shoal network create --subnet 10.20.0.0/16 --internal back",
		RunE: func(c *cobra.Command, args []string) error {
			var faults errs.Collector
			set, err := spec.Labels(labels, nil)
			faults.Merge("label", err)
			faults.Check(!attachable, "attachable", "containers that no service has made cannot be on a network yet")
			if err := faults.Err(fmt.Sprintf("create network %q", args[0])); err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				resp, err := cl.Networks.CreateNetwork(c.Context(), &controlv1.CreateNetworkRequest{
					RequestId: identity.NewID(a.Env.Rand),
					Spec: &typesv1.NetworkSpec{
						Annotations: &typesv1.Annotations{Name: args[0], Labels: set}, Driver: driver, Subnets: subnets, Internal: internal,
					},
				})
				if err != nil {
					return app.Wrap(err, "create network %q", args[0])
				}
				fmt.Fprintln(a.Out, resp.GetNetwork().GetMeta().GetId())
				return nil
			})
		},
	}
	f := c.Flags()
	f.StringVarP(&driver, "driver", "d", "overlay", "driver: overlay")
	f.StringArrayVar(&subnets, "subnet", nil, "subnet as a `CIDR`; by default the next free one")
	f.StringArrayVar(&labels, "label", nil, "label the network: `key=value`")
	f.BoolVar(&internal, "internal", false, "no way out of the network")
	f.BoolVar(&attachable, "attachable", false, "not there yet")
	_ = f.MarkHidden("attachable") // the flag is there
	return c
}

func networkLs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List networks", Args: app.Exactly(0),
		Long: "List networks. Filters: id, name, label, driver.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.Checked()
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var rows []docker.NetworkRow
				err := client.Pages(func(token string) (string, error) {
					resp, err := cl.Networks.ListNetworks(c.Context(), &controlv1.ListNetworksRequest{Filters: filters, PageToken: token})
					for _, n := range resp.GetNetworks() {
						rows = append(rows, docker.NetworkRowOf(n, l.Whole()))
					}
					return resp.GetNextPageToken(), err
				})
				if err != nil {
					return app.Wrap(err, "list networks")
				}
				columns := []table.Column{
					{Header: "NETWORK ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "DRIVER", Field: "Driver"}, {Header: "SCOPE", Field: "Scope"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.NetworkRow) string { return r.ID },
					table.Column{Header: "CREATED AT", Field: "CreatedAt"}, table.Column{Header: "LABELS", Field: "Labels"},
					table.Column{Header: "INTERNAL", Field: "Internal"}, table.Column{Header: "IPV6", Field: "IPv6"})
			})
		},
	}
	l.Flags(c, "ids")
	return c
}

func networkInspect(a *app.App) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "inspect [OPTIONS] NETWORK [NETWORK...]", Short: "Show all about networks", Args: app.AtLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Network
				fault := app.Each(args, func(name string) error {
					n, err := app.Network(c.Context(), cl, name)
					if err == nil {
						list = append(list, docker.NetworkOf(n))
					}
					return err
				})
				return app.JoinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	return app.Completed(c, a.NetworkNames)
}

func networkRm(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "rm NETWORK [NETWORK...]", Aliases: []string{"remove"}, Short: "Remove networks that no service uses", Args: app.AtLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return app.Each(args, func(name string) error {
					if _, err := cl.Networks.DeleteNetwork(c.Context(), &controlv1.DeleteNetworkRequest{Network: name}); err != nil {
						return app.Wrap(err, "remove network %q", name)
					}
					fmt.Fprintln(a.Out, name)
					return nil
				})
			})
		},
	}
	return app.Completed(c, a.NetworkNames)
}
