package space

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// count changes which virtual addresses count their connections. Counts of those that stay go on.
func (l layout) count(c *nftables.Conn, have, want map[netip.Addr]string) error {
	for a := range have {
		if _, stays := want[a]; !stays {
			if err := c.SetDeleteElements(l.of(a).counted, []nftables.SetElement{{Key: a.AsSlice()}}); err != nil {
				return err
			}
		}
	}
	for a := range want {
		if _, there := have[a]; !there {
			if err := c.SetAddElements(l.of(a).counted, []nftables.SetElement{{Key: a.AsSlice()}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Count is how many connections a container has opened to a virtual address since that is counted there.
type Count struct {
	Container string
	VIP       netip.Addr
	Service   string
	Count     uint64
}

// Counts are those of all containers. One whose counts cannot be read is left out and told.
func (s *Spaces) Counts() (out []Count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.spaces {
		if x.have == nil || len(x.counted) == 0 {
			continue
		}
		counts, err := x.counts()
		if err != nil {
			s.env.Log.Warn("connections of a container not counted, will retry", "container", id, "error", err)
			continue
		}
		for a, n := range counts {
			if service := x.counted[a]; service != "" {
				out = append(out, Count{id, a, service, n})
			}
		}
	}
	return out
}

// Attributes of elements (linux/netfilter/nf_tables.h).
const (
	listTable, listSet, listElements = 1, 2, 3
	elementKey, elementExpr          = 1, 7
	exprData, counterPackets         = 2, 2
)

// counts asks the kernel for the elements that count.
func (x *space) counts() (map[netip.Addr]uint64, error) {
	out := map[netip.Addr]uint64{}
	for _, f := range newLayout().families {
		ask, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: listTable, Data: []byte(tableName + "\x00")}, {Type: listSet, Data: []byte(f.counted.Name + "\x00")},
		})
		if err != nil {
			return nil, err
		}
		answers, err := x.wire.ask(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETSETELEM, netlink.Dump, unix.NFPROTO_INET, ask)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", f.counted.Name, err)
		}
		for _, m := range answers {
			if len(m.Data) < 4 {
				return nil, errors.New("an answer is cut")
			}
			walk(m.Data[4:], listElements, func(list []byte) {
				walk(list, unix.NFTA_LIST_ELEM, func(element []byte) {
					walk(element, elementKey, func(key []byte) {
						walk(key, unix.NFTA_DATA_VALUE, func(data []byte) {
							a, _ := netip.AddrFromSlice(data)
							out[a] = packets(element)
						})
					})
				})
			})
		}
	}
	return out, nil
}

// packets reads an element's counter.
func packets(element []byte) (n uint64) {
	walk(element, elementExpr, func(counter []byte) {
		walk(counter, exprData, func(data []byte) {
			walk(data, counterPackets, func(number []byte) {
				if len(number) == 8 {
					n = binary.BigEndian.Uint64(number)
				}
			})
		})
	})
	return n
}

// walk calls f with each attribute of a kind. What is no list of attributes has none.
func walk(data []byte, kind uint16, f func([]byte)) {
	d, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return
	}
	for d.Next() {
		if d.Type() == kind {
			f(d.Bytes())
		}
	}
}
