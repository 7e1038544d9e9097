package tables

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/holder"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Holder is the package holder's.
func (k *Kernel) Holder(l mesh.Listener) string { return holder.Of(l.Network, l.Port) }

// Reset removes all that is ours from the machine: links (the agent's host ends too), routes, and the packet filter with
// SHOAL-USER. Sysctls stay: somebody else may rely on them by now.
func (k *Kernel) Reset(ctx context.Context) error {
	var faults []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := k.ourPolicies(family)
		faults = append(faults, err)
		for _, r := range rules {
			faults = append(faults, ignore(k.nl.RuleDel(&r), unix.ENOENT))
		}
		routes, err := k.ourRoutes(family)
		faults = append(faults, err)
		for _, r := range routes {
			faults = append(faults, ignore(k.nl.RouteDel(&r), unix.ESRCH))
		}
	}
	links, err := whole(func() ([]netlink.Link, error) { return k.nl.LinkList() })
	faults = append(faults, err)
	for _, l := range links {
		if kernel.Ours(l.Attrs().Name) {
			faults = append(faults, ignore(k.nl.LinkDel(l), unix.ENODEV))
		}
	}
	return errors.Join(append(faults, ctx.Err(), removeFilter())...)
}

func removeFilter() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, t := range []*nftables.Table{newFilter().table, newTunnelSide().table} {
		if _, err := conn.ListTableOfFamily(tableName, t.Family); err == nil {
			conn.DelTable(t)
		} else if err := ignoreAbsent(err); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove the packet filter: %w", err)
	}
	return nil
}
