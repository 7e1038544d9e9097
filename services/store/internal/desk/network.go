package desk

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/alloc"
)

// InUse are the ranges that a network's subnet must keep clear of.
func (d *Desk) InUse() []netip.Prefix {
	used := d.subnets()
	if p, err := netip.ParsePrefix(d.Snap.Cluster().GetDataPath().GetMachineNetwork()); err == nil {
		used = append(used, p)
	}
	return used
}

// IPAM gives a network its subnets, IPv4 first, its identifier, and what is never given of its addresses.
func (d *Desk) IPAM(what string, spec *typesv1.NetworkSpec) (*typesv1.NetworkIPAM, error) {
	out := &typesv1.NetworkIPAM{Ranges: spec.GetIpRanges()}
	var four, six []string
	for _, s := range spec.GetSubnets() {
		if strings.Contains(s, ":") {
			six = append(six, s)
		} else {
			four = append(four, s)
		}
	}
	if len(four) == 0 {
		pool, err := netip.ParsePrefix(d.Snap.Cluster().GetDataPath().GetNetworkPool())
		if err != nil {
			pool = netip.MustParsePrefix(defaultPool)
		}
		p, ok := d.a.cursors.Subnet(pool, d.InUse())
		if !ok {
			return nil, errs.New(errs.Exhausted, "%s: no /%d of %s is free; name a subnet outside", what, alloc.SubnetBits, pool)
		}
		four = []string{p.String()}
	}
	vni, ok := d.a.cursors.VNI(d.Taken)
	if !ok {
		return nil, errs.New(errs.Exhausted, "%s: all network identifiers are in use", what)
	}
	out.Vni = vni
	if spec.GetIpv6() && len(six) == 0 {
		p, ok := alloc.Subnet6(fmt.Sprint(d.Snap.Cluster().GetMeta().GetId(), "/", vni), d.InUse())
		if !ok {
			return nil, errs.New(errs.Exhausted, "%s: no private /64 is free; name an IPv6 subnet", what)
		}
		six = []string{p.String()}
	}
	out.Subnets = append(four, six...)
	out.Reserved = reserved(spec)
	return out, nil
}

// reserved are the addresses that are somebody else's, each once.
func reserved(spec *typesv1.NetworkSpec) []string {
	list := slices.Concat(spec.GetGateways(), slices.Collect(maps.Values(spec.GetAuxAddresses())))
	for i, text := range list {
		if a, err := netip.ParseAddr(text); err == nil { // in the form in which addresses are claimed
			list[i] = a.String()
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
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

// Usage is how full a network's subnets are.
func Usage(s *state.Snapshot, n *typesv1.Network) []*controlv1.SubnetUsage {
	var out []*controlv1.SubnetUsage
	for _, text := range n.GetIpam().GetSubnets() {
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		within := rangeOf(n.GetIpam(), subnet)
		u := &controlv1.SubnetUsage{Subnet: text, Total: math.MaxInt64}
		if bits := within.Addr().BitLen() - within.Bits(); bits < 63 {
			u.Total = 1 << bits
		}
		// Nobody gets the subnet's own address, the one after it, and in IPv4 the last one.
		for _, a := range []netip.Addr{subnet.Masked().Addr(), subnet.Masked().Addr().Next()} {
			if within.Contains(a) {
				u.Total--
			}
		}
		if last := lastOf(subnet); last.Is4() && within.Contains(last) {
			u.Total--
		}
		for claim := range s.ClaimsFrom(state.AddressClaim(n.GetMeta().GetId(), "")) {
			a, err := netip.ParseAddr(strings.TrimPrefix(claim, state.AddressClaim(n.GetMeta().GetId(), "")))
			switch {
			case err != nil || !within.Contains(a):
			case a == subnet.Masked().Addr().Next() || a == lastOf(subnet): // kept, and not counted above
			case slices.Contains(n.GetIpam().GetReserved(), a.String()):
				u.Total--
			default:
				u.Used++
			}
		}
		out = append(out, u)
	}
	return out
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		if free := max(0, min(8, (i+1)*8-p.Bits())); free > 0 {
			b[i] |= byte(1<<free - 1)
		}
	}
	a, _ := netip.AddrFromSlice(b) // of an address
	return a
}
