package book

import (
	"net/netip"

	"github.com/tidwall/btree"
	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Pools remembers, for each subnet, the address handed out last. The next one is looked for behind it, so that one that was
// given back rests as long as the subnet allows; on an overlay it rests for RestTime at least, where the subnet has room.
type Pools struct {
	pools    map[PoolKey]*btree.BTreeG[handedOut]
	ended    ended
	networks map[string]given
}

// PoolKey is a network (empty: the machine network) and for that the /24 of the address.
type PoolKey struct {
	Network string
	Block   netip.Prefix
}

type handedOut struct {
	addr netip.Addr
	at   *timestamppb.Timestamp
	task string
}

func newPools() *Pools {
	return &Pools{pools: map[PoolKey]*btree.BTreeG[handedOut]{}, ended: ended{}, networks: map[string]given{}}
}

// PoolOf is the pool that an address of a network belongs to.
func PoolOf(network string, a netip.Addr) PoolKey {
	k := PoolKey{Network: network}
	if a.Is6() {
		k.Block = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if network == "" && a.Is4() {
		k.Block, _ = a.Prefix(24)
	}
	return k
}

// note takes a task's addresses into account, also those of tasks that have ended.
func (p *Pools) note(t *typesv1.Task) {
	p.ended.note(t, true)
	p.each(t, func(k PoolKey, h handedOut) {
		if p.pools[k] == nil {
			p.pools[k] = btree.NewBTreeGOptions(func(a, b handedOut) bool {
				if c := compareTimes(a.at, b.at); c != 0 {
					return c < 0
				}
				if c := a.addr.Compare(b.addr); c != 0 {
					return c < 0
				}
				return a.task < b.task
			}, btree.Options{NoLocks: true})
		}
		p.pools[k].Set(h)
	})
}

func (p *Pools) forget(t *typesv1.Task) {
	p.ended.note(t, false)
	p.each(t, func(k PoolKey, h handedOut) {
		if p.pools[k] != nil {
			p.pools[k].Delete(h)
		}
	})
}

func (p *Pools) each(t *typesv1.Task, f func(PoolKey, handedOut)) {
	for _, ta := range t.GetDecided().GetAddresses() {
		for _, text := range ta.GetAddresses() {
			if a, err := netip.ParsePrefix(text); err == nil {
				f(PoolOf(ta.GetNetworkId(), a.Addr()), handedOut{a.Addr(), t.GetMeta().GetCreatedAt(), t.GetMeta().GetId()})
			}
		}
	}
}

// Last is the address of a pool that was handed out last; of equally old ones the highest.
func (p *Pools) Last(k PoolKey) (netip.Addr, bool) {
	if p.pools[k] == nil {
		return netip.Addr{}, false
	}
	h, ok := p.pools[k].Max()
	return h.addr, ok
}
