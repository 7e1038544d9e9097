package agenttest

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/services/agent/internal/journal"
)

// syncTime is what a durable write takes.
const syncTime = 2 * time.Millisecond

// Journal is in memory, with a disk's honesty: what Save has returned for is there for ever, what was under way at a crash
// is there or not.
type Journal struct{ handle }

// Load returns a copy of what was saved.
func (j *Journal) Load(context.Context) (s journal.State, err error) {
	err = j.with(func() error {
		now := j.host.journal
		s = journal.State{
			Cluster: now.Cluster, Generation: proto.CloneOf(now.Generation), Blocks: slices.Clone(now.Blocks),
			Tasks: make(map[string]journal.Record, len(now.Tasks)),
		}
		for id, r := range now.Tasks {
			s.Tasks[id] = copied(r)
		}
		return j.alive()
	})
	return s, err
}

// Save makes one change. The caller may go on changing what it gave as soon as Save has returned.
func (j *Journal) Save(ctx context.Context, c journal.Change) error {
	own := journal.Change{
		Cluster: c.Cluster, Generation: proto.CloneOf(c.Generation), Blocks: slices.Clone(c.Blocks),
		Put: make(map[string]journal.Record, len(c.Put)), Delete: slices.Clone(c.Delete),
	}
	for id, r := range c.Put {
		own.Put[id] = copied(r)
	}
	if err := j.with(j.alive); err != nil {
		return err
	}
	waited := j.wait(context.WithoutCancel(ctx), syncTime) // a write that has begun is not called back
	return j.with(func() error {
		// Step 1: a crash in the middle of the write decides by chance; a machine never writes half of it.
		if waited != nil && j.host.rand.IntN(2) == 0 {
			return waited
		}
		// Step 2: it is on the disk, even if the process that wrote it is gone and never hears so.
		j.apply(own)
		return waited
	})
}

// apply needs the host's lock.
func (j *Journal) apply(c journal.Change) {
	s := &j.host.journal
	if c.Cluster != "" {
		s.Cluster = c.Cluster
	}
	if c.Generation != nil {
		s.Generation, s.Blocks = c.Generation, c.Blocks
	}
	for id, r := range c.Put {
		s.Tasks[id] = r
	}
	for _, id := range c.Delete {
		delete(s.Tasks, id)
	}
}

// Close does nothing: the medium is the host.
func (j *Journal) Close() error { return nil }

func copied(r journal.Record) journal.Record {
	return journal.Record{Task: proto.CloneOf(r.Task), Observed: proto.CloneOf(r.Observed), Acked: r.Acked}
}
