package visit

import (
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/preempt"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

const (
	// failureWindow is how long a failure speaks against a node, and manyFailures from how many on.
	failureWindow = 5 * time.Minute
	manyFailures  = 5
	// reasonPause is the least time between two reasons of a waiting task that differ in figures alone.
	reasonPause = 10 * time.Second
	// newer is the reason of a task that this scheduler would place against a rule that it does not know.
	newer = "asks for something that this version of the scheduler does not know"
)

// found is a place for a task.
type found struct {
	node      *place.Node
	addresses []*typesv1.TaskAddress
	reserved  *typesv1.Resources
	ports     []*typesv1.PortConfig
}

// claim finds addresses on a node. Room is false when it has none of its own left.
func (v *Visit) claim(n *place.Node, version, slot uint64, id string) (f found, room bool, why string) {
	addresses, room, why := v.Addresses(n, v.Spec(version), slot)
	if why != "" && !v.Request(version).Fixed {
		if v.exhausted == nil {
			v.exhausted = map[uint64]string{}
		}
		v.exhausted[version] = why
	}
	req := v.Request(version)
	return found{n, addresses, req.Reserved(n), req.PortsOn(n, id, v.published)}, room, why
}

// published reports whether a port answers on every machine, be it a service's or our own.
func (v *Visit) published(p typesv1.Protocol, port uint32) bool {
	_, taken := v.Snapshot().ClaimHolder(state.PortClaim(p, port))
	return taken || p == typesv1.Protocol_PROTOCOL_UDP && port == v.Snapshot().Cluster().GetDataPath().GetPort()
}

// bind gives a new task the best node and its addresses, or says why it has to wait. Held is the reason of a task that has
// a place. It returns the node on which the task holds something now, nil if none.
func (v *Visit) bind(t *typesv1.Task, d *typesv1.TaskDecided, held string) *place.Node {
	f, why := v.search(t)
	if why == "" {
		v.settle(f, t, d)
		d.Reason = held
		return f.node
	}
	v.AwaitPlace()
	room, ok := v.makeRoom(t)
	switch d.Reason = why; {
	case ok && room.Free(v.Settled):
		return v.bind(t, d, held)
	case ok:
		v.await(room, t, d)
		return room.Node
	}
	return nil
}

func (v *Visit) settle(f found, t *typesv1.Task, d *typesv1.TaskDecided) {
	d.NodeId, d.Addresses, d.Reserved, d.HostPorts, d.AwaitedNodeId = f.node.ID(), f.addresses, f.reserved, f.ports, ""
	v.hold(t, d)
	v.RestOnNode(f.node)
	v.RestOnService(v.Group)
}

func (v *Visit) await(room preempt.Room, t *typesv1.Task, d *typesv1.TaskDecided) {
	d.AwaitedNodeId, d.Reserved, d.HostPorts = room.Node.ID(), room.Reserved, v.Request(t.GetSpecVersion()).Ports
	d.Reason = room.Waits(v.Snapshot().Service)
}

// BindPending does the same for a task that waits already. While nothing has changed it costs no writing.
func (v *Visit) BindPending(t *typesv1.Task, held string) {
	v.lift(t, -1)
	f, why := v.search(t)
	patient := why != "" && t.GetDecided().GetAwaitedNodeId() != "" && v.awaits(t)
	var room preempt.Room
	var ok bool
	if why != "" && !patient {
		if room, ok = v.makeRoom(t); ok && room.Free(v.Settled) {
			f, why = v.search(t)
		}
	}
	v.lift(t, 1)
	if why == "" {
		v.Change(t, func(d *typesv1.TaskDecided) {
			v.settle(f, t, d)
			d.Reason = held
		})
		return
	}
	v.AwaitPlace()
	switch {
	case patient:
		return
	case ok:
		v.Change(t, func(d *typesv1.TaskDecided) { v.await(room, t, d) })
		return
	}
	v.Say(t, why)
}

// Say gives a task that waits a reason, if it has changed, and one that differs in figures alone at most every few seconds.
func (v *Visit) Say(t *typesv1.Task, why string) {
	was, awaited := t.GetDecided().GetReason(), t.GetDecided().GetAwaitedNodeId() != ""
	if was == why && !awaited {
		return
	}
	if next := task.TimeOf(t.GetMeta().GetUpdatedAt()).Add(reasonPause); reason.Gist(was) == reason.Gist(why) && v.Now.Before(next) && !awaited {
		v.At(next)
		return
	}
	v.Change(t, func(d *typesv1.TaskDecided) {
		d.Reason = why
		if d.GetNodeId() == "" { // one that has a place keeps what it holds there
			d.AwaitedNodeId, d.Reserved, d.HostPorts = "", nil, nil
		}
	})
}

// search finds a node and addresses on it, or says why there is none. Nothing is claimed when there is none.
func (v *Visit) search(t *typesv1.Task) (found, string) {
	version := t.GetSpecVersion()
	if v.Request(version).Newer {
		return found{}, newer
	}
	if why := v.exhausted[version]; why != "" {
		return found{}, why
	}
	for {
		n, why := v.best(t)
		if why != "" {
			return found{}, why
		}
		f, room, why := v.claim(n, version, t.GetDecided().GetSlot(), t.GetMeta().GetId())
		switch {
		case !room: // the next best is asked
			continue
		case why != "":
			return found{}, why
		}
		return f, ""
	}
}

// best is the best node for a task: its own in a service that has one on each.
func (v *Visit) best(t *typesv1.Task) (*place.Node, string) {
	p := v.Picker(t.GetSpecVersion())
	id := t.GetDecided().GetForNode()
	if n := v.Book.Node(t.GetDecided().GetAwaitedNodeId()); n != nil && p.Refuses(n) == place.None {
		return n, "" // what it has waited for
	}
	if id == "" {
		if n, why := v.atHome(t.GetSpecVersion(), t.GetDecided().GetSlot()); n != nil || why != "" {
			return n, why
		}
		n, why := p.BestAfter(v.servedFrom(t))
		v.awaitHold()
		return n, why
	}
	n := v.Book.Node(id)
	if n == nil {
		return nil, "its node was removed from the cluster"
	}
	v.At(n.Hold)
	if p.Refuses(n) != place.None {
		return nil, v.Request(t.GetSpecVersion()).Explain([]*place.Node{n}, p.Refuses)
	}
	return n, ""
}

// servedFrom is the node of the task that a new one is to take over from while it still runs; nil if there is none.
func (v *Visit) servedFrom(t *typesv1.Task) *place.Node {
	s := v.Group.Slot(book.KeyOf(t))
	if s == nil {
		return nil
	}
	for _, x := range s.Tasks {
		if x != t && book.Wanted(x) && task.Runs(x) {
			return v.nodeOf(x)
		}
	}
	return nil
}

// awaitHold asks again when nodes that are held off may be used again.
func (v *Visit) awaitHold() {
	for _, n := range v.Holds() {
		v.At(n.Hold)
	}
}

// HasPlace reports whether any node that a slot may be on takes one more task of a spec version.
func (v *Visit) HasPlace(version, slot uint64) bool { return v.Homeless(version, slot) == "" }
