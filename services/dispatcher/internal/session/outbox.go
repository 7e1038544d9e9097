package session

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/status"
)

// maxBatch bounds a status batch.
const maxBatch = 1000

// outbox keeps what waits for the sender and the describer: only the latest of each kind counts.
type outbox struct {
	bell func() // has the sender look here

	mu          sync.Mutex // guards below
	news        bool       // the store may have something new for the machine
	heartbeat   uint64
	status      uint64
	description *typesv1.NodeDescription
	payloads    []*dispatcherv1.Payload    // fetched, not sent yet
	need        []string                   // payloads that the machine's tasks need
	had         map[string]bool            // of these, those that were fetched for it
	asked       []*dispatcherv1.OpenStream // the one thing of which each counts
}

// maxAsked is how many data streams a machine may have been asked for that has not heard it yet.
const maxAsked = 256

// ask reports false when too many wait already.
func (b *outbox) ask(m *dispatcherv1.OpenStream) (ok bool) {
	b.put(func() {
		if ok = len(b.asked) < maxAsked; ok {
			b.asked = append(b.asked, m)
		}
	})
	return ok
}

func (b *outbox) takeAsked() []*dispatcherv1.OpenStream {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked
	b.asked = nil
	return asked
}

func newOutbox() *outbox { return &outbox{bell: func() {}} }

func (b *outbox) put(set func()) {
	b.mu.Lock()
	set()
	b.mu.Unlock()
	b.bell()
}

// refresh has the sender look for what is new in the store.
func (b *outbox) refresh() { b.put(func() { b.news = true }) }

func (b *outbox) takeNews() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.news
	b.news = false
	return news
}

// require notes what the tasks of an assignment need that has just been sent. What none needs is forgotten here and now, as
// the machine forgets it: the next assignment may need it again before anybody has looked.
// It reports whether something of it has not been fetched yet.
func (b *outbox) require(ids []string) (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.need = ids
	var had map[string]bool
	for _, id := range ids {
		if !b.had[id] {
			more = true
			continue
		}
		if had == nil {
			had = map[string]bool{}
		}
		had[id] = true
	}
	b.had = had
	b.payloads = slices.DeleteFunc(b.payloads, func(p *dispatcherv1.Payload) bool { return !had[p.GetId()] })
	return more
}

// missing are the payloads that are needed and have not been fetched.
func (b *outbox) missing() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.need), func(id string) bool { return b.had[id] })
}

// deliver hands a payload to the sender, unless no task needs it any more.
func (b *outbox) deliver(p *dispatcherv1.Payload) {
	b.put(func() {
		if slices.Contains(b.need, p.GetId()) {
			if b.had == nil {
				b.had = map[string]bool{}
			}
			b.had[p.GetId()] = true
			b.payloads = append(b.payloads, p)
		}
	})
}

// takePayload gives one at a time, so that acknowledgements go between them, and rings for the next.
func (b *outbox) takePayload() *dispatcherv1.Payload {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.payloads) == 0 {
		return nil
	}
	p := b.payloads[0]
	b.payloads = b.payloads[1:]
	if len(b.payloads) > 0 {
		defer b.bell()
	}
	return p
}

func (b *outbox) takeDescription() *typesv1.NodeDescription {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.description
	b.description = nil
	return d
}

// beat notes a heartbeat to answer. It reports whether none waited for that before: who beats without end is noted once.
func (b *outbox) beat(seq uint64) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first = b.heartbeat == 0 && seq != 0
	b.heartbeat = max(b.heartbeat, seq)
	return first
}

func (b *outbox) takeAcks() (heartbeat, status uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	heartbeat, status = b.heartbeat, b.status
	b.heartbeat, b.status = 0, 0
	return heartbeat, status
}

// flush sends what waits. Ack makes the answer to a heartbeat.
func (b *outbox) flush(str stream, ack func(seq uint64) *dispatcherv1.HeartbeatAck) error {
	heartbeat, st := b.takeAcks()
	if heartbeat != 0 {
		if err := str.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_HeartbeatAck{HeartbeatAck: ack(heartbeat)}}); err != nil {
			return err
		}
	}
	if p := b.takePayload(); p != nil {
		if err := str.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Payload{Payload: p}}); err != nil {
			return err
		}
	}
	for _, m := range b.takeAsked() {
		if err := str.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_OpenStream{OpenStream: m}}); err != nil {
			return err
		}
	}
	if st == 0 {
		return nil
	}
	return str.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_StatusAck{
		StatusAck: &dispatcherv1.StatusAck{Seq: st},
	}})
}

// receive hears a machine until its stream ends. It waits for nothing else: heartbeats that queue behind a slow store would
// look like silence.
func (s *Server) receive(ctx context.Context, l *line) error {
	for {
		m, err := l.stream.Recv()
		if errors.Is(err, io.EOF) {
			return errClosed
		}
		if err != nil {
			return err
		}
		s.Table.Heard(l.node, l.number, time.Now())
		switch m := m.GetMessage().(type) {
		case *dispatcherv1.SessionRequest_Heartbeat:
			if first := l.box.beat(m.Heartbeat.GetSeq()); first {
				s.answers.add(l)
			}
		case *dispatcherv1.SessionRequest_Status:
			if err := s.report(l, m.Status); err != nil {
				return err
			}
		case *dispatcherv1.SessionRequest_Usage:
			if err := s.Usage.Report(l.node, m.Usage); err != nil {
				return err
			}
		case *dispatcherv1.SessionRequest_Description:
			if size := proto.Size(m.Description); size > maxDescription {
				return errs.New(errs.Invalid, "description: %d bytes, at most %d", size, maxDescription)
			}
			l.box.mu.Lock()
			l.box.description = m.Description
			l.box.mu.Unlock()
			l.describing.start(ctx, func(ctx context.Context) { s.describe(ctx, l) })
		case *dispatcherv1.SessionRequest_Refusal:
			s.Refused(l.node, m.Refusal)
		case nil: // of a kind that this version does not know: the machine has been upgraded first, and can do without
		default:
			return errs.New(errs.Invalid, "session: a second hello")
		}
	}
}

func (s *Server) report(l *line, b *dispatcherv1.StatusBatch) error {
	if len(b.GetTasks()) > maxBatch {
		return errs.New(errs.Invalid, "status batch: %d tasks, at most %d", len(b.GetTasks()), maxBatch)
	}
	seq := b.GetSeq()
	return s.Statuses.Add(status.Report{
		NodeID: l.node, Session: l.number, Tasks: b.GetTasks(),
		Done: func() { l.box.put(func() { l.box.status = max(l.box.status, seq) }) },
	})
}
