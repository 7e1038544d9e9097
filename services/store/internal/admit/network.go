package admit

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Bounds of a network.
const (
	maxAux = 256
	// minMTU is what IPv6 asks of every link (RFC 8200); maxMTU what a tunnel can carry.
	minMTU, maxMTU = 1280, 65485
)

// Network checks a spec and returns a copy with defaults. Used are the subnets that are in use, and the machine network.
func Network(s *state.Snapshot, in *typesv1.NetworkSpec, used []netip.Prefix) (*typesv1.NetworkSpec, *Faults) {
	f := &Faults{}
	spec := proto.CloneOf(in)
	if spec == nil {
		spec = &typesv1.NetworkSpec{}
	}
	name := spec.GetAnnotations().GetName()
	f.name(spec.GetAnnotations())
	if _, ok := s.ClaimHolder(state.NameClaim(typesv1.Kind_KIND_NETWORK, name)); ok {
		f.AddKind(errs.Exists, "name", "network with name %s already exists", name)
	}
	if spec.GetDriver() == "" {
		spec.Driver = "overlay"
	}
	f.Check(spec.GetDriver() == "overlay", "driver", `%q is not known; there is "overlay"`, spec.GetDriver())
	f.Check(spec.GetMtu() == 0 || (spec.GetMtu() >= minMTU && spec.GetMtu() <= maxMTU), "mtu", "%d is not from %d to %d", spec.GetMtu(), minMTU, maxMTU)
	subnets := f.subnets(spec, used)
	f.ranges(spec, subnets)
	f.reserved(spec, subnets)
	return spec, f
}

// subnets returns those that are sound.
func (f *Faults) subnets(spec *typesv1.NetworkSpec, used []netip.Prefix) (sound []netip.Prefix) {
	for i, text := range spec.GetSubnets() {
		field := fmt.Sprintf("subnets[%d]", i)
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			f.Add(field, "%q is no subnet such as 10.5.0.0/20", text)
			continue
		case p.Masked() != p:
			f.Add(field, "%s has bits behind its prefix; %s is meant?", text, p.Masked())
			continue
		case p.Addr().Is4() && (p.Bits() < 8 || p.Bits() > 29):
			f.Add(field, "%s must be from /8 to /29", text)
			continue
		case p.Addr().Is6() && (p.Bits() < 48 || p.Bits() > 120):
			f.Add(field, "%s must be from /48 to /120", text)
			continue
		case slices.ContainsFunc(sound, func(o netip.Prefix) bool { return o.Addr().Is4() == p.Addr().Is4() }):
			f.Add(field, "%s is one more of its family; a network has one subnet of each", text)
			continue
		}
		spec.Ipv6 = spec.GetIpv6() || p.Addr().Is6()
		sound = append(sound, p)
		for _, u := range used {
			if u.Overlaps(p) {
				f.AddKind(errs.Exists, field, "%s overlaps %s, which is in use; leave it out to get a free one", p, u)
			}
		}
	}
	return sound
}

// ranges must each lie in a subnet that was asked for, and leave room.
func (f *Faults) ranges(spec *typesv1.NetworkSpec, subnets []netip.Prefix) {
	seen := map[netip.Prefix]bool{}
	for i, text := range spec.GetIpRanges() {
		field := fmt.Sprintf("ip_ranges[%d]", i)
		r, err := netip.ParsePrefix(text)
		if err != nil || r.Masked() != r {
			f.Add(field, "%q is no range such as 10.5.1.0/24", text)
			continue
		}
		in, ok := subnetOf(r.Addr(), subnets)
		f.Check(ok && r.Bits() >= in.Bits(), field, "%s is in no subnet of the network; name its subnet too", text)
		f.Check(!ok || !seen[in], field, "%s is one more of subnet %s, which has one", text, in)
		seen[in] = ok
	}
}

// reserved addresses must lie in a subnet, and no two be the same.
func (f *Faults) reserved(spec *typesv1.NetworkSpec, subnets []netip.Prefix) {
	seen := map[netip.Addr]string{}
	check := func(field, text string) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			f.Add(field, "%q is no address", text)
			return
		}
		in, ok := subnetOf(a, subnets)
		f.Check(ok, field, "%s is in no subnet of the network; name its subnet too", text)
		f.Check(!ok || a != in.Addr(), field, "%s is the subnet's own address", text)
		f.Check(seen[a] == "", field, "%s is named by %s already", text, seen[a])
		seen[a] = field
	}
	gateways := map[netip.Prefix]bool{}
	for i, text := range spec.GetGateways() {
		field := fmt.Sprintf("gateways[%d]", i)
		check(field, text)
		if a, err := netip.ParseAddr(text); err == nil {
			in, ok := subnetOf(a, subnets)
			f.Check(!ok || !gateways[in], field, "%s is one more of subnet %s, which has one", text, in)
			gateways[in] = ok
		}
	}
	f.Check(len(spec.GetAuxAddresses()) <= maxAux, "aux_addresses", "has %d entries, at most %d are allowed", len(spec.GetAuxAddresses()), maxAux)
	for _, name := range slices.Sorted(maps.Keys(spec.GetAuxAddresses())) {
		check("aux_addresses."+name, spec.GetAuxAddresses()[name])
	}
}

func subnetOf(a netip.Addr, subnets []netip.Prefix) (netip.Prefix, bool) {
	for _, p := range subnets {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
