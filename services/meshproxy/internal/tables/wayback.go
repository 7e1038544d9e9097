package tables

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/layout"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
)

// tunnelSide is our table on the tunnel itself: the rule that sends a reply to the machine that its mark names.
type tunnelSide struct {
	table *nftables.Table
	chain *nftables.Chain
	ways  mapped
}

func newTunnelSide() tunnelSide {
	t := tunnelSide{table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}}
	accept := nftables.ChainPolicyAccept
	t.chain = &nftables.Chain{
		Name: "way-back", Table: t.table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookEgress,
		Priority: nftables.ChainPriorityFilter, Policy: &accept, Device: kernel.MachineTunnel,
	}
	_, ways := layout.All()
	t.ways = newMaps(t.table, map[string]layout.Layout{kernel.SetWays: ways})
	return t
}

// apply makes the rule where it is asked for, and changes the map.
func (t tunnelSide) apply(k *Kernel, changes []kernel.Change) error {
	conn, err := open()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	conn.AddTable(t.table)
	if err := t.ways.make(conn, true); err != nil {
		return err
	}
	if err := t.ways.change(conn, changes); err != nil {
		return err
	}
	for _, c := range changes {
		if c.Return {
			conn.AddChain(t.chain)
			conn.FlushChain(t.chain)
			conn.AddRule(t.rule())
		}
	}
	return k.Transact(conn.Flush)
}

// rule writes the MAC address of the peer's tunnel end over that of nobody, by which the route led here. The mark has then done its
// work: the tunnel looks the way of its own packet up anew for each that has one.
func (t tunnelSide) rule() *nftables.Rule {
	ways := t.ways.sets[kernel.SetWays]
	return &nftables.Rule{
		Table: t.table, Chain: t.chain, UserData: userdata.AppendString(nil, userdata.TypeComment, kernel.ReturnMark),
		Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, match.Masked(kernel.ReturnMask),
			&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: ways.Name, SetID: ways.ID},
			&expr.Payload{
				OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: 6,
			},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, match.Masked(^uint32(kernel.ReturnMask)),
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		},
	}
}

func (t tunnelSide) read(conn *nftables.Conn, into map[kernel.Slot]string) (mark string, err error) {
	if _, err := conn.ListTableOfFamily(tableName, nftables.TableFamilyNetdev); err != nil {
		return "", ignoreAbsent(err)
	}
	if err := t.ways.read(conn, into); err != nil {
		return "", err
	}
	rules, err := conn.GetRules(t.table, t.chain)
	if err != nil || len(rules) != 1 || len(rules[0].Exprs) != len(t.rule().Exprs) {
		return "", ignoreAbsent(err)
	}
	mark, _ = userdata.GetString(rules[0].UserData, userdata.TypeComment)
	return mark, nil
}

// isWay says that a change is about the tunnel's own table.
func isWay(c kernel.Change) bool { return c.Return || entrySet(c) == kernel.SetWays }
