// Package assign computes what one machine should run from a snapshot, and the difference between two such answers.
//
// It owns the shape of an assignment: a machine is told of its own tasks and of exactly what they need. It is pure: no
// clock, no I/O, no goroutine.
package assign

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Set is what one machine should run. It is never changed once made.
type Set struct {
	// Tasks by id.
	Tasks map[string]*dispatcherv1.AssignedTask
	// Blocks of the machine network.
	Blocks []string
	// History is the machine's tasks that have ended, by id: their output is kept.
	History []string

	sources map[string]source // of Tasks
}

// source is what an assigned task was made from. Objects of a snapshot are never changed, so the same pointers make the
// same task.
type source struct {
	task     *typesv1.Task
	service  *typesv1.Service
	networks uint64 // revision of the last change of any network
	logins   uint64 // and of any registry
	logs     *typesv1.LogDriver
}

// Of computes a machine's set. It takes over from prev what did not change, so that the difference is cheap, and the spec
// of tasks whose service, or version of it, is gone: they are still to be stopped as they were started.
func Of(s *state.Snapshot, nodeID string, prev *Set) *Set {
	set := &Set{Tasks: map[string]*dispatcherv1.AssignedTask{}, sources: map[string]source{}}
	networks := s.ChangedAt(typesv1.Kind_KIND_NETWORK)
	logins := s.ChangedAt(typesv1.Kind_KIND_REGISTRY)
	logs := s.Cluster().GetSpec().GetLogDriver()
	if n := s.Node(nodeID); n != nil {
		set.Blocks = n.GetBlocks()
	}
	for t := range s.TasksOfNode(nodeID) {
		// A task whose end is in the store is the machine's no more: it may forget it.
		if state.Terminal(t.GetObserved().GetState()) {
			set.History = append(set.History, t.GetMeta().GetId())
			continue
		}
		id := t.GetMeta().GetId()
		from := source{task: t, service: s.Service(t.GetServiceId()), networks: networks, logins: logins, logs: logs}
		old, oldFrom := prev.task(id)
		next := old
		if old == nil || oldFrom != from {
			if next = task(s, t, from.service, old); proto.Equal(old, next) {
				next = old
			}
		}
		set.Tasks[id], set.sources[id] = next, from
	}
	slices.Sort(set.History)
	return set
}

func (s *Set) task(id string) (*dispatcherv1.AssignedTask, source) {
	if s == nil {
		return nil, source{}
	}
	return s.Tasks[id], s.sources[id]
}

func task(s *state.Snapshot, t *typesv1.Task, svc *typesv1.Service, old *dispatcherv1.AssignedTask) *dispatcherv1.AssignedTask {
	a := &dispatcherv1.AssignedTask{
		TaskId:    t.GetMeta().GetId(),
		ServiceId: t.GetServiceId(),
		Slot:      t.GetDecided().GetSlot(),
		Desired:   t.GetDecided().GetDesired(),
		Addresses: t.GetDecided().GetAddresses(),
		Volumes:   t.GetDecided().GetVolumes(),
		Guarded:   len(svc.GetSpec().GetEndpoint().GetAllowFrom()) > 0 || svc == nil && old.GetGuarded(),
	}
	if a.GetDesired() > typesv1.TaskState_TASK_STATE_RUNNING {
		// Any revision from the stop decision on will do for the barrier; the first one seen is kept, or each status
		// report would put it off.
		a.StopRevision = t.GetMeta().GetRevision()
		if old.GetStopRevision() != 0 {
			a.StopRevision = old.GetStopRevision()
		}
	}
	spec := state.SpecOf(svc, t.GetSpecVersion())
	if spec == nil { // the service is gone, or this version has left its history
		a.ServiceName, a.Spec, a.SpecHash = old.GetServiceName(), old.GetSpec(), old.GetSpecHash()
		a.Networks, a.ServiceLabels, a.LogDriver = old.GetNetworks(), old.GetServiceLabels(), old.GetLogDriver()
		if a.GetServiceName() == "" {
			a.ServiceName = svc.GetSpec().GetAnnotations().GetName()
		}
		return a
	}
	a.ServiceName = svc.GetSpec().GetAnnotations().GetName()
	a.ServiceLabels = svc.GetSpec().GetAnnotations().GetLabels()
	a.Spec = spec
	if a.LogDriver = spec.GetLogDriver(); a.GetLogDriver().GetName() == "" {
		a.LogDriver = s.Cluster().GetSpec().GetLogDriver()
	}
	a.Login = s.LoginID(spec.GetContainer().GetImage())
	a.SpecHash = specHash(svc, t.GetSpecVersion())
	for _, at := range a.GetSpec().GetNetworks() {
		if n := s.Network(at.GetTarget()); n != nil {
			a.Networks = append(a.Networks, network(n, at.GetAliases()))
		}
	}
	return a
}

