// Package decide is the scheduler's decision: from a snapshot and the cluster time to the writes that bring the cluster
// nearer to what people want.
//
// It owns the rules: which slots there are, which task fills each, on which node and with which addresses, when it starts
// and stops, and which words say why it does not run. It is pure: no I/O, no clock, no goroutine; time and new ids are
// arguments, and equal arguments give equal plans. It must never rest on anything but the snapshot: what one plan needs to
// know of an earlier one is in the objects.
package decide

import (
	"maps"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Batch bounds the objects that one plan changes, so that a transaction stays small and others get their turn.
const Batch = 200

// Plan is one transaction without its fence, and when to decide again if nothing changes before.
type Plan struct {
	// Preconditions are what the decision rests on where it matters: nodes and services of new tasks, lost nodes.
	Preconditions []*storev1.Precondition
	Puts          []*storev1.Put
	Deletes       []*storev1.Delete
	// Wake is the cluster time of the next deadline; zero when there is none.
	Wake time.Time
	// More says that the batch is full and there is more to do once it is committed.
	More bool
}

// Empty reports whether there is nothing to commit.
func (p Plan) Empty() bool { return len(p.Puts) == 0 && len(p.Deletes) == 0 }

// Decide makes the next plan. Now is the cluster time; newID gives ids for new tasks.
func Decide(s *state.Snapshot, now time.Time, newID func() string) Plan {
	w := newWork(s, now, newID)
	// Step 1: blocks first, for tasks get addresses from them in the same plan.
	w.giveBlocks()
	// Step 2: each service, in the order of ids. A full batch ends between two slots, never within one.
	for svc := range s.Services() {
		if w.full() {
			break
		}
		w.reconcile(svc)
	}
	// Step 3: what belongs to no service any more.
	for _, id := range slices.Sorted(maps.Keys(w.services)) {
		if s.Service(id) == nil && !w.full() {
			w.removeAll(w.services[id], "its service was removed")
		}
	}
	return w.plan()
}

// work is one decision under way: a transaction on the snapshot that later rules read, and what it has touched.
type work struct {
	now   time.Time
	old   *state.Snapshot
	txn   *state.Txn
	newID func() string

	nodes    map[string]*nodeInfo
	order    []*nodeInfo // by id
	services map[string]*group
	pools    *pools
	hopeless map[specKey]string // why no node takes a task of this spec

	changed map[state.Key]struct{}
	rests   map[state.Key]struct{} // objects that must be unchanged
	wake    time.Time
}

func newWork(s *state.Snapshot, now time.Time, newID func() string) *work {
	w := &work{
		now: now, old: s, txn: s.Begin(), newID: newID,
		nodes: map[string]*nodeInfo{}, services: map[string]*group{}, pools: newPools(), hopeless: map[specKey]string{},
		changed: map[state.Key]struct{}{}, rests: map[state.Key]struct{}{},
	}
	for n := range s.Nodes() {
		info := newNodeInfo(n)
		w.nodes[n.GetMeta().GetId()] = info
		w.order = append(w.order, info)
	}
	for t := range s.Tasks() {
		w.group(t.GetServiceId()).add(t)
		w.account(t, 1)
		w.noteFailure(t)
		w.pools.note(t)
	}
	for _, g := range w.services {
		g.sort()
	}
	return w
}

func (w *work) group(service string) *group {
	g := w.services[service]
	if g == nil {
		g = &group{service: service, slots: map[uint64]*slot{}}
		w.services[service] = g
	}
	return g
}

func (w *work) full() bool { return len(w.changed) >= Batch }

// at asks for another decision at that cluster time, if it is to come.
func (w *work) at(t time.Time) {
	if t.After(w.now) && (w.wake.IsZero() || t.Before(w.wake)) {
		w.wake = t
	}
}

// put records a change of an object.
func (w *work) put(o *typesv1.Object) {
	w.txn.Put(o)
	w.changed[state.KeyOf(o)] = struct{}{}
}

// restOn asks that an object is unchanged when the plan is applied.
func (w *work) restOn(kind typesv1.Kind, id string) {
	w.rests[state.Key{Kind: kind, ID: id}] = struct{}{}
}

// plan collects what has changed.
func (w *work) plan() Plan {
	p := Plan{Wake: w.wake, More: w.full()}
	for _, key := range sortedKeys(w.changed) {
		was, is := w.old.Get(key), w.txn.Get(key)
		switch {
		case is == nil && was == nil: // made and taken back within this plan
		case is == nil:
			p.Deletes = append(p.Deletes, &storev1.Delete{Kind: key.Kind, Id: key.ID})
		default:
			p.Puts = append(p.Puts, &storev1.Put{Object: is, Create: was == nil, Fields: fieldsOf(key.Kind, was == nil)})
		}
	}
	if p.Empty() {
		return p
	}
	for _, key := range sortedKeys(w.rests) {
		p.Preconditions = append(p.Preconditions, &storev1.Precondition{Condition: &storev1.Precondition_Unchanged{
			Unchanged: &storev1.Unchanged{Kind: key.Kind, Id: key.ID, Revision: state.MetaOf(w.old.Get(key)).GetRevision()},
		}})
	}
	return p
}

// fieldsOf are the fields that a scheduler may write.
func fieldsOf(kind typesv1.Kind, create bool) []string {
	switch {
	case kind == typesv1.Kind_KIND_NODE:
		return []string{"blocks"}
	case kind == typesv1.Kind_KIND_SERVICE:
		return []string{"update_status"}
	case create:
		return []string{"service_id", "spec_version", "decided"}
	}
	return []string{"decided"}
}

func sortedKeys(m map[state.Key]struct{}) []state.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b state.Key) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}
