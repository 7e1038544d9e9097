package space

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/vip"
)

const (
	// tableName is our table in a container's namespace.
	tableName = "shoal-vip"
	// before is the place ahead of a container's own address translation (nftables(8): dstnat is -100).
	before = -101
	// goneFor is how long late packets to a task that has ended are answered with a reset. Its address rests for longer.
	goneFor = 4 * time.Minute
)

// Registers of 32 bits, which lie side by side: a concatenation is as many as its parts need.
const reg0 = unix.NFT_REG32_00

// family is what differs between IPv4 and IPv6.
type family struct {
	name        string
	number      byte
	offset, len uint32 // of the destination in the header (RFC 791, RFC 8200)
	key         nftables.SetDatatype
	choose      *nftables.Chain
	vips        *nftables.Set // virtual address to its turn
	turns       *nftables.Set // turn to its chain
	backends    *nftables.Set // virtual address and place to the task's
	empty       *nftables.Set // virtual addresses without backends
	gone        *nftables.Set // addresses of tasks that have ended
	counted     *nftables.Set // virtual addresses whose connections are counted
	callers     *nftables.Set // addresses that may call
	ranges      *nftables.Set // ranges that may call
}

// layout is our table, as objects to name its parts by.
//
// A packet that meets a transaction sees the rules of before it and the elements of after it: the kernel looks at the
// generation anew in each set. So nothing that a rule looks for may be missing in between, or the connection would go to the
// virtual address itself, where nobody is, for as long as its client asks. What stays and what is replaced is in the same
// set in either generation, and a place that has gone has a next best.
type layout struct {
	table    *nftables.Table
	nobody   *nftables.Chain // refuses
	families [2]*family
}

func newLayout() layout {
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	l := layout{table: t, nobody: &nftables.Chain{Name: "nobody", Table: t}, families: [2]*family{
		{name: "4", number: unix.NFPROTO_IPV4, offset: 16, len: 4, key: nftables.TypeIPAddr},
		{name: "6", number: unix.NFPROTO_IPV6, offset: 24, len: 16, key: nftables.TypeIP6Addr},
	}}
	for _, f := range l.families {
		set := func(name string) *nftables.Set {
			return &nftables.Set{Table: l.table, Name: name + f.name, KeyType: f.key}
		}
		f.vips, f.backends, f.turns = set("vip-turns"), set("backends"), set("turns")
		f.vips.IsMap, f.vips.DataType = true, nftables.TypeMark
		f.turns.IsMap, f.turns.KeyType, f.turns.DataType = true, nftables.TypeMark, nftables.TypeVerdict
		f.backends.IsMap, f.backends.Concatenation = true, true
		f.backends.KeyType, f.backends.DataType = nftables.MustConcatSetType(f.key, nftables.TypeMark), f.key
		f.empty, f.counted, f.gone = set("empty"), set("counted"), set("gone")
		f.counted.Counter, f.gone.HasTimeout = true, true
		f.callers, f.ranges = set("callers"), set("caller-ranges")
		f.ranges.Interval = true
		f.choose = &nftables.Chain{Name: "choose" + f.name, Table: l.table}
	}
	return l
}

func (l layout) of(a netip.Addr) *family {
	if a.Is4() {
		return l.families[0]
	}
	return l.families[1]
}

// make has the table be there, with its rules and without elements, whatever was in it. It is emptied rather than replaced,
// so that what is added in the same transaction is there without a gap.
func (l layout) make(c *nftables.Conn) error {
	c.AddTable(l.table)
	for _, f := range l.families {
		for _, s := range []*nftables.Set{f.vips, f.turns, f.backends, f.empty, f.gone, f.counted, f.callers, f.ranges} {
			if err := c.AddSet(s, nil); err != nil {
				return err
			}
			c.FlushSet(s)
		}
	}
	accept := nftables.ChainPolicyAccept
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority int) *nftables.Chain {
		made := c.AddChain(&nftables.Chain{
			Name: name, Table: l.table, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: &accept,
		})
		c.FlushChain(made)
		return made
	}
	add := func(to *nftables.Chain, exprs []expr.Any) {
		c.AddRule(&nftables.Rule{Table: l.table, Chain: to, Exprs: exprs})
	}
	for _, f := range l.families {
		c.AddChain(f.choose)
		c.FlushChain(f.choose)
		for _, rule := range f.choice() {
			add(f.choose, rule)
		}
	}
	c.AddChain(l.nobody)
	c.FlushChain(l.nobody)
	add(l.nobody, reset())
	add(l.nobody, []expr.Any{unreachable()})
	// What the container itself dials, and what containers within it do.
	for _, nat := range []*nftables.Chain{
		chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, before),
		chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, before),
	} {
		for _, f := range l.families {
			// These chains see the first packet of each connection, so what is found here is one.
			add(nat, append(f.target(1), &expr.Lookup{SourceRegister: 1, SetName: f.counted.Name, SetID: f.counted.ID}))
			add(nat, f.lead())
		}
	}
	for _, filter := range []*nftables.Chain{
		chain("refuse", nftables.ChainTypeFilter, nftables.ChainHookOutput, 0),
		chain("refuse-forwarded", nftables.ChainTypeFilter, nftables.ChainHookForward, 0),
	} {
		// Each packet is looked up once in each set; how it is refused is asked of those alone that are in one.
		for _, f := range l.families {
			for _, set := range []*nftables.Set{f.empty, f.gone} {
				add(filter, append(f.target(1), &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
					&expr.Verdict{Kind: expr.VerdictGoto, Chain: l.nobody.Name}))
			}
		}
	}
	return nil
}

