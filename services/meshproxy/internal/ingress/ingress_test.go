package ingress_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/ingress"
)

// dispatcher welcomes and acknowledges. Period and patience go with the next acknowledgement.
type dispatcher struct {
	dispatcherv1.UnimplementedSessionServiceServer

	mu       sync.Mutex // guards all below
	period   time.Duration
	patience time.Duration
	mute     bool          // says nothing more
	late     time.Duration // the acknowledgement that tells the period
	hellos   int
	beats    int
	last     time.Time     // when it was heard last
	gap      time.Duration // the longest from one heartbeat to the next
}

func (d *dispatcher) Session(s grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		r := &dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Welcome{Welcome: &dispatcherv1.Welcome{
			Session: 1, HeartbeatPeriod: durationpb.New(500 * time.Millisecond), HeartbeatTimeout: durationpb.New(2 * time.Minute),
		}}}
		if beat := m.GetHeartbeat(); beat != nil {
			r.Message = &dispatcherv1.SessionResponse_HeartbeatAck{HeartbeatAck: d.acknowledge(beat.GetSeq())}
		}
		if d.silent(m.GetHello() != nil) {
			continue
		}
		if err := s.Send(r); err != nil {
			return err
		}
	}
}

func (d *dispatcher) silent(hello bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if hello {
		d.hellos++
	}
	return d.mute
}

func (d *dispatcher) acknowledge(seq uint64) *dispatcherv1.HeartbeatAck {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.beats++
	now := time.Now()
	if !d.last.IsZero() {
		d.gap = max(d.gap, now.Sub(d.last))
	}
	d.last = now
	ack := &dispatcherv1.HeartbeatAck{Seq: seq}
	if d.period > 0 {
		ack.HeartbeatPeriod, ack.HeartbeatTimeout, d.period = durationpb.New(d.period), durationpb.New(d.patience), 0
		time.Sleep(d.late)
	}
	return ack
}

// slower asks for another period, and counts anew.
func (d *dispatcher) slower(period time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.period, d.beats = period, 0
}

func (d *dispatcher) heard() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.beats
}

// run plays a machine without an agent, at that dispatcher, while f runs.
func (d *dispatcher) run(t *testing.T, f func()) {
	t.Helper()
	env := testx.Env(t)
	l, err := env.Net.Listen(t.Context(), "tcp", "d1:1")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	dispatcherv1.RegisterSessionServiceServer(server, d)
	go func() { _ = server.Serve(l) }()
	s := &ingress.Session{
		Env: env, Hello: &dispatcherv1.Hello{BootId: "b"},
		Dispatchers: func() []*cav1.DirectoryEntry {
			return []*cav1.DirectoryEntry{{MachineId: "d1", Addresses: []string{"d1:1"}}}
		},
		Dial: func(address string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return env.Net.Dial(ctx, "tcp", a) }))
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	server.Stop()
}

// TestPaceOfTheDispatcher: a machine without an agent beats as fast as the dispatcher has said last, in the session that it has.
func TestPaceOfTheDispatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{}
		d.run(t, func() {
			for _, step := range []struct {
				period      time.Duration
				least, most int
			}{{0, 17, 24}, {10 * time.Second, 1, 3}, {time.Second, 1, 13}, {0, 8, 12}} {
				d.slower(step.period)
				if err := run.Sleep(t.Context(), 10*time.Second); err != nil {
					t.Fatal(err)
				}
				if n := d.heard(); n < step.least || n > step.most {
					t.Errorf("after it was told %s: %d heartbeats in 10 s, want %d to %d", step.period, n, step.least, step.most)
				}
			}
		})
	})
}

// TestPatienceToldWithThePace: a machine without an agent leaves a dispatcher that says nothing when the patience is over that it was told
// last, whenever its next heartbeat would be due.
func TestPatienceToldWithThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{period: 2 * time.Second, patience: 3 * time.Second}
		d.run(t, func() {
			pass := func(how time.Duration) (hellos int, last time.Time) {
				if err := run.Sleep(t.Context(), how); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				d.mu.Lock()
				defer d.mu.Unlock()
				return d.hellos, d.last
			}
			hellos, last := pass(30 * time.Second)
			d.mu.Lock()
			d.mute = true
			d.mu.Unlock()
			if n, _ := pass(time.Until(last.Add(2900 * time.Millisecond))); hellos != 1 || n != 1 {
				t.Errorf("%d sessions, and %d after a silence of 2.9 s, want the first to last", hellos, n)
			}
			if n, _ := pass(400 * time.Millisecond); n != 2 {
				t.Errorf("%d sessions after a silence of 3.3 s, want a second", n)
			}
		})
	})
}

// TestPaceToldLate: with an answer that comes late the next heartbeat does not come later than the period that it tells.
func TestPaceToldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{period: 1125 * time.Millisecond, late: 400 * time.Millisecond}
		d.run(t, func() {
			if err := run.Sleep(t.Context(), 10*time.Second); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := d.heard(); n < 9 || n > 12 {
				t.Errorf("%d heartbeats in 10 s, want about 10", n)
			}
			if longest := 1125*11*time.Millisecond/10 + time.Millisecond; d.gap > longest {
				t.Errorf("%s between two heartbeats, want %s at most", d.gap, longest)
			}
		})
	})
}
