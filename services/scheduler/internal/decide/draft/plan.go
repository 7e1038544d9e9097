package draft

import (
	"time"

	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

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

// fields are what a scheduler may write of each kind. They are made once a plan.
type fields struct{ node, service, create, task, volume, newVolume, network []string }

func newFields() fields {
	return fields{
		node: []string{"blocks", "flaps"}, service: []string{"update_status", "job_status", "dependency_status", "rebalance_status", "scale"},
		create: []string{"service_id", "spec_version", "decided"}, task: []string{"decided"},
		volume: []string{"task_id"}, newVolume: []string{"service", "slot", "source", "node_id", "incarnation", "task_id"},
		network: []string{"resting"},
	}
}

// Plan collects what has changed, in the order in which it was decided.
func (d *Draft) Plan() Plan {
	p := Plan{More: d.Full(), Wake: d.Book.Wake()}
	f, puts := newFields(), putPieces{}
	p.Puts = make([]*storev1.Put, 0, len(d.changes))
	for i := range d.changes {
		c := &d.changes[i]
		switch {
		case c.is == nil && c.put != nil: // made and taken back within this plan
		case c.key.Kind == typesv1.Kind_KIND_VOLUME:
			if put := d.volumePut(c, f); put != nil {
				p.Puts = append(p.Puts, put)
			}
		case c.is == nil:
			p.Deletes = append(p.Deletes, &storev1.Delete{Kind: c.key.Kind, Id: c.key.ID})
		case c.put != nil:
			c.put.Create, c.put.Fields = true, f.create
			p.Puts = append(p.Puts, c.put)
		case c.key.Kind == typesv1.Kind_KIND_NODE:
			p.Puts = append(p.Puts, puts.of(c.is, f.node, len(d.changes)-i))
		case c.key.Kind == typesv1.Kind_KIND_SERVICE:
			p.Puts = append(p.Puts, puts.of(c.is, f.service, len(d.changes)-i))
		case c.key.Kind == typesv1.Kind_KIND_NETWORK:
			p.Puts = append(p.Puts, puts.of(c.is, f.network, len(d.changes)-i))
		default:
			p.Puts = append(p.Puts, puts.of(c.is, f.task, len(d.changes)-i))
		}
	}
	if p.Empty() {
		return p
	}
	p.Preconditions = d.preconditions()
	return p
}

// putPieces are puts to be used, several in one piece of memory; left is how many may follow.
type putPieces []storev1.Put

func (x *putPieces) of(o *typesv1.Object, fields []string, left int) *storev1.Put {
	if len(*x) == 0 {
		*x = make([]storev1.Put, min(left, mostBlanks))
	}
	p := &(*x)[0]
	*x = (*x)[1:]
	p.Object, p.Fields = o, fields
	return p
}

// preconditions ask that all the plan rests on is unchanged. They lie in one piece of memory.
func (d *Draft) preconditions() []*storev1.Precondition {
	out := make([]*storev1.Precondition, len(d.resting))
	pieces := make([]struct {
		whole storev1.Precondition
		kind  storev1.Precondition_Unchanged
		on    storev1.Unchanged
	}, len(d.resting))
	for i, r := range d.resting {
		p := &pieces[i]
		p.on.Kind, p.on.Id, p.on.Revision = r.key.Kind, r.key.ID, r.revision
		p.kind.Unchanged, p.whole.Condition = &p.on, &p.kind
		out[i] = &p.whole
	}
	return out
}

// volumePut is how a change of a volume is written; nil when it was taken back. A volume is never removed by a decision.
func (d *Draft) volumePut(c *change, f fields) *storev1.Put {
	old := d.Snapshot().Volume(c.key.ID)
	switch {
	case c.is == nil || c.is.GetVolume() == old:
		return nil
	case old == nil:
		return &storev1.Put{Object: c.is, Create: true, Fields: f.newVolume}
	}
	return &storev1.Put{Object: c.is, Fields: f.volume}
}
