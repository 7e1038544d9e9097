package session_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// busy is a way to a store that takes its time, and knows how many wait for it at once.
type busy struct {
	commit.Client
	takes     atomic.Int64
	now, most atomic.Int64
	silent    atomic.Int64 // machines that were told to be SUSPECT or DOWN
}

func (b *busy) Commit(ctx context.Context, in *storev1.CommitRequest, opts ...grpc.CallOption) (*storev1.CommitResponse, error) {
	for now := b.now.Add(1); ; {
		if most := b.most.Load(); now <= most || b.most.CompareAndSwap(most, now) {
			break
		}
	}
	defer b.now.Add(-1)
	for _, p := range in.GetTransaction().GetPuts() {
		if n := p.GetObject().GetNode(); n != nil && n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY {
			b.silent.Add(1)
		}
	}
	time.Sleep(time.Duration(b.takes.Load()))
	return b.Client.Commit(ctx, in, opts...)
}

// Ten thousand machines come at once to a dispatcher that was started anew. They are let in as fast as the store takes their
// sessions, so many at once as it bears; nobody is sent away, and nobody who waits is taken for silent.
func TestStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const machines, atOnce, takes = stampede, 64, 50 * time.Millisecond
		id := func(i int) string { return fmt.Sprintf("n%05d", i) }
		var objects []*typesv1.Object
		for i := range machines {
			objects = append(objects, state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id(i)}, Status: &typesv1.NodeStatus{
				State:   typesv1.NodeState_NODE_STATE_READY,
				Session: &typesv1.NodeSession{DispatcherId: self, Number: 1, BootId: "boot"},
			}}))
		}
		r := newRig(t, objects...)
		r.way.takes.Store(int64(takes))
		began := time.Now()
		var all sync.WaitGroup
		var welcomed, refused atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); all.Wait() }()
		for i := range machines {
			all.Go(func() {
				if err := r.live(ctx, id(i), &welcomed); err != nil && ctx.Err() == nil {
					refused.Add(1)
				}
			})
		}
		for welcomed.Load() < machines && refused.Load() == 0 && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		took := time.Since(began)
		if n := refused.Load(); n > 0 || welcomed.Load() < machines {
			t.Fatalf("%d were welcomed and %d refused within %s, want all of %d welcomed", welcomed.Load(), n, took, machines)
		}
		if least := machines / atOnce * takes; took > 2*least+time.Second {
			t.Errorf("it took %s; the store takes %d at once in %s, so %s would do", took, atOnce, takes, least)
		}
		if most := r.way.most.Load(); most > 2*atOnce {
			t.Errorf("%d commits were under way at once, want about %d", most, atOnce)
		}
		if n := r.way.silent.Load(); n > 0 {
			t.Errorf("%d that waited for their turn were told to be silent", n)
		}
	})
}

// live is a machine that opens a session and beats in it until ctx ends.
func (r *rig) live(ctx context.Context, node string, welcomed *atomic.Int64) error {
	stream, err := dispatcherv1.NewSessionServiceClient(r.conn).Session(metadata.AppendToOutgoingContext(ctx, "node", node))
	if err != nil {
		return err
	}
	if err := stream.Send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Hello{Hello: &dispatcherv1.Hello{
		Kind: dispatcherv1.SessionKind_SESSION_KIND_NODE, BootId: "boot", Addresses: []string{"10.0.0.1"}, HearsTimeout: true,
	}}}); err != nil {
		return err
	}
	for {
		got, err := stream.Recv()
		if err != nil {
			return err
		}
		if got.GetWelcome() == nil && got.GetHeartbeatAck().GetSeq() == 0 {
			continue
		}
		if got.GetWelcome() != nil {
			welcomed.Add(1)
		}
		time.Sleep(time.Second)
		if err := stream.Send(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Heartbeat{
			Heartbeat: &dispatcherv1.Heartbeat{Seq: 1},
		}}); err != nil {
			return err
		}
	}
}
