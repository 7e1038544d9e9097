// Package report holds what the cluster has not yet acknowledged: the latest status of each task.
//
// It owns the outbox between the loop that finds out (Put) and the session that tells (Pending, Ack). It must never drop a
// status that was not acknowledged, unless a later one of the same task replaces it. Outbox is safe for concurrent use.
package report

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Outbox is the latest unacknowledged status of each task.
type Outbox struct {
	mu      sync.Mutex // guards both
	pending map[string]*typesv1.TaskObserved
	changed chan struct{} // closed and replaced at each Put
}

// New makes an empty one.
func New() *Outbox {
	return &Outbox{pending: map[string]*typesv1.TaskObserved{}, changed: make(chan struct{})}
}

// Put replaces the task's status. The message must not be changed any more.
func (o *Outbox) Put(taskID string, observed *typesv1.TaskObserved) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending[taskID] = observed
	close(o.changed)
	o.changed = make(chan struct{})
}

// Changed is closed at the next Put.
func (o *Outbox) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// Pending is what is not acknowledged, by task id, at most limit of them.
func (o *Outbox) Pending(limit int) []*dispatcherv1.TaskStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	ids := slices.Sorted(maps.Keys(o.pending))
	batch := make([]*dispatcherv1.TaskStatus, 0, min(limit, len(ids)))
	for _, id := range ids[:min(limit, len(ids))] {
		batch = append(batch, &dispatcherv1.TaskStatus{TaskId: id, Observed: o.pending[id]})
	}
	return batch
}

// Ack forgets what was acknowledged, and keeps what has changed since.
func (o *Outbox) Ack(batch []*dispatcherv1.TaskStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range batch {
		if proto.Equal(o.pending[s.GetTaskId()], s.GetObserved()) {
			delete(o.pending, s.GetTaskId())
		}
	}
}
