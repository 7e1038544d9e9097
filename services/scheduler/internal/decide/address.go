package decide

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// searchLimit bounds the addresses of one subnet that are looked at for one task.
const searchLimit = 1 << 16

// pools remembers, for each subnet, the address handed out last. The next one is looked for behind it, so that one that
// was given back rests as long as the subnet allows.
type pools struct {
	last map[poolKey]handedOut
}

// poolKey is a network (empty: the machine network) and for that the /24 of the address.
type poolKey struct {
	network string
	block   netip.Prefix
}

type handedOut struct {
	addr netip.Addr
	at   time.Time
}

func newPools() *pools { return &pools{last: map[poolKey]handedOut{}} }

func keyOf(network string, a netip.Addr) poolKey {
	k := poolKey{network: network}
	if a.Is6() {
		k.block = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if network == "" && a.Is4() {
		k.block, _ = a.Prefix(24)
	}
	return k
}

// note takes a task's addresses into account, also those of tasks that have ended. Of equally old ones the highest counts.
func (p *pools) note(t *typesv1.Task) {
	for _, ta := range t.GetDecided().GetAddresses() {
		for _, text := range ta.GetAddresses() {
			if a, err := netip.ParsePrefix(text); err == nil {
				p.use(ta.GetNetworkId(), a.Addr(), created(t))
			}
		}
	}
}

func (p *pools) use(network string, a netip.Addr, at time.Time) {
	k := keyOf(network, a)
	if old, ok := p.last[k]; !ok || at.After(old.at) || at.Equal(old.at) && old.addr.Less(a) {
		p.last[k] = handedOut{a, at}
	}
}

// next is the first free address of the subnet behind the one handed out last. The network's own address, the gateway
// (the first one) and the broadcast address are nobody's.
func (w *work) next(network string, subnet netip.Prefix) (netip.Addr, bool) {
	subnet = subnet.Masked()
	first := subnet.Addr().Next().Next()
	start := first
	if last, ok := w.pools.last[keyOf(network, subnet.Addr())]; ok && subnet.Contains(last.addr) {
		start = last.addr.Next()
	}
	a := start
	for range searchLimit {
		if !subnet.Contains(a) || !a.IsValid() || isBroadcast(a, subnet) {
			if start == first {
				return netip.Addr{}, false
			}
			a, start = first, first // once around
			continue
		}
		if _, taken := w.txn.ClaimHolder(state.AddressClaim(network, a.String())); !taken {
			w.pools.last[keyOf(network, a)] = handedOut{a, w.now}
			return a, true
		}
		a = a.Next()
	}
	return netip.Addr{}, false
}

func isBroadcast(a netip.Addr, subnet netip.Prefix) bool {
	return a.Is4() && subnet.Bits() < 31 && !subnet.Contains(a.Next())
}

// networkAddresses finds an address in each subnet of each network of the spec. The words say why there is none.
func (w *work) networkAddresses(spec *typesv1.TaskSpec) (out []*typesv1.TaskAddress, why string) {
	for _, att := range spec.GetNetworks() {
		network := w.old.Network(att.GetTarget())
		if network == nil {
			return nil, fmt.Sprintf("its network %s is not there", att.GetTarget())
		}
		ta := &typesv1.TaskAddress{NetworkId: att.GetTarget()}
		for _, text := range network.GetIpam().GetSubnets() {
			subnet, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Sprintf("network %s has the malformed subnet %q", network.GetSpec().GetAnnotations().GetName(), text)
			}
			a, ok := w.next(att.GetTarget(), subnet)
			if !ok {
				return nil, fmt.Sprintf("network %s has no free address in %s", network.GetSpec().GetAnnotations().GetName(), text)
			}
			ta.Addresses = append(ta.Addresses, netip.PrefixFrom(a, subnet.Bits()).String())
		}
		out = append(out, ta)
	}
	return out, ""
}

// machineAddress finds an address for eth0 on a node, which gets a further block when its blocks are full. A cluster
// without a machine network gives none, and that is well.
func (w *work) machineAddress(n *nodeInfo) (*typesv1.TaskAddress, bool) {
	if w.old.Cluster().GetDataPath().GetMachineNetwork() == "" {
		return nil, true
	}
	if ta := w.fromBlocks(n); ta != nil {
		return ta, true
	}
	if !w.addBlock(n) {
		return nil, false
	}
	ta := w.fromBlocks(n)
	return ta, ta != nil
}

// fromBlocks takes an IPv4 address from the first block with room, and the IPv6 address of the same number.
func (w *work) fromBlocks(n *nodeInfo) *typesv1.TaskAddress {
	var v4 netip.Addr
	var block6 netip.Prefix
	var index int // of the block that the address is from
	blocks := 0
	for _, text := range n.node.GetBlocks() {
		block, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			continue
		case block.Addr().Is6():
			block6 = block
			continue
		}
		if !v4.IsValid() {
			if a, ok := w.next("", block); ok {
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
