package tables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	vnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// Watch hears of what somebody takes away: links, addresses, routes, rules, permanent entries, and any change of our tables
// that is not this process's own. The kernel may drop notices when it has many: they are hints, and the caller reads on a
// clock too.
func (k *Kernel) Watch(ctx context.Context, notify func()) error {
	routes, err := listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("watch links and routes: %w", err)
	}
	filter, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return errors.Join(fmt.Errorf("watch the packet filter: %w", err), routes.Close())
	}
	k.own.Store(0)
	k.ownNeighbours.Store(0)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { _, _ = routes.Close(), filter.Close() }) // ends both readings
	side := run.Async(ctx, func(context.Context) (struct{}, error) {
		defer cancel()
		return struct{}{}, hear(routes, notify, k.isLoss)
	})
	err = hear(filter, notify, k.foreign())
	cancel()
	err = errors.Join(err, (<-side).Err)
	if cause := ctx.Err(); cause != nil && errors.Is(err, unix.EBADF) {
		return cause
	}
	return err
}

func listen(family int, groups ...uint32) (*netlink.Conn, error) {
	conn, err := netlink.Dial(family, nil)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if err := conn.JoinGroup(g); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// hear reads until the socket is closed.
func hear(conn *netlink.Conn, notify func(), matters func(netlink.Message) bool) error {
	for {
		messages, err := conn.Receive()
		if errors.Is(err, unix.ENOBUFS) { // notices were lost
			notify()
			continue
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if matters(m) {
				notify()
			}
		}
	}
}

// isLoss says that something that may be ours went, or a link changed.
func (k *Kernel) isLoss(m netlink.Message) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// struct ifinfomsg is 16 bytes, attributes follow (rtnetlink(7)).
		return len(m.Data) > unix.SizeofIfInfomsg && kernel.Managed(linkName(m.Data[unix.SizeofIfInfomsg:]))
	case unix.RTM_DELROUTE:
		// struct rtmsg: family, dst_len, src_len, tos, table, protocol.
		return len(m.Data) > 5 && m.Data[5] == Protocol
	case unix.RTM_DELNEIGH:
		// struct ndmsg: family, padding, ifindex (4), state (2).
		lasting := uint16(vnetlink.NUD_PERMANENT)
		if len(m.Data) > 0 && m.Data[0] == unix.AF_BRIDGE {
			lasting |= vnetlink.NUD_NOARP
			k.putBack(m.Data)
		}
		if len(m.Data) >= 10 && binary.NativeEndian.Uint16(m.Data[8:])&vnetlink.NUD_FAILED != 0 {
			// The kernel marks a neighbour as failed before it goes, also a permanent one. Those of other links come and go.
			link, err := k.nl.LinkByIndex(int(int32(binary.NativeEndian.Uint32(m.Data[4:]))))
			return err == nil && kernel.Managed(link.Attrs().Name) && !spend(&k.ownNeighbours)
		}
		return len(m.Data) >= 10 && binary.NativeEndian.Uint16(m.Data[8:])&lasting != 0
	case unix.RTM_NEWADDR:
		// struct ifaddrmsg: family, prefixlen, flags, scope. Each new link gets an address of its own a while later.
		return len(m.Data) > 3 && m.Data[3] != unix.RT_SCOPE_LINK
	case unix.RTM_DELRULE, unix.RTM_DELADDR:
		return true
	}
	return false
}

// putBack makes a forwarding entry again that somebody has taken from a container's port of a bridge: the agent has locked the port
// to it, and the container would be silent for good. An entry that has gone with its port cannot come back, and need not.
func (k *Kernel) putBack(data []byte) {
	gone, err := vnetlink.NeighDeserialize(data)
	if err != nil || gone.State&vnetlink.NUD_NOARP == 0 || gone.MasterIndex == 0 {
		return
	}
	link, err := k.nl.LinkByIndex(gone.LinkIndex)
	if err != nil || !kernel.HostEnd(link.Attrs().Name) || link.Attrs().MasterIndex != gone.MasterIndex {
		return
	}
	_ = k.nl.NeighSet(&vnetlink.Neigh{ // the port may be going at this moment
		LinkIndex: gone.LinkIndex, Family: unix.AF_BRIDGE, Flags: vnetlink.NTF_MASTER, State: vnetlink.NUD_NOARP, HardwareAddr: gone.HardwareAddr,
	})
}

func linkName(attributes []byte) string {
	a, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return ""
	}
	for a.Next() {
		if a.Type() == unix.IFLA_IFNAME {
			return a.String()
		}
	}
	return ""
}

// foreign tells changes of our tables that others make. A transaction's notices end with that of its generation; as many as
// we have made are ours.
func (k *Kernel) foreign() func(netlink.Message) bool {
	ours := false // this transaction is about a table of our name
	return func(m netlink.Message) bool {
		if m.Header.Type != netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN) {
			ours = ours || len(m.Data) > 4 && tableOf(m.Data[4:]) == tableName
			return false
		}
		concerns := ours
		ours = false
		return concerns && !spend(&k.own)
	}
}

// spend takes one off a count of what was ours, if there is one.
func spend(count *atomic.Int64) bool {
	if count.Load() <= 0 {
		return false
	}
	count.Add(-1)
	return true
}

// dropNeighbour removes a neighbour, of which the watch is not to tell.
func (k *Kernel) dropNeighbour(entry *vnetlink.Neigh) error {
	k.ownNeighbours.Add(1)
	err := k.nl.NeighDel(entry)
	if err != nil {
		k.ownNeighbours.Add(-1)
	}
	return ignore(err, unix.ENOENT)
}

// tableOf is the first attribute of what changes: whatever it is, that is its table's name.
func tableOf(attributes []byte) string {
	a, err := netlink.NewAttributeDecoder(attributes)
	if err != nil || !a.Next() || a.Type() != unix.NFTA_TABLE_NAME {
		return ""
	}
	return a.String()
}

// Transact makes one transaction of ours, of which the watch is not to tell.
func (k *Kernel) Transact(flush func() error) error {
	k.own.Add(1)
	err := flush()
	if err != nil {
		k.own.Add(-1)
	}
	return err
}
