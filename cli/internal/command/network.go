package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func (a *App) networkCommand() *cobra.Command {
	return group("network", "Networks that containers of several machines share", a.networkCreate(), a.networkLs(), a.networkInspect(), a.networkRm())
}

func (a *App) networkCreate() *cobra.Command {
	var driver string
	var subnets, labels []string
	var internal, attachable bool
	c := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Create a network", Args: exactly(1),
		Example: "  shoal network create -d overlay front\n  shoal network create --subnet 10.20.0.0/16 --internal back",
		RunE: func(c *cobra.Command, args []string) error {
			var faults errs.Collector
			set, err := spec.Labels(labels, nil)
			faults.Merge("label", err)
			faults.Check(!attachable, "attachable", "containers that no service has made cannot be on a network yet")
			if err := faults.Err(fmt.Sprintf("create network %q", args[0])); err != nil {
				return err
			}
			return a.connect(c.Context(), func(cl *client.Client) error {
				resp, err := cl.Networks.CreateNetwork(c.Context(), &controlv1.CreateNetworkRequest{
					RequestId: identity.NewID(a.Env.Rand),
					Spec: &typesv1.NetworkSpec{
						Annotations: &typesv1.Annotations{Name: args[0], Labels: set}, Driver: driver, Subnets: subnets, Internal: internal,
					},
				})
				if err != nil {
					return wrap(err, "create network %q", args[0])
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

func (a *App) networkLs() *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List networks", Args: exactly(0),
		Long: "List networks. Filters: id, name, label, driver.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.checked()
			if err != nil {
				return err
			}
			return a.connect(c.Context(), func(cl *client.Client) error {
				var rows []docker.NetworkRow
				err := client.Pages(func(token string) (string, error) {
					resp, err := cl.Networks.ListNetworks(c.Context(), &controlv1.ListNetworksRequest{Filters: filters, PageToken: token})
					for _, n := range resp.GetNetworks() {
						rows = append(rows, docker.NetworkRowOf(n, l.whole()))
					}
					return resp.GetNextPageToken(), err
				})
				if err != nil {
					return wrap(err, "list networks")
				}
				columns := []table.Column{
					{Header: "NETWORK ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "DRIVER", Field: "Driver"}, {Header: "SCOPE", Field: "Scope"},
				}
				return printRows(a, &l, columns, rows, func(r docker.NetworkRow) string { return r.ID },
					table.Column{Header: "CREATED AT", Field: "CreatedAt"}, table.Column{Header: "LABELS", Field: "Labels"},
					table.Column{Header: "INTERNAL", Field: "Internal"}, table.Column{Header: "IPV6", Field: "IPv6"})
			})
		},
	}
	l.flags(c, "ids")
	return c
}

func (a *App) networkInspect() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "inspect [OPTIONS] NETWORK [NETWORK...]", Short: "Show all about networks", Args: atLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Network
				fault := each(args, func(name string) error {
					n, err := network(c.Context(), cl, name)
					if err == nil {
						list = append(list, docker.NetworkOf(n))
					}
					return err
				})
				return joinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	return completed(c, a.networkNames)
}

func network(ctx context.Context, cl *client.Client, name string) (*typesv1.Network, error) {
	got, err := cl.Networks.GetNetwork(ctx, &controlv1.GetNetworkRequest{Network: name})
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", name, err)
	}
	return got.GetNetwork(), nil
}

func (a *App) networkRm() *cobra.Command {
	c := &cobra.Command{
		Use: "rm NETWORK [NETWORK...]", Aliases: []string{"remove"}, Short: "Remove networks that no service uses", Args: atLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				return each(args, func(name string) error {
					if _, err := cl.Networks.DeleteNetwork(c.Context(), &controlv1.DeleteNetworkRequest{Network: name}); err != nil {
						return wrap(err, "remove network %q", name)
					}
					fmt.Fprintln(a.Out, name)
					return nil
				})
			})
		},
	}
	return completed(c, a.networkNames)
}
