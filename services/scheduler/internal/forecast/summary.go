package forecast

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/rollout"
)

// live reports whether a task is to be there and has not ended.
func live(t *typesv1.Task) bool {
	d := t.GetDecided()
	return d.GetDesired() <= running && !d.GetAbandoned() && !state.Terminal(t.GetObserved().GetState())
}

// slot is a task's place, whichever task fills it.
type slot struct {
	service string
	number  uint64
	node    string
}

func slotOf(t *typesv1.Task) slot {
	return slot{t.GetServiceId(), t.GetDecided().GetSlot(), t.GetDecided().GetForNode()}
}

// waits are the tasks that have no place in the end.
func waits(before, after *state.Snapshot) []*schedulerv1.PlannedWait {
	waited := map[slot]bool{}
	for t := range before.Tasks() {
		if live(t) && t.GetDecided().GetNodeId() == "" {
			waited[slotOf(t)] = true
		}
	}
	var out []*schedulerv1.PlannedWait
	for t := range after.Tasks() {
		if live(t) && t.GetDecided().GetNodeId() == "" && len(out) < mostActions {
			out = append(out, &schedulerv1.PlannedWait{ServiceName: after.Service(t.GetServiceId()).GetSpec().GetAnnotations().GetName(),
				Slot: t.GetDecided().GetSlot(), Reason: t.GetDecided().GetReason(), Anyway: waited[slotOf(t)]})
		}
	}
	slices.SortStableFunc(out, func(a, b *schedulerv1.PlannedWait) int {
		return cmp.Or(cmp.Compare(a.GetServiceName(), b.GetServiceName()), cmp.Compare(a.GetSlot(), b.GetSlot()))
	})
	return out
}

func tasksByNode(s *state.Snapshot) map[string]uint32 {
	out := map[string]uint32{}
	for t := range s.Tasks() {
		if live(t) && t.GetDecided().GetNodeId() != "" {
			out[t.GetDecided().GetNodeId()]++
		}
	}
	return out
}

// nodes are those with another number of tasks in the end.
func nodes(before, after *state.Snapshot) []*schedulerv1.PlannedNode {
	was, is := tasksByNode(before), tasksByNode(after)
	ids := map[string]struct{}{}
	for id := range was {
		ids[id] = struct{}{}
	}
	for id := range is {
		ids[id] = struct{}{}
	}
	var out []*schedulerv1.PlannedNode
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		if was[id] == is[id] {
			continue
		}
		n := before.Node(id)
		if n == nil {
			n = after.Node(id)
		}
		out = append(out, &schedulerv1.PlannedNode{NodeId: id, NodeName: nameOf(n), Before: was[id], After: is[id]})
	}
	slices.SortStableFunc(out, func(a, b *schedulerv1.PlannedNode) int { return cmp.Compare(a.GetNodeName(), b.GetNodeName()) })
	return out
}

// services watches how many tasks of each service serve on the way. A nil one watches nothing.
type services struct {
	before, least map[string]uint32
	touched       map[string]*schedulerv1.PlannedService
	updates       map[string]bool // those that the change updates, or that are being updated
}

// watch begins with the services that the change is about.
func watch(s *state.Snapshot, c Change) *services {
	out := &services{before: serving(s), touched: map[string]*schedulerv1.PlannedService{}, updates: map[string]bool{}}
	out.least = maps.Clone(out.before)
	for svc := range s.Services() {
		out.updates[svc.GetMeta().GetId()] = rollout.UnderWay(svc)
	}
	for _, o := range c.Puts {
		if svc := o.GetService(); svc != nil {
			id := svc.GetMeta().GetId()
			out.add(id, svc.GetSpec().GetAnnotations().GetName())
			was := s.Service(id)
			out.updates[id] = out.updates[id] || was.GetSpecVersion() != svc.GetSpecVersion() || !proto.Equal(was.GetEndpoint(), svc.GetEndpoint())
		}
	}
	for _, key := range c.Removals {
		if svc := s.Service(key.ID); key.Kind == typesv1.Kind_KIND_SERVICE && svc != nil {
			out.add(key.ID, svc.GetSpec().GetAnnotations().GetName())
		}
	}
	return out
}

func (v *services) add(id, name string) {
	if v.touched[id] == nil {
		v.touched[id] = &schedulerv1.PlannedService{ServiceId: id, ServiceName: name}
	}
}

// touch notes that something is done with a service because of the change.
func (v *services) touch(a *schedulerv1.PlannedAction) {
	if v != nil && !a.GetAnyway() {
		v.add(a.GetServiceId(), a.GetServiceName())
	}
}

// see counts what serves now, of the services whose tasks have changed.
func (v *services) see(w *world) {
	if v == nil {
		return
	}
	for id := range w.moved {
		if least, ok := v.least[id]; ok {
			v.least[id] = min(least, servingOf(w.s, id))
		}
	}
	clear(w.moved)
}

// tell is what has become of the services that were touched.
func (v *services) tell(w *world) []*schedulerv1.PlannedService {
	var out []*schedulerv1.PlannedService
	for _, id := range slices.Sorted(maps.Keys(v.touched)) {
		p := v.touched[id]
		p.Before, p.After = v.before[id], servingOf(w.s, id)
		p.Least = min(v.least[id], p.GetAfter())
		if svc := w.s.Service(id); svc != nil && !state.IsJob(svc) {
			_, want := state.Counts(w.s, id)
			p.Floor = uint32(max(0, int64(want)-int64(rollout.MayMiss(svc.GetSpec(), int(want), v.updates[id]))))
		}
		p.Kept = p.GetLeast() >= min(p.GetFloor(), p.GetBefore())
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b *schedulerv1.PlannedService) int {
		return cmp.Compare(a.GetServiceName(), b.GetServiceName())
	})
	return out
}

// serving counts the slots of each service that have a running task on a machine that is not lost.
func serving(s *state.Snapshot) map[string]uint32 {
	out := map[string]uint32{}
	for svc := range s.Services() {
		out[svc.GetMeta().GetId()] = servingOf(s, svc.GetMeta().GetId())
	}
	return out
}

func servingOf(s *state.Snapshot, service string) uint32 {
	seen := map[slot]struct{}{}
	for t := range s.TasksOfService(service) {
		n := s.Node(t.GetDecided().GetNodeId())
		if t.GetObserved().GetState() == running && n != nil && n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_DOWN && live(t) {
			seen[slotOf(t)] = struct{}{}
		}
	}
	return uint32(len(seen))
}
