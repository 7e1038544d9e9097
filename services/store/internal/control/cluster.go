package control

import (
	"context"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

type clusters struct {
	controlv1.UnimplementedClusterServiceServer
	*API
}

// public is the cluster without its keys.
func public(c *typesv1.Cluster) *typesv1.Cluster {
	return &typesv1.Cluster{
		Meta: c.GetMeta(), Spec: c.GetSpec(), DataPath: c.GetDataPath(),
		Authority: &typesv1.Authority{Bundle: c.GetAuthority().GetBundle()},
		Tokens:    &typesv1.JoinTokens{Worker: publicToken(c.GetTokens().GetWorker()), Manager: publicToken(c.GetTokens().GetManager())},
	}
}

func publicToken(t *typesv1.JoinToken) *typesv1.JoinToken {
	return &typesv1.JoinToken{Counter: t.GetCounter(), IssuedAt: t.GetIssuedAt()}
}

// GetCluster implements ClusterService.
func (s clusters) GetCluster(ctx context.Context, _ *controlv1.GetClusterRequest) (*controlv1.GetClusterResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	c := snap.Cluster()
	return &controlv1.GetClusterResponse{Cluster: public(c), Version: desk.VersionOf(snap, c.GetMeta())}, nil
}

// UpdateCluster implements ClusterService.
func (s clusters) UpdateCluster(ctx context.Context, req *controlv1.UpdateClusterRequest) (*controlv1.UpdateClusterResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.UpdateClusterResponse, error) {
			_, err := s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
				return updateCluster(d, req)
			})
			if err != nil {
				return nil, err
			}
			snap := s.cfg.Node.View().Image.Snapshot()
			c := snap.Cluster()
			return &controlv1.UpdateClusterResponse{Cluster: public(c), Version: desk.VersionOf(snap, c.GetMeta())}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.UpdateClusterResponse, error) {
			return controlv1.NewClusterServiceClient(conn).UpdateCluster(ctx, req)
		})
}

func updateCluster(d *desk.Desk, req *controlv1.UpdateClusterRequest) (*storev1.Transaction, error) {
	const what = "update the cluster"
	old := d.Snap.Cluster()
	if old == nil {
		return nil, errs.New(errs.Unavailable, "%s: this store has no state yet", what)
	}
	if err := desk.CheckVersion(d.Snap, what, req.GetVersion(), old.GetMeta()); err != nil {
		return nil, err
	}
	spec, faults := admit.Cluster(req.GetSpec(), old.GetSpec())
	if err := faults.Err(what); err != nil {
		return nil, err
	}
	key := state.Key{Kind: typesv1.Kind_KIND_CLUSTER, ID: old.GetMeta().GetId()}
	return &storev1.Transaction{
		Preconditions: desk.Unchanged(key, req.GetVersion()),
		Puts:          []*storev1.Put{desk.Put(state.Wrap(&typesv1.Cluster{Meta: old.GetMeta(), Spec: spec}), "spec")},
	}, nil
}

// GetVersion implements ClusterService. It answers without a quorum too: it is asked when something is wrong.
func (s clusters) GetVersion(context.Context, *controlv1.GetVersionRequest) (*controlv1.GetVersionResponse, error) {
	v := s.cfg.Node.View()
	resp := &controlv1.GetVersionResponse{
		Version: run.Version(), GoVersion: runtime.Version(),
		Leader: v.Peer(v.Leader).GetMachineId(), ClusterTime: timestamppb.New(s.cfg.Node.ClusterTime()),
	}
	if snap := v.Image.Snapshot(); snap != nil {
		resp.Store = snap.Version().Proto()
	}
	return resp, nil
}
