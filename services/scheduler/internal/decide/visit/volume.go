package visit

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// VolumeAway begins the reason of a task that waits for the node which holds a volume of its slot.
const VolumeAway = "its volume"

// home is where the volumes of a slot are.
type home struct {
	node   string // "": nowhere yet
	volume string // one that is there
	// clash says, instead, why there is no such node.
	clash string
}

// home is that of a slot for tasks of a spec version. In a service that has one task on each node every slot is at home.
func (v *Visit) home(version, slot uint64) (out home) {
	if v.Group.PerNode() {
		return out
	}
	for _, source := range v.Request(version).Volumes {
		vol := v.Book.Volume(state.SlotVolume(v.Name(), slot, source))
		switch {
		case vol == nil:
		case out.node == "":
			out.node, out.volume = vol.GetNodeId(), vol.GetMeta().GetId()
		case out.node != vol.GetNodeId():
			out.clash = fmt.Sprintf(VolumeAway+"s are apart: %s is on %s, %s on %s; '%s' gives one up", out.volume,
				v.nodeName(out.node), vol.GetMeta().GetId(), v.nodeName(vol.GetNodeId()), v.givesUp(out.node, vol.GetNodeId()))
			return out
		}
	}
	return out
}

// Name is the service's, also while it goes.
func (v *Visit) Name() string { return v.Service.GetSpec().GetAnnotations().GetName() }

// givesUp is the command that gives up a volume of one of these nodes: one that was removed can't be asked.
func (v *Visit) givesUp(nodes ...string) string {
	if slices.ContainsFunc(nodes, func(id string) bool { return v.Book.Node(id) == nil }) {
		return "shoal volume rm --force"
	}
	return "shoal volume rm"
}

func (v *Visit) nodeName(id string) string {
	if n := v.Book.Node(id); n != nil {
		return n.Name()
	}
	return "a node that was removed"
}

// atHome is the node that holds a slot's volumes, if it takes the task; else why it has to wait. Nothing of both: the slot has
// no volumes yet, and may go anywhere.
func (v *Visit) atHome(version, slot uint64) (*place.Node, string) {
	h := v.home(version, slot)
	if h.clash != "" || h.node == "" {
		return nil, h.clash
	}
	n := v.Book.Node(h.node)
	if n == nil {
		return nil, fmt.Sprintf(VolumeAway+" %s was on a node that was removed; '%s %s' lets the slot begin anew", h.volume, v.givesUp(h.node), h.volume)
	}
	v.At(n.Hold)
	p := v.Picker(version)
	if p.Refuses(n) == place.None {
		return n, ""
	}
	tally := v.Request(version).Tally([]*place.Node{n}, p.Refuses)
	why := fmt.Sprintf(VolumeAway+" %s is on %s, which %s", h.volume, n.Name(), tally.Refusals[0].Words)
	if tally.Nearest != "" {
		why += "; " + tally.Nearest
	}
	return nil, why
}

// NodesFor are those of some nodes that a slot may be on: all while it has no volumes, else the one that holds them.
func (v *Visit) NodesFor(version, slot uint64, of []*place.Node) []*place.Node {
	h := v.home(version, slot)
	switch n := v.Book.Node(h.node); {
	case h.node == "":
		return of
	case n == nil || h.clash != "":
		return nil
	default:
		return []*place.Node{n}
	}
}

// Tethered is the node that a slot cannot leave, because its volumes are there; nil if it may.
func (v *Visit) Tethered(version, slot uint64) *place.Node {
	return v.Book.Node(v.home(version, slot).node)
}

// Homeless says why a slot has no place that takes one more task of a spec version; nothing if it has one.
func (v *Visit) Homeless(version, slot uint64) string {
	if v.Request(version).Newer {
		return newer
	}
	n, why := v.atHome(version, slot)
	if n == nil && why == "" {
		n, why = v.Picker(version).Best()
	}
	if n != nil {
		return ""
	}
	v.AwaitPlace()
	v.awaitHold()
	return why
}

// hold notes which volumes a task uses on its node. Those of a slot that are nowhere yet are there from now on: the record is written with
// the task, before the node can know of it, and outlives it.
func (v *Visit) hold(t *typesv1.Task, d *typesv1.TaskDecided) {
	d.Volumes = nil
	for _, source := range v.Request(t.GetSpecVersion()).Volumes {
		id := state.SlotVolume(v.Name(), d.GetSlot(), source)
		if v.Group.PerNode() {
			d.Volumes = append(d.Volumes, &typesv1.TaskVolume{VolumeId: id})
			continue
		}
		was := v.Book.Volume(id)
		is := &typesv1.Volume{Meta: &typesv1.Meta{Id: id}, Service: v.Name(), Slot: d.GetSlot(), Source: source, NodeId: d.GetNodeId()}
		if was != nil {
			is = proto.CloneOf(was)
		} else {
			is.Incarnation = v.NewID()
		}
		is.TaskId = t.GetMeta().GetId()
		d.Volumes = append(d.Volumes, &typesv1.TaskVolume{VolumeId: id, Incarnation: is.GetIncarnation()})
		v.PutVolume(was, is)
		v.RestOn(typesv1.Kind_KIND_VOLUME, id)
	}
}

// InUse says that the volumes which a new task of the slot is to have are used still: by a task before it, by one of an earlier
// run of a job, or of a service that had the name before; nothing if they are not. Two never write to them at once, however long
// one takes to stop; and one that is out of reach may write to them still when its node is back.
func (v *Visit) InUse(s *book.Slot, version uint64) string { return v.inUse(s, v.uses(s, version)) }

// InUseFor says the same of a task that is there: what it was given with its place stays its own, though a person has given the
// volume up since.
func (v *Visit) InUseFor(s *book.Slot, t *typesv1.Task) string {
	d := t.GetDecided()
	if d.GetNodeId() == "" {
		return v.InUse(s, t.GetSpecVersion())
	}
	var uses []book.VolumeUse
	for _, x := range d.GetVolumes() {
		uses = append(uses, book.VolumeUse{Node: d.GetNodeId(), Volume: x.GetVolumeId(), Incarnation: x.GetIncarnation()})
	}
	return v.inUse(s, uses)
}

// uses are the volumes that a new task of the slot would get.
func (v *Visit) uses(s *book.Slot, version uint64) (out []book.VolumeUse) {
	for _, source := range v.Request(version).Volumes {
		use := book.VolumeUse{Node: s.Key.Node, Volume: state.SlotVolume(v.Name(), s.Key.Number, source)}
		if !v.Group.PerNode() {
			vol := v.Book.Volume(use.Volume)
			use.Node, use.Incarnation = vol.GetNodeId(), vol.GetIncarnation()
		}
		out = append(out, use)
	}
	return out
}

func (v *Visit) inUse(s *book.Slot, uses []book.VolumeUse) string {
	for _, use := range uses {
		for _, t := range v.Book.Users(use) {
			own := t.GetServiceId() == v.Group.ID && book.KeyOf(t) == s.Key
			if v.Gone(t) || own && book.Wanted(t) {
				continue
			}
			if !own {
				v.AskAgain()   // its end does not touch this slot
				v.AwaitPlace() // and may come within this decision
			}
			return waitsForStop
		}
	}
	return ""
}
