package control

import (
	"cmp"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

// TestRollback: a rollback gives a service the task spec of a version that is kept, as a new version, and nothing else of it.
func TestRollback(t *testing.T) {
	a, _, ctx := newAPI(t)
	s := services{API: a}
	made, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec("web")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RollbackService(ctx, &controlv1.RollbackServiceRequest{Service: "web"}); !errors.Is(err, errs.Precondition) {
		t.Errorf("nothing to go back to: %v", err)
	}
	version, svc := made.GetVersion(), made.GetService()
	for i, image := range []string{"two", "three"} {
		next := proto.CloneOf(svc.GetSpec())
		next.Task.Container.Image = image
		next.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: new(uint64(i + 5))}}
		up, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: version, Spec: next})
		if err != nil {
			t.Fatal(err)
		}
		version, svc = up.GetVersion(), up.GetService()
	}
	for _, r := range []struct {
		to    uint64
		image string
		kind  error
	}{
		{to: 0, image: "two"}, {to: 1, image: "nginx"}, {to: 1, kind: errs.Precondition}, {to: 99, kind: errs.Precondition}, {to: 3, image: "three"},
	} {
		got, err := s.RollbackService(ctx, &controlv1.RollbackServiceRequest{Service: "web", SpecVersion: r.to})
		if r.kind != nil {
			if !errors.Is(err, r.kind) {
				t.Errorf("to %d: %v", r.to, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		now := got.GetService()
		if image := now.GetSpec().GetTask().GetContainer().GetImage(); image != r.image || now.GetSpec().GetReplicated().GetReplicas() != 6 {
			t.Errorf("to %d: image %s, %v", r.to, image, now.GetSpec().GetMode())
		}
		if before := now.GetRolledBackTo(); now.GetSpecVersion() != svc.GetSpecVersion()+1 || before != cmp.Or(r.to, 2) {
			t.Errorf("to %d: version %d after %d, rolled back to %d", r.to, now.GetSpecVersion(), svc.GetSpecVersion(), before)
		}
		svc = now
	}
	if _, err := s.RollbackService(ctx, &controlv1.RollbackServiceRequest{Service: "web", Version: version}); !errors.Is(err, errs.Conflict) {
		t.Errorf("stale: %v", err)
	}
}

// TestWhatIsANewVersion: a change of the task spec is a new version, and so is a forced update of an equal one; a change of all else
// is none, and neither is the same spec again.
func TestWhatIsANewVersion(t *testing.T) {
	a, _, ctx := newAPI(t)
	s := services{API: a}
	made, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec("web")})
	if err != nil {
		t.Fatal(err)
	}
	version, svc := made.GetVersion(), made.GetService()
	for _, tc := range []struct {
		name   string
		change func(s *typesv1.ServiceSpec)
		is     bool
	}{
		{"nothing", func(*typesv1.ServiceSpec) {}, false},
		{"image", func(s *typesv1.ServiceSpec) { s.Task.Container.Image = "nginx:2" }, true},
		{"placement", func(s *typesv1.ServiceSpec) {
			s.Task.Placement = &typesv1.Placement{Constraints: []string{"node.role == worker"}}
		}, true},
		{"force", func(s *typesv1.ServiceSpec) { s.Task.ForceUpdate++ }, true},
		{"the same again", func(*typesv1.ServiceSpec) {}, false},
		{"replicas", func(s *typesv1.ServiceSpec) { s.GetReplicated().Replicas = new(uint64(3)) }, false},
		{"settings", func(s *typesv1.ServiceSpec) {
			s.Update.Parallelism, s.MaxUnavailable, s.Priority, s.HoldUpdate = new(uint64(2)), new(uint64(2)), 7, true
			s.Rollback, s.Annotations.Labels = &typesv1.UpdateConfig{}, map[string]string{"team": "red"}
		}, false},
	} {
		next := proto.CloneOf(svc.GetSpec())
		tc.change(next)
		up, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: version, Spec: next})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if is := up.GetService().GetSpecVersion() != svc.GetSpecVersion(); is != tc.is {
			t.Errorf("%s: version %d after %d", tc.name, up.GetService().GetSpecVersion(), svc.GetSpecVersion())
		}
		version, svc = up.GetVersion(), up.GetService()
	}
	if n := len(svc.GetSpecHistory()); n != 3 {
		t.Errorf("%d versions are kept", n)
	}
}

