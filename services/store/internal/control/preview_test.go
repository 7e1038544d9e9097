package control

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// watched is a previewed API that fails the test when anything is proposed.
func watched(t *testing.T) (previews, *alone, context.Context) {
	t.Helper()
	a, node, ctx := newAPI(t)
	if _, err := (services{API: a}).CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec("web", &typesv1.PortConfig{TargetPort: 80})}); err != nil {
		t.Fatal(err)
	}
	node.before = func(tx *storev1.Transaction) { t.Errorf("a preview proposed %v", tx) }
	return previews{API: a}, node, ctx
}

// TestPreviewIsWhatTheCallMakes: the effect of a preview is what the call then stores, but for ids and times; and until then
// nothing is stored, reserved or given out.
func TestPreviewIsWhatTheCallMakes(t *testing.T) {
	p, node, ctx := watched(t)
	before := node.machine.Snapshot()
	create := &controlv1.CreateServiceRequest{Spec: serviceSpec("api", &typesv1.PortConfig{TargetPort: 81})}
	var said *typesv1.Service
	for range 3 { // a port that a preview names is not taken by it
		resp, err := p.Preview(ctx, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_CreateService{CreateService: create}})
		if err != nil {
			t.Fatal(err)
		}
		said = resp.GetEffect().GetPuts()[0].GetService()
	}
	if node.machine.Snapshot() != before {
		t.Fatal("a preview changed the state")
	}
	node.before = nil
	made, err := services{API: p.API}.CreateService(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	said.Meta, made.Service.Meta = nil, nil
	if !proto.Equal(said, made.GetService()) {
		t.Errorf("previewed %v\nmade %v", said, made.GetService())
	}
}

// TestPreviewRefusesAsTheCall: a call that would be refused is refused in the same words.
func TestPreviewRefusesAsTheCall(t *testing.T) {
	p, node, ctx := watched(t)
	bad := serviceSpec("web!", &typesv1.PortConfig{TargetPort: 80, PublishedPort: 70000})
	twice, taken := serviceSpec("web"), serviceSpec("api", &typesv1.PortConfig{TargetPort: 80, PublishedPort: 30000})
	svc := services{API: p.API}
	for name, c := range map[string]struct {
		req  *controlv1.PreviewRequest
		call func() error
	}{
		"faults": {
			&controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_CreateService{CreateService: &controlv1.CreateServiceRequest{Spec: bad}}},
			func() error {
				_, err := svc.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: bad})
				return err
			},
		},
		"a port that another service has": {
			&controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_CreateService{CreateService: &controlv1.CreateServiceRequest{Spec: taken}}},
			func() error {
				_, err := svc.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: taken})
				return err
			},
		},
		"a name that another service has": {
			&controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_CreateService{CreateService: &controlv1.CreateServiceRequest{Spec: twice}}},
			func() error {
				_, err := svc.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: twice})
				return err
			},
		},
		"a version that nobody read": {
			&controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_UpdateService{UpdateService: &controlv1.UpdateServiceRequest{Service: "web"}}},
			func() error {
				_, err := svc.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web"})
				return err
			},
		},
		"a node that lives": {
			&controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_DeleteNode{DeleteNode: &controlv1.DeleteNodeRequest{Node: "w1"}}},
			func() error {
				_, err := nodes{API: p.API}.DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: "w1"})
				return err
			},
		},
		"a service that is not there": {
			&controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_DeleteService{DeleteService: &controlv1.DeleteServiceRequest{Service: "nope"}}},
			func() error {
				_, err := svc.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: "nope"})
				return err
			},
		},
	} {
		_, said := p.Preview(ctx, c.req)
		node.before = nil
		got := c.call()
		node.before = func(tx *storev1.Transaction) { t.Errorf("a preview proposed %v", tx) }
		if said == nil || got == nil || said.Error() != got.Error() || errs.KindOf(said) != errs.KindOf(got) {
			t.Errorf("%s: previewed %v, the call says %v", name, said, got)
		}
	}
	if _, err := p.Preview(ctx, &controlv1.PreviewRequest{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("no call: %v", err)
	}
}

// TestPreviewTellsServicesAndNodesAlone: the removal of a node also changes certificates; a viewer is told of the node.
func TestPreviewTellsServicesAndNodesAlone(t *testing.T) {
	p, _, ctx := watched(t)
	ctx = rpc.WithCaller(ctx, rpc.Caller{Principal: identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_VIEWER, Name: "eve"}})
	resp, err := p.Preview(ctx, &controlv1.PreviewRequest{Call: &controlv1.PreviewRequest_DeleteNode{DeleteNode: &controlv1.DeleteNodeRequest{Node: "w2"}}})
	if err != nil {
		t.Fatal(err)
	}
	e := resp.GetEffect()
	if len(e.GetPuts()) != 0 || len(e.GetRemovals()) != 1 || e.GetRemovals()[0].GetId() != "n2" || e.GetRemovals()[0].GetKind() != typesv1.Kind_KIND_NODE {
		t.Errorf("effect %v", e)
	}
}
