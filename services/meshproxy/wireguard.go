package meshproxy

import (
	"context"
	"fmt"

	"github.com/shoalproject/shoal/internal/process"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/keys"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
	"github.com/shoalproject/shoal/services/meshproxy/internal/wireguard"
)

// WireGuard is the verb `wireguard`: the process of one device where the kernel has no WireGuard. The meshproxy starts it, and it goes
// on without.
func WireGuard(args []string) int { return wireguard.Main(args) }

// openRing asks the kernel what encrypts on this machine.
func openRing(p *process.Process, kernel *tables.Kernel, folder string) *keys.Ring {
	devices, means := wireguard.Devices{Folder: folder, Program: "/proc/self/exe"}, keys.Means{By: typesv1.Dataplane_DATAPLANE_KERNEL}
	if lacks := wireguard.Kernel(); lacks != nil {
		devices.UserSpace = true
		means = keys.Means{By: typesv1.Dataplane_DATAPLANE_USERSPACE, Reason: lacks.Error()}
		if err := wireguard.Tun(); err != nil {
			means = keys.Means{Reason: fmt.Sprintf("%s; %s", lacks, err)}
			p.Env.Log.Warn("this machine cannot encrypt: it takes no part in encrypted networks", "error", means.Reason)
		}
		kernel.SealBy(func(name string, mtu int) error { return devices.Spawn(context.Background(), name, mtu) })
	}
	return keys.Open(p.Env, p.Path("tunnel.json"), means, devices, p.Server.Health())
}
