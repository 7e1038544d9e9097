package app

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/cli/internal/client"
)

// ConnectBeside calls f with the cluster, also if the named members, as role or role/machine, are the gateways by which it is
// reached: one that is drained or removed takes no connection any more, so the others are learnt before.
func (a *App) ConnectBeside(ctx context.Context, leaving []string, f func(c *client.Client) error) error {
	if !slices.ContainsFunc(leaving, func(name string) bool { return name == "gateway" || strings.HasPrefix(name, "gateway/") }) {
		return a.Connect(ctx, f)
	}
	var learnt []string
	err := a.Connect(ctx, func(cl *client.Client) (err error) {
		learnt, err = a.Gateways(ctx, cl)
		return err
	})
	if err != nil {
		fmt.Fprintf(a.Err, "shoal: warning: the cluster's other gateways could not be learnt: %s\n", err)
		return a.Connect(ctx, f)
	}
	said := a.Gateway
	a.Gateway = slices.Concat(said, slices.DeleteFunc(slices.Clone(learnt), func(g string) bool { return slices.Contains(said, g) }))
	err = a.Connect(ctx, f)
	if a.Gateway = said; err != nil {
		return err
	}
	return a.KeepGateways(learnt)
}

func (a *App) Gateways(ctx context.Context, cl *client.Client) ([]string, error) {
	list, err := cl.AllMembers(ctx, []string{"role=gateway"})
	if err != nil {
		return nil, err
	}
	_, c, err := a.Picked()
	return client.Gateways(c.Gateways, list), err
}

// KeepGateways writes them into the context, so that the person's tool survives the loss of the first manager. Those that the
// command line names are for one command alone.
func (a *App) KeepGateways(list []string) error {
	store, c, err := a.Picked()
	if err != nil || len(list) == 0 || len(a.Gateway) > 0 || slices.Equal(list, c.Gateways) {
		return err
	}
	c.Gateways = list
	return store.Put(c)
}
