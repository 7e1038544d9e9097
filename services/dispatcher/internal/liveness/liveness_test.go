package liveness_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/lease"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/liveness"
)

const (
	ready   = typesv1.NodeState_NODE_STATE_READY
	suspect = typesv1.NodeState_NODE_STATE_SUSPECT
	down    = typesv1.NodeState_NODE_STATE_DOWN
)

// member is one live dispatcher: its lease and its judgement.
type member struct {
	table *liveness.Table
	held  atomic.Bool  // its clock stands still, as that of a paused machine does
	slow  atomic.Int64 // what each of its judgements takes at the store
	stop  func()
}

// halting is a ticker that gives nothing while it is held.
type halting struct {
	run.Ticker
	c    chan time.Time
	done chan struct{}
}

func (h *halting) C() <-chan time.Time { return h.c }
func (h *halting) Stop()               { h.Ticker.Stop(); close(h.done) }

func (m *member) ticker(d time.Duration) run.Ticker {
	h := &halting{Ticker: testx.NewTicker(d), c: make(chan time.Time), done: make(chan struct{})}
	go func() {
		for {
			select {
			case <-h.done:
				return
			case at := <-h.Ticker.C():
				if m.held.Load() {
					continue
				}
				select {
				case h.c <- at:
				case <-h.done:
					return
				}
			}
		}
	}()
	return h
}

// slowly is a way to the store that takes time.
type slowly struct {
	commit.Client
	takes *atomic.Int64
}

func (s slowly) Commit(ctx context.Context, in *storev1.CommitRequest, opts ...grpc.CallOption) (*storev1.CommitResponse, error) {
	time.Sleep(time.Duration(s.takes.Load()))
	return s.Client.Commit(ctx, in, opts...)
}

func times() liveness.Times {
	return liveness.Times{Suspect: 2 * time.Second, Down: 4 * time.Second, Lease: 2 * time.Second}
}

// start starts the dispatcher of a machine.
func start(t *testing.T, store *replicatest.Store, id string) *member {
	t.Helper()
	m := &member{table: liveness.NewTable()}
	env := testx.Env(t)
	env.Rand = run.NewRand(uint64(len(id)) + uint64(id[len(id)-1]))
	env.Ticker = m.ticker
	conn := store.Dial(t)
	commits := storev1.NewCommitServiceClient(conn)
	view := replica.New(env, storev1.NewWatchServiceClient(conn))
	self := identity.ID{Cluster: "c1", Role: authzv1.Role_ROLE_DISPATCHER, Name: id}
	monitor := liveness.New(id, env, view, commit.New(slowly{commits, &m.slow}, env.Rand), m.table, times())
	g := run.NewGroup(env.Log)
	g.Go("view", view.Run)
	g.Go("lease", lease.New(env, commits, view, liveness.LeaseName(id), self, times().Lease).Run)
	g.Go("monitor", monitor.Run)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Wait(ctx) }()
	stopped := false
	m.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(m.stop)
	return m
}

func dispatcher(id string) *typesv1.Object {
	return state.Wrap(&typesv1.Member{
		Meta: &typesv1.Meta{Id: "dispatcher/" + id}, Role: authzv1.Role_ROLE_DISPATCHER, MachineId: id,
	})
}

func node(id, bound string) *typesv1.Object {
	return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{
		State: ready, Session: &typesv1.NodeSession{DispatcherId: bound, Number: 1, BootId: "b"},
	}})
}

func cluster() *typesv1.Object {
	return state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}})
}

func stateOf(s *replicatest.Store, id string) typesv1.NodeState {
	return s.Snapshot().Node(id).GetStatus().GetState()
}

// hear has machines beat at a dispatcher until the test ends.
func hear(t *testing.T, m *member, ids ...string) {
	for _, id := range ids {
		m.table.Open(id, 1, time.Now(), func(error) {})
	}
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		beat := time.NewTicker(500 * time.Millisecond)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				for _, id := range ids {
					m.table.Heard(id, 1, time.Now())
				}
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-ended })
}

