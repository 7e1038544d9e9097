package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/report"
)

// dispatcher is a fake that is as good as its settings.
type dispatcher struct {
	dispatcherv1.UnimplementedSessionServiceServer
	first []*dispatcherv1.SessionResponse // said after the welcome
	terse bool                            // its welcome has the number alone

	mu        sync.Mutex    // guards all below
	mute      bool          // hears and says nothing
	keepAcks  bool          // acknowledges heartbeats, not statuses
	period    time.Duration // told with the next acknowledgement
	patience  time.Duration // told with it
	turn      time.Duration // told with each acknowledgement
	late      time.Duration // that acknowledgement is
	slow      time.Duration // each answer to a heartbeat is on its way
	described []*typesv1.NodeDescription
	hellos    []*dispatcherv1.Hello
	beats     []time.Time
	batches   []*dispatcherv1.StatusBatch
}

func (d *dispatcher) Session(s grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		say := d.hear(m)
		if d.slow > 0 && m.GetHeartbeat() != nil {
			select {
			case <-time.After(d.slow):
			case <-s.Context().Done():
				return nil
			}
		}
		for _, r := range say {
			if err := s.Send(r); err != nil {
				return err
			}
		}
	}
}

func (d *dispatcher) hear(m *dispatcherv1.SessionRequest) []*dispatcherv1.SessionResponse {
	d.mu.Lock()
	defer d.mu.Unlock()
	var say []*dispatcherv1.SessionResponse
	switch m := m.GetMessage().(type) {
	case *dispatcherv1.SessionRequest_Hello:
		d.hellos = append(d.hellos, m.Hello)
		w := &dispatcherv1.Welcome{Session: 1}
		if !d.terse {
			w.HeartbeatPeriod, w.HeartbeatTimeout = durationpb.New(500*time.Millisecond), durationpb.New(2*time.Second)
		}
		say = append(say, &dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Welcome{Welcome: w}})
		say = append(say, d.first...)
	case *dispatcherv1.SessionRequest_Description:
		d.described = append(d.described, m.Description)
	case *dispatcherv1.SessionRequest_Heartbeat:
		d.beats = append(d.beats, time.Now())
		ack := &dispatcherv1.HeartbeatAck{Seq: m.Heartbeat.GetSeq()}
		if d.period > 0 {
			ack.HeartbeatPeriod, ack.HeartbeatTimeout = durationpb.New(d.period), durationpb.New(d.patience)
			d.period = 0
			time.Sleep(d.late)
		}
		if d.turn > 0 {
			ack.NextHeartbeat = durationpb.New(d.turn)
		}
		say = append(say, &dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_HeartbeatAck{HeartbeatAck: ack}})
	case *dispatcherv1.SessionRequest_Status:
		d.batches = append(d.batches, m.Status)
		if !d.keepAcks {
			say = append(say, &dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_StatusAck{
				StatusAck: &dispatcherv1.StatusAck{Seq: m.Status.GetSeq()},
			}})
		}
	}
	if d.mute {
		return nil
	}
	return say
}

func (d *dispatcher) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// sessions and said count what was heard.
func (d *dispatcher) sessions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.hellos)
}

func (d *dispatcher) said() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.batches)
}

// machine is a fake loop.
type machine struct {
	adopted chan struct{}

	mu       sync.Mutex // guards all below
	refusal  error
	taken    []*dispatcherv1.Assignment
	barriers []*typesv1.Version
	acked    int
	lines    []bool
}

func (m *machine) Payload(context.Context, *dispatcherv1.Payload) {}

func (m *machine) Line(_ context.Context, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, up)
}

func (m *machine) Adopted() <-chan struct{}     { return m.adopted }
func (m *machine) Generation() *typesv1.Version { return &typesv1.Version{Revision: 42} }

func (m *machine) Assign(_ context.Context, a *dispatcherv1.Assignment) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken = append(m.taken, a)
	return m.refusal
}

func (m *machine) Barrier(_ context.Context, v *typesv1.Version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.barriers = append(m.barriers, v)
}

func (m *machine) Acked(_ context.Context, batch []*dispatcherv1.TaskStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked += len(batch)
}

func (m *machine) ackedTasks() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acked
}

type fixed struct{}

