// Package lan is the lab's switch: a bridge in a network namespace of its own, so that no firewall of the machine nor
// br_netfilter touches it, with one veth pair for each host and one to the outer machine. Network faults are nftables rules and
// link states on that bridge.
//
// The namespace is held by a bind mount on a file in the lab's folder, not by a process. Calls on the same switch must
// not overlap; the lab's lock sees to that.
package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Outer is the switch port towards the outer machine.
const Outer = "outer"

const bridgeName = "switch"

// Switch names a switch by the file that holds its namespace and by the outer machine's interface.
type Switch struct {
	Namespace string // path of the file
	Interface string // the outer machine's end, unique on the machine
}

// Create makes the bridge and the outer machine's link with its addresses.
func (s Switch) Create(addresses []netip.Prefix) error {
	if err := s.holdNamespace(); err != nil {
		return err
	}
	inside, err := s.handle()
	if err != nil {
		return err
	}
	defer inside.Close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	// Without a querier on the network, snooping would drop the multicast that IPv6 neighbour discovery needs.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := inside.LinkAdd(bridge); err != nil {
		return fmt.Errorf("make the switch's bridge: %w", err)
	}
	if err := inside.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("raise the switch's bridge: %w", err)
	}
	here, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer here.Close()
	if err := connect(inside, Outer, s.Interface, netlink.NsFd(here), true); err != nil {
		return err
	}
	return configure(s.Interface, addresses)
}

// holdNamespace makes a network namespace on a thread of its own and binds it to the file.
func (s Switch) holdNamespace() error {
	file, err := os.OpenFile(s.Namespace, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the switch's namespace: %w", err)
	}
	file.Close()
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("make the switch's namespace: %w", err)
	}
	err = errors.Join(bareBridges(), unix.Mount("/proc/thread-self/ns/net", s.Namespace, "", unix.MS_BIND, ""))
	if back := netns.Set(home); back != nil {
		return errors.Join(err, back) // the thread stays pinned: it is in the wrong namespace
	}
	runtime.UnlockOSThread()
	if err != nil {
		return fmt.Errorf("hold the switch's namespace: %w", err)
	}
	return nil
}

// bareBridges takes br_netfilter, where the kernel has it, off the bridges of the thread's network namespace: a switch of
// metal has none, and here it took a tenth of a request's time.
func bareBridges() error {
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s Switch) handle() (*netlink.Handle, error) {
	namespace, err := netns.GetFromPath(s.Namespace)
	if err != nil {
		return nil, fmt.Errorf("open the switch's namespace: %w", err)
	}
	defer namespace.Close()
	handle, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return nil, fmt.Errorf("open the switch's namespace: %w", err)
	}
	return handle, nil
}

// connect makes a veth pair: port on the bridge, peer in the namespace that peerNamespace (a netlink.NsFd or NsPid)
// tells.
func connect(inside *netlink.Handle, port, peer string, peerNamespace any, up bool) error {
	bridge, err := inside.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("find the switch's bridge: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = port, bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: peerNamespace}
	if err := inside.LinkAdd(veth); err != nil {
		return fmt.Errorf("connect %s to the switch: %w", port, err)
	}
	if !up {
		return nil
	}
	if err := inside.LinkSetUp(veth); err != nil {
		return fmt.Errorf("raise the switch port of %s: %w", port, err)
	}
	return nil
}

// Connect gives the network namespace of the process pid an eth0 on the switch port named after the host.
func (s Switch) Connect(host string, pid int, up bool) error {
	inside, err := s.handle()
	if err != nil {
		return err
	}
	defer inside.Close()
	// A port left by a host that died a moment ago: the kernel takes namespaces apart in its own time.
	if err := removePort(inside, host); err != nil {
		return err
	}
	return connect(inside, host, "eth0", netlink.NsPid(pid), up)
}

// Disconnect removes a host's port; a port that is not there is no fault.
func (s Switch) Disconnect(host string) error {
	inside, err := s.handle()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer inside.Close()
	return removePort(inside, host)
}

func removePort(inside *netlink.Handle, host string) error {
	port, err := inside.LinkByName(host)
	if err != nil {
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			return nil
		}
		return fmt.Errorf("find the switch port of %s: %w", host, err)
	}
	if err := inside.LinkDel(port); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove the switch port of %s: %w", host, err)
	}
	return nil
}

// SetPort plugs a host's cable in or out. A host without a port (it is off) is no fault: its next boot asks the state.
func (s Switch) SetPort(host string, up bool) error {
	inside, err := s.handle()
	if err != nil {
		return err
	}
	defer inside.Close()
	port, err := inside.LinkByName(host)
	if err != nil {
		if _, off := errors.AsType[netlink.LinkNotFoundError](err); off {
			return nil
		}
		return fmt.Errorf("find the switch port of %s: %w", host, err)
	}
	set := inside.LinkSetDown
	if up {
		set = inside.LinkSetUp
	}
	if err := set(port); err != nil {
		return fmt.Errorf("switch the port of %s: %w", host, err)
	}
	return nil
}

// Remove takes the outer link and the namespace away. It is safe to repeat and to call on what was half made.
func (s Switch) Remove() error {
	var faults []error
	link, err := netlink.LinkByName(s.Interface)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); err != nil && !gone {
		faults = append(faults, fmt.Errorf("remove interface %s: %w", s.Interface, err))
	}
	for {
		err := unix.Unmount(s.Namespace, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // no mount (left) there
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("let go of the switch's namespace: %w", err))
			break
		}
	}
	if err := os.Remove(s.Namespace); err != nil && !errors.Is(err, os.ErrNotExist) {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// Configure raises lo and eth0 in the caller's own namespace and gives eth0 its addresses.
func Configure(addresses []netip.Prefix) error {
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		return fmt.Errorf("raise the loopback: %w", err)
	}
	return configure("eth0", addresses)
}

// configure adds addresses and raises the link. IPv6 addresses skip duplicate detection: they are ours, and a host
// must be able to use them at once.
func configure(name string, addresses []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	for _, prefix := range addresses {
		address := &netlink.Addr{IPNet: &net.IPNet{
			IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		}}
		if prefix.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("give %s the address %s: %w", name, prefix, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("raise interface %s: %w", name, err)
	}
	return nil
}
