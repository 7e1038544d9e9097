package decideloop

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Who asks for the metrics is told of the tasks of the latest decision, of no earlier one.
func TestTasksAreCountedWhenAsked(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	tasks := func() map[string]float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]float64{}
		for _, f := range families {
			if f.GetName() == "shoal_scheduler_tasks" {
				for _, one := range f.GetMetric() {
					out[one.GetLabel()[0].GetValue()] = one.GetGauge().GetValue()
				}
			}
		}
		return out
	}
	task := func(id string, st typesv1.TaskState) *typesv1.Object {
		return state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: id}, Observed: &typesv1.TaskObserved{State: st}, Decided: &typesv1.TaskDecided{NodeId: "n1"}})
	}
	if got := tasks(); len(got) != 0 {
		t.Errorf("before a decision: %v", got)
	}
	m.decided(snapshot(task("a", typesv1.TaskState_TASK_STATE_RUNNING), task("b", typesv1.TaskState_TASK_STATE_RUNNING)), time.Millisecond)
	if got := tasks(); got["running"] != 2 || len(got) != 1 {
		t.Errorf("two run: %v", got)
	}
	m.decided(snapshot(task("a", typesv1.TaskState_TASK_STATE_COMPLETE)), time.Millisecond)
	if got := tasks(); got["complete"] != 1 || len(got) != 1 {
		t.Errorf("one is complete: %v", got)
	}
}

func snapshot(objects ...*typesv1.Object) *state.Snapshot {
	txn := state.Empty().Begin()
	txn.Put(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "n1"}}))
	for _, o := range objects {
		txn.Put(o)
	}
	return txn.Commit(state.Version{Revision: 1}, time.Time{})
}
