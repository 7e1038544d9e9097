package mesh

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/ends"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

const (
	// defaultDataPort is the tunnels' port when the stream names none; not 4789, so that a Docker Swarm may live beside us.
	defaultDataPort = 8477
	// overhead is what a VXLAN header adds over IPv4: outer IP 20, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348).
	overhead = 50
)

// Self is what a machine must know of itself to say what it should be.
type Self struct {
	// Node is its id.
	Node string
	// Tunnel is its end of the tunnels; see Model.Tunnel.
	Tunnel netip.Addr
	// MTU is that of the link with the tunnel's end.
	MTU int
	// Local are its addresses, for ports that are bound to some of them.
	Local []netip.Addr
	// Numbers are those of its peers; see Model.Number.
	Numbers map[string]uint16
	// UserSpace says that the kernel lacks what it needs to carry published ports.
	UserSpace bool
	// Transparent says that its kernel lets the meshproxy speak with its clients' addresses.
	Transparent bool
	// Seal is its encrypted way to the others.
	Seal Seal
	// Withdrawn are tasks that have died, and Held are ports that another process of the machine has.
	Withdrawn map[string]bool
	Held      map[Listener]bool
}

// Tunnel is the machine's own tunnel end: the first that the cluster knows, else the first that it advertises itself.
func (m *Model) Tunnel(self string, advertised []string) netip.Addr {
	if m == nil {
		return netip.Addr{}
	}
	if a, err := first(m.machines[self].GetVteps()); err == nil {
		return a
	}
	a, _ := first(advertised) // invalid if there is none: Desired tells it when a tunnel is needed
	return a
}

// Desired is the kernel as it should be, with what Publish has made for it. What is wrong in the tables is left out and told in the error, one fault each,
// beside the part that is right.
func (m *Model) Desired(self Self, published *Published) (kernel.Kernel, error) {
	k := kernel.NewKernel()
	published.entries(&k)
	var faults errs.Collector
	port := m.dataPort
	if port == 0 || port > 65535 {
		port = defaultDataPort
	}
	// 2384 is the gateway's, which containers may well be clients of; the rest is only ours.
	k.Rules = kernel.Rules{DataPort: uint16(port), Mesh: !self.UserSpace, Own: []uint16{2377, 2381, 2382, 2383, 2385}}
	for machine := range inOrder(m.machines) {
		if machine.GetNodeId() != self.Node {
			m.peer(machine, &k, &faults)
		}
	}
	m.sealed(self, &k)
	m.machineSide(self, &k, &faults)
	m.machineTunnel(self, &k, &faults)
	m.localTasks(&k)
	for n := range inOrder(m.networks) {
		m.overlay(n, self, &k, &faults)
	}
	k.Rules.Mark = k.Rules.Digest()
	return k, faults.Err("tables")
}

func (m *Model) peer(machine *dispatcherv1.MeshMachine, k *kernel.Kernel, faults *errs.Collector) {
	for _, v := range machine.GetVteps() {
		a, err := netip.ParseAddr(v)
		if err != nil {
			faults.Add("machine "+machine.GetNodeId(), "tunnel end %q is not an IP address", v)
			continue
		}
		k.Peers[a.Unmap()] = struct{}{}
	}
}

// machineSide is the machine's own part of the machine network. Without a block the machine runs no containers.
func (m *Model) machineSide(self Self, k *kernel.Kernel, faults *errs.Collector) {
	blocks := m.machines[self.Node].GetBlocks()
	if len(blocks) == 0 {
		return
	}
	k.Settings["net/ipv4/ip_forward"] = "1"
	// Redirects would send a container straight to its neighbour, past the gateway. The kernel sends them when either says so.
	k.Settings["net/ipv4/conf/all/send_redirects"] = "0"
	k.Settings["net/ipv4/conf/"+kernel.MachineBridge+"/send_redirects"] = "0"
	k.Settings["net/ipv4/conf/"+kernel.MachineBridge+"/rp_filter"] = "2"
	// Who has which address is told, not asked: a container that sends to thousands of a block's addresses fills no table of neighbours
	// with questions, and hears at once that nobody is there.
	k.Settings["net/ipv4/neigh/"+kernel.MachineBridge+"/mcast_solicit"] = "0"
	link := kernel.Link{Name: kernel.MachineBridge, Up: true, MTU: self.MTU - overhead}
	if m.Encryption().GetMesh() {
		link.MTU = self.sealMTU() - overhead
	}
	if n, err := netip.ParsePrefix(m.machineNetwork); err == nil {
		k.Rules.Networks = append(k.Rules.Networks, n.Masked())
	} else if m.machineNetwork != "" {
		faults.Add("machine network", "%q is not a CIDR", m.machineNetwork)
	}
	for _, text := range blocks {
		block, err := netip.ParsePrefix(text)
		if err != nil {
			faults.Add("block", "%q is not a CIDR", text)
			continue
		}
		block = block.Masked()
		gateway := block.Addr().Next()
		if block.Addr().Is4() && link.MAC == "" {
			link.MAC = MAC(gateway)
		}
		if block.Addr().Is6() {
			k.Settings["net/ipv6/conf/all/forwarding"] = "1"
			// Ours is a private network: it is IPv6's also on a machine that was told to do without on its own links.
			k.Settings["net/ipv6/conf/"+kernel.MachineBridge+"/disable_ipv6"] = "0"
			k.Settings["net/ipv6/neigh/"+kernel.MachineBridge+"/mcast_solicit"] = "0"
			cluster, _ := block.Addr().Prefix(48) // a cluster's range is a /48
			k.Rules.Networks = append(k.Rules.Networks, cluster)
		}
		server := ends.NameServer4()
		if block.Addr().Is6() {
			server = ends.NameServer6()
		}
		k.Addresses[kernel.Address{Link: kernel.MachineBridge, Prefix: netip.PrefixFrom(server, server.BitLen())}] = struct{}{}
		k.Rules.Blocks = append(k.Rules.Blocks, block)
		k.Rules.AddGateway(gateway)
		k.Addresses[kernel.Address{Link: kernel.MachineBridge, Prefix: netip.PrefixFrom(gateway, gateway.BitLen())}] = struct{}{}
		k.Routes[kernel.Route{Link: kernel.MachineBridge, Prefix: block, Source: gateway}] = struct{}{}
	}
	k.Links[link.Name] = link
	if self.Transparent {
		transparent(k)
	}
}

