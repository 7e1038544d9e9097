package tables

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/turn"
)

// Registers of 32 bits; a wide one is four of them. What the kernel compares as a concatenation lies side by side.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
	reg4 = unix.NFT_REG32_04
	reg5 = unix.NFT_REG32_05
)

// addTurn makes the chain that chooses one of so many tasks of whichever port a packet is for. It has one rule: all that
// differs from port to port is in the map of the tasks. A packet for which it finds nothing comes back from it.
func (m mapped) addTurn(conn *nftables.Conn, name string) error {
	is4, size, counter, ok := turn.Parse(name)
	if !ok {
		return fmt.Errorf("%q is no turn", name)
	}
	chain := conn.AddChain(&nftables.Chain{Table: m.table, Name: name})
	conn.FlushChain(chain) // it may be there already, of an earlier try
	choose := match{&expr.Numgen{Register: reg2, Modulus: size, Type: unix.NFT_NG_INCREMENTAL}}
	if counter == 0 {
		choose = byClient(is4, size)
	}
	conn.AddRule(&nftables.Rule{
		Table: m.table, Chain: chain, Exprs: m.leadTo(is4, choose), UserData: userdata.AppendString(nil, userdata.TypeComment, name),
	})
	return nil
}

// leadTo translates the destination to the task in the place that choose leaves in register 2.
func (m mapped) leadTo(is4 bool, choose match) match {
	backends := m.sets[mesh.Family(mesh.SetBackends, is4)]
	family, portRegister := uint32(unix.NFPROTO_IPV4), uint32(reg1)
	if !is4 {
		family, portRegister = unix.NFPROTO_IPV6, reg4
	}
	return append(append(portKey(reg0, reg1), choose...),
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: backends.Name, SetID: backends.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg0, RegProtoMin: portRegister},
	)
}

// byClient chooses by the client's address: every machine chooses the same.
func byClient(is4 bool, size uint32) match {
	load := source4()
	if !is4 {
		load = source6()
	}
	load.DestRegister = reg4
	return match{load, &expr.Hash{
		SourceRegister: reg4, DestRegister: reg2, Length: load.Len, Modulus: size, Seed: 1, Type: expr.HashTypeJenkins,
	}}
}

// portKey loads protocol and port as the maps have them.
func portKey(protocol, port uint32) match {
	return match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protocol},
		&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}
