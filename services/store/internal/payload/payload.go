// Package payload keeps the data of secrets and the logins of registries sealed, and gives it out to the one who may have it.
//
// It owns the key's use: data is sealed before it is proposed, each version for its own id, and opened for a dispatcher that
// has the session of a node with a task that uses it. It must never log data, nor put it into an error. What it serves it
// reads after asking the quorum. A Server is safe for concurrent use.
package payload

import (
	"context"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/relay"
)

// Keys is where this store's payload keys are, once it has them: the one that seals, and each that something is sealed with.
type Keys interface {
	Get() *keyset.Keyset
	Of(id string) *keyset.Keyset
}

// Seal encrypts one version of a secret's data. Unavailable: this store has not been given the key yet.
func Seal(keys Keys, r *run.Rand, id string, data []byte) (*typesv1.SealedBytes, error) {
	if keys == nil || keys.Get() == nil {
		return nil, waits()
	}
	return keys.Get().Seal(r, purpose(id), data)
}

// SealedOf is what a payload has sealed, a secret's data or a registry's login; nil: it is in clear.
func SealedOf(p *typesv1.Payload) *typesv1.SealedBytes {
	if p.GetLogin() != nil {
		return p.GetLogin()
	}
	return p.GetSealed()
}

func waits() error {
	return errs.New(errs.Unavailable, "this store waits for the key that seals secrets")
}

// purpose binds the cipher text to its id, so that one secret's data can not be put in another's place.
func purpose(id string) string { return "payload " + id }

// Node is the part of a Raft member that a Server needs.
type Node interface {
	Linear(ctx context.Context) (fsm.Image, error)
}

// Server implements store.v1.PayloadService.
type Server struct {
	storev1.UnimplementedPayloadServiceServer
	Node  Node
	Relay *relay.Relay
	Keys  Keys
}

// FetchPayload implements PayloadService.
func (s *Server) FetchPayload(ctx context.Context, req *storev1.FetchPayloadRequest) (*storev1.FetchPayloadResponse, error) {
	var c errs.Collector
	c.Check(req.GetNodeId() != "", "node_id", "is missing")
	c.Check(req.GetId() != "", "id", "is missing")
	if err := c.Err("fetch a payload"); err != nil {
		return nil, err
	}
	return relay.Do(ctx, s.Relay, relay.Call[*storev1.FetchPayloadResponse]{
		Local: func(ctx context.Context, caller rpc.Caller) (*storev1.FetchPayloadResponse, error) {
			image, err := s.Node.Linear(ctx)
			if err != nil {
				return nil, err
			}
			return s.fetch(image.Snapshot(), caller, req)
		},
		Remote: func(ctx context.Context, conn *grpc.ClientConn) (*storev1.FetchPayloadResponse, error) {
			return storev1.NewPayloadServiceClient(conn).FetchPayload(ctx, req)
		},
		Repeatable: true,
	})
}

func (s *Server) fetch(snap *state.Snapshot, caller rpc.Caller, req *storev1.FetchPayloadRequest) (*storev1.FetchPayloadResponse, error) {
	if of := snap.Node(req.GetNodeId()).GetStatus().GetSession().GetDispatcherId(); of == "" || of != caller.Principal.Name {
		return nil, errs.New(errs.Denied, "node %s is not in session with dispatcher %s", req.GetNodeId(), caller.Principal.Name)
	}
	p := snap.Payload(req.GetId())
	if p == nil || !usedOn(snap, req.GetNodeId(), req.GetId()) {
		return nil, errs.New(errs.NotFound, "payload %s is gone, or no task of node %s uses it", req.GetId(), req.GetNodeId())
	}
	sealed := SealedOf(p)
	if sealed == nil {
		return &storev1.FetchPayloadResponse{Data: p.GetClear()}, nil
	}
	k := s.Keys.Of(sealed.GetKeyId())
	if k == nil {
		return nil, waits()
	}
	data, err := k.Open(purpose(req.GetId()), sealed)
	if err != nil {
		return nil, err
	}
	return &storev1.FetchPayloadResponse{Data: data}, nil
}

// usedOn says whether a task of the node uses the payload, and has not ended.
func usedOn(snap *state.Snapshot, nodeID, id string) bool {
	for t := range snap.TasksOfNode(nodeID) {
		if state.Terminal(t.GetObserved().GetState()) {
			continue
		}
		spec := state.SpecOf(snap.Service(t.GetServiceId()), t.GetSpecVersion())
		if snap.LoginID(spec.GetContainer().GetImage()) == id {
			return true
		}
		for _, f := range state.FilesOf(spec.GetContainer()) {
			if state.PayloadID(f.GetId(), f.GetVersion()) == id {
				return true
			}
		}
	}
	return false
}
