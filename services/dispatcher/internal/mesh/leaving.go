package mesh

import (
	"iter"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// makeLeaving finds the services that were removed while tasks of theirs stop. Until those have ended they are called, and call, as
// was said last: a task must not be open to everybody in its last minutes. Of services that were removed before this process has
// come nobody knows who might call; they are there without a spec, and only their own tasks are let in.
func (x *Shared) makeLeaving(s *state.Snapshot, prev *Shared) {
	x.from.leaving, x.from.snapshot = map[string]*typesv1.Service{}, s
	keep := func(svc *typesv1.Service) {
		if id := svc.GetMeta().GetId(); s.Service(id) == nil && runs(s, id) {
			x.from.leaving[id] = svc
		}
	}
	old := prev.from.snapshot
	if old == nil {
		for t := range s.Tasks() {
			if id := t.GetServiceId(); x.from.leaving[id] == nil {
				keep(&typesv1.Service{Meta: &typesv1.Meta{Id: id}})
			}
		}
		return
	}
	for _, svc := range prev.from.leaving {
		keep(svc)
	}
	keys, ok := s.ChangedSince(old.Version())
	if !ok { // too long ago: all are looked at
		for svc := range old.Services() {
			keep(svc)
		}
		return
	}
	for _, key := range keys {
		if svc := old.Service(key.ID); key.Kind == typesv1.Kind_KIND_SERVICE && svc != nil {
			keep(svc)
		}
	}
}

// runs says that some task of a service has not ended.
func runs(s *state.Snapshot, service string) bool {
	for t := range s.TasksOfService(service) {
		if !state.Terminal(t.GetObserved().GetState()) {
			return true
		}
	}
	return false
}

// known are the services that are there, and those that leave.
func (x *Shared) known(s *state.Snapshot) iter.Seq[*typesv1.Service] {
	return func(yield func(*typesv1.Service) bool) {
		for svc := range s.Services() {
			if !yield(svc) {
				return
			}
		}
		for _, svc := range x.from.leaving {
			if !yield(svc) {
				return
			}
		}
	}
}
