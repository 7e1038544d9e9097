package tables

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
	"github.com/shoalproject/shoal/services/meshproxy/internal/turn"
)

// addTurn makes the chain that chooses one of so many places for whichever port a packet is for, and comes back with it in the
// packet's priority. It does not look into the map of the tasks: the kernel walks through a whole map with each new chain that does.
func (m mapped) addTurn(conn *nftables.Conn, name string) error {
	is4, size, counter, ok := turn.Parse(name)
	if !ok {
		return fmt.Errorf("%q is no turn", name)
	}
	chain := conn.AddChain(&nftables.Chain{Table: m.table, Name: name})
	conn.FlushChain(chain) // it may be there already, of an earlier try
	choose := match.Part{&expr.Numgen{Register: match.Reg2, Modulus: size, Type: unix.NFT_NG_INCREMENTAL}}
	if counter == 0 {
		choose = match.ByClient(is4, size)
	}
	choose = append(choose, &expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: match.Reg2})
	conn.AddRule(&nftables.Rule{
		Table: m.table, Chain: chain, Exprs: choose, UserData: userdata.AppendString(nil, userdata.TypeComment, name),
	})
	return nil
}

// leadTo translates the destination to the task in the place that choose leaves in register 2.
func (m mapped) leadTo(is4 bool, choose match.Part) match.Part {
	backends := m.sets[kernel.Family(kernel.SetBackends, is4)]
	family, portRegister := uint32(unix.NFPROTO_IPV4), uint32(match.Reg1)
	if !is4 {
		family, portRegister = unix.NFPROTO_IPV6, match.Reg4
	}
	return append(append(match.PortKey(match.Reg0, match.Reg1), choose...),
		&expr.Lookup{SourceRegister: match.Reg0, DestRegister: match.Reg0, IsDestRegSet: true, SetName: backends.Name, SetID: backends.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: match.Reg0, RegProtoMin: portRegister},
	)
}
