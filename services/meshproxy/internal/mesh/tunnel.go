package mesh

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/meshproxy/internal/ends"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

const (
	// machineVNI is the machine network's identifier: user networks begin at 4096.
	machineVNI = 4095
	numberBit  = 16
	numbers    = 1<<14 - 1 // 0 is nobody
	// returnTable is the routing table of replies.
	returnTable = 8477
)

// nobody4 and nobody6 are the next hops of replies, on no machine: the tunnel's rule writes the right one's MAC address
// over theirs.
var (
	// here4 is every machine's own address on the tunnel: the kernel takes packets with clients' addresses only on a link that
	// has some address (fib_validate_source). It is never on the wire.
	here4   = netip.MustParseAddr("169.254.84.78")
	nobody4 = netip.MustParseAddr("169.254.84.77")
	nobody6 = netip.MustParseAddr("fe80::5477")
)

// nobodyMAC is in no forwarding table, so that a reply without a way goes nowhere.
const nobodyMAC = "02:44:00:00:00:00"

// Number gives each peer a number of this machine's own, by the MAC address of its tunnel end. Who has one keeps it: it is
// in the marks of connections that live.
func (m *Model) Number(self Self, known map[string]uint16) map[string]uint16 {
	out, taken := map[string]uint16{}, map[uint16]bool{0: true}
	if m == nil {
		return out
	}
	var fresh []string
	for id := range inOrder(m.machines) {
		vtep, ok := m.tunnelOf(id.GetNodeId(), self.Tunnel.Is4())
		if !ok || id.GetNodeId() == self.Node {
			continue
		}
		mac := ends.MAC(vtep)
		if n := known[mac]; n != 0 && !taken[n] {
			out[mac], taken[n] = n, true
			continue
		}
		fresh = append(fresh, mac)
	}
	slices.Sort(fresh)
	for _, mac := range fresh {
		sum := sha256.Sum256([]byte(mac))
		n := binary.BigEndian.Uint16(sum[:]) & numbers
		for tries := 0; taken[n] && tries < numbers; tries++ {
			n = (n + 1) & numbers
		}
		if !taken[n] {
			out[mac], taken[n] = n, true
		}
	}
	return out
}

// machineTunnel joins the machines' blocks by layer 3: a route to each peer's, and the way back for what came from it.
func (m *Model) machineTunnel(self Self, k *kernel.Kernel, faults *errs.Collector) {
	if self.UserSpace || !self.Tunnel.IsValid() || !m.hasBlocks() {
		return
	}
	path, err := self.pathOf(m.Encryption().GetMesh())
	if err != nil {
		faults.Add("machine network", "%s; published ports go from meshproxy to meshproxy", err)
		return
	}
	k.Links[kernel.MachineTunnel] = kernel.Link{
		Name: kernel.MachineTunnel, Up: true, MTU: path.mtu, MAC: ends.MAC(self.Tunnel),
		VNI: machineVNI, Port: k.Rules.DataPort, Local: path.local,
	}
	k.Addresses[kernel.Address{Link: kernel.MachineTunnel, Prefix: netip.PrefixFrom(here4, 32)}] = struct{}{}
	k.Settings["net/ipv4/ip_forward"] = "1"
	// What comes by the tunnel has clients' addresses, which this machine reaches some other way: the sender is known by its
	// tunnel end, not by its address.
	k.Settings["net/ipv4/conf/"+kernel.MachineTunnel+"/rp_filter"] = "2"
	k.Settings["net/ipv4/conf/"+kernel.MachineTunnel+"/send_redirects"] = "0"
	k.Settings["net/ipv6/conf/"+kernel.MachineTunnel+"/disable_ipv6"] = "0"
	k.Settings["net/ipv6/conf/"+kernel.MachineTunnel+"/addr_gen_mode"] = "1"
	if len(k.Rules.Blocks) == 0 {
		k.Rules.AddGateway(self.Tunnel)
	}
	elements := map[kernel.Slot]string{}
	for machine := range inOrder(m.machines) {
		if machine.GetNodeId() == self.Node {
			continue
		}
		vtep, ok := m.tunnelOf(machine.GetNodeId(), self.Tunnel.Is4())
		if !ok || vtep == self.Tunnel {
			continue // its own faults are told with its networks; or it was this machine, before that joined anew
		}
		mac := ends.MAC(vtep)
		end, err := m.endOf(machine.GetNodeId(), path, self)
		if err != nil {
			faults.Add("machine network", "%s", err)
			continue
		}
		k.Forwards[kernel.Forward{Link: kernel.MachineTunnel, MAC: mac, VTEP: end}] = struct{}{}
		m.routesTo(machine.GetNodeId(), vtep, machine.GetBlocks(), k, faults)
		if n := self.Numbers[mac]; n != 0 {
			mark := fmt.Sprintf("%#x", kernel.ReturnFlag|uint32(n)<<numberBit)
			elements[kernel.Slot{Set: kernel.SetSenders, Key: mac}] = mark
			elements[kernel.Slot{Set: kernel.SetZones, Key: mac}] = fmt.Sprint(n)
			elements[kernel.Slot{Set: kernel.SetWays, Key: mark}] = mac
		}
	}
	k.Entries["tunnel"] = kernel.NewPart(elements)
	if len(k.Rules.Blocks) > 0 {
		wayBack(k)
	}
}

func (m *Model) hasBlocks() bool {
	for _, machine := range m.machines {
		if len(machine.GetBlocks()) > 0 {
			return true
		}
	}
	return false
}

// routesTo leads to a peer's blocks.
func (m *Model) routesTo(node string, vtep netip.Addr, blocks []string, k *kernel.Kernel, faults *errs.Collector) {
	mac := ends.MAC(vtep)
	for _, text := range blocks {
		block, err := netip.ParsePrefix(text)
		if err != nil {
			faults.Add("machine "+node, "block %q is not a CIDR", text)
			continue
		}
		hop := ends.NextHop(vtep, block.Addr().Is4())
		k.Routes[kernel.Route{Link: kernel.MachineTunnel, Prefix: block.Masked(), Via: hop}] = struct{}{}
		k.Neighbours[kernel.Neighbour{Link: kernel.MachineTunnel, Addr: hop, MAC: mac}] = struct{}{}
		if block.Addr().Is6() {
			k.Settings["net/ipv6/conf/all/forwarding"] = "1"
		}
	}
}

// wayBack sends replies of containers to the machine by which the connection came. The rule looks at what comes from
// containers alone: a packet in its envelope has the mark of what is inside, and would be led into the tunnel once more.
func wayBack(k *kernel.Kernel) {
	k.Return = kernel.ReturnMark
	for _, hop := range []netip.Addr{nobody4, nobody6} {
		everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if hop.Is6() {
			everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		k.Routes[kernel.Route{Link: kernel.MachineTunnel, Prefix: everything, Via: hop, Table: returnTable}] = struct{}{}
		k.Neighbours[kernel.Neighbour{Link: kernel.MachineTunnel, Addr: hop, MAC: nobodyMAC}] = struct{}{}
		k.Policies[kernel.Policy{IPv6: hop.Is6(), In: kernel.MachineBridge, Mark: kernel.ReturnFlag, Mask: kernel.ReturnFlag, Table: returnTable}] = struct{}{}
	}
}
