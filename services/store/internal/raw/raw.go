// Package raw serves the store's raw side: commits and watches of our own processes, and Raft among stores.
//
// It owns what a call must look like before it reaches the state machine: size, request id, and that the caller in a
// transaction is the verified one. It must never decide what may be written; the state machine does.
package raw

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/relay"
	"github.com/shoalproject/shoal/services/store/internal/transport"
	"github.com/shoalproject/shoal/services/store/internal/watch"
)

// Services are the raw services of one store.
type Services struct {
	Node      *raftnode.Node
	Transport *transport.Transport
	Relay     *relay.Relay
	Hub       *watch.Hub
}

// Register registers them.
func (s Services) Register(r grpc.ServiceRegistrar) {
	storev1.RegisterCommitServiceServer(r, commitServer{Services: s})
	storev1.RegisterWatchServiceServer(r, watchServer{Services: s})
	storev1.RegisterRaftServiceServer(r, raftServer{Services: s})
}

// Commit serves a commit of this process itself, as if it had come in by RPC.
func (s Services) Commit(ctx context.Context, req *storev1.CommitRequest) (*storev1.CommitResponse, error) {
	return commitServer{Services: s}.Commit(ctx, req)
}

type commitServer struct {
	storev1.UnimplementedCommitServiceServer
	Services
}

// Commit implements CommitService.
func (s commitServer) Commit(ctx context.Context, req *storev1.CommitRequest) (*storev1.CommitResponse, error) {
	tx := req.GetTransaction()
	if err := checkTransaction(tx); err != nil {
		return nil, err
	}
	return relay.Do(ctx, s.Relay, relay.Call[*storev1.CommitResponse]{
		Local: func(ctx context.Context, caller rpc.Caller) (*storev1.CommitResponse, error) {
			own := proto.CloneOf(tx) // a call inside this process still holds it
			own.Caller = relay.CallerProto(caller)
			out, err := s.Node.Propose(ctx, own)
			if err != nil {
				return nil, err
			}
			return &storev1.CommitResponse{Outcome: out}, nil
		},
		Remote: func(ctx context.Context, conn *grpc.ClientConn) (*storev1.CommitResponse, error) {
			return storev1.NewCommitServiceClient(conn).Commit(ctx, req)
		},
		Repeatable: true,
	})
}

func checkTransaction(tx *storev1.Transaction) error {
	var c errs.Collector
	c.Check(tx.GetRequestId() != "", "transaction.request_id", "is missing; a retry could not be told from a second request")
	n := len(tx.GetRequestId())
	c.Check(n <= fsm.MaxRequestID, "transaction.request_id", "has %d bytes, at most %d are allowed", n, fsm.MaxRequestID)
	size := proto.Size(tx)
	c.Check(size <= fsm.MaxBytes, "transaction", "has %d bytes, at most %d are allowed", size, fsm.MaxBytes)
	n = len(tx.GetPuts()) + len(tx.GetDeletes())
	c.Check(n <= fsm.MaxChanges, "transaction", "has %d changes, at most %d are allowed", n, fsm.MaxChanges)
	return c.Err("commit")
}

type watchServer struct {
	storev1.UnimplementedWatchServiceServer
	Services
}

// Watch implements WatchService.
func (s watchServer) Watch(req *storev1.WatchRequest, stream grpc.ServerStreamingServer[storev1.WatchResponse]) error {
	caller, _ := rpc.CallerOf(stream.Context())
	role := caller.Principal.Role
	if role == authzv1.Role_ROLE_GATEWAY {
		// A gateway is the exposed process: it is given what it needs to reach the others, and to know whom to trust.
		for _, k := range req.GetKinds() {
			if k != typesv1.Kind_KIND_MEMBER && k != typesv1.Kind_KIND_DENIAL && k != typesv1.Kind_KIND_CLUSTER {
				return errs.New(errs.Denied, "a gateway may watch the cluster, members and the deny list, not %s", k)
			}
		}
	}
	return s.Hub.Serve(req, stream, role == authzv1.Role_ROLE_CA || role == authzv1.Role_ROLE_STORE)
}

type raftServer struct {
	storev1.UnimplementedRaftServiceServer
	Services
}

// Send implements RaftService.
func (s raftServer) Send(stream grpc.ClientStreamingServer[storev1.SendRequest, storev1.SendResponse]) error {
	return s.Transport.Receive(stream)
}

// AddMember implements RaftService.
func (s raftServer) AddMember(ctx context.Context, req *storev1.AddMemberRequest) (*storev1.AddMemberResponse, error) {
	if err := checkMember(req); err != nil {
		return nil, err
	}
	return relay.Do(ctx, s.Relay, relay.Call[*storev1.AddMemberResponse]{
		Local: func(ctx context.Context, caller rpc.Caller) (*storev1.AddMemberResponse, error) {
			peer := &storev1.RaftPeer{RaftId: req.GetRaftId(), MachineId: caller.Principal.Name, Addresses: req.GetAddresses(), Learner: req.GetLearner()}
			if err := s.Node.Add(ctx, peer); err != nil {
				return nil, err
			}
			return &storev1.AddMemberResponse{Peers: s.Node.View().Peers}, nil
		},
		Remote: func(ctx context.Context, conn *grpc.ClientConn) (*storev1.AddMemberResponse, error) {
			return storev1.NewRaftServiceClient(conn).AddMember(ctx, req)
		},
		Repeatable: true,
	})
}

// maxAddresses is how many addresses a store may have: each is told to every machine.
const maxAddresses = 16

func checkMember(req *storev1.AddMemberRequest) error {
	var c errs.Collector
	c.Check(req.GetRaftId() != 0, "raft_id", "is missing")
	c.Check(len(req.GetAddresses()) > 0, "addresses", "are missing")
	c.Check(len(req.GetAddresses()) <= maxAddresses, "addresses", "are %d, at most %d are allowed", len(req.GetAddresses()), maxAddresses)
	bad := slices.IndexFunc(req.GetAddresses(), func(a string) bool { return !strings.Contains(a, ":") })
	c.Check(bad < 0, "addresses", "must be host:port")
	return c.Err("add a store")
}
