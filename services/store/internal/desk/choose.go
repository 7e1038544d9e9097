package desk

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/alloc"
)

// defaultPool is where subnets come from when the cluster does not say.
const defaultPool = "10.0.0.0/9"

// choose chooses among what is fresh, and only when nothing is, among what rests.
func choose[T any](d *Desk, from func(alloc.Taken) (T, bool)) (T, bool) {
	if v, ok := from(d.fresh); ok {
		return v, true
	}
	return from(d.Taken)
}

// Ports gives each port a number. A port that keeps protocol and target keeps its number.
func (d *Desk) Ports(what string, want, had []*typesv1.PortConfig) ([]*typesv1.PortConfig, error) {
	first, last := admit.PortRange(d.Snap.Cluster().GetSpec())
	chosen := map[string]bool{}
	for _, p := range want {
		if p.GetPublishedPort() != 0 {
			chosen[state.PortClaim(p.GetProtocol(), p.GetPublishedPort())] = true
		}
	}
	var out []*typesv1.PortConfig
	for i, w := range want {
		p := proto.CloneOf(w)
		if state.OnHost(p) { // each task gets its own on its machine, if the service asks for no number
			out = append(out, p)
			continue
		}
		if p.GetPublishedPort() == 0 {
			p.PublishedPort = kept(p, had, chosen)
		}
		if p.GetPublishedPort() == 0 {
			n, ok := choose(d, func(taken alloc.Taken) (uint32, bool) {
				return d.a.cursors.Port(d.except(chosen, p.GetProtocol(), taken), p.GetProtocol(), first, last)
			})
			if !ok {
				return nil, errs.WithFaults(errs.Exhausted, what, errs.Fault{
					Field:  fmt.Sprintf("ports[%d].published_port", i),
					Reason: fmt.Sprintf("no port from %d to %d is free; name one outside, or widen the cluster's range", first, last),
				})
			}
			p.PublishedPort = n
		}
		chosen[state.PortClaim(p.GetProtocol(), p.GetPublishedPort())] = true
		out = append(out, p)
	}
	return out, nil
}

// except is taken, with the ports that this request has already, and those that are shoal's own.
func (d *Desk) except(chosen map[string]bool, p typesv1.Protocol, taken alloc.Taken) alloc.Taken {
	own := map[string]bool{}
	first, last := admit.PortRange(d.Snap.Cluster().GetSpec())
	for port := first; port <= last; port++ {
		if admit.OwnPort(d.Snap.Cluster(), p, port) {
			own[state.PortClaim(p, port)] = true
		}
	}
	return func(claim string) bool { return own[claim] || chosen[claim] || taken(claim) }
}

func kept(p *typesv1.PortConfig, had []*typesv1.PortConfig, chosen map[string]bool) uint32 {
	for _, h := range had {
		if !state.OnHost(h) && h.GetProtocol() == p.GetProtocol() && h.GetTargetPort() == p.GetTargetPort() &&
			!chosen[state.PortClaim(h.GetProtocol(), h.GetPublishedPort())] {
			return h.GetPublishedPort()
		}
	}
	return 0
}

// VIPs gives the service an address on each of its networks. On a network that it keeps it keeps its address.
func (d *Desk) VIPs(what string, want []*typesv1.NetworkAttachment, had []*typesv1.VirtualIP) ([]*typesv1.VirtualIP, error) {
	var out []*typesv1.VirtualIP
	for i, w := range want {
		if old := vipOn(had, w.GetTarget()); old != nil {
			out = append(out, old)
			continue
		}
		n := d.Snap.Network(w.GetTarget())
		v := &typesv1.VirtualIP{NetworkId: w.GetTarget()}
		for _, text := range n.GetIpam().GetSubnets() {
			subnet, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, errs.New(errs.Internal, "%s: network %s has a subnet that does not read: %w", what, w.GetTarget(), err)
			}
			within := rangeOf(n.GetIpam(), subnet)
			a, ok := choose(d, func(taken alloc.Taken) (netip.Addr, bool) {
				if a, ok := d.a.cursors.VIP(awake(d.unnamed(taken, n), n), w.GetTarget(), subnet, within); ok {
					return a, true
				}
				return d.a.cursors.VIP(d.unnamed(taken, n), w.GetTarget(), subnet, within) // nothing else is free
			})
			if !ok {
				return nil, errs.WithFaults(errs.Exhausted, what, errs.Fault{
					Field: fmt.Sprintf("networks[%d]", i),
					Reason: fmt.Sprintf("no address of network %q (%s) is free",
						n.GetSpec().GetAnnotations().GetName(), within),
				})
			}
			v.Addresses = append(v.Addresses, netip.PrefixFrom(a, subnet.Bits()).String())
		}
		out = append(out, v)
	}
	return out, nil
}

// unnamed takes the addresses for taken that services name for their tasks, too.
func (d *Desk) unnamed(taken alloc.Taken, n *typesv1.Network) alloc.Taken {
	prefix := state.AddressClaim(n.GetMeta().GetId(), "")
	return func(claim string) bool {
		return taken(claim) || taken(state.FixedClaim(n.GetMeta().GetId(), strings.TrimPrefix(claim, prefix)))
	}
}

// awake takes the addresses for taken that tasks have given back lately, too.
func awake(taken alloc.Taken, n *typesv1.Network) alloc.Taken {
	rests := map[string]bool{}
	for _, r := range n.GetResting() {
		rests[state.AddressClaim(n.GetMeta().GetId(), r.GetAddress())] = true
	}
	return func(claim string) bool { return rests[claim] || taken(claim) }
}

func vipOn(had []*typesv1.VirtualIP, networkID string) *typesv1.VirtualIP {
	for _, v := range had {
		if v.GetNetworkId() == networkID {
			return v
		}
	}
	return nil
}

// Finish fills in what the cluster gives: hash, ports, addresses. Old is the service before, nil for a new one.
func (d *Desk) Finish(what string, svc, old *typesv1.Service) error {
	hash, err := hashOf(svc.GetSpec().GetTask())
	if err != nil {
		return errs.New(errs.Invalid, "%s: %w", what, err)
	}
	svc.SpecHash = hash
	ep := &typesv1.Endpoint{}
	if ep.Ports, err = d.Ports(what, svc.GetSpec().GetEndpoint().GetPorts(), old.GetEndpoint().GetPorts()); err != nil {
		return err
	}
	if svc.GetSpec().GetEndpoint().GetMode() != typesv1.EndpointMode_ENDPOINT_MODE_DNSRR {
		if ep.VirtualIps, err = d.VIPs(what, svc.GetSpec().GetTask().GetNetworks(), old.GetEndpoint().GetVirtualIps()); err != nil {
			return err
		}
	}
	svc.Endpoint = ep
	return nil
}

// hashOf is the SHA-256 of the spec with its fields in order. Within one release equal specs have equal hashes, and a
// release that adds a field hashes specs without it as before.
func hashOf(t *typesv1.TaskSpec) ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	return sum[:], nil
}
