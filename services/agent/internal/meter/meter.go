// Package meter measures what this machine's containers use and what its mesh leads to services, for those that scale by their load.
//
// It owns the way from counters to rates, at a low and jittered pace. It must never decide anything by them. A Meter is used
// by one Run; its reports may be taken by anybody.
package meter

import (
	"context"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/tally"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/usage"
)

const (
	// pace is the time between two measurements; jitter keeps machines that start together apart.
	pace   = 10 * time.Second
	jitter = 0.2
	// askLimit bounds how long the meshproxy may take to tell its counts.
	askLimit = 2 * time.Second
	// maxTasks is the protocol's.
	maxTasks = 1000
)

// Source has the counters of containers.
type Source interface {
	// Containers are the ids of those that may be there, also of other clusters.
	Containers() []string
	// Read tells what one has used.
	Read(id string) (usage.Figures, error)
}

// Mesh is this machine's meshproxy.
type Mesh interface {
	// Connections counts what it has led to services that scale by it.
	Connections(ctx context.Context) (*meshv1.ConnectionsResponse, error)
}

// Meter measures.
type Meter struct {
	rand    *run.Rand
	now     func() time.Time
	source  Source
	mesh    Mesh
	last    map[string]reading // by container
	tally   tally.Tally
	reports chan *dispatcherv1.UsageReport
}

type reading struct {
	at  time.Time
	cpu time.Duration
}

// New makes a meter. Now is the wall clock.
func New(rand *run.Rand, now func() time.Time, source Source, mesh Mesh) *Meter {
	return &Meter{rand: rand, now: now, source: source, mesh: mesh, last: map[string]reading{}, reports: make(chan *dispatcherv1.UsageReport, 1)}
}

// Reports has the last report until somebody takes it.
func (m *Meter) Reports() <-chan *dispatcherv1.UsageReport { return m.reports }

// Run measures until ctx ends.
func (m *Meter) Run(ctx context.Context) error {
	for run.Sleep(ctx, m.rand.Jitter(pace, jitter)) == nil {
		r := m.Measure(ctx)
		select {
		case <-m.reports: // nobody has taken it, and it is old now
		default:
		}
		if len(r.GetTasks()) > 0 || r.GetCounted() {
			m.reports <- r
		}
	}
	return nil
}

// Measure reads all counters. A container that was not there at the time before has no rate yet and is left out. While the
// meshproxy does not answer, connections are said not to be counted.
func (m *Meter) Measure(ctx context.Context) *dispatcherv1.UsageReport {
	now, next := m.now(), map[string]reading{}
	out := &dispatcherv1.UsageReport{}
	for _, id := range m.source.Containers() {
		task, _, ours := container.TaskOf(id)
		f, err := m.source.Read(id)
		if err != nil || !ours {
			continue // it has gone meanwhile
		}
		next[id] = reading{now, f.CPU}
		was, known := m.last[id]
		span, used := now.Sub(was.at), f.CPU-was.cpu
		if known && span >= tally.Shortest && span <= tally.Longest && used >= 0 && len(out.GetTasks()) < maxTasks {
			out.Tasks = append(out.Tasks, &dispatcherv1.TaskUsage{TaskId: task,
				NanoCpus: int64(float64(used) / float64(span) * 1e9), MemoryBytes: f.Memory})
		}
	}
	m.last = next
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	counts, err := m.mesh.Connections(ctx)
	if err != nil {
		counts = nil // it says itself what is wrong with it
	}
	m.tally.Next(m.now(), counts, out)
	return out
}

// Kernel has the counters of this machine's control groups.
type Kernel struct{ Reader usage.Reader }

// Containers are all that have our parent, whosever they are.
func (k Kernel) Containers() []string { return k.Reader.Groups(container.Group("")) }

// Read reads one group.
func (k Kernel) Read(id string) (usage.Figures, error) { return k.Reader.Read(container.Group(id)) }
