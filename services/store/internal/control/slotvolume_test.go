package control

import (
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

// TestSlotVolumeInUse: a volume that a task may write to is not given up, unless its node is down or gone; and not when a task was
// given it while the request was on its way.
func TestSlotVolumeInUse(t *testing.T) {
	for _, c := range []struct {
		name    string
		node    typesv1.NodeState // unspecified: the node is gone
		task    typesv1.TaskState
		another bool // the task uses another volume of the name
		refused string
	}{
		{"runs", typesv1.NodeState_NODE_STATE_READY, typesv1.TaskState_TASK_STATE_RUNNING, false, "in use by task db.1"},
		{"silent node", typesv1.NodeState_NODE_STATE_SUSPECT, typesv1.TaskState_TASK_STATE_RUNNING, false, "in use by task db.1"},
		{"not begun", typesv1.NodeState_NODE_STATE_READY, 0, false, "in use by task db.1"},
		{"ended", typesv1.NodeState_NODE_STATE_READY, typesv1.TaskState_TASK_STATE_FAILED, false, ""},
		{"node down", typesv1.NodeState_NODE_STATE_DOWN, typesv1.TaskState_TASK_STATE_RUNNING, false, ""},
		{"node gone", 0, typesv1.TaskState_TASK_STATE_RUNNING, false, ""},
		{"of another", typesv1.NodeState_NODE_STATE_READY, typesv1.TaskState_TASK_STATE_RUNNING, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &typesv1.Volume{Meta: &typesv1.Meta{Id: "db.1.data", Revision: 3}, NodeId: "n1", Incarnation: "i1"}
			use := &typesv1.TaskVolume{VolumeId: "db.1.data", Incarnation: "i1"}
			if c.another {
				use.Incarnation = "i0"
			}
			txn := state.Empty().Begin()
			txn.Put(state.Wrap(v))
			txn.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "s"}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "db"}}}))
			txn.Put(state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: "t1"}, ServiceId: "s", Observed: &typesv1.TaskObserved{State: c.task},
				Decided: &typesv1.TaskDecided{Slot: 1, NodeId: "n1", Volumes: []*typesv1.TaskVolume{use}}}))
			if c.node != 0 {
				txn.Put(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "n1"}, Status: &typesv1.NodeStatus{State: c.node}}))
			}
			err := volumeInUse(txn.Commit(state.Version{EpochNumber: 1, Revision: 3}, state.Empty().ClusterTime()), v)
			if c.refused == "" && err != nil || c.refused != "" && (!errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("got %v", err)
			}
		})
	}
	if u := giveUp(&typesv1.Volume{Meta: &typesv1.Meta{Id: "db.1.data", Revision: 3}}).GetPreconditions()[0].GetUnchanged(); u.GetRevision() != 3 || u.GetId() != "db.1.data" {
		t.Errorf("rests on %v", u)
	}
}

// TestSlotVolumes: who decides makes them, under its fence, and nobody else; they are listed by name, and one that a person gives up is gone.
func TestSlotVolumes(t *testing.T) {
	a, node, ctx := newAPI(t)
	apply := func(id string, role authzv1.Role, fenced bool, puts ...*storev1.Put) storev1.RefusalReason {
		tx := &storev1.Transaction{RequestId: id, Caller: &storev1.Caller{Role: role, Name: "s"}, Puts: puts}
		if fenced {
			tx.Preconditions = []*storev1.Precondition{{Condition: &storev1.Precondition_Fence{Fence: &storev1.Fence{Lease: "scheduler", Number: 1, Holder: "scheduler/s"}}}}
		}
		return node.machine.Apply(&storev1.LogEntry{Transactions: []*storev1.Transaction{tx}})[0].Outcome.GetRefusal()
	}
	volume := func(id string) *storev1.Put {
		return desk.Create(state.Wrap(&typesv1.Volume{Meta: &typesv1.Meta{Id: id}, NodeId: "gone"}), "node_id")
	}
	scheduler := authzv1.Role_ROLE_SCHEDULER
	apply("lease", scheduler, false, desk.Create(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}, Holder: "scheduler/s", Number: 1}), "holder", "number"))
	if got := apply("person", authzv1.Role_ROLE_OPERATOR, false, volume("x")); got != storev1.RefusalReason_REFUSAL_REASON_DENIED {
		t.Errorf("a person makes one: %v", got)
	}
	if got := apply("unfenced", scheduler, false, volume("x")); got != storev1.RefusalReason_REFUSAL_REASON_INVALID {
		t.Errorf("without the fence: %v", got)
	}
	if got := apply("fenced", scheduler, true, volume("db.2.data"), volume("db.1.data")); got != storev1.RefusalReason_REFUSAL_REASON_UNSPECIFIED {
		t.Fatalf("with the fence: %v", got)
	}
	s := slotVolumes{API: a}
	list, err := s.ListSlotVolumes(ctx, &controlv1.ListSlotVolumesRequest{})
	if err != nil || len(list.GetVolumes()) != 2 || list.GetVolumes()[0].GetMeta().GetId() != "db.1.data" {
		t.Fatalf("%v, %v", list, err)
	}
	was, err := s.DeleteSlotVolume(ctx, &controlv1.DeleteSlotVolumeRequest{Volume: "db.1.data"})
	if err != nil || was.GetVolume().GetNodeId() != "gone" || node.machine.Snapshot().Count(typesv1.Kind_KIND_VOLUME) != 1 {
		t.Errorf("%v, %v", was, err)
	}
	if _, err := s.DeleteSlotVolume(ctx, &controlv1.DeleteSlotVolumeRequest{Volume: "db.1.data"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("again: %v", err)
	}
}
