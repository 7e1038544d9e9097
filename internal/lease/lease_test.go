package lease_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
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
)

const ttl = 3 * time.Second

// process is one candidate with all that it needs.
type process struct {
	seat    *lease.Seat
	replica *replica.Replica
	stop    func()
	paused  chan bool // true holds its ticks
	yield   *order
}

// order is a Yield that a test gives.
type order struct {
	mu      sync.Mutex // guards all below
	wanted  bool
	changed chan struct{}
}

func (o *order) Wanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wanted
}

func (o *order) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

func (o *order) give(wanted bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted = wanted
	close(o.changed)
	o.changed = make(chan struct{})
}

// TestYield: a holder that is to leave the duty to others gives it back at once and does not take it, free or not, until
// it may again.
func TestYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		time.Sleep(time.Second)
		b := start(t, store, "b")
		time.Sleep(time.Second)
		a.yield.give(true)
		time.Sleep(100 * time.Millisecond)
		if number, ok := b.seat.Held(); a.holds() || !ok || number != 2 {
			t.Errorf("a holds %v, b holds %v with number %d", a.holds(), ok, number)
		}
		b.stop()
		for range 20 {
			time.Sleep(time.Second)
			if a.holds() {
				t.Fatal("it took what it should leave")
			}
		}
		a.yield.give(false)
		time.Sleep(ttl)
		if !a.holds() {
			t.Error("it does not take what it may have")
		}
	})
}

// heldTicker lets a test hold a process's ticks, as the simulation does when it pauses a host.
type heldTicker struct {
	run.Ticker
	out  chan time.Time
	stop chan struct{}
}

func (h heldTicker) C() <-chan time.Time { return h.out }
func (h heldTicker) Stop()               { close(h.stop); h.Ticker.Stop() }

func start(t *testing.T, store *replicatest.Store, name string) *process {
	t.Helper()
	p := &process{paused: make(chan bool), yield: &order{changed: make(chan struct{})}}
	env := testx.Env(t)
	env.Rand = run.NewRand(rand.Uint64()) // equal seeds would give equal request ids
	env.Ticker = func(d time.Duration) run.Ticker {
		h := heldTicker{Ticker: testx.NewTicker(d), out: make(chan time.Time), stop: make(chan struct{})}
		go func() {
			paused := false
			for {
				select {
				case paused = <-p.paused:
				case at := <-h.Ticker.C():
					if !paused {
						select {
						case h.out <- at:
						default:
						}
					}
				case <-h.stop:
					return
				}
			}
		}()
		return h
	}
	conn := store.Dial(t)
	p.replica = replica.New(env, storev1.NewWatchServiceClient(conn), typesv1.Kind_KIND_LEASE)
	p.seat = lease.New(env, storev1.NewCommitServiceClient(conn), p.replica, "scheduler",
		identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_SCHEDULER, Name: name}, ttl)
	p.seat.YieldWhile(p.yield)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- p.seat.Run(ctx) }()
	watchCtx, stopWatch := context.WithCancel(t.Context())
	go func() { done <- p.replica.Run(watchCtx) }()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		stopWatch()
		<-done
	}
	t.Cleanup(p.stop)
	return p
}

func (p *process) holds() bool { _, ok := p.seat.Held(); return ok }

// TestOneHolder: the first takes a free lease at once and keeps it; at a graceful stop the other follows without waiting.
func TestOneHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		time.Sleep(time.Second)
		b := start(t, store, "b")
		for range 60 {
			time.Sleep(time.Second)
			if !a.holds() || b.holds() {
				t.Fatalf("a holds %v, b holds %v", a.holds(), b.holds())
			}
		}
		if b.seat.Fence() != nil {
			t.Error("a standby has a fence")
		}
		a.stop()
		time.Sleep(100 * time.Millisecond)
		if number, ok := b.seat.Held(); !ok || number != 2 {
			t.Errorf("b: held %v, number %d, want number 2", ok, number)
		}
	})
}

// crash ends a process without its courtesies: the store hears nothing from it any more.
func crash(t *testing.T, store *replicatest.Store, p *process) {
	t.Helper()
	store.OnCommit(func(tx *storev1.Transaction) error {
		for _, put := range tx.GetPuts() {
			if l := put.GetObject().GetLease(); l.GetHolder() == "" || l.GetHolder() == "scheduler/a" {
				return errs.New(errs.Unavailable, "the host is dead")
			}
		}
		return nil
	})
	p.stop()
}

// TestCrash: another takes the lease one ttl after the last sign of life, not before, with the next number.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		b := start(t, store, "b")
		time.Sleep(10 * time.Second)
		if b.holds() {
			a, b = b, a
		}
		if !a.holds() || b.holds() {
			t.Fatal("not exactly one holder")
		}
		store.OnCommit(nil)
		lastSign := store.Snapshot().Lease("scheduler").GetMeta().GetUpdatedAt().AsTime()
		holder := store.Snapshot().Lease("scheduler").GetHolder()
		store.OnCommit(func(tx *storev1.Transaction) error {
			if l := tx.GetPuts()[0].GetObject().GetLease(); l.GetHolder() == holder || l.GetHolder() == "" {
				return errs.New(errs.Unavailable, "the host is dead")
			}
			return nil
		})
		a.stop()
		for !b.holds() {
			time.Sleep(10 * time.Millisecond)
			if time.Since(lastSign) > 2*ttl {
				t.Fatal("nobody took the lease")
			}
		}
		if waited := time.Since(lastSign); waited < ttl || waited > ttl+50*time.Millisecond {
			t.Errorf("taken %s after the last sign of life, want %s and as good as nothing", waited, ttl)
		}
		if number, _ := b.seat.Held(); number != 2 {
			t.Errorf("number %d, want 2", number)
		}
	})
}

