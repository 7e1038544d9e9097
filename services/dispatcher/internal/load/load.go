// Package load tells the scheduler what the tasks of this dispatcher's machines use, and how many connections those machines
// lead to services.
//
// It owns this dispatcher's Load object: the sum for each service that scales by its load, over the machines whose session is
// here, so that no task is counted twice. It writes when a figure has changed materially, at most every 10 s, and now and
// then when nothing has, so that figures that hold can be told from those of a dispatcher that is gone: what it writes grows
// neither with machines nor with services that do not scale. One goroutine (Run) owns the writing; Report may be called from
// any.
package load

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// pace is the least time between two writes.
	pace   = 10 * time.Second
	jitter = 0.1
	// life is how many looks a machine's report counts.
	life = 3
	// renewal is after how many looks figures are written again that have not changed; well within state.LoadLife.
	renewal = 3
	// forgotten is the age at which the Load of a dispatcher that is gone is removed.
	forgotten = time.Hour
	// maxTasks and maxServices are the protocol's, and maxSum keeps sums from what an agent makes up.
	maxTasks    = 1000
	maxServices = 1000
	maxSum      = 1 << 50
	// A figure that differs by more than a twentieth has changed, and by more than what is noise in any case.
	material         = 20
	noiseCPUs        = 10_000_000
	noiseMemory      = 4 << 20
	noiseConnections = 500
)

// View is the replica.
type View interface{ Snapshot() *state.Snapshot }

// Keeper keeps this dispatcher's Load.
type Keeper struct {
	self   string // machine id
	env    run.Env
	log    *slog.Logger
	view   View
	commit *commit.Committer
	quiet  int // looks since the last write

	mu      sync.Mutex // guards reports
	reports map[string]*report
}

// report is what one machine told last.
type report struct {
	age      int // in looks
	tasks    map[string]*dispatcherv1.TaskUsage
	services map[string]int64 // thousandths of connections a second; nil: they were not counted
}

// New makes one.
func New(self string, env run.Env, view View, c *commit.Committer) *Keeper {
	return &Keeper{self: self, env: env, log: env.Log, view: view, commit: c, reports: map[string]*report{}}
}

// Report takes what a machine tells. It is refused (Invalid) when it is larger than the protocol allows.
func (k *Keeper) Report(node string, r *dispatcherv1.UsageReport) error {
	if len(r.GetTasks()) > maxTasks {
		return errs.New(errs.Invalid, "usage report: %d tasks, at most %d", len(r.GetTasks()), maxTasks)
	}
	if len(r.GetServices()) > maxServices {
		return errs.New(errs.Invalid, "usage report: %d services, at most %d", len(r.GetServices()), maxServices)
	}
	next := &report{tasks: make(map[string]*dispatcherv1.TaskUsage, len(r.GetTasks()))}
	for _, t := range r.GetTasks() {
		next.tasks[t.GetTaskId()] = t
	}
	if r.GetCounted() {
		next.services = make(map[string]int64, len(r.GetServices()))
		for _, s := range r.GetServices() {
			next.services[s.GetServiceId()] = s.GetMilliConnections()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reports[node] = next
	return nil
}

// Run looks every 10 s until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for run.Sleep(ctx, k.env.Rand.Jitter(pace, jitter)) == nil {
		k.look(ctx)
	}
	return nil
}

func (k *Keeper) look(ctx context.Context) {
	s := k.view.Snapshot()
	is := k.sum(s)
	was := s.Load(k.self)
	tx := &storev1.Transaction{}
	k.quiet++
	if changed(was.GetServices(), is) || len(is) > 0 && k.quiet >= renewal {
		o := state.Wrap(&typesv1.Load{Meta: &typesv1.Meta{Id: k.self}, Services: is})
		put := commit.Put(o, "services")
		put.Create = was == nil
		tx.Puts = append(tx.Puts, put)
	}
	for l := range s.Loads() {
		id := l.GetMeta().GetId()
		if id != k.self && s.ClusterTime().Sub(l.GetMeta().GetUpdatedAt().AsTime()) > forgotten {
			tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_LOAD, Id: id})
		}
	}
	if len(tx.GetPuts()) == 0 && len(tx.GetDeletes()) == 0 {
		return
	}
	if _, err := k.commit.Do(ctx, tx); err != nil {
		k.log.Warn("load not written, trying again", "error", err)
		return
	}
	k.quiet = 0
}

