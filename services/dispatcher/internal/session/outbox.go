package session

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/status"
)

// maxBatch bounds a status batch.
const maxBatch = 1000

// outbox keeps the acknowledgements that wait for the sender: only the latest of each kind counts.
type outbox struct {
	wake chan struct{} // holds one token when something waits

	mu        sync.Mutex // guards below
	heartbeat uint64
	status    uint64
}

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

func (b *outbox) put(set func()) {
	b.mu.Lock()
	set()
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *outbox) flush(stream grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse]) error {
	b.mu.Lock()
	heartbeat, st := b.heartbeat, b.status
	b.heartbeat, b.status = 0, 0
	b.mu.Unlock()
	if heartbeat != 0 {
		if err := stream.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_HeartbeatAck{
			HeartbeatAck: &dispatcherv1.HeartbeatAck{Seq: heartbeat},
		}}); err != nil {
			return err
		}
	}
	if st == 0 {
		return nil
	}
	return stream.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_StatusAck{
		StatusAck: &dispatcherv1.StatusAck{Seq: st},
	}})
}

// receive hears a machine until its stream ends.
func (s *Server) receive(ctx context.Context,
	stream grpc.BidiStreamingServer[dispatcherv1.SessionRequest, dispatcherv1.SessionResponse],
	node string, number uint64, box *outbox,
) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.table.Heard(node, number, time.Now())
		switch m := m.GetMessage().(type) {
		case *dispatcherv1.SessionRequest_Heartbeat:
			box.put(func() { box.heartbeat = m.Heartbeat.GetSeq() })
		case *dispatcherv1.SessionRequest_Status:
			if err := s.report(ctx, node, number, m.Status, box); err != nil {
				return err
			}
		case *dispatcherv1.SessionRequest_Description:
			if err := s.describe(ctx, node, number, m.Description); err != nil {
				return err
			}
		default:
			return errs.New(errs.Invalid, "session: a message of an unknown kind, or a second hello")
		}
	}
}

func (s *Server) report(ctx context.Context, node string, number uint64, b *dispatcherv1.StatusBatch, box *outbox) error {
	if len(b.GetTasks()) > maxBatch {
		return errs.New(errs.Invalid, "status batch: %d tasks, at most %d", len(b.GetTasks()), maxBatch)
	}
	seq := b.GetSeq()
	return s.statuses.Add(ctx, status.Report{
		NodeID: node, Session: number, Tasks: b.GetTasks(),
		Done: func() { box.put(func() { box.status = max(box.status, seq) }) },
	})
}

// describe writes a changed description. It happens at most every few seconds a machine.
func (s *Server) describe(ctx context.Context, node string, number uint64, d *typesv1.NodeDescription) error {
	n := s.view.Snapshot().Node(node)
	if n.GetStatus().GetSession().GetNumber() != number {
		return nil
	}
	st := cloneStatus(n.GetStatus())
	st.Description = d
	tx := &storev1.Transaction{
		Preconditions: []*storev1.Precondition{commit.Unchanged(typesv1.Kind_KIND_NODE, node, n.GetMeta().GetRevision())},
		Puts: []*storev1.Put{commit.Put(state.Wrap(&typesv1.Node{
			Meta: &typesv1.Meta{Id: node}, Status: st,
		}), "status")},
	}
	if _, err := s.commit.Do(ctx, tx); err != nil && commit.RefusalOf(err) == nil {
		return err
	}
	return nil
}
