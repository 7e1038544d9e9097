// Package surroundings looks at a machine's network as a doctor does: settings, routes, other people's chains, and whether packets
// come through the tunnel.
//
// It owns nothing and changes nothing; it judges nothing (package examine does). It looks in the network namespace of the calling
// thread. Everything is safe for concurrent use.
package surroundings

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/examine"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

const (
	sysctls = "/proc/sys/"
	// ours begins the names of our links, and is our table's name.
	ours = "shoal"
)

// Facts gathers what Machine of package examine looks at. What could not be read is told in the error, beside the rest.
func Facts() (examine.Facts, error) {
	f := examine.Facts{Settings: map[string]string{}}
	var faults []error
	for _, path := range examine.Settings() {
		if value, err := setting(path); err == nil {
			f.Settings[path] = value
		} else if !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	for path, into := range map[string]*uint64{"net/netfilter/nf_conntrack_count": &f.Tracked, "net/netfilter/nf_conntrack_max": &f.Room} {
		text, err := setting(path)
		if err == nil {
			*into, err = strconv.ParseUint(text, 10, 64)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, err)
		}
	}
	f.Neighbours = neighbours()
	if l, err := netlink.LinkByName(kernel.MachineTunnel); err == nil {
		f.Tunnel = l.Attrs().MTU
	} // else the machine carries nothing in its kernel
	var err error
	if f.Routes, err = routes(); err != nil {
		faults = append(faults, fmt.Errorf("list routes: %w", err))
	}
	if f.Forward, err = chains(); err != nil {
		faults = append(faults, fmt.Errorf("list the packet filter's chains: %w", err))
	}
	return f, errors.Join(faults...)
}

// neighbours are as many as the kernel says in the machine's first network namespace, in the first column of its statistics; 0: it does
// not say.
func neighbours() (most uint64) {
	for _, table := range []string{"arp_cache", "ndisc_cache"} {
		data, err := os.ReadFile("/proc/net/stat/" + table)
		if err != nil {
			continue
		}
		if words := strings.Fields(string(data)); slices.Contains(words, "entries") {
			first := slices.IndexFunc(words, func(w string) bool { _, err := strconv.ParseUint(w, 16, 64); return len(w) == 8 && err == nil })
			if first >= 0 {
				n, _ := strconv.ParseUint(words[first], 16, 64) // it is one
				most = max(most, n)
			}
		}
	}
	return most
}

func setting(path string) (string, error) {
	data, err := os.ReadFile(sysctls + path)
	return strings.TrimSpace(string(data)), err
}

// routes are those of the main table that are neither ours nor our links'.
func routes() (out []examine.Route, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.RouteList(nil, family)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if r.Protocol == tables.Protocol || r.Dst == nil || kernel.Ours(names[r.LinkIndex]) {
				continue
			}
			addr, ok := netip.AddrFromSlice(r.Dst.IP)
			bits, _ := r.Dst.Mask.Size()
			if ok && !addr.Unmap().IsLinkLocalUnicast() && !addr.IsMulticast() {
				out = append(out, examine.Route{Prefix: netip.PrefixFrom(addr.Unmap(), bits), Link: names[r.LinkIndex]})
			}
		}
	}
	return out, nil
}

// chains are other people's that drop what is forwarded and that they do not know.
func chains() (out []examine.Chain, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.Table.Name == ours || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Policy == nil ||
			*c.Policy != nftables.ChainPolicyDrop || family(c.Table.Family) == "" {
			continue
		}
		passes, err := letsPass(conn, c)
		if err != nil {
			return nil, err
		}
		out = append(out, examine.Chain{Name: family(c.Table.Family) + " " + c.Table.Name + " " + c.Name, LetsPass: passes})
	}
	return out, nil
}

// family is as nft writes it; empty for one by which none of our packets pass.
func family(f nftables.TableFamily) string {
	return map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
	}[f]
}

// letsPass says that some rule of a chain accepts packets by the names of our links.
func letsPass(conn *nftables.Conn, c *nftables.Chain) (bool, error) {
	rules, err := conn.GetRules(c.Table, c)
	if err != nil {
		return false, err
	}
	for _, r := range rules {
		named, accepts := false, false
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Cmp:
				named = named || bytes.HasPrefix(e.Data, []byte(ours))
			case *expr.Verdict:
				accepts = accepts || e.Kind == expr.VerdictAccept
			}
		}
		if named && accepts {
			return true, nil
		}
	}
	return false, nil
}

// headers are IP's and UDP's.
const headers = 20 + 8

// patience bounds the wait for what comes back, in microseconds.
const patience = 700_000

// Echo sends one packet of so many bytes, which no one may cut into parts, from an address of this machine to one of another, and
// says whether anything came back in time. Both are IPv4.
func Echo(from, to netip.Addr, size int) (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: patience}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4(), Port: kernel.EchoPort}),
	)
	if err != nil {
		return false, fmt.Errorf("from %s to %s: %w", from, to, err)
	}
	if _, err := unix.Write(fd, make([]byte, max(size-headers, 0))); errors.Is(err, unix.ECONNREFUSED) {
		return true, nil
	} else if err != nil {
		return false, nil //nolint:nilerr // it does not come through: that is the answer
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err == nil || errors.Is(err, unix.ECONNREFUSED), nil
}