// The machines that were lost together with their dispatcher are marked DOWN, each by one of the others, after its lease
// and the time that they would have been given; who has moved meanwhile is not.
func TestMachinesOfADeadDispatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const machines = 20
		objects := []*typesv1.Object{cluster(), dispatcher("d1"), dispatcher("d2"), dispatcher("d3"), node("own1", "d1"), node("own2", "d2")}
		for i := range machines {
			objects = append(objects, node(fmt.Sprintf("n%02d", i), "d3"))
		}
		store := replicatest.New(testx.Env(t), objects...)
		d1, d2, d3 := start(t, store, "d1"), start(t, store, "d2"), start(t, store, "d3")
		hear(t, d1, "own1")
		hear(t, d2, "own2")
		var all []string
		for i := range machines {
			all = append(all, fmt.Sprintf("n%02d", i))
		}
		hear(t, d3, all...)
		time.Sleep(10 * time.Second)
		if got := stateOf(store, "n00"); got != ready {
			t.Fatalf("while its dispatcher lives: %s", got)
		}
		judged := map[string]int{}
		store.OnCommit(func(tx *storev1.Transaction) error {
			for _, p := range tx.GetPuts() {
				if n := p.GetObject().GetNode(); n.GetStatus().GetState() == down {
					judged[n.GetMeta().GetId()]++
				}
			}
			return nil
		})
		d3.stop()
		died := time.Now()
		moved, _ := proto.Clone(store.Snapshot().Node("n07")).(*typesv1.Node)
		moved.Status.Session = &typesv1.NodeSession{DispatcherId: "d1", Number: 2, BootId: "b"}
		store.Put(state.Wrap(moved))
		d1.table.Open("n07", 2, time.Now(), func(error) {})
		for time.Since(died) < 5*time.Second {
			time.Sleep(500 * time.Millisecond)
			d1.table.Heard("n07", 2, time.Now())
		}
		if got := stateOf(store, "n00"); got != suspect {
			t.Errorf("5 s after its dispatcher's death: %s, want SUSPECT", got)
		}
		for time.Since(died) < 7*time.Second {
			time.Sleep(500 * time.Millisecond)
			d1.table.Heard("n07", 2, time.Now())
		}
		synctest.Wait()
		for _, id := range all {
			want, by := down, 1
			if id == "n07" {
				want, by = ready, 0
			}
			if got := stateOf(store, id); got != want || judged[id] != by {
				t.Errorf("%s: %s, judged %d times; want %s, %d", id, got, judged[id], want, by)
			}
		}
		if stateOf(store, "own1") != ready || stateOf(store, "own2") != ready {
			t.Error("a machine of a live dispatcher was judged")
		}
	})
}

// A machine that was told to beat less often is given the patience that it was told with it. It is DOWN as soon as any other.
func TestToldPatienceCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"), node("n1", "d1"), node("n2", "d1"))
		d1 := start(t, store, "d1")
		for _, id := range []string{"n1", "n2"} {
			d1.table.Open(id, 1, time.Now(), func(error) {})
		}
		d1.table.Bear("n1", 1, 3*time.Second)
		begun := time.Now()
		for _, at := range []struct {
			silent time.Duration
			n1, n2 typesv1.NodeState
		}{
			{1900 * time.Millisecond, ready, ready},
			{2900 * time.Millisecond, ready, suspect},
			{3300 * time.Millisecond, suspect, suspect},
			{4300 * time.Millisecond, down, down},
		} {
			time.Sleep(at.silent - time.Since(begun))
			if n1, n2 := stateOf(store, "n1"), stateOf(store, "n2"); n1 != at.n1 || n2 != at.n2 {
				t.Errorf("silent for %s: %s and %s, want %s and %s", at.silent, n1, n2, at.n1, at.n2)
			}
		}
	})
}

