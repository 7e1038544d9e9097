package voice

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// unlock gives ports back the forwarding entries to which the agent has locked them, where somebody has taken them away: such a port is
// silent. The agent says on each port, in its alias, which address it is for.
func unlock() (mended int, failed error) {
	links, err := netlink.LinkList()
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, nil // links come and go: the next look sees it
	}
	if err != nil {
		return 0, fmt.Errorf("list ports: %w", err)
	}
	lost := map[int]net.HardwareAddr{}
	for _, l := range links {
		a := l.Attrs()
		mac, err := net.ParseMAC(a.Alias)
		if err == nil && a.MasterIndex != 0 && kernel.HostEnd(a.Name) {
			lost[a.Index] = mac
		}
	}
	entries, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("list forwarding entries: %w", err)
	}
	for _, e := range entries {
		if e.State&(netlink.NUD_NOARP|netlink.NUD_PERMANENT) != 0 && e.MasterIndex != 0 && e.HardwareAddr.String() == lost[e.LinkIndex].String() {
			delete(lost, e.LinkIndex)
		}
	}
	for index, mac := range lost {
		err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: mac,
		})
		switch {
		case err == nil:
			mended++
		case !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL): // else the port is going at this moment
			failed = errors.Join(failed, fmt.Errorf("entry %s: %w", mac, err))
		}
	}
	return mended, failed
}
