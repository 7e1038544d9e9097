// Package reconcile makes this machine run what it was told to run.
//
// One loop owns all state: the assignment, the life of each task (package task) and what the journal holds. Everything
// else happens around it: workers take one step of one task each and tell the loop, the session hands in assignments and
// takes statuses out of the outbox. It must never touch a container that is not this cluster's, nor any container before
// the first assignment of this life of the agent; what really runs wins over what the journal says. The methods of Loop
// are safe for concurrent use; the loop's own state is touched by Run alone.
package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/gate"
	"github.com/shoalproject/shoal/services/agent/internal/idpool"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/look"
	"github.com/shoalproject/shoal/services/agent/internal/report"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// Executor runs containers. Unavailable errors are tried again; any other is told to the user and ends the task.
type Executor interface {
	// List returns the containers of our cluster.
	List(ctx context.Context) ([]container.Found, error)
	// Prepare makes a container ready to start, image included. What is left under its id is replaced.
	Prepare(ctx context.Context, c container.Spec) error
	// Start starts it and returns its process id. Starting one that runs is no error.
	Start(ctx context.Context, id string) (int64, error)
	// Wait blocks until its process ends. NotFound: it has none.
	Wait(ctx context.Context, id string) (task.Exit, error)
	// ImageProbe is the health check that an image brings; nil: none. NotFound: the image is not here.
	ImageProbe(ctx context.Context, image string) (*typesv1.Probe, error)
	look.Runner
	// EndCommands ends the commands of people that earlier lives of the agent have left running in a container.
	EndCommands(ctx context.Context, id string) error
	// Remove ends it if it runs, and deletes it. The exit is nil if there was no process.
	Remove(ctx context.Context, id string, stop container.Stop) (*task.Exit, error)
	// KeepOutput keeps what a running container writes going to where it belongs until it has ended, whoever dies.
	KeepOutput(ctx context.Context, id string) error
	// SweepLogs removes the output of containers that nobody keeps. It outlives them.
	SweepLogs(ctx context.Context, keep func(id string) bool) error
	Sweeper
}

// Network connects containers.
type Network interface {
	// Make makes everything for a container that does not run yet. Unavailable: something that another process makes is
	// missing yet.
	Make(ctx context.Context, w container.Wiring) (container.Sandbox, error)
	look.Dialer
	// Listens says whether something in it takes connections from outside. NotFound: it has no network of its own.
	Listens(id string) (bool, error)
	// Remove takes it away.
	Remove(ctx context.Context, id string) error
	Sweeper
}

// Files keeps what containers have of secrets and configs.
type Files interface {
	// Make writes the files of a container that does not run yet, and says what to mount where.
	Make(ctx context.Context, id string, files []container.File) ([]container.Bind, error)
	// Remove takes them away.
	Remove(ctx context.Context, id string) error
	Sweeper
}

// Sweeper removes what is left of containers that nobody keeps.
type Sweeper interface {
	Sweep(ctx context.Context, keep func(id string) bool) error
}

// Mesh is this machine's own meshproxy.
type Mesh interface {
	// Withdraw takes a task out of the tables before the cluster knows.
	Withdraw(ctx context.Context, taskID string) error
	// Wire has the tables made in the network namespace of a container that is about to run, and waits for them.
	Wire(ctx context.Context, id string) error
	// Offer hands over the network namespace of a container without waiting.
	Offer(id string) error
	// Unwire says that a container has ended. When it returns the network may be taken away.
	Unwire(ctx context.Context, id string) error
}

const (
	// stopBound is the longest wait for the mesh to let go of a task: a paused meshproxy must not hold it for ever.
	stopBound = 5 * time.Second
	// wireBound is the longest wait for the tables of a container's networks. Without a meshproxy it runs all the same, and
	// virtual addresses answer when one has come; only one whose service names its callers goes on waiting.
	wireBound = 3 * time.Second
	// defaultGrace is from the stop signal to SIGKILL.
	defaultGrace = 10 * time.Second
	// A step that can't be done now is tried again: soon at first, since mostly another process is about to do its part.
	retryFirst, retryLast = 100 * time.Millisecond, time.Second
	// lazySave is how long an acknowledgement may wait for the journal: losing it only repeats a status.
	lazySave = time.Second
	// networksAtOnce bounds the networks that are made at once: each takes a thread, and the kernel makes one after another.
	networksAtOnce = 8
	// sweepEvery is the time between two looks for leftovers.
	sweepEvery = 10 * time.Minute
	// withdrawBound is for a local socket.
	withdrawBound = 500 * time.Millisecond
)

// Parts are what the loop works with.
type Parts struct {
	Log      *slog.Logger
	Now      func() time.Time // wall time, for stamps
	Cluster  string
	Node     container.Node
	Executor Executor
	Network  Network
	Files    Files
	Journal  journal.Journal
	Mesh     Mesh
	Outbox   *report.Outbox
	IDs      *idpool.Pool // the loop's alone
}

// Loop is the one owner of what runs on this machine.
type Loop struct {
	Parts
	workers *run.Spawner
	gate    *gate.Gate // for containers whose network is made
	inbox   chan func(context.Context)
	adopted chan struct{} // closed when the machine's containers are known

	tasks      map[string]*entry
	generation *typesv1.Version // of the last assignment taken
	barrier    *typesv1.Version // applied by every meshproxy
	blocks     []string
	payloads   map[string][]byte // data of secrets and configs, and logins, that tasks use, by id
	assigned   bool              // an assignment was taken in this life of the agent
	solo

	book
	shared
}

