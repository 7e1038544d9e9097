package state

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Terminal reports whether a task that was observed in this state has ended for good.
func Terminal(s typesv1.TaskState) bool { return s >= typesv1.TaskState_TASK_STATE_COMPLETE }

// TaskState is what a person sees as the task's state: what was observed, until the first report what was decided, and
// ORPHANED when the machine that it was on is no longer in the cluster. N is the task's node, nil when it is not there.
func TaskState(t *typesv1.Task, n *typesv1.Node) typesv1.TaskState {
	observed := t.GetObserved().GetState()
	switch {
	case Terminal(observed):
		return observed
	case t.GetDecided().GetNodeId() == "":
		if t.GetDecided() == nil {
			return typesv1.TaskState_TASK_STATE_NEW
		}
		return typesv1.TaskState_TASK_STATE_PENDING
	case n == nil:
		return typesv1.TaskState_TASK_STATE_ORPHANED
	case observed > typesv1.TaskState_TASK_STATE_ASSIGNED:
		return observed
	}
	return typesv1.TaskState_TASK_STATE_ASSIGNED
}

// DesiredState is what a person sees as the state that is wanted of a task. One that was given up with its machine shows
// SHUTDOWN: another stands in for it, also while the scheduler would take it back if the machine returns in time.
func DesiredState(t *typesv1.Task) typesv1.TaskState {
	d := t.GetDecided()
	if d.GetAbandoned() && d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING {
		return typesv1.TaskState_TASK_STATE_SHUTDOWN
	}
	return d.GetDesired()
}

// TaskReason says in words why the task is not running. It is empty while the task runs as it should.
func TaskReason(t *typesv1.Task, n *typesv1.Node) string {
	observed := t.GetObserved()
	switch state := TaskState(t, n); {
	case state == typesv1.TaskState_TASK_STATE_ORPHANED:
		return "its node was removed from the cluster"
	case Terminal(state) && state != typesv1.TaskState_TASK_STATE_COMPLETE && observed.GetMessage() == "" && observed.ExitCode != nil:
		return fmt.Sprintf("exit code %d", observed.GetExitCode())
	case Terminal(state) && observed.GetMessage() != "":
		return observed.GetMessage()
	case t.GetDecided().GetReason() != "":
		return t.GetDecided().GetReason()
	case n.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN && t.GetDecided().GetNodeId() != "":
		return "its node is down"
	case state == typesv1.TaskState_TASK_STATE_RUNNING:
		return ""
	case observed.GetMessage() != "":
		return observed.GetMessage()
	default:
		return onItsWay(state)
	}
}

// onItsWay are the words for a state of which nobody has said more. A job that is complete needs none.
func onItsWay(s typesv1.TaskState) string {
	switch s {
	case typesv1.TaskState_TASK_STATE_NEW, typesv1.TaskState_TASK_STATE_PENDING:
		return "waits for the scheduler"
	case typesv1.TaskState_TASK_STATE_ASSIGNED:
		return "waits for its node to take it on"
	case typesv1.TaskState_TASK_STATE_ACCEPTED:
		return "its node has taken it on"
	case typesv1.TaskState_TASK_STATE_PREPARING:
		return "gets its image"
	case typesv1.TaskState_TASK_STATE_READY:
		return "is prepared, and starts next"
	case typesv1.TaskState_TASK_STATE_STARTING:
		return "starts"
	case typesv1.TaskState_TASK_STATE_SHUTDOWN, typesv1.TaskState_TASK_STATE_REMOVE:
		return "was stopped"
	case typesv1.TaskState_TASK_STATE_FAILED:
		return "failed"
	case typesv1.TaskState_TASK_STATE_REJECTED:
		return "its node refused it"
	default:
		return ""
	}
}

// TaskName is "web.1", or "web.NODE" where each node has a task; when the service is gone its id stands for the name.
func TaskName(svc *typesv1.Service, t *typesv1.Task) string {
	name := svc.GetSpec().GetAnnotations().GetName()
	if name == "" {
		name = t.GetServiceId()
	}
	if node := t.GetDecided().GetForNode(); node != "" {
		return name + "." + node
	}
	return fmt.Sprintf("%s.%d", name, t.GetDecided().GetSlot())
}

