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
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/payload"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/relay"
	"github.com/shoalproject/shoal/services/store/internal/vault"
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
	// Keys is where the key that seals secrets is, once this store has it.
	Keys payload.Keys
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
	controlv1.RegisterSecretServiceServer(r, secrets{API: a})
	controlv1.RegisterConfigServiceServer(r, configs{API: a})
	controlv1.RegisterSlotVolumeServiceServer(r, slotVolumes{API: a})
	controlv1.RegisterRegistryServiceServer(r, registries{API: a})
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

// onLeader serves a call on the leader, for which it need not be a write.
func onLeader[Resp any](ctx context.Context, a *API, repeatable bool,
	local func(ctx context.Context, caller rpc.Caller) (Resp, error),
	remote func(ctx context.Context, conn *grpc.ClientConn) (Resp, error),
) (Resp, error) {
	return relay.Do(ctx, a.cfg.Relay, relay.Call[Resp]{Local: local, Remote: remote, Repeatable: repeatable})
}

// office is what package vault needs of this store.
func (a *API) office() vault.Office {
	return vault.Office{Admits: a.admits, NewID: a.newID, Read: a.read, Now: func() *state.Snapshot { return a.cfg.Node.View().Image.Snapshot() }}
}
