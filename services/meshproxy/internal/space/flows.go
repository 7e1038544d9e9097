package space

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/shoalproject/shoal/services/meshproxy/internal/tracked"
)

// Flows hands on the connections that containers of this machine have to virtual addresses, with the container's id. A container
// that can't be looked into is told in the error, beside the others. The tables can change between two containers, and while
// connections are handed on: those of one container are kept until then.
func (s *Spaces) Flows(do func(container string, f tracked.Flow)) error {
	var faults []error
	for _, id := range s.ids() {
		flows, err := s.flowsOf(id)
		if err != nil {
			faults = append(faults, fmt.Errorf("container %s: %w", id, err))
		}
		for _, f := range flows {
			do(id, f)
		}
	}
	return errors.Join(faults...)
}

func (s *Spaces) ids() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.spaces))
}

// flowsOf are none for a container that has gone meanwhile.
func (s *Spaces) flowsOf(id string) (out []tracked.Flow, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.spaces[id]
	if x == nil {
		return nil, nil
	}
	err = tracked.EachOf(int(x.socket.Fd()), func(f tracked.Flow) {
		if _, virtual := x.have[f.Dialled.Addr()]; virtual && f.Translated() {
			out = append(out, f)
		}
	})
	return out, err
}

// Behind are the backends in force of a virtual address, by the containers that may dial it.
func (s *Spaces) Behind(vip netip.Addr) map[string][]netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]netip.Addr{}
	for id, x := range s.spaces {
		if backends, there := x.have[vip]; there {
			out[id] = backends
		}
	}
	return out
}
