package session

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	bindTries = 20
	bindWait  = 100 * time.Millisecond
	// inFlight is how long after a machine's new boot something of its old one may still arrive.
	inFlight = time.Second
)

// bind makes the session the machine's own by compare-and-set on its node object.
func (s *Server) bind(ctx context.Context, node string, hello *dispatcherv1.Hello) (uint64, *typesv1.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := s.awaitOldBoot(ctx, node, hello.GetBootId()); err != nil {
		return 0, nil, err
	}
	for range bindTries {
		snap := s.View.Snapshot()
		n := snap.Node(node)
		if n == nil {
			// A machine that has just joined may be ahead of this replica.
			if err := run.Sleep(ctx, bindWait); err != nil {
				return 0, nil, unknownNode(node)
			}
			continue
		}
		if err := checkKind(n, hello); err != nil {
			return 0, nil, err
		}
		number := n.GetStatus().GetSession().GetNumber() + 1
		version, err := s.Commit.Do(ctx, statusChange(n, boundStatus(snap, n, s.Self, number, hello)))
		if err == nil {
			return number, version, nil
		}
		refusal := commit.RefusalOf(err)
		switch refusal.GetRefusal() {
		case storev1.RefusalReason_REFUSAL_REASON_CONFLICT, storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND:
			// Somebody changed the node: look again once the replica has it.
			if err := s.View.WaitFor(ctx, state.VersionOf(refusal.GetVersion())); err != nil {
				return 0, nil, errs.New(errs.Unavailable, "the store's replica lags behind: try again")
			}
		case storev1.RefusalReason_REFUSAL_REASON_UNSPECIFIED:
			return 0, nil, err // no refusal
		default:
			return 0, nil, errs.New(errs.Precondition, "bind a session of node %s: %w", node, err)
		}
	}
	if s.View.Snapshot().Node(node) == nil {
		return 0, nil, unknownNode(node)
	}
	return 0, nil, errs.New(errs.Unavailable, "node %s changes too fast to bind a session: try again", node)
}

func unknownNode(node string) error {
	return errs.New(errs.NotFound, "node %s is not in the cluster: it was removed, or has not joined; join it again", node)
}

// checkKind keeps the meshproxy of a machine with an agent from taking the agent's session away.
func checkKind(n *typesv1.Node, hello *dispatcherv1.Hello) error {
	if hello.GetKind() == dispatcherv1.SessionKind_SESSION_KIND_INGRESS &&
		slices.Contains(n.GetIdentity().GetRoles(), authzv1.Role_ROLE_AGENT) {
		return errs.New(errs.Precondition, "node %s has an agent, which opens its session: set ingress to false in its meshproxy's config",
			n.GetMeta().GetId())
	}
	return nil
}

// awaitOldBoot waits until the session of another boot of this machine has ended or been silent long enough. If it is
// still heard meanwhile, two machines share an identity (a cloned disk), and both are told.
func (s *Server) awaitOldBoot(ctx context.Context, node, bootID string) error {
	start := time.Now()
	// The older session's dispatcher may have died with it, and its lease runs out first.
	patience := s.opts.Times.Lease + s.opts.Times.Down + inFlight
	for {
		changed := s.View.Changed()
		st := s.View.Snapshot().Node(node).GetStatus()
		old := st.GetSession()
		if old.GetBootId() == "" || old.GetBootId() == bootID || st.GetState() == typesv1.NodeState_NODE_STATE_DOWN {
			return nil
		}
		if silence, here := s.Table.Of(node, time.Now()); here && silence.Session == old.GetNumber() {
			if silence.Ended || silence.For >= s.opts.Times.Down {
				return nil
			}
			if silence.Heard.Sub(start) > inFlight {
				err := duplicate(node)
				s.Table.End(node, silence.Session, err)
				return err
			}
		}
		if time.Since(start) > patience {
			if st.GetState() == typesv1.NodeState_NODE_STATE_READY {
				return duplicate(node)
			}
			return errs.New(errs.Unavailable, "the session of node %s's last boot is not judged yet: try again", node)
		}
		if err := awaitChange(ctx, changed); err != nil {
			return errs.New(errs.Unavailable, "the session of node %s's last boot is not judged yet: %w", node, err)
		}
	}
}

// awaitChange waits for a change of the store, and at most bindWait: silence makes none.
func awaitChange(ctx context.Context, changed <-chan struct{}) error {
	tick := time.NewTimer(bindWait)
	defer tick.Stop()
	select {
	case <-changed:
	case <-tick.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func duplicate(node string) error {
	return errs.New(errs.Precondition, "duplicate node %s: two machines with this identity are in session; a cloned disk? "+
		"give one of them a new machine id and join it again", node)
}

func boundStatus(snap *state.Snapshot, n *typesv1.Node, self string, number uint64, hello *dispatcherv1.Hello) *typesv1.NodeStatus {
	st := &typesv1.NodeStatus{
		State:       typesv1.NodeState_NODE_STATE_READY,
		Since:       n.GetStatus().GetSince(),
		Addresses:   slices.Clone(hello.GetAddresses()),
		Vteps:       slices.DeleteFunc(slices.Clone(hello.GetVteps()), notIP),
		MeshPort:    hello.GetMeshPort(),
		Description: ownAddresses(ownKeys(snap, n.GetMeta().GetId(), hello.GetDescription())),
		Session:     &typesv1.NodeSession{DispatcherId: self, Number: number, BootId: hello.GetBootId()},
	}
	if n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_READY || st.GetSince() == nil {
		st.Since = timestamppb.New(snap.ClusterTime())
	}
	return st
}

// notIP: a machine may advertise a name, but a tunnel ends at an address, and not at one for a link of the machine alone.
func notIP(s string) bool {
	a, err := netip.ParseAddr(s)
	return err != nil || a.Zone() != ""
}

// catchUp waits until the replica holds the session's commit and the machine's last generation.
func (s *Server) catchUp(ctx context.Context, version *typesv1.Version, hello *dispatcherv1.Hello) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := s.View.WaitFor(ctx, state.VersionOf(version)); err != nil {
		return errs.New(errs.Unavailable, "the store's replica lags behind: try again")
	}
	last := state.VersionOf(hello.GetGeneration())
	if !last.SameEpoch(s.View.Snapshot().Version()) {
		return nil // another history: nothing to wait for
	}
	if err := s.View.WaitFor(ctx, last); err != nil {
		return errs.New(errs.Unavailable, "the store's replica is behind what this machine has applied: try again")
	}
	return nil
}
