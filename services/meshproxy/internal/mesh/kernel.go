package mesh

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Kernel is the part of a machine's network that is ours: as it should be (Desired) or as it is (read back). Sets are maps
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
		maps.Equal(k.Policies, o.Policies) && k.Return == o.Return && k.Entries.equal(o.Entries)
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

func (r *Rules) gateway(a netip.Addr) {
	i := 0
	if a.Is6() {
		i = 1
	}
	if !r.Gateways[i].IsValid() {
		r.Gateways[i] = a
	}
}

// rulesFormat counts up with each change of the rules that are made from Rules, so that an upgraded process replaces them.
const rulesFormat = 9

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

// Verb is what a Change does.
type Verb string

// The verbs, in words for the log.
const (
	Add    Verb = "add"
	Remove Verb = "remove"
	Set    Verb = "set"
	Up     Verb = "up"
)

// Change is one step from a Kernel to another. Exactly one field beside Verb is set.
type Change struct {
	Verb      Verb
	Link      *Link
	Address   *Address
	Route     *Route
	Neighbour *Neighbour
	Forward   *Forward
	Setting   *Setting
	Rules     *Rules
	Peer      netip.Addr
	Policy    *Policy
	Entry     *Entry
	Return    bool
}

// Setting is a sysctl with its value.
type Setting struct{ Path, Value string }

// String is for logs and scripts.
func (c Change) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s ", c.Verb)
	switch {
	case c.Link != nil:
		b.WriteString("link " + c.Link.text(c.Verb))
	case c.Address != nil:
		fmt.Fprintf(&b, "address %s on %s", c.Address.Prefix, c.Address.Link)
	case c.Route != nil:
		b.WriteString(c.Route.text())
	case c.Neighbour != nil:
		fmt.Fprintf(&b, "neighbour %s is %s on %s", c.Neighbour.Addr, c.Neighbour.MAC, c.Neighbour.Link)
	case c.Forward != nil:
		fmt.Fprintf(&b, "forward %s to %s on %s", c.Forward.MAC, c.Forward.VTEP, c.Forward.Link)
	case c.Setting != nil:
		fmt.Fprintf(&b, "%s=%s", c.Setting.Path, c.Setting.Value)
	case c.Rules != nil:
		fmt.Fprintf(&b, "rules %s", c.Rules.Text())
	case c.Policy != nil:
		b.WriteString(c.Policy.text())
	case c.Entry != nil:
		fmt.Fprintf(&b, "entry %s", c.Entry)
	case c.Return:
		b.WriteString("the way back")
	default:
		fmt.Fprintf(&b, "peer %s", c.Peer)
	}
	return b.String()
}

func (r *Route) text() string {
	text := fmt.Sprintf("route %s on %s", r.Prefix, r.Link)
	if r.Local {
		text += " local"
	}
	if r.Source.IsValid() {
		text += " from " + r.Source.String()
	}
	if r.Via.IsValid() {
		text += " via " + r.Via.String()
	}
	if r.Table != 0 {
		text += fmt.Sprintf(" table=%d", r.Table)
	}
	return text
}

func (p *Policy) text() string {
	family := "ipv4"
	if p.IPv6 {
		family = "ipv6"
	}
	return fmt.Sprintf("policy %s in=%s mark=%#x/%#x table=%d", family, p.In, p.Mark, p.Mask, p.Table)
}

func (l *Link) text(v Verb) string {
	if v == Remove || v == Up {
		return l.Name
	}
	parts := []string{l.Name, fmt.Sprintf("mtu=%d", l.MTU)}
	if l.MAC != "" {
		parts = append(parts, "mac="+l.MAC)
	}
	if l.Master != "" {
		parts = append(parts, "master="+l.Master)
	}
	if l.VNI != 0 {
		parts = append(parts, fmt.Sprintf("vni=%d port=%d", l.VNI, l.Port))
		if l.Local.IsValid() {
			parts = append(parts, "local="+l.Local.String())
		}
	}
	if l.Seal {
		parts = append(parts, "wireguard")
	}
	return strings.Join(parts, " ")
}

// Ours says that a link's name is one that shoal gives: ours, and the host ends that the agent makes. Only such links are
// ever removed.
func Ours(name string) bool {
	if name == MachineBridge || name == MachineTunnel || isSeal(name) {
		return true
	}
	for _, prefix := range []string{bridgePrefix, tunnelPrefix} {
		if n, ok := strings.CutPrefix(name, prefix); ok && isNumber(n) {
			return true
		}
	}
	return len(name) > len(hostEndPrefix) && strings.HasPrefix(name, hostEndPrefix)
}

// Managed says that a link is one that the meshproxy makes: bridges and tunnels, not the agent's host ends.
func Managed(name string) bool {
	n, ok := strings.CutPrefix(name, tunnelPrefix)
	return Ours(name) && (!strings.HasPrefix(name, hostEndPrefix) || (ok && isNumber(n)))
}

// HostEnd says that a link is the host's end of a container's, which the agent makes.
func HostEnd(name string) bool { return Ours(name) && !Managed(name) }

func isNumber(s string) bool {
	return s != "" && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < '0' || c > '9' })
}