func specHash(svc *typesv1.Service, version uint64) []byte {
	if svc.GetSpecVersion() == version {
		return svc.GetSpecHash()
	}
	for _, r := range svc.GetSpecHistory() {
		if r.GetVersion() == version {
			return r.GetHash()
		}
	}
	return nil
}

func network(n *typesv1.Network, aliases []string) *dispatcherv1.AssignedNetwork {
	return &dispatcherv1.AssignedNetwork{
		Encrypted: n.GetSpec().GetEncrypted(),
		NetworkId: n.GetMeta().GetId(),
		Name:      n.GetSpec().GetAnnotations().GetName(),
		Vni:       n.GetIpam().GetVni(),
		Subnets:   n.GetIpam().GetSubnets(),
		Internal:  n.GetSpec().GetInternal(),
		Aliases:   aliases,
	}
}

// Full is the whole set as a message.
func Full(set *Set, generation *typesv1.Version) *dispatcherv1.Assignment {
	a := &dispatcherv1.Assignment{Generation: generation, Full: true, Blocks: set.Blocks, History: &dispatcherv1.History{Tasks: set.History}}
	for _, id := range sortedKeys(set.Tasks) {
		a.Tasks = append(a.Tasks, set.Tasks[id])
	}
	return a
}

// Diff is what leads from old to next, nil if nothing does.
func Diff(old, next *Set, generation *typesv1.Version) *dispatcherv1.Assignment {
	a := &dispatcherv1.Assignment{Generation: generation, Blocks: next.Blocks}
	for _, id := range sortedKeys(next.Tasks) {
		if old.Tasks[id] != next.Tasks[id] {
			a.Tasks = append(a.Tasks, next.Tasks[id])
		}
	}
	for _, id := range sortedKeys(old.Tasks) {
		if next.Tasks[id] == nil {
			a.RemovedTasks = append(a.RemovedTasks, id)
		}
	}
	if !slices.Equal(old.History, next.History) {
		a.History = &dispatcherv1.History{Tasks: next.History}
	}
	if len(a.Tasks) == 0 && len(a.RemovedTasks) == 0 && a.History == nil && slices.Equal(old.Blocks, next.Blocks) {
		return nil
	}
	return a
}

// HighestStop is the highest revision that a stopping task of the set waits for, 0 if none does.
func (s *Set) HighestStop() uint64 {
	var high uint64
	for _, t := range s.Tasks {
		high = max(high, t.GetStopRevision())
	}
	return high
}

// Payloads are the ids of the data of secrets and configs, and of the logins, that the set's tasks use, each once, in order.
func (s *Set) Payloads() []string {
	var out []string
	for _, t := range s.Tasks {
		if t.GetLogin() != "" {
			out = append(out, t.GetLogin())
		}
		for _, f := range state.FilesOf(t.GetSpec().GetContainer()) {
			out = append(out, state.PayloadID(f.GetId(), f.GetVersion()))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func sortedKeys(m map[string]*dispatcherv1.AssignedTask) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
