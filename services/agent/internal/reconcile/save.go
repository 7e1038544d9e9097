package reconcile

import (
	"context"
	"maps"
	"slices"

	"github.com/shoalproject/shoal/internal/failpoint"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// note puts a task into the next save.
func (l *Loop) note(e *entry) {
	l.unsaved.Put[e.id] = journal.Record{Task: e.assigned, Observed: e.observed, Acked: e.acked}
	l.urgent = true
}

// noteLazily puts it into a save that may wait for others: what it says is only worth a repetition.
func (l *Loop) noteLazily(ctx context.Context, e *entry) {
	l.unsaved.Put[e.id] = journal.Record{Task: e.assigned, Observed: e.observed, Acked: e.acked}
	if !l.lazy {
		l.lazy = true
		l.after(ctx, lazySave, func(context.Context) { l.lazy, l.urgent = false, true })
	}
}

// save writes what has gathered, one write at a time: everything that happens during one write shares the next.
func (l *Loop) save(ctx context.Context) {
	if l.saving != nil || !l.urgent || l.failing || l.unsaved.Empty() {
		return
	}
	l.urgent = false
	change := l.unsaved
	l.unsaved = journal.Change{Put: map[string]journal.Record{}}
	l.saving = run.Async(ctx, func(ctx context.Context) ([]string, error) {
		return slices.Sorted(maps.Keys(change.Put)), l.saveOne(ctx, change)
	})
}

func (l *Loop) saveOne(ctx context.Context, change journal.Change) error {
	err := l.Journal.Save(ctx, change)
	if err == nil {
		err = failpoint.Hit("agent.journal-saved") // on disk, and nothing that waits for it has been done
	}
	if err != nil && ctx.Err() == nil {
		l.post(ctx, func(ctx context.Context) { l.restore(ctx, change, err) })
	}
	return err
}

// restore keeps a change that could not be written for another try. Nothing waits for it: a full disk must not keep a
// container from being stopped or its end from being told.
func (l *Loop) restore(ctx context.Context, change journal.Change, err error) {
	l.Log.Error("the journal can't be written; make room on the disk", "error", err)
	l.failing = true
	for id, r := range change.Put {
		if _, newer := l.unsaved.Put[id]; !newer && l.tasks[id] != nil {
			l.unsaved.Put[id] = r
		}
	}
	l.unsaved.Delete = append(l.unsaved.Delete, change.Delete...)
	if l.unsaved.Generation == nil {
		l.unsaved.Generation, l.unsaved.Blocks = change.Generation, change.Blocks
	}
	l.unsaved.Cluster = l.Cluster
	l.after(ctx, retryLast, func(context.Context) { l.failing, l.urgent = false, true })
}

// saved lets go what waited for the journal: statuses to the cluster, steps to the workers.
func (l *Loop) saved(ctx context.Context, r run.Result[[]string]) {
	l.saving = nil
	for _, id := range r.Value {
		e := l.tasks[id]
		if e == nil {
			continue
		}
		if e.observed != nil && !e.acked {
			l.Outbox.Put(id, e.observed)
		}
		if a := e.due; a != task.None {
			e.due = task.None
			l.do(ctx, e, a)
			l.step(ctx, e)
		}
	}
}
