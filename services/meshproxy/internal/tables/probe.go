package tables

import (
	"context"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Probe looks whether the kernel can carry published ports: it has it do so for a small cluster, in a network namespace that
// nobody sees and that ends with the look. The error says what the kernel refused.
func Probe(ctx context.Context) error {
	// A thread of its own, which ends with the goroutine because it is never unlocked, and the namespace with it.
	r := <-run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		runtime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			return struct{}{}, err
		}
		defer ns.Close()
		return struct{}{}, probe(ctx)
	})
	return r.Err
}

func probe(ctx context.Context) error {
	k, err := New()
	if err != nil {
		return err
	}
	defer k.Close()
	own := netip.MustParseAddr("192.0.2.1")
	lo, err := k.nl.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := k.nl.LinkSetUp(lo); err != nil {
		return err
	}
	if err := k.nl.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own, own.BitLen()))}); err != nil {
		return err
	}
	port := func(number uint32) *typesv1.PortConfig {
		return &typesv1.PortConfig{PublishedPort: number, TargetPort: 80}
	}
	m, err := (*mesh.Model)(nil).Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: 1}, Full: true, MachineNetwork: "10.128.0.0/10",
		Machines: []*dispatcherv1.MeshMachine{
			{NodeId: "a", Vteps: []string{own.String()}, Addresses: []string{own.String()}, Blocks: []string{"10.128.1.0/24"}},
			{NodeId: "b", Vteps: []string{"192.0.2.2"}, Addresses: []string{"192.0.2.2"}, Blocks: []string{"10.128.2.0/24"}},
		},
		Services: []*dispatcherv1.MeshService{{ServiceId: "s", Name: "s", Ports: []*typesv1.PortConfig{port(1)}, Endpoints: []*dispatcherv1.MeshEndpoint{
			{TaskId: "a", NodeId: "a", Addresses: []string{"10.128.1.2"}}, {TaskId: "b", NodeId: "b", Addresses: []string{"10.128.2.2"}},
		}}},
	})
	if err != nil {
		return err
	}
	self := mesh.Self{Node: "a", Tunnel: own, MTU: 1500}
	self.Numbers = m.Number(self, nil)
	published, err := m.Publish(self, nil)
	if err != nil {
		return err
	}
	want, err := m.Desired(self, published)
	if err != nil {
		return err
	}
	return k.Apply(ctx, mesh.Diff(want, mesh.NewKernel()))
}
