package tables_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

// host is a network namespace of the test's own. It ends with its handle and its last socket.
type host struct {
	t  testing.TB
	ns netns.NsHandle
}

// newHost skips the test where namespaces cannot be made.
func newHost(t testing.TB) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	h := &host{t: t, ns: -1}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its namespace stays with the handle
		ns, err := netns.New()
		h.ns = ns
		if err == nil {
			err = up("lo")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Skipf("cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() { h.ns.Close() })
	return h
}

// try runs f on a thread in the namespace.
func (h *host) try(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (h *host) do(f func() error) {
	h.t.Helper()
	if err := h.try(f); err != nil {
		h.t.Fatal(err)
	}
}

// tables are the host's. They are bound to its namespace by calling them only within do.
func (h *host) tables() *tables.Kernel {
	h.t.Helper()
	var k *tables.Kernel
	h.do(func() (err error) {
		k, err = tables.New()
		return err
	})
	h.t.Cleanup(k.Close)
	return k
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// join makes a veth pair between two namespaces, both ends up, with these addresses.
func join(a *host, nameA, addrA string, b *host, nameB, addrB string) {
	a.t.Helper()
	a.do(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.ns)}
		return netlink.LinkAdd(v)
	})
	a.do(func() error { return configure(nameA, addrA, "") })
	b.do(func() error { return configure(nameB, addrB, "") })
}

func configure(name, addr, mac string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if mac != "" {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetHardwareAddr(l, hw); err != nil {
			return err
		}
	}
	if addr != "" {
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// attach does what the agent does: a veth from the container into a bridge of the host.
func attach(h, container *host, bridge, hostEnd, name, addr, mac string) {
	h.t.Helper()
	join(h, hostEnd, "", container, "tmp0", "")
	h.do(func() error {
		l, err := netlink.LinkByName(hostEnd)
		if err != nil {
			return err
		}
		br, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(l, br)
	})
	container.do(func() error {
		l, err := netlink.LinkByName("tmp0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetDown(l); err != nil {
			return err
		}
		if err := netlink.LinkSetName(l, name); err != nil {
			return err
		}
		return configure(name, addr, mac)
	})
}

// defaultRoute is the agent's: the gateway is on the link, everything goes by it.
func defaultRoute(container *host, name, gateway string) {
	container.t.Helper()
	container.do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		gw := net.ParseIP(gateway)
		host := &net.IPNet{IP: gw.To4(), Mask: net.CIDRMask(32, 32)}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: host, Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("to the gateway: %w", err)
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw})
	})
}

// route leads a prefix by a neighbour of the host.
func route(h *host, prefix, via string) {
	h.t.Helper()
	h.do(func() error {
		_, dst, err := net.ParseCIDR(prefix)
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)})
	})
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// here calls a host's tables on a thread in its namespace.
type here struct {
	h *host
	*tables.Kernel
}

func (e here) Read(ctx context.Context, settings []string) (k kernel.Kernel, err error) {
	err = e.h.try(func() (err error) {
		k, err = e.Kernel.Read(ctx, settings)
		return err
	})
	return k, err
}

func (e here) Apply(ctx context.Context, changes []kernel.Change) error {
	return e.h.try(func() error { return e.Kernel.Apply(ctx, changes) })
}

func (e here) Forget(networks []netip.Prefix) error {
	return e.h.try(func() error { return e.Kernel.Forget(networks) })
}
