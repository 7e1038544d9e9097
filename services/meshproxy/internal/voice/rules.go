package voice

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/layout"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
)

const (
	// format counts up with each change of the rules, so that an upgraded process replaces them.
	format = 1
	// questions is how many of these a port may ask and answer in a second, and burst at once: a container that begins to speak to a
	// thousand neighbours is through in five seconds.
	questions, burst = 200, 400
	// ports bounds how many are counted, and remembered how long one is that says nothing.
	ports, remembered = 65535, time.Minute
	// beforeBridging is a priority ahead of all address translation (nftables(8): the bridge family's dstnat is -300).
	beforeBridging = nftables.ChainPriority(-310)
)

// Ports that the agent makes, and tunnels, whose names begin alike.
const (
	hostEnds = "shoalv*"
	tunnels  = "shoalvx*"
)

// table is ours, as objects to name its parts by.
type table struct {
	table                          *nftables.Table
	port, said4, said6, icmp6, arp *nftables.Chain
	owners                         [2]*nftables.Set // IPv4, IPv6: MAC addresses with the addresses that are theirs
	layouts                        [2]layout.Layout // likewise
	asked                          *nftables.Set
	rules                          []*nftables.Rule
}

func newTable() table {
	t := table{table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}}
	accept := nftables.ChainPolicyAccept
	t.port = &nftables.Chain{
		Name: "ports", Table: t.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(beforeBridging), Policy: &accept,
	}
	for name, chain := range map[string]**nftables.Chain{"said4": &t.said4, "said6": &t.said6, "neighbours6": &t.icmp6, "neighbours4": &t.arp} {
		*chain = &nftables.Chain{Name: name, Table: t.table}
	}
	all, _ := layout.All()
	for i, is4 := range []bool{true, false} {
		name := kernel.Family(kernel.SetOwners, is4)
		t.layouts[i] = all[name]
		t.owners[i] = t.layouts[i].Set(t.table, name)
		t.owners[i].ID = uint32(i + 1)
	}
	t.asked = &nftables.Set{
		Table: t.table, ID: 3, Name: "asked", KeyType: nftables.TypeIFIndex, KeyByteOrder: binaryutil.NativeEndian,
		Dynamic: true, HasTimeout: true, Timeout: remembered, Size: ports,
	}
	t.write()
	return t
}

func (t table) chains() []*nftables.Chain {
	return []*nftables.Chain{t.port, t.said4, t.said6, t.icmp6, t.arp}
}

