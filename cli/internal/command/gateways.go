package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/cli/internal/client"
)

// connectBeside calls f with the cluster, also if the named members, as role or role/machine, are the gateways by which it is
// reached: one that is drained or removed takes no connection any more, so the others are learnt before.
func (a *App) connectBeside(ctx context.Context, leaving []string, f func(c *client.Client) error) error {
	if !slices.ContainsFunc(leaving, func(name string) bool { return name == "gateway" || strings.HasPrefix(name, "gateway/") }) {
		return a.connect(ctx, f)
	}
	var learnt []string
	err := a.connect(ctx, func(cl *client.Client) (err error) {
		learnt, err = a.gateways(ctx, cl)
		return err
	})
	if err != nil {
		fmt.Fprintf(a.Err, "shoal: warning: the cluster's other gateways could not be learnt: %s\n", err)
		return a.connect(ctx, f)
	}
	said := a.gateway
	a.gateway = slices.Concat(said, slices.DeleteFunc(slices.Clone(learnt), func(g string) bool { return slices.Contains(said, g) }))
	err = a.connect(ctx, f)
	if a.gateway = said; err != nil {
		return err
	}
	return a.keepGateways(learnt)
}

func (a *App) gateways(ctx context.Context, cl *client.Client) ([]string, error) {
	list, err := cl.AllMembers(ctx, []string{"role=gateway"})
	if err != nil {
		return nil, err
	}
	_, c, err := a.picked()
	return client.Gateways(c.Gateways, list), err
}

// keepGateways writes them into the context, so that the person's tool survives the loss of the first manager. Those that the
// command line names are for one command alone.
func (a *App) keepGateways(list []string) error {
	store, c, err := a.picked()
	if err != nil || len(list) == 0 || len(a.gateway) > 0 || slices.Equal(list, c.Gateways) {
		return err
	}
	c.Gateways = list
	return store.Put(c)
}
