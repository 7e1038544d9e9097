package state

import (
	"fmt"
	"regexp"
	"slices"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// SlotVolume is the name of a slot's volume on its node: "db.2.data"; slot 0, of a service that has one task on each node:
// "db.data". Neither names of services nor sources have dots in them, so no two are the same.
func SlotVolume(service string, slot uint64, source string) string {
	if slot == 0 {
		return service + "." + source
	}
	return fmt.Sprintf("%s.%d.%s", service, slot, source)
}

// OfSlot reports whether a mount shows a volume of its slot.
func OfSlot(m *typesv1.Mount) bool {
	return m.GetVolume().GetScope() == typesv1.VolumeScope_VOLUME_SCOPE_SLOT
}

// SlotSources are what the mounts of a container call the volumes of its slot, each once, in order.
func SlotSources(c *typesv1.ContainerSpec) (out []string) {
	for _, m := range c.GetMounts() {
		if OfSlot(m) {
			out = append(out, m.GetSource())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// MaxVolumeName is the length of a volume's name.
const MaxVolumeName = 128

// ValidVolume reports whether a volume may have this name.
func ValidVolume(name string) bool {
	return len(name) <= MaxVolumeName && regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`).MatchString(name)
}
