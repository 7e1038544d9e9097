package tables

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
)

// installZones puts the rule in force that gives connections of each peer's tunnel a zone of their own, in their original
// direction: two connections that a client with one port made by two machines are two here as well, and where their
// replies would clash the kernel changes the port of one.
//
// The library cannot say "original direction", so this one rule is written by hand, in a chain that has no other.
func (f filter) installZones(digest string) error {
	exprs := match.Iifname(kernel.MachineTunnel)
	exprs = append(exprs,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: kernel.SetZones},
	)
	var list []netlink.Attribute
	for _, e := range exprs {
		data, err := expr.Marshal(byte(f.table.Family), e)
		if err != nil {
			return err
		}
		list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
	}
	ct, err := originalZone()
	if err != nil {
		return err
	}
	list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: ct})
	body, err := netlink.MarshalAttributes(list)
	if err != nil {
		return err
	}
	where, err := f.zonesChain()
	if err != nil {
		return err
	}
	rule, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: body},
		{Type: unix.NFTA_RULE_USERDATA, Data: userdata.AppendString(nil, userdata.TypeComment, digest+" 1/1")},
	})
	if err != nil {
		return err
	}
	return send(
		message(unix.NFT_MSG_DELRULE, netlink.Acknowledge, f.table.Family, where),
		message(unix.NFT_MSG_NEWRULE, netlink.Acknowledge|netlink.Create|netlink.Append, f.table.Family, append(slices.Clone(where), rule...)),
	)
}

// originalZone is `ct original zone set` from register 1.
func originalZone() ([]byte, error) {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CT_KEY, Data: binaryutil.BigEndian.PutUint32(unix.NFT_CT_ZONE)},
		{Type: unix.NFTA_CT_SREG, Data: binaryutil.BigEndian.PutUint32(1)},
		{Type: unix.NFTA_CT_DIRECTION, Data: []byte{0}},
	})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: []byte("ct\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: data},
	})
}

// comments lists the comments of a table's rules by chain, in order. The library cannot read all that it can write, and
// would ask for each chain alone.
func comments(t *nftables.Table) (out map[string][]string, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	table, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: []byte(t.Name + "\x00")}})
	if err != nil {
		return nil, err
	}
	answers, err := conn.Execute(message(unix.NFT_MSG_GETRULE, netlink.Dump, t.Family, table))
	if err != nil {
		return nil, ignoreAbsent(err)
	}
	out = map[string][]string{}
	for _, a := range answers {
		if len(a.Data) < 4 {
			continue
		}
		attributes, err := netlink.NewAttributeDecoder(a.Data[4:])
		if err != nil {
			return nil, err
		}
		chain, text := "", ""
		for attributes.Next() {
			switch attributes.Type() {
			case unix.NFTA_RULE_CHAIN:
				chain = attributes.String()
			case unix.NFTA_RULE_USERDATA:
				text, _ = userdata.GetString(attributes.Bytes(), userdata.TypeComment)
			}
		}
		if err := attributes.Err(); err != nil {
			return nil, err
		}
		out[chain] = append(out[chain], strings.TrimRight(text, "\x00"))
	}
	return out, nil
}

func (f filter) zonesChain() ([]byte, error) {
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(f.table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(f.zones.Name + "\x00")},
	})
}

func message(kind int, flags netlink.HeaderFlags, family nftables.TableFamily, data []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   append([]byte{byte(family), unix.NFNETLINK_V0, 0, 0}, data...),
	}
}

// send makes one transaction of messages that are acknowledged each.
func send(messages ...netlink.Message) (err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	batch := func(kind int) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
			Data:   []byte{0, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
		}
	}
	all := append(append([]netlink.Message{batch(unix.NFNL_MSG_BATCH_BEGIN)}, messages...), batch(unix.NFNL_MSG_BATCH_END))
	if _, err := conn.SendMessages(all); err != nil {
		return err
	}
	for range messages {
		if _, err := conn.Receive(); err != nil {
			return err
		}
	}
	return nil
}