// Counts are a service's figures: the slots that have a running task, and the replicas asked for; for a global service and
// a global job the nodes on which it is to run, for a job what may run at once. A task does not count when it was told to
// stop, or when its node is down or gone: it may run still, but nobody can say so.
func Counts(s *Snapshot, serviceID string) (running, desired uint64) {
	svc := s.Service(serviceID)
	perNode := svc.GetSpec().GetGlobal() != nil || svc.GetSpec().GetGlobalJob() != nil
	var last, lastNode *typesv1.TaskDecided
	for t := range s.TasksOfService(serviceID) { // in the order of slots, so equal ones are neighbours
		d := t.GetDecided()
		same := last != nil && last.GetSlot() == d.GetSlot() && last.GetIteration() == d.GetIteration()
		if counts(s, t) && (perNode || !same) {
			running++
			last = d
		}
		if perNode && d.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !Terminal(t.GetObserved().GetState()) &&
			(lastNode == nil || lastNode.GetForNode() != d.GetForNode()) {
			desired++
			lastNode = d
		}
	}
	if svc != nil && !perNode {
		desired = Replicas(svc)
	}
	return running, desired
}

func counts(s *Snapshot, t *typesv1.Task) bool {
	if t.GetObserved().GetState() != typesv1.TaskState_TASK_STATE_RUNNING ||
		DesiredState(t) > typesv1.TaskState_TASK_STATE_RUNNING {
		return false
	}
	n := s.Node(t.GetDecided().GetNodeId())
	return n != nil && n.GetStatus().GetState() != typesv1.NodeState_NODE_STATE_DOWN
}

// Replicas is the number of tasks that a replicated service asks for, or a replicated job at once; 1 when it does not say.
// Of one that scales by its load it is what that calls for, from min to max.
func Replicas(svc *typesv1.Service) uint64 {
	if j := svc.GetSpec().GetReplicatedJob(); j != nil {
		total := max(j.GetTotalCompletions(), 1)
		if j.GetMaxConcurrent() > 0 {
			return min(total, j.GetMaxConcurrent())
		}
		return total
	}
	r, want := svc.GetSpec().GetReplicated(), uint64(1)
	if r != nil && r.Replicas != nil {
		want = r.GetReplicas()
	}
	if a := svc.GetSpec().GetAutoscale(); a != nil {
		if svc.GetScale() != nil {
			want = svc.GetScale().GetReplicas()
		}
		want = min(max(want, a.GetMin()), a.GetMax())
	}
	return want
}

// SpecOf is the service's task spec of a version: the current one or one from its history; nil when it has left that.
func SpecOf(svc *typesv1.Service, version uint64) *typesv1.TaskSpec {
	if svc.GetSpecVersion() == version {
		return svc.GetSpec().GetTask()
	}
	for _, r := range svc.GetSpecHistory() {
		if r.GetVersion() == version {
			return r.GetTask()
		}
	}
	return nil
}

// RolledBack is the earlier task spec that is in force because a failed update has gone back to it by itself; nil while the
// service's own spec is in force. The spec stays what a person has asked for; the next update ends the rollback.
func RolledBack(svc *typesv1.Service) *typesv1.TaskSpec {
	st := svc.GetUpdateStatus()
	switch st.GetState() {
	case typesv1.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, typesv1.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED,
		typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED:
	default:
		return nil
	}
	if st.GetOfVersion() != svc.GetSpecVersion() || st.GetSpecVersion() == svc.GetSpecVersion() {
		return nil
	}
	return SpecOf(svc, st.GetSpecVersion())
}

// VersionBefore is the spec version that was in force before the present one, 0 if there was none. Versions whose update was
// never completed are passed over.
func VersionBefore(svc *typesv1.Service) uint64 {
	if len(svc.GetSpecHistory()) == 0 {
		return 0
	}
	st := svc.GetUpdateStatus()
	before := st.GetSpecVersion()
	done := st.GetState() == typesv1.UpdateState_UPDATE_STATE_COMPLETED || st.GetState() == typesv1.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED
	if !done || cmp.Or(st.GetOfVersion(), st.GetSpecVersion()) == svc.GetSpecVersion() {
		before = st.GetFromVersion()
	}
	if before == svc.GetSpecVersion() || SpecOf(svc, before) == nil {
		return svc.GetSpecHistory()[0].GetVersion()
	}
	return before
}

// Newer reports whether a message has fields that this build does not know: somebody of a newer version has written them.
func Newer(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) > 0 }

// IsJob reports whether a service's tasks are to run to completion.
func IsJob(svc *typesv1.Service) bool {
	return svc.GetSpec().GetReplicatedJob() != nil || svc.GetSpec().GetGlobalJob() != nil
}