func (fixed) Set(*cav1.Directory) error { return nil }
func (fixed) Changed() <-chan struct{}  { return nil }

type quiet struct{}

func (quiet) Set(string, bool, string) {}

// rig runs a client against the dispatchers until the test ends.
type rig struct {
	*Client
	machine *machine
	trusted [][]byte
	changed chan struct{} // what the machine is
}

func newRig(t *testing.T, dispatchers map[string]*dispatcher) *rig {
	t.Helper()
	env := testx.Env(t)
	r := &rig{machine: &machine{adopted: make(chan struct{})}, changed: make(chan struct{}, 1)}
	var entries []*cav1.DirectoryEntry
	for name, d := range dispatchers {
		l, err := env.Net.Listen(t.Context(), "tcp", name)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		dispatcherv1.RegisterSessionServiceServer(server, d)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		entries = append(entries, &cav1.DirectoryEntry{MachineId: name, Addresses: []string{name}})
	}
	r.Client = &Client{
		Env: env, Directory: fixed{}, Machine: r.machine, Outbox: report.New(), Health: quiet{},
		Dispatchers: func() []*cav1.DirectoryEntry { return entries },
		Dial: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return env.Net.Dial(ctx, "tcp", a) }),
				grpc.WithStreamInterceptor(errs.StreamClient()))
		},
		Trust:      func(bundle []byte, _ []string) { r.trusted = append(r.trusted, bundle) },
		Describe:   func(context.Context) *typesv1.NodeDescription { return &typesv1.NodeDescription{Hostname: "h"} },
		Redescribe: r.changed,
		Hello:      &dispatcherv1.Hello{Kind: dispatcherv1.SessionKind_SESSION_KIND_NODE, BootId: "b"},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func pass(t *testing.T, d time.Duration) {
	t.Helper()
	if err := run.Sleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestHelloWaitsAndHeartbeatsFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{first: []*dispatcherv1.SessionResponse{
			{Message: &dispatcherv1.SessionResponse_Assignment{Assignment: &dispatcherv1.Assignment{Full: true}}},
			{Message: &dispatcherv1.SessionResponse_Barrier{Barrier: &dispatcherv1.MeshBarrier{Applied: &typesv1.Version{Revision: 3}}}},
			{Message: &dispatcherv1.SessionResponse_Trust{Trust: &dispatcherv1.Trust{Bundle: []byte("pem")}}},
		}}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		pass(t, time.Minute)
		if d.sessions() > 0 {
			t.Fatal("said hello before it knew what runs")
		}
		close(r.machine.adopted)
		pass(t, 10*time.Second)
		d.set(func() {
			if len(d.hellos) != 1 || d.hellos[0].GetGeneration().GetRevision() != 42 || d.hellos[0].GetDescription().GetHostname() != "h" {
				t.Errorf("hellos %v", d.hellos)
			}
			if n := len(d.beats); n < 18 || n > 23 {
				t.Errorf("%d heartbeats in 10 s, wanted about 20", n)
			}
		})
		// What the machine is has changed: the dispatcher hears it, once, in the same session.
		r.changed <- struct{}{}
		pass(t, time.Second)
		d.set(func() {
			if len(d.described) != 1 || d.described[0].GetHostname() != "h" || len(d.hellos) != 1 {
				t.Errorf("after a change %v is described in %d sessions", d.described, len(d.hellos))
			}
		})
		if len(r.machine.taken) != 1 || len(r.machine.barriers) != 1 || len(r.trusted) != 1 {
			t.Errorf("handed on: %v %v %v", r.machine.taken, r.machine.barriers, r.trusted)
		}
	})
}

// TestSilence: an agent without an acknowledgement for 2 s is with another dispatcher before 4 s, when it would be DOWN.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d1, d2 := &dispatcher{}, &dispatcher{}
		r := newRig(t, map[string]*dispatcher{"d1:1": d1, "d2:1": d2})
		close(r.machine.adopted)
		pass(t, 5*time.Second)
		first, second := d1, d2
		if d2.sessions() > 0 {
			first, second = d2, d1
		}
		if first.sessions() != 1 || second.sessions() != 0 {
			t.Fatalf("sessions: %d and %d", first.sessions(), second.sessions())
		}
		first.set(func() { first.mute = true })
		pass(t, 1400*time.Millisecond)
		if second.sessions() > 0 {
			t.Error("went too early: one lost heartbeat is no reason")
		}
		pass(t, 1200*time.Millisecond)
		if second.sessions() != 1 {
			t.Error("did not go elsewhere")
		}
		second.set(func() { second.mute = true })
		pass(t, time.Minute)
		if first.sessions() < 2 {
			t.Error("never came back")
		}
	})
}

