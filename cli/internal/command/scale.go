package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/spec"
)

func (a *App) serviceScale() *cobra.Command {
	var w waiting
	c := &cobra.Command{
		Use: "scale SERVICE=REPLICAS [SERVICE=REPLICAS...]", Short: "Set how many tasks services have", Args: atLeastOne(),
		Example: "  shoal service scale web=7 db=1",
		RunE: func(c *cobra.Command, args []string) error {
			orders, err := scales(args)
			if err != nil {
				return err
			}
			return a.connect(c.Context(), func(cl *client.Client) error { return a.scale(c.Context(), cl, w, orders) })
		},
	}
	w.flags(c, "")
	return completed(c, func(ctx context.Context) []string {
		var out []string
		for _, n := range a.serviceNames(ctx) {
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
func (a *App) scale(ctx context.Context, cl *client.Client, w waiting, orders []scaleOrder) error {
	var fault error
	ids := map[string]string{}
	for _, o := range orders {
		svc, _, err := a.changeService(ctx, cl, o.name, func(s *typesv1.ServiceSpec) error {
			return wrap(spec.SetReplicas(s, o.replicas), "scale %q", o.name)
		})
		if err != nil {
			fault = joinFaults(fault, err)
			continue
		}
		fmt.Fprintf(a.Out, "%s scaled to %d\n", o.name, o.replicas)
		ids[o.name] = svc.GetMeta().GetId()
	}
	for _, o := range orders {
		if ids[o.name] != "" && ctx.Err() == nil {
			fault = joinFaults(fault, a.converge(ctx, cl, w, ids[o.name], o.name))
		}
	}
	return fault
}
