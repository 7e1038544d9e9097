package state

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// NameClaim is the claim on an object's name among those of its kind: "service/name/web".
func NameClaim(kind typesv1.Kind, name string) string { return KindName(kind) + "/name/" + name }

// PortClaim is the claim on a published port: "port/tcp/30000". The unspecified protocol is TCP.
func PortClaim(p typesv1.Protocol, port uint32) string {
	return fmt.Sprintf("port/%s/%d", ProtocolName(p), port)
}

// ProtocolName is "tcp", "udp" or "sctp".
func ProtocolName(p typesv1.Protocol) string {
	switch p {
	case typesv1.Protocol_PROTOCOL_UDP:
		return "udp"
	case typesv1.Protocol_PROTOCOL_SCTP:
		return "sctp"
	case typesv1.Protocol_PROTOCOL_UNSPECIFIED, typesv1.Protocol_PROTOCOL_TCP:
	}
	return "tcp"
}

// Host ports that the cluster chooses are from this range: above those that a Linux machine gives to its own connections, and
// apart from those that are published on every machine.
const (
	FirstHostPort = 61000
	LastHostPort  = 65535
)

// OnHost reports whether a port is published on the machine of each task alone. Several services may have the same: the
// scheduler keeps their tasks apart.
func OnHost(p *typesv1.PortConfig) bool {
	return p.GetPublishMode() == typesv1.PublishMode_PUBLISH_MODE_HOST
}

// HostPortHolder is a service, other than that of the id, that publishes the port on the machines of its tasks.
func (s *Snapshot) HostPortHolder(p typesv1.Protocol, port uint32, id string) *typesv1.Service {
	for svc := range s.Services() {
		for _, c := range svc.GetEndpoint().GetPorts() {
			if svc.GetMeta().GetId() != id && OnHost(c) && c.GetPublishedPort() == port && PortClaim(c.GetProtocol(), port) == PortClaim(p, port) {
				return svc
			}
		}
	}
	return nil
}

// VNIClaim is the claim on a VXLAN network identifier: "vni/4097".
func VNIClaim(vni uint32) string { return fmt.Sprintf("vni/%d", vni) }

// SubnetClaim is the claim on a user network's subnet: "subnet/10.0.1.0/24". It does not see overlaps, only equality.
func SubnetClaim(cidr string) string { return "subnet/" + cidr }

// BlockClaim is the claim on a machine's block: "block/10.128.3.0/24".
func BlockClaim(cidr string) string { return "block/" + cidr }

// TunnelKeyClaim is the claim on the public half of a machine's WireGuard key: a peer is known by its key, so two machines with one
// would cut each other off.
func TunnelKeyClaim(public []byte) string { return "tunnel-key/" + hex.EncodeToString(public) }

// AddressClaim is the claim on an address of a network, the machine network when its id is empty: "address/-/10.128.3.2".
// The address may carry a prefix length, which is no part of the claim.
func AddressClaim(networkID, address string) string {
	if networkID == "" {
		networkID = "-"
	}
	if p, err := netip.ParsePrefix(address); err == nil {
		address = p.Addr().String()
	} else if a, err := netip.ParseAddr(address); err == nil {
		address = a.String()
	} else {
		address, _, _ = strings.Cut(address, "/")
	}
	return "address/" + networkID + "/" + address
}

// FixedClaim is the claim of a service on an address that it names for one of its slots. The task that has it claims the address itself.
func FixedClaim(networkID, address string) string {
	return "fixed" + strings.TrimPrefix(AddressClaim(networkID, address), "address")
}

