package decide

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/address"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/loss"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/place"
)

// work is one decision under way. It changes the book as it goes, so that later rules see what earlier ones did, and takes
// all back in the end.
type work struct {
	now   time.Time
	stamp *timestamppb.Timestamp // now, shared by all that is written
	s     *state.Snapshot
	book  *book.Book
	newID func() string
	batch int

	changes []change
	index   map[state.Key]int // of changes
	rests   map[state.Key]struct{}
	resting []state.Key // the same, in order

	addresses *address.Allocator
	fullNodes []*place.Node // marked as without a free address
	held      []*place.Node // held off, once somebody has asked
	heldKnown bool
	losses    *loss.Guard                // which nodes are lost, once somebody has asked
	applied   *uint64                    // see tables
	small     map[string]map[string]bool // node -> tasks for which it has become too small
	wake      time.Time                  // of what concerns no single service
}

// change is what becomes of one object; is is nil when it goes.
type change struct {
	key state.Key
	was any
	is  *typesv1.Object
	put *storev1.Put // made together with the object, when it is new
}

func newWork(b *book.Book, now time.Time, newID func() string, batch int) *work {
	return &work{now: now, addresses: address.New(b.Snapshot, b.Pools), stamp: timestamppb.New(now), s: b.Snapshot, book: b, newID: newID, batch: batch,
		index: map[state.Key]int{}, rests: map[state.Key]struct{}{}}
}

func (w *work) full() bool { return len(w.changes) >= w.batch }

// note records a change of an object; of several the last counts.
func (w *work) note(key state.Key, was any, is *typesv1.Object, put *storev1.Put) {
	if i, ok := w.index[key]; ok {
		w.changes[i].is = is
		if put == nil && w.changes[i].put != nil && is != nil {
			w.changes[i].put.Object = is // still new
		}
		return
	}
	w.index[key] = len(w.changes)
	w.changes = append(w.changes, change{key: key, was: was, is: is, put: put})
}

func (w *work) putTask(was, is *typesv1.Task, o *typesv1.Object, put *storev1.Put) {
	id := is.GetMeta().GetId()
	w.book.SetTask(id, is)
	w.note(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: id}, was, o, put)
}

func (w *work) dropTask(t *typesv1.Task) {
	id := t.GetMeta().GetId()
	w.book.SetTask(id, nil)
	w.note(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: id}, t, nil, nil)
}

func (w *work) putNode(was, is *typesv1.Node) {
	id := is.GetMeta().GetId()
	w.book.SetNode(id, is)
	w.note(state.Key{Kind: typesv1.Kind_KIND_NODE, ID: id}, was, state.Wrap(is), nil)
}

func (w *work) putService(g *book.Group, is *typesv1.Service) {
	w.note(state.Key{Kind: typesv1.Kind_KIND_SERVICE, ID: g.ID}, g.Service, state.Wrap(is), nil)
	g.Service = is
}

// undo brings the book back to the snapshot.
func (w *work) undo() {
	for i := len(w.changes) - 1; i >= 0; i-- {
		c := &w.changes[i]
		switch c.key.Kind {
		case typesv1.Kind_KIND_TASK:
			was, _ := c.was.(*typesv1.Task)
			w.book.SetTask(c.key.ID, was)
		case typesv1.Kind_KIND_NODE:
			was, _ := c.was.(*typesv1.Node)
			w.book.SetNode(c.key.ID, was)
		case typesv1.Kind_KIND_SERVICE:
			w.book.Group(c.key.ID).Service, _ = c.was.(*typesv1.Service)
		default:
		}
	}
	for _, n := range w.fullNodes {
		n.Full = false
	}
	w.book.Tidy()
}

// restOn asks that an object is unchanged when the plan is applied.
func (w *work) restOn(kind typesv1.Kind, id string) {
	key := state.Key{Kind: kind, ID: id}
	if _, ok := w.rests[key]; !ok {
		w.rests[key] = struct{}{}
		w.resting = append(w.resting, key)
	}
}

// earlier is the sooner of a deadline and one that is to come; zero is never.
func (w *work) earlier(wake, t time.Time) time.Time {
	if t.After(w.now) && (wake.IsZero() || t.Before(wake)) {
		return t
	}
	return wake
}

// fields are what a scheduler may write of each kind. They are made once a plan.
type fields struct{ node, service, create, task []string }

func newFields() fields {
	return fields{
		node: []string{"blocks", "flaps"}, service: []string{"update_status", "job_status"},
		create: []string{"service_id", "spec_version", "decided"}, task: []string{"decided"},
	}
}

// plan collects what has changed, in the order in which it was decided.
func (w *work) plan() Plan {
	p := Plan{More: w.full(), Wake: w.wake}
	for _, g := range w.book.Groups {
		p.Wake = w.earlier(p.Wake, g.Wake)
	}
	f := newFields()
	p.Puts = make([]*storev1.Put, 0, len(w.changes))
	for i := range w.changes {
		c := &w.changes[i]
		switch {
		case c.is == nil && c.put != nil: // made and taken back within this plan
		case c.is == nil:
			p.Deletes = append(p.Deletes, &storev1.Delete{Kind: c.key.Kind, Id: c.key.ID})
		case c.put != nil:
			c.put.Create, c.put.Fields = true, f.create
			p.Puts = append(p.Puts, c.put)
		case c.key.Kind == typesv1.Kind_KIND_NODE:
			p.Puts = append(p.Puts, &storev1.Put{Object: c.is, Fields: f.node})
		case c.key.Kind == typesv1.Kind_KIND_SERVICE:
			p.Puts = append(p.Puts, &storev1.Put{Object: c.is, Fields: f.service})
		default:
			p.Puts = append(p.Puts, &storev1.Put{Object: c.is, Fields: f.task})
		}
	}
	if p.Empty() {
		return p
	}
	for _, key := range w.resting {
		p.Preconditions = append(p.Preconditions, &storev1.Precondition{Condition: &storev1.Precondition_Unchanged{
			Unchanged: &storev1.Unchanged{Kind: key.Kind, Id: key.ID, Revision: state.MetaOf(w.s.Get(key)).GetRevision()},
		}})
	}
	return p
}
