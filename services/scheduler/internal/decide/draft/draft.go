// Package draft is one decision under way: what it has changed so far, and the plan that this becomes.
//
// It owns the changes and what they rest on. Each is made in the book at once, so that later rules see what earlier ones
// did, and all are taken back in the end: nothing has happened until it is committed. It knows no rule. A Draft belongs to
// one goroutine.
package draft

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// Draft is one decision under way.
type Draft struct {
	Now   time.Time
	Stamp *timestamppb.Timestamp // Now, shared by all that is written
	Book  *book.Book
	// NewID gives the ids of new tasks.
	NewID func() string
	// Disturbed are the groups to be looked at again when all have had their turn: others have stopped tasks of theirs.
	Disturbed map[*book.Group]struct{}

	batch   int
	changes []change
	tasks   map[string]int    // of changes, by the task's id
	others  map[state.Key]int // of changes
	indexed int               // changes that tasks and others know
	resting []resting
	rests   map[state.Key]struct{} // of resting, those that have no mark of their own
	blanks  []Blank                // to be used
	chunk   int                    // how many were made last
}

// resting is an object that the plan rests on, with its revision in the snapshot; 0: it is not there.
type resting struct {
	key      state.Key
	revision uint64
}

// New begins a decision on the book's snapshot. Batch bounds the objects that it changes.
func New(b *book.Book, now time.Time, newID func() string, batch int) *Draft {
	b.Decision++
	return &Draft{Now: now, Stamp: timestamppb.New(now), Book: b, NewID: newID, batch: batch,
		Disturbed: map[*book.Group]struct{}{}, tasks: map[string]int{}, others: map[state.Key]int{}, rests: map[state.Key]struct{}{}}
}

// Snapshot is what the decision is about.
func (d *Draft) Snapshot() *state.Snapshot { return d.Book.Snapshot }

// change is what becomes of one object; is is nil when it goes.
type change struct {
	key state.Key
	was any
	is  *typesv1.Object
	put *storev1.Put // made together with the object, when it is new
}

// Full reports whether the plan may become no larger.
func (d *Draft) Full() bool { return len(d.changes) >= d.batch }

// Changes is the number of objects that have been changed so far.
func (d *Draft) Changes() int { return len(d.changes) }

// note records a change of an object; of several the last counts.
func (d *Draft) note(key state.Key, was any, is *typesv1.Object) {
	if i, ok := d.find(key); ok {
		d.changes[i].is = is
		if d.changes[i].put != nil && is != nil {
			d.changes[i].put.Object = is // still new
		}
		return
	}
	d.add(change{key: key, was: was, is: is})
}

// find is the change of an object. What was added since the last question is indexed only now, for a decision that does
// nothing but make tasks never asks.
func (d *Draft) find(key state.Key) (i int, ok bool) {
	for ; d.indexed < len(d.changes); d.indexed++ {
		if k := d.changes[d.indexed].key; k.Kind == typesv1.Kind_KIND_TASK {
			d.tasks[k.ID] = d.indexed
		} else {
			d.others[k] = d.indexed
		}
	}
	if key.Kind == typesv1.Kind_KIND_TASK {
		i, ok = d.tasks[key.ID]
	} else {
		i, ok = d.others[key]
	}
	return i, ok
}

func (d *Draft) add(c change) { d.changes = append(room(d.changes), c) }

// room makes room for one more: append alone grows large slices by a quarter, and copies them too often.
func room[T any](list []T) []T {
	if n := len(list); n == cap(list) {
		return slices.Grow(list, max(n, 16))
	}
	return list
}

// PutTask notes a task's new state.
func (d *Draft) PutTask(was, is *typesv1.Task) {
	id := is.GetMeta().GetId()
	d.Book.SetTask(id, is)
	d.note(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: id}, was, state.Wrap(is))
}

// NewTask notes a task that this decision makes, with its service and the node on which it holds something.
func (d *Draft) NewTask(b *Blank, g *book.Group, n *place.Node) {
	d.Book.MakeTask(&b.Task, g, n)
	d.add(change{key: state.Key{Kind: typesv1.Kind_KIND_TASK, ID: b.meta.GetId()}, is: &b.object, put: &b.put})
}

// OnNode are the tasks of nodes as the decision has left them.
func (d *Draft) OnNode() func(node string) []*typesv1.Task {
	come := map[string][]*typesv1.Task{}
	for _, c := range d.changes {
		if t := d.Book.Task(c.key.ID); c.key.Kind == typesv1.Kind_KIND_TASK && t.GetDecided().GetNodeId() != "" && !d.Settled(t) {
			come[t.GetDecided().GetNodeId()] = append(come[t.GetDecided().GetNodeId()], t)
		}
	}
	return func(node string) (out []*typesv1.Task) {
		for t := range d.Snapshot().TasksOfNode(node) {
			if t = d.Book.Task(t.GetMeta().GetId()); t != nil {
				out = append(out, t)
			}
		}
		return append(out, come[node]...)
	}
}

