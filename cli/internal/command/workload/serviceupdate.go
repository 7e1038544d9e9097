package workload

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/spec"
)

func serviceUpdate(a *app.App) *cobra.Command {
	var w Waiting
	var rollback bool
	var images imageFlags
	c := &cobra.Command{
		Use: "update [OPTIONS] SERVICE", Short: "Change a service", Args: app.Exactly(1),
		Example: "  shoal service update --image registry.example/web:2 --update-parallelism 2 --update-order start-first web\n" +
			"  shoal service update --force web",
	}
	flags := spec.New(c.Flags(), a.Getenv, a.Env.Files.Read)
	flags.Update()
	images.define(c)
	c.Flags().BoolVar(&rollback, "rollback", false, "go back to the version before, as 'service rollback'")
	w.Flags(c, "progress")
	app.Complete(c, "network-add", a.NetworkNames)
	app.Complete(c, "depends-on-add", a.ServiceNames)
	app.Complete(c, "strategy", app.Words("spread", "binpack", "default"))
	c.RunE = func(c *cobra.Command, args []string) error {
		if rollback {
			if err := alone(c, "rollback", "detach", "quiet", "context", "gateway"); err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error { return rollBack(c.Context(), a, cl, w, args[0], 0) })
		}
		return a.Connect(c.Context(), func(cl *client.Client) error {
			networks := func(name string) (string, error) {
				n, err := app.Network(c.Context(), cl, name)
				return n.GetMeta().GetId(), err
			}
			services := func(name string) (string, error) {
				got, err := app.Service(c.Context(), cl, name)
				return got.GetService().GetMeta().GetId(), err
			}
			change, err := images.change(c, a, cl, args[0])
			if err != nil {
				return err
			}
			svc, risen, err := changeService(c.Context(), a, cl, args[0], func(s *typesv1.ServiceSpec) error {
				if err := flags.Change(s, networks, services); err != nil {
					return err
				}
				change(s)
				return nil
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(a.Out, args[0])
			w.Updated = risen
			return Converge(c.Context(), a, cl, w, svc.GetMeta().GetId(), args[0])
		})
	}
	return app.Completed(c, a.ServiceNames)
}

// changeService reads, changes and writes, and does it again from what is there then when somebody else was faster.
// Risen says that there is a new version of what a task is.
func changeService(ctx context.Context, a *app.App, cl *client.Client, name string, change func(*typesv1.ServiceSpec) error) (svc *typesv1.Service, risen bool, err error) {
	request := identity.NewID(a.Env.Rand)
	for try := 0; ; try++ {
		got, err := app.Service(ctx, cl, name)
		if err != nil {
			return nil, false, err
		}
		next, err := changed(got, change)
		if err != nil {
			return nil, false, err
		}
		resp, err := cl.Services.UpdateService(ctx, &controlv1.UpdateServiceRequest{
			Service: got.GetService().GetMeta().GetId(), Version: got.GetVersion(), Spec: next, RequestId: fmt.Sprintf("%s-%d", request, try),
		})
		if err == nil {
			return resp.GetService(), resp.GetService().GetSpecVersion() > got.GetService().GetSpecVersion(), nil
		}
		if errs.KindOf(err) != errs.Conflict || try == app.MaxTries {
			return nil, false, app.Wrap(err, "update service %q", name)
		}
	}
}

// changed is the spec that a change leads to. It begins from what is in force: after a rollback by itself a person changes
// what they see, not the spec that has failed. A change that leaves the tasks alone keeps the rollback as it is.
func changed(got *controlv1.GetServiceResponse, change func(*typesv1.ServiceSpec) error) (*typesv1.ServiceSpec, error) {
	next, back := proto.CloneOf(got.GetService().GetSpec()), got.GetInForce()
	if back != nil {
		next.Task = proto.CloneOf(back)
	}
	if err := change(next); err != nil {
		return nil, err
	}
	if back != nil && proto.Equal(next.GetTask(), back) {
		next.Task = got.GetService().GetSpec().GetTask()
	}
	return next, nil
}

// alone refuses flags beside one that leaves no room for them.
func alone(c *cobra.Command, flag string, others ...string) error {
	var faults errs.Collector
	c.Flags().Visit(func(f *pflag.Flag) {
		faults.Check(f.Name == flag || slices.Contains(others, f.Name), f.Name, "cannot be given together with --%s", flag)
	})
	return faults.Err("update service")
}

func serviceRollback(a *app.App) *cobra.Command {
	var w Waiting
	var to uint64
	c := &cobra.Command{
		Use: "rollback [OPTIONS] SERVICE", Short: "Give a service its earlier version again", Args: app.Exactly(1),
		Long: "Give a service an earlier version of its task spec again, by default the one that was in force before. It is rolled\n" +
			"out by the rollback settings. 'shoal service inspect' lists the versions that are kept.",
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error { return rollBack(c.Context(), a, cl, w, args[0], to) })
		},
	}
	c.Flags().Uint64Var(&to, "to", 0, "spec `version` to go back to")
	w.Flags(c, "progress")
	return app.Completed(c, a.ServiceNames)
}

// rollBack goes back to a version; 0 is the one before.
func rollBack(ctx context.Context, a *app.App, cl *client.Client, w Waiting, name string, to uint64) error {
	resp, err := cl.Services.RollbackService(ctx, &controlv1.RollbackServiceRequest{
		Service: name, SpecVersion: to, RequestId: identity.NewID(a.Env.Rand),
	})
	if err != nil {
		return app.Wrap(err, "roll back service %q", name)
	}
	fmt.Fprintln(a.Out, name)
	w.Updated = true
	return Converge(ctx, a, cl, w, resp.GetService().GetMeta().GetId(), name)
}