// TestEarlierVersion: without a number a rollback leads to what was in force before; a version whose update was rolled back
// by itself was not.
func TestEarlierVersion(t *testing.T) {
	var history []*typesv1.SpecRecord
	for i, hash := range []string{"c", "b", "a"} {
		history = append(history, &typesv1.SpecRecord{Version: uint64(3 - i), Hash: []byte(hash), Task: &typesv1.TaskSpec{}})
	}
	for _, r := range []struct {
		status *typesv1.UpdateStatus
		want   uint64
	}{
		{want: 3},
		{status: &typesv1.UpdateStatus{State: typesv1.UpdateState_UPDATE_STATE_PAUSED, OfVersion: 4, SpecVersion: 4, FromVersion: 2}, want: 2},
		{status: &typesv1.UpdateStatus{State: typesv1.UpdateState_UPDATE_STATE_COMPLETED, OfVersion: 3, SpecVersion: 3, FromVersion: 2}, want: 3},
		{status: &typesv1.UpdateStatus{State: typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, OfVersion: 4, SpecVersion: 3, FromVersion: 3}},
		{status: &typesv1.UpdateStatus{State: typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, OfVersion: 4, SpecVersion: 4, FromVersion: 2}, want: 2},
		{status: &typesv1.UpdateStatus{State: typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, OfVersion: 3, SpecVersion: 2, FromVersion: 2}, want: 2},
	} {
		got, err := earlier(&typesv1.Service{SpecVersion: 4, SpecHash: []byte("d"), SpecHistory: history, UpdateStatus: r.status}, 0)
		if got.GetVersion() != r.want || (err != nil) != (r.want == 0) {
			t.Errorf("%v: %v, %v", r.status, got, err)
		}
	}
}

// TestReadersShowWhatIsInForce: after a rollback by itself the spec stays what was asked for, and both reads tell beside it
// what the tasks are, also the list, which leaves the history out. The next update ends that.
func TestReadersShowWhatIsInForce(t *testing.T) {
	a, node, ctx := newAPI(t)
	s := services{API: a}
	made, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec("web")})
	if err != nil {
		t.Fatal(err)
	}
	update := func(image string) *typesv1.Service {
		got, err := s.GetService(ctx, &controlv1.GetServiceRequest{Service: "web"})
		if err != nil {
			t.Fatal(err)
		}
		next := proto.CloneOf(made.GetService().GetSpec())
		next.Task.Container.Image = image
		up, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: got.GetVersion(), Spec: next})
		if err != nil {
			t.Fatal(err)
		}
		return up.GetService()
	}
	svc := proto.CloneOf(update("broken"))
	svc.UpdateStatus = &typesv1.UpdateStatus{State: typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, SpecVersion: 1, OfVersion: 2}
	goBack := desk.Put(state.Wrap(svc), "update_status")
	say(t, node, authzv1.Role_ROLE_SCHEDULER, "m1", desk.Create(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}, Holder: "scheduler/m1", Number: 1}), "holder", "number"))
	out, err := node.Propose(ctx, &storev1.Transaction{
		RequestId: "s1", Caller: &storev1.Caller{Role: authzv1.Role_ROLE_SCHEDULER, Name: "m1"}, Puts: []*storev1.Put{goBack},
		Preconditions: []*storev1.Precondition{{Condition: &storev1.Precondition_Fence{Fence: &storev1.Fence{Lease: "scheduler", Number: 1, Holder: "scheduler/m1"}}}},
	})
	if err != nil || out.GetRefusal() != 0 {
		t.Fatal(out, err)
	}
	see := func(spec, inForce string) {
		t.Helper()
		got, err := s.GetService(ctx, &controlv1.GetServiceRequest{Service: "web"})
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.ListServices(ctx, &controlv1.ListServicesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		row := list.GetServices()[0]
		if now := got.GetService().GetSpec().GetTask().GetContainer().GetImage(); now != spec {
			t.Errorf("the spec has image %s, want %s", now, spec)
		}
		if x, y := got.GetInForce().GetContainer().GetImage(), row.GetInForce().GetContainer().GetImage(); x != inForce || y != inForce {
			t.Errorf("in force: %q and in the list %q, want %q", x, y, inForce)
		}
	}
	see("broken", "nginx")
	update("mended")
	see("mended", "")
}