// sum adds up what counts now, by service in the order of ids.
func (k *Keeper) sum(s *state.Snapshot) (out []*typesv1.ServiceLoad) {
	k.mu.Lock()
	defer k.mu.Unlock()
	sums := sums{}
	machines := uint64(0)
	for node, r := range k.reports {
		if r.age++; r.age > life {
			delete(k.reports, node)
			continue
		}
		status := s.Node(node).GetStatus()
		if status.GetSession().GetDispatcherId() != k.self || status.GetState() != typesv1.NodeState_NODE_STATE_READY {
			continue // another dispatcher tells, or nobody knows
		}
		for id, u := range r.tasks {
			sums.use(s, node, id, u)
		}
		if r.services != nil {
			machines++
		}
		for id, n := range r.services {
			sums.lead(s, id, n)
		}
	}
	sums.count(s, machines)
	for _, l := range sums {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *typesv1.ServiceLoad) int { return strings.Compare(a.GetServiceId(), b.GetServiceId()) })
	return out
}

// sums are the figures of services that scale by their load.
type sums map[string]*typesv1.ServiceLoad

func (x sums) of(id string) *typesv1.ServiceLoad {
	if x[id] == nil {
		x[id] = &typesv1.ServiceLoad{ServiceId: id}
	}
	return x[id]
}

// use counts a task if its service scales by its load and it is one of those that are to run.
func (x sums) use(s *state.Snapshot, node, id string, u *dispatcherv1.TaskUsage) {
	t := s.Task(id)
	if s.Service(t.GetServiceId()).GetSpec().GetAutoscale() == nil || t.GetDecided().GetNodeId() != node ||
		state.DesiredState(t) > typesv1.TaskState_TASK_STATE_RUNNING || t.GetObserved().GetState() != typesv1.TaskState_TASK_STATE_RUNNING {
		return
	}
	l := x.of(t.GetServiceId())
	l.Tasks++
	l.NanoCpus = plus(l.GetNanoCpus(), u.GetNanoCpus())
	l.MemoryBytes = plus(l.GetMemoryBytes(), u.GetMemoryBytes())
}

// lead counts connections if their service scales by them.
func (x sums) lead(s *state.Snapshot, id string, connections int64) {
	if s.Service(id).GetSpec().GetAutoscale().GetConnections() > 0 {
		l := x.of(id)
		l.MilliConnections = plus(l.GetMilliConnections(), connections)
	}
}

// count says of each service that scales by connections how many machines have counted: one to which none was led has a
// figure too.
func (x sums) count(s *state.Snapshot, machines uint64) {
	if machines == 0 {
		return
	}
	for svc := range s.Services() {
		if svc.GetSpec().GetAutoscale().GetConnections() > 0 {
			x.of(svc.GetMeta().GetId()).Machines = machines
		}
	}
}

func plus(sum, n int64) int64 { return min(sum+min(max(n, 0), maxSum), maxSum) }

// changed reports whether it is worth writing.
func changed(was, is []*typesv1.ServiceLoad) bool {
	return !slices.EqualFunc(was, is, func(a, b *typesv1.ServiceLoad) bool {
		return a.GetServiceId() == b.GetServiceId() && a.GetTasks() == b.GetTasks() && a.GetMachines() == b.GetMachines() &&
			near(a.GetMilliConnections(), b.GetMilliConnections(), noiseConnections) &&
			near(a.GetNanoCpus(), b.GetNanoCpus(), noiseCPUs) && near(a.GetMemoryBytes(), b.GetMemoryBytes(), noiseMemory)
	})
}

func near(a, b, noise int64) bool {
	d := max(a-b, b-a)
	return d <= noise || d <= max(a, b)/material
}
