// Package status carries what machines report to the store, many machines in one commit.
//
// It owns the order "commit, then acknowledge": an agent forgets a status once it is acknowledged, and a forgotten status
// that never reached the store would leave its task starting for ever. Nothing is written when nothing changed. One
// goroutine (Run) owns the work; Add may be called from any and never waits for the store, for the same stream carries the
// heartbeats.
package status

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/failpoint"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	maxPuts    = 500   // a transaction; the store takes 1000
	maxPending = 10000 // statuses of one session that wait
	retryWait  = 200 * time.Millisecond
	catchUp    = time.Second
)

// Report is one batch of one session.
type Report struct {
	NodeID  string
	Session uint64
	Tasks   []*dispatcherv1.TaskStatus
	// Done acknowledges this batch and all before it of the session. It is called once they are in the store, and must
	// not block. Of batches that are merged the last one's is called.
	Done func()
}

// View is the replica that tells what the store holds already.
type View interface {
	Snapshot() *state.Snapshot
	WaitFor(ctx context.Context, v state.Version) error
}

// line is one session: reports of it can be fenced off without touching others.
type line struct {
	node    string
	session uint64
}

// pile is the latest of each task that a session has reported.
type pile struct {
	tasks map[string]*typesv1.TaskObserved
	done  func()
}

// Committer merges reports into commits.
type Committer struct {
	self   string // machine id of this dispatcher
	log    *slog.Logger
	view   View
	commit *commit.Committer
	wake   chan struct{} // holds one token when something waits

	mu      sync.Mutex // guards pending
	pending map[line]*pile

	written prometheus.Counter
	dropped prometheus.Counter
}

// New makes one. Metrics: shoal_dispatcher_status_written_total, shoal_dispatcher_status_refused_total.
func New(self string, env run.Env, view View, c *commit.Committer) *Committer {
	out := &Committer{
		self: self, log: env.Log, view: view, commit: c, wake: make(chan struct{}, 1), pending: map[line]*pile{},
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_dispatcher_status_written_total", Help: "Task statuses written to the store.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_dispatcher_status_refused_total", Help: "Task statuses that the store refused as invalid.",
		}),
	}
	env.Metrics.MustRegister(out.written, out.dropped)
	return out
}

// Add hands a report over. It is refused (Exhausted) while too much of its session waits.
func (c *Committer) Add(r Report) error {
	if err := c.merge(r); err != nil {
		return err
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

func (c *Committer) merge(r Report) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := line{r.NodeID, r.Session}
	p := c.pending[key]
	if p == nil {
		p = &pile{tasks: map[string]*typesv1.TaskObserved{}}
	}
	if len(p.tasks)+len(r.Tasks) > maxPending {
		return errs.New(errs.Exhausted, "%d statuses of node %s wait for the store: report again later", len(p.tasks), r.NodeID)
	}
	c.pending[key] = p
	for _, t := range r.Tasks {
		if later(t.GetObserved(), p.tasks[t.GetTaskId()]) {
			p.tasks[t.GetTaskId()] = t.GetObserved()
		}
	}
	p.done = r.Done
	return nil
}

func (c *Committer) take() map[line]*pile {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.pending
	c.pending = map[line]*pile{}
	return out
}

// Run commits until ctx ends. While one commit is under way the next one gathers.
func (c *Committer) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			c.write(ctx, c.take())
		}
	}
}

// write commits the piles and acknowledges them. A refusal names who stood in the way: that one is taken out and the rest
// is tried again; one that names nobody is narrowed down by smaller transactions. So nobody's report holds up another's.
func (c *Committer) write(ctx context.Context, piles map[line]*pile) {
	limit := maxPuts
	for ctx.Err() == nil {
		tx, lines := c.transaction(piles, limit)
		acknowledge(piles)
		if len(tx.GetPuts()) == 0 {
			return
		}
		at, err := c.commit.Do(ctx, tx)
		if err == nil {
			err = failpoint.Hit("dispatcher.status-committed") // in the store, and nobody has been told
		}
		switch {
		case err == nil:
			c.written.Add(float64(len(tx.GetPuts())))
			remove(piles, lines, tx.GetPuts())
			limit = maxPuts
			c.await(ctx, at)
		case ctx.Err() != nil:
			return
		case c.stoodInTheWay(piles, lines, commit.RefusalOf(err)):
		case commit.RefusalOf(err) == nil && errs.KindOf(err) != errs.Invalid:
			c.log.Warn("statuses not written, trying again", "tasks", len(tx.GetPuts()), "error", err)
			if run.Sleep(ctx, retryWait) != nil {
				return
			}
		case len(tx.GetPuts()) > 1:
			limit = len(tx.GetPuts()) / 2
		default:
			c.log.Error("status refused and dropped", "task", state.KeyOf(tx.GetPuts()[0].GetObject()).ID, "error", err)
			c.dropped.Inc()
			remove(piles, lines, tx.GetPuts())
		}
	}
}

// stoodInTheWay takes out whom a refusal names. It is false if that is nobody of these.
func (c *Committer) stoodInTheWay(piles map[line]*pile, lines map[string]line, refusal *storev1.Outcome) bool {
	id := refusal.GetSubject().GetId()
	switch refusal.GetRefusal() {
	case storev1.RefusalReason_REFUSAL_REASON_FENCED:
		// The session is another's by now: its agent reports again there.
		for node, l := range lines {
			if node == id || len(lines) == 1 {
				delete(piles, l)
				return true
			}
		}
		return false
	case storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND:
		return removeTask(piles, id) // deleted meanwhile
	default:
		return false
	}
}

// await lets the replica catch up with the commit, so that what was written just now is not taken for news again.
func (c *Committer) await(ctx context.Context, at *typesv1.Version) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	if err := c.view.WaitFor(ctx, state.VersionOf(at)); err != nil && ctx.Err() == nil {
		c.log.Debug("replica is not at the commit", "error", err)
	}
}
