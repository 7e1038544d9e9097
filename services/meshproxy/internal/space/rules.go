package space

import (
	"encoding/hex"
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

// family is what differs between IPv4 and IPv6.
type family struct {
	number      byte
	offset, len uint32 // of the destination in the header (RFC 791, RFC 8200)
	key         nftables.SetDatatype
	vips        *nftables.Set // virtual address to its chain
	empty       *nftables.Set // virtual addresses without backends
	gone        *nftables.Set // addresses of tasks that have ended
	counted     *nftables.Set // virtual addresses whose connections are counted
}

// layout is our table, as objects to name its parts by.
type layout struct {
	table    *nftables.Table
	families [2]*family
}

func newLayout() layout {
	l := layout{table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}, families: [2]*family{
		{number: unix.NFPROTO_IPV4, offset: 16, len: 4, key: nftables.TypeIPAddr},
		{number: unix.NFPROTO_IPV6, offset: 24, len: 16, key: nftables.TypeIP6Addr},
	}}
	for i, name := range []string{"4", "6"} {
		f := l.families[i]
		f.vips = &nftables.Set{Table: l.table, Name: "vips" + name, IsMap: true, KeyType: f.key, DataType: nftables.TypeVerdict}
		f.empty = &nftables.Set{Table: l.table, Name: "empty" + name, KeyType: f.key}
		f.counted = &nftables.Set{Table: l.table, Name: "counted" + name, KeyType: f.key, Counter: true}
		f.gone = &nftables.Set{Table: l.table, Name: "gone" + name, KeyType: f.key, HasTimeout: true}
	}
	return l
}

func (l layout) of(a netip.Addr) *family {
	if a.Is4() {
		return l.families[0]
	}
	return l.families[1]
}

// make replaces the whole table, whatever is there, within the transaction.
func (l layout) make(c *nftables.Conn) error {
	c.AddTable(l.table) // so that there is one to remove
	c.DelTable(l.table)
	c.AddTable(l.table)
	for _, f := range l.families {
		for _, s := range []*nftables.Set{f.vips, f.empty, f.gone, f.counted} {
			if err := c.AddSet(s, nil); err != nil {
				return err
			}
		}
	}
	accept := nftables.ChainPolicyAccept
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority int) *nftables.Chain {
		return c.AddChain(&nftables.Chain{
			Name: name, Table: l.table, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: &accept,
		})
	}
	// What the container itself dials, and what containers within it do.
	for _, nat := range []*nftables.Chain{
		chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, before),
		chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, before),
	} {
		for _, f := range l.families {
			// These chains see the first packet of each connection, so what is found here is one.
			c.AddRule(&nftables.Rule{Table: l.table, Chain: nat, Exprs: append(f.target(),
				&expr.Lookup{SourceRegister: 1, SetName: f.counted.Name, SetID: f.counted.ID})})
			c.AddRule(&nftables.Rule{Table: l.table, Chain: nat, Exprs: append(f.target(),
				&expr.Lookup{SourceRegister: 1, IsDestRegSet: true, SetName: f.vips.Name, SetID: f.vips.ID})})
		}
	}
	for _, filter := range []*nftables.Chain{
		chain("refuse", nftables.ChainTypeFilter, nftables.ChainHookOutput, 0),
		chain("refuse-forwarded", nftables.ChainTypeFilter, nftables.ChainHookForward, 0),
	} {
		for _, f := range l.families {
			for _, set := range []*nftables.Set{f.empty, f.gone} {
				in := &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}
				c.AddRule(&nftables.Rule{Table: l.table, Chain: filter, Exprs: append(append(f.target(), in), reset()...)})
				c.AddRule(&nftables.Rule{Table: l.table, Chain: filter, Exprs: append(append(f.target(), in), unreachable())})
			}
		}
	}
	return nil
}

// change does one change of the table.
func (l layout) change(c *nftables.Conn, ch vip.Change) error {
	f := l.of(ch.VIP)
	chain := &nftables.Chain{Name: chainOf(ch.VIP), Table: l.table}
	lead := []nftables.SetElement{{Key: ch.VIP.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name}}}
	if ch.Gone {
		if err := c.SetDeleteElements(f.vips, []nftables.SetElement{{Key: ch.VIP.AsSlice()}}); err != nil {
			return err
		}
		c.FlushChain(chain)
		c.DelChain(chain)
		return nil
	}
	if ch.Fresh {
		c.AddChain(chain)
		if err := c.SetAddElements(f.vips, lead); err != nil {
			return err
		}
	} else {
		c.FlushChain(chain)
	}
	if len(ch.Backends) == 0 {
		return nil
	}
	turn, err := f.turn(c, l.table, ch.Backends)
	if err != nil {
		return err
	}
	c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: turn})
	return nil
}

// turn leads each new connection to the next backend: dnat to numgen inc mod N map { 0 : a, 1 : b, … }.
func (f *family) turn(c *nftables.Conn, t *nftables.Table, backends []netip.Addr) ([]expr.Any, error) {
	to := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.number), RegAddrMin: 1, RegAddrMax: 1}
	if len(backends) == 1 {
		return []expr.Any{&expr.Immediate{Register: 1, Data: backends[0].AsSlice()}, to}, nil
	}
	m := &nftables.Set{Table: t, Anonymous: true, Constant: true, IsMap: true, KeyType: nftables.TypeInteger, DataType: f.key}
	var elements []nftables.SetElement
	for i, b := range backends {
		elements = append(elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: b.AsSlice()})
	}
	if err := c.AddSet(m, elements); err != nil {
		return nil, err
	}
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: uint32(len(backends)), Type: unix.NFT_NG_INCREMENTAL},
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		to,
	}, nil
}

func chainOf(v netip.Addr) string { return "vip-" + hex.EncodeToString(v.AsSlice()) }

// target loads the destination of packets of the family.
func (f *family) target() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.number}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.len},
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
