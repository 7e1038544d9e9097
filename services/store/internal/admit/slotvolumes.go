package admit

import (
	"fmt"
	"regexp"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxSlotVolumes bounds the volumes of one slot: each is an object.
const maxSlotVolumes = 8

// slotVolume checks a mount whose volume is each slot's own. Its name on the node is made of the service's, the slot's and the
// source's, so there is no dot in any of them, and no placeholder.
func (f *Faults) slotVolume(field string, m *typesv1.Mount) {
	f.Check(regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]*$`).MatchString(m.GetSource()) && len(m.GetSource()) <= MaxName, field+".source",
		"%q is no name of a slot's volume: letters and digits, with - _ between them, at most %d", m.GetSource(), MaxName)
}

// slotVolumes checks what goes together with volumes of slots.
func (f *Faults) slotVolumes(spec *typesv1.ServiceSpec) {
	n := len(state.SlotSources(spec.GetTask().GetContainer()))
	if n == 0 {
		return
	}
	f.slotVolumeNames(spec)
	f.Check(n <= maxSlotVolumes, "mounts", "has %d volumes with scope slot, at most %d are allowed", n, maxSlotVolumes)
	f.Check(spec.GetReplicated() == nil || !spec.GetRebalance().GetAlways(), "rebalance.always", "is not for a service whose tasks stay where the volumes of their slots are")
	f.Check(spec.GetJob().GetSchedule().GetConcurrency() != typesv1.ConcurrencyPolicy_CONCURRENCY_POLICY_ALLOW, "job.schedule.concurrency",
		"must be forbid or replace: two runs at once would share the volumes of their slots")
}

// slotVolumeNames checks that the node takes the name of each, in whichever slot: a service may be scaled later.
func (f *Faults) slotVolumeNames(spec *typesv1.ServiceSpec) {
	slot := uint64(MaxReplicas)
	if spec.GetGlobal() != nil || spec.GetGlobalJob() != nil {
		slot = 0
	}
	for i, m := range spec.GetTask().GetContainer().GetMounts() {
		if !state.OfSlot(m) || len(m.GetSource()) > MaxName {
			continue
		}
		name := state.SlotVolume(spec.GetAnnotations().GetName(), slot, m.GetSource())
		f.Check(len(name) <= state.MaxVolumeName, fmt.Sprintf("mounts[%d].source", i),
			"%q is too long beside the service's name: the volume %s has %d characters, at most %d are allowed", m.GetSource(), name, len(name), state.MaxVolumeName)
	}
}

// volumeScope checks whose a volume is.
func (f *Faults) volumeScope(field string, m *typesv1.Mount) {
	_, known := typesv1.VolumeScope_name[int32(m.GetVolume().GetScope())]
	f.Check(known, field+".volume.scope", "%d is not known", m.GetVolume().GetScope())
	if state.OfSlot(m) {
		f.slotVolume(field, m)
	}
}
