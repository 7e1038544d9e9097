package mesh

import (
	"maps"
	"slices"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// restricted is a service that names who may call it.
type restricted struct {
	service *typesv1.Service
	callers []state.Caller
	on      map[string]bool // networks that it can be called on
}

// makeCallers says who may call the services that name someone; what has not changed keeps its pointers, and is made anew only when a task
// that may call, or the service, has changed. Services that name nobody cost a look each.
func (x *Shared) makeCallers(s *state.Snapshot, prev *Shared) {
	x.callers, x.from.callers = map[string]*dispatcherv1.ServiceCallers{}, map[string]made[*typesv1.Service]{}
	x.makeLeaving(s, prev)
	var all []restricted
	for svc := range x.known(s) {
		if list := svc.GetSpec().GetEndpoint().GetAllowFrom(); len(list) > 0 || svc.GetSpec() == nil {
			all = append(all, restrictedOf(s, svc, list))
		}
	}
	if len(all) == 0 {
		return
	}
	labelled := x.labels(s, all)
	for _, r := range all {
		id := r.service.GetMeta().GetId()
		of := made[*typesv1.Service]{r.service, x.may(s, r, labelled)}
		x.from.callers[id] = of
		if old := prev.callers[id]; old != nil && prev.from.callers[id].same(of.of, of.tasks) {
			x.callers[id] = old
			continue
		}
		m := &dispatcherv1.ServiceCallers{ServiceId: id, Callers: &dispatcherv1.Callers{Prefixes: prefixes(r, of.tasks)}}
		keep(x.callers, prev.callers, id, m)
	}
}

// restrictedOf leaves out what it cannot read: nobody is let in by it.
func restrictedOf(s *state.Snapshot, svc *typesv1.Service, list []string) restricted {
	r := restricted{service: svc, on: map[string]bool{"": true}}
	for _, text := range list {
		if c, err := state.ParseCaller(text); err == nil {
			r.callers = append(r.callers, c)
		}
	}
	for _, a := range svc.GetSpec().GetTask().GetNetworks() {
		r.on[a.GetTarget()] = true
	}
	for t := range s.TasksOfService(svc.GetMeta().GetId()) { // an earlier spec may have had others
		for _, a := range t.GetDecided().GetAddresses() {
			r.on[a.GetNetworkId()] = true
		}
	}
	return r
}

// labels finds the services that have a label which somebody asks for, all in one walk.
func (x *Shared) labels(s *state.Snapshot, all []restricted) map[string][]*typesv1.Service {
	out := map[string][]*typesv1.Service{}
	for _, r := range all {
		for _, c := range r.callers {
			if c.Label != "" {
				out[c.Label] = nil
			}
		}
	}
	if len(out) == 0 {
		return out
	}
	for svc := range x.known(s) {
		for label := range svc.GetSpec().GetAnnotations().GetLabels() {
			if _, asked := out[label]; asked {
				out[label] = append(out[label], svc)
			}
		}
	}
	return out
}

// may are the tasks that may call, and all of the service's own.
func (x *Shared) may(s *state.Snapshot, r restricted, labelled map[string][]*typesv1.Service) (out []*typesv1.Task) {
	tasks := func(svc *typesv1.Service) {
		for t := range s.TasksOfService(svc.GetMeta().GetId()) {
			out = append(out, t)
		}
	}
	tasks(r.service)
	for _, c := range r.callers {
		switch {
		case c.Prefix.IsValid():
		case c.Label != "":
			for _, svc := range labelled[c.Label] {
				if c.Is(svc) {
					tasks(svc)
				}
			}
		default:
			if svc := s.ServiceByName(c.Service); svc != nil {
				tasks(svc)
			}
			for _, svc := range x.from.leaving {
				if c.Is(svc) {
					tasks(svc)
				}
			}
		}
	}
	return out
}

// prefixes are the addresses of all who may call, in order: of each task that has a machine, from the moment it has one, so that
// its first call is let in.
func prefixes(r restricted, tasks []*typesv1.Task) []string {
	out := map[string]bool{}
	for _, t := range tasks {
		if t.GetDecided().GetNodeId() == "" || state.Terminal(t.GetObserved().GetState()) {
			continue
		}
		for _, a := range t.GetDecided().GetAddresses() {
			if !r.on[a.GetNetworkId()] {
				continue
			}
			for _, text := range bare(a.GetAddresses()) {
				out[text] = true
			}
		}
	}
	for _, c := range r.callers {
		if c.Prefix.IsValid() {
			out[c.String()] = true
		}
	}
	return slices.Sorted(maps.Keys(out))
}

// callersOf are those of the services of a machine's tasks.
func callersOf(local map[string]*dispatcherv1.LocalTask, shared *Shared) map[string]*dispatcherv1.ServiceCallers {
	out := map[string]*dispatcherv1.ServiceCallers{}
	for _, task := range local {
		if c := shared.callers[task.GetServiceId()]; c != nil {
			out[c.GetServiceId()] = c
		}
	}
	return out
}
