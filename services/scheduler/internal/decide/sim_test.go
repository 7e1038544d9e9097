package decide_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// sim is a store and agents in a few lines: it applies plans as the store would, and complains where the store, an agent
// or a person would.
type sim struct {
	s   *state.Snapshot
	now time.Time
	ids int
	// decider goes along from snapshot to snapshot; it must decide as one that starts from nothing.
	decider *decide.Decider
	// lease counts the schedulers that have led, others are the plans of those that have not committed theirs.
	lease  int
	others map[string]fenced
	rounds int // of the last converge
	fault  func(format string, args ...any)
}

// fatal is what a sim needs of a test.
type fatal interface {
	Fatalf(format string, args ...any)
}

func newSim(t fatal) *sim {
	m := &sim{s: state.Empty(), now: start(), fault: t.Fatalf, decider: decide.NewDecider(decide.Batch), others: map[string]fenced{}}
	m.change(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster"}, Spec: &typesv1.ClusterSpec{TaskHistoryLimit: 5}}))
	return m
}

func start() time.Time { return time.Unix(1_000_000_000, 0).UTC() }

func (m *sim) newID() string { m.ids++; return fmt.Sprintf("t%05d", m.ids) }

// change writes objects as their owners would.
func (m *sim) change(objects ...*typesv1.Object) {
	txn := m.s.Begin()
	v := m.s.Version()
	v.EpochNumber, v.Revision = 1, v.Revision+1
	for _, o := range objects {
		meta := state.MetaOf(o)
		if meta.GetCreatedAt() == nil {
			meta.CreatedAt = timestamppb.New(m.now)
		}
		meta.UpdatedAt, meta.Revision = timestamppb.New(m.now), v.Revision
		txn.Put(o)
	}
	if c := txn.Clashes(); len(c) > 0 {
		m.fault("two hold %s: %s and %s", c[0].Claim, c[0].First, c[0].Second)
	}
	m.s = txn.Commit(v, m.now)
}

func (m *sim) delete(kind typesv1.Kind, id string) {
	txn := m.s.Begin()
	txn.Delete(state.Key{Kind: kind, ID: id})
	v := m.s.Version()
	v.Revision++
	m.s = txn.Commit(v, m.now)
}

// decide makes and applies plans until the batch is not full, and tells what they did.
func (m *sim) decide() (lines []string, wake time.Time) {
	for range 200 {
		p := m.plan()
		lines = append(lines, m.apply(p)...)
		if !p.More {
			again := m.plan()
			if !again.Empty() {
				m.fault("a second decision at once does more: puts %v deletes %v; before it\n%s", again.Puts, again.Deletes, strings.Join(lines, "\n"))
			}
			m.sayWhy()
			return lines, again.Wake
		}
	}
	m.fault("the batch stays full")
	return nil, time.Time{}
}

// plan is the next plan, which must be the same with and without what the decider remembers.
func (m *sim) plan() decide.Plan {
	ids := m.ids
	scratch := decide.Decide(m.s, m.now, m.newID)
	m.ids = ids
	p := m.decider.Decide(m.s, m.now, m.newID)
	if diff := differ(scratch, p); diff != "" {
		m.fault("the plan depends on what was decided before: %s", diff)
	}
	return p
}

func differ(a, b decide.Plan) string {
	x, y := &storev1.Transaction{Preconditions: a.Preconditions, Puts: a.Puts, Deletes: a.Deletes},
		&storev1.Transaction{Preconditions: b.Preconditions, Puts: b.Puts, Deletes: b.Deletes}
	switch {
	case !proto.Equal(x, y):
		return fmt.Sprintf("from nothing %v\nwith memory %v", x, y)
	case a.More != b.More || !a.More && a.Empty() && !a.Wake.Equal(b.Wake):
		return fmt.Sprintf("from nothing more %v, wake %s; with memory more %v, wake %s", a.More, a.Wake, b.More, b.Wake)
	}
	return ""
}

// fenced is a plan with the lease under which it was made.
type fenced struct {
	plan  decide.Plan
	lease int
}

// other lets further schedulers take the lead, think, and commit late. The fence is added by the loop around decide, and checked
// by the store in log order.
func (m *sim) other(out *strings.Builder, name, does string) {
	switch does {
	case "leads":
		m.lease++
	case "thinks":
		m.others[name] = fenced{decide.Decide(m.s, m.now, m.newID), m.lease}
	case "commits":
		if m.others[name].lease != m.lease {
			fmt.Fprintln(out, "refused: another scheduler leads")
			return
		}
		m.print(out, m.apply(m.others[name].plan), time.Time{})
	default:
		m.fault("no scheduler %s", does)
	}
}

func (m *sim) apply(p decide.Plan) []string {
	for _, c := range p.Preconditions {
		u := c.GetUnchanged()
		if got := state.MetaOf(m.s.Get(state.Key{Kind: u.GetKind(), ID: u.GetId()})).GetRevision(); got != u.GetRevision() {
			m.fault("precondition on %v, revision %d", u, got)
		}
	}
	if n := len(p.Puts) + len(p.Deletes); n > decide.Batch+20 {
		m.fault("%d changes in one plan", n)
	}
	var lines []string
	var objects []*typesv1.Object
	for _, put := range p.Puts {
		key := state.KeyOf(put.GetObject())
		was := m.s.Get(key)
		if put.GetCreate() != (was == nil) {
			m.fault("create %v of %s", put.GetCreate(), key)
		}
		if t := put.GetObject().GetTask(); t != nil && t.GetDecided().GetDesired() < was.GetTask().GetDecided().GetDesired() {
			m.fault("desired of %s falls", key)
		}
		lines = append(lines, m.describe(was, put.GetObject())...)
		objects = append(objects, state.Wrap(proto.Clone(state.Unwrap(put.GetObject()))))
	}
	for _, d := range p.Deletes {
		lines = append(lines, "delete "+m.taskName(m.s.Task(d.GetId())))
		m.delete(d.GetKind(), d.GetId())
	}
	if len(objects) > 0 {
		m.change(objects...)
	}
	slices.SortStableFunc(lines, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return lines
}

// rank puts what goes before what comes.
func rank(line string) int {
	verb, _, _ := strings.Cut(line, " ")
	return slices.Index([]string{"block", "flaps", "depends", "abandon", "shutdown", "remove", "delete", "rest", "volume", "create", "bind", "run", "watch", "keep", "wait", "update", "job", "even"}, verb)
}

func (m *sim) taskName(t *typesv1.Task) string {
	name := t.GetServiceId()
	if run := t.GetDecided().GetIteration(); run > 1 {
		name = fmt.Sprintf("%s@%d", name, run)
	}
	if node := t.GetDecided().GetForNode(); node != "" {
		return name + "." + node
	}
	return fmt.Sprintf("%s.%d", name, t.GetDecided().GetSlot())
}

// describe writes what a put does in a person's words.
func (m *sim) describe(was, is *typesv1.Object) []string {
	if n := is.GetNetwork(); n != nil {
		var fresh []string
		for _, r := range n.GetResting() {
			if !slices.ContainsFunc(was.GetNetwork().GetResting(), func(x *typesv1.RestingAddress) bool { return proto.Equal(x, r) }) {
				fresh = append(fresh, r.GetAddress())
			}
		}
		return []string{fmt.Sprintf("rest     %s %s", n.GetMeta().GetId(), strings.Join(fresh, " "))}
	}
	if n := is.GetNode(); n != nil && len(n.GetBlocks()) > len(was.GetNode().GetBlocks()) {
		return []string{fmt.Sprintf("block %s %s", n.GetMeta().GetId(), strings.Join(n.GetBlocks()[len(was.GetNode().GetBlocks()):], " "))}
	}
	if n := is.GetNode(); n != nil {
		return []string{fmt.Sprintf("flaps %s count=%d hold=%s", n.GetMeta().GetId(), n.GetFlaps().GetCount(), m.since(n.GetFlaps().GetHoldUntil()))}
	}
	if v := is.GetVolume(); v != nil {
		if was != nil {
			return nil
		}
		return []string{fmt.Sprintf("volume   %s node=%s", v.GetMeta().GetId(), v.GetNodeId())}
	}
	if s := is.GetService(); s != nil {
		return m.describeService(was.GetService(), s)
	}
	before, after := was.GetTask().GetDecided(), is.GetTask().GetDecided()
	name := m.taskName(is.GetTask())
	switch {
	case was == nil:
		return []string{"create   " + name + placeOf(is.GetTask())}
	case after.GetAbandoned() && !before.GetAbandoned():
		return []string{fmt.Sprintf("abandon  %s (%s)", name, after.GetReason())}
	case after.GetDesired() > before.GetDesired() && after.GetDesired() > typesv1.TaskState_TASK_STATE_RUNNING:
		verb := map[typesv1.TaskState]string{typesv1.TaskState_TASK_STATE_SHUTDOWN: "shutdown", typesv1.TaskState_TASK_STATE_REMOVE: "remove  "}
		return []string{fmt.Sprintf("%s %s (%s)", verb[after.GetDesired()], name, after.GetReason())}
	case after.GetNodeId() != before.GetNodeId():
		return []string{"bind     " + name + placeOf(is.GetTask())}
	case after.GetDesired() > before.GetDesired():
		return []string{"run      " + name}
	}
	switch {
	case before.GetAbandoned() && !after.GetAbandoned():
		return []string{"keep     " + name}
	case before.GetRunningAt() == nil && after.GetRunningAt() != nil:
		return []string{"watch    " + name}
	}
	return []string{fmt.Sprintf("wait     %s reason=%q", name, after.GetReason())}
}

func (m *sim) describeService(was, s *typesv1.Service) (lines []string) {
	id := s.GetMeta().GetId()
	if d := s.GetDependencyStatus(); !proto.Equal(d, was.GetDependencyStatus()) {
		lines = append(lines, fmt.Sprintf("depends  %s met=%v", id, d.GetMetAt() != nil))
	}
	if !proto.Equal(s.GetScale(), was.GetScale()) {
		lines = append(lines, m.describeScale(id, was.GetScale(), s.GetScale()))
	}
	if j := s.GetJobStatus(); !proto.Equal(j, was.GetJobStatus()) {
		lines = append(lines, fmt.Sprintf("job %s run=%d %s (%s)", id, j.GetIteration(),
			strings.ToLower(strings.TrimPrefix(j.GetState().String(), "JOB_STATE_")), j.GetMessage()))
	}
	if b := s.GetRebalanceStatus(); !proto.Equal(b, was.GetRebalanceStatus()) {
		lines = append(lines, fmt.Sprintf("even     %s %s (%s)", id,
			strings.ToLower(strings.TrimPrefix(b.GetState().String(), "REBALANCE_STATE_")), b.GetMessage()))
	}
	if u := s.GetUpdateStatus(); !proto.Equal(u, was.GetUpdateStatus()) {
		state := strings.ToLower(strings.TrimPrefix(u.GetState().String(), "UPDATE_STATE_"))
		line := fmt.Sprintf("update %s %s version=%d", id, state, u.GetSpecVersion())
		if strings.Contains(state, "paused") || strings.HasPrefix(state, "rollback") {
			line += " (" + u.GetMessage() + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

// since is a time as the scripts tell it.
func (m *sim) since(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return t.AsTime().Sub(start()).String()
}

func placeOf(t *typesv1.Task) string {
	var b strings.Builder
	if n := t.GetDecided().GetNodeId(); n != "" {
		b.WriteString(" node=" + n)
	}
	if t.GetSpecVersion() > 1 {
		fmt.Fprintf(&b, " version=%d", t.GetSpecVersion())
	}
	for _, p := range t.GetDecided().GetHostPorts() {
		fmt.Fprintf(&b, " port=%d", p.GetPublishedPort())
	}
	for _, a := range t.GetDecided().GetAddresses() {
		b.WriteString(" " + strings.Join(a.GetAddresses(), ","))
	}
	if t.GetDecided().GetDesired() == typesv1.TaskState_TASK_STATE_READY {
		b.WriteString(" desired=ready")
	}
	if r := t.GetDecided().GetReason(); r != "" {
		fmt.Fprintf(&b, " reason=%q", r)
	}
	return b.String()
}

// observe reports a task's state as its agent would. It only rises.
func (m *sim) observe(t *typesv1.Task, s typesv1.TaskState, exit *int32, message string) {
	if t == nil {
		m.fault("no such task to observe")
	}
	if s < t.GetObserved().GetState() {
		m.fault("observed of %s falls to %v", t.GetMeta().GetId(), s)
	}
	next := proto.CloneOf(t)
	next.Observed = &typesv1.TaskObserved{State: s, Seq: t.GetObserved().GetSeq() + 1, ExitCode: exit, Message: message,
		Ready: s == typesv1.TaskState_TASK_STATE_RUNNING}
	m.change(state.Wrap(next))
}

// settle lets the agents of all nodes that are in session do what is desired of them.
func (m *sim) settle() (changed bool) {
	for _, t := range slices.Collect(m.s.Tasks()) {
		n := m.s.Node(t.GetDecided().GetNodeId())
		observed, desired := t.GetObserved().GetState(), t.GetDecided().GetDesired()
		if n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY || state.Terminal(observed) {
			continue
		}
		if desired > typesv1.TaskState_TASK_STATE_RUNNING {
			desired = typesv1.TaskState_TASK_STATE_SHUTDOWN
		}
		if observed < desired {
			m.observe(t, desired, nil, "")
			changed = true
		}
	}
	return changed
}

// converge lets scheduler and agents work until nothing changes, through deadlines too if there are any until the limit.
func (m *sim) converge(limit time.Time) (lines []string) {
	for m.rounds = 0; m.rounds < 10_000; m.rounds++ {
		did, wake := m.decide()
		lines = append(lines, did...)
		if m.settle() || len(did) > 0 {
			continue
		}
		if wake.IsZero() || wake.After(limit) {
			return lines
		}
		m.now = wake
	}
	m.fault("no convergence")
	return nil
}

// slot lists the tasks of a slot, newest first.
func (m *sim) slot(service string, slot uint64) []*typesv1.Task {
	tasks := slices.Collect(m.s.TasksOfSlot(service, slot))
	slices.Reverse(tasks) // ids count up
	return tasks
}

// spread is the number of wanted tasks of a service on each node that is ready and active.
func (m *sim) spread(service string) map[string]int {
	out := map[string]int{}
	for n := range m.s.Nodes() {
		if n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_READY && n.GetSpec().GetAvailability() == typesv1.Availability_AVAILABILITY_ACTIVE {
			out[n.GetMeta().GetId()] = 0
		}
	}
	for t := range m.s.TasksOfService(service) {
		if t.GetDecided().GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING {
			out[t.GetDecided().GetNodeId()]++
		}
	}
	return out
}
