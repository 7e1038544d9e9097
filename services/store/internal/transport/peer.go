package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
)

const (
	queueLength = 4096
	// batchBytes bounds a batch; one message more may be in it, of about 1 MiB: a store takes 16.
	batchBytes   = 1 << 20
	redial       = 100 * time.Millisecond
	snapshotTime = 10 * time.Minute
)

// peer is the way to one member.
type peer struct {
	t         *Transport
	id        uint64
	machine   string
	addresses []string
	cancel    context.CancelFunc
	queue     chan *raftpb.Message
	snapshots chan raftnode.Outgoing

	mu     sync.Mutex // guards all below
	conn   *grpc.ClientConn
	tried  int
	closed bool // for good: who asks late must not open what nobody closes
}

// put never blocks: a full queue loses the message.
func (p *peer) put(m raftnode.Outgoing) {
	if m.Parts != nil {
		select {
		case p.snapshots <- m:
		default: // one is on its way; raft asks again when that has failed
		}
		return
	}
	select {
	case p.queue <- m.Message:
	default:
	}
}

// connect is the connection in use, or a new one to the next address.
func (p *peer) connect() (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errs.New(errs.Unavailable, "the way to store %s is closed", p.machine)
	}
	if p.conn != nil {
		return p.conn, nil
	}
	conn, err := p.t.dial(p.addresses[p.tried%len(p.addresses)])
	if err != nil {
		return nil, err
	}
	p.conn = conn
	return conn, nil
}

// drop gives the connection up, if it is still the one in use and there is another address to try.
func (p *peer) drop(conn *grpc.ClientConn) {
	p.mu.Lock()
	same := p.conn == conn && len(p.addresses) > 1
	if same {
		p.conn = nil
		p.tried++
	}
	p.mu.Unlock()
	if same {
		_ = conn.Close() // nobody waits for anything of it
	}
}

func (p *peer) closeConn() {
	p.mu.Lock()
	conn := p.conn
	p.conn, p.closed = nil, true
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}

// run sends messages, stream after stream.
func (p *peer) run(ctx context.Context) error {
	defer p.closeConn()
	for {
		err := p.stream(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.note(err)
		p.t.node.Unreachable(p.id)
		p.forget()
		if err := run.Sleep(ctx, redial); err != nil {
			return err
		}
	}
}

// note looks whether the peer has told that this member is not welcome any more.
func (p *peer) note(err error) {
	for _, f := range errs.FaultsOf(err) {
		if f.Field == removedField {
			p.t.removed(errs.New(errs.Precondition, "store %s says that this store was removed from the cluster", p.machine))
		}
	}
	p.t.log.Debug("raft stream ended", "peer", p.machine, "error", err)
}

// forget empties the queue: what is old when the connection is back only delays what is new.
func (p *peer) forget() {
	for {
		select {
		case <-p.queue:
		default:
			return
		}
	}
}

func (p *peer) stream(ctx context.Context) error {
	conn, err := p.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := storev1.NewRaftServiceClient(conn).Send(ctx)
	if err != nil {
		p.drop(conn)
		return err
	}
	for {
		var m *raftpb.Message
		select {
		case m = <-p.queue:
		case <-s.Context().Done():
			return answerOf(s, io.EOF)
		}
		req, err := p.batch(m)
		if err != nil {
			return err
		}
		if err := s.Send(req); err != nil {
			p.drop(conn)
			return answerOf(s, err)
		}
	}
}

// answerOf is why the other side has ended the stream: Send itself says EOF alone.
func answerOf(s grpc.ClientStreamingClient[storev1.SendRequest, storev1.SendResponse], err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if _, err := s.CloseAndRecv(); err != nil {
		return err
	}
	return io.EOF
}

// batch is the message and what waits behind it.
func (p *peer) batch(m *raftpb.Message) (*storev1.SendRequest, error) {
	req := &storev1.SendRequest{To: p.id}
	if at, ok := p.t.node.Leads(); ok {
		req.ClusterTime = timestamppb.New(at)
	}
	size := 0
	for {
		raw, err := proto.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("marshal a raft message: %w", err)
		}
		req.Messages = append(req.Messages, raw)
		if size += len(raw); size >= batchBytes {
			return req, nil
		}
		select {
		case m = <-p.queue:
		default:
			return req, nil
		}
	}
}

func (p *peer) runSnapshots(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-p.snapshots:
			err := p.sendSnapshot(ctx, o)
			if err != nil && ctx.Err() == nil {
				p.t.log.Warn("snapshot was not sent", "peer", p.machine, "error", err)
			}
			p.t.node.SnapshotSent(p.id, err == nil)
		}
	}
}

func (p *peer) sendSnapshot(ctx context.Context, o raftnode.Outgoing) error {
	conn, err := p.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotTime)
	defer cancel()
	s, err := storev1.NewRaftServiceClient(conn).Send(ctx)
	if err != nil {
		return err
	}
	for part, err := range o.Parts {
		if err != nil {
			return err
		}
		if err := s.Send(&storev1.SendRequest{To: p.id, Parts: [][]byte{part}}); err != nil {
			return answerOf(s, err)
		}
	}
	req, err := p.batch(o.Message)
	if err != nil {
		return err
	}
	if err := s.Send(req); err != nil {
		return answerOf(s, err)
	}
	_, err = s.CloseAndRecv()
	return err
}
