// Package draft is one decision under way: what it has changed so far, and the plan that this becomes.
//
// It owns the changes and what they rest on. Each is made in the book at once, so that later rules see what earlier ones
// did, and all are taken back in the end: nothing has happened until it is committed. It knows no rule. A Draft belongs to
// one goroutine.
package draft

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

// Draft is one decision under way.
type Draft struct {
	Now   time.Time
	Stamp *timestamppb.Timestamp // Now, shared by all that is written
	Book  *book.Book
	// NewID gives the ids of new tasks.
	NewID func() string

	batch   int
	changes []change
	index   map[state.Key]int // of changes
	rests   map[state.Key]struct{}
	resting []state.Key // the same, in order
}

// New begins a decision on the book's snapshot. Batch bounds the objects that it changes.
func New(b *book.Book, now time.Time, newID func() string, batch int) *Draft {
	return &Draft{Now: now, Stamp: timestamppb.New(now), Book: b, NewID: newID, batch: batch,
		index: map[state.Key]int{}, rests: map[state.Key]struct{}{}}
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
func (d *Draft) note(key state.Key, was any, is *typesv1.Object, put *storev1.Put) {
	if i, ok := d.index[key]; ok {
		d.changes[i].is = is
		if put == nil && d.changes[i].put != nil && is != nil {
			d.changes[i].put.Object = is // still new
		}
		return
	}
	d.index[key] = len(d.changes)
	d.changes = append(d.changes, change{key: key, was: was, is: is, put: put})
}

// PutTask notes a task's new state; put is there when it is new.
func (d *Draft) PutTask(was, is *typesv1.Task, o *typesv1.Object, put *storev1.Put) {
	id := is.GetMeta().GetId()
	d.Book.SetTask(id, is)
	d.note(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: id}, was, o, put)
}

// DropTask notes that a task goes.
func (d *Draft) DropTask(t *typesv1.Task) {
	id := t.GetMeta().GetId()
	d.Book.SetTask(id, nil)
	d.note(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: id}, t, nil, nil)
}

// PutNode notes a node's new state.
func (d *Draft) PutNode(was, is *typesv1.Node) {
	id := is.GetMeta().GetId()
	d.Book.SetNode(id, is)
	d.note(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: id}, was, state.Wrap(is), nil)
}

// PutService notes a service's new state.
func (d *Draft) PutService(g *book.Group, is *typesv1.Service) {
	d.note(state.Key{Kind: typesv1.Kind_KIND_SERVICE, ID: g.ID}, g.Service, state.Wrap(is), nil)
	g.Service = is
	d.Book.Placement++ // another service may wait for this
}

// Undo brings the book back to the snapshot.
func (d *Draft) Undo() {
	for i := len(d.changes) - 1; i >= 0; i-- {
		c := &d.changes[i]
		switch c.key.Kind {
		case typesv1.Kind_KIND_TASK:
			was, _ := c.was.(*typesv1.Task)
			d.Book.SetTask(c.key.ID, was)
		case typesv1.Kind_KIND_NODE:
			was, _ := c.was.(*typesv1.Node)
			d.Book.SetNode(c.key.ID, was)
		case typesv1.Kind_KIND_SERVICE:
			d.Book.Group(c.key.ID).Service, _ = c.was.(*typesv1.Service)
		default:
		}
	}
	d.Book.Tidy()
}

// RestOn asks that an object is unchanged when the plan is applied.
func (d *Draft) RestOn(kind typesv1.Kind, id string) {
	key := state.Key{Kind: kind, ID: id}
	if _, ok := d.rests[key]; !ok {
		d.rests[key] = struct{}{}
		d.resting = append(d.resting, key)
	}
}

// Earlier is the sooner of a deadline and one that is to come; zero is never.
func (d *Draft) Earlier(wake, t time.Time) time.Time {
	if t.After(d.Now) && (wake.IsZero() || t.Before(wake)) {
		return t
	}
	return wake
}
