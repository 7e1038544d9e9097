// Package version compares the versions of a service's task spec.
//
// It owns the rule of what calls for new tasks. It is pure.
package version

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Same reports whether tasks of two versions are the same: equal hashes, or a difference only in where they may run.
func Same(svc *typesv1.Service, a, b uint64) bool {
	if Equal(svc, a, b) {
		return true
	}
	x, y := state.SpecOf(svc, a), state.SpecOf(svc, b)
	if x == nil || y == nil || proto.Equal(x.GetPlacement(), y.GetPlacement()) {
		return false // nothing is known of one, or the difference is elsewhere
	}
	return proto.Equal(anywhere(x), anywhere(y))
}

// Equal reports whether two versions are one spec, as far as their hashes say.
func Equal(svc *typesv1.Service, a, b uint64) bool {
	x, y := hashOf(svc, a), hashOf(svc, b)
	return len(x) > 0 && bytes.Equal(x, y)
}

// anywhere is a spec without its placement.
func anywhere(s *typesv1.TaskSpec) *typesv1.TaskSpec {
	return &typesv1.TaskSpec{Container: s.GetContainer(), Restart: s.GetRestart(), Networks: s.GetNetworks(),
		Resources: s.GetResources(), ForceUpdate: s.GetForceUpdate()}
}

func hashOf(svc *typesv1.Service, version uint64) []byte {
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