// overlay is one user network. Its bridge has no address and no route: nothing leaves it but through the tunnel, and what
// containers send to the outside goes by the machine network.
func (m *Model) overlay(n *dispatcherv1.MeshNetwork, self Self, k *kernel.Kernel, faults *errs.Collector) {
	where := "network " + n.GetName()
	if n.GetVni() == 0 || n.GetVni() >= 1<<24 {
		faults.Add(where, "network identifier %d is not between 1 and %d", n.GetVni(), 1<<24-1)
		return
	}
	if !self.Tunnel.IsValid() {
		faults.Add(where, "this machine has no tunnel end; set `advertise` to an IP address of it")
		return
	}
	way, err := self.pathOf(n.GetEncrypted())
	if err != nil {
		faults.Add(where, "%s", err)
		return
	}
	mtu := way.mtu
	if n.GetMtu() != 0 {
		mtu = min(mtu, int(n.GetMtu()))
	}
	bridge, tunnel := kernel.Bridge(n.GetVni()), kernel.Tunnel(n.GetVni())
	// The kernel forgets all neighbours of a bridge whose address changes, as it does with its ports unless it is fixed.
	// Containers' addresses never begin so: 255 is in no subnet.
	mac := fmt.Sprintf("02:42:ff:%02x:%02x:%02x", n.GetVni()>>16, n.GetVni()>>8&0xff, n.GetVni()&0xff)
	k.Links[bridge] = kernel.Link{Name: bridge, Up: true, MTU: mtu, MAC: mac}
	k.Links[tunnel] = kernel.Link{
		Name: tunnel, Up: true, MTU: mtu, Master: bridge,
		VNI: n.GetVni(), Port: k.Rules.DataPort, Local: way.local,
	}
	for _, name := range []string{bridge, tunnel} {
		k.Settings["net/ipv6/conf/"+name+"/addr_gen_mode"] = "1" // no address: the host itself is not on the network
	}
	for _, s := range n.GetSubnets() {
		if strings.Contains(s, ":") { // it is IPv6's also on a machine that was told to do without on its own links
			k.Settings["net/ipv6/conf/"+bridge+"/disable_ipv6"] = "0"
		}
	}
	for _, e := range n.GetEntries() {
		if e.GetNodeId() == self.Node {
			continue // its bridge knows it
		}
		if err := m.entry(e, bridge, tunnel, way, self, k); err != nil {
			faults.Add(where, "task %s: %s", e.GetTaskId(), err)
		}
	}
}

// entry is one task of another machine.
func (m *Model) entry(e *dispatcherv1.NetworkEntry, bridge, tunnel string, way path, self Self, k *kernel.Kernel) error {
	a, err := first(e.GetAddresses())
	if err != nil {
		return err
	}
	if !a.Is4() {
		return errs.New(errs.Invalid, "its first address %s is not IPv4, from which its MAC address is made", a)
	}
	vtep, err := m.endOf(e.GetNodeId(), way, self)
	if err != nil {
		return err
	}
	mac := MAC(a)
	k.Forwards[kernel.Forward{Link: tunnel, MAC: mac, VTEP: vtep}] = struct{}{}
	for _, text := range e.GetAddresses() {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return errs.New(errs.Invalid, "%q is not an IP address", text)
		}
		k.Neighbours[kernel.Neighbour{Link: bridge, Addr: addr.Unmap(), MAC: mac}] = struct{}{}
	}
	return nil
}

// tunnelOf is a machine's first tunnel end of a family: a tunnel's two ends are of one.
func (m *Model) tunnelOf(node string, is4 bool) (netip.Addr, bool) {
	for _, v := range m.machines[node].GetVteps() {
		if a, err := netip.ParseAddr(v); err == nil && a.Unmap().Is4() == is4 {
			return a.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// MAC is the address of the interface that has an IPv4 address: 02:42 and the address, as the agent sets it.
func MAC(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}

const (
	// transparentTable is the routing table by which the machine takes them as its own.
	transparentTable = 8478
)

// transparent has the machine take what containers answer to the meshproxy, whatever address it spoke with.
func transparent(k *kernel.Kernel) {
	k.Rules.Transparent = true
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		k.Routes[kernel.Route{Link: kernel.MachineBridge, Prefix: netip.PrefixFrom(all, 0), Table: transparentTable, Local: true}] = struct{}{}
		k.Policies[kernel.Policy{IPv6: all.Is6(), In: kernel.MachineBridge, Mark: kernel.TransparentFlag, Mask: kernel.TransparentFlag, Table: transparentTable}] = struct{}{}
	}
}
