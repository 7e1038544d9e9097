// Package probe looks whether the kernel can do what published ports need, by having it do so for a small cluster in a network
// namespace that nobody sees and that ends with the look.
//
// It owns no state and must never change anything outside that namespace. Its functions are safe for concurrent use.
package probe

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

// Mesh looks whether the kernel can carry published ports. The error says what the kernel refused.
func Mesh(ctx context.Context) error { return try(ctx, mesh.Self{}) }

// Transparent looks whether the meshproxy can speak to containers with its clients' addresses.
func Transparent(ctx context.Context) error {
	if err := bindsAsAnyone(); err != nil {
		return err
	}
	return try(ctx, mesh.Self{UserSpace: true, Transparent: true})
}

func bindsAsAnyone() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("IP_TRANSPARENT", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)), unix.Close(fd))
}

// try has the kernel do for a small cluster what a machine that knows this of itself asks of it.
func try(ctx context.Context, self mesh.Self) error {
	// A thread of its own, which ends with the goroutine because it is never unlocked, and the namespace with it.
	r := <-run.Async(ctx, func(ctx context.Context) (struct{}, error) {
		runtime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			return struct{}{}, err
		}
		defer ns.Close()
		return struct{}{}, probe(ctx, self)
	})
	return r.Err
}

func probe(ctx context.Context, self mesh.Self) error {
	k, err := tables.New()
	if err != nil {
		return err
	}
	defer k.Close()
	own := netip.MustParseAddr("192.0.2.1")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(own.AsSlice())}); err != nil {
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
	self.Node, self.Tunnel, self.MTU = "a", own, 1500
	self.Numbers = m.Number(self, nil)
	published, err := m.Publish(self, nil)
	if err != nil {
		return err
	}
	want, err := m.Desired(self, published)
	if err != nil {
		return err
	}
	return k.Apply(ctx, kernel.Diff(want, kernel.NewKernel()))
}