// A dispatcher that was paused counts nothing of the pause: neither its own machines' silence, nor the others' leases.
func TestPausedMonitorStartsAfresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"), node("n1", "d1"))
		d1 := start(t, store, "d1")
		d1.table.Open("n1", 1, time.Now(), func(error) {})
		for range 10 {
			time.Sleep(500 * time.Millisecond)
			d1.table.Heard("n1", 1, time.Now())
		}
		d1.held.Store(true)
		time.Sleep(10 * time.Second)
		d1.held.Store(false)
		time.Sleep(1500 * time.Millisecond)
		if got := stateOf(store, "n1"); got != ready {
			t.Fatalf("1.5 s after the pause: %s, want READY", got)
		}
		time.Sleep(3 * time.Second)
		if got := stateOf(store, "n1"); got != down {
			t.Fatalf("4.5 s after the pause: %s, want DOWN", got)
		}
	})
}

// A dispatcher that has a turn now and then only, because others take the processor, hears late. It takes nobody for silent
// whose silence is its own, and still finds who is really gone.
func TestStarvedMonitorIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"), node("n1", "d1"))
		d1 := start(t, store, "d1")
		d1.table.Open("n1", 1, time.Now(), func(error) {})
		turns := func(n int) {
			for range n {
				d1.held.Store(true)
				time.Sleep(450 * time.Millisecond)
				d1.held.Store(false)
				time.Sleep(150 * time.Millisecond) // one tick or two
			}
		}
		for range 5 {
			turns(5) // 3 s
			if got := stateOf(store, "n1"); got != ready {
				t.Fatalf("heard every 3 s by one that has a turn every 0.6 s: %s, want READY", got)
			}
			d1.table.Heard("n1", 1, time.Now())
		}
		turns(50)
		if got := stateOf(store, "n1"); got != down {
			t.Fatalf("never heard again: %s, want DOWN", got)
		}
	})
}

// Machines come back to a dispatcher that was started anew one after another. Who waits for its turn is not taken for silent,
// and who never comes is, when the others have come.
func TestWhoWaitsForItsTurnIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const machines, each = 600, 20 * time.Millisecond // 12 s
		objects := []*typesv1.Object{cluster(), dispatcher("d1"), node("gone", "d1")}
		for i := range machines {
			objects = append(objects, node(fmt.Sprintf("n%04d", i), "d1"))
		}
		store := replicatest.New(testx.Env(t), objects...)
		d1 := start(t, store, "d1")
		time.Sleep(time.Second)
		for i := range machines {
			d1.table.Open(fmt.Sprintf("n%04d", i), 1, time.Now(), func(error) {})
			time.Sleep(each)
			for j := range i + 1 {
				d1.table.Heard(fmt.Sprintf("n%04d", j), 1, time.Now())
			}
			if i%50 == 0 {
				allReady(t, store, machines, i)
			}
		}
		time.Sleep(6 * time.Second)
		if got := stateOf(store, "gone"); got != down {
			t.Fatalf("who never came, 6 s after the others: %s, want DOWN", got)
		}
	})
}

// Who has said hello to a dispatcher that was started anew is not silent, however long others hold up its session.
func TestWhoHasKnockedIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"), node("n1", "d1"), node("n2", "d1"))
		d1 := start(t, store, "d1")
		time.Sleep(1500 * time.Millisecond)
		d1.table.Knock("n1", time.Now())
		time.Sleep(1500 * time.Millisecond)
		if n1, n2 := stateOf(store, "n1"), stateOf(store, "n2"); n1 != ready || n2 != suspect {
			t.Fatalf("after 3 s: %s and %s; want READY, which has knocked, and SUSPECT, which has not", n1, n2)
		}
	})
}

