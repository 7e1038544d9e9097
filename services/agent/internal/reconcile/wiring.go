package reconcile

import (
	"net/netip"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// spec is the container of a task, with its placeholders filled in.
func (l *Loop) spec(e *entry) (container.Spec, error) {
	t := e.assigned
	c, err := l.expand(t)
	if err != nil {
		return container.Spec{}, err
	}
	login, err := l.login(e)
	if err != nil {
		return container.Spec{}, err
	}
	id := container.ID(e.id, e.attempt)
	var ids container.IDs
	if c.GetPrivileges().GetUserNamespace() == typesv1.UserNamespace_USER_NAMESPACE_PRIVATE {
		if ids, err = l.IDs.Take(id); err != nil {
			return container.Spec{}, err
		}
	}
	return container.Spec{
		ID: id, IDs: ids, Hostname: c.GetHostname(), Container: c, Resources: t.GetSpec().GetResources(),
		Volumes: slotVolumes(t, c), Pull: container.Pull{Login: login},
		Log: container.Log{Driver: t.GetLogDriver().GetName(), Options: t.GetLogDriver().GetOptions(), Service: t.GetServiceName()},
		Origin: container.Origin{
			Cluster: l.Cluster, Task: e.id, Attempt: e.attempt, SpecHash: t.GetSpecHash(),
			Generation: container.GenerationOf(l.generation), Service: t.GetServiceId(), Slot: t.GetSlot(),
		},
	}, nil
}

// wiring says what interfaces the task's container needs: eth0 on the machine network, then one for each of its networks.
func (l *Loop) wiring(e *entry, spec container.Spec) (container.Wiring, error) {
	w := container.Wiring{ID: spec.ID, IDs: spec.IDs, Hostname: spec.Hostname, Hosts: spec.Container.GetHosts(), DNS: spec.Container.GetDnsConfig(), Guest: spec.Container.GetAttach()}
	if spec.Container.GetPrivileges().GetHostNetwork() {
		w.Host = true
		return w, nil
	}
	byNetwork := map[string][]string{}
	for _, a := range e.assigned.GetAddresses() {
		byNetwork[a.GetNetworkId()] = append(byNetwork[a.GetNetworkId()], a.GetAddresses()...)
	}
	if own := byNetwork[""]; len(own) > 0 {
		link, err := l.machineLink(own)
		if err != nil {
			return container.Wiring{}, err
		}
		w.Links = append(w.Links, link)
	}
	for _, n := range e.assigned.GetNetworks() {
		if n.GetNetworkId() == "" || n.GetVni() == 0 {
			continue // the machine network, wired above
		}
		link, err := overlayLink(n, byNetwork[n.GetNetworkId()])
		if err != nil {
			return container.Wiring{}, err
		}
		w.Links = append(w.Links, link)
	}
	return w, nil
}

// machineLink makes single addresses of the task's, each with the first address of the machine's block as its gateway.
func (l *Loop) machineLink(addresses []string) (container.Link, error) {
	link := container.Link{Network: "machine"}
	for _, text := range addresses {
		p, err := parseAddress(text)
		if err != nil {
			return link, err
		}
		addr := p.Addr()
		gateway, ok := l.gatewayOf(addr)
		if !ok {
			return link, errs.New(errs.Unavailable, "waits for this machine's block of the machine network, which holds %s", addr)
		}
		link.Addresses = append(link.Addresses, netip.PrefixFrom(addr, addr.BitLen()))
		link.Gateways = append(link.Gateways, gateway)
	}
	return link, nil
}

func (l *Loop) gatewayOf(addr netip.Addr) (netip.Addr, bool) {
	for _, text := range l.blocks {
		block, err := netip.ParsePrefix(text)
		if err == nil && block.Contains(addr) {
			return block.Masked().Addr().Next(), true
		}
	}
	return netip.Addr{}, false
}

// overlayLink keeps the prefix lengths, since the network's containers are neighbours. An address that came without one
// gets its subnet's.
func overlayLink(n *dispatcherv1.AssignedNetwork, addresses []string) (container.Link, error) {
	link := container.Link{Network: n.GetName(), VNI: n.GetVni(), Encrypted: n.GetEncrypted()}
	for _, text := range addresses {
		p, err := parseAddress(text)
		if err != nil {
			return link, err
		}
		if p.IsSingleIP() {
			for _, s := range n.GetSubnets() {
				if subnet, err := netip.ParsePrefix(s); err == nil && subnet.Contains(p.Addr()) {
					p = netip.PrefixFrom(p.Addr(), subnet.Bits())
				}
			}
		}
		link.Addresses = append(link.Addresses, p)
	}
	return link, nil
}

// parseAddress takes an address with a prefix length, or without: then it is single.
func parseAddress(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, errs.New(errs.Invalid, "address %q of the task is none", text)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
