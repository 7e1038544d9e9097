package visit

import (
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/reason"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/task"
)

const (
	// failureWindow is how long a failure speaks against a node, and manyFailures from how many on.
	failureWindow = 5 * time.Minute
	manyFailures  = 5
	// reasonPause is the least time between two reasons of a waiting task that differ in figures alone.
	reasonPause = 10 * time.Second
)

// found is a place for a task.
type found struct {
	node      *place.Node
	addresses []*typesv1.TaskAddress
}

// bind gives a new task the best node and its addresses, or says why it has to wait. Held is the reason of a task that has
// a place.
func (v *Visit) bind(t *typesv1.Task, d *typesv1.TaskDecided, held string) {
	f, why := v.search(t)
	if why != "" {
		v.AwaitPlace()
		d.Reason = why
		return
	}
	v.settle(f, t.GetSpecVersion(), d)
	d.Reason = held
}

func (v *Visit) settle(f found, version uint64, d *typesv1.TaskDecided) {
	req := v.Request(version)
	d.NodeId, d.Addresses, d.Reserved, d.HostPorts = f.node.ID(), f.addresses, req.Reserved(f.node), req.Ports
	v.RestOnNode(f.node)
	v.RestOnService(v.Group)
}

// BindPending does the same for a task that waits already. While nothing has changed it costs no writing.
func (v *Visit) BindPending(t *typesv1.Task, held string) {
	f, why := v.search(t)
	if why == "" {
		v.Change(t, func(d *typesv1.TaskDecided) {
			v.settle(f, t.GetSpecVersion(), d)
			d.Reason = held
		})
		return
	}
	v.AwaitPlace()
	v.Say(t, why)
}

// Say gives a task that waits a reason, if it has changed, and one that differs in figures alone at most every few seconds.
func (v *Visit) Say(t *typesv1.Task, why string) {
	was := t.GetDecided().GetReason()
	if was == why {
		return
	}
	if next := task.TimeOf(t.GetMeta().GetUpdatedAt()).Add(reasonPause); reason.Gist(was) == reason.Gist(why) && v.Now.Before(next) {
		v.At(next)
		return
	}
	v.Change(t, func(d *typesv1.TaskDecided) { d.Reason = why })
}

// search finds a node and addresses on it, or says why there is none. Nothing is claimed when there is none.
func (v *Visit) search(t *typesv1.Task) (found, string) {
	version := t.GetSpecVersion()
	if why := v.exhausted[version]; why != "" {
		return found{}, why
	}
	for {
		n, why := v.best(t)
		if why != "" {
			return found{}, why
		}
		addresses, room, why := v.Addresses(n, v.Spec(version))
		switch {
		case !room: // the next best is asked
			continue
		case why != "":
			if v.exhausted == nil {
				v.exhausted = map[uint64]string{}
			}
			v.exhausted[version] = why
			return found{}, why
		}
		return found{n, addresses}, ""
	}
}

// best is the best node for a task: its own in a service that has one on each.
func (v *Visit) best(t *typesv1.Task) (*place.Node, string) {
	p := v.Picker(t.GetSpecVersion())
	id := t.GetDecided().GetForNode()
	if id == "" {
		n, why := p.Best()
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

// awaitHold asks again when nodes that are held off may be used again.
func (v *Visit) awaitHold() {
	for _, n := range v.Holds() {
		v.At(n.Hold)
	}
}

// HasPlace reports whether any node takes one more task of a spec version.
func (v *Visit) HasPlace(version uint64) bool {
	n, _ := v.Picker(version).Best()
	if n == nil {
		v.AwaitPlace()
		v.awaitHold()
	}
	return n != nil
}
