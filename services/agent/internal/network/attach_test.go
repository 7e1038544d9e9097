package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// other is the namespace of another tool's container, which has a way out of its own.
func other(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blue")
	space, err := newNamespace(path)
	must(t, err)
	must(t, space.Close())
	t.Cleanup(func() { unbind(t, path) })
	inside(t, path, func() error {
		own := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Flags: net.FlagUp}, PeerName: "theirs"}
		must(t, netlink.LinkAdd(own))
		must(t, netlink.AddrAdd(own, addressOf(netip.MustParsePrefix("172.17.0.2/16"))))
		return netlink.RouteAdd(&netlink.Route{LinkIndex: own.Attrs().Index, Gw: net.ParseIP("172.17.0.1")})
	})
	return path
}

func unbind(t *testing.T, path string) {
	t.Helper()
	k := &Kernel{spaces: filepath.Dir(path), users: t.TempDir(), files: t.TempDir()}
	must(t, k.Remove(t.Context(), filepath.Base(path)))
}

// TestGuest: another tool's container is reached on the network and reaches those on it, asks the machine's name server, and keeps its
// own way out. It is seen to be gone when its tool lets go of it, and is left as it was when it is taken off.
func TestGuest(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	path := other(t)
	own := build(t, k, wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20"))
	w := wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20")
	w.Guest = &typesv1.AttachedNamespace{Path: path}
	if k.Attached("b.0") {
		t.Error("attached before it was")
	}
	build(t, k, w)
	if !k.Attached("b.0") {
		t.Error("not attached")
	}
	must(t, reach(t, own.NetNS, path, "10.0.16.3"))
	must(t, reach(t, path, own.NetNS, "10.0.16.2"))
	for target, want := range map[string]string{"169.254.53.53": "shoal-dns", "9.9.9.9": "eth0", "10.128.2.9": "eth0"} {
		if got := leadsBy(t, path, target); got != want {
			t.Errorf("%s is led by %q, want %q", target, got, want)
		}
	}
	reset := func() { must(t, k.Sweep(t.Context(), func(id string) bool { return id == "a.0" })) }
	for i, takeOff := range []func(){func() { must(t, k.Remove(t.Context(), "b.0")) }, reset} {
		if i > 0 {
			build(t, k, w)
		}
		inside(t, path, func() error { // as the meshproxy does
			conn, err := nftables.New()
			must(t, err)
			conn.AddTable(&nftables.Table{Name: "shoal-vip", Family: nftables.TableFamilyINet})
			conn.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamilyINet}) // there the second time
			return conn.Flush()
		})
		takeOff()
		inside(t, path, func() error {
			links, err := netlink.LinkList()
			must(t, err)
			for _, l := range links {
				if strings.HasPrefix(l.Attrs().Name, "shoal") {
					t.Errorf("%s is left in it", l.Attrs().Name)
				}
			}
			conn, err := nftables.New()
			must(t, err)
			tables, err := conn.ListTables()
			if len(tables) != 1 || tables[0].Name != "theirs" {
				t.Errorf("tables left in it: %v", tables)
			}
			return err
		})
	}
	build(t, k, w)
	unbind(t, path)
	if k.Attached("b.0") {
		t.Error("its tool has let go of it, and it is still attached")
	}
	reset()
	if ids, err := k.Spaces(); len(ids) != 1 || err != nil {
		t.Errorf("namespaces kept: %v, %v", ids, err)
	}
}

// TestGuestWithAddressesOfItsOwnMaking: where a namespace has its interfaces make up link-local addresses, the one on our network still has
// that of its MAC address, with which it is heard.
func TestGuestWithAddressesOfItsOwnMaking(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	path := other(t)
	inside(t, path, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/addr_gen_mode", []byte("3"), 0) // at random
	})
	w := wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20")
	w.Guest = &typesv1.AttachedNamespace{Path: path}
	build(t, k, w)
	inside(t, path, func() error {
		end, err := netlink.LinkByName("shoal-net")
		must(t, err)
		all, err := netlink.AddrList(end, netlink.FAMILY_V6)
		if len(all) != 1 || all[0].IP.String() != "fe80::42:aff:fe00:1003" {
			t.Errorf("it has %v, want fe80::42:aff:fe00:1003", all)
		}
		return err
	})
}

func leadsBy(t *testing.T, path, target string) (name string) {
	t.Helper()
	inside(t, path, func() error {
		routes, err := netlink.RouteGet(net.ParseIP(target))
		must(t, err)
		l, err := netlink.LinkByIndex(routes[0].LinkIndex)
		must(t, err)
		name = l.Attrs().Name
		return nil
	})
	return name
}

