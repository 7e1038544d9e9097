package space

import (
	"fmt"
	"testing"

	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// TestCallersGoWithTheirService: what the tasks of a service share is not kept when the last one has left this machine.
func TestCallersGoWithTheirService(t *testing.T) {
	s := New(testx.Env(t), 16)
	var m *mesh.Model
	for i := range 3 {
		service := fmt.Sprint("s", i)
		r := &dispatcherv1.EndpointsResponse{
			Version: &typesv1.Version{Revision: uint64(i + 1)}, Full: i == 0,
			LocalTasks:        []*dispatcherv1.LocalTask{{TaskId: "of " + service, ServiceId: service, Addresses: []string{"10.128.1.10"}}},
			RemovedLocalTasks: []string{fmt.Sprint("of s", i-1)},
			Callers:           []*dispatcherv1.ServiceCallers{{ServiceId: service, Callers: &dispatcherv1.Callers{Prefixes: []string{"192.0.2.0/24"}}}},
		}
		var err error
		if m, err = m.Apply(r); err != nil {
			t.Fatal(err)
		}
		_ = s.Apply(t.Context(), m) // it waits for the agent
	}
	if len(s.callers) != 1 || s.callers["s2"] == nil {
		t.Errorf("kept are those of %d services, want that of s2 alone", len(s.callers))
	}
}