// Settled reports whether a task was on a node before this decision.
func (d *Draft) Settled(t *typesv1.Task) bool {
	return d.Snapshot().Task(t.GetMeta().GetId()).GetDecided().GetNodeId() != ""
}

// DropTask notes that a task goes.
func (d *Draft) DropTask(t *typesv1.Task) {
	id := t.GetMeta().GetId()
	if len(t.GetDecided().GetVolumes()) > 0 && !d.Settled(t) {
		d.Release(t)
	}
	d.giveBack(t)
	d.Book.SetTask(id, nil)
	d.note(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: id}, t, nil)
}

// PutVolume notes where a slot's volume is, or who uses it; was is nil for a new one.
func (d *Draft) PutVolume(was, is *typesv1.Volume) {
	id := is.GetMeta().GetId()
	d.Book.SetVolume(id, is)
	d.note(state.Key{Kind: typesv1.Kind_KIND_VOLUME, ID: id}, was, state.Wrap(is))
}

// Release takes back what was noted of the volumes of a task that this decision has placed, and now has not.
func (d *Draft) Release(t *typesv1.Task) {
	for _, x := range t.GetDecided().GetVolumes() {
		key := state.Key{Kind: typesv1.Kind_KIND_VOLUME, ID: x.GetVolumeId()}
		i, ok := d.find(key)
		if !ok || d.changes[i].is.GetVolume().GetTaskId() != t.GetMeta().GetId() {
			continue
		}
		was := d.Snapshot().Volume(key.ID)
		d.Book.SetVolume(key.ID, was)
		d.changes[i].is = nil
		if was != nil {
			d.changes[i].is = state.Wrap(was)
		}
	}
}

// PutNode notes a node's new state.
func (d *Draft) PutNode(was, is *typesv1.Node) {
	id := is.GetMeta().GetId()
	d.Book.SetNode(id, is)
	d.note(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: id}, was, state.Wrap(is))
}

// PutService notes a service's new state.
func (d *Draft) PutService(g *book.Group, is *typesv1.Service) {
	d.note(state.Key{Kind: typesv1.Kind_KIND_SERVICE, ID: g.ID}, g.Service, state.Wrap(is))
	g.Service = is
	d.Book.Placement++ // another service may wait for this
}

// Undo brings the book back to the snapshot.
func (d *Draft) Undo() {
	for i := len(d.changes) - 1; i >= 0; i-- {
		c := &d.changes[i]
		switch c.key.Kind {
		case typesv1.Kind_KIND_TASK:
			if c.put != nil {
				d.Book.UnmakeTask(c.key.ID, c.is.GetTask())
				continue
			}
			was, _ := c.was.(*typesv1.Task)
			d.Book.SetTask(c.key.ID, was)
		case typesv1.Kind_KIND_NODE:
			was, _ := c.was.(*typesv1.Node)
			d.Book.SetNode(c.key.ID, was)
		case typesv1.Kind_KIND_NETWORK:
			d.Book.Pools.SetNetwork(c.key.ID, d.Snapshot().Network(c.key.ID))
		case typesv1.Kind_KIND_VOLUME:
			d.Book.SetVolume(c.key.ID, d.Snapshot().Volume(c.key.ID))
		case typesv1.Kind_KIND_SERVICE:
			d.Book.Group(c.key.ID).Service, _ = c.was.(*typesv1.Service)
		default:
		}
	}
	d.Book.Tidy()
}

// RestOnNode asks that a node is unchanged when the plan is applied.
func (d *Draft) RestOnNode(n *place.Node) {
	if n.Rests != d.Book.Decision {
		n.Rests = d.Book.Decision
		d.rest(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: n.ID()}, n.Object.GetMeta())
	}
}

// RestOnService asks that a service is unchanged when the plan is applied.
func (d *Draft) RestOnService(g *book.Group) {
	if g.Rests != d.Book.Decision {
		g.Rests = d.Book.Decision
		d.rest(state.Key{Kind: typesv1.Kind_KIND_SERVICE, ID: g.ID}, g.Service.GetMeta())
	}
}

// RestOn asks that an object is unchanged when the plan is applied, also that it is not there.
func (d *Draft) RestOn(kind typesv1.Kind, id string) {
	key := state.Key{Kind: kind, ID: id}
	if _, ok := d.rests[key]; !ok {
		d.rests[key] = struct{}{}
		d.rest(key, state.MetaOf(d.Snapshot().Get(key)))
	}
}

// rest notes what the plan rests on. No decision changes the revision of an object: it is the store's.
func (d *Draft) rest(key state.Key, meta *typesv1.Meta) {
	d.resting = append(room(d.resting), resting{key, meta.GetRevision()})
}

// Earlier is the sooner of a deadline and one that is to come; zero is never.
func (d *Draft) Earlier(wake, t time.Time) time.Time {
	if t.After(d.Now) && (wake.IsZero() || t.Before(wake)) {
		return t
	}
	return wake
}
