package stream

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
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

// shelves are nodes with what each has: parts of an answer, or nothing, since it can't be asked.
type shelves map[string][]*logsv1.ListNodeVolumesResponse

func (f shelves) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	if r, ok := reply.(*controlv1.ListNodesResponse); ok {
		for _, id := range slices.Sorted(maps.Keys(f)) {
			n := &typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{Description: &typesv1.NodeDescription{Hostname: "host-" + id}}}
			r.Nodes = append(r.Nodes, &controlv1.ListedNode{Node: n})
		}
	}
	return nil
}

func (f shelves) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &shelf{of: f, method: method}, nil
}

// shelf is one call of a node.
type shelf struct {
	grpc.ClientStream
	of     shelves
	method string
	parts  []*logsv1.ListNodeVolumesResponse
	sent   bool
}

func (s *shelf) CloseSend() error { return nil }

func (s *shelf) SendMsg(m any) error {
	if r, ok := m.(*logsv1.ListNodeVolumesRequest); ok {
		s.parts = s.of[r.GetNode()]
		if s.parts == nil {
			return errs.New(errs.Unavailable, "it is away")
		}
	}
	return nil
}

func (s *shelf) RecvMsg(m any) error {
	if len(s.parts) == 0 {
		if s.sent || s.method == logsv1.NodeVolumeService_ListNodeVolumes_FullMethodName {
			return io.EOF
		}
		s.sent = true
		return nil
	}
	into, _ := m.(proto.Message)
	proto.Merge(into, s.parts[0])
	s.parts = s.parts[1:]
	return nil
}

func (f shelves) server(t *testing.T) (logsv1.VolumeServiceServer, context.Context) {
	t.Helper()
	s := New(Parts{Env: run.Env{Log: slog.New(slog.DiscardHandler)}, Self: identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_GATEWAY, Name: "m1"}, Any: f, Control: f})
	return s.Volumes(), rpc.WithCaller(t.Context(), rpc.Caller{Principal: identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_OPERATOR, Name: "ann"}})
}

func part(names ...string) *logsv1.ListNodeVolumesResponse {
	out := &logsv1.ListNodeVolumesResponse{}
	for _, n := range names {
		out.Volumes = append(out.Volumes, &logsv1.NodeVolume{Name: n, Labels: map[string]string{"l": strings.Repeat("x", 1<<20)}})
	}
	return out
}

// TestRemovalIsNotByWhoAnswers: which volume of a name is removed is not for the nodes that happen to answer to decide.
func TestRemovalIsNotByWhoAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		of   shelves
		node string
		want string // of the error; empty: it is removed
	}{
		"one has it":               {shelves{"m1": {part("v")}, "m2": {part("w")}}, "", ""},
		"two have it":              {shelves{"m1": {part("v")}, "m2": {part("v")}}, "", "host-m1, host-m2 have a volume v"},
		"another can't be asked":   {shelves{"m1": {part("v")}, "m2": nil}, "", "host-m1 has a volume v, and host-m2, which can't be asked, may have one too"},
		"the node is named":        {shelves{"m1": {part("v")}, "m2": nil}, "m1", ""},
		"the named one is away":    {shelves{"m1": {part("v")}, "m2": nil}, "m2", "host-m2 can't be"},
		"behind parts of the rest": {shelves{"m1": {part("a"), part("b"), part("v")}}, "", ""},
	} {
		s, ctx := c.of.server(t)
		_, err := s.RemoveVolume(ctx, &logsv1.RemoveVolumeRequest{Name: "v", Node: c.node})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestVolumesInPages: what fits into no message is told in several, whole and in order.
func TestVolumesInPages(t *testing.T) {
	s, ctx := shelves{"m1": {part("a"), part("b", "c"), part("d")}, "m2": {part("a", "e")}}.server(t)
	var got []string
	pages := 0
	for token := ""; ; pages++ {
		r, err := s.ListVolumes(ctx, &logsv1.ListVolumesRequest{PageToken: token})
		if err != nil || proto.Size(r) > 4<<20 {
			t.Fatal(proto.Size(r), err)
		}
		for _, v := range r.GetVolumes() {
			got = append(got, v.GetVolume().GetName()+v.GetNodeId())
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if want := []string{"am1", "am2", "bm1", "cm1", "dm1", "em2"}; !slices.Equal(got, want) || pages == 0 {
		t.Errorf("%d more pages: %v, want %v", pages, got, want)
	}
	if _, err := s.ListVolumes(ctx, &logsv1.ListVolumesRequest{PageToken: "%", PageSize: -1}); !errs.Is(err, errs.Invalid) {
		t.Errorf("no token: %v", err)
	}
}
