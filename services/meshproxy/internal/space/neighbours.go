package space

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// neighbourFor is how long one counts after a container has last begun something with it: longer than the kernel asks for it in vain.
const neighbourFor = 30 * time.Second

// neighbourSet remembers whom a container speaks to.
func (l layout) neighbourSet(f *family, most uint32) *nftables.Set {
	return &nftables.Set{
		Table: l.table, Name: "neighbours" + f.name, KeyType: f.key, Dynamic: true, HasTimeout: true, Timeout: neighbourFor, Size: most,
	}
}

// bound lets a container begin something with so many neighbours at a time: the kernel asks for each, and has all containers' in one
// table, which one alone would fill by a network of IPv6. Whoever has answered counts no more. What leaves by a gateway counts as the
// gateway.
func (l layout) bound(c *nftables.Conn, most uint32) error {
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{
		Name: "neighbours", Table: l.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter), Policy: &accept,
	})
	c.FlushChain(chain)
	add := func(exprs ...expr.Any) { c.AddRule(&nftables.Rule{Table: l.table, Chain: chain, Exprs: exprs}) }
	pass := &expr.Verdict{Kind: expr.VerdictAccept}
	add(&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4, Xor: make([]byte, 4),
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}, pass)
	for _, f := range l.families {
		s := l.neighbourSet(f, most)
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
		next := expr.RtNexthop4
		if f.number == unix.NFPROTO_IPV6 {
			next = expr.RtNexthop6
		}
		add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.number}},
			&expr.Rt{Key: next, Register: 1},
			&expr.Dynset{SrcRegKey: 1, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: neighbourFor}, pass)
	}
	add(&expr.Verdict{Kind: expr.VerdictDrop})
	return nil
}
