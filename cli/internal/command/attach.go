package command

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// attachWait is how long an attachment is waited for, attachPace the time between two looks.
const (
	attachWait = time.Minute
	attachPace = 200 * time.Millisecond
)

// attachFlags are those of `network attach`.
type attachFlags struct {
	name, node           string
	aliases, ips, labels []string
}

func networkAttach(a *app.App) *cobra.Command {
	var f attachFlags
	c := &cobra.Command{
		Use: "attach [OPTIONS] NETWORK NAMESPACE", Short: "Put a container of another tool on a network", Args: app.Exactly(2),
		Long: "Put a container of another tool on a network that was made with --attachable. NAMESPACE is the path of its network namespace, or the\n" +
			"id of a container in the machine's containerd. It gets an address, is found by its name, and asks 169.254.53.53 for names.\n" +
			"It is taken off by `network detach`, and when its namespace is gone. The cluster must allow it: `cluster update --allow-host-namespaces`.",
		Example: "  shoal network attach front /run/netns/blue\n  shoal network attach --name db front $(nerdctl inspect -f '{{.ID}}' postgres)\n" +
			"  shoal network attach --node m2 --name probe front /proc/4711/ns/net",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error { return f.attach(c.Context(), a, cl, args[0], args[1]) })
		},
	}
	s := c.Flags()
	s.StringVar(&f.name, "name", "", "`name` on the network; by default the last part of the path, or what the id begins with")
	s.StringVar(&f.node, "node", "self", "`node` that the namespace is on")
	s.StringArrayVar(&f.aliases, "alias", nil, "one more name on the network")
	s.StringArrayVar(&f.ips, "ip", nil, "`address` there, at most one of each family; by default the next free one")
	s.StringArrayVar(&f.labels, "label", nil, "label the service that stands for it: `key=value`")
	app.Complete(c, "node", a.NodeNames)
	return app.Completed(c, a.NetworkNames)
}

// namespaceOf takes what has a slash for a path.
func namespaceOf(text string) *typesv1.AttachedNamespace {
	if strings.Contains(text, "/") {
		return &typesv1.AttachedNamespace{Path: text}
	}
	return &typesv1.AttachedNamespace{Container: text}
}

// nameOf is the name of a namespace for which a person gave none: "blue" of /run/netns/blue, "pid-4711" of /proc/4711/ns/net.
func nameOf(a *typesv1.AttachedNamespace) string {
	if id := a.GetContainer(); id != "" {
		return strings.ReplaceAll(id[:min(12, len(id))], ".", "-")
	}
	if f := strings.Split(a.GetPath(), "/"); len(f) == 5 && f[1] == "proc" && f[4] == "net" {
		return "pid-" + f[2]
	}
	return strings.ReplaceAll(path.Base(a.GetPath()), ".", "-")
}

func (f *attachFlags) attach(ctx context.Context, a *app.App, cl *client.Client, network, namespace string) error {
	labels, err := spec.Labels(f.labels, nil)
	if err != nil {
		return err
	}
	node, err := a.Node(ctx, cl, f.node)
	if err != nil {
		return app.Wrap(err, "attach to network %q", network)
	}
	at := namespaceOf(namespace)
	if f.name == "" {
		f.name = nameOf(at)
	}
	made, err := cl.Services.CreateService(ctx, &controlv1.CreateServiceRequest{RequestId: identity.NewID(a.Env.Rand), Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: f.name, Labels: labels},
		Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: proto.Uint64(1)}},
		Endpoint:    &typesv1.EndpointSpec{Mode: typesv1.EndpointMode_ENDPOINT_MODE_DNSRR},
		Task: &typesv1.TaskSpec{
			Container: &typesv1.ContainerSpec{Attach: at},
			Restart:   &typesv1.RestartPolicy{Condition: typesv1.RestartCondition_RESTART_CONDITION_NONE},
			Placement: &typesv1.Placement{Constraints: []string{"node.id==" + node.GetNode().GetNode().GetMeta().GetId()}},
			Networks:  []*typesv1.NetworkAttachment{{Target: network, Aliases: f.aliases, Addresses: f.ips}},
		},
	}})
	if err != nil {
		return app.Wrap(err, "attach %q to network %q", namespace, network)
	}
	if a.Rehearse != nil {
		return nil
	}
	return attached(ctx, a, cl, network, made.GetService().GetMeta().GetId(), f.name)
}