// halting gives no ticks while it is held, as a machine without a turn has none.
type halting struct {
	run.Ticker
	held *atomic.Bool
	c    chan time.Time
	done chan struct{}
}

func newHalting(t run.Ticker, held *atomic.Bool) *halting {
	h := &halting{Ticker: t, held: held, c: make(chan time.Time, 1), done: make(chan struct{})}
	go func() {
		for {
			select {
			case at := <-t.C():
				if !held.Load() {
					select {
					case h.c <- at:
					default:
					}
				}
			case <-h.done:
				return
			}
		}
	}()
	return h
}

func (h *halting) C() <-chan time.Time { return h.c }
func (h *halting) Stop()               { h.Ticker.Stop(); close(h.done) }

// TestOwnPauseIsNoSilence: a machine that had no turn itself does not take its dispatcher for silent, and stays, however often
// it is to beat.
func TestOwnPauseIsNoSilence(t *testing.T) {
	const ms = time.Millisecond
	for _, told := range []struct{ period, patience, turn time.Duration }{
		{500 * ms, 2000 * ms, 0}, {1000 * ms, 2000 * ms, 980 * ms}, {1500 * ms, 2500 * ms, 1480 * ms}, {2000 * ms, 3000 * ms, 1980 * ms},
	} {
		for range 5 { // the jitter of the period differs
			synctest.Test(t, func(t *testing.T) {
				ownPause(t, &dispatcher{period: told.period, patience: told.patience, turn: told.turn})
			})
		}
	}
}

func ownPause(t *testing.T, d *dispatcher) {
	period := d.period
	r := newRig(t, map[string]*dispatcher{"d1:1": d})
	r.Env.Rand = run.NewRand(rand.Uint64())
	plain, pause := r.Env.Ticker, &atomic.Bool{}
	r.Env.Ticker = func(d time.Duration) run.Ticker { return newHalting(plain(d), pause) }
	close(r.machine.adopted)
	pass(t, 5*time.Second)
	for range 5 {
		pause.Store(true)
		pass(t, 7*time.Second)
		pause.Store(false)
		pass(t, 3*time.Second)
	}
	if d.sessions() != 1 {
		t.Errorf("heartbeats each %s: %d sessions, wanted the first to last", period, d.sessions())
	}
}

// TestAnotherPeriod: a dispatcher that has many machines asks for fewer heartbeats in the midst of a session.
func TestAnotherPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{period: time.Second}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		pass(t, 20*time.Second)
		d.set(func() {
			if n := len(d.beats); n < 18 || n > 24 || len(d.hellos) != 1 {
				t.Errorf("%d heartbeats in 20 s and %d sessions, wanted about 20 in one", n, len(d.hellos))
			}
		})
	})
}

// TestAnotherPeriodToldLate: a machine that hears of another period late does not make up for it: from one heartbeat to the next it
// is never longer than the longer period.
func TestAnotherPeriodToldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{period: 1125 * time.Millisecond, late: 400 * time.Millisecond}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		pass(t, 10*time.Second)
		d.set(func() {
			for i := 1; i < len(d.beats); i++ {
				if gap := d.beats[i].Sub(d.beats[i-1]); gap > 1125*11*time.Millisecond/10+time.Millisecond {
					t.Errorf("heartbeat %d came %s after the one before", i+1, gap)
				}
			}
			if len(d.beats) < 9 || len(d.beats) > 12 {
				t.Errorf("%d heartbeats in 10 s, wanted about 10", len(d.beats))
			}
		})
	})
}