// solo is whether this machine acts for itself.
type solo struct {
	losses uint64 // of the line to the cluster, and its returns
	alone  bool   // no dispatcher has been there for long
}

// book is what waits for the journal.
type book struct {
	unsaved journal.Change              // what it has not been given
	saving  <-chan run.Result[[]string] // a save in flight; nil: none
	failing bool                        // the last save failed
	urgent  bool                        // somebody waits for the next save
	lazy    bool                        // a timer runs that makes it urgent
}

// shared is what others read.
type shared struct {
	mu        sync.Mutex        // guards all
	kept      map[string]bool   // container ids that Sweep leaves alone
	attempts  map[string]uint32 // of tasks that ran again
	history   map[string]bool   // tasks that have ended and whose output is kept
	lastTaken *typesv1.Version
}

// entry is one task on this machine.
type entry struct {
	id       string
	attempt  uint32
	life     task.Life
	assigned *dispatcherv1.AssignedTask // nil: found without an assignment
	observed *typesv1.TaskObserved      // as reported last
	acked    bool
	pid      int64
	hash     []byte             // of the container that was found
	stopAt   *typesv1.Version   // the mesh has let go when it has passed this
	due      task.Action        // waits for the journal
	cancel   context.CancelFunc // of the step in flight
	watched  bool
	heard    string             // the container whose output is kept going
	probes   *probes            // nil: not known
	looks    context.CancelFunc // of the looks at its container; nil: they have not begun
	retries  int
	again    bool // waits for its further attempt
}

// New makes a loop that does nothing until Run.
func New(p Parts) *Loop {
	return &Loop{
		Parts: p, workers: run.NewSpawner(p.Log), gate: gate.New(networksAtOnce), inbox: make(chan func(context.Context), 64), adopted: make(chan struct{}),
		tasks: map[string]*entry{}, payloads: map[string][]byte{}, shared: shared{kept: map[string]bool{}, attempts: map[string]uint32{}},
		book: book{unsaved: journal.Change{Put: map[string]journal.Record{}}},
	}
}

// Run takes over what runs, and then keeps it as the assignments say until ctx ends. The end of ctx touches no container.
func (l *Loop) Run(ctx context.Context) error {
	if err := l.adopt(ctx); err != nil {
		return err
	}
	close(l.adopted)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		l.save(ctx)
		select {
		case f := <-l.inbox:
			f(ctx)
			l.drain(ctx)
		case r := <-l.saving:
			l.saved(ctx, r)
		case <-sweep.C:
			l.sweep(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// Workers is the part that a group must run beside Run: the steps in flight.
func (l *Loop) Workers(ctx context.Context) error { return l.workers.Run(ctx) }

// drain takes what else has come, so that it shares one write to the journal.
func (l *Loop) drain(ctx context.Context) {
	for range cap(l.inbox) {
		select {
		case f := <-l.inbox:
			f(ctx)
		default:
			return
		}
	}
}

// Adopted is closed when the machine's containers are known: before that there is nothing to say to the cluster.
func (l *Loop) Adopted() <-chan struct{} { return l.adopted }

// Generation is that of the last assignment taken, nil before the first.
func (l *Loop) Generation() *typesv1.Version {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastTaken
}

// post hands f to the loop, which runs it between two others. The context bounds the wait for the loop and nothing else: f
// gets the loop's own, for what it begins outlives a caller such as a session that ends.
func (l *Loop) post(ctx context.Context, f func(ctx context.Context)) {
	select {
	case l.inbox <- f:
	case <-ctx.Done():
	}
}

// after posts f when d is over.
func (l *Loop) after(ctx context.Context, d time.Duration, f func(ctx context.Context)) {
	l.workers.Go(ctx, "timer", func(ctx context.Context) error {
		if err := run.Sleep(ctx, d); err != nil {
			return err
		}
		l.post(ctx, f)
		return nil
	})
}

func (l *Loop) keep(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept[id]
}

// keepLog says whether a container's output is kept: while it is here, and while its task stands in the history.
func (l *Loop) keepLog(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	taskID, attempt, _ := container.TaskOf(id)
	if attempt+keptAttempts <= l.attempts[taskID] {
		return false
	}
	return l.kept[id] || l.kept[container.ID(taskID, 0)] || l.history[taskID]
}

func (l *Loop) setHistory(tasks []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.history = make(map[string]bool, len(tasks))
	for _, id := range tasks {
		l.history[id] = true
	}
}

func (l *Loop) setKept(id string, kept bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if kept {
		l.kept[id] = true
		return
	}
	delete(l.kept, id)
}

// sweep looks for leftovers of containers that are nobody's, never before an assignment said what is whose.
func (l *Loop) sweep(ctx context.Context) {
	if !l.assigned {
		return
	}
	l.workers.Go(ctx, "sweep", func(ctx context.Context) error {
		if err := l.Executor.Sweep(ctx, l.keep); err != nil {
			return err
		}
		if err := l.Executor.SweepLogs(ctx, l.keepLog); err != nil {
			return err
		}
		if err := l.Network.Sweep(ctx, l.keep); err != nil {
			return err
		}
		return l.Files.Sweep(ctx, l.keep)
	})
}