// make queues all of it, without elements.
func (t table) make(conn *nftables.Conn) error {
	conn.AddTable(t.table)
	for _, s := range []*nftables.Set{t.owners[0], t.owners[1], t.asked} {
		if err := conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	for _, c := range t.chains() {
		conn.AddChain(c)
	}
	for _, r := range t.rules {
		conn.AddRule(r)
	}
	return nil
}

// comments are those of a chain's rules, which say that they are whole and ours.
func (t table) comments(c *nftables.Chain) (out []string) {
	for _, r := range t.rules {
		if r.Chain == c {
			text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			out = append(out, text)
		}
	}
	return out
}

func (t *table) add(c *nftables.Chain, parts ...match.Part) {
	r := &nftables.Rule{Table: t.table, Chain: c}
	for _, p := range parts {
		r.Exprs = append(r.Exprs, p...)
	}
	r.UserData = userdata.AppendString(nil, userdata.TypeComment, fmt.Sprintf("voice %d/%d", format, len(t.rules)+1))
	t.rules = append(t.rules, r)
}

// write makes the rules. What is neither IP nor a question of who has an address is nobody's to say: within a second tag it would pass
// by all that is looked at here.
func (t *table) write() {
	t.add(t.port, match.Iifname(tunnels), match.Accept())
	t.add(t.port, match.Iifname(hostEnds), ether(unix.ETH_P_IP), match.GoTo(t.said4))
	t.add(t.port, match.Iifname(hostEnds), ether(unix.ETH_P_IPV6), match.GoTo(t.said6))
	t.add(t.port, match.Iifname(hostEnds), ether(unix.ETH_P_ARP), match.GoTo(t.arp))
	t.add(t.port, match.Iifname(hostEnds), match.Drop())

	t.add(t.said4, t.not(own(false, 12)), match.Drop())
	t.add(t.said4, match.Protocol(unix.IPPROTO_UDP), transport(0, 0, 67, 0, 68), match.Drop()) // a DHCP server
	t.add(t.said4, match.Protocol(unix.IPPROTO_IGMP), transport(0, 0x11), match.Drop())        // a querier: the bridge would take it for a router
	t.add(t.said4, match.Accept())

	// An ARP packet for Ethernet and IPv4 (RFC 826): the sender is who sends it, with an address of its own.
	t.add(t.arp, t.often(), match.Drop())
	t.add(t.arp, payload(expr.PayloadBaseNetworkHeader, 0, 0, 1, 8, 0, 6, 4), t.is(own(false, 14)), t.is(told(expr.PayloadBaseNetworkHeader, 8, own(false, 14))), match.Accept())
	t.add(t.arp, match.Drop())

	t.add(t.said6, match.Protocol(unix.IPPROTO_ICMPV6), match.Jump(t.icmp6))
	t.add(t.said6, t.not(own(true, 8)), match.Drop())
	t.add(t.said6, match.Protocol(unix.IPPROTO_UDP), transport(0, 547>>8, 547&0xff, 546>>8, 546&0xff), match.Drop()) // a DHCPv6 server
	t.add(t.said6, match.Accept())
	t.neighbours()
}

// Types of ICMPv6 (RFC 4443, 2710, 3810, 4861).
const (
	listenerQuery, listenerReport = 130, 131
	routerAdvertisement           = 134
	solicitation, advertisement   = 135, 136
	redirect                      = 137
	listenerReport2               = 143
	last                          = 151 // of what is said about neighbours and listeners
)

// neighbours are the rules for neighbour discovery (RFC 4861). An answer is for an address of one's own and, like a question, names no
// MAC address but one's own. Both are looked at in the form that kernels send, with one option or none: in any other an option could
// be hidden.
func (t *table) neighbours() {
	for _, kind := range []byte{listenerQuery, routerAdvertisement, redirect} {
		t.add(t.icmp6, transport(0, kind), match.Drop())
	}
	t.add(t.icmp6, between(listenerQuery, last), t.often(), match.Drop())
	const target, option = 8, 24 // where they begin behind the header of ICMPv6
	nobody := payload(expr.PayloadBaseNetworkHeader, 8, make([]byte, 16)...)
	about := own(true, 8)
	about.address.Base, about.address.Offset = expr.PayloadBaseTransportHeader, target
	// Whether an address is free is asked by nobody yet, of one's own.
	t.add(t.icmp6, transport(0, solicitation), nobody, t.is(about), match.Accept())
	for _, kind := range []struct{ number, option byte }{{solicitation, 1}, {advertisement, 2}} {
		said := slices.Concat(transport(0, kind.number), payload(expr.PayloadBaseNetworkHeader, 6, unix.IPPROTO_ICMPV6), t.is(own(true, 8)))
		if kind.number == advertisement {
			said = slices.Concat(said, t.is(about))
		}
		t.add(t.icmp6, said, size(option), match.Accept())
		t.add(t.icmp6, said, size(option+8), transport(option, kind.option, 1), t.is(told(expr.PayloadBaseTransportHeader, option+2, own(true, 8))), match.Accept())
	}
	t.add(t.icmp6, between(solicitation, advertisement), match.Drop())
	for _, kind := range []byte{listenerReport, listenerReport + 1, listenerReport2} { // before it has an address
		t.add(t.icmp6, transport(0, kind), nobody, match.Accept())
	}
}

// pair loads a MAC address and an address as the sets have them, side by side.
type pair struct {
	mac, address expr.Payload
	set          int
}

// own is the pair of who sends the frame, and the address at an offset of the network header.
func own(six bool, offset uint32) pair {
	p := pair{
		mac:     expr.Payload{DestRegister: match.Reg0, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		address: expr.Payload{DestRegister: match.Reg2, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
	}
	if six {
		p.set, p.address.Len = 1, 16
	}
	return p
}

// told is a pair with the MAC address that is told within the packet.
func told(base expr.PayloadBase, offset uint32, p pair) pair {
	p.mac.Base, p.mac.Offset = base, offset
	return p
}

// is asks whether an address is that of a MAC address.
func (t *table) is(p pair) match.Part {
	s := t.owners[p.set]
	return match.Part{new(p.mac), new(p.address), &expr.Lookup{SourceRegister: match.Reg0, SetName: s.Name, SetID: s.ID}}
}

func (t *table) not(p pair) match.Part {
	s := t.owners[p.set]
	return match.Part{new(p.mac), new(p.address), &expr.Lookup{SourceRegister: match.Reg0, SetName: s.Name, SetID: s.ID, Invert: true}}
}

// often matches what a port says beyond its rate.
func (t *table) often() match.Part {
	return match.Part{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
		&expr.Dynset{
			SrcRegKey: 1, SetID: t.asked.ID, SetName: t.asked.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: remembered,
			Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: questions, Unit: expr.LimitTimeSecond, Burst: burst, Over: true}},
		},
	}
}

// ether matches what the frame holds.
func ether(protocol uint16) match.Part {
	return match.Part{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(protocol)},
	}
}

// transport compares bytes behind the network header.
func transport(offset uint32, data ...byte) match.Part {
	return payload(expr.PayloadBaseTransportHeader, offset, data...)
}

func payload(base expr.PayloadBase, offset uint32, data ...byte) match.Part {
	return match.Part{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(data))}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// between matches types of ICMPv6.
func between(from, to byte) match.Part {
	return match.Part{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: []byte{from}, ToData: []byte{to}},
	}
}

// size compares how much follows the header of IPv6 (RFC 8200).
func size(n byte) match.Part { return payload(expr.PayloadBaseNetworkHeader, 4, 0, n) }
