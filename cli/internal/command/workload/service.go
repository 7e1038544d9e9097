// Package workload is what people say about what runs: services and their tasks.
//
// It owns words and shapes alone: flags in, calls to the cluster, output out. Rules are the cluster's. Its commands are tested
// with all others, by package command.
package workload

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/command/inside"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/progress"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// Services is the group of commands about services.
func Services(a *app.App) *cobra.Command {
	return app.Group("service", "Services: numbers of equal containers that run on the cluster",
		serviceCreate(a), serviceUpdate(a), serviceRollback(a), serviceScale(a), serviceRebalance(a), serviceLs(a), servicePs(a), serviceInspect(a),
		serviceExplain(a), serviceRm(a), inside.Logs(a, "logs [OPTIONS] SERVICE|TASK...", a.TargetNames))
}

// Changes are the verbs that change services, for rehearsals.
func Changes(a *app.App) []*cobra.Command {
	return []*cobra.Command{serviceCreate(a), serviceUpdate(a), serviceRollback(a), serviceScale(a), serviceRebalance(a), serviceRm(a)}
}

// Waiting are the flags of commands that show progress.
type Waiting struct {
	Detach, Quiet bool
	Updated       bool // the command has made a new version
}

// Flags defines them; what is what the command shows, empty for nothing.
func (w *Waiting) Flags(c *cobra.Command, what string) {
	c.Flags().BoolVarP(&w.Detach, "detach", "d", false, "return at once instead of waiting until it is done")
	if what != "" {
		c.Flags().BoolVarP(&w.Quiet, "quiet", "q", false, "show no progress")
	}
}

// Converge waits and shows how far a service is. Ctrl-C ends the watching, not the work, and is no fault.
func Converge(ctx context.Context, a *app.App, cl *client.Client, w Waiting, id, name string) error {
	if w.Detach || a.Rehearse != nil {
		return nil
	}
	watch := progress.Watch{Services: cl.Services, Tasks: cl.Tasks, Out: a.Err, Terminal: a.Terminal, Updated: w.Updated}
	if w.Quiet {
		watch.Out = nil
	}
	err := watch.Converge(ctx, id)
	if progress.Interrupted(err) {
		fmt.Fprintf(a.Err, "Operation continuing in background.\nUse 'shoal service ps %s' to check progress.\n", name)
		return nil
	}
	return app.Wrap(err, "watch service %q", name)
}

func serviceCreate(a *app.App) *cobra.Command {
	var w Waiting
	var images imageFlags
	c := &cobra.Command{
		Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a service", Args: app.AtLeastOne(),
		Example: "  shoal service create --name web -p 80 --replicas 3 registry.example/web:1\n" +
			"  shoal service create --name db --network back -e MODE=fast --limit-memory 512m registry.example/db:2",
	}
	c.Flags().SetInterspersed(false) // what follows the image is the container's
	flags := spec.New(c.Flags(), a.Getenv, a.Env.Files.Read)
	flags.Create()
	images.define(c)
	w.Flags(c, "progress")
	app.Complete(c, "network", a.NetworkNames)
	app.Complete(c, "depends-on", a.ServiceNames)
	app.Complete(c, "mode", app.Words("replicated", "global", "replicated-job", "global-job"))
	app.Complete(c, "strategy", app.Words("spread", "binpack", "default"))
	c.RunE = func(c *cobra.Command, args []string) error {
		wanted, err := flags.Spec(args[0], args[1:])
		if err != nil {
			return err
		}
		return a.Connect(c.Context(), func(cl *client.Client) error {
			use(wanted, images.pin(c.Context(), a, args[0]))
			if err := images.login(c.Context(), a, cl, args[0]); err != nil {
				return err
			}
			resp, err := cl.Services.CreateService(c.Context(), &controlv1.CreateServiceRequest{Spec: wanted, RequestId: identity.NewID(a.Env.Rand)})
			if err != nil {
				return app.Wrap(err, "create service %q", wanted.GetAnnotations().GetName())
			}
			id := resp.GetService().GetMeta().GetId()
			fmt.Fprintln(a.Out, id)
			return Converge(c.Context(), a, cl, w, id, resp.GetService().GetSpec().GetAnnotations().GetName())
		})
	}
	return c
}

func serviceLs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List services", Args: app.Exactly(0),
		Long: "List services. Filters: id, name, label, mode.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.Checked()
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var rows []docker.ServiceRow
				err := client.Pages(func(token string) (string, error) {
					resp, err := cl.Services.ListServices(c.Context(), &controlv1.ListServicesRequest{Filters: filters, PageToken: token})
					for _, s := range resp.GetServices() {
						rows = append(rows, docker.ServiceRowOf(s, l.Whole()))
					}
					return resp.GetNextPageToken(), err
				})
				if err != nil {
					return app.Wrap(err, "list services")
				}
				columns := []table.Column{
					{Header: "ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "MODE", Field: "Mode"},
					{Header: "REPLICAS", Field: "Replicas"}, {Header: "IMAGE", Field: "Image"}, {Header: "PORTS", Field: "Ports"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.ServiceRow) string { return r.ID })
			})
		},
	}
	l.Flags(c, "ids")
	return c
}

func servicePs(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ps [OPTIONS] SERVICE [SERVICE...]", Short: "List the tasks of services, ended ones below their successors", Args: app.AtLeastOne(),
		Long: "List the tasks of services. Filters: id, name, node, desired-state.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var filters []string
				for _, name := range args {
					got, err := app.Service(c.Context(), cl, name)
					if err != nil {
						return err
					}
					filters = append(filters, "service="+got.GetService().GetMeta().GetId())
				}
				return ListTasks(c.Context(), a, cl, &l, filters)
			})
		},
	}
	l.Flags(c, "task ids")
	return app.Completed(c, a.ServiceNames)
}

func serviceInspect(a *app.App) *cobra.Command {
	var format string
	var pretty bool
	c := &cobra.Command{
		Use: "inspect [OPTIONS] SERVICE [SERVICE...]", Short: "Show all about services", Args: app.AtLeastOne(),
		Example: "  shoal service inspect -f '{{json .Endpoint.Ports}}' web",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Service
				fault := app.Each(args, func(name string) error {
					got, err := app.Service(c.Context(), cl, name)
					if err == nil {
						svc := docker.ServiceOf(docker.InForce(got.GetService(), got.GetInForce()))
						svc.Load = docker.LoadOf(got.GetLoad())
						list = append(list, svc)
					}
					return err
				})
				if pretty && format == "" {
					format = docker.PrettyService
				}
				return app.JoinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	c.Flags().BoolVar(&pretty, "pretty", false, "show it for people")
	return app.Completed(c, a.ServiceNames)
}
