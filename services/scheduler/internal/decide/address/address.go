// Package address hands out addresses and blocks of addresses within one decision.
//
// It owns the search for what is free: next-fit, so that what was given back rests; which of it rests too short yet; and what the decision has claimed so far.
// It writes nothing. An Allocator belongs to one decision.
package address

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

// searchLimit bounds the addresses of one subnet that are looked at for one task.
const searchLimit = 1 << 16

// next is the first free address of a part of the subnet (or all of it) behind the one handed out last that does not rest; where all
// that are free rest, the one that has done so for longest. The network's own
// address, the gateway (the first one) and the broadcast address are nobody's.
func (w *Allocator) next(network string, subnet, within netip.Prefix) (netip.Addr, bool) {
	subnet, within = subnet.Masked(), within.Masked()
	first := subnet.Addr().Next().Next()
	if within.Addr().Compare(first) > 0 {
		first = within.Addr()
	}
	start := first
	pool := book.PoolOf(network, subnet.Addr())
	last, ok := w.last[pool]
	if !ok {
		last, ok = w.pools.Last(pool)
	}
	if ok && within.Contains(last) {
		start = last.Next()
	}
	a, longest := start, rested{}
	for range searchLimit {
		if !within.Contains(a) || !a.IsValid() || isBroadcast(a, subnet) {
			if start == first {
				break
			}
			a, start = first, first // once around
			continue
		}
		switch since := w.pools.Since(network, a); {
		case network != "" && !w.free(state.FixedClaim(network, a.String())): // some service names it for its own
		case w.now.Sub(since) < book.RestTime:
			if w.free(state.AddressClaim(network, a.String())) && (!longest.addr.IsValid() || since.Before(longest.since)) {
				longest = rested{a, since}
			}
		case w.claim(state.AddressClaim(network, a.String())):
			w.handOut(pool, a)
			return a, true
		}
		a = a.Next()
	}
	if !longest.addr.IsValid() || !w.claim(state.AddressClaim(network, longest.addr.String())) {
		return netip.Addr{}, false
	}
	w.handOut(pool, longest.addr)
	return longest.addr, true
}

// rested is an address that was given back not long ago.
type rested struct {
	addr  netip.Addr
	since time.Time
}

// handOut notes that an address which has just been claimed is the last of its pool.
func (w *Allocator) handOut(pool book.PoolKey, a netip.Addr) {
	if w.last == nil {
		w.last = map[book.PoolKey]netip.Addr{}
	}
	before, had := w.last[pool]
	c := &w.journal[len(w.journal)-1]
	c.pool, c.before, c.had = pool, before, had
	w.last[pool] = a
}

// claimed is one claim of this plan, with what was handed out in its pool before.
type claimed struct {
	claim  string
	pool   book.PoolKey
	before netip.Addr
	had    bool
}

// Unclaim takes back what was claimed since the mark.
func (w *Allocator) Unclaim(mark int) {
	for i := len(w.journal) - 1; i >= mark; i-- {
		c := w.journal[i]
		delete(w.taken, c.claim)
		if c.had {
			w.last[c.pool] = c.before
		} else {
			delete(w.last, c.pool)
		}
	}
	w.journal = w.journal[:mark]
}

func isBroadcast(a netip.Addr, subnet netip.Prefix) bool {
	return a.Is4() && subnet.Bits() < 31 && !subnet.Contains(a.Next())
}

// Networks finds an address in each subnet of each network of the spec: the slot's own where the spec names one. The words say why there is none.
func (w *Allocator) Networks(spec *typesv1.TaskSpec, slot uint64) (out []*typesv1.TaskAddress, why string) {
	for _, att := range spec.GetNetworks() {
		network := w.s.Network(att.GetTarget())
		if network == nil {
			return nil, fmt.Sprintf("its network %s is not there", att.GetTarget())
		}
		ta := &typesv1.TaskAddress{NetworkId: att.GetTarget()}
		for _, text := range network.GetIpam().GetSubnets() {
			subnet, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Sprintf("network %s has the malformed subnet %q", network.GetSpec().GetAnnotations().GetName(), text)
			}
			a, ok, why := w.fixed(att, network.GetSpec().GetAnnotations().GetName(), subnet, slot)
			if why != "" {
				return nil, why
			}
			if ok {
				ta.Addresses = append(ta.Addresses, netip.PrefixFrom(a, subnet.Bits()).String())
				continue
			}
			within := rangeOf(network.GetIpam(), subnet)
			a, ok = w.next(att.GetTarget(), subnet, within)
			if !ok {
				return nil, fmt.Sprintf("network %s has no free address in %s", network.GetSpec().GetAnnotations().GetName(), within)
			}
			ta.Addresses = append(ta.Addresses, netip.PrefixFrom(a, subnet.Bits()).String())
		}
		out = append(out, ta)
	}
	return out, ""
}

