package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/progress"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

func (a *App) serviceCommand() *cobra.Command {
	return group("service", "Services: numbers of equal containers that run on the cluster",
		a.serviceCreate(), a.serviceUpdate(), a.serviceScale(), a.serviceLs(), a.servicePs(), a.serviceInspect(), a.serviceRm())
}

// waiting are the flags of commands that show progress.
type waiting struct{ detach, quiet bool }

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
	watch := progress.Watch{Services: cl.Services, Tasks: cl.Tasks, Out: a.Err, Terminal: a.Terminal}
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

func (a *App) serviceUpdate() *cobra.Command {
	var w waiting
	c := &cobra.Command{
		Use: "update [OPTIONS] SERVICE", Short: "Change a service", Args: exactly(1),
		Example: "  shoal service update --image registry.example/web:2 --update-parallelism 2 --update-order start-first web\n" +
			"  shoal service update --force web",
	}
	flags := spec.New(c.Flags(), a.Getenv)
	flags.Update()
	w.flags(c, "progress")
	complete(c, "network-add", a.networkNames)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.connect(c.Context(), func(cl *client.Client) error {
			networks := func(name string) (string, error) {
				n, err := network(c.Context(), cl, name)
				return n.GetMeta().GetId(), err
			}
			svc, err := a.changeService(c.Context(), cl, args[0], func(s *typesv1.ServiceSpec) error { return flags.Change(s, networks) })
			if err != nil {
				return err
			}
			fmt.Fprintln(a.Out, args[0])
			return a.converge(c.Context(), cl, w, svc.GetMeta().GetId(), args[0])
		})
	}
	return completed(c, a.serviceNames)
}

// changeService reads, changes and writes, and does it again from what is there then when somebody else was faster.
func (a *App) changeService(ctx context.Context, cl *client.Client, name string, change func(*typesv1.ServiceSpec) error) (*typesv1.Service, error) {
	request := identity.NewID(a.Env.Rand)
	for try := 0; ; try++ {
		got, err := service(ctx, cl, name)
		if err != nil {
			return nil, err
		}
		next := proto.CloneOf(got.GetService().GetSpec())
		if err := change(next); err != nil {
			return nil, err
		}
		resp, err := cl.Services.UpdateService(ctx, &controlv1.UpdateServiceRequest{
			Service: got.GetService().GetMeta().GetId(), Version: got.GetVersion(), Spec: next, RequestId: fmt.Sprintf("%s-%d", request, try),
		})
		if err == nil {
			return resp.GetService(), nil
		}
		if errs.KindOf(err) != errs.Conflict || try == maxTries {
			return nil, wrap(err, "update service %q", name)
		}
	}
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
				err := pages(func(token string) (string, error) {
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
					format = prettyService
				}
				return joinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	c.Flags().BoolVar(&pretty, "pretty", false, "show it for people")
	return completed(c, a.serviceNames)
}
