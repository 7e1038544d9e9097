package diagnose

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/holdings"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// secondLook is how much later it is looked once more: what changes meanwhile is no leak. The lists of one look are not of one moment.
const secondLook = 2 * time.Second

// DoctorAddresses is `shoal doctor addresses`.
func DoctorAddresses(a *app.App) *cobra.Command {
	var format string
	var mend bool
	c := &cobra.Command{
		Use: "addresses [OPTIONS]", Short: "Look for addresses that are held and should not be", Args: app.Exactly(0),
		Long: "Look through all addresses that the cluster has given: such as two hold, as are held for a machine or a service that is\n" +
			"gone or by a task that should have ended, and as belong to no subnet. What it finds it looks for twice. It changes nothing,\n" +
			"but with --repair it has the tasks that hold such an address made anew with others, one after another as in any update: an\n" +
			"address is free when the container that had it has ended. It ends with 1 if two hold one address.",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				found, err := leaks(c.Context(), cl, a.Env.Now)
				if err != nil {
					return err
				}
				if err := tellLeaks(a, found, format); err != nil {
					return err
				}
				if mend {
					return repairLeaks(c.Context(), a, cl, found)
				}
				if n := faults(found); n > 0 {
					return errs.New(errs.Precondition, "the cluster's addresses have %s", app.Plural(n, "fault"))
				}
				return nil
			})
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "", "`template`: table, table TEMPLATE, json, or a Go template")
	f.BoolVar(&mend, "repair", false, "make the tasks anew that hold such an address")
	return c
}

// leaks are those that two looks see.
func leaks(ctx context.Context, cl *client.Client, now func() time.Time) ([]holdings.Leak, error) {
	look := func() ([]holdings.Leak, error) {
		c, err := gather(ctx, cl)
		if err != nil {
			return nil, err
		}
		return holdings.Audit(c, now()), nil
	}
	first, err := look()
	if err != nil || !slices.ContainsFunc(first, amiss) {
		return first, err
	}
	if err := run.Sleep(ctx, secondLook); err != nil {
		return nil, err
	}
	second, err := look()
	if err != nil {
		return nil, err
	}
	lasting := slices.DeleteFunc(slices.Clone(second), func(l holdings.Leak) bool {
		return amiss(l) && !slices.ContainsFunc(first, func(was holdings.Leak) bool { return was.Service == l.Service && was.What == l.What })
	})
	if len(lasting) == 0 {
		lasting = []holdings.Leak{{Finding: finding.Well(holdings.Check, "all that was amiss has changed within %s", secondLook)}}
	}
	return lasting, nil
}

func amiss(l holdings.Leak) bool { return l.Grade != finding.OK }

func faults(found []holdings.Leak) (n int) {
	for _, l := range found {
		if l.Grade == finding.Fault {
			n++
		}
	}
	return n
}

// gather lists all that holds addresses. Tasks come first: what begins meanwhile is then not taken for one without its service.
func gather(ctx context.Context, cl *client.Client) (c holdings.Cluster, err error) {
	for token := ""; ; {
		r, err := cl.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{PageToken: token})
		if err != nil {
			return c, err
		}
		for _, l := range r.GetTasks() {
			c.Tasks = append(c.Tasks, l.GetTask())
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	for token := ""; ; {
		r, err := cl.Services.ListServices(ctx, &controlv1.ListServicesRequest{PageToken: token})
		if err != nil {
			return c, err
		}
		for _, l := range r.GetServices() {
			c.Services = append(c.Services, l.GetService())
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	for token := ""; ; {
		r, err := cl.Networks.ListNetworks(ctx, &controlv1.ListNetworksRequest{PageToken: token})
		if err != nil {
			return c, err
		}
		c.Networks = append(c.Networks, r.GetNetworks()...)
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	c.Nodes, err = nodes(ctx, cl, nil)
	return c, err
}

func tellLeaks(a *app.App, found []holdings.Leak, format string) error {
	if format != "" {
		return table.Write(a.Out, table.List{Format: format, Columns: []table.Column{
			{Header: "GRADE", Field: "Grade"}, {Header: "WHAT", Field: "What"}, {Header: "FIX", Field: "Fix"},
		}, Headers: []table.Column{{Header: "WHY", Field: "Why"}, {Header: "SERVICE", Field: "Service"}}}, found)
	}
	for _, l := range found {
		fmt.Fprintf(a.Out, "%-8s %s\n", l.Grade, l.What)
		if l.Why != "" {
			fmt.Fprintf(a.Out, "%8s %s\n%8s fix: %s\n", "", l.Why, "", l.Fix)
		}
	}
	return nil
}

// repairLeaks has services make their tasks anew. It goes by the version of the service that is read here: one that changes meanwhile is
// left alone. The scheduler frees an address when the container that had it has ended, and never before.
func repairLeaks(ctx context.Context, a *app.App, cl *client.Client, found []holdings.Leak) error {
	var services []string
	for _, l := range found {
		if l.Service != "" && !slices.Contains(services, l.Service) {
			services = append(services, l.Service)
		}
	}
	for _, id := range services {
		r, err := cl.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: id})
		if err != nil {
			return err
		}
		spec := r.GetService().GetSpec()
		name := spec.GetAnnotations().GetName()
		if spec.GetTask() == nil {
			continue // it runs nothing that could be made anew
		}
		if r.GetInForce() != nil { // a failed update has gone back to it by itself
			spec.Task = r.GetInForce()
		}
		spec.Task.ForceUpdate++
		_, err = cl.Services.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: id, Version: r.GetVersion(), Spec: spec})
		if err != nil {
			return fmt.Errorf("make the tasks of %q anew: %w", name, err)
		}
		fmt.Fprintf(a.Err, "the tasks of %q are made anew: shoal service ps %s\n", name, name)
	}
	if len(services) == 0 {
		fmt.Fprintln(a.Err, "nothing is to be repaired here")
	}
	return nil
}