// attached waits until a namespace is on its network. One that cannot be is taken off, so that nothing is left of the try.
func attached(ctx context.Context, a *app.App, cl *client.Client, network, service, name string) error {
	limited, cancel := context.WithTimeout(ctx, attachWait)
	defer cancel()
	said := ""
	for {
		got, err := cl.Networks.GetNetwork(limited, &controlv1.GetNetworkRequest{Network: network})
		for _, g := range got.GetGuests() {
			if g.GetServiceId() != service {
				continue
			}
			said = g.GetMessage()
			switch state := g.GetState(); {
			case state == typesv1.TaskState_TASK_STATE_RUNNING:
				for _, address := range g.GetAddresses() {
					fmt.Fprintln(a.Out, address)
				}
				return nil
			case state > typesv1.TaskState_TASK_STATE_RUNNING:
				_, err := cl.Services.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: service})
				return app.JoinFaults(errs.New(errs.Precondition, "attach %q to network %q: %s", name, network, said), err)
			}
		}
		if err != nil && limited.Err() == nil {
			return app.Wrap(err, "attach %q to network %q", name, network)
		}
		if run.Sleep(limited, attachPace) != nil {
			return errs.New(errs.Unavailable, "%q is not on network %q yet: %s; it will be as soon as it can, or `shoal network detach %s %s`", name, network, said, network, name)
		}
	}
}

func networkDetach(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "detach NETWORK NAME|NAMESPACE [NAME|NAMESPACE...]", Short: "Take containers of other tools off a network", Args: app.Between(2, -1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				got, err := cl.Networks.GetNetwork(c.Context(), &controlv1.GetNetworkRequest{Network: args[0]})
				if err != nil {
					return app.Wrap(err, "detach from network %q", args[0])
				}
				return app.Each(args[1:], func(name string) error {
					for _, g := range got.GetGuests() {
						if name != g.GetName() && name != docker.Namespace(g.GetNamespace()) {
							continue
						}
						if _, err := cl.Services.DeleteService(c.Context(), &controlv1.DeleteServiceRequest{Service: g.GetServiceId()}); err != nil {
							return app.Wrap(err, "detach %q from network %q", name, args[0])
						}
						fmt.Fprintln(a.Out, name)
						return nil
					}
					return errs.New(errs.NotFound, "no container of another tool is called %q on network %q; `shoal network attachments` lists them", name, args[0])
				})
			})
		},
	}
	return app.Completed(c, a.NetworkNames)
}

func networkAttachments(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "attachments [OPTIONS] [NETWORK...]", Short: "List containers of other tools on networks",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				if len(args) == 0 {
					err := client.Pages(func(token string) (string, error) {
						resp, err := cl.Networks.ListNetworks(c.Context(), &controlv1.ListNetworksRequest{PageToken: token})
						for _, n := range resp.GetNetworks() {
							if n.GetSpec().GetAttachable() {
								args = append(args, n.GetMeta().GetId())
							}
						}
						return resp.GetNextPageToken(), err
					})
					if err != nil {
						return app.Wrap(err, "list networks")
					}
				}
				var rows []docker.GuestRow
				for _, name := range args {
					got, err := cl.Networks.GetNetwork(c.Context(), &controlv1.GetNetworkRequest{Network: name})
					if err != nil {
						return app.Wrap(err, "list what is attached to network %q", name)
					}
					for _, g := range got.GetGuests() {
						rows = append(rows, docker.GuestRowOf(got.GetNetwork(), g))
					}
				}
				columns := []table.Column{
					{Header: "NETWORK", Field: "Network"}, {Header: "NAME", Field: "Name"}, {Header: "NODE", Field: "Node"}, {Header: "NAMESPACE", Field: "Namespace"},
					{Header: "ADDRESSES", Field: "Addresses"}, {Header: "CURRENT STATE", Field: "CurrentState"}, {Header: "ERROR", Field: "Error"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.GuestRow) string { return r.Name })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&l.Format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	f.BoolVarP(&l.Quiet, "quiet", "q", false, "show only names")
	return app.Completed(c, a.NetworkNames)
}
