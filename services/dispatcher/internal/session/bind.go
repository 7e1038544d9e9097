package session

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	bindTries = 20
	bindWait  = 100 * time.Millisecond
)

// bind makes the session the machine's own by compare-and-set on its node object.
func (s *Server) bind(ctx context.Context, node string, hello *dispatcherv1.Hello) (uint64, *typesv1.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := s.awaitOldBoot(ctx, node, hello.GetBootId()); err != nil {
		return 0, nil, err
	}
	for range bindTries {
		snap := s.view.Snapshot()
		n := snap.Node(node)
		if n == nil {
			// A machine that has just joined may be ahead of this replica.
			if err := run.Sleep(ctx, bindWait); err != nil {
				return 0, nil, unknownNode(node)
			}
			continue
		}
		number := n.GetStatus().GetSession().GetNumber() + 1
		next := &typesv1.Node{Meta: &typesv1.Meta{Id: node}, Status: boundStatus(snap, n, s.self, number, hello)}
		version, err := s.commit.Do(ctx, transactionFor(n, next))
		if err == nil {
			return number, version, nil
		}
		refusal := commit.RefusalOf(err)
		if refusal == nil {
			return 0, nil, err
		}
		// Somebody changed the node: look again once the replica has it.
		if err := s.view.WaitFor(ctx, state.VersionOf(refusal.GetVersion())); err != nil {
			return 0, nil, errs.New(errs.Unavailable, "the store's replica lags behind: try again")
		}
	}
	if s.view.Snapshot().Node(node) == nil {
		return 0, nil, unknownNode(node)
	}
	return 0, nil, errs.New(errs.Conflict, "node %s changes too fast to bind a session: try again", node)
}

func unknownNode(node string) error {
	return errs.New(errs.NotFound, "node %s is not in the cluster: it was removed, or has not joined; join it again", node)
}

// awaitOldBoot waits until the session of another boot of this machine has ended or been silent long enough. If it is
// still heard then, two machines share an identity (a cloned disk).
func (s *Server) awaitOldBoot(ctx context.Context, node, bootID string) error {
	deadline := time.NewTimer(s.opts.Times.Down + s.opts.Times.Suspect)
	defer deadline.Stop()
	for {
		changed := s.view.Changed()
		st := s.view.Snapshot().Node(node).GetStatus()
		old := st.GetSession()
		if old.GetBootId() == "" || old.GetBootId() == bootID || st.GetState() == typesv1.NodeState_NODE_STATE_DOWN {
			return nil
		}
		if silence, here := s.table.Of(node, time.Now()); here && old.GetDispatcherId() == s.self &&
			silence.For >= s.opts.Times.Down {
			return nil
		}
		tick := time.NewTimer(bindWait)
		select {
		case <-changed:
		case <-tick.C:
		case <-deadline.C:
			tick.Stop()
			return errs.New(errs.Precondition, "duplicate node %s: another machine with this identity is in session (boot %s); "+
				"a cloned disk? give one of them a new machine id and join it again", node, old.GetBootId())
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		}
		tick.Stop()
	}
}

func boundStatus(snap *state.Snapshot, n *typesv1.Node, self string, number uint64, hello *dispatcherv1.Hello) *typesv1.NodeStatus {
	st := &typesv1.NodeStatus{
		State:       typesv1.NodeState_NODE_STATE_READY,
		Since:       n.GetStatus().GetSince(),
		Addresses:   slices.Clone(hello.GetAddresses()),
		Vteps:       slices.Clone(hello.GetVteps()),
		MeshPort:    hello.GetMeshPort(),
		Description: hello.GetDescription(),
		Session:     &typesv1.NodeSession{DispatcherId: self, Number: number, BootId: hello.GetBootId()},
	}
	if n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY || st.GetSince() == nil {
		st.Since = timestamppb.New(snap.ClusterTime())
	}
	return st
}

// catchUp waits until the replica holds the session's commit and the machine's last generation.
func (s *Server) catchUp(ctx context.Context, version *typesv1.Version, hello *dispatcherv1.Hello) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := s.view.WaitFor(ctx, state.VersionOf(version)); err != nil {
		return errs.New(errs.Unavailable, "the store's replica lags behind: try again")
	}
	last := state.VersionOf(hello.GetGeneration())
	now := s.view.Snapshot().Version()
	if last.EpochNumber != now.EpochNumber || last.EpochNonce != now.EpochNonce {
		return nil // another history: nothing to wait for
	}
	if err := s.view.WaitFor(ctx, last); err != nil {
		return errs.New(errs.Unavailable, "the store's replica is behind what this machine has applied: try again")
	}
	return nil
}