// TestStrangeGuests: the machine's own network, a container of ours, what is attached already and what is no namespace are refused, and
// nothing is left of the try.
func TestStrangeGuests(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	path := other(t)
	own := build(t, k, wiring("a.0", "10.128.1.2/32", "fd00:1::2/128", "10.0.16.2/20"))
	w := wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20")
	w.Guest = &typesv1.AttachedNamespace{Path: path}
	build(t, k, w)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	pipe := filepath.Join(t.TempDir(), "pipe") // to open it waits for who writes
	must(t, unix.Mkfifo(pipe, 0o600))
	for guest, want := range map[string]string{
		"/proc/thread-self/ns/net": "is the machine's own network", own.NetNS: "belongs to a container of shoal's", path: "is attached already",
		file: "is no network namespace", pipe: "is no network namespace", "/proc/self/ns/mnt": "is no network namespace", "/run/nobody": "there is no network namespace",
	} {
		w := wiring("c.0", "10.128.1.4/32", "fd00:1::4/128", "10.0.16.4/20")
		w.Guest = &typesv1.AttachedNamespace{Path: guest}
		if _, err := k.Make(t.Context(), w); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", guest, err, want)
		}
	}
	if ids, err := k.Spaces(); len(ids) != 2 || err != nil {
		t.Errorf("namespaces kept: %v, %v", ids, err)
	}
}

// TestGuestIsWhatWasOpened: what is refused is told by the namespace that was opened, wherever its path leads by then.
func TestGuestIsWhatWasOpened(t *testing.T) {
	k := machine(t)
	path := other(t)
	moving := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("/proc/thread-self/ns/net", moving))
	space, err := openNamespace(moving)
	must(t, err)
	defer space.Close()
	must(t, os.Remove(moving))
	must(t, os.Symlink(path, moving))
	if err := k.strange(space, moving); err == nil || !strings.Contains(err.Error(), "is the machine's own network") {
		t.Errorf("the machine's network by a link that leads to another's now: %v", err)
	}
}

// TestGuestOfAnotherProcess: a container that was started anew while its namespace was opened is looked for again later, for the number
// of its process may be another's by then.
func TestGuestOfAnotherProcess(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	places := []string{other(t), "/proc/4711/ns/net"}
	k.FindBy(func(context.Context, string) (path string, err error) {
		path, places = places[0], places[1:]
		return path, nil
	})
	w := wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20")
	w.Guest = &typesv1.AttachedNamespace{Container: "db"}
	if _, err := k.Make(t.Context(), w); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "container db was started anew meanwhile") {
		t.Errorf("attached: %v", err)
	}
	if ids, err := k.Spaces(); len(ids) != 0 || err != nil {
		t.Errorf("namespaces kept: %v, %v", ids, err)
	}
}

// TestGuestWithRoutesOfItsOwn: a container is not taken from its neighbours. One that has a route to a part of the network, or to what
// leads to the name server, is refused and left as it was; its default routes, whole or in halves, are no such.
func TestGuestWithRoutesOfItsOwn(t *testing.T) {
	k := machine(t)
	bridge(t, "shoal0", "10.128.1.1/24", "fd00:1::1/64")
	bridge(t, "shoalbr4097")
	for own, want := range map[string]string{
		"10.0.17.0/24":        `its own route to 10.0.17.0/24 overlaps 10.0.16.0/20 of network "front"; put it on a network with another --subnet`,
		"10.0.0.0/8":          "its own route to 10.0.0.0/8 overlaps 10.",
		"169.254.53.53/32":    "its own route to 169.254.53.53/32 overlaps 169.254.53.53/32, which leads to this machine's name server",
		"10.128.1.0/28":       "its own route to 10.128.1.0/28 overlaps 10.128.1.",
		"fd73:686f:616c::/48": "its own route to fd73:686f:616c::/48 overlaps fd73:686f:616c::53/128, which leads",
		"0.0.0.0/1":           "",
		"10.0.32.0/20":        "",
		"fd00:1:0:1::/64":     "",
	} {
		path := other(t)
		inside(t, path, func() error {
			l, err := netlink.LinkByName("eth0")
			must(t, err)
			return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(own)), Table: 7})
		})
		w := wiring("b.0", "10.128.1.3/32", "fd00:1::3/128", "10.0.16.3/20")
		w.Guest = &typesv1.AttachedNamespace{Path: path}
		_, err := k.Make(t.Context(), w)
		if want == "" && err != nil || want != "" && (!errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), want)) {
			t.Errorf("with a route to %s: %v, want %q", own, err, want)
		}
		must(t, k.Remove(t.Context(), "b.0"))
	}
}
