package decide_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// TestDay lets the decision run a cluster through a time of deploys, failures, drains and upgrades, and checks at each step
// that nothing is over-committed, nothing goes where it may not, and desired states only rise. In the end all runs. It is
// small in `make test`; `make bench-scheduler` runs a day of 10,000 nodes and draws it.
func TestDay(t *testing.T) {
	used := cpu()
	d := newDay(t, *nodesFlag, 1)
	d.plan(*dayFlag)
	d.run(start().Add(*dayFlag))
	d.settleDown(2*time.Hour + 7*time.Minute) // not when the job has just begun
	d.draw(*figuresFlag)
	t.Logf("%s of %d nodes in %s of CPU: %d decisions, %d of them with a plan; %d tasks made, %d at the end; %v", *dayFlag, *nodesFlag,
		(cpu() - used).Round(10*time.Millisecond), d.decisions, d.plans, d.made, d.s.Count(typesv1.Kind_KIND_TASK), d.told)
}

// day is a cluster that lives in virtual time. Agents and people are events; what comes within a tick is one change.
type day struct {
	t       *testing.T
	rand    *rand.Rand
	s       *state.Snapshot
	now     time.Time
	decider *decide.Decider
	newID   func() string
	events  events
	txn     *state.Txn // open while something changes
	dayAudit
	dayFigures
}

// tick is the time within which changes are gathered.
const tick = 200 * time.Millisecond

type event struct {
	at time.Time
	nr int // the order of those at the same time
	do func()
}

type events struct {
	list []event
	made int
}

func (q *events) Len() int { return len(q.list) }
func (q *events) Less(i, j int) bool {
	c := q.list[i].at.Compare(q.list[j].at)
	return c < 0 || c == 0 && q.list[i].nr < q.list[j].nr
}
func (q *events) Swap(i, j int) { q.list[i], q.list[j] = q.list[j], q.list[i] }
func (q *events) Push(x any)    { q.list = append(q.list, x.(event)) } //nolint:forcetypeassert // heap's interface
func (q *events) Pop() any {
	last := q.list[len(q.list)-1]
	q.list = q.list[:len(q.list)-1]
	return last
}

// in does something later.
func (d *day) in(after time.Duration, do func()) {
	d.events.made++
	heap.Push(&d.events, event{d.now.Add(after), d.events.made, do})
}

func newDay(t *testing.T, nodes int, seed uint64) *day {
	d := &day{t: t, rand: rand.New(rand.NewPCG(seed, 0)), now: start(), decider: decide.NewDecider(decide.Batch), newID: ids(),
		dayAudit:   dayAudit{used: map[string]int64{}, holds: map[string]int64{}},
		dayFigures: dayFigures{told: map[string]int{}, waiting: map[string]struct{}{}}}
	d.s = shape{nodes: nodes}.snapshot()
	return d
}

// put changes one object within the change that is open.
func (d *day) put(o *typesv1.Object) {
	if d.txn == nil {
		d.txn = d.s.Begin()
	}
	meta := state.MetaOf(o)
	if meta.GetCreatedAt() == nil {
		meta.CreatedAt = timestamppb.New(d.now)
	}
	meta.UpdatedAt, meta.Revision = timestamppb.New(d.now), d.s.Version().Revision+1
	d.txn.Put(o)
}

func (d *day) commit() {
	if d.txn == nil {
		return
	}
	v := d.s.Version()
	v.Revision++
	d.s, d.txn = d.txn.Commit(v, d.now), nil
}

// run lets everything happen until a time.
func (d *day) run(until time.Time) {
	for d.now.Before(until) {
		for d.events.Len() > 0 && !d.events.list[0].at.After(d.now) {
			heap.Pop(&d.events).(event).do() //nolint:forcetypeassert // as above
			d.commit()
		}
		wake := d.decide()
		next := until
		if d.events.Len() > 0 && d.events.list[0].at.Before(next) {
			next = d.events.list[0].at
		}
		if !wake.IsZero() && wake.Before(next) {
			next = wake
		}
		d.now = slices.MaxFunc([]time.Time{next, d.now.Add(tick)}, time.Time.Compare)
	}
}

// decide commits plans until there is nothing more to do, and returns the next deadline.
func (d *day) decide() time.Time {
	for {
		d.decisions++
		p := d.decider.Decide(d.s, d.now, d.newID)
		if p.Empty() {
			if !p.More {
				return p.Wake
			}
			d.t.Fatal("an empty plan says that there is more to do")
		}
		d.plans++
		d.check(p)
		for _, put := range p.Puts {
			o := proto.CloneOf(put.GetObject())
			d.put(o)
			if task := o.GetTask(); task != nil {
				d.note(task)
				d.obey(task)
			}
		}
		if d.txn == nil {
			d.txn = d.s.Begin()
		}
		for _, x := range p.Deletes {
			d.free(x.GetId())
			delete(d.waiting, x.GetId())
			d.txn.Delete(state.Key{Kind: x.GetKind(), ID: x.GetId()})
		}
		d.commit()
		if !p.More && d.plans%200 == 0 {
			if again := d.decider.Decide(d.s, d.now, d.newID); !again.Empty() {
				d.t.Fatalf("a second decision does more: %v %v", again.Puts, again.Deletes)
			}
		}
	}
}

