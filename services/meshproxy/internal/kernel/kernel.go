// Package kernel says what of a machine's network is ours: its links, addresses, routes, entries and rules as values that can
// be compared, and the steps that lead from one state to another.
//
// It owns those values (Kernel), their names (Bridge, SetPorts) and their difference (Diff). It decides nothing: what should
// be there is a Model's of package mesh, and the kernel itself is package tables'. It is pure: no kernel, no socket, no clock.
// Its functions are safe for concurrent use, but nobody may change a Kernel that another reads.
package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"strconv"

	"github.com/shoalproject/shoal/services/meshproxy/internal/shards"
)

// Kernel is the part of a machine's network that is ours: as it should be or as it is (read back). Sets are maps
// to nothing.
type Kernel struct {
	Links      map[string]Link
	Addresses  map[Address]struct{}
	Routes     map[Route]struct{}
	Neighbours map[Neighbour]struct{}
	Forwards   map[Forward]struct{}
	// Settings are sysctls by their path below /proc/sys. A read Kernel has those that were asked for and exist.
	Settings map[string]string
	// Rules are the packet filter, without its sets.
	Rules Rules
	// Peers are the addresses from which tunnel packets are taken.
	Peers map[netip.Addr]struct{}
	// Policies lead packets to a table by their mark.
	Policies map[Policy]struct{}
	// Entries are the elements of the packet filter's sets and maps.
	Entries Entries
	// Services are those of published ports, by service: there may be very many, of which one has changed.
	Services shards.Map[*Part]
	// Return is the mark of the rule on the machine's tunnel that sends replies to where they belong: ReturnMark, or "".
	Return string
}

// NewKernel makes an empty one.
func NewKernel() Kernel {
	return Kernel{
		Links: map[string]Link{}, Addresses: map[Address]struct{}{}, Routes: map[Route]struct{}{},
		Neighbours: map[Neighbour]struct{}{}, Forwards: map[Forward]struct{}{}, Settings: map[string]string{},
		Peers: map[netip.Addr]struct{}{}, Policies: map[Policy]struct{}{}, Entries: Entries{},
	}
}

// Equal compares all of it.
func (k Kernel) Equal(o Kernel) bool {
	return maps.Equal(k.Links, o.Links) && maps.Equal(k.Addresses, o.Addresses) && maps.Equal(k.Routes, o.Routes) &&
		maps.Equal(k.Neighbours, o.Neighbours) && maps.Equal(k.Forwards, o.Forwards) &&
		maps.Equal(k.Settings, o.Settings) && k.Rules.Mark == o.Rules.Mark && maps.Equal(k.Peers, o.Peers) &&
		maps.Equal(k.Policies, o.Policies) && k.Return == o.Return && maps.Equal(k.Entries, o.Entries) && k.Services.Equal(o.Services)
}

// Link is a bridge, a VXLAN device when VNI is not 0, or a WireGuard device.
type Link struct {
	Name string
	Up   bool
	MTU  int
	// MAC is kept fixed, else a bridge takes its first port's and containers lose their gateway. Empty: any.
	MAC string
	// Master is the bridge that it is a port of. A port of ours neither learns nor floods, and is answered for.
	Master string
	// VNI, Port and Local are the tunnel's: network identifier, UDP port, this end.
	VNI   uint32
	Port  uint16
	Local netip.Addr
	// Seal says that it is a WireGuard device: the kernel's, or that of a process which outlives this one. Its keys are set apart.
	Seal bool
}

// Address is one on a link of ours.
type Address struct {
	Link   string
	Prefix netip.Prefix
}

// Route leads a prefix onto a link: from a source address, or to a gateway that is taken to be on the link.
type Route struct {
	Link   string
	Prefix netip.Prefix
	Source netip.Addr
	Via    netip.Addr
	// Local says that the machine itself takes what is led so.
	Local bool
	// Table is its routing table; 0: the main one.
	Table int
}

// Policy leads packets with a mark, which a link's containers sent, to a routing table.
type Policy struct {
	IPv6       bool
	In         string
	Mark, Mask uint32
	Table      int
}

// Neighbour is a permanent one, on a bridge: who has that address.
type Neighbour struct {
	Link string
	Addr netip.Addr
	MAC  string
}

// Forward is a permanent forwarding entry of a VXLAN device and of its bridge: behind which tunnel end a MAC address is.
type Forward struct {
	Link string
	MAC  string
	VTEP netip.Addr
	// Half says that one of the two entries is missing, or that there are several: only read, never wanted. So it goes, and
	// comes back whole.
	Half bool
}

// Rules are what the packet filter depends on. Mark is a digest of the rules that are in the kernel, and the only field of
// Rules that is read back: "" when there are none or somebody has changed them.
type Rules struct {
	Mark string
	// DataPort is the tunnels' UDP port.
	DataPort uint16
	// Mesh says that the kernel carries published ports.
	Mesh bool
	// Transparent says that the meshproxy speaks to containers with its clients' addresses: what they answer is its own.
	Transparent bool
	// Sealed says that some networks' tunnel packets must be within WireGuard.
	Sealed bool
	// SealedNetworks are the machine network's where it must be encrypted: what is for another machine's task goes by the tunnel alone.
	SealedNetworks []netip.Prefix
	// Own are TCP ports of our processes that no container may dial.
	Own []uint16
	// Blocks are this machine's part of the machine network, Networks is all of it.
	Blocks, Networks []netip.Prefix
	// Gateways are the machine's addresses, one a family, from which it speaks for another machine of the cluster whose own
	// task is behind the connection that it has opened here: its own address would come back to it as a stranger's.
	Gateways [2]netip.Addr
}

// AddGateway takes the first of a family.
func (r *Rules) AddGateway(a netip.Addr) {
	i := 0
	if a.Is6() {
		i = 1
	}
	if !r.Gateways[i].IsValid() {
		r.Gateways[i] = a
	}
}

// rulesFormat counts up with each change of the rules that are made from Rules, so that an upgraded process replaces them.
const rulesFormat = 11

// Text has all that the rules depend on: equal texts mean equal rules.
func (r Rules) Text() string {
	text := fmt.Sprintf("data=%d own=%d blocks=%s networks=%s mesh=%t", r.DataPort, r.Own, r.Blocks, r.Networks, r.Mesh)
	if r.Transparent {
		text += " transparent"
	}
	if r.Sealed {
		text += " sealed"
	}
	if len(r.SealedNetworks) > 0 {
		text += fmt.Sprintf(" sealed-networks=%s", r.SealedNetworks)
	}
	for _, g := range r.Gateways {
		if g.IsValid() {
			text += " gateway=" + g.String()
		}
	}
	return text
}

// Digest is the mark of these rules in the kernel: short enough for a rule's comment.
func (r Rules) Digest() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", rulesFormat, r.Text()))
	return hex.EncodeToString(sum[:8])
}

// Numbers are those that the peers have in a kernel that was read.
func (k Kernel) Numbers() map[string]uint16 {
	out := map[string]uint16{}
	for _, p := range k.Entries {
		for slot, value := range p.elements {
			if n, err := strconv.ParseUint(value, 10, 16); slot.Set == SetZones && err == nil {
				out[slot.Key] = uint16(n)
			}
		}
	}
	return out
}
