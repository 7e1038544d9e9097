package reconcile

import (
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// nameSlotVolumes gives volumes that are the slot's own their name on this node.
func nameSlotVolumes(t *dispatcherv1.AssignedTask, c *typesv1.ContainerSpec) {
	for _, m := range c.GetMounts() {
		if state.OfSlot(m) {
			m.Source = state.SlotVolume(t.GetServiceName(), t.GetSlot(), m.GetSource())
		}
	}
}

// slotVolumes says whose they are. C has their names on this node.
func slotVolumes(t *dispatcherv1.AssignedTask, c *typesv1.ContainerSpec) map[string]container.Volume {
	out := map[string]container.Volume{}
	for _, name := range state.SlotSources(c) {
		v := container.Volume{Service: t.GetServiceName(), Slot: t.GetSlot()}
		for _, x := range t.GetVolumes() {
			if x.GetVolumeId() == name {
				v.Incarnation = x.GetIncarnation()
			}
		}
		out[name] = v
	}
	return out
}