// Thousands of machines whose dispatcher died come to the others one after another. Who waits for its turn there is not taken
// for lost, by whichever dispatcher speaks for it; and who never comes is, when the others have come.
func TestWhoQueuesElsewhereIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const machines, each = 600, 20 * time.Millisecond // 12 s
		id := func(i int) string { return fmt.Sprintf("n%04d", i) }
		objects := []*typesv1.Object{cluster(), dispatcher("d1"), dispatcher("d2"), dispatcher("d3"), node("gone", "d3")}
		for i := range machines {
			objects = append(objects, node(id(i), "d3"))
		}
		store := replicatest.New(testx.Env(t), objects...)
		start(t, store, "d1")
		d2, d3 := start(t, store, "d2"), start(t, store, "d3")
		for i := range machines {
			d3.table.Open(id(i), 1, time.Now(), func(error) {})
		}
		time.Sleep(time.Second)
		d3.stop()
		for i := range machines {
			moved, _ := proto.Clone(store.Snapshot().Node(id(i))).(*typesv1.Node)
			moved.Status.Session = &typesv1.NodeSession{DispatcherId: "d2", Number: 2, BootId: "b"}
			store.Put(state.Wrap(moved))
			d2.table.Open(id(i), 2, time.Now(), func(error) {})
			time.Sleep(each)
			for j := range i + 1 {
				d2.table.Heard(id(j), 2, time.Now())
			}
			if i%50 == 0 {
				allReady(t, store, machines, i)
			}
		}
		time.Sleep(4 * time.Second)
		if got := stateOf(store, "gone"); got != down {
			t.Fatalf("who never came, 4 s after the others: %s, want DOWN", got)
		}
	})
}

// To write what was judged of thousands takes seconds. Who is heard meanwhile is not told to be silent.
func TestWhoIsHeardMeanwhileIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const machines, lot = 1000, 200
		id := func(i int) string { return fmt.Sprintf("n%04d", i) }
		objects := []*typesv1.Object{cluster(), dispatcher("d1")}
		for i := range machines {
			objects = append(objects, node(id(i), "d1"))
		}
		store := replicatest.New(testx.Env(t), objects...)
		d1 := start(t, store, "d1")
		time.Sleep(time.Second)
		for i := range machines {
			d1.table.Open(id(i), 1, time.Now(), func(error) {})
		}
		d1.slow.Store(int64(500 * time.Millisecond))
		var told atomic.Int64
		store.OnCommit(func(tx *storev1.Transaction) error {
			for _, p := range tx.GetPuts() {
				if p.GetObject().GetNode().GetStatus().GetState() == suspect {
					told.Add(1)
				}
			}
			return nil
		})
		time.Sleep(2300 * time.Millisecond) // all are judged, and the first lot is on its way
		for range 6 {
			for i := range machines {
				d1.table.Heard(id(i), 1, time.Now())
			}
			time.Sleep(500 * time.Millisecond)
		}
		if n := told.Load(); n == 0 || n > lot {
			t.Errorf("%d were told to be SUSPECT, want those of the first lot of %d", n, lot)
		}
	})
}

// A machine that was judged DOWN while its session began has to open another, which brings it back, however well it is heard.
func TestWhoIsDownAsItComesMustComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := node("n1", "d1")
		gone.GetNode().Status.State = down
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"), gone)
		d1 := start(t, store, "d1")
		time.Sleep(time.Second)
		ended := make(chan error, 1)
		d1.table.Open("n1", 1, time.Now(), func(err error) { ended <- err })
		time.Sleep(time.Second)
		select {
		case <-ended:
		default:
			t.Error("the session of a machine that is DOWN goes on")
		}
	})
}

