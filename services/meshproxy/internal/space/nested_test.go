package space_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A container within the container, as one of an engine that runs in it, reaches the same tasks by the same addresses: what it dials comes
// in by prerouting, and the engine's own rules let it out as the container.
func TestNestedContainer(t *testing.T) {
	r := newRig(t)
	inner := newRoom(t)
	r.client.do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "inner"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(inner.ns)}
		return errors.Join(netlink.LinkAdd(veth), numbered("inner", "172.30.0.1/24", "fd30::1/64"), forwards(), masquerades("eth1"))
	})
	inner.do(func() error {
		if err := numbered("eth0", "172.30.0.2/24", "fd30::2/64"); err != nil {
			return err
		}
		return errors.Join(netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("172.30.0.1")}), netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("fd30::1")}))
	})
	inner.do(func() error { return carry("eth0") })
	r.client.do(func() error { return carry("inner") })
	asked := func(network, address string, n int) map[string]int {
		came := map[string]int{}
		for range n {
			if t.Failed() {
				t.FailNow() // each try takes its time
			}
			inner.do(func() error {
				r.port++
				c, err := dialFrom(udpClients+r.port, network, address)
				if err != nil {
					if came[reason(err)]++; reason(err) != "refused" {
						t.Errorf("%s %s: %v", network, address, err)
					}
					return nil
				}
				defer c.Close()
				came[hearWithin(patience, c)]++
				return nil
			})
		}
		return came
	}
	r.tell([]int{10, 11, 12, 13}, []int{11, 12})
	for _, at := range []string{"10.0.0.2:80", "[fd01::2]:80"} {
		r.expect(asked("tcp", at, 6), "11:3 12:3")
		r.expect(asked("udp", at, 2), "11:1 12:1")
	}
	r.tell([]int{10, 11, 12, 13}, nil)
	r.expect(asked("tcp", "10.0.0.2:80", 1), "refused:1")
}

// patience is for a machine with much else to do. Who asks for what nobody has is told so after three seconds.
const patience = 20 * time.Second

// dialFrom has a port of its own for each client: one that comes again within the kernel's memory is led where it was, and takes no turn.
func dialFrom(port int, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{Port: port}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{Port: port}
	}
	return d.Dial(network, address)
}

// numbered gives a link its addresses, and sets it up.
func numbered(link string, addresses ...string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD // it is needed at once
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// forwards has the namespace of this thread lead packets on.
func forwards() (err error) {
	for _, family := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		err = errors.Join(err, os.WriteFile("/proc/sys/net/"+family, []byte("1"), 0o600))
	}
	return err
}

// masquerades is the rule of an engine in this thread's namespace, for what leaves by a link.
func masquerades(link string) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "engine", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "leave", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(link), 0)},
		&expr.Masq{},
	}})
	return conn.Flush()
}
