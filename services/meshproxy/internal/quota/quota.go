// Package quota keeps one container from taking all the room that the machine has for tracked connections: each of its addresses on
// the machine network may have so many that it began, and what it begins beyond that is dropped.
//
// It owns the nftables table "shoal-quota" and nothing else. What a container answers, as behind a published port, counts with
// whoever began it, and is never dropped here. One goroutine at a time may use a Part.
package quota

import (
	"context"
	"fmt"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

const (
	tableName, chainName = "shoal-quota", "prerouting"
	// format counts up with each change of the rules, so that an upgraded process replaces them.
	format = 1
	// containers bounds how many addresses are counted: as many as a machine's blocks have.
	containers = 65535
	// afterTracking is a priority at which a packet's connection is known, and nothing of ours has looked at it yet.
	afterTracking = nftables.ChainPriority(-190)
)

// Health is told when the kernel refuses.
type Health interface {
	Set(part string, ok bool, why string)
}

// Part follows the models of a machine.
type Part struct {
	env    run.Env
	health Health
	most   uint32
	model  *mesh.Model
}

// New lets each address have that many connections; 0: any number.
func New(env run.Env, health Health, most uint32) *Part {
	return &Part{env: env, health: health, most: most}
}

// Apply looks whether the rules are there, at the first model and when one comes again, which means a look. What it cannot do is
// told and holds up no version.
func (p *Part) Apply(_ context.Context, m *mesh.Model) error {
	look := p.model == nil || m == p.model
	p.model = m
	if !look {
		return nil
	}
	made, err := Enforce(p.most)
	if err != nil {
		p.env.Log.Warn("containers may take all room for tracked connections, will retry", "error", err)
		p.health.Set("quota", false, err.Error())
		return nil
	}
	p.health.Set("quota", true, "")
	if made {
		p.env.Log.Info("connections of each container limited", "most", p.most)
	}
	return nil
}

// Forget has nothing to clear away.
func (p *Part) Forget() error { return nil }

// Enforce has the limit be in force, and says whether anything had to be done for it.
func Enforce(most uint32) (made bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	there, right, err := look(conn, most)
	if err != nil || right {
		return false, err
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	if there {
		conn.DelTable(table)
	}
	if most > 0 {
		if err := write(conn, table, most); err != nil {
			return false, err
		}
	}
	if err := conn.Flush(); err != nil {
		return false, fmt.Errorf("limit the connections of containers: %w", err)
	}
	return true, nil
}

// Close removes the table.
func Close() error {
	_, err := Enforce(0)
	return err
}

// look says whether the table is there, and whether it is as wanted.
func look(conn *nftables.Conn, most uint32) (there, right bool, err error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, false, fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		there = there || t.Name == tableName
	}
	if !there || most == 0 {
		return there, there == (most > 0), nil
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	rules, err := conn.GetRules(table, &nftables.Chain{Name: chainName, Table: table})
	if err != nil {
		return true, false, nil //nolint:nilerr // it has no such chain: it is made anew
	}
	for _, r := range rules {
		text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		right = text == comment(most) && len(rules) == 2
		if !right {
			break
		}
	}
	return true, right, nil
}

// comment marks the rules of a limit.
func comment(most uint32) string { return fmt.Sprintf("quota %d %d", format, most) }

func write(conn *nftables.Conn, table *nftables.Table, most uint32) error {
	conn.AddTable(table)
	accept := nftables.ChainPolicyAccept
	chain := conn.AddChain(&nftables.Chain{
		Name: chainName, Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(afterTracking), Policy: &accept,
	})
	for i, f := range []struct {
		proto        byte
		offset, size uint32
		kind         nftables.SetDatatype
	}{
		{unix.NFPROTO_IPV4, 12, 4, nftables.TypeIPAddr}, {unix.NFPROTO_IPV6, 8, 16, nftables.TypeIP6Addr},
	} {
		set := &nftables.Set{Table: table, ID: uint32(i + 1), Name: "began" + strconv.Itoa(4+2*i), KeyType: f.kind, Dynamic: true, Size: containers}
		if err := conn.AddSet(set, nil); err != nil {
			return err
		}
		link := make([]byte, unix.IFNAMSIZ)
		copy(link, kernel.MachineBridge)
		begins := binaryutil.NativeEndian.PutUint32(expr.CtStateBitNEW)
		conn.AddRule(&nftables.Rule{
			Table: table, Chain: chain, UserData: userdata.AppendString(nil, userdata.TypeComment, comment(most)),
			Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: link},
				&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
				&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: begins, Xor: make([]byte, 4)},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.size},
				&expr.Dynset{
					SrcRegKey: 1, SetID: set.ID, SetName: set.Name, Operation: unix.NFT_DYNSET_OP_ADD,
					Exprs: []expr.Any{&expr.Connlimit{Count: most, Flags: expr.NFT_CONNLIMIT_F_INV}},
				},
				&expr.Verdict{Kind: expr.VerdictDrop},
			},
		})
	}
	return nil
}
