package stream

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// growing is a cluster of one node, m1, on which a slot gets its record and then its volume whenever somebody looks.
type growing struct {
	grpc.ClientStream
	made, told bool
}

func (g *growing) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	switch r := reply.(type) {
	case *controlv1.ListNodesResponse:
		r.Nodes = []*controlv1.ListedNode{{Node: &typesv1.Node{Meta: &typesv1.Meta{Id: "m1"}}}}
	case *controlv1.ListSlotVolumesResponse:
		if g.made {
			r.Volumes = []*typesv1.Volume{{Meta: &typesv1.Meta{Id: "db.1.data"}, NodeId: "m1", Incarnation: "i1"}}
		}
		g.made = true
	}
	return nil
}

func (g *growing) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return g, nil
}

func (g *growing) SendMsg(any) error { return nil }
func (g *growing) CloseSend() error  { return nil }

func (g *growing) RecvMsg(m any) error {
	if g.told {
		return io.EOF
	}
	g.made, g.told = true, true
	into, _ := m.(proto.Message)
	proto.Merge(into, &logsv1.ListNodeVolumesResponse{Volumes: []*logsv1.NodeVolume{{Name: "db.1.data", Service: "db", Slot: 1, Incarnation: "i1"}}})
	return nil
}

// TestVolumeThatIsMadeMeanwhile: a slot's volume that is made while volumes are listed has its record: without, it would look
// given up, and prune would remove it.
func TestVolumeThatIsMadeMeanwhile(t *testing.T) {
	g := &growing{}
	s := New(Parts{Env: run.Env{Log: slog.New(slog.DiscardHandler)}, Self: identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_GATEWAY, Name: "m1"}, Any: g, Control: g})
	ctx := rpc.WithCaller(t.Context(), rpc.Caller{Principal: identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_OPERATOR, Name: "ann"}})
	got, err := s.Volumes().ListVolumes(ctx, &logsv1.ListVolumesRequest{})
	if err != nil || len(got.GetVolumes()) != 1 || got.GetVolumes()[0].GetRecord() == nil {
		t.Errorf("%v, %v", got, err)
	}
}