// Claims lists what the object holds that no other may hold at the same time: names, ports, addresses, blocks, keys. A task that
// has ended (observed) claims nothing any more: its addresses are a record of the past.
func Claims(o *typesv1.Object) []string {
	var out []string
	switch k := o.GetKind().(type) {
	case *typesv1.Object_Service:
		out = serviceClaims(k.Service)
	case *typesv1.Object_Network:
		out = networkClaims(k.Network)
	case *typesv1.Object_Secret:
		out = nameClaims(typesv1.Kind_KIND_SECRET, k.Secret.GetAnnotations())
	case *typesv1.Object_Config:
		out = nameClaims(typesv1.Kind_KIND_CONFIG, k.Config.GetAnnotations())
	case *typesv1.Object_Registry:
		out = nameClaims(typesv1.Kind_KIND_REGISTRY, k.Registry.GetAnnotations())
	case *typesv1.Object_Node:
		for _, b := range k.Node.GetBlocks() {
			out = append(out, BlockClaim(b))
		}
		for _, key := range k.Node.GetStatus().GetDescription().GetTunnelKeys() {
			out = append(out, TunnelKeyClaim(key.GetPublicKey()))
		}
	case *typesv1.Object_Task:
		out = taskClaims(k.Task)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func nameClaims(kind typesv1.Kind, a *typesv1.Annotations) []string {
	if a.GetName() == "" {
		return nil
	}
	return []string{NameClaim(kind, a.GetName())}
}

func serviceClaims(s *typesv1.Service) []string {
	out := nameClaims(typesv1.Kind_KIND_SERVICE, s.GetSpec().GetAnnotations())
	for _, p := range s.GetEndpoint().GetPorts() {
		if p.GetPublishedPort() != 0 && !OnHost(p) {
			out = append(out, PortClaim(p.GetProtocol(), p.GetPublishedPort()))
		}
	}
	for _, n := range s.GetSpec().GetTask().GetNetworks() {
		for _, a := range n.GetAddresses() {
			out = append(out, FixedClaim(n.GetTarget(), a))
		}
	}
	for _, v := range s.GetEndpoint().GetVirtualIps() {
		for _, a := range v.GetAddresses() {
			out = append(out, AddressClaim(v.GetNetworkId(), a))
		}
	}
	return out
}

func networkClaims(n *typesv1.Network) []string {
	out := nameClaims(typesv1.Kind_KIND_NETWORK, n.GetSpec().GetAnnotations())
	if vni := n.GetIpam().GetVni(); vni != 0 {
		out = append(out, VNIClaim(vni))
	}
	for _, s := range n.GetIpam().GetSubnets() {
		out = append(out, SubnetClaim(s))
	}
	for _, a := range n.GetIpam().GetReserved() {
		out = append(out, AddressClaim(n.GetMeta().GetId(), a))
	}
	return out
}

func taskClaims(t *typesv1.Task) []string {
	if Terminal(t.GetObserved().GetState()) {
		return nil
	}
	var out []string
	for _, ta := range t.GetDecided().GetAddresses() {
		for _, a := range ta.GetAddresses() {
			out = append(out, AddressClaim(ta.GetNetworkId(), a))
		}
	}
	return out
}

// References lists the objects that must stay while this one is there; a delete of one of them is refused. A task holds
// the networks that it has an address on until it has ended; it does not hold its service, which a person may remove at
// any time: its tasks follow. The data of a secret or config holds what it belongs to: both go together.
func References(o *typesv1.Object) []Key {
	var out []Key
	add := func(kind typesv1.Kind, id string) {
		if id != "" { // the machine network is no object
			out = append(out, Key{Kind: kind, ID: id})
		}
	}
	switch k := o.GetKind().(type) {
	case *typesv1.Object_Service:
		serviceReferences(k.Service, add)
	case *typesv1.Object_Task:
		if !Terminal(k.Task.GetObserved().GetState()) {
			for _, a := range k.Task.GetDecided().GetAddresses() {
				add(typesv1.Kind_KIND_NETWORK, a.GetNetworkId())
			}
		}
	case *typesv1.Object_Payload:
		owner, _, _ := strings.Cut(k.Payload.GetMeta().GetId(), ".")
		switch {
		case k.Payload.GetSealed() != nil:
			add(typesv1.Kind_KIND_SECRET, owner)
		case k.Payload.GetLogin() != nil:
			add(typesv1.Kind_KIND_REGISTRY, owner)
		default:
			add(typesv1.Kind_KIND_CONFIG, owner)
		}
	}
	slices.SortFunc(out, func(a, b Key) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	return slices.Compact(out)
}

func serviceReferences(s *typesv1.Service, add func(kind typesv1.Kind, id string)) {
	for _, n := range s.GetSpec().GetTask().GetNetworks() {
		add(typesv1.Kind_KIND_NETWORK, n.GetTarget())
	}
	for _, v := range s.GetEndpoint().GetVirtualIps() {
		add(typesv1.Kind_KIND_NETWORK, v.GetNetworkId())
	}
	c := s.GetSpec().GetTask().GetContainer()
	for _, f := range c.GetSecrets() {
		add(typesv1.Kind_KIND_SECRET, f.GetId())
	}
	for _, f := range c.GetConfigs() {
		add(typesv1.Kind_KIND_CONFIG, f.GetId())
	}
	// The very version, too: an update of a secret that is on its way may be about to let it go.
	for _, f := range FilesOf(c) {
		add(typesv1.Kind_KIND_PAYLOAD, PayloadID(f.GetId(), f.GetVersion()))
	}
}
