// Package network gives a container its place on the machine's networks: a namespace, its interfaces and addresses, and
// the files that name resolution reads.
//
// It owns the containers' network namespaces, their veth pairs and those files. Bridges, tunnels, tables and everything
// in the host's own namespace are the meshproxy's: this package enslaves its ends to them, waits (Unavailable) while they
// are missing, and touches nothing else. Namespaces are held by bind mounts, so that they outlive the agent and end with
// the machine's power. Everything is safe for concurrent use for different ids.
package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// Names that the meshproxy knows too.
const (
	machineBridge = "shoal0"
	overlayBridge = "shoalbr" // and the VNI
	hostEnd       = "shoalv"  // and 8 hexadecimal digits
)

// Kernel is the machine's own network.
type Kernel struct {
	spaces string // folder of the bind mounts of network namespaces
	users  string // folder of those of user namespaces
	files  string // folder of the containers' files
	resolv string // the machine's
	hosts  string // the machine's
	ask    func(ctx context.Context, containerID string) (path string, err error)
}

// New keeps its namespaces and files below the folder, which must not outlive the machine's power (/run/shoal).
func New(folder string) *Kernel {
	return &Kernel{
		spaces: filepath.Join(folder, "netns"), users: filepath.Join(folder, "userns"), files: filepath.Join(folder, "containers"),
		resolv: "/etc/resolv.conf", hosts: "/etc/hosts",
	}
}

// Make makes everything for a container that does not run yet; what an earlier try left is replaced. Errors: Unavailable
// while a bridge is missing.
func (k *Kernel) Make(ctx context.Context, w container.Wiring) (container.Sandbox, error) {
	// The kernel knows namespaces by thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return container.Sandbox{}, fmt.Errorf("talk to the kernel: %w", err)
	}
	defer host.Close()
	bridges := make([]netlink.Link, len(w.Links))
	for i, l := range w.Links { // before anything is made, so that waiting costs nothing
		if bridges[i], err = bridgeOf(host, l); err != nil {
			return container.Sandbox{}, err
		}
	}
	if err := k.Remove(ctx, w.ID); err != nil {
		return container.Sandbox{}, err
	}
	if w.Guest != nil {
		box, err := k.attach(ctx, host, w, bridges)
		if err != nil {
			return container.Sandbox{}, errors.Join(err, k.Remove(ctx, w.ID))
		}
		return box, nil
	}
	box, err := k.writeFiles(w)
	if err != nil || w.Host {
		return box, err
	}
	box.NetNS = filepath.Join(k.spaces, w.ID)
	if w.IDs.Mapped() {
		box.UserNS = filepath.Join(k.users, w.ID)
	}
	if err := k.wire(host, w, bridges, box); err != nil {
		return container.Sandbox{}, errors.Join(err, k.Remove(ctx, w.ID))
	}
	return box, nil
}

func bridgeOf(host *netlink.Handle, l container.Link) (netlink.Link, error) {
	name := machineBridge
	if l.VNI != 0 {
		name = overlayBridge + strconv.FormatUint(uint64(l.VNI), 10)
	}
	link, err := host.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) && l.Encrypted {
		return nil, errs.New(errs.Unavailable, "waits for the bridge %s of the encrypted network %q; if this machine cannot encrypt, `shoal node inspect` says why (TunnelReason)",
			name, l.Network)
	}
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, errs.New(errs.Unavailable, "waits for the bridge %s of network %q, which this machine's meshproxy makes", name, l.Network)
	}
	if err != nil {
		return nil, fmt.Errorf("look for the bridge %s: %w", name, err)
	}
	return link, nil
}

