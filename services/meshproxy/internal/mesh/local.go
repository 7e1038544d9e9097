package mesh

import (
	"net/netip"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// localTasks says of each container of this machine which interface has its address, so that no neighbour speaks or answers for it,
// and which of them have no way out.
func (m *Model) localTasks(k *kernel.Kernel) {
	if len(k.Rules.Blocks) == 0 {
		return
	}
	elements := map[kernel.Slot]string{}
	for task := range m.LocalTasks() {
		first, err := first(task.GetAddresses())
		if err != nil || !first.Is4() {
			continue // it shares the machine's network; or its interface has no address of its own making
		}
		for _, text := range task.GetAddresses() {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			a = a.Unmap()
			k.Neighbours[kernel.Neighbour{Link: kernel.MachineBridge, Addr: a, MAC: MAC(first)}] = struct{}{}
			put(elements, kernel.Family(kernel.SetOwners, a.Is4()), "", "%s %s", MAC(first), a)
			if m.enclosed(task) {
				put(elements, kernel.Family(kernel.SetEnclosed, a.Is4()), "", "%s", a)
			}
		}
	}
	k.Entries["local"] = kernel.NewPart(elements)
}

// enclosed says that all networks of a task are internal.
func (m *Model) enclosed(task *dispatcherv1.LocalTask) bool {
	for _, id := range task.GetNetworkIds() {
		if !m.networks[id].GetInternal() {
			return false
		}
	}
	return len(task.GetNetworkIds()) > 0
}
