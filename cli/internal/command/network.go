package command

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/command/diagnose"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func networkCommand(a *app.App) *cobra.Command {
	return app.Group("network", "Networks that containers of several machines share", networkCreate(a), networkLs(a), networkInspect(a), networkRm(a),
		networkAttach(a), networkDetach(a), networkAttachments(a), diagnose.Trace(a))
}

// networkFlags are those of `network create`.
type networkFlags struct {
	spec                       typesv1.NetworkSpec
	labels, auxiliary, options []string
}

func networkCreate(a *app.App) *cobra.Command {
	var f networkFlags
	c := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Create a network", Args: app.Exactly(1),
		Example: "  shoal network create -d overlay front\n  shoal network create --subnet 10.20.0.0/16 --internal back\n" +
			"  shoal network create --opt encrypted vault\n" +
			"  shoal network create --subnet 10.30.0.0/16 --ip-range 10.30.1.0/24 --aux-address printer=10.30.0.9 --ipv6 office",
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.read(args[0]); err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				resp, err := cl.Networks.CreateNetwork(c.Context(), &controlv1.CreateNetworkRequest{
					RequestId: identity.NewID(a.Env.Rand), Spec: &f.spec,
				})
				if err != nil {
					return app.Wrap(err, "create network %q", args[0])
				}
				fmt.Fprintln(a.Out, resp.GetNetwork().GetMeta().GetId())
				return nil
			})
		},
	}
	s := c.Flags()
	s.StringVarP(&f.spec.Driver, "driver", "d", "overlay", "driver: overlay")
	s.StringArrayVar(&f.spec.Subnets, "subnet", nil, "subnet as a `CIDR`, at most one of each family; by default the next free one")
	s.StringArrayVar(&f.spec.Gateways, "gateway", nil, "`address` kept for a gateway of your own; the first of a subnet is kept anyway")
	s.StringArrayVar(&f.spec.IpRanges, "ip-range", nil, "part of a subnet that addresses are given from, as a `CIDR`")
	s.StringArrayVar(&f.auxiliary, "aux-address", nil, "address of somebody else on the network: `name=address`")
	s.BoolVar(&f.spec.Ipv6, "ipv6", false, "an IPv6 subnet too; a private one if --subnet names none")
	s.StringArrayVarP(&f.options, "opt", "o", nil, "mtu=`number` (or com.docker.network.driver.mtu): at most that much in a packet; encrypted: between machines encrypted or not at all")
	s.StringArrayVar(&f.labels, "label", nil, "label the network: `key=value`")
	s.BoolVar(&f.spec.Internal, "internal", false, "no way out of the network")
	s.BoolVar(&f.spec.Attachable, "attachable", false, "let containers of other tools be put on it; see network attach")
	return c
}

// read takes what is more than a value from the flags.
func (f *networkFlags) read(name string) error {
	var faults errs.Collector
	labels, err := spec.Labels(f.labels, nil)
	faults.Merge("label", err)
	f.spec.Annotations = &typesv1.Annotations{Name: name, Labels: labels}
	f.spec.AuxAddresses, err = spec.Labels(f.auxiliary, nil)
	faults.Merge("aux-address", err)
	for _, text := range f.options {
		key, value, valued := strings.Cut(text, "=")
		if key == "encrypted" { // Docker takes the mere word, whatever stands behind it
			on, err := strconv.ParseBool(value)
			faults.Check(err == nil || value == "", "opt", "encrypted=%s is neither true nor false", value)
			f.spec.Encrypted = on || !valued || value == ""
			continue
		}
		n, err := strconv.ParseUint(value, 10, 32)
		switch {
		case key != "mtu" && key != "com.docker.network.driver.mtu":
			faults.Add("opt", "%q is not known; there are mtu and encrypted", key)
		case err != nil:
			faults.Add("opt", "%q is no number of bytes", value)
		}
		f.spec.Mtu = uint32(n)
	}
	return faults.Err(fmt.Sprintf("create network %q", name))
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
					for i, n := range resp.GetNetworks() {
						usage := &controlv1.NetworkUsage{} // of an older store
						if i < len(resp.GetUsage()) {
							usage = resp.GetUsage()[i]
						}
						rows = append(rows, docker.NetworkRowOf(n, usage, l.Whole()))
					}
					return resp.GetNextPageToken(), err
				})
				if err != nil {
					return app.Wrap(err, "list networks")
				}
				columns := []table.Column{
					{Header: "NETWORK ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "DRIVER", Field: "Driver"}, {Header: "SCOPE", Field: "Scope"},
					{Header: "ADDRESSES", Field: "Usage"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.NetworkRow) string { return r.ID },
					table.Column{Header: "CREATED AT", Field: "CreatedAt"}, table.Column{Header: "LABELS", Field: "Labels"},
					table.Column{Header: "INTERNAL", Field: "Internal"}, table.Column{Header: "IPV6", Field: "IPv6"},
					table.Column{Header: "ENCRYPTED", Field: "Encrypted"}, table.Column{Header: "ATTACHABLE", Field: "Attachable"})
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
					resp, err := cl.Networks.GetNetwork(c.Context(), &controlv1.GetNetworkRequest{Network: name})
					if err != nil {
						return app.Wrap(err, "inspect network %q", name)
					}
					list = append(list, docker.NetworkOf(resp.GetNetwork(), resp.GetUsage(), resp.GetGuests()))
					return nil
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