func (k *Kernel) wire(host *netlink.Handle, w container.Wiring, bridges []netlink.Link, box container.Sandbox) error {
	var space netns.NsHandle
	var err error
	if w.IDs.Mapped() {
		if space, err = newPair(w.IDs, box.UserNS, box.NetNS); err != nil {
			return fmt.Errorf("make the user namespace: %w", err)
		}
	} else {
		space, err = newNamespace(box.NetNS)
	}
	if err != nil {
		return fmt.Errorf("make the network namespace: %w", err)
	}
	defer space.Close()
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err == nil {
		err = inside.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	for i, l := range w.Links {
		if err := plug(host, inside, space, joint{id: w.ID, i: i, name: "eth" + strconv.Itoa(i)}, l, bridges[i]); err != nil {
			return fmt.Errorf("connect eth%d to network %q: %w", i, l.Network, err)
		}
	}
	return nil
}

// joint is one interface of a container: which, and its name there.
type joint struct {
	id   string
	i    int
	name string
	// guest says that the namespace is another tool's: by the machine network it asks for names and nothing else.
	guest bool
}

// plug makes one veth pair: one end on the bridge, the other in the namespace with its addresses and routes.
func plug(host, inside *netlink.Handle, space netns.NsHandle, j joint, l container.Link, bridge netlink.Link) error {
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{
			Name: hostName(j.id, j.i), MTU: bridge.Attrs().MTU, MasterIndex: bridge.Attrs().Index, Flags: net.FlagUp,
		},
		PeerName: j.name, PeerNamespace: netlink.NsFd(space), PeerHardwareAddr: macOf(l.Addresses),
	}
	err := host.LinkAdd(pair)
	if errors.Is(err, syscall.EEXIST) { // the kernel takes its time to end the namespace of an earlier try
		if err = host.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: pair.Name}}); err == nil {
			err = host.LinkAdd(pair)
		}
	}
	if err != nil {
		return err
	}
	if l.VNI == 0 {
		// A container that asks a published port may be led to itself. Where br_netfilter is on, the bridge then sends the packet
		// straight back by the port that it came from, which it does only if the port allows it.
		if err := host.LinkSetHairpin(pair, true); err != nil {
			return fmt.Errorf("let it reach itself: %w", err)
		}
	}
	if mac := macOf(l.Addresses); mac != nil {
		if err := keep(host, pair, mac); err != nil {
			return err
		}
	}
	end, err := inside.LinkByName(j.name)
	if err != nil {
		return err
	}
	if err := linkLocal(inside, end, l.VNI != 0); err != nil {
		return fmt.Errorf("choose its link-local address: %w", err)
	}
	for _, a := range l.Addresses {
		if err := inside.AddrAdd(end, addressOf(a)); err != nil && !noIPv6(a.Addr(), err) {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	if err := inside.LinkSetUp(end); err != nil {
		return err
	}
	for _, gw := range l.Gateways {
		if err := route(inside, end, gw, j.guest); err != nil && !noIPv6(gw, err) {
			return fmt.Errorf("route by %s: %w", gw, err)
		}
		if err := know(inside, end, gw, bridge.Attrs().HardwareAddr); err != nil && !noIPv6(gw, err) {
			return fmt.Errorf("know the gateway %s: %w", gw, err)
		}
	}
	return nil
}

// route leads everything to the gateway, which is on the link although no prefix says so: with a /24 on a bridge a
// container could not reach itself through a published port.
//
// From another tool's namespace nothing but the name server is led there: how it comes to the world is its own affair.
func route(inside *netlink.Handle, end netlink.Link, gw netip.Addr, guest bool) error {
	led := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if gw.Is6() {
		led = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if guest {
		server := serverFor(gw)
		led = netip.PrefixFrom(server, server.BitLen())
	}
	for _, r := range []netlink.Route{
		{LinkIndex: end.Attrs().Index, Dst: ipNet(netip.PrefixFrom(gw, gw.BitLen())), Scope: netlink.SCOPE_LINK},
		{LinkIndex: end.Attrs().Index, Dst: ipNet(led), Gw: gw.AsSlice(), Flags: int(netlink.FLAG_ONLINK)},
	} {
		if err := inside.RouteAdd(&r); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the namespace and the files away; another tool's is left as it was. What is not there is no error. The interfaces go with the namespace, when
// the kernel ends it, a moment later: it ends many at once for the price of one, which deleting each link does not.
func (k *Kernel) Remove(_ context.Context, id string) error {
	if k.Foreign(id) {
		if err := k.detach(id); err != nil {
			return err
		}
	}
	for _, path := range []string{filepath.Join(k.spaces, id), filepath.Join(k.users, id)} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("let go of the namespace %s: %w", path, err)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the namespace: %w", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(k.files, id)); err != nil {
		return fmt.Errorf("remove the container's files: %w", err)
	}
	return nil
}

// Sweep removes what is there for ids that nobody keeps.
func (k *Kernel) Sweep(ctx context.Context, keep func(id string) bool) error {
	var failed []error
	for _, dir := range []string{k.spaces, k.users, k.files} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
		for _, e := range entries {
			if !keep(e.Name()) {
				failed = append(failed, k.Remove(ctx, e.Name()))
			}
		}
	}
	return errors.Join(failed...)
}

// hostName is short enough for the kernel (15 bytes) and the same for the same interface.
func hostName(id string, i int) string {
	sum := sha256.Sum256([]byte(id + "/" + strconv.Itoa(i)))
	return hostEnd + hex.EncodeToString(sum[:4])
}

// macOf is 02:42 and the IPv4 address, as the tables of other machines say without asking. Without one the kernel picks.
func macOf(addresses []netip.Prefix) net.HardwareAddr {
	for _, a := range addresses {
		if a.Addr().Is4() {
			b := a.Addr().As4()
			return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
		}
	}
	return nil
}

func addressOf(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the store gave it to nobody else, and a second's wait would be noticed
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// noIPv6 excuses an IPv6 address on a kernel that was told to do without.
func noIPv6(a netip.Addr, err error) bool {
	return a.Is6() && (errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EAFNOSUPPORT))
}
