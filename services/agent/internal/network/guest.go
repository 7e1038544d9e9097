package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// FindBy sets how the namespace of another tool's container is found. Call it before the first Make.
func (k *Kernel) FindBy(find func(ctx context.Context, containerID string) (path string, err error)) {
	k.ask = find
}

func (k *Kernel) find(ctx context.Context, a *typesv1.AttachedNamespace) (string, error) {
	if a.GetContainer() == "" {
		return a.GetPath(), nil
	}
	if k.ask == nil {
		return "", errs.New(errs.Precondition, "this machine's runtime is not containerd, so that container %q cannot be found", a.GetContainer())
	}
	return k.ask(ctx, a.GetContainer())
}

// open finds a namespace and opens it, for all that follows: what is at its path may be another thing a moment later. A container is
// looked for once more, for its process may have ended, and another have got its number, before the namespace was open.
func (k *Kernel) open(ctx context.Context, a *typesv1.AttachedNamespace) (path string, space netns.NsHandle, err error) {
	path, err = k.find(ctx, a)
	if err != nil {
		return "", netns.None(), err
	}
	space, err = openNamespace(path)
	if err != nil || a.GetContainer() == "" {
		return path, space, err
	}
	again, err := k.find(ctx, a)
	if err == nil && again != path {
		err = errs.New(errs.Unavailable, "container %s was started anew meanwhile", a.GetContainer())
	}
	if err != nil {
		return "", netns.None(), errors.Join(err, space.Close())
	}
	return path, space, nil
}

// openNamespace opens nothing but a network namespace. Others name the path, and to open a pipe waits for its other end, and to open a
// device does something: so it is looked at first, by a descriptor that opens nothing, and that same file is opened then.
func openNamespace(path string) (netns.NsHandle, error) {
	at, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return netns.None(), errs.New(errs.NotFound, "there is no network namespace %s on this machine; it must be there before it is attached", path)
	}
	if err != nil {
		return netns.None(), errs.New(errs.Precondition, "open the network namespace %s: %w", path, err)
	}
	defer unix.Close(at)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(at, &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return netns.None(), errs.New(errs.Precondition, "%s is no network namespace", path)
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return netns.None(), errs.New(errs.Precondition, "open the network namespace %s: %w", path, err)
	}
	if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return netns.None(), errors.Join(errs.New(errs.Precondition, "%s is no network namespace", path), unix.Close(fd))
	}
	return netns.NsHandle(fd), nil
}

// strange says that a namespace is another tool's: not the machine's own, nor that of a container of ours, nor attached already.
func (k *Kernel) strange(space netns.NsHandle, path string) error {
	for _, own := range []string{"/proc/self/ns/net", "/proc/thread-self/ns/net", "/proc/1/ns/net"} {
		if isAt(space, own) {
			return errs.New(errs.Precondition, "%s is the machine's own network, which is on no container network", path)
		}
	}
	ids, err := k.Spaces()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if isAt(space, filepath.Join(k.spaces, id)) {
			return errs.New(errs.Precondition, "%s belongs to a container of shoal's, or is attached already; a container of shoal's gets a network by `service update --network-add`, and another is detached first", path)
		}
	}
	return nil
}

// isAt says whether an open namespace is what a path leads to.
func isAt(space netns.NsHandle, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(int(space), &a) == nil && unix.Stat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// everything is the length of a prefix that stands for the whole world: a default route is one, or two halves.
const everything = 1

// roomFor says that a namespace has no routes of its own to what its new interfaces will lead to: they would take its neighbours, or
// the way to them, from it.
func roomFor(inside *netlink.Handle, links []container.Link) error {
	routes, err := inside.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil { // also when they change meanwhile
		return errs.New(errs.Unavailable, "list the routes of its own: %w", err)
	}
	for _, r := range routes {
		own := prefixOf(r.Dst)
		if own.Bits() <= everything {
			continue
		}
		for _, l := range links {
			for _, p := range ledBy(l) {
				if !own.Overlaps(p) {
					continue
				}
				if l.VNI == 0 {
					return errs.New(errs.Precondition, "its own route to %s overlaps %s, which leads to this machine's name server", own, p)
				}
				return errs.New(errs.Precondition, "its own route to %s overlaps %s of network %q; put it on a network with another --subnet", own, p, l.Network)
			}
		}
	}
	return nil
}

// ledBy are the prefixes that plug leads to a link from another tool's namespace.
func ledBy(l container.Link) []netip.Prefix {
	var led []netip.Prefix
	for _, a := range l.Addresses {
		led = append(led, a.Masked())
	}
	for _, gw := range l.Gateways {
		server := serverFor(gw)
		led = append(led, netip.PrefixFrom(gw, gw.BitLen()), netip.PrefixFrom(server, server.BitLen()))
	}
	return led
}

// serverFor is the name server that is asked by a gateway.
func serverFor(gw netip.Addr) netip.Addr {
	if gw.Is6() {
		return netip.MustParseAddr(nameServer6)
	}
	return netip.MustParseAddr(nameServer4)
}

// prefixOf is invalid, and of length -1, for what the kernel gives no destination.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