// TestGapRestartsTheCount: silence during which the quorum confirmed nothing is not the holder's.
func TestGapRestartsTheCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		time.Sleep(time.Second)
		b := start(t, store, "b")
		time.Sleep(10 * time.Second)
		store.SetQuorum(false)
		time.Sleep(30 * time.Second)
		if a.holds() {
			t.Error("a holder that could not renew for 30 s still says that it holds the lease")
		}
		crash(t, store, a)
		store.SetQuorum(true)
		back := time.Now()
		for !b.holds() {
			time.Sleep(10 * time.Millisecond)
			if time.Since(back) > 3*ttl {
				t.Fatal("nobody took the lease")
			}
		}
		if waited := time.Since(back); waited < ttl {
			t.Errorf("taken %s after the quorum came back, want at least %s", waited, ttl)
		}
	})
}

// TestElection: when the quorum comes back the holder renews and goes on with its number; nobody takes it away.
func TestElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		time.Sleep(time.Second)
		b := start(t, store, "b")
		time.Sleep(5 * time.Second)
		for range 5 {
			store.SetQuorum(false)
			time.Sleep(4 * time.Second)
			store.SetQuorum(true)
			time.Sleep(4 * time.Second)
			if number, ok := a.seat.Held(); !ok || number != 1 || b.holds() {
				t.Fatalf("a holds %v with number %d, b holds %v", ok, number, b.holds())
			}
		}
	})
}

// TestPausedHolder: one that wakes after another has taken over is refused by the fence, steps down and does not try
// again with its number.
func TestPausedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		time.Sleep(time.Second)
		b := start(t, store, "b")
		time.Sleep(5 * time.Second)
		fence := a.seat.Fence()
		a.paused <- true
		time.Sleep(3 * ttl)
		if !b.holds() {
			t.Fatal("b did not take over from a paused holder")
		}
		conn := store.Dial(t)
		_, err := commit.New(storev1.NewCommitServiceClient(conn), run.NewRand(9)).Do(t.Context(), &storev1.Transaction{
			Preconditions: []*storev1.Precondition{fence},
			Puts: []*storev1.Put{{Create: true, Fields: []string{"annotations"},
				Object: state.Wrap(&typesv1.Config{Meta: &typesv1.Meta{Id: "x"}})}},
		})
		if commit.RefusalOf(err).GetRefusal() != storev1.RefusalReason_REFUSAL_REASON_FENCED {
			t.Errorf("a commit with the old fence: %v, want it refused", err)
		}
		a.paused <- false
		for range 30 {
			time.Sleep(time.Second)
			if a.holds() || !b.holds() {
				t.Fatalf("after the wake-up: a holds %v, b holds %v", a.holds(), b.holds())
			}
		}
	})
}

// TestPausedBlind: the holder is not even told by its replica: the refused renewal alone makes it step down.
func TestPausedBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		time.Sleep(5 * time.Second)
		var renewals int
		store.OnCommit(func(tx *storev1.Transaction) error {
			if tx.GetPuts()[0].GetObject().GetLease().GetHolder() == "scheduler/a" {
				renewals++
			}
			return nil
		})
		lost := a.seat.Changed()
		store.Mute(true)
		l := store.Snapshot().Lease("scheduler")
		store.Put(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}, Holder: "scheduler/b", Number: l.GetNumber() + 1, Ttl: l.GetTtl()}))
		<-lost
		synctest.Wait()
		if a.holds() {
			t.Error("still holds")
		}
		if renewals > 1 {
			t.Errorf("%d renewals after the loss, want at most one", renewals)
		}
	})
}

// TestRenewalWins: a renewal that reaches the store just before the take of a standby is a sign of life.
func TestRenewalWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		renewed := func() {
			store.Put(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}, Holder: "scheduler/x", Number: 7}))
		}
		renewed()
		attempts := 0
		store.OnCommit(func(*storev1.Transaction) error {
			if attempts++; attempts == 1 {
				renewed()
			}
			return nil
		})
		b := start(t, store, "b")
		time.Sleep(ttl + 2*time.Second)
		synctest.Wait()
		if attempts == 0 || b.holds() {
			t.Fatalf("%d attempts, b holds %v; want it refused", attempts, b.holds())
		}
		time.Sleep(ttl)
		if number, ok := b.seat.Held(); !ok || number != 8 {
			t.Errorf("after a whole silence: held %v, number %d, want number 8", ok, number)
		}
	})
}

// TestLostAnswer: a take whose answer was lost is taken up, with its number, once the replica shows it.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		store.LoseAnswers(1)
		a := start(t, store, "a")
		time.Sleep(ttl)
		if number, ok := a.seat.Held(); !ok || number != 1 {
			t.Errorf("held %v, number %d, want number 1", ok, number)
		}
	})
}

// TestRestart: a process that comes back finds its own lease and goes on at once, with a new number.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := replicatest.New(testx.Env(t))
		a := start(t, store, "a")
		time.Sleep(5 * time.Second)
		crash(t, store, a)
		store.OnCommit(nil)
		again := start(t, store, "a")
		time.Sleep(time.Second)
		if number, ok := again.seat.Held(); !ok || number != 2 {
			t.Errorf("held %v, number %d, want number 2", ok, number)
		}
	})
}
