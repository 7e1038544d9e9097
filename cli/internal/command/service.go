package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/progress"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func (a *App) serviceCommand() *cobra.Command {
	return group("service", "Services: numbers of equal containers that run on the cluster",
		a.serviceCreate(), a.serviceUpdate(), a.serviceRollback(), a.serviceScale(), a.serviceLs(), a.servicePs(), a.serviceInspect(), a.serviceRm())
}

// waiting are the flags of commands that show progress.
type waiting struct {
	detach, quiet bool
	updated       bool // the command has made a new version
}

func (w *waiting) flags(c *cobra.Command, what string) {
	c.Flags().BoolVarP(&w.detach, "detach", "d", false, "return at once instead of waiting until it is done")
	if what != "" {
		c.Flags().BoolVarP(&w.quiet, "quiet", "q", false, "show no progress")
	}
}

// converge waits and shows how far a service is. Ctrl-C ends the watching, not the work, and is no fault.
func (a *App) converge(ctx context.Context, cl *client.Client, w waiting, id, name string) error {
	if w.detach {
		return nil
	}
	watch := progress.Watch{Services: cl.Services, Tasks: cl.Tasks, Out: a.Err, Terminal: a.Terminal, Updated: w.updated}
	if w.quiet {
		watch.Out = nil
	}
	err := watch.Converge(ctx, id)
	if progress.Interrupted(err) {
		fmt.Fprintf(a.Err, "Operation continuing in background.\nUse 'shoal service ps %s' to check progress.\n", name)
		return nil
	}
	return wrap(err, "watch service %q", name)
}

func (a *App) serviceCreate() *cobra.Command {
	var w waiting
	c := &cobra.Command{
		Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a service", Args: atLeastOne(),
		Example: "  shoal service create --name web -p 80 --replicas 3 registry.example/web:1\n" +
			"  shoal service create --name db --network back -e MODE=fast --limit-memory 512m registry.example/db:2",
	}
	c.Flags().SetInterspersed(false) // what follows the image is the container's
	flags := spec.New(c.Flags(), a.Getenv)
	flags.Create()
	w.flags(c, "progress")
	complete(c, "network", a.networkNames)
	complete(c, "mode", words("replicated", "global", "replicated-job", "global-job"))
	complete(c, "strategy", words("spread", "binpack", "default"))
	c.RunE = func(c *cobra.Command, args []string) error {
		wanted, err := flags.Spec(args[0], args[1:])
		if err != nil {
			return err
		}
		return a.connect(c.Context(), func(cl *client.Client) error {
			resp, err := cl.Services.CreateService(c.Context(), &controlv1.CreateServiceRequest{Spec: wanted, RequestId: identity.NewID(a.Env.Rand)})
			if err != nil {
				return wrap(err, "create service %q", wanted.GetAnnotations().GetName())
			}
			id := resp.GetService().GetMeta().GetId()
			fmt.Fprintln(a.Out, id)
			return a.converge(c.Context(), cl, w, id, resp.GetService().GetSpec().GetAnnotations().GetName())
		})
	}
	return c
}

func service(ctx context.Context, cl *client.Client, name string) (*controlv1.GetServiceResponse, error) {
	got, err := cl.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: name})
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", name, err)
	}
	return got, nil
}

func (a *App) serviceLs() *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List services", Args: exactly(0),
		Long: "List services. Filters: id, name, label, mode.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.checked()
			if err != nil {
				return err
			}
			return a.connect(c.Context(), func(cl *client.Client) error {
				var rows []docker.ServiceRow
				err := client.Pages(func(token string) (string, error) {
					resp, err := cl.Services.ListServices(c.Context(), &controlv1.ListServicesRequest{Filters: filters, PageToken: token})
					for _, s := range resp.GetServices() {
						rows = append(rows, docker.ServiceRowOf(s, l.whole()))
					}
					return resp.GetNextPageToken(), err
				})
				if err != nil {
					return wrap(err, "list services")
				}
				columns := []table.Column{
					{Header: "ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "MODE", Field: "Mode"},
					{Header: "REPLICAS", Field: "Replicas"}, {Header: "IMAGE", Field: "Image"}, {Header: "PORTS", Field: "Ports"},
				}
				return printRows(a, &l, columns, rows, func(r docker.ServiceRow) string { return r.ID })
			})
		},
	}
	l.flags(c, "ids")
	return c
}

func (a *App) servicePs() *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "ps [OPTIONS] SERVICE [SERVICE...]", Short: "List the tasks of services, ended ones below their successors", Args: atLeastOne(),
		Long: "List the tasks of services. Filters: id, name, node, desired-state.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				var filters []string
				for _, name := range args {
					got, err := service(c.Context(), cl, name)
					if err != nil {
						return err
					}
					filters = append(filters, "service="+got.GetService().GetMeta().GetId())
				}
				return a.listTasks(c.Context(), cl, &l, filters)
			})
		},
	}
	l.flags(c, "task ids")
	return completed(c, a.serviceNames)
}

func (a *App) serviceInspect() *cobra.Command {
	var format string
	var pretty bool
	c := &cobra.Command{
		Use: "inspect [OPTIONS] SERVICE [SERVICE...]", Short: "Show all about services", Args: atLeastOne(),
		Example: "  shoal service inspect -f '{{json .Endpoint.Ports}}' web",
		RunE: func(c *cobra.Command, args []string) error {
			return a.connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Service
				fault := each(args, func(name string) error {
					got, err := service(c.Context(), cl, name)
					if err == nil {
						list = append(list, docker.ServiceOf(got.GetService()))
					}
					return err
				})
				if pretty && format == "" {
					format = docker.PrettyService
				}
				return joinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	c.Flags().BoolVar(&pretty, "pretty", false, "show it for people")
	return completed(c, a.serviceNames)
}
