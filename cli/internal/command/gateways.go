package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/cli/internal/client"
)

// connectBeside calls f with the cluster, also if the named members, as role or role/machine, are the gateways by which it is
// reached: one that is drained or removed takes no connection any more, so the context learns of the others before.
func (a *App) connectBeside(ctx context.Context, leaving []string, f func(c *client.Client) error) error {
	if !slices.ContainsFunc(leaving, func(name string) bool { return name == "gateway" || strings.HasPrefix(name, "gateway/") }) {
		return a.connect(ctx, f)
	}
	if err := a.connect(ctx, func(cl *client.Client) error { return a.learnGateways(ctx, cl) }); err != nil {
		fmt.Fprintf(a.Err, "shoal: warning: the cluster's other gateways could not be learnt: %s\n", err)
	}
	return a.connect(ctx, f)
}

// learnGateways adds gateways that came since to those of the context, or of the command line if it names any, so that the
// person's tool survives the loss of the first manager. Known ones keep their place: the person may have put the nearest
// first. Drained ones come last: they are tried when no other answers, and may be back at work by then.
func (a *App) learnGateways(ctx context.Context, cl *client.Client) error {
	list, err := allMembers(ctx, cl, []string{"role=gateway"})
	if err != nil {
		return err
	}
	var open, drained []string
	for _, l := range list {
		if m := l.GetMember(); m.GetSpec().GetDrain() {
			drained = append(drained, m.GetAddresses()...)
		} else {
			open = append(open, m.GetAddresses()...)
		}
	}
	if len(a.gateway) > 0 {
		a.gateway = appendNew(a.gateway, slices.Concat(open, drained))
		return nil
	}
	store, c, err := a.picked()
	if err != nil {
		return err
	}
	next := slices.DeleteFunc(slices.Clone(c.Gateways), func(g string) bool {
		full, err := client.Addresses([]string{g})
		return err == nil && len(open) > 0 && !slices.Contains(open, full[0])
	})
	next = appendNew(next, slices.Concat(open, drained))
	if len(next) == 0 || slices.Equal(next, c.Gateways) {
		return nil
	}
	c.Gateways = next
	return store.Put(c)
}

func appendNew(list, more []string) []string {
	out := slices.Clone(list)
	for _, g := range more {
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}