// obey lets a task's agent do what is desired, a little later.
func (d *day) obey(t *typesv1.Task) {
	if t.GetDecided().GetNodeId() == "" || state.Terminal(t.GetObserved().GetState()) || t.GetObserved().GetState() >= told(t) {
		return
	}
	id := t.GetMeta().GetId()
	d.in(200*time.Millisecond+time.Duration(d.rand.IntN(1800))*time.Millisecond, func() {
		if t := d.s.Task(id); d.reachable(t) && t.GetObserved().GetState() < told(t) {
			d.observe(t, told(t))
			d.complete(t)
		}
	})
}

// complete lets the task of a job come to its end.
func (d *day) complete(t *typesv1.Task) {
	if told(t) == typesv1.TaskState_TASK_STATE_RUNNING && state.IsJob(d.s.Service(t.GetServiceId())) {
		id := t.GetMeta().GetId()
		d.in(time.Duration(10+d.rand.IntN(50))*time.Second, func() {
			if t := d.s.Task(id); d.reachable(t) {
				d.observe(t, typesv1.TaskState_TASK_STATE_COMPLETE)
			}
		})
	}
}

func (d *day) reachable(t *typesv1.Task) bool {
	return t != nil && !state.Terminal(t.GetObserved().GetState()) &&
		d.s.Node(t.GetDecided().GetNodeId()).GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY
}

func (d *day) observe(t *typesv1.Task, s typesv1.TaskState) {
	next := &typesv1.Task{Meta: proto.CloneOf(t.GetMeta()), ServiceId: t.GetServiceId(), SpecVersion: t.GetSpecVersion(), Decided: t.GetDecided(),
		Observed: &typesv1.TaskObserved{State: s, Seq: t.GetObserved().GetSeq() + 1, Ready: s == typesv1.TaskState_TASK_STATE_RUNNING}}
	if s == typesv1.TaskState_TASK_STATE_FAILED {
		next.Observed.ExitCode = proto.Int32(1)
	}
	if state.Terminal(s) {
		d.free(t.GetMeta().GetId())
	}
	d.put(state.Wrap(next))
	d.note(next)
}

// settleDown lets no more trouble come, and wants everything to run.
func (d *day) settleDown(within time.Duration) {
	d.over = true
	d.run(d.now.Add(within))
	if len(d.waiting) > 0 {
		for id := range d.waiting {
			d.t.Fatalf("%d tasks do not run in the end, one of them: %v", len(d.waiting), d.s.Task(id))
		}
	}
	for svc := range d.s.Services() {
		if have, want := state.Counts(d.s, svc.GetMeta().GetId()); have != want && !state.IsJob(svc) {
			d.t.Errorf("%s has %d of %d", svc.GetSpec().GetAnnotations().GetName(), have, want)
		}
	}
	if diff := differ(decide.Decide(d.s, d.now, ids()), d.decider.Decide(d.s, d.now, ids())); diff != "" {
		d.t.Errorf("the decision depends on the past: %s", diff)
	}
}

// dayAudit is what must hold at each step.
type dayAudit struct {
	used      map[string]int64 // memory reserved, by node
	holds     map[string]int64 // and by task
	decisions int
	plans     int
	over      bool // no more trouble
}

// check looks at a plan before it is committed.
func (d *day) check(p decide.Plan) {
	for _, put := range p.Puts {
		t := put.GetObject().GetTask()
		if t == nil {
			continue
		}
		id, node := t.GetMeta().GetId(), t.GetDecided().GetNodeId()
		was := d.s.Task(id)
		if t.GetDecided().GetDesired() < was.GetDecided().GetDesired() {
			d.t.Fatalf("desired of %s falls", id)
		}
		if node == was.GetDecided().GetNodeId() {
			continue
		}
		n := d.s.Node(node)
		if was.GetDecided().GetNodeId() != "" || n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY ||
			n.GetSpec().GetAvailability() != typesv1.Availability_AVAILABILITY_ACTIVE {
			d.t.Fatalf("task %s goes from %q to %v", id, was.GetDecided().GetNodeId(), n)
		}
		d.holds[id] = t.GetDecided().GetReserved().GetMemoryBytes()
		if d.used[node] += d.holds[id]; d.used[node] > n.GetStatus().GetDescription().GetMemoryBytes() {
			d.t.Fatalf("node %s holds %d bytes", node, d.used[node])
		}
	}
}

// free gives back what a task held.
func (d *day) free(id string) {
	if held, ok := d.holds[id]; ok {
		d.used[d.s.Task(id).GetDecided().GetNodeId()] -= held
		delete(d.holds, id)
	}
}

func (d *day) String() string { return fmt.Sprintf("%s after the start", d.now.Sub(start())) }