// rangeOf is the part of a subnet that addresses are given from.
func rangeOf(ipam *typesv1.NetworkIPAM, subnet netip.Prefix) netip.Prefix {
	for _, text := range ipam.GetRanges() {
		if r, err := netip.ParsePrefix(text); err == nil && subnet.Contains(r.Addr()) {
			return r
		}
	}
	return subnet
}

// Machine takes an IPv4 address from the first block with room, and the IPv6 address of the same number.
func (w *Allocator) Machine(given []string) *typesv1.TaskAddress {
	var v4 netip.Addr
	var block6 netip.Prefix
	var index int // of the block that the address is from
	blocks := 0
	for _, text := range given {
		block, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			continue
		case block.Addr().Is6():
			block6 = block
			continue
		}
		if !v4.IsValid() {
			if a, ok := w.next("", block, block); ok {
				v4, index = a, blocks
			}
		}
		blocks++
	}
	if !v4.IsValid() {
		return nil
	}
	// eth0 has a /32: traffic between neighbours is routed like all other, and so reaches the machine's rules.
	ta := &typesv1.TaskAddress{Addresses: []string{netip.PrefixFrom(v4, 32).String()}}
	if block6.IsValid() {
		a := block6.Masked().Addr().As16()
		a[13], a[14], a[15] = byte(index>>8), byte(index), v4.As4()[3]
		ta.Addresses = append(ta.Addresses, netip.PrefixFrom(netip.AddrFrom16(a), 128).String())
	}
	return ta
}

// Allocator knows what is taken: by the snapshot, and by this decision.
type Allocator struct {
	s       *state.Snapshot
	now     time.Time
	pools   *book.Pools
	taken   map[string]struct{}         // claims
	last    map[book.PoolKey]netip.Addr // handed out last
	journal []claimed                   // of both, in order
	blocks  map[string]uint64           // range -> where to look for the next block
}

// New is an allocator for one decision.
func New(s *state.Snapshot, pools *book.Pools, now time.Time) *Allocator {
	return &Allocator{s: s, pools: pools, now: now}
}

// Mark is a point to which Unclaim goes back.
func (w *Allocator) Mark() int { return len(w.journal) }

// Block claims the first block of that many bits in the range that nobody claims.
func (w *Allocator) Block(within string, bits int) (string, bool) {
	pool, err := netip.ParsePrefix(within)
	if err != nil || bits < pool.Bits() {
		return "", false
	}
	count := uint64(1) << min(bits-pool.Bits(), 20)
	for i := w.blocks[within]; i < count; i++ {
		block := nthBlock(pool.Masked(), bits, i).String()
		if w.claim(state.BlockClaim(block)) {
			if w.blocks == nil {
				w.blocks = map[string]uint64{}
			}
			w.blocks[within] = i + 1 // those before are taken for the rest of this plan
			return block, true
		}
	}
	return "", false
}

// claim takes a claim for this plan, if nobody has it.
func (w *Allocator) claim(c string) bool {
	if !w.free(c) {
		return false
	}
	if w.taken == nil {
		w.taken = map[string]struct{}{}
	}
	w.taken[c] = struct{}{}
	w.journal = append(w.journal, claimed{claim: c})
	return true
}

// free reports whether nobody has a claim.
func (w *Allocator) free(c string) bool {
	if _, taken := w.s.ClaimHolder(c); taken {
		return false
	}
	_, taken := w.taken[c]
	return !taken
}

// nthBlock is the n-th block of that many bits in the pool.
func nthBlock(pool netip.Prefix, bits int, n uint64) netip.Prefix {
	if pool.Addr().Is4() {
		a := pool.Addr().As4()
		v := binary.BigEndian.Uint32(a[:]) + uint32(n)<<(32-bits)
		binary.BigEndian.PutUint32(a[:], v)
		return netip.PrefixFrom(netip.AddrFrom4(a), bits)
	}
	a := pool.Addr().As16()
	high := binary.BigEndian.Uint64(a[:8]) // blocks of at most 64 bits: only the upper half changes
	binary.BigEndian.PutUint64(a[:8], high+n<<(64-min(bits, 64)))
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}
