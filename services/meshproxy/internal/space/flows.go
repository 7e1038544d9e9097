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
// that can't be looked into is told in the error, beside the others.
func (s *Spaces) Flows(do func(container string, f tracked.Flow)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var faults []error
	for _, id := range slices.Sorted(maps.Keys(s.spaces)) {
		x := s.spaces[id]
		err := tracked.EachOf(int(x.socket.Fd()), func(f tracked.Flow) {
			if _, virtual := x.have[f.Dialled.Addr()]; virtual && f.Translated() {
				do(id, f)
			}
		})
		if err != nil {
			faults = append(faults, fmt.Errorf("container %s: %w", id, err))
		}
	}
	return errors.Join(faults...)
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