// TestToldPatience: a machine that is asked for fewer heartbeats waits for their answers as long as it is told, and no longer.
func TestToldPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{period: 2 * time.Second, patience: 3 * time.Second}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		pass(t, 30*time.Second)
		if d.sessions() != 1 {
			t.Fatalf("%d sessions, wanted the first to last", d.sessions())
		}
		var last time.Time
		d.set(func() { d.mute, last = true, d.beats[len(d.beats)-1] })
		pass(t, time.Until(last.Add(2900*time.Millisecond)))
		if d.sessions() != 1 {
			t.Error("left before its patience was over")
		}
		pass(t, 400*time.Millisecond)
		if d.sessions() != 2 {
			t.Error("did not leave when its patience was over")
		}
	})
}

// TestTurns: a machine beats when it is told to, and without an answer by its period, however soon its turn was.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{turn: 100 * time.Millisecond}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		pass(t, time.Second)
		d.set(func() {
			for i := 1; i < len(d.beats); i++ {
				if gap := d.beats[i].Sub(d.beats[i-1]); gap < 100*time.Millisecond || gap > 101*time.Millisecond {
					t.Errorf("heartbeat %d came %s after the one before", i+1, gap)
				}
			}
			if len(d.beats) < 9 {
				t.Errorf("%d heartbeats in 1 s, wanted 10", len(d.beats))
			}
			d.mute, d.beats = true, nil
		})
		pass(t, 1900*time.Millisecond)
		d.set(func() {
			if len(d.beats) < 3 || len(d.beats) > 5 {
				t.Errorf("%d heartbeats in 1.9 s without an answer, wanted about 4", len(d.beats))
			}
		})
	})
}

// TestTurnToldLate: a machine that hears of its turn late does not make up for it: whoever beats each 2 s would be SUSPECT at 3 s.
func TestTurnToldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{period: 2 * time.Second, patience: 3 * time.Second, turn: 1980 * time.Millisecond, slow: 1200 * time.Millisecond}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		pass(t, 30*time.Second)
		d.set(func() {
			for i := 1; i < len(d.beats); i++ {
				if gap := d.beats[i].Sub(d.beats[i-1]); gap > 2201*time.Millisecond {
					t.Errorf("heartbeat %d came %s after the one before", i+1, gap)
				}
			}
			if len(d.beats) < 12 || len(d.beats) > 18 || len(d.hellos) != 1 {
				t.Errorf("%d heartbeats in 30 s and %d sessions, wanted about 15 in one", len(d.beats), len(d.hellos))
			}
		})
	})
}

// TestStatusUntilAcked: a status is said again, here and elsewhere, until it is acknowledged; and then no more.
func TestStatusUntilAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{keepAcks: true}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		r.Outbox.Put("a", &typesv1.TaskObserved{Seq: 1})
		pass(t, time.Second)
		r.Outbox.Put("b", &typesv1.TaskObserved{Seq: 1})
		r.Outbox.Put("a", &typesv1.TaskObserved{Seq: 2})
		pass(t, 2500*time.Millisecond)
		d.set(func() {
			last := d.batches[len(d.batches)-1]
			if len(d.batches) != 2 || len(last.GetTasks()) != 2 || last.GetTasks()[0].GetObserved().GetSeq() != 2 {
				t.Errorf("batches %v", d.batches)
			}
			d.keepAcks = false
		})
		pass(t, 3*time.Second)
		if n := r.machine.ackedTasks(); n != 2 || len(r.Outbox.Pending(10)) != 0 {
			t.Errorf("acknowledged %d, left %v", n, r.Outbox.Pending(10))
		}
		said := d.said()
		pass(t, time.Minute)
		if d.said() != said {
			t.Error("said again what was acknowledged")
		}
		before := time.Now()
		r.Outbox.Put("c", &typesv1.TaskObserved{Seq: 1})
		pass(t, 100*time.Millisecond)
		if d.said() != said+1 {
			t.Errorf("a new status was not said within %v", time.Since(before))
		}
	})
}

// TestRefusalEndsTheSession: a dispatcher that is behind what this machine has applied is left.
func TestRefusalEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{first: []*dispatcherv1.SessionResponse{
			{Message: &dispatcherv1.SessionResponse_Assignment{Assignment: &dispatcherv1.Assignment{Full: true}}},
		}}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		r.machine.refusal = errors.New("older")
		close(r.machine.adopted)
		pass(t, 5*time.Second)
		d.set(func() {
			if n := len(d.hellos); n < 2 || n > 120 {
				t.Errorf("%d sessions in 5 s", n)
			}
		})
	})
}
