package workload

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/spec"
)

func serviceScale(a *app.App) *cobra.Command {
	var w Waiting
	c := &cobra.Command{
		Use: "scale SERVICE=REPLICAS [SERVICE=REPLICAS...]", Short: "Set how many tasks services have", Args: app.AtLeastOne(),
		Example: "  shoal service scale web=7 db=1",
		RunE: func(c *cobra.Command, args []string) error {
			orders, err := scales(args)
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error { return scale(c.Context(), a, cl, w, orders) })
		},
	}
	w.Flags(c, "")
	return app.Completed(c, func(ctx context.Context) []string {
		var out []string
		for _, n := range a.ServiceNames(ctx) {
			out = append(out, n+"=")
		}
		return out
	})
}

type scaleOrder struct {
	name     string
	replicas uint64
}

// scales reads all arguments before any service is changed.
func scales(args []string) ([]scaleOrder, error) {
	var faults errs.Collector
	var out []scaleOrder
	for _, arg := range args {
		name, number, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			faults.Add(arg, "is not SERVICE=REPLICAS")
			continue
		}
		n, err := spec.ParseCount(number)
		faults.Merge(name, err)
		out = append(out, scaleOrder{name, n})
	}
	return out, faults.Err("scale")
}

// scale changes all services first and then watches them one after another.
func scale(ctx context.Context, a *app.App, cl *client.Client, w Waiting, orders []scaleOrder) error {
	var fault error
	ids := map[string]string{}
	for _, o := range orders {
		svc, _, err := changeService(ctx, a, cl, o.name, func(s *typesv1.ServiceSpec) error {
			return app.Wrap(spec.SetReplicas(s, o.replicas), "scale %q", o.name)
		})
		if err != nil {
			fault = app.JoinFaults(fault, err)
			continue
		}
		fmt.Fprintf(a.Out, "%s scaled to %d\n", o.name, o.replicas)
		ids[o.name] = svc.GetMeta().GetId()
	}
	for _, o := range orders {
		if ids[o.name] != "" && ctx.Err() == nil {
			fault = app.JoinFaults(fault, Converge(ctx, a, cl, w, ids[o.name], o.name))
		}
	}
	return fault
}
