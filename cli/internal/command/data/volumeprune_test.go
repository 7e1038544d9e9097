package data

import (
	"testing"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestMounted: a service is tied to the volumes of its spec and of earlier ones, and not to what only looks like them.
func TestMounted(t *testing.T) {
	spec := func(mounts ...*typesv1.Mount) *typesv1.TaskSpec {
		return &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Mounts: mounts}}
	}
	var m mounted
	m.add(&typesv1.Service{
		Spec: &typesv1.ServiceSpec{Task: spec(
			&typesv1.Mount{Source: "now"},
			&typesv1.Mount{Source: "a-{{.Node.Hostname}}-{{.Task.Slot}}-z", Type: typesv1.MountType_MOUNT_TYPE_VOLUME},
			&typesv1.Mount{Source: "slot", Volume: &typesv1.VolumeOptions{Scope: typesv1.VolumeScope_VOLUME_SCOPE_SLOT}},
			&typesv1.Mount{Source: "/bind", Type: typesv1.MountType_MOUNT_TYPE_BIND},
			&typesv1.Mount{Target: "/ends-with-the-task"},
		)},
		SpecHistory: []*typesv1.SpecRecord{{Task: spec(&typesv1.Mount{Source: "before"})}},
	})
	for name, want := range map[string]bool{
		"now": true, "before": true, "a-m1-2-z": true, "a-m1-2-y": false, "b-m1-2-z": false, "slot": false, "/bind": false, "": false, "other": false,
	} {
		if got := m.has(name); got != want {
			t.Errorf("has(%q) = %v, want %v", name, got, want)
		}
	}
}