// A count that was started afresh makes a silent machine no better: it stays SUSPECT until it is heard.
func TestFreshCountIsNoSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"), node("n1", "d1"))
		d1 := start(t, store, "d1")
		d1.table.Open("n1", 1, time.Now(), func(error) {})
		time.Sleep(3 * time.Second)
		if got := stateOf(store, "n1"); got != suspect {
			t.Fatalf("after 3 s: %s, want SUSPECT", got)
		}
		d1.held.Store(true)
		time.Sleep(3 * time.Second)
		d1.held.Store(false)
		time.Sleep(time.Second)
		if got := stateOf(store, "n1"); got != suspect {
			t.Fatalf("after the pause, not heard: %s, want SUSPECT", got)
		}
		d1.table.Heard("n1", 1, time.Now())
		time.Sleep(500 * time.Millisecond)
		if got := stateOf(store, "n1"); got != ready {
			t.Fatalf("heard: %s, want READY", got)
		}
	})
}

// A slow store does not look like a pause: many machines that vanish at once are all judged in time, in few commits.
func TestMassLossAtASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const machines = 1000
		objects := []*typesv1.Object{cluster(), dispatcher("d1")}
		for i := range machines {
			objects = append(objects, node(fmt.Sprintf("n%04d", i), "d1"))
		}
		store := replicatest.New(testx.Env(t), objects...)
		d1 := start(t, store, "d1")
		time.Sleep(time.Second)
		for i := range machines {
			d1.table.Open(fmt.Sprintf("n%04d", i), 1, time.Now(), func(error) {})
		}
		d1.slow.Store(int64(300 * time.Millisecond))
		commits := 0
		store.OnCommit(func(tx *storev1.Transaction) error {
			if tx.GetPuts()[0].GetObject().GetNode() != nil {
				commits++
			}
			return nil
		})
		time.Sleep(7 * time.Second)
		for i := range machines {
			if got := stateOf(store, fmt.Sprintf("n%04d", i)); got != down {
				t.Fatalf("n%04d after 7 s: %s, want DOWN", i, got)
			}
		}
		if commits > 20 {
			t.Errorf("%d commits, want at most 20", commits)
		}
	})
}

// What somebody else writes into a node's status at the same time is not lost.
func TestStateAndDescriptionTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"), node("n1", "d1"))
		d1 := start(t, store, "d1")
		d1.table.Open("n1", 1, time.Now(), func(error) {})
		written := false
		store.OnCommit(func(tx *storev1.Transaction) error {
			if n := tx.GetPuts()[0].GetObject().GetNode(); n != nil && !written {
				written = true
				with, _ := proto.Clone(store.Snapshot().Node("n1")).(*typesv1.Node)
				with.Status.Description = &typesv1.NodeDescription{Hostname: "alpha"}
				store.Put(state.Wrap(with))
			}
			return nil
		})
		time.Sleep(3 * time.Second)
		st := store.Snapshot().Node("n1").GetStatus()
		if st.GetState() != suspect || st.GetDescription().GetHostname() != "alpha" {
			t.Fatalf("%v, want SUSPECT with its description", st)
		}
	})
}

// A dispatcher that is bound and not announced yet, or not any more, is judged from when it was first missed.
func TestUnknownDispatcherHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t), cluster(), dispatcher("d1"))
		start(t, store, "d1")
		time.Sleep(20 * time.Second)
		store.Put(node("n1", "d9"))
		time.Sleep(3 * time.Second)
		if got := stateOf(store, "n1"); got != ready {
			t.Fatalf("after 3 s: %s, want READY", got)
		}
		time.Sleep(4 * time.Second)
		if got := stateOf(store, "n1"); got != down {
			t.Fatalf("after 7 s: %s, want DOWN", got)
		}
	})
}

// allReady fails unless all machines are READY while that one has its turn.
func allReady(t *testing.T, store *replicatest.Store, machines, turn int) {
	t.Helper()
	for i := range machines {
		if got := stateOf(store, fmt.Sprintf("n%04d", i)); got != ready {
			t.Fatalf("machine %d, whose turn it is not at %d: %s, want READY", i, turn, got)
		}
	}
}
