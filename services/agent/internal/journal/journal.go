// Package journal keeps what the agent must not forget over its own death: what it was told to run and what it has said
// of it.
//
// It owns the file and its format. It must never decide: the reconcile loop owns the state, and what really runs wins over
// what is written here. Journal implementations are held to one contract by journaltest; their methods are called by one
// goroutine at a time.
package journal

import (
	"context"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Journal keeps one agent's state.
type Journal interface {
	// Load returns everything that was saved. An empty journal is no error.
	Load(ctx context.Context) (State, error)
	// Save makes one change, whole or not at all; when it returns nil the change outlives a power cut.
	Save(ctx context.Context, c Change) error
	// Close lets go of the file. Nothing may be called after it.
	Close() error
}

// State is all that a journal holds.
type State struct {
	// Cluster is the id of the cluster that this machine last belonged to.
	Cluster string
	// Generation is that of the last assignment taken, nil before the first.
	Generation *typesv1.Version
	// Blocks are the machine's blocks of the machine network.
	Blocks []string
	// Tasks by id.
	Tasks map[string]Record
}

// Record is what is known of one task.
type Record struct {
	// Task is what was assigned. Nil for a container that was found without an assignment.
	Task *dispatcherv1.AssignedTask
	// Observed is the latest status.
	Observed *typesv1.TaskObserved
	// Acked says that the cluster has that status.
	Acked bool
}

// Change is one step of the state. Nil and empty fields change nothing.
type Change struct {
	Cluster    string
	Generation *typesv1.Version
	Blocks     []string // replaced together with Generation
	Put        map[string]Record
	Delete     []string
}

// Empty says whether there is nothing to save.
func (c Change) Empty() bool {
	return c.Cluster == "" && c.Generation == nil && len(c.Put) == 0 && len(c.Delete) == 0
}
