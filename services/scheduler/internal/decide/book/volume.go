package book

import (
	"maps"
	"slices"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Volume is nil when no node holds it.
func (b *Book) Volume(id string) *typesv1.Volume { return b.volumes[id] }

// SetVolume takes over where a slot's volume is, or forgets it (nil).
func (b *Book) SetVolume(id string, v *typesv1.Volume) {
	if v == nil {
		delete(b.volumes, id)
		return
	}
	b.volumes[id] = v
}

// followVolume lets the slot of a volume that was given up be looked at again: it may go anywhere now.
func (b *Book) followVolume(id string, v *typesv1.Volume) {
	was := b.volumes[id]
	b.SetVolume(id, v)
	if was == nil || v != nil {
		return // our own doing
	}
	b.Placement++
	for _, g := range b.Groups {
		if g.Service.GetSpec().GetAnnotations().GetName() != was.GetService() {
			continue
		}
		b.agenda.stir(g)
		for _, s := range g.Slots {
			if s.Key.Number == was.GetSlot() {
				s.Calm, s.Steady = false, false
			}
		}
	}
}

// VolumeUse is a volume on a node. It is the same for tasks that write to the same data.
type VolumeUse struct{ Node, Volume, Incarnation string }

// Users are the tasks that are bound to a node and use a volume there, whatever became of them, in the order of ids.
func (b *Book) Users(u VolumeUse) []*typesv1.Task {
	return slices.SortedFunc(maps.Values(b.users[u]), func(x, y *typesv1.Task) int { return strings.Compare(x.GetMeta().GetId(), y.GetMeta().GetId()) })
}

// noteUsers follows a task's change; both may be nil.
func (b *Book) noteUsers(was, is *typesv1.Task) {
	for _, x := range was.GetDecided().GetVolumes() {
		u := VolumeUse{was.GetDecided().GetNodeId(), x.GetVolumeId(), x.GetIncarnation()}
		if delete(b.users[u], was.GetMeta().GetId()); len(b.users[u]) == 0 {
			delete(b.users, u)
		}
	}
	for _, x := range is.GetDecided().GetVolumes() {
		u := VolumeUse{is.GetDecided().GetNodeId(), x.GetVolumeId(), x.GetIncarnation()}
		if b.users[u] == nil {
			b.users[u] = map[string]*typesv1.Task{}
		}
		b.users[u][is.GetMeta().GetId()] = is
	}
}
