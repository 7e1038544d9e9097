package mesh

import (
	"net/netip"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/ends"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// What WireGuard adds to a packet: the outer IP header of 20 or 40 bytes, UDP 8, its own header 16 and tag 16 (whitepaper, 5.4.6).
const (
	sealOverhead4 = 60
	sealOverhead6 = 80
)

// Seal is a machine's encrypted way to the others, as package seal plans it.
type Seal struct {
	// Why there is none; empty: there is one.
	Why string
	// Address is this machine's end of encrypted tunnels. The others send to it whichever key they use.
	Address netip.Addr
	// Sources are the WireGuard devices of this machine, each with the address that it sends from: one a key.
	Sources map[string]netip.Addr
	// Ways lead to the other machines by their ids. Who is not in it has no key that is known here.
	Ways map[string]SealWay
}

// SealWay leads to another machine.
type SealWay struct {
	// Address is its end of encrypted tunnels.
	Address netip.Addr
	// Sources are those that it sends from, one a key.
	Sources []netip.Addr
	// Device of this machine leads there.
	Device string
}

// SealAddresses are those of a machine within WireGuard: the one that stays, and that of a key of this generation.
func (m *Model) SealAddresses(node string, generation uint64) (fixed, ofKey netip.Addr) {
	return ends.Sealed(node, m.machines[node].GetBlocks(), generation)
}

// Encryption is how traffic between machines is to be encrypted.
func (m *Model) Encryption() *typesv1.Encryption {
	if m == nil {
		return nil
	}
	return m.encryption
}

// Machines are all of the cluster, by id.
func (m *Model) Machines() map[string]*dispatcherv1.MeshMachine {
	if m == nil {
		return nil
	}
	return m.machines
}

// Vtep is a machine's tunnel end of the family of another.
func (m *Model) Vtep(node string, is4 bool) (netip.Addr, bool) { return m.tunnelOf(node, is4) }

// Sealed says whether anything of this machine's must be encrypted.
func (m *Model) Sealed() bool {
	if m.Encryption().GetMesh() {
		return true
	}
	for _, n := range m.Networks() {
		if n.GetEncrypted() {
			return true
		}
	}
	return false
}

// sealed is the encrypted way: its devices, what leads to the other machines by them, and what must go by no other way. The packet
// filter has the identifiers whether or not there is a way: what cannot be encrypted does not go.
func (m *Model) sealed(self Self, k *kernel.Kernel) {
	elements := map[kernel.Slot]string{}
	if m.Encryption().GetMesh() {
		put(elements, kernel.SetSealed, "", "%d", machineVNI)
		var blocks []string
		for machine := range inOrder(m.machines) {
			blocks = append(blocks, machine.GetBlocks()...)
		}
		k.Rules.SealedNetworks = ends.Networks(m.machineNetwork, blocks)
	}
	for _, n := range m.networks {
		if n.GetEncrypted() {
			put(elements, kernel.SetSealed, "", "%d", n.GetVni())
		}
	}
	k.Entries["sealed"] = kernel.NewPart(elements)
	k.Rules.Sealed = len(elements) > 0
	if self.Seal.Why != "" || len(elements) == 0 {
		return
	}
	for device, source := range self.Seal.Sources {
		k.Links[device] = kernel.Link{Name: device, Up: true, MTU: self.sealMTU(), Seal: true}
		k.Addresses[kernel.Address{Link: device, Prefix: netip.PrefixFrom(source, 32)}] = struct{}{}
		k.Addresses[kernel.Address{Link: device, Prefix: netip.PrefixFrom(self.Seal.Address, 32)}] = struct{}{}
		k.Settings["net/ipv6/conf/"+device+"/disable_ipv6"] = "1" // its tunnels are IPv4's alone
		// A machine is answered by the device of its newest key, which may be another than the one that it came in by.
		k.Settings["net/ipv4/conf/"+device+"/rp_filter"] = "2"
	}
	for _, way := range self.Seal.Ways {
		for _, a := range append([]netip.Addr{way.Address}, way.Sources...) { // the kernel takes nothing from where no route leads
			k.Routes[kernel.Route{Link: way.Device, Prefix: netip.PrefixFrom(a, 32), Source: self.Seal.Sources[way.Device]}] = struct{}{}
		}
	}
}

func (s Self) sealMTU() int {
	if s.Tunnel.Is6() {
		return s.MTU - sealOverhead6
	}
	return s.MTU - sealOverhead4
}

// path is how a network's tunnel packets go from this machine: in the clear from its tunnel end, or by WireGuard from whichever address
// leads there.
type path struct {
	local  netip.Addr
	mtu    int
	sealed bool
}

// pathOf is an error where packets must be encrypted and cannot.
func (s Self) pathOf(sealed bool) (path, error) {
	if !sealed {
		return path{local: s.Tunnel, mtu: s.MTU - overhead}, nil
	}
	if s.Seal.Why != "" {
		return path{}, errs.New(errs.Precondition, "it is encrypted, and this machine cannot encrypt: %s", s.Seal.Why)
	}
	return path{mtu: s.sealMTU() - overhead, sealed: true}, nil
}

// endOf is where packets to a machine go on this path.
func (m *Model) endOf(node string, p path, self Self) (netip.Addr, error) {
	if !p.sealed {
		vtep, ok := m.tunnelOf(node, self.Tunnel.Is4())
		if !ok {
			return netip.Addr{}, errs.New(errs.Invalid, "machine %s has no tunnel end of the family of %s", node, self.Tunnel)
		}
		return vtep, nil
	}
	way, ok := self.Seal.Ways[node]
	if !ok {
		return netip.Addr{}, errs.New(errs.Precondition, "machine %s has told no key to encrypt with, so nothing is sent to it", node)
	}
	return way.Address, nil
}

// beyondSeal says that a task is on another machine that the mesh's tunnel does not lead to, because that is encrypted: then a connection
// goes from meshproxy to meshproxy, encrypted by them.
func (m *Model) beyondSeal(backends []Backend, self Self) bool {
	return m.Encryption().GetMesh() && slices.ContainsFunc(backends, func(b Backend) bool {
		_, way := self.Seal.Ways[b.Node]
		return b.Node != self.Node && (!way || self.Seal.Why != "")
	})
}
