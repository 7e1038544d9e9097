// Package control serves the control API: what a person, through a gateway, may ask of the cluster.
//
// It owns the way from a request to one transaction (package desk orders them and chooses), and the outcome in words.
// Reads are linearizable and served by any member; writes are the leader's. It must never write anything that the
// transaction of a request does not carry.
package control

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/relay"
)

// Node is the part of a Raft member that the control API needs.
type Node interface {
	desk.Node
	Watch() (*raftnode.View, <-chan struct{})
	Spare(ctx context.Context, id uint64, force bool) error
	Remove(ctx context.Context, id uint64, force bool) error
	SetVoter(ctx context.Context, id uint64, voter, force bool) error
	Transfer(ctx context.Context, avoid ...string) error
}

// Config is what the API needs.
type Config struct {
	Node  Node
	Relay *relay.Relay
	Rand  *run.Rand
	Now   func() time.Time
}

// API is the control API of one store.
type API struct {
	cfg    Config
	admits *desk.Admission
}

// New makes it.
func New(cfg Config) *API { return &API{cfg: cfg, admits: desk.New(cfg.Node)} }

// Register registers its services.
func (a *API) Register(r grpc.ServiceRegistrar) {
	controlv1.RegisterServiceServiceServer(r, services{API: a})
	controlv1.RegisterTaskServiceServer(r, tasks{API: a})
	controlv1.RegisterNodeServiceServer(r, nodes{API: a})
	controlv1.RegisterNetworkServiceServer(r, networks{API: a})
	controlv1.RegisterClusterServiceServer(r, clusters{API: a})
	controlv1.RegisterMemberServiceServer(r, members{API: a})
	controlv1.RegisterPreviewServiceServer(r, previews{API: a})
}

// read is the state with everything in it that was acknowledged before.
func (a *API) read(ctx context.Context) (*state.Snapshot, error) {
	ctx, cancel := relay.Within(ctx)
	defer cancel()
	image, err := a.cfg.Node.Linear(ctx)
	if err != nil {
		return nil, err
	}
	return image.Snapshot(), nil
}

func (a *API) newID() string { return identity.NewID(a.cfg.Rand) }

// requestID is the caller's, or a new one: so a store that passes the call on may try again. A transaction's may be a little
// longer: see latest.
func (a *API) requestID(what, given string) (string, error) {
	var c errs.Collector
	c.Check(len(given) <= fsm.MaxRequestID-desk.MaxTries, "request_id", "has %d bytes, at most %d are allowed", len(given), fsm.MaxRequestID-desk.MaxTries)
	if given == "" {
		given = a.newID()
	}
	return given, c.Err(what)
}

// versionOf is an object's version, for an update.
func versionOf(s *state.Snapshot, m *typesv1.Meta) *typesv1.Version {
	v := s.Version()
	v.Revision = m.GetRevision()
	return v.Proto()
}

// checkVersion refuses an update that is based on another version than the present one.
func checkVersion(s *state.Snapshot, what string, given *typesv1.Version, m *typesv1.Meta) error {
	if given == nil {
		return errs.Faults(what, errs.Fault{Field: "version", Reason: "is missing; it is the one that was read"})
	}
	v := state.VersionOf(given)
	if !v.SameEpoch(s.Version()) || v.Revision != m.GetRevision() {
		return errs.New(errs.Conflict, "%s: update out of sequence", what)
	}
	return nil
}

// unchanged makes the precondition that goes with checkVersion: the state machine checks again, in log order.
func unchanged(key state.Key, v *typesv1.Version) []*storev1.Precondition {
	return []*storev1.Precondition{
		{Condition: &storev1.Precondition_Epoch{Epoch: v.GetEpoch()}},
		{Condition: &storev1.Precondition_Unchanged{Unchanged: &storev1.Unchanged{Kind: key.Kind, Id: key.ID, Revision: v.GetRevision()}}},
	}
}

// onLeader serves a call on the leader, for which it need not be a write.
func onLeader[Resp any](ctx context.Context, a *API, repeatable bool,
	local func(ctx context.Context, caller rpc.Caller) (Resp, error),
	remote func(ctx context.Context, conn *grpc.ClientConn) (Resp, error),
) (Resp, error) {
	return relay.Do(ctx, a.cfg.Relay, relay.Call[Resp]{Local: local, Remote: remote, Repeatable: repeatable})
}
