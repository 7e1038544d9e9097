package forecast

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

const (
	running  = typesv1.TaskState_TASK_STATE_RUNNING
	complete = typesv1.TaskState_TASK_STATE_COMPLETE
	shutdown = typesv1.TaskState_TASK_STATE_SHUTDOWN
)

// world is a cluster that exists in one forecast alone.
type world struct {
	s       *state.Snapshot
	first   *state.Snapshot // before the change
	now     time.Time
	ids     int
	decider *decide.Decider
	// waiting are the tasks that agents have not looked at since they were changed.
	waiting map[string]struct{}
	// settled says that agents have acted since the last step.
	settled bool
	// moved are the services of which tasks have changed since somebody took them out.
	moved map[string]struct{}
}

func newWorld(s *state.Snapshot) *world {
	w := &world{s: s, first: s, now: s.ClusterTime(), decider: decide.NewDecider(decide.Batch), waiting: map[string]struct{}{}, moved: map[string]struct{}{}}
	for t := range s.Tasks() {
		if !state.Terminal(t.GetObserved().GetState()) {
			w.waiting[t.GetMeta().GetId()] = struct{}{}
		}
	}
	return w
}

func (w *world) newID() string { w.ids++; return fmt.Sprintf("forecast-%08d", w.ids) }

func (w *world) decide() decide.Plan { return w.decider.Decide(w.s, w.now, w.newID) }

// write changes the world as a store would: each change is a revision.
func (w *world) write(puts []*typesv1.Object, removals []state.Key) {
	v := w.s.Version()
	v.Revision++
	txn := w.s.Begin()
	for _, o := range puts {
		txn.Put(w.stamped(o, v.Revision))
		w.mark(state.KeyOf(o), o.GetTask())
	}
	for _, key := range removals {
		w.mark(key, w.s.Task(key.ID))
		txn.Delete(key)
	}
	w.s = txn.Commit(v, w.now)
}

// mark notes whose tasks a change is about.
func (w *world) mark(key state.Key, t *typesv1.Task) {
	switch key.Kind {
	case typesv1.Kind_KIND_TASK:
		w.moved[t.GetServiceId()] = struct{}{}
	case typesv1.Kind_KIND_NODE:
		for t := range w.s.TasksOfNode(key.ID) {
			w.moved[t.GetServiceId()] = struct{}{}
		}
	default:
	}
}

// stamped is the object with the Meta that a store would give it. Nothing that somebody else holds is changed.
func (w *world) stamped(o *typesv1.Object, revision uint64) *typesv1.Object {
	old := state.MetaOf(o)
	meta := &typesv1.Meta{Id: old.GetId(), Revision: revision, CreatedAt: old.GetCreatedAt(), UpdatedAt: timestamppb.New(w.now)}
	if meta.GetCreatedAt() == nil {
		meta.CreatedAt = meta.GetUpdatedAt()
	}
	if t := o.GetTask(); t != nil { // the many: all but the Meta is shared
		return state.Wrap(&typesv1.Task{Meta: meta, ServiceId: t.GetServiceId(), SpecVersion: t.GetSpecVersion(),
			Decided: t.GetDecided(), Observed: t.GetObserved()})
	}
	next := proto.CloneOf(o)
	if m := state.MetaOf(next); m != nil {
		m.Revision, m.CreatedAt, m.UpdatedAt = meta.GetRevision(), meta.GetCreatedAt(), meta.GetUpdatedAt()
	}
	return next
}

// change brings the change about.
func (w *world) change(c Change) {
	puts := c.Puts
	for _, id := range c.PowerOff {
		if n := w.s.Node(id); n != nil {
			n = proto.CloneOf(n)
			n.Status = proto.CloneOf(n.GetStatus())
			if n.GetStatus() == nil {
				n.Status = &typesv1.NodeStatus{}
			}
			n.Status.State, n.Status.Since = typesv1.NodeState_NODE_STATE_DOWN, timestamppb.New(w.now)
			puts = append(puts, state.Wrap(n))
		}
	}
	w.write(puts, c.Removals)
}

func (w *world) apply(p decide.Plan) {
	var puts []*typesv1.Object
	var removals []state.Key
	for _, put := range p.Puts {
		puts = append(puts, put.GetObject())
		w.await(put)
	}
	for _, d := range p.Deletes {
		removals = append(removals, state.Key{Kind: d.GetKind(), ID: d.GetId()})
		delete(w.waiting, d.GetId())
	}
	w.write(puts, removals)
}

func (w *world) await(put *storev1.Put) {
	if t := put.GetObject().GetTask(); t != nil {
		w.waiting[t.GetMeta().GetId()] = struct{}{}
	}
}

// settle lets the agents of all nodes that are there do what is decided, and everybody hear of it. It reports whether
// anything happened.
func (w *world) settle() bool {
	var puts []*typesv1.Object
	for _, id := range slices.Sorted(maps.Keys(w.waiting)) {
		next, more := w.act(w.s.Task(id))
		if !more {
			delete(w.waiting, id)
		}
		if next != nil {
			puts = append(puts, state.Wrap(next))
		}
	}
	if len(puts) == 0 {
		return false
	}
	for m := range w.s.Members() {
		if m.GetAppliedRevision() > 0 {
			m = proto.CloneOf(m)
			m.AppliedRevision = w.s.Version().Revision + 1
			puts = append(puts, state.Wrap(m))
		}
	}
	w.write(puts, nil)
	w.settled = true
	return true
}

// act is what a task's agent makes of it; nil when that is nothing. More says that there is something to do the next time.
func (w *world) act(t *typesv1.Task) (next *typesv1.Task, more bool) {
	node := w.s.Node(t.GetDecided().GetNodeId())
	seen, wanted := t.GetObserved().GetState(), t.GetDecided().GetDesired()
	if state.Terminal(seen) || node.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY {
		return nil, false
	}
	is := wanted
	switch {
	case wanted > running:
		is = shutdown
	case seen == running && state.IsJob(w.s.Service(t.GetServiceId())):
		is = complete
	case seen >= wanted:
		return nil, false
	}
	observed := &typesv1.TaskObserved{Attempt: t.GetObserved().GetAttempt(), State: is, Seq: t.GetObserved().GetSeq() + 1,
		Ready: is == running, At: timestamppb.New(w.now)}
	return &typesv1.Task{Meta: t.GetMeta(), ServiceId: t.GetServiceId(), SpecVersion: t.GetSpecVersion(), Decided: t.GetDecided(),
		Observed: observed}, is == running
}
