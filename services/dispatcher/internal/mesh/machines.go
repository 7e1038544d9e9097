package mesh

import (
	"maps"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// makeMachines looks at the machines that have changed since prev, and reports whether the same ones are heard as before. In a
// stampede of thousands each new session changes a machine and nothing that others are told of it: that must cost what one
// machine does, not what all of them do.
func (x *Shared) makeMachines(s *state.Snapshot, prev *Shared) (sameHeard bool) {
	machines := patch[*dispatcherv1.MeshMachine]{m: prev.Machines}
	heard := patch[bool]{m: prev.from.heard}
	for id := range changedMachines(s, prev) {
		n := s.Node(id)
		if n == nil {
			machines.drop(id)
			heard.drop(id)
			continue
		}
		if m := machine(n); !proto.Equal(m, machines.m[id]) {
			machines.put(id, m)
		}
		now, known := hears(n)
		was, had := heard.m[id]
		switch {
		case !known:
			heard.drop(id)
		case !had || was != now:
			heard.put(id, now)
		}
	}
	x.Machines, x.from.heard = machines.m, heard.m
	return !heard.own
}

// hears tells whether a machine is heard; known is false when its tasks do not run for all we know.
func hears(n *typesv1.Node) (now, known bool) {
	switch n.GetStatus().GetState() {
	case typesv1.NodeState_NODE_STATE_READY:
		return true, true
	case typesv1.NodeState_NODE_STATE_SUSPECT:
		return false, true
	default:
		return false, false
	}
}

// changedMachines are those that may be others than in prev, or gone: all of both when nobody knows.
func changedMachines(s *state.Snapshot, prev *Shared) map[string]struct{} {
	ids := map[string]struct{}{}
	keys, known := s.ChangedSince(prev.Version)
	for _, k := range keys {
		if k.Kind == typesv1.Kind_KIND_NODE {
			ids[k.ID] = struct{}{}
		}
	}
	if known {
		return ids
	}
	for id := range prev.Machines {
		ids[id] = struct{}{}
	}
	for n := range s.Nodes() {
		ids[n.GetMeta().GetId()] = struct{}{}
	}
	return ids
}

// patch is a map that others hold: it is copied with the first change.
type patch[V any] struct {
	m   map[string]V
	own bool
}

func (p *patch[V]) change() {
	if p.own {
		return
	}
	if p.m, p.own = maps.Clone(p.m), true; p.m == nil {
		p.m = map[string]V{}
	}
}

func (p *patch[V]) put(id string, v V) {
	p.change()
	p.m[id] = v
}

func (p *patch[V]) drop(id string) {
	if _, has := p.m[id]; has {
		p.change()
		delete(p.m, id)
	}
}
