package transport

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
)

// removedField is the fault that tells a store that it was removed.
const removedField = "from"

// maxSnapshot bounds what one stream may make this member hold.
const maxSnapshot = 2 << 30

// Receive serves RaftService.Send. It ends a stream also when its sender is removed: a member that was removed hears of it
// here or nowhere.
func (t *Transport) Receive(s grpc.ClientStreamingServer[storev1.SendRequest, storev1.SendResponse]) error {
	caller, _ := rpc.CallerOf(s.Context())
	in := &inbound{t: t, stream: s, machine: caller.Principal.Name}
	done := run.Async(s.Context(), in.loop)
	for {
		v, changed := t.node.Watch()
		if slices.Contains(v.Removed, in.from.Load()) {
			return wasRemoved()
		}
		select {
		case r := <-done:
			if r.Err != nil {
				return r.Err
			}
			return s.SendAndClose(r.Value)
		case <-changed:
		}
	}
}

func wasRemoved() error {
	return errs.WithFaults(errs.Precondition, "raft message",
		errs.Fault{Field: removedField, Reason: "this member was removed from the cluster"})
}

// inbound is one stream that comes in.
type inbound struct {
	t       *Transport
	stream  grpc.ClientStreamingServer[storev1.SendRequest, storev1.SendResponse]
	machine string
	from    atomic.Uint64 // the sender's Raft id, once it has said something
	parts   [][]byte
	size    int
}

func (in *inbound) loop(context.Context) (*storev1.SendResponse, error) {
	for {
		req, err := in.stream.Recv()
		if errors.Is(err, io.EOF) {
			return &storev1.SendResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := in.take(req); err != nil {
			return nil, err
		}
	}
}

func (in *inbound) take(req *storev1.SendRequest) error {
	node := in.t.node
	if req.GetTo() != node.ID() {
		return errs.New(errs.Precondition, "raft member %x is not here, this is %x", req.GetTo(), node.ID())
	}
	for _, part := range req.GetParts() {
		if in.size += len(part); in.size > maxSnapshot {
			return errs.New(errs.Exhausted, "a snapshot is larger than %d bytes", maxSnapshot)
		}
		in.parts = append(in.parts, part)
	}
	for _, raw := range req.GetMessages() {
		m := &raftpb.Message{}
		if err := proto.Unmarshal(raw, m); err != nil {
			return errs.New(errs.Invalid, "raft message: %w", err)
		}
		if err := in.check(m); err != nil {
			return err
		}
		inc := raftnode.Incoming{Message: m}
		if req.GetClusterTime() != nil {
			inc.Time = req.GetClusterTime().AsTime()
		}
		if err := in.give(m, inc); err != nil {
			return err
		}
	}
	return nil
}

func (in *inbound) give(m *raftpb.Message, inc raftnode.Incoming) error {
	if m.GetType() != raftpb.MsgSnap {
		return in.t.node.Take(in.stream.Context(), inc)
	}
	parts := in.parts
	in.parts, in.size = nil, 0
	return in.t.node.TakeSnapshot(in.stream.Context(), inc, parts)
}

// check refuses messages in another member's name, and of members that were removed.
func (in *inbound) check(m *raftpb.Message) error {
	v := in.t.node.View()
	if m.GetTo() != in.t.node.ID() {
		return errs.New(errs.Precondition, "raft member %x is not here", m.GetTo())
	}
	if slices.Contains(v.Removed, m.GetFrom()) {
		return wasRemoved()
	}
	in.from.Store(m.GetFrom())
	if p := v.Peer(m.GetFrom()); p != nil && p.GetMachineId() != in.machine {
		return errs.New(errs.Denied, "raft member %x is store %s, not %s", m.GetFrom(), p.GetMachineId(), in.machine)
	}
	return nil
}
