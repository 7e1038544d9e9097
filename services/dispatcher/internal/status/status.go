// Package status carries what machines report to the store, many machines in one commit.
//
// It owns the order "commit, then acknowledge": an agent forgets a status once it is acknowledged, and a forgotten status
// that never reached the store would leave its task starting for ever. Nothing is written when nothing changed. One
// goroutine (Run) owns the work; Add may be called from any.
package status

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	maxPuts   = 500 // a transaction; the store takes 1000
	queued    = 1024
	retryWait = 200 * time.Millisecond
)

// Report is one batch of one session.
type Report struct {
	NodeID  string
	Session uint64
	Tasks   []*dispatcherv1.TaskStatus
	// Done acknowledges. It is called once the batch is in the store, and must not block.
	Done func()
}

// View is the replica that tells what the store holds already.
type View interface{ Snapshot() *state.Snapshot }

// Committer merges reports into commits.
type Committer struct {
	self   string // machine id of this dispatcher
	log    *slog.Logger
	view   View
	commit *commit.Committer
	queue  chan Report

	written prometheus.Counter
}

// New makes one. Metrics: shoal_dispatcher_status_written_total.
func New(self string, env run.Env, view View, c *commit.Committer) *Committer {
	written := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "shoal_dispatcher_status_written_total", Help: "Task statuses written to the store.",
	})
	env.Metrics.MustRegister(written)
	return &Committer{self: self, log: env.Log, view: view, commit: c, queue: make(chan Report, queued), written: written}
}

// Add hands a report over. It blocks while too many wait.
func (c *Committer) Add(ctx context.Context, r Report) error {
	select {
	case c.queue <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run commits until ctx ends. While one commit is under way the next one gathers.
func (c *Committer) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-c.queue:
			if err := c.write(ctx, c.gather(r)); err != nil {
				return err
			}
		}
	}
}

func (c *Committer) gather(first Report) []Report {
	reports, tasks := []Report{first}, len(first.Tasks)
	for tasks < maxPuts {
		select {
		case r := <-c.queue:
			reports = append(reports, r)
			tasks += len(r.Tasks)
		default:
			return reports
		}
	}
	return reports
}

// write commits the reports and acknowledges them. A refusal names who stood in the way: that one is taken out and the
// rest is tried again.
func (c *Committer) write(ctx context.Context, reports []Report) error {
	gone := map[string]bool{} // tasks that are not in the store any more
	for len(reports) > 0 {
		tx := c.transaction(reports, gone)
		if len(tx.GetPuts()) == 0 {
			break
		}
		_, err := c.commit.Do(ctx, tx)
		if err == nil {
			c.written.Add(float64(len(tx.GetPuts())))
			break
		}
		refusal := commit.RefusalOf(err)
		switch {
		case ctx.Err() != nil:
			return nil
		case refusal.GetRefusal() == storev1.RefusalReason_REFUSAL_REASON_FENCED && refusal.GetSubject().GetId() != "":
			// The session is another's by now: its agent reports again there.
			reports = without(reports, refusal.GetSubject().GetId())
		case refusal.GetRefusal() == storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND && refusal.GetSubject().GetId() != "":
			gone[refusal.GetSubject().GetId()] = true
		default:
			c.log.Warn("status not written, trying again", "reports", len(reports), "error", err)
			if run.Sleep(ctx, retryWait) != nil {
				return nil
			}
		}
	}
	for _, r := range reports {
		r.Done()
	}
	return nil
}

func without(reports []Report, nodeID string) []Report {
	var rest []Report
	for _, r := range reports {
		if r.NodeID != nodeID {
			rest = append(rest, r)
		}
	}
	return rest
}

// transaction holds the latest status of each task that differs from what the store holds, fenced by the sessions that
// reported them.
func (c *Committer) transaction(reports []Report, gone map[string]bool) *storev1.Transaction {
	s := c.view.Snapshot()
	latest := map[string]*typesv1.TaskObserved{}
	tx := &storev1.Transaction{}
	for _, r := range reports {
		news := false
		for _, ts := range r.Tasks {
			t := s.Task(ts.GetTaskId())
			if t == nil || gone[ts.GetTaskId()] || t.GetDecided().GetNodeId() != r.NodeID {
				continue
			}
			if !later(ts.GetObserved(), t.GetObserved()) || !later(ts.GetObserved(), latest[ts.GetTaskId()]) {
				continue
			}
			latest[ts.GetTaskId()] = ts.GetObserved()
			news = true
		}
		if news {
			tx.Preconditions = append(tx.Preconditions, commit.Session(r.NodeID, c.self, r.Session))
		}
	}
	for _, r := range reports {
		for _, ts := range r.Tasks {
			if o := latest[ts.GetTaskId()]; o != nil && o == ts.GetObserved() {
				t := &typesv1.Task{Meta: &typesv1.Meta{Id: ts.GetTaskId()}, Observed: o}
				tx.Puts = append(tx.Puts, commit.Put(state.Wrap(t), "observed"))
			}
		}
	}
	return tx
}

// later orders observations by (attempt, state, seq). A nil one is the earliest.
func later(a, b *typesv1.TaskObserved) bool {
	switch {
	case a == nil:
		return false
	case b == nil:
		return true
	case a.GetAttempt() != b.GetAttempt():
		return a.GetAttempt() > b.GetAttempt()
	case a.GetState() != b.GetState():
		return a.GetState() > b.GetState()
	default:
		return a.GetSeq() > b.GetSeq()
	}
}