// lead finds the turn of the address that is dialled. A rule cannot look into one map with what it has found in another, or
// nft would not list it: the turn is carried over in the priority of this first packet.
func (f *family) lead() []expr.Any {
	return append(f.target(1),
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: f.vips.Name, SetID: f.vips.ID},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1},
		&expr.Verdict{Kind: expr.VerdictGoto, Chain: f.choose.Name},
	)
}

// choice takes the turn, which leaves the place in the priority; or, where the turn or its place has just gone, the first place, which
// is there as long as there is any.
func (f *family) choice() [][]expr.Any {
	return [][]expr.Any{
		{
			&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: 1},
			&expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: f.turns.Name, SetID: f.turns.ID},
		},
		f.to(&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: f.place()}),
		f.to(&expr.Immediate{Register: f.place(), Data: binaryutil.NativeEndian.PutUint32(0)}),
	}
}

// place is the register beside the address.
func (f *family) place() uint32 { return reg0 + f.len/4 }

// to leads to the task in a place of the address that was dialled.
func (f *family) to(place expr.Any) []expr.Any {
	return append(f.target(reg0), place,
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: f.backends.Name, SetID: f.backends.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.number), RegAddrMin: reg0, RegAddrMax: reg0},
	)
}

// addTurn makes a turn's chain: the next of so many places. It does not look into the map of the tasks: the kernel walks through a
// whole map with each new chain that does.
func (l layout) addTurn(c *nftables.Conn, t turn) error {
	f := l.families[t.family]
	chain := c.AddChain(&nftables.Chain{Name: t.chain(), Table: l.table})
	c.FlushChain(chain)
	c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: []expr.Any{
		&expr.Numgen{Register: 1, Modulus: uint32(t.size), Type: unix.NFT_NG_INCREMENTAL},
		&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1},
	}})
	return c.SetAddElements(f.turns, []nftables.SetElement{
		{Key: t.mark(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name}},
	})
}

func (l layout) dropTurn(c *nftables.Conn, t turn) error {
	if err := c.SetDeleteElements(l.families[t.family].turns, []nftables.SetElement{{Key: t.mark()}}); err != nil {
		return err
	}
	l.dropChain(c, t.chain())
	return nil
}

func (l layout) dropChain(c *nftables.Conn, name string) {
	chain := &nftables.Chain{Name: name, Table: l.table}
	c.FlushChain(chain)
	c.DelChain(chain)
}

// target loads the destination of packets of the family.
func (f *family) target(register uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{f.number}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.len},
	}
}

func reset() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}
}

func unreachable() expr.Any {
	return &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}
}

// refuse changes the sets of addresses that refuse: of virtual ones without backends by difference, of tasks that have ended
// by adding.
func (l layout) refuse(c *nftables.Conn, have vip.Table, changes []vip.Change, ended []netip.Addr) error {
	for _, ch := range changes {
		had, there := have[ch.VIP]
		was, is := there && len(had) == 0, !ch.Gone && len(ch.Backends) == 0
		element := []nftables.SetElement{{Key: ch.VIP.AsSlice()}}
		var err error
		switch {
		case is && !was:
			err = c.SetAddElements(l.of(ch.VIP).empty, element)
		case was && !is:
			err = c.SetDeleteElements(l.of(ch.VIP).empty, element)
		}
		if err != nil {
			return fmt.Errorf("address %s: %w", ch.VIP, err)
		}
	}
	for _, a := range ended {
		if err := c.SetAddElements(l.of(a).gone, []nftables.SetElement{{Key: a.AsSlice(), Timeout: goneFor}}); err != nil {
			return err
		}
	}
	return nil
}
